//! A Redis that answers and refuses: full, unsaved, read-only, without replicas, or with an ACL that lacks a command. Whoever
//! looks at the cluster is told that, and nobody is told to look at a node; and the same with a Redis that lets nobody in from
//! other hosts.
//!
//! Owns what breaks Redis. Must never look into the program.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that fails says why")]

#[path = "../cluster/mod.rs"]
mod cluster;
#[path = "../lab/mod.rs"]
mod lab;

use std::fs;
use std::path::Path;

use cluster::{Cluster, SOON};
use lab::evenring::Sections;
use lab::http::get;
use lab::phone::{Behaviour, Phones};
use lab::redis::Redis;
use lab::{HUB, Lab, Spec, Version, wait_for};

/// The administrator's password.
const ADMIN: &str = "admin-word";

/// The user of docs/SECURITY.md and its password.
fn redis_user() -> (String, String) {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/SECURITY.md")).unwrap();
    let line = page.lines().find(|line| line.starts_with("user evenring on >")).expect("the line of the page");
    let password = line.split(' ').find_map(|word| word.strip_prefix('>')).expect("a password");
    (line["user ".len()..].to_owned(), password.to_owned())
}

struct House {
    cluster: Cluster,
    lab: Lab,
    phones: Phones,
}

impl House {
    /// Two nodes, and a Redis with the user of the page; its default user has a password.
    fn open() -> Self {
        let spec = |name, version| Spec { name, version, endpoints: 4 };
        let lab = Lab::start(&[spec("a", Version::V22), spec("c", Version::V16)]);
        let phones = Phones::register(100, 4, &lab.sip(), Behaviour::ANSWER);
        phones.wait_registered(SOON);
        let (user, password) = redis_user();
        let arguments: Vec<&str> = ["--user"].into_iter().chain(user.split(' ')).collect();
        let redis = Redis::start_with(HUB, &arguments);
        let mut admin = redis::Client::open(redis.url()).unwrap().get_connection().unwrap();
        redis::cmd("CONFIG").arg(&["SET", "requirepass", ADMIN]).query::<()>(&mut admin).unwrap();
        lab::secrets::keep(&format!("password = \"{ADMIN}\""));
        let redis = redis.with_credentials(&format!("evenring:{password}@"));
        // The lab's Redis speaks no TLS: that risk is accepted, and everything else must be well.
        let rest = format!("{}[doctor]\naccept = [\"config.unencrypted\"]\n", cluster::SHORT);
        let cluster = Cluster::on(redis, &lab, &Sections { rest: &rest, ..Sections::default() });
        for node in lab.nodes() {
            cluster.wait_phones(node.name(), 4);
        }
        Self { cluster, lab, phones }
    }

    fn admin(&self, words: &[&str]) -> redis::Value {
        let url = format!("redis://:{ADMIN}@{}", self.cluster.redis.address());
        let mut connection = redis::Client::open(url).unwrap().get_connection().unwrap();
        redis::cmd(words[0]).arg(&words[1..]).query(&mut connection).unwrap()
    }

    /// Waits for the first line of `/readyz` on node a; the whole answer.
    #[track_caller]
    fn wait_ready(&self, line: &str) -> String {
        wait_for(SOON * 2, || {
            let ready = get(self.lab.node("a"), "/readyz");
            let first = ready.body.lines().next().unwrap_or_default().to_owned();
            if first == line { Ok(ready.body) } else { Err(format!("{line:?}: {ready:?}; {}", self.cluster.logs())) }
        })
    }

