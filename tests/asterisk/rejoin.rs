//! P9 on real Asterisks: a node dies under its agents, and their phones ring from the others; or nobody is rung. And a
//! host that was only thought dead: when its daemon is back, the legs that survived there are hung up.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails says why")]

#[path = "../cluster/mod.rs"]
mod cluster;
#[path = "../lab/mod.rs"]
mod lab;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use cluster::{Cluster, SOON};
use lab::evenring::Sections;
use lab::phone::{Behaviour, Phones};
use lab::{Lab, Spec, Version, now, three, wait_until};

const AGENTS: u32 = 12;
const AUTO: &str = "[ring]\ntimeout = \"4s\"\n[placement]\nrejoin = \"auto\"\n";
const MANUAL: &str = "[ring]\ntimeout = \"4s\"\n[placement]\nrejoin = \"manual\"\n";

/// Twelve agents, all of them live on node a.
fn all_on_a(lab: &Lab, rest: &str) -> (Phones, Cluster) {
    let phones = Phones::register(100, AGENTS, &lab.sip(), Behaviour::ANSWER);
    phones.wait_registered(SOON);
    let cluster = Cluster::with(lab, &Sections { rest, ..Sections::default() });
    for node in lab.nodes() {
        cluster.wait_phones(node.name(), AGENTS.into());
    }
    for node in ["b", "c"] {
        assert_eq!(cluster.json_and_code(&["drain", node]).1, 0);
    }
    for number in 100..100 + AGENTS {
        let (extension, agent) = (format!("cc{number}x"), number.to_string());
        cluster.json(&["login", &extension, "--agent", &agent, "--campaign", "sales"]);
    }
    wait_until(SOON, "all to be live on a", || open(&cluster, "live") == usize::try_from(AGENTS).unwrap());
    assert_eq!(cluster.agents()["a"], u64::from(AGENTS));
    for node in ["b", "c"] {
        assert_eq!(cluster.json_and_code(&["resume", node]).1, 0);
    }
    (phones, cluster)
}

fn open(cluster: &Cluster, state: &str) -> usize {
    cluster.sessions().iter().filter(|session| session["state"] == state).count()
}

/// How long after `begin` each phone was called by another node than a, in ms, the slowest last.
fn rings_elsewhere(lab: &Lab, phones: &Phones, begin: Instant) -> Vec<u128> {
    let elsewhere = phones.invites().into_iter().filter(|ring| lab.name_of(ring.node) != "a");
    let mut times: Vec<u128> = elsewhere.map(|ring| ring.at.duration_since(begin).as_millis()).collect();
    times.sort_unstable();
    times
}

/// Everybody is live, on b and c evenly, as who they were, after one more ring.
fn all_are_back(lab: &Lab, phones: &Phones, cluster: &Cluster) {
    wait_until(SOON, "all to be live elsewhere", || {
        cluster.sessions().iter().filter(|s| s["state"] == "live" && s["node"] != "a").count() == AGENTS as usize
    });
    let agents = cluster.agents();
    assert_eq!((agents["a"], agents["b"], agents["c"]), (0, 6, 6), "P2: {}", cluster.logs());
    let sessions = cluster.sessions();
    let old: BTreeMap<&str, _> =
        sessions.iter().map(|session| (session["session"].as_str().unwrap(), session)).collect();
    for session in sessions.iter().filter(|session| session["state"] == "live") {
        let lost = old[session["rejoined_from"].as_str().unwrap()];
        assert_eq!((&lost["state"], &lost["reason"]), (&"ended".into(), &"node-lost".into()));
        for same in ["alias", "extension", "agent", "campaign", "remote"] {
            assert_eq!(lost[same], session[same]);
        }
    }
    for phone in phones.names() {
        let rings: Vec<String> =
            phones.invites().iter().filter(|r| r.phone == phone).map(|r| lab.name_of(r.node).to_owned()).collect();
        assert_eq!((rings.len(), rings[0].as_str()), (2, "a"), "{phone} rang on {rings:?}: {}", cluster.logs());
    }
}

