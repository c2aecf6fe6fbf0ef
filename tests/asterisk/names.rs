//! P6: one daemon speaks for a node. A second one of the same name is refused while the first one lives, takes over when
//! it is dead or frozen, and what the first one says then is refused; calls stay.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails says why")]

#[path = "../cluster/mod.rs"]
mod cluster;
#[path = "../lab/mod.rs"]
mod lab;

use std::time::Duration;

use cluster::{Cluster, SOON};
use lab::evenring::{Place, Sections};
use lab::phone::{Behaviour, Phones};
use lab::{Lab, Spec, Version, now, wait_until};

/// A node with a live session: its id.
fn one_agent(lab: &Lab) -> (Phones, Cluster, String) {
    let phones = Phones::register(100, 2, &lab.sip(), Behaviour::ANSWER);
    phones.wait_registered(SOON);
    let cluster = Cluster::start(lab);
    cluster.wait_phones("a", 2);
    let (live, code) = cluster.json_and_code(&["login", "cc100x", "--wait"]);
    assert_eq!(code, 0, "{live}");
    (phones, cluster, live["session"].as_str().unwrap().to_owned())
}

fn a() -> Lab {
    Lab::start(&[Spec { name: "a", version: Version::V22, endpoints: 4 }])
}

#[test]
fn p6_a_second_daemon_on_the_same_machine_is_refused_and_a_restart_is_fast() {
    let lab = a();
    let (phones, mut cluster, live) = one_agent(&lab);
    let generation = cluster.node("a")["generation"].clone();
    let mut second = cluster.daemons[0].second(Place::Beside);
    assert_eq!(second.wait_end(SOON), Some(4));
    let said = second.log();
    let pid = cluster.daemons[0].pid();
    assert!(said.contains(&format!("another daemon (pid {pid}, generation")), "{said}");
    assert!(said.contains("and a lease for"), "{said}");
    assert_eq!(cluster.node("a")["generation"], generation, "nobody was disturbed");
    assert_eq!(cluster.node("a")["refused"], 0);

    // Nobody waits for the lease after kill -9.
    let mut daemon = cluster.daemons.remove(0);
    daemon.kill9();
    let begin = now();
    cluster.daemons.push(daemon.again());
    wait_until(SOON, "a new life", || {
        let node = cluster.node("a");
        node["generation"] != generation && node["state"] == "active"
    });
    println!("kill -9 and again: in the rotation after {:?}", begin.elapsed());
    let said = cluster.daemons[0].log();
    assert!(!said.contains("waiting for its lease to expire"), "{said}");
    cluster.wait_session(&live, "live", "");
    assert_eq!(phones.rings("cc100"), 1);
}

#[test]
fn p6_a_stranger_waits_for_the_lease_and_then_takes_over() {
    let lab = a();
    let (phones, mut cluster, live) = one_agent(&lab);
    let generation = cluster.node("a")["generation"].clone();
    let mut second = cluster.daemons[0].second(Place::Apart);
    second.wait_log("another daemon holds this node's name: waiting for its lease to expire", SOON);
    let pid = cluster.daemons[0].pid();
    assert!(second.log().contains(&format!(" pid {pid}")), "{}", second.log());
    // Longer than the lease that it saw when it asked.
    cluster.wait_beats("a", 4);
    assert_eq!(cluster.node("a")["generation"], generation, "as long as the first one lives");
    cluster.daemons[0].kill9();
    let begin = now();
    wait_until(SOON, "the second to take over", || {
        let node = cluster.node("a");
        node["generation"] != generation && node["state"] == "active"
    });
    println!("a stranger took over {:?} after the end of the first", begin.elapsed());
    let took = begin.elapsed();
    assert!(
        took > Duration::from_secs(1) && took < lab::at_this_load(Duration::from_secs(5)),
        "the lease is 3 s: {took:?}"
    );
    cluster.wait_session(&live, "live", "");
    assert!(second.is_running());
    assert_eq!(cluster.json(&["logout", "cc100x"])["reason"], "logged-out", "{}", second.log());
    assert_eq!(phones.rings("cc100"), 1);
}

