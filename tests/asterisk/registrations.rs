//! Which phones can ring where: what Asterisk tells about PJSIP, chan_sip and IAX2 phones becomes what placement sees.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails says why")]

#[path = "../cluster/mod.rs"]
mod cluster;
#[path = "../lab/mod.rs"]
mod lab;

use std::time::Duration;

use cluster::{Cluster, SHORT, SOON};
use lab::evenring::Sections;
use lab::phone::{Behaviour, Options, Phones, Renew};
use lab::{HUB, Lab, three, wait_for};

/// Five sixths of the expiry that chan_iax2 asks for, which is a minute: whether it was registered or heard nothing, it
/// asks again then.
const IAX2_AGAIN: Duration = Duration::from_secs(50);

#[test]
fn follow_every_change_of_a_phone() {
    let lab = Lab::start(&three(10));
    let cluster = Cluster::start(&lab);
    let (a, c) = (lab.node("a"), lab.node("c"));
    cluster.wait_why("cc100x", "a", "unregistered", SOON);
    cluster.wait_why("nobodyx", "a", "unknown-phone", SOON);

    let phones = Phones::register(100, 3, &lab.sip(), Behaviour::ANSWER);
    phones.wait_registered(SOON);
    for node in ["a", "b", "c"] {
        cluster.wait_why("cc100x", node, "", SOON);
        cluster.wait_phones(node, 3);
    }
    // Node b registers its iax300 at the others: an IAX2 phone there. What it tried while they booted may have been in vain.
    // It tries again at once when its settings are others (a reload of the same file does nothing), and else after 50 s.
    let settings = lab.node("b").root().join("etc/asterisk/iax.conf");
    let text = std::fs::read_to_string(&settings).unwrap();
    std::fs::write(&settings, text + "\n; as before\n").unwrap();
    lab.node("b").cli("module reload chan_iax2.so");
    cluster.wait_why("iax300x", "a", "", IAX2_AGAIN + SOON);
    cluster.wait_why("iax300x", "c", "", IAX2_AGAIN + SOON);
    // On b itself it is a peer that nobody registers: only the list of peers has it.
    cluster.wait_why("iax300x", "b", "unregistered", SOON);

    phones.unregister("cc100", a.sip());
    cluster.wait_why("cc100x", "a", "unregistered", SOON);
    cluster.wait_why("cc100x", "c", "", SOON);
    phones.register_again("cc100", a.sip(), 60);
    cluster.wait_why("cc100x", "a", "", SOON);

    // A phone that is silent is unreachable, on both versions; one that is back can ring again.
    phones.unplug("cc101");
    for node in ["a", "c"] {
        cluster.wait_why("cc101x", node, "unreachable", SOON * 2);
    }
    phones.plug_in("cc101");
    for node in ["a", "c"] {
        cluster.wait_why("cc101x", node, "", SOON * 2);
    }

    // An expiry is noticed when Asterisk notices it: up to 30 s late.
    let short = Phones::with(Options {
        first: 105,
        count: 1,
        nodes: vec![a.sip(), c.sip()],
        behaviour: Behaviour::ANSWER,
        expires: 6,
        renew: Renew::Never,
        from: HUB,
    });
    short.wait_registered(SOON);
    for (why, timeout) in [("", SOON), ("unregistered", Duration::from_secs(45))] {
        cluster.wait_why("cc105x", "a", why, timeout);
        cluster.wait_why("cc105x", "c", why, timeout);
    }

    let old = Phones::with(Options {
        first: 200,
        count: 2,
        nodes: vec![c.chan_sip()],
        behaviour: Behaviour::ANSWER,
        expires: 60,
        renew: Renew::Always,
        from: HUB,
    });
    old.wait_registered(SOON);
    cluster.wait_why("cc200x", "c", "", SOON);
    old.unregister("cc200", c.chan_sip());
    cluster.wait_why("cc200x", "c", "unregistered", SOON);
    old.unplug("cc201");
    cluster.wait_why("cc201x", "c", "unreachable", SOON * 3);

    // The text says what the JSON says.
    let text = cluster.run(&["explain", "cc200x"]);
    assert_eq!(text.status.code(), Some(1));
    assert!(text.stdout.contains("unregistered") && text.stderr.contains("no node can ring this phone"), "{text:?}");
}

#[test]
fn survive_a_reload_and_a_restart_of_asterisk() {
    let lab = Lab::start(&three(10));
    let phones = Phones::register(100, 3, &lab.sip(), Behaviour::ANSWER);
    phones.wait_registered(SOON);
    let cluster = Cluster::start(&lab);
    for node in lab.nodes() {
        cluster.wait_phones(node.name(), 3);
        node.cli("core reload");
        node.stop();
        cluster.wait_node(node.name(), "down");
        let (refused, _) = cluster.json_and_code(&["explain", "cc100x"]);
        let nodes = refused["nodes"].as_array().unwrap();
        assert!(nodes.iter().any(|n| n["name"] == node.name() && n["reason"] == "down"), "{refused}");
        node.start();
        cluster.wait_node(node.name(), "active");
        // Asterisk remembers contacts that it had written down.
        cluster.wait_phones(node.name(), 3);
    }
}

#[test]
fn come_with_details_where_a_second_user_may_ask() {
    let lab = Lab::start(&three(10));
    let phones = Phones::register(100, 2, &lab.sip(), Behaviour::ANSWER);
    phones.wait_registered(SOON);
    let (user, secret) = lab::config::SNAP_USER;
    let settings = format!("{SHORT}[ami.contacts]\nusername = \"{user}\"\nsecret = \"{secret}\"\ninterval = \"1s\"\n");
    let cluster = Cluster::with(&lab, &Sections { rest: &settings, ..Sections::default() });
    for node in ["a", "c"] {
        let contact = wait_for(SOON, || {
            let list = cluster.json(&["phones", "cc100"]);
            let rows = list["phones"].as_array().cloned().unwrap_or_default();
            let row = rows.iter().find(|row| row["node"] == node && row["state"] == "registered").cloned();
            match row.map(|row| row["contact"].clone()) {
                Some(contact) if contact["roundtrip_us"].as_u64().is_some() => Ok(contact),
                _ => Err(format!("contact details on {node}: {list} {}", cluster.logs())),
            }
        });
        assert!(contact["uri"].as_str().unwrap().starts_with("sip:cc100@10.77.0.1:"), "{contact}");
        assert!(contact["expires_at"].as_u64().unwrap() > 1_700_000_000, "{contact}");
    }
    assert!(cluster.run(&["phones"]).ok().contains("sip:cc101@10.77.0.1:"));
}

#[test]
fn are_the_same_over_tls() {
    let lab = Lab::start(&three(10)[..1]);
    let phones = Phones::register(100, 2, &lab.sip(), Behaviour::ANSWER);
    phones.wait_registered(SOON);
    let certificate = lab.certificate();
    let ami = format!("ca_file = \"{}\"\n", certificate.display());
    let settings = Sections { ami: &ami, rest: SHORT, ..Sections::default() };
    let cluster = Cluster::with_address(&lab, &settings, "tls://127.0.0.1:5039");
    cluster.wait_phones("a", 2);
    let (login, code) = cluster.json_and_code(&["login", "cc100x", "--wait"]);
    assert_eq!(code, 0, "{login}");
    assert!(cluster.daemons[0].log().contains("tls://127.0.0.1:5039"));
}
