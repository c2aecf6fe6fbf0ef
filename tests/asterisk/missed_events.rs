//! Events that do not arrive, or cannot be read, on real Asterisk 22 and 16: what they would have told is found in Asterisk's own
//! list of channels, and counted as drift. No agent stays who has hung up.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails says why")]

#[path = "../cluster/mod.rs"]
mod cluster;
#[path = "../lab/mod.rs"]
mod lab;

use std::fs;
use std::time::Duration;

use cluster::{Cluster, SOON};
use lab::door::Door;
use lab::evenring::Sections;
use lab::phone::{Behaviour, Phones};
use lab::{Lab, Spec, Version, wait_until};

/// What is promised of whatever was missed.
const MENDED: Duration = Duration::from_secs(60);

fn lab(version: Version) -> (Lab, Phones) {
    let lab = Lab::start(&[Spec { name: "a", version, endpoints: 3 }]);
    let phones = Phones::register(100, 3, &lab.sip(), Behaviour::ANSWER);
    phones.wait_registered(SOON);
    (lab, phones)
}

fn ends_as_hung_up(cluster: &Cluster, id: &str, within: Duration) {
    wait_until(within, "the session to end", || cluster.session(id)["state"] == "ended");
    assert_eq!(cluster.session(id)["reason"], "hung-up", "{}", cluster.logs());
    assert!(cluster.logs().contains("the channel had ended: ended"), "{}", cluster.logs());
    let events = cluster.run(&["events", "--json"]).ok();
    assert!(events.lines().any(|line| line.contains("drift") && line.contains(id)), "{events}");
}

/// An operator's filter keeps them back.
fn a_hang_up_that_is_never_told(version: Version) {
    let (lab, phones) = lab(version);
    let node = &lab.nodes()[0];
    let conf = node.root().join("etc/asterisk/manager.conf");
    let text = fs::read_to_string(&conf).unwrap();
    assert!(text.contains("|HangupRequest|Hangup|"));
    fs::write(&conf, text.replace("|HangupRequest|Hangup|", "|")).unwrap();
    node.cli("manager reload");
    let cluster = Cluster::start(&lab);
    cluster.wait_phones("a", 3);
    let ids = ["cc100x", "cc101x"].map(|alias| cluster.login(alias));
    ids.iter().for_each(|id| cluster.wait_session(id, "live", ""));
    phones.hang_up("cc100");
    ends_as_hung_up(&cluster, &ids[0], MENDED);
    cluster.wait_session(&ids[1], "live", "");
    assert_eq!(cluster.node("a")["state"], "active");
}

#[test]
fn a_hang_up_that_is_never_told_on_22() {
    a_hang_up_that_is_never_told(Version::V22);
}

#[test]
fn a_hang_up_that_is_never_told_on_16() {
    a_hang_up_that_is_never_told(Version::V16);
}

#[test]
fn a_hang_up_that_cannot_be_read_is_asked_for_at_once() {
    let (lab, phones) = lab(Version::V22);
    let door = Door::to(&lab.nodes()[0]);
    let cluster = Cluster::with_address(&lab, &Sections::default(), &door.address());
    cluster.wait_phones("a", 3);
    let id = cluster.login("cc100x");
    cluster.wait_session(&id, "live", "");
    door.spoil("\r\nCause: 16\r\n", "\r\nCause: 1?\r\n");
    phones.hang_up("cc100");
    // Long before the slow comparison.
    ends_as_hung_up(&cluster, &id, Duration::from_secs(15));
    assert!(
        cluster.logs().contains("unreadable AMI event: asking Asterisk for the current state"),
        "{}",
        cluster.logs()
    );
}