    /// Everybody who is asked says this, and nobody says that a node is to blame.
    #[track_caller]
    fn all_say(&self, name: &str, cause: &str, advice: &str, code: &str) {
        let cluster = &self.cluster;
        let said = |what: &str, text: &str| println!("==== {name}: {what}\n{}\n", text.trim_end());
        let login = cluster.run(&["login", "cc101x", "--agent", "7"]);
        said("evenring login cc101x --agent 7", &format!("{}{}", login.stderr, login.stdout));
        let explain = cluster.run(&["explain", "cc101x"]);
        said("evenring explain cc101x", &format!("{}{}", explain.stderr, explain.stdout));
        let status = cluster.run(&["status"]);
        said("evenring status", &format!("{}{}", status.stderr, status.stdout));
        for (what, output) in [("login", &login), ("explain", &explain), ("status", &status)] {
            assert_eq!(output.status.code(), Some(3), "{name}: {what}: {output:?}");
            assert!(output.stderr.contains(cause) && output.stderr.contains(advice), "{name}: {what}: {output:?}");
        }
        for words in ["lease-expired", "no node can ring", "would ring", "in-use", "recovered"] {
            assert!(!format!("{login:?}{explain:?}").contains(words), "{name}: {words:?} in {login:?} {explain:?}");
        }
        let (json, exit) = cluster.json_and_code(&["status"]);
        assert!(exit == 3 && json["redis"].as_str().unwrap().contains(cause), "{name}: {json}");

        let node = self.lab.node("a");
        let (troubles, exit) = cluster.troubles(node);
        let text = cluster.doctor(node, &[]).stdout;
        said("evenring doctor", &text);
        let codes: Vec<&str> = troubles.iter().map(|(code, ..)| code.as_str()).collect();
        assert_eq!((codes, exit), (vec![code], 2), "{name}: one cause, one finding: {text}");
        let (_, finding, fix) = &troubles[0];
        assert!(finding.contains(cause) && fix.contains(advice), "{name}: {finding} -> {fix}");
        assert!(!text.contains("forget") && !text.contains("all is well"), "{name}: {text}");

        let ready = self.wait_ready("not ready: redis");
        said("curl http://127.0.0.1:9816/readyz", &ready);
        let log = cluster.daemons[0].log();
        let line = log.lines().rev().find(|line| line.contains(cause) && line.contains("ERROR"));
        said("the log of the daemon", line.unwrap_or_else(|| panic!("{name}: {log}")));
        said("evenring events --since 1m", &cluster.run(&["events", "--since", "1m"]).stdout);
    }
}

#[test]
fn whoever_asks_is_told_that_redis_refuses_and_why() {
    let house = House::open();
    let cluster = &house.cluster;
    assert_eq!(cluster.json_and_code(&["login", "cc100x", "--wait"]).1, 0, "{}", cluster.logs());
    house.wait_ready("ready");
    let (troubles, exit) = cluster.troubles(house.lab.node("a"));
    assert_eq!((troubles, exit), (Vec::new(), 0), "a good cluster");
    let text = cluster.doctor(house.lab.node("a"), &[]).stdout;
    assert!(text.contains("all is well, as far as it was checked; not checked: redis.server; accepted: "), "{text}");
    assert!(!text.lines().any(|line| line.starts_with("ok")), "only with --verbose: {text}");
    let text = cluster.doctor(house.lab.node("a"), &["--verbose"]).stdout;
    for line in ["ok       redis.default-user Redis lets nobody in", "ok       daemon ", "accepted config "] {
        assert!(text.contains(line), "{line}: {text}");
    }

    // A snapshot cannot take the place of a folder.
    let dir: Vec<String> = redis::from_redis_value(house.admin(&["CONFIG", "GET", "dir"])).unwrap();
    fs::create_dir(Path::new(&dir[1]).join("dump.rdb")).unwrap();
    let config = |key, value| vec!["CONFIG", "SET", key, value];
    let unsaved = || {
        house.admin(&["CONFIG", "SET", "save", "3600 1"]);
        house.admin(&["BGSAVE"]);
        wait_for(SOON, || {
            let info: String = redis::from_redis_value(house.admin(&["INFO", "persistence"])).unwrap();
            if info.contains("rdb_last_bgsave_status:err") { Ok(()) } else { Err(info) }
        });
    };
    let port = lab::free_port(HUB).to_string();
    let host = HUB.to_string();
    for (name, broken, mended, cause, advice) in [
        ("maxmemory", config("maxmemory", "1"), config("maxmemory", "0"), "OOM", "raise maxmemory"),
        ("a save that failed", vec![], config("save", ""), "MISCONF", "make room on its disk"),
        ("a replica", vec!["REPLICAOF", &host, &port], vec!["REPLICAOF", "NO", "ONE"], "replica", "the primary"),
        (
            "min-replicas-to-write",
            config("min-replicas-to-write", "1"),
            config("min-replicas-to-write", "0"),
            "NOREPLICAS",
            "bring a replica back",
        ),
    ] {
        if broken.is_empty() {
            unsaved()
        } else {
            drop(house.admin(&broken))
        }
        // The nodes cannot renew their leases. Whoever looks now must not take them for the cause.
        house.wait_ready("not ready: redis");
        for node in ["a", "c"] {
            wait_for(SOON, || {
                let status = cluster.run(&["status", "--json"]).stdout;
                let status: serde_json::Value = serde_json::from_str(&status).map_err(|error| error.to_string())?;
                let nodes = status["nodes"].as_array().unwrap().clone();
                let state = nodes.into_iter().find(|row| row["name"] == node).map(|row| row["state"].clone());
                if state == Some("lease-expired".into()) { Ok(()) } else { Err(format!("{name}: {status}")) }
            });
        }
        house.all_say(name, cause, advice, "redis.write");
        house.admin(&mended);
        house.wait_ready("ready");
        cluster.wait_node("c", "active");
        wait_for(SOON, || match cluster.troubles(house.lab.node("a")) {
            (troubles, 0) if troubles.is_empty() => Ok(()),
            other => Err(format!("{name} was mended: {other:?}")),
        });
        assert_eq!((house.phones.live(), cluster.agents().values().sum::<u64>()), (1, 1), "{name}: the call stays");
    }
}

