//! Which phones can ring when Asterisk has not asked them, or they do not answer it: "not known yet" is no "no", and a reason is
//! the true one. On real Asterisk 22 and 16, chan_pjsip and chan_sip.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails says why")]

#[path = "../cluster/mod.rs"]
mod cluster;
#[path = "../lab/mod.rs"]
mod lab;

use std::net::SocketAddrV4;
use std::time::Duration;

use cluster::{Cluster, SOON};
use lab::phone::{Behaviour, Options, Phones, Renew};
use lab::{HUB, Lab, Node, three, wait_until};

/// Phones that register once and for long.
fn phones(first: u32, count: u32, nodes: Vec<SocketAddrV4>) -> Phones {
    let phones = Phones::with(Options {
        first,
        count,
        nodes,
        behaviour: Behaviour::ANSWER,
        expires: 300,
        renew: Renew::Never,
        from: HUB,
    });
    phones.wait_registered(SOON);
    phones
}

/// Changes a configuration file of a node and restarts its Asterisk.
fn change(node: &Node, file: &str, changes: &[(&str, &str)]) {
    let path = node.root().join("etc/asterisk").join(file);
    let mut text = std::fs::read_to_string(&path).unwrap();
    for (from, to) in changes {
        assert!(text.contains(from), "{file} has {from:?}");
        text = text.replace(from, to);
    }
    std::fs::write(path, text).unwrap();
    node.restart();
}

/// A registration that is on disk: Asterisk writes it within a second.
fn wait_saved(node: &Node, count: usize) {
    wait_until(SOON, "the contacts to be on disk", || node.saved() == count);
}

/// As FreePBX does it: after a start, Asterisk spreads its first OPTIONS over a minute, and until then says that no phone is
/// there, while it would dial every one.
#[test]
fn phones_that_asterisk_has_not_asked_yet_can_ring() {
    let lab = Lab::start(&[three(10).remove(0), three(10).remove(2)]);
    for node in lab.nodes() {
        change(node, "pjsip.conf", &[("qualify_frequency = 5", "qualify_frequency = 60")]);
    }
    let phones = phones(100, 4, lab.sip());
    for node in lab.nodes() {
        wait_saved(node, 4);
        node.kill9();
    }
    phones.unplug("cc103");
    lab.nodes().iter().for_each(Node::start);
    let cluster = Cluster::start(&lab);
    for node in lab.nodes() {
        let name = node.name();
        for alias in ["cc100x", "cc101x", "cc102x"] {
            cluster.wait_why(alias, name, "", Duration::from_secs(2));
        }
        // A dead one is found out at once, and so is one that never was there.
        cluster.wait_why("cc103x", name, "unreachable", Duration::from_secs(6));
        cluster.wait_why("cc104x", name, "unregistered", Duration::from_secs(2));
    }
    let id = cluster.login("cc100x");
    cluster.wait_session(&id, "live", "");

    // The same with the daemon already there.
    let node = &lab.nodes()[0];
    node.kill9();
    cluster.wait_node(node.name(), "down");
    node.start();
    cluster.wait_node(node.name(), "active");
    for alias in ["cc100x", "cc101x", "cc102x"] {
        cluster.wait_why(alias, node.name(), "", Duration::from_secs(2));
    }
}

#[test]
fn the_reason_is_true_when_the_daemon_comes_later_and_when_one_of_two_contacts_goes() {
    let lab = Lab::start(&[three(10).remove(0), three(10).remove(2)]);
    for node in lab.nodes() {
        let two = [("max_contacts = 1", "max_contacts = 2"), ("remove_existing = yes", "remove_existing = no")];
        change(node, "pjsip.conf", &two);
    }
    let first = phones(100, 3, lab.sip());
    let second = phones(101, 1, lab.sip());
    for node in lab.nodes() {
        wait_until(SOON, "both contacts", || node.contacts().iter().filter(|(name, _)| name == "cc101").count() == 2);
    }
    first.unplug("cc100");
    first.unplug("cc101");
    for node in lab.nodes() {
        wait_until(SOON * 2, "two contacts to fall silent", || {
            node.contacts().iter().filter(|(_, status)| status == "Unavail").count() == 2
        });
    }
    let cluster = Cluster::start(&lab);
    for node in lab.nodes() {
        // Nothing happened to it since the daemon came, and Asterisk's summary says no more than that it can not be dialled.
        cluster.wait_why("cc100x", node.name(), "unreachable", SOON);
        cluster.wait_why("cc109x", node.name(), "unregistered", SOON);
        cluster.wait_why("cc101x", node.name(), "", SOON);
    }
    for node in lab.nodes() {
        second.unregister("cc101", node.sip());
        cluster.wait_why("cc101x", node.name(), "unreachable", SOON);
        first.unregister("cc102", node.sip());
        cluster.wait_why("cc102x", node.name(), "unregistered", SOON);
    }
}

#[test]
fn chan_sip_phones_are_known_after_a_restart_and_a_silent_one_that_registers_again_is_not_dialled() {
    let lab = Lab::start(&[three(10).remove(2)]);
    let node = &lab.nodes()[0];
    change(node, "sip.conf", &[("qualify = 1000", "qualify = no")]);
    let old = phones(200, 3, vec![node.chan_sip()]);
    node.restart();
    // Asterisk would dial them, and yet its list of device states has none of them: nothing has happened to them since.
    let cluster = Cluster::start(&lab);
    for alias in ["cc200x", "cc201x", "cc202x"] {
        cluster.wait_why(alias, "c", "", Duration::from_secs(2));
    }
    cluster.wait_why("cc203x", "c", "unregistered", SOON);
    let id = cluster.login("cc200x");
    cluster.wait_session(&id, "live", "");
    old.hang_up_all();

    change(node, "sip.conf", &[("qualify = no", "qualify = 1000")]);
    cluster.wait_node("c", "active");
    cluster.wait_why("cc201x", "c", "", SOON);
    old.ignore_options("cc201", true);
    cluster.wait_why("cc201x", "c", "unreachable", SOON * 3);
    old.register_again("cc201", node.chan_sip(), 300);
    old.wait_registered(SOON);
    // Asterisk says Registered, and does not dial it: `explain` must not say that it would ring.
    wait_until(SOON, "the new registration", || is_unreachable_with_an_address(node));
    cluster.wait_beats("c", 2);
    cluster.wait_why("cc201x", "c", "unreachable", Duration::from_millis(10));
    old.ignore_options("cc201", false);
    cluster.wait_why("cc201x", "c", "", SOON * 2);
}

/// Asterisk has the peer as unreachable, and with its address.
fn is_unreachable_with_an_address(node: &Node) -> bool {
    let peers = node.cli("sip show peers");
    peers.lines().any(|line| line.starts_with("cc201") && line.contains("UNREACHABLE") && line.contains("10.77.0.1"))
}
