//! The entry point. Must never decide anything.

fn main() -> std::process::ExitCode {
    evenring::cli::main()
}
