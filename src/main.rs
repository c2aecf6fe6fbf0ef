//! Arguments to a verb, and a verb's outcome to an exit code. Must never decide anything else.

fn main() -> std::process::ExitCode {
    evenring::cli::main()
}
