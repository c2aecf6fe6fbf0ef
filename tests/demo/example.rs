//! The program behind `./dev demo`: arguments to the show, the figures to an exit code.
//!
//! Owns nothing but that. Must never know what is shown, which is [`demo`], nor how a demo is kept up, which is [`keep`].
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a demo prints")]

use std::ffi::OsString;
use std::io::stdout;
use std::os::unix::process::CommandExt as _;
use std::process::ExitCode;

#[path = "../cluster/mod.rs"]
mod cluster;
#[path = "mod.rs"]
mod demo;
#[path = "keep.rs"]
mod keep;
#[path = "../lab/mod.rs"]
mod lab;

use keep::Keeper;

/// `demo`, the whole show, and `demo stay`, its beginning, run inside a sandbox; the others run outside of it.
fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(|word| word.to_str().unwrap_or_default()).collect();
    let done = match words[..] {
        [] => return show(),
        ["stay"] => return demo::keep(),
        ["absent", dir] => Keeper::new(dir).absent(),
        ["keep", dir, _, ..] => Keeper::new(dir).keep(&arguments[2..], &mut stdout()),
        ["exec", dir, _, ..] => Keeper::new(dir)
            .exec(&arguments[2..])
            .and_then(|mut command| Err(format!("nsenter cannot be started: {}", command.exec()))),
        ["stop", dir] => Keeper::new(dir).stop(&mut stdout()),
        _ => Err("usage: demo [stay | absent DIR | keep DIR COMMAND... | exec DIR COMMAND... | stop DIR]".to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("dev: {why}");
            ExitCode::FAILURE
        }
    }
}

fn show() -> ExitCode {
    let facts = demo::run();
    println!("{}", facts.line());
    let wrong = facts.wrong();
    for line in &wrong {
        eprintln!("demo: {line}");
    }
    if wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