/// The heartbeats go on, and so do the leases; only a login would fail.
#[test]
fn a_right_that_only_a_login_needs_is_missed_before_the_first_login() {
    let house = House::open();
    house.wait_ready("ready");
    house.admin(&["ACL", "SETUSER", "evenring", "-zadd"]);
    house.wait_ready("not ready: redis");
    house.all_say("an ACL without ZADD", "ZADD", "docs/SECURITY.md", "redis.acl.missing");
    house.cluster.wait_beats("a", 4);
    assert_eq!(house.cluster.run(&["status"]).stdout.matches(" active ").count(), 2, "no lease has ended");
    house.admin(&["ACL", "SETUSER", "evenring", "+zadd"]);
    house.wait_ready("ready");
    assert_eq!(house.cluster.json_and_code(&["login", "cc100x", "--wait"]).1, 0, "{}", house.cluster.logs());
    // Only the event stream needs this one.
    house.admin(&["ACL", "SETUSER", "evenring", "-xadd"]);
    assert_eq!(house.cluster.json_and_code(&["login", "cc101x", "--wait"]).1, 0, "{}", house.cluster.logs());
    assert_eq!(house.cluster.run(&["explain", "cc102x"]).status.code(), Some(0));
}

/// Debian's Redis as it is installed, seen from a second host.
#[test]
fn protected_mode_is_no_wrong_password() {
    let house = House::open();
    house.admin(&["CONFIG", "SET", "requirepass", ""]);
    let admin = redis::Client::open(format!("redis://{}", house.cluster.redis.address())).unwrap();
    let mut admin = admin.get_connection().unwrap();
    // No connection that is open already is refused.
    redis::cmd("CONFIG").arg(&["SET", "protected-mode", "yes"]).query::<()>(&mut admin).unwrap();
    redis::cmd("CLIENT").arg(&["KILL", "TYPE", "normal", "SKIPME", "yes"]).query::<i64>(&mut admin).unwrap();
    redis::cmd("CLIENT").arg(&["KILL", "TYPE", "pubsub"]).query::<i64>(&mut admin).unwrap();
    house.wait_ready("not ready: redis");
    let cluster = &house.cluster;
    let (cause, advice) = ("protected mode", "this is not about evenring's password");
    for arguments in [&["status"][..], &["login", "cc100x"], &["explain", "cc100x"]] {
        for _ in 0..5 {
            let output = cluster.run(arguments);
            assert_eq!(output.status.code(), Some(3), "{output:?}");
            assert!(output.stderr.contains(cause) && output.stderr.contains(advice), "{output:?}");
            assert!(!output.stderr.contains("denied access"), "{output:?}");
        }
    }
    println!("==== protected mode: evenring status\n{}", cluster.run(&["status"]).stderr);
    let (troubles, exit) = cluster.troubles(house.lab.node("a"));
    println!("==== protected mode: evenring doctor\n{}", cluster.doctor(house.lab.node("a"), &[]).stdout);
    assert_eq!((troubles.len(), troubles[0].0.as_str(), exit), (1, "redis", 2), "{troubles:?}");
    assert!(troubles[0].1.contains(cause) && troubles[0].2.contains("docs/redis.md"), "{troubles:?}");
    assert!(!troubles[0].1.contains(advice), "the advice is said once: {troubles:?}");
    let log = cluster.daemons[0].log();
    let line = log.lines().rev().find(|line| line.contains(cause)).unwrap_or_else(|| panic!("{log}"));
    println!("==== protected mode: the log\n{line}");
    assert!(line.contains(advice), "{line}");
    redis::cmd("CONFIG").arg(&["SET", "protected-mode", "no"]).query::<()>(&mut admin).unwrap();
    house.wait_ready("ready");
    // Now everybody is let in, and the doctor says so.
    let (troubles, exit) = cluster.troubles(house.lab.node("a"));
    assert_eq!((troubles.len(), troubles[0].0.as_str(), exit), (1, "redis.default-user", 2), "{troubles:?}");
    assert!(troubles[0].2.contains("user default off"), "{troubles:?}");
}
