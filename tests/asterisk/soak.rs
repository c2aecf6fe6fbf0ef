//! The soak, as `./dev soak` runs it: three minutes, or as many as EVENRING_SOAK_MINUTES says.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that fails says why")]

#[path = "../faults/mod.rs"]
mod faults;
#[path = "../lab/mod.rs"]
mod lab;

use std::time::Duration;

use faults::{ground::Ground, setup::Setup, soak};

const MINUTES: u64 = 3;

#[test]
fn people_come_and_go_through_faults_and_nothing_is_lost_or_grows() {
    let minutes = std::env::var("EVENRING_SOAK_MINUTES").map_or(MINUTES, |text| text.parse().unwrap());
    let seed = faults::any_seed();
    println!("replay: ./dev soak --minutes {minutes} --seed {seed}");
    let soaked = soak::run(&mut Setup::set(Ground::Sentinel), Duration::from_secs(minutes * 60), seed);
    println!("{}", soaked.line());
    assert_eq!(soaked.wrong(), [""; 0]);
    let line: serde_json::Value = serde_json::from_str(&soaked.line()).unwrap();
    assert!(line["faults"].as_u64() > Some(minutes * 2) && line["logins"].as_u64() > Some(minutes * 30), "{line}");
}