#[test]
fn p9_an_asterisk_dies_and_its_agents_ring_elsewhere_at_once() {
    let lab = Lab::start(&three(AGENTS));
    let (phones, cluster) = all_on_a(&lab, AUTO);
    let begin = now();
    lab.node("a").kill9();
    all_are_back(&lab, &phones, &cluster);
    let times = rings_elsewhere(&lab, &phones, begin);
    println!("Asterisk killed: {} phones rang elsewhere after {times:?} ms; the last is the p99", times.len());
    assert!(*times.last().unwrap() < 2_000, "{times:?}");
    assert!(cluster.daemons[0].log().contains("rejoin"), "{}", cluster.logs());
    // The calls that died with it are gone for the phones as well; the new ones stay when it comes back.
    phones.forget_calls(lab.node("a").address());
    lab.node("a").start();
    cluster.wait_node("a", "active");
    cluster.wait_beats("a", 3);
    assert_eq!(open(&cluster, "live"), AGENTS as usize, "{}", cluster.logs());
    assert_eq!(phones.invites().len(), 2 * AGENTS as usize, "nobody is moved back");
}

#[test]
fn p9_by_hand_nobody_is_rung_and_the_agents_log_in_again() {
    let lab = Lab::start(&three(AGENTS));
    let (phones, cluster) = all_on_a(&lab, MANUAL);
    lab.node("a").kill9();
    wait_until(SOON, "all sessions to end", || open(&cluster, "ended") == AGENTS as usize);
    assert!(cluster.sessions().iter().all(|session| session["reason"] == "node-lost"), "{}", cluster.logs());
    cluster.wait_beats("b", 4);
    assert_eq!(phones.invites().len(), AGENTS as usize, "{}", cluster.logs());
    let (again, code) = cluster.json_and_code(&["login", "cc100x", "--agent", "100", "--wait"]);
    assert_eq!(code, 0, "{again}");
    assert_ne!(again["node"], "a");
}

#[test]
fn p9_a_host_that_was_thought_dead_hangs_up_what_has_moved() {
    let lab = Lab::start(&three(AGENTS));
    let (phones, mut cluster) = all_on_a(&lab, AUTO);
    let begin = now();
    let mut daemon = cluster.daemons.remove(0);
    daemon.kill9();
    all_are_back(&lab, &phones, &cluster);
    let times = rings_elsewhere(&lab, &phones, begin);
    println!("daemon dead, lease 3 s: {} phones rang elsewhere after {times:?} ms", times.len());
    assert!(*times.last().unwrap() < 5_500, "lease + 1 s, and a slow machine: {times:?}");
    // Its Asterisk has kept the calls all the time.
    assert!(lab.node("a").channels() >= AGENTS as usize);
    cluster.daemons.insert(0, daemon.again());
    cluster.wait_node("a", "active");
    wait_until(SOON, "the old legs to be hung up", || lab.node("a").channels() == 0);
    assert_eq!(phones.live(), AGENTS as usize, "{}", cluster.logs());
    assert_eq!(open(&cluster, "live"), AGENTS as usize, "{}", cluster.logs());
    assert_eq!(phones.invites().len(), 2 * AGENTS as usize);
    assert_eq!(cluster.agents()["a"], 0);
}

fn with_reason(cluster: &Cluster, reason: &str) -> usize {
    cluster.sessions().iter().filter(|session| session["reason"] == reason).count()
}

/// As operators do it every week: no new calls, and the end when the last agent has gone.
fn stops_gracefully(version: Version) {
    let node = |name| Spec { name, version: if name == "a" { version } else { Version::V22 }, endpoints: AGENTS };
    let lab = Lab::start(&["a", "b", "c"].map(node));
    let (phones, cluster) = all_on_a(&lab, AUTO);
    lab.node("a").say_cli("core stop gracefully");
    cluster.wait_node("a", "stopping");
    // No login goes there, although it has the fewest agents in the end, and the next one is no second try.
    phones.hang_up("cc100");
    wait_until(SOON, "one session less", || open(&cluster, "live") == AGENTS as usize - 1);
    let (login, code) = cluster.json_and_code(&["login", "cc100x", "--agent", "100", "--wait"]);
    assert!(code == 0 && login["node"] != "a", "{login}");
    assert_eq!(cluster.json_and_code(&["logout", "100"]).1, 0);
    for (left, phone) in (0..AGENTS as usize - 1).rev().zip(phones.names().into_iter().skip(1)) {
        phones.hang_up(&phone);
        wait_until(SOON, "one session less", || open(&cluster, "live") == left);
    }
    cluster.wait_node("a", "down");
    for node in ["b", "c"] {
        cluster.wait_beats(node, 4);
    }
    assert_eq!(with_reason(&cluster, "hung-up"), AGENTS as usize, "{}", cluster.logs());
    assert_eq!(phones.invites().len(), AGENTS as usize + 1, "nobody is rung again: {}", cluster.logs());
}

