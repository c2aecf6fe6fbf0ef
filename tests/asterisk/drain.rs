//! P10 on real Asterisks: a node is drained while agents are logged in, while phones ring and while orders wait; its
//! daemon is killed, Redis is emptied, and it still drains until it is told to resume.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails says why")]

#[path = "../cluster/mod.rs"]
mod cluster;
#[path = "../lab/mod.rs"]
mod lab;

use std::fs;
use std::process::Command;
use std::time::Duration;

use cluster::{Cluster, SOON};
use lab::evenring::{Sections, binary};
use lab::phone::{Behaviour, Phones};
use lab::{Lab, now, three, wait_until};
use serde_json::Value;

/// A slow bucket: most of a burst waits in the daemon, taken and not rung.
const SLOW: &str = "[ring]\ntimeout = \"20s\"\nrate = 1\nburst = 2\n";

fn whys(cluster: &Cluster, alias: &str) -> Vec<String> {
    let rows = cluster.json(&["explain", alias]);
    rows["nodes"].as_array().unwrap().iter().map(|row| row["reason"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn p10_a_node_empties_and_nobody_is_cut_or_forgotten() {
    let lab = Lab::start(&three(16));
    let phones = Phones::register(100, 12, &lab.sip(), Behaviour::ANSWER);
    phones.wait_registered(SOON);
    let mut cluster = Cluster::with(&lab, &Sections { rest: SLOW, ..Sections::default() });
    for node in lab.nodes() {
        cluster.wait_phones(node.name(), 12);
    }
    // One live session on each node; then only a takes logins, and has more of them than it may ring at once.
    for alias in ["cc100x", "cc101x", "cc102x"] {
        assert_eq!(cluster.json_and_code(&["login", alias, "--wait"]).1, 0, "{}", cluster.logs());
    }
    let stays = cluster.sessions().into_iter().find(|session| session["node"] == "a").unwrap();
    let (stays, its_phone) =
        (stays["session"].as_str().unwrap().to_owned(), stays["extension"].as_str().unwrap().to_owned());
    for node in ["b", "c"] {
        let (drained, code) = cluster.json_and_code(&["drain", node]);
        assert_eq!((code, &drained["changed"], &drained["agents"]), (0, &true.into(), &1.into()), "{drained}");
    }
    phones.behave_all(Behaviour::Answer { after: Duration::from_secs(1) });
    let burst: Vec<String> = (103..111).map(|number| cluster.login(&format!("cc{number}x"))).collect();
    wait_until(SOON, "the daemon of a to have taken them all", || {
        burst.iter().all(|id| cluster.session(id)["state"] != "placed")
    });
    they_are_queued_with_their_places(&cluster, &burst);
    let seen = tempfile::NamedTempFile::new().unwrap();
    let said = || fs::read_to_string(seen.path()).unwrap();
    let mut waits = Command::new(binary());
    waits.args(["login", "cc110x", "--wait", "--config"]).arg(cluster.cli.config()).stdout(seen.reopen().unwrap());
    let mut waits = waits.spawn().unwrap();
    wait_until(SOON, "somebody to see their position", || said().contains("\nqueued on a, position "));
    for node in ["b", "c"] {
        assert_eq!(cluster.json_and_code(&["resume", node]).1, 0);
        cluster.wait_node(node, "active");
    }
    let rung_by_a = || phones.invites().iter().filter(|ring| lab.name_of(ring.node) == "a").count();
    let before = rung_by_a();
    let begin = now();
    let drained = cluster.json(&["drain", "a"]);
    wait_until(SOON, "what a had not rung to be elsewhere", || {
        burst.iter().filter(|id| cluster.node_of(id) != "a").count() >= 4
    });
    println!("drain: what was taken and not rung was elsewhere after {:?}; {drained}", begin.elapsed());
    for id in &burst {
        cluster.wait_session(id, "live", "");
    }
    wait_until(SOON, "login --wait to end", || waits.try_wait().unwrap().is_some());
    assert!(waits.wait().unwrap().success(), "{}", said());
    assert!(["b", "c"].iter().any(|node| said().ends_with(&format!("\nlive on {node}\n"))), "{}", said());
    assert!(rung_by_a() <= before + 1, "a rang on after it was told to drain: {}", cluster.logs());
    for number in 103..111 {
        assert_eq!(phones.rings(&format!("cc{number}")), 1, "each phone once: {}", cluster.logs());
    }
    assert_eq!(cluster.session(&stays)["state"], "live", "P7");
    assert_eq!(cluster.node("a")["state"], "draining");
    assert!(whys(&cluster, "cc111x").contains(&"draining".to_owned()));
    let rest = cluster.agents();
    assert!(rest["b"].abs_diff(rest["c"]) <= 1, "{rest:?}");

    survives_a_restart_and_a_redis_that_forgets(&mut cluster);
    assert_eq!(cluster.session(&stays)["state"], "live", "{}", cluster.logs());

    somebody_waits(&cluster, &phones, &its_phone);
    the_last_one(&cluster);
}

/// Two of eight ring at once, and then one a second.
fn they_are_queued_with_their_places(cluster: &Cluster, burst: &[String]) {
    let queued = || -> Vec<(usize, u64)> {
        let open = cluster.json(&["sessions"])["sessions"].as_array().unwrap().clone();
        let number =
            |session: &Value| burst.iter().position(|id| session["session"] == **id).expect("one of the burst");
        let row = |session: &Value| (number(session), session["queue_position"].as_u64().expect("a place"));
        let mut rows: Vec<_> = open.iter().filter(|session| session["state"] == "queued").map(row).collect();
        rows.sort_unstable();
        rows
    };
    wait_until(SOON, "whoever waits to be queued", || queued().len() >= 4);
    let rows = queued();
    let places: Vec<u64> = rows.iter().map(|(_, place)| *place).collect();
    assert_eq!(places, (1..=places.len() as u64).collect::<Vec<_>>(), "in the order in which they came: {rows:?}");
    wait_until(SOON, "status to count them", || cluster.node("a")["queued"] == queued().len());
    assert!(cluster.run(&["sessions"]).stdout.contains("queued"));
}

/// The agents of a log out while somebody waits; `by_phone` just hangs up.
fn somebody_waits(cluster: &Cluster, phones: &Phones, by_phone: &str) {
    let output = cluster.run(&["drain", "a", "--wait", "--deadline", "500ms"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(output.stderr.contains("left after 500ms"), "{output:?}");
    let waiting = cluster.cli.start(&["drain", "a", "--wait", "--deadline", "20s"]);
    for session in cluster.sessions().iter().filter(|s| s["node"] == "a" && s["state"] == "live") {
        if session["extension"] != *by_phone {
            assert_eq!(cluster.json_and_code(&["logout", session["alias"].as_str().unwrap()]).1, 0);
        }
    }
    phones.hang_up(by_phone);
    let waiting = waiting.finish();
    assert_eq!(waiting.status.code(), Some(0), "{waiting:?}");
    let progress: Vec<&str> = waiting.stderr.lines().collect();
    assert!(progress.len() >= 2 && progress.last() == Some(&"a: no agents are left"), "{waiting:?}");
    assert!(waiting.stdout.contains("already draining"), "{waiting:?}");
}

fn the_last_one(cluster: &Cluster) {
    for node in ["b", "c"] {
        let output = cluster.run(&["drain", node]);
        assert_eq!(output.stderr.contains("no other node is in the rotation"), node == "c", "{output:?}");
    }
    assert_eq!(cluster.json_and_code(&["login", "cc111x"]).1, 1, "nobody is left to ring");
    for node in ["a", "b", "c"] {
        assert_eq!(cluster.json_and_code(&["resume", node]).1, 0);
    }
    assert_eq!(cluster.json_and_code(&["login", "cc111x", "--wait"]).1, 0, "{}", cluster.logs());
    assert_eq!(
        cluster.node_of(cluster.sessions().last().unwrap()["session"].as_str().unwrap()),
        "a",
        "the least loaded"
    );
    let unknown = cluster.run(&["drain", "nobody"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(unknown.stderr.contains("known nodes: a, b, c"), "{unknown:?}");
}

/// The flag outlives the daemon, and a Redis that has lost it.
fn survives_a_restart_and_a_redis_that_forgets(cluster: &mut Cluster) {
    let (at, generation) = (0, cluster.node("a")["generation"].clone());
    let mut daemon = cluster.daemons.remove(at);
    daemon.kill9();
    cluster.daemons.insert(at, daemon.again());
    wait_until(SOON, "a new life that drains", || {
        let node = cluster.node("a");
        node["state"] == "draining" && node["generation"] != generation
    });
    cluster.daemons[at].wait_log("draining: no new logins", SOON);
    let live = cluster.agents();
    cluster.redis.restart();
    wait_until(SOON, "all that Redis had forgotten", || {
        cluster.agents() == live && cluster.node("a")["state"] == "draining"
    });
    // An empty Redis waits for a lease, for whoever may have this agent.
    wait_until(SOON, "logins again", || match cluster.json_and_code(&["login", "cc111x"]) {
        (login, 3) => {
            assert_eq!((&login["state"], &login["reason"]), (&"not-now".into(), &"recovering".into()));
            false
        }
        (login, code) => {
            assert_eq!((code, &login["nodes"][0]["reason"]), (0, &"draining".into()), "{login} {}", cluster.logs());
            true
        }
    });
    cluster.json(&["logout", "cc111x"]);
}

#[test]
fn without_redis_drain_says_so() {
    let cluster = Cluster {
        daemons: Vec::new(),
        redis: lab::redis::Redis::start(),
        cli: lab::evenring::Cli::new("redis://127.0.0.1:1"),
    };
    for verb in ["drain", "resume"] {
        let output = cluster.run(&[verb, "a"]);
        assert_eq!(output.status.code(), Some(3), "{output:?}");
        assert_eq!(cluster.run(&[verb, "a b"]).status.code(), Some(2));
    }
    assert_eq!(cluster.run(&["drain", "a", "--deadline", "3s"]).status.code(), Some(2), "a deadline of what?");
}
