//! The HTTP API does what `/openapi.json` says of it: schemathesis reads the description, and asks for all that it allows and
//! for much that it does not, with each scope and with no token.
//!
//! Owns the run of that program. Must never leave out a check.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that fails says why")]

#[path = "../api_client/mod.rs"]
mod api_client;
#[path = "../api_client/house.rs"]
mod house;
#[path = "../lab/mod.rs"]
mod lab;
#[path = "../load_nodes/mod.rs"]
mod load_nodes;

use std::path::Path;
use std::process::Command;

use house::House;

/// Requests that are made up for one operation, for each of its checks.
const EXAMPLES: &str = "25";
/// With fewer requests in all, it has not read the description.
const LEAST: u32 = 300;

/// Runs it with this token; `None`: with none.
fn schemathesis(house: &House, dir: &Path, description: &Path, token: Option<&str>) {
    let mut command = Command::new(lab::cache().join("python/bin/st"));
    command.args(["run", "--no-color"]).arg(description).args(["--url", &format!("http://{}", house.address)]);
    // The stream of events has no end that could be waited for.
    command.args(["--checks", "all", "--exclude-path", "/v1/events", "--max-examples", EXAMPLES, "--seed", "1"]);
    command.args(["--request-timeout", "40", "--generation-database", "none"]);
    // In the folder of the run, where it is found.
    std::fs::write(dir.join("schemathesis.toml"), include_str!("../clients/schemathesis.toml")).unwrap();
    if let Some(token) = token {
        command.args(["--header", &format!("Authorization: Bearer {}", house.tokens[token])]);
    }
    let output = command.current_dir(dir).output().expect("schemathesis, which ./dev setup installs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{token:?}: {said}\n{}", String::from_utf8_lossy(&output.stderr));
    // `813 generated, 813 passed, 10 skipped`: it has asked, and what it skips is not worth mentioning.
    let line = said.lines().find(|line| line.contains(" generated, ")).unwrap_or_else(|| panic!("{token:?}: {said}"));
    let numbers: Vec<u32> = line.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok()).collect();
    let (generated, skipped) = (numbers[0], numbers.get(2).copied().unwrap_or(0));
    assert!(generated == numbers[1] && generated > LEAST && skipped < generated / 20, "{token:?}: {line}");
    eprintln!("{token:?}:{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_does_what_its_description_says_with_each_scope_and_none() {
    let rates = "token_rate = 100000\naddress_rate = 100000";
    let (house, dir) = (House::start(rates).await, tempfile::tempdir().unwrap());
    let description = dir.path().join("openapi.json");
    std::fs::write(&description, house.client("reader").get("/openapi.json").body).unwrap();
    for token in [None, Some("reader"), Some("crm"), Some("holder"), Some("boss")] {
        schemathesis(&house, dir.path(), &description, token);
    }
    let log = house.daemon.log();
    assert!(house.tokens.values().all(|token| !log.contains(token.as_str())), "a token is in the log");
    assert!(!log.contains(|c: char| c.is_control() && c != '\n'), "a control character is in the log");
}
