//! The program behind `./dev demo`: arguments to the show, the figures to an exit code.
//!
//! Owns nothing but that. Must never know what is shown: that is [`demo`], which the tests run as well.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a demo prints")]

use std::process::ExitCode;

#[path = "../cluster/mod.rs"]
mod cluster;
#[path = "mod.rs"]
mod demo;
#[path = "../lab/mod.rs"]
mod lab;

fn main() -> ExitCode {
    if std::env::args().any(|argument| argument == "--keep") {
        return demo::keep();
    }
    let facts = demo::run();
    println!("{}", facts.line());
    let wrong = facts.wrong();
    for line in &wrong {
        eprintln!("demo: {line}");
    }
    if wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
