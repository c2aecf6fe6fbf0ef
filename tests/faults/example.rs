//! The program behind `./dev faults` and `./dev soak`: arguments to a run, its outcome to an exit code.
//!
//! Owns nothing but that. Must never decide what is right.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program prints")]

use std::process::ExitCode;
use std::time::Duration;

#[path = "mod.rs"]
mod faults;
#[path = "../lab/mod.rs"]
mod lab;

use faults::{ground::Ground, report, setup::Setup, soak};

const USAGE: &str = "usage: faults [NAME] | soak --minutes N [--seed S]";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["faults"] => faults(""),
        ["faults", filter] => faults(filter),
        ["soak", "--minutes", minutes] => soak(minutes.parse().ok(), Some(faults::any_seed())),
        ["soak", "--minutes", minutes, "--seed", seed] => soak(minutes.parse().ok(), seed.parse().ok()),
        _ => usage(),
    }
}

fn usage() -> ExitCode {
    eprintln!("{USAGE}");
    ExitCode::from(2)
}

fn code(good: bool) -> ExitCode {
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn faults(filter: &str) -> ExitCode {
    let all: Vec<&str> = faults::all().into_iter().map(|(name, _)| name).collect();
    let chosen: Vec<&str> = all.iter().filter(|name| name.contains(filter)).copied().collect();
    if chosen.is_empty() {
        eprintln!("no fault has {filter:?} in its name; there are: {}", all.join(" "));
        return ExitCode::from(2);
    }
    let begin = lab::now();
    let outcomes = faults::play(&chosen);
    println!("\n{}\n", report::table(&outcomes));
    println!("{}", report::line(&outcomes, begin.elapsed()));
    code(outcomes.iter().all(|outcome| outcome.violations.is_empty()))
}

fn soak(minutes: Option<u64>, seed: Option<u64>) -> ExitCode {
    let (Some(minutes @ 1..), Some(seed)) = (minutes, seed) else { return usage() };
    println!("{minutes} minutes, seed {seed}");
    let soaked = soak::run(&mut Setup::set(Ground::Sentinel), Duration::from_secs(minutes * 60), seed);
    let wrong = soaked.wrong();
    for line in &wrong {
        eprintln!("soak: {}", line.lines().next().unwrap_or_default());
    }
    println!("{}", soaked.line());
    code(wrong.is_empty())
}