#[test]
fn p9_who_hangs_up_while_asterisk_22_stops_gracefully_is_not_rung_again() {
    stops_gracefully(Version::V22);
}

#[test]
fn p9_who_hangs_up_while_asterisk_16_stops_gracefully_is_not_rung_again() {
    stops_gracefully(Version::V16);
}

#[test]
fn p9_a_daemon_that_is_not_let_in_by_an_asterisk_that_stops_gives_nobody_up() {
    let lab = Lab::start(&three(AGENTS));
    let (phones, mut cluster) = all_on_a(&lab, AUTO);
    lab.node("a").say_cli("core stop gracefully");
    cluster.wait_node("a", "stopping");
    let mut daemon = cluster.daemons.remove(0);
    daemon.term();
    cluster.daemons.insert(0, daemon.again());
    cluster.wait_node("a", "starting");
    cluster.wait_beats("a", 5);
    assert!(cluster.daemons[0].log().contains("Asterisk is shutting down"), "{}", cluster.logs());
    assert_eq!((open(&cluster, "live"), phones.live()), (AGENTS as usize, AGENTS as usize), "{}", cluster.logs());
    // The operator has thought again.
    lab.node("a").cli("core abort shutdown");
    cluster.wait_node("a", "active");
    cluster.wait_beats("a", 3);
    assert_eq!((open(&cluster, "live"), phones.live()), (AGENTS as usize, AGENTS as usize), "{}", cluster.logs());
    assert_eq!((cluster.agents()["a"], phones.invites().len()), (AGENTS.into(), AGENTS as usize), "{}", cluster.logs());
}

#[test]
fn p9_a_daemon_that_starts_while_its_asterisk_is_down_ends_what_died_with_it() {
    let lab = Lab::start(&three(AGENTS));
    let (phones, mut cluster) = all_on_a(&lab, AUTO);
    let mut daemon = cluster.daemons.remove(0);
    lab.node("a").sigstop();
    daemon.kill9();
    lab.node("a").kill9();
    cluster.daemons.insert(0, daemon.again());
    all_are_back(&lab, &phones, &cluster);
}

#[test]
fn p9_who_still_talks_when_a_graceful_stop_is_cut_short_rings_elsewhere() {
    let lab = Lab::start(&three(AGENTS));
    let (phones, cluster) = all_on_a(&lab, AUTO);
    lab.node("a").say_cli("core stop gracefully");
    cluster.wait_node("a", "stopping");
    phones.hang_up("cc100");
    wait_until(SOON, "one session less", || open(&cluster, "live") == AGENTS as usize - 1);
    lab.node("a").say_cli("core stop now");
    wait_until(SOON, "the others to be live elsewhere", || {
        cluster.sessions().iter().filter(|s| s["state"] == "live" && s["node"] != "a").count() == AGENTS as usize - 1
    });
    assert_eq!(with_reason(&cluster, "hung-up"), 1, "{}", cluster.logs());
    assert_eq!((phones.rings("cc100"), phones.rings("cc101")), (1, 2), "{}", cluster.logs());
    assert_eq!(phones.invites().len(), 2 * AGENTS as usize - 1, "{}", cluster.logs());
}

#[test]
fn p8_a_redis_that_was_away_for_longer_than_the_lease_makes_no_phone_ring() {
    let lab = Lab::start(&three(AGENTS));
    let (phones, cluster) = all_on_a(&lab, AUTO);
    // Twice the lease.
    cluster.redis.freeze_for(Duration::from_secs(6));
    for node in ["a", "b", "c"] {
        cluster.wait_node(node, "active");
    }
    // Longer than the lease: whoever wanted to judge has done so.
    for node in ["a", "b", "c"] {
        cluster.wait_beats(node, 4);
    }
    assert_eq!(phones.invites().len(), AGENTS as usize, "{}", cluster.logs());
    assert_eq!(phones.live(), AGENTS as usize);
    assert_eq!((open(&cluster, "live"), cluster.agents()["a"]), (AGENTS as usize, AGENTS.into()), "{}", cluster.logs());
}
