//! The fault suite: real Asterisks, real Redis behind real sentinels, cables that are pulled; agents are live and others
//! log in when each fault strikes, and one judge looks at what is left.
//!
//! Owns the order of the rounds. Must never forgive.
#![allow(dead_code, unreachable_pub, missing_docs, reason = "the programs and the tests each use their own part")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it tells how far it is")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a stage that cannot be set ends, and says why"
)]

pub mod callers;
mod clock;
pub mod far;
pub mod ground;
pub mod judge;
mod mistakes;
mod outages;
pub mod report;
pub mod round;
pub mod setup;
pub mod soak;
mod stops;
pub mod table;

#[path = "../load_nodes/mod.rs"]
mod load_nodes;

use ground::Ground;
use round::{Fault, Outcome};
use setup::Setup;

/// Name and words of each round that there is.
pub fn all() -> Vec<(&'static str, &'static str)> {
    let mut all: Vec<_> = table::all().iter().map(|fault| (fault.name, fault.what)).collect();
    all.push((far::NAME, far::WHAT));
    all
}

/// Plays those with these names, one after the other; each stage is set once.
pub fn play(names: &[&str]) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    let faults: Vec<Fault> = table::all().into_iter().filter(|fault| names.contains(&fault.name)).collect();
    for ground in Ground::ALL {
        let here: Vec<Fault> = faults.iter().filter(|fault| fault.ground == ground).copied().collect();
        if !here.is_empty() {
            println!("three Asterisks start, {}, {} phones", ground.words(), ground.phones());
            outcomes.extend(play_on(&mut Setup::set(ground), &here));
        }
    }
    if names.contains(&far::NAME) {
        outcomes.push(tell(far::play()));
    }
    outcomes
}

/// The same on a stage that is set.
pub fn play_on(stage: &mut Setup, faults: &[Fault]) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    for fault in faults {
        outcomes.push(tell(round::play(stage, fault)));
    }
    outcomes
}

fn tell(outcome: Outcome) -> Outcome {
    println!("{}", report::progress(&outcome));
    for violation in &outcome.violations {
        eprintln!("  {violation}");
    }
    outcome
}

/// A seed that nobody had before.
pub fn any_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish() % 1_000_000
}
