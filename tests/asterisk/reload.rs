//! SIGHUP: a real daemon takes over what it can while it works, names what it cannot, and refuses nonsense.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that fails says why")]

#[path = "../cluster/mod.rs"]
mod cluster;
#[path = "../lab/mod.rs"]
mod lab;

use std::fs;
use std::time::Duration;

use cluster::{Cluster, SOON};
use lab::http::{get, samples};
use lab::phone::{Behaviour, Phones};
use lab::{Lab, Spec, Version, now, run, wait_for, wait_until};

/// Changes the daemon's settings and tells it so; returns what it logged about that.
fn reload(cluster: &mut Cluster, changes: &[(&str, &str)], last_line: &str) -> String {
    let daemon = &mut cluster.daemons[0];
    let mut text = fs::read_to_string(daemon.config()).unwrap();
    for (from, to) in changes {
        assert!(text.contains(from), "no {from:?} in {text}");
        text = text.replace(from, to);
    }
    fs::write(daemon.config(), text).unwrap();
    let before = daemon.log().len();
    run(&format!("kill -HUP {}", daemon.pid()));
    wait_for(SOON, || {
        assert!(daemon.is_running(), "{}", daemon.log());
        let log = daemon.log()[before..].to_owned();
        if log.contains(last_line) { Ok(log) } else { Err(format!("{last_line:?} in {log}")) }
    })
}

#[test]
fn settings_change_while_agents_are_logged_in() {
    let lab = Lab::start(&[Spec { name: "a", version: Version::V22, endpoints: 4 }]);
    let phones = Phones::register(100, 2, &lab.sip(), Behaviour::ANSWER);
    phones.wait_registered(SOON);
    let sections = lab::evenring::Sections { rest: "[ring]\ntimeout = \"60s\"\n", ..Default::default() };
    let mut cluster = Cluster::with(&lab, &sections);
    cluster.wait_phones("a", 2);
    assert_eq!(cluster.json_and_code(&["login", "cc100x", "--wait"]).1, 0, "{}", cluster.logs());
    let generation = cluster.node("a")["generation"].clone();
    assert!(!cluster.daemons[0].log().contains("DEBUG"), "{}", cluster.logs());

    let said = reload(
        &mut cluster,
        &[
            ("[node]\n", "[node]\nweight = 4\nmax_agents = 2\n"),
            ("[log]\n", "[log]\nfilter = \"debug\"\n"),
            ("timeout = \"60s\"", "timeout = \"1s\"\ncaller_id = \"new\""),
            ("[redis]\n", "[redis]\nresponse_timeout = \"600ms\"\n"),
        ],
        "settings reloaded",
    );
    for line in [
        "setting applied node=a key=\"node.weight\" from=\"1\" to=\"4\"",
        "setting applied node=a key=\"node.max_agents\" from=\"not set\" to=\"2\"",
        "setting applied node=a key=\"ring.timeout\" from=\"\\\"1m\\\"\" to=\"\\\"1s\\\"\"",
        "setting changed: needs a restart node=a key=\"redis.response_timeout\"",
        "settings reloaded node=a taken_over=5 need_restart=1",
    ] {
        assert!(said.contains(line), "no {line} in {said}");
    }
    wait_until(SOON, "Redis to know the weight and the cap", || {
        let node = cluster.node("a");
        (&node["weight"], &node["max_agents"]) == (&4.into(), &2.into())
    });
    let node = cluster.node("a");
    assert_eq!((&node["generation"], &node["state"], &node["load"]), (&generation, &"active".into(), &0.25.into()));
    let found = samples(&get(lab.node("a"), "/metrics").body);
    assert_eq!((found["evenring_node_weight"], found["evenring_node_capacity"]), (4.0, 2.0));

    phones.behave("cc101", Behaviour::Ring);
    let begin = now();
    let (login, code) = cluster.json_and_code(&["login", "cc101x", "--wait"]);
    assert_eq!((code, &login["reason"]), (1, &"no-answer".into()), "{login}");
    assert!(begin.elapsed() < Duration::from_secs(10), "it rang for {:?}, not for a second", begin.elapsed());
    assert!(cluster.daemons[0].log().contains("DEBUG"), "no line of the new level: {}", cluster.logs());
    assert_eq!(phones.live(), 1, "whoever was logged in still is");

    let said = reload(&mut cluster, &[("weight = 4", "weight = 0\nwieght = 1")], "unknown key node.wieght");
    assert!(said.contains("invalid settings: the old ones stay in effect"), "{said}");
    assert!(said.contains("node.weight in ") && !said.contains("setting applied"), "{said}");
    assert_eq!(cluster.node("a")["weight"], 4);

    let said = reload(&mut cluster, &[("weight = 0\nwieght = 1", "weight = 2")], "settings reloaded");
    assert!(said.contains("from=\"4\" to=\"2\"") && said.contains("need_restart=1"), "{said}");
    cluster.redis.restart();
    wait_until(SOON, "a Redis that forgot all to learn the last word", || cluster.node("a")["weight"] == 2);
    assert!(!cluster.daemons[0].log().contains(lab::config::AMI_USER.1), "the secret in the log");
}
