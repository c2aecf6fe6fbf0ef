//! What Prometheus and Grafana are given, judged by Prometheus's own `promtool`.
//!
//! Owns the reading of the alert rules and of the dashboard. Must never know what a metric means.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that fails says why")]

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where the files lie.
pub fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/monitoring").join(name)
}

/// Runs promtool; whether it was content, and what it said.
pub fn promtool(arguments: &[&str], input: &str) -> (bool, String) {
    let mut command = Command::new("promtool");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("promtool must be installed for this test: run ./dev setup");
    child.stdin.take().expect("its input").write_all(input.as_bytes()).expect("promtool reads");
    let output = child.wait_with_output().expect("promtool ends");
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

/// All expressions of the dashboard, with its variables filled in.
pub fn dashboard() -> Vec<String> {
    let text = std::fs::read_to_string(shipped("dashboard.json")).expect("the dashboard");
    let dashboard: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().expect("targets"));
    let expressions = targets.map(|target| target["expr"].as_str().expect("an expression"));
    expressions.map(|text| text.replace("$__rate_interval", "5m").replace("$instance", ".*")).collect()
}

/// The names of our metrics in a text.
fn names(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("evenring_")).map(str::to_owned).collect()
}

/// `promtool` has nothing to say against a page of metrics, and would have.
pub fn is_well_formed(page: &str) {
    let (fine, said) = promtool(&["check", "metrics"], page);
    assert!(fine && said.is_empty(), "{said}\n{page}");
    let (fine, said) = promtool(&["check", "metrics"], &page.replace("# HELP evenring_channels", "# HELLO"));
    assert!(!fine && said.contains("evenring_channels no help text"), "this test would not see a bad name: {said}");
}

/// Every metric that an alert or a panel asks for is on the page.
pub fn has_all_that_is_asked_for(page: &str) {
    let alerts = std::fs::read_to_string(shipped("alerts.yml")).expect("the alerts");
    let asked = names(&[alerts, dashboard().join("\n")].concat());
    let there = names(page);
    assert!(asked.len() > 25, "only {asked:?} are asked for");
    let missing: Vec<_> = asked.difference(&there).collect();
    assert!(missing.is_empty(), "nobody measures {missing:?}");
}
