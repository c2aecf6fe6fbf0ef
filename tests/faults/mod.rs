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

mod clock;
pub mod crowd;
pub mod judge;
pub mod report;
pub mod round;
pub mod soak;
pub mod stage;
pub mod table;

use round::{Fault, Outcome};
use stage::Stage;

/// Plays these, one after the other, on one stage.
pub fn play(stage: &mut Stage, faults: &[Fault]) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    for fault in faults {
        let outcome = round::play(stage, fault);
        println!("{}", report::progress(&outcome));
        for violation in &outcome.violations {
            eprintln!("  {violation}");
        }
        outcomes.push(outcome);
    }
    outcomes
}

/// A seed that nobody had before.
pub fn any_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish() % 1_000_000
}