#[test]
fn p6_a_frozen_daemon_loses_its_name_and_what_it_says_is_refused_and_counted() {
    let lab = a();
    let (phones, mut cluster, live) = one_agent(&lab);
    let generation = cluster.node("a")["generation"].clone();
    cluster.daemons[0].sigstop();
    wait_until(SOON, "the lease to end", || cluster.node("a")["state"] == "lease-expired");
    let mut second = cluster.daemons[0].second(Place::Beside);
    second.wait_log("the daemon that holds the lock sends no heartbeats: taking over", SOON);
    wait_until(SOON, "the second to take over", || {
        let node = cluster.node("a");
        node["generation"] != generation && node["state"] == "active"
    });
    cluster.wait_session(&live, "live", "");
    cluster.daemons[0].sigcont();
    assert_eq!(cluster.daemons[0].wait_end(SOON), Some(4), "{}", cluster.logs());
    assert!(cluster.daemons[0].log().contains("another daemon has taken the name of node a"), "{}", cluster.logs());
    wait_until(SOON, "the refusal to be counted", || cluster.node("a")["refused"].as_u64() > Some(0));
    second.wait_log("an older daemon of this node is still writing: refused", SOON);
    assert_eq!(cluster.session(&live)["state"], "live", "{}", second.log());
    assert_eq!((phones.rings("cc100"), phones.live()), (1, 1));
    assert_eq!(cluster.json_and_code(&["login", "cc101x", "--wait"]).1, 0, "{}", second.log());
}

/// Half a second longer than the lease, and far shorter than the default one.
const STANDSTILL: Duration = Duration::from_millis(1_400);

#[test]
fn p6_p8_a_daemon_that_stood_still_for_its_lease_rings_nobody_of_before_and_begins_anew() {
    let lab = Lab::start(&["a", "b"].map(|name| Spec { name, version: Version::V22, endpoints: 6 }));
    let phones = Phones::register(100, 5, &lab.sip(), Behaviour::ANSWER);
    phones.wait_registered(SOON);
    let rest = "[placement]\nlease = \"900ms\"\nheartbeat = \"250ms\"\n[ring]\nrate = 1\nburst = 1\n";
    let mut cluster = Cluster::with(&lab, &Sections { rest, ..Sections::default() });
    cluster.wait_phones("a", 5);
    cluster.wait_phones("b", 5);
    assert_eq!(cluster.json_and_code(&["drain", "b"]).1, 0);
    let sessions: Vec<String> = (100..105)
        .map(|number| {
            let answer = cluster.json(&["login", &format!("cc{number}x")]);
            answer["session"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
        })
        .collect();
    wait_until(SOON, "the first to be live", || cluster.session(&sessions[0])["state"] == "live");
    let generation = cluster.node("a")["generation"].clone();
    assert_eq!(cluster.json_and_code(&["resume", "b"]).1, 0);
    cluster.daemons[0].sigstop();
    let stopped = now();
    let rung_by_a = || phones.invites().iter().filter(|ring| lab.name_of(ring.node) == "a").count();
    let before = rung_by_a();
    wait_until(SOON, "more than the lease to pass", || stopped.elapsed() > STANDSTILL);
    cluster.daemons[0].sigcont();
    wait_until(SOON, "a new generation in the rotation", || {
        let node = cluster.node("a");
        node["generation"] != generation && node["state"] == "active"
    });
    assert!(cluster.daemons[0].is_running());
    cluster.daemons[0].wait_log("the daemon was suspended for longer than its lease", SOON);
    cluster.wait_session(&sessions[0], "live", "");
    for session in &sessions[1..] {
        cluster.wait_session(session, "failed", "node-lost");
    }
    assert_eq!(rung_by_a(), before, "b has judged it, and what waited there rings nobody: {}", cluster.logs());
    assert_eq!((cluster.agents()["a"], cluster.agents()["b"]), (1, 0), "clean counts");
    for number in 101..105 {
        assert_eq!(cluster.json_and_code(&["login", &format!("cc{number}x"), "--wait"]).1, 0, "{}", cluster.logs());
    }
    for name in phones.names() {
        assert_eq!(phones.rings(&name), 1, "{name}");
    }
}
