//! The demo, as `./dev demo` runs it: its figures are what they must be.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails says why")]

#[path = "../cluster/mod.rs"]
mod cluster;
#[path = "../demo/mod.rs"]
mod demo;
#[path = "../lab/mod.rs"]
mod lab;

use serde_json::Value;

#[test]
fn the_demo_shows_what_it_promises() {
    let facts = demo::run();
    assert_eq!(facts.wrong(), [""; 0], "{}", facts.line());
    let line: Value = serde_json::from_str(&facts.line()).unwrap();
    let even = serde_json::json!({ "a": 10, "b": 10, "c": 10 });
    assert_eq!((&line["logins"], &line["live"], &line["invites"]), (&30.into(), &30.into(), &30.into()));
    assert_eq!((&line["per_node"], &line["spread"], &line["channels_left"]), (&even, &0.into(), &0.into()));
    assert!(line["left_rotation_ms"].as_u64().is_some_and(|ms| ms < 1_000), "{line}");
    assert!(!facts.line().contains('\n'));
}
