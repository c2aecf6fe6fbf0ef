//! The simulation, a chunk of it: the promises hold on the real node machine, and each planted bug is found.
//!
//! Owns how much is run here; `./dev sim` runs more. Must never know what is checked: `simulation/check.rs` does.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that fails says why")]

#[path = "../simulation/mod.rs"]
mod simulation;

use simulation::{Options, Plant, Report, run};

/// Steps without a planted bug.
const STEPS: u64 = 500_000;
/// Within so many steps each planted bug is found.
const FOUND_WITHIN: u64 = 10_000_000;

fn steps(seed: u64, steps: u64, plant: Option<Plant>) -> Report {
    run(Options { seed, steps, plant }, |_| {})
}

#[test]
fn the_promises_hold() {
    let report = steps(1, STEPS, None);
    if let Some(broken) = report.violation {
        let trace = broken.trace.join("\n");
        panic!("{trace}\n{}\nreplay: ./dev sim --seed {} --steps {}", broken.what, broken.seed, broken.steps);
    }
    assert_eq!(report.steps, STEPS);
    // It did something.
    let (logins, faults) = (report.logins, report.faults);
    assert!(report.moves > 100, "only {} moves", report.moves);
    assert!(logins > 3_000 && report.invites > 3_000 && faults > 3_000, "only {logins} logins and {faults} faults");
}

#[test]
fn the_same_seed_does_the_same() {
    let facts =
        |report: Report| (report.steps, report.episodes, report.logins, report.invites, report.drifts, report.seconds);
    assert_eq!(facts(steps(5, 30_000, None)), facts(steps(5, 30_000, None)));
    assert_ne!(facts(steps(5, 30_000, None)), facts(steps(6, 30_000, None)));
}

/// The bug is found, and says so with the promise that it breaks.
#[track_caller]
fn check(plant: Plant, promises: &[&str]) {
    check_from(1, plant, promises);
}

#[track_caller]
fn check_from(seed: u64, plant: Plant, promises: &[&str]) {
    let report = steps(seed, FOUND_WITHIN, Some(plant));
    let found = report.violation.unwrap_or_else(|| panic!("{plant:?} is not found in {FOUND_WITHIN} steps"));
    println!("{plant:?} is found after {} steps: {}", report.steps, found.what);
    assert!(promises.iter().any(|promise| found.what.starts_with(promise)), "{}", found.what);
    let again = steps(found.seed, found.steps, Some(plant)).violation.expect("the replay finds it, too");
    assert_eq!((again.what, again.steps), (found.what, found.steps));
}

#[test]
fn a_redis_that_believes_old_generations_is_found() {
    check(Plant::Fence, &["P6"]);
}

#[test]
fn a_placement_that_does_not_reserve_is_found() {
    check(Plant::Reservation, &["P2"]);
}

#[test]
fn a_lease_that_the_clock_ends_is_found() {
    check(Plant::Hasty, &["P14"]);
}

#[test]
fn a_daemon_that_rings_what_it_took_before_it_stood_still_is_found() {
    check(Plant::Sleeper, &["P6"]);
}

#[test]
fn a_clock_that_steps_unnoticed_is_found() {
    check(Plant::Timeless, &["P3", "P4", "P8"]);
}

#[test]
fn an_order_that_nobody_took_and_that_fails_is_found() {
    check_from(2_000, Plant::Impatient, &["P4"]);
}

#[test]
fn a_heartbeat_that_comes_after_its_daemon_left_is_found() {
    check(Plant::Unnumbered, &["P6"]);
}

#[test]
fn an_originate_that_is_sent_again_is_found() {
    check(Plant::Resend, &["P1"]);
}
