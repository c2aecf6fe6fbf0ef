//! The program behind `./dev sim`: arguments to a run, its report to an exit code.
//!
//! Owns nothing but that, and the clock by which it says how fast it was. Must never decide what is right.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program prints")]
#![allow(clippy::expect_used, reason = "arguments that cannot be read end it")]

use std::process::ExitCode;

#[path = "mod.rs"]
mod simulation;

use simulation::{Options, Plant, Report, run};

const USAGE: &str = "usage: sim [--steps N] [--seed S] \
    [--plant fence|reservation|resend|hasty|sleeper|timeless|impatient|unnumbered]";
const STEPS: u64 = 10_000_000;
/// Lines of the trace that are shown.
const SHOWN: usize = 60;
/// Between two lines of progress, in ms.
const PROGRESS_MS: u128 = 2_000;

fn options(mut arguments: impl Iterator<Item = String>) -> Option<Options> {
    let mut options = Options { seed: 1, steps: STEPS, plant: None };
    while let Some(argument) = arguments.next() {
        let value = arguments.next()?;
        match argument.as_str() {
            "--steps" => options.steps = value.parse().ok()?,
            "--seed" => options.seed = value.parse().ok()?,
            "--plant" => options.plant = Some(Plant::ALL.into_iter().find(|(name, _)| *name == value)?.1),
            _ => return None,
        }
    }
    Some(options)
}

fn explain(report: &Report, plant: &str) {
    let Some(violation) = &report.violation else { return };
    let shown = violation.trace.len().saturating_sub(SHOWN);
    for line in &violation.trace[shown..] {
        eprintln!("{line}");
    }
    eprintln!("\nbroken after {} steps: {}", report.steps, violation.what);
    eprintln!("replay: ./dev sim --seed {} --steps {}{plant}", violation.seed, violation.steps);
}

#[expect(clippy::disallowed_methods, reason = "it says how fast it was")]
fn main() -> ExitCode {
    let Some(options) = options(std::env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let begin = std::time::Instant::now();
    let mut told = 0;
    let report = run(options, |report| {
        let passed = begin.elapsed().as_millis();
        if passed / PROGRESS_MS > told {
            told = passed / PROGRESS_MS;
            eprintln!("{} steps, {} episodes, {} logins", report.steps, report.episodes, report.logins);
        }
    });
    let plant = Plant::ALL.into_iter().find(|(_, plant)| Some(*plant) == options.plant);
    explain(&report, &plant.map(|(name, _)| format!(" --plant {name}")).unwrap_or_default());
    let per_second = u128::from(report.steps) * 1000 / begin.elapsed().as_millis().max(1);
    println!(
        "{{\"steps\":{},\"violations\":{},\"seed\":{},\"episodes\":{},\"logins\":{},\"invites\":{},\"faults\":{},\"drifts\":{},\"excused\":{},\
         \"simulated_s\":{},\"steps_per_s\":{per_second}}}",
        report.steps,
        u8::from(report.violation.is_some()),
        options.seed,
        report.episodes,
        report.logins,
        report.invites,
        report.faults,
        report.drifts,
        report.excused,
        report.seconds,
    );
    if report.violation.is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
