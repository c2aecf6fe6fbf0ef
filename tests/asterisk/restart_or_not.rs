//! Whether Asterisk was restarted while AMI was away is never read from a clock: a call that ended in the gap ends as hung up,
//! wherever Asterisk's clock was set meanwhile, and an Asterisk that is another one has lost its calls. On a real Asterisk
//! whose clock is set by libfaketime (of the machine, so on 22 only: it needs a libc as new).

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails says why")]

#[path = "../cluster/mod.rs"]
mod cluster;
#[path = "../lab/mod.rs"]
mod lab;

use std::time::Duration;

use cluster::{Cluster, SOON};
use lab::door::Door;
use lab::evenring::Sections;
use lab::phone::{Behaviour, Phones};
use lab::{Lab, Node, Spec, Version, now, wait_until};

/// Asterisk writes down when it was started, to the second: two of the same second cannot be told apart. No host starts it
/// twice as quickly as that; a test would.
const OTHER_SECOND: Duration = Duration::from_millis(1_100);

/// On a clock of its own where that can be had.
fn start(node: &Node) {
    match node.version() {
        Version::V16 => node.start(),
        Version::V22 => node.start_with_own_clock(),
    }
}

fn two_live_agents(version: Version) -> (Lab, Phones, Door, Cluster, [String; 2]) {
    let lab = Lab::start(&[Spec { name: "a", version, endpoints: 2 }]);
    let node = &lab.nodes()[0];
    node.stop();
    start(node);
    let phones = Phones::register(100, 2, &lab.sip(), Behaviour::ANSWER);
    phones.wait_registered(SOON);
    let door = Door::to(node);
    let rest = "[placement]\nrejoin = \"auto\"\n";
    let cluster = Cluster::with_address(&lab, &Sections { rest, ..Sections::default() }, &door.address());
    cluster.wait_phones("a", 2);
    let ids = ["cc100x", "cc101x"].map(|alias| cluster.login(alias));
    ids.iter().for_each(|id| cluster.wait_session(id, "live", ""));
    (lab, phones, door, cluster, ids)
}

/// An agent hangs up while AMI is unavailable, and Asterisk's clock is set by so many seconds meanwhile.
fn hangs_up_in_the_gap(version: Version, step_s: Option<i64>) {
    let (lab, phones, door, cluster, ids) = two_live_agents(version);
    let node = &lab.nodes()[0];
    // The daemon does not hear of it: the gap is as long as it fetches, and a daemon that is away for long gives everybody up.
    door.spoil("Event: Hangup", "Event: Hxngup");
    phones.hang_up("cc100");
    wait_until(SOON, "the call of cc100 to end", || !node.cli("core show channels concise").contains("PJSIP/cc100-"));
    if let Some(step_s) = step_s {
        node.step_clock(step_s);
    }
    door.close();
    door.open();
    cluster.wait_session(&ids[0], "ended", "hung-up");
    cluster.wait_node("a", "active");
    assert!(!cluster.logs().contains("drift repaired"), "found by the reconnect: {}", cluster.logs());
    cluster.wait_session(&ids[1], "live", "");
    assert_eq!(phones.invites().len(), 2, "nobody is rung again: {}", cluster.logs());
}

/// So quick that nobody finds the port closed.
fn another_asterisk(version: Version, step_s: Option<i64>) {
    let (lab, _phones, door, cluster, ids) = two_live_agents(version);
    let node = &lab.nodes()[0];
    let started = now();
    wait_until(SOON, "another second", || started.elapsed() > OTHER_SECOND);
    door.close();
    node.kill9();
    if let Some(step_s) = step_s {
        node.step_clock(step_s);
    }
    start(node);
    door.open();
    ids.iter().for_each(|id| cluster.wait_session(id, "ended", "node-lost"));
}

#[test]
fn a_clock_that_is_set_back_restarts_nothing() {
    hangs_up_in_the_gap(Version::V22, Some(-3_600));
}

#[test]
fn a_clock_that_is_set_forward_restarts_nothing() {
    hangs_up_in_the_gap(Version::V22, Some(86_400));
}

#[test]
fn a_reconnect_restarts_nothing_on_16() {
    hangs_up_in_the_gap(Version::V16, None);
}

/// By its clock, it has been up for longer than the one before.
#[test]
fn another_asterisk_has_lost_the_calls_wherever_its_clock_is() {
    another_asterisk(Version::V22, Some(-60));
}

#[test]
fn another_asterisk_has_lost_the_calls_on_16() {
    another_asterisk(Version::V16, None);
}
