//! `evenring events` on real Asterisks: the event stream of one login from click to hang-up, who may filter what, and a node that
//! dies and comes back. In order, and nothing twice.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails says why")]

#[path = "../cluster/mod.rs"]
mod cluster;
#[path = "../lab/mod.rs"]
mod lab;

use std::time::Duration;

use cluster::{Cluster, SOON};
use lab::evenring::Sections;
use lab::phone::{Behaviour, Phones};
use lab::{Lab, Spec, Version, wait_for, wait_until};
use serde_json::Value;

const AUTO: &str = "[ring]\ntimeout = \"4s\"\n[placement]\nrejoin = \"auto\"\n";

fn spec(name: &'static str) -> Spec {
    Spec { name, version: Version::V22, endpoints: 10 }
}

fn read(lines: &str) -> Vec<Value> {
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// `evenring events ARGUMENTS --json`.
fn events(cluster: &Cluster, arguments: &[&str]) -> Vec<Value> {
    read(&cluster.run(&[&["events", "--json"], arguments].concat()).ok())
}

/// What and where, and more about it.
fn short(entries: &[Value]) -> Vec<String> {
    let text = |entry: &Value, key: &str| entry[key].as_str().unwrap().to_owned();
    let line = |entry: &Value| ["event", "node", "reason"].map(|key| text(entry, key)).join(" ").trim_end().to_owned();
    entries.iter().map(line).collect()
}

#[test]
fn the_story_of_one_login_from_click_to_hang_up() {
    let lab = Lab::start(&[spec("a")]);
    let phones = Phones::register(100, 2, &lab.sip(), Behaviour::ANSWER);
    phones.wait_registered(SOON);
    let mut cluster = Cluster::start(&lab);
    cluster.wait_phones("a", 2);
    let follower = cluster.cli.follow(&["events", "--follow", "--since", "1h", "--json"]);
    follower.wait_line("node-up", SOON);
    assert_eq!(cluster.json_and_code(&["login", "nobodyx", "--agent", "6"]).1, 1);
    let (login, code) = cluster.json_and_code(&["login", "cc100x", "--agent", "7", "--campaign", "sales", "--wait"]);
    assert_eq!(code, 0, "{login} {}", cluster.logs());
    let id = login["session"].as_str().unwrap();
    assert_eq!(cluster.json_and_code(&["login", "cc100x", "--agent", "7"]).1, 0, "a second click is no event");
    cluster.json(&["login", "cc101x", "--wait"]);
    assert_eq!(cluster.json(&["logout", "cc100x"])["reason"], "logged-out", "{}", cluster.logs());
    phones.hang_up("cc101");
    wait_until(SOON, "cc101 to be gone", || cluster.agents()["a"] == 0);

    let history = ["placed a", "ringing a", "live a", "logout a requested", "ended a logged-out"];
    let of_session = events(&cluster, &["--session", id]);
    assert_eq!(short(&of_session), history);
    for entry in &of_session {
        let who = ["session", "alias", "agent", "extension"].map(|key| entry[key].as_str().unwrap());
        assert_eq!(who, [id, "cc100x", "7", "cc100"]);
    }
    assert_eq!(events(&cluster, &["--session", &id[..8]]), of_session);
    assert_eq!(events(&cluster, &["--agent", "7"]), of_session);
    for name in ["cc100x", "cc100"] {
        assert_eq!(events(&cluster, &["--alias", name]), of_session, "{name}");
    }
    let rest = ["placed a", "ringing a", "live a", "ended a hung-up"];
    assert_eq!(short(&events(&cluster, &["--alias", "cc101x", "--node", "a"])), rest);
    assert_eq!(events(&cluster, &["--agent", "7", "--alias", "cc101x"]).len(), 0, "filters are combined with AND");
    let nobody = cluster.run(&["events", "--node", "b"]);
    assert_eq!((nobody.status.code(), nobody.stdout.as_str()), (Some(2), ""), "{nobody:?}");
    assert_eq!(
        short(&events(&cluster, &["--event", "refused", "--event", "node-up"])),
        ["node-up a", "refused  unknown-alias"]
    );
    let version = format!("node-starting a version {}", env!("CARGO_PKG_VERSION"));
    let all = [
        &[version.as_str(), "node-up a", "refused  unknown-alias"],
        &history[..3],
        &rest[..3],
        &history[3..],
        &rest[3..],
    ]
    .concat();
    assert_eq!(short(&events(&cluster, &[])), all);

    // Who followed has seen the same, and sees what comes from a Redis that has started anew.
    wait_until(SOON, "the follower to have read all", || follower.lines().len() == all.len());
    assert_eq!(read(&follower.lines().join("\n")), events(&cluster, &[]));
    cluster.redis.kill9();
    cluster.redis.start_again();
    cluster.wait_node("a", "active");
    cluster.wait_phones("a", 2);
    cluster.json(&["login", "cc101x", "--wait"]);
    follower.wait_line("\"live\",\"node\":\"a\"", SOON);
    let printed = cluster.run(&["events", "--json"]).ok();
    follower.wait_line(printed.lines().last().unwrap(), SOON);
    let seen = follower.lines();
    assert_eq!(seen[all.len()..].join("\n"), printed.trim_end(), "nothing lost, nothing twice");

    // For people: one line each, and --since leaves out what is older.
    let text = cluster.run(&["events", "--event", "live"]).ok();
    let words: Vec<&str> = text.split_whitespace().collect();
    assert_eq!(words[1..4], ["a", "live", "cc101x"], "{text}");
    assert!(words[0].ends_with('Z') && words[4].len() == 8, "{text}");
    wait_until(SOON, "the event stream to be older than 1 s", || events(&cluster, &["--since", "1s"]).is_empty());
    phones.hang_up("cc101");
    wait_for(SOON, || match short(&events(&cluster, &["--since", "1s"])) {
        recent if recent == ["ended a hung-up"] => Ok(()),
        other => Err(format!("only the end: {other:?}")),
    });
    assert_eq!(cluster.run(&["events", "--session", "xyz"]).status.code(), Some(2));
}

#[test]
fn a_node_that_dies_and_comes_back_and_its_agent_who_rings_elsewhere() {
    let lab = Lab::start(&[spec("a"), spec("b")]);
    let phones = Phones::register(100, 1, &lab.sip(), Behaviour::ANSWER);
    phones.wait_registered(SOON);
    let mut cluster = Cluster::with(&lab, &Sections { rest: AUTO, ..Sections::default() });
    for name in ["a", "b"] {
        cluster.wait_phones(name, 1);
    }
    cluster.json(&["drain", "b"]);
    cluster.json(&["drain", "b"]);
    let first = cluster.json(&["login", "cc100x", "--agent", "7", "--wait"])["session"].as_str().unwrap().to_owned();
    cluster.json(&["resume", "b"]);
    lab.node("a").kill9();
    let second = wait_for(SOON, || {
        let sessions = cluster.sessions();
        let back = sessions.iter().find(|s| s["state"] == "live" && s["node"] == "b");
        back.map(|s| s["session"].as_str().unwrap().to_owned()).ok_or_else(|| format!("no rejoin: {sessions:?}"))
    });
    phones.forget_calls(lab.node("a").address());
    lab.node("a").start();
    cluster.wait_node("a", "active");
    let of_first = short(&events(&cluster, &["--session", &first]));
    let (rejoin, rejoins) = (format!("rejoin a as {second} on b"), format!("placed b rejoins {first}"));
    assert_eq!(of_first, ["placed a", "ringing a", "live a", "ended a node-lost", &rejoin, &rejoins]);
    let of_second = short(&events(&cluster, &["--session", &second]));
    assert_eq!(of_second, [&rejoin, &rejoins, "ringing b", "live b"]);
    let nodes = ["--event", "node-down", "--event", "node-up", "--event", "node-drain", "--event", "node-resume"];
    let of_nodes = short(&events(&cluster, &nodes));
    assert_eq!(of_nodes[2..], ["node-drain b", "node-resume b", "node-down a", "node-up a"], "{of_nodes:?}");

    // A daemon that is frozen for longer than its lease, one that dies, and one that stops.
    let judged = |times| move |cluster: &Cluster| events(cluster, &["--event", "node-lease-expired"]).len() == times;
    let (once, twice) = (judged(1), judged(2));
    cluster.daemons[0].sigstop();
    wait_until(SOON * 2, "b to notice", || once(&cluster));
    cluster.daemons[0].sigcont();
    cluster.wait_node("a", "active");
    let mut daemon = cluster.daemons.remove(0);
    daemon.kill9();
    wait_until(SOON * 2, "b to notice again", || twice(&cluster));
    let mut daemon = daemon.again();
    cluster.wait_node("a", "active");
    daemon.term();
    let start = format!("node-starting a version {}", env!("CARGO_PKG_VERSION"));
    let lost = "node-lease-expired a no heartbeat for a lease";
    let of_a = short(&events(&cluster, &["--node", "a"]));
    let nodes: Vec<&str> = of_a.iter().map(String::as_str).filter(|line| line.starts_with("node-")).collect();
    let up = "node-up a";
    let rest = [lost, "node-stopped a", &start, up, lost, &start, up, "node-stopped a"];
    assert_eq!(nodes, [&[start.as_str(), up, "node-down a", up], &rest[..]].concat(), "{}", cluster.logs());
    let all = events(&cluster, &[]);
    let ids = all.iter().map(|entry| entry["id"].as_str().unwrap().split_once('-').unwrap());
    let ids: Vec<(u64, u64)> = ids.map(|(time, number)| (time.parse().unwrap(), number.parse().unwrap())).collect();
    assert!(ids.is_sorted_by(|a, b| a < b), "one order for all nodes");
    assert!(all.iter().filter(|entry| entry["event"] == "drift").count() == 0, "{all:?}");
    assert!(Duration::from_millis(all[0]["at"].as_u64().unwrap()) > Duration::from_secs(1_600_000_000));
}
