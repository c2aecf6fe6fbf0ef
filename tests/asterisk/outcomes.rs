//! What becomes of a ring, case by case, on real Asterisk 22 and 16: the state, the reason, and how often it rang.
//!
//! One node at a time, so that "cannot ring here" ends as a failure with its reason and moves nowhere.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails says why")]

#[path = "../cluster/mod.rs"]
mod cluster;
#[path = "../lab/mod.rs"]
mod lab;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::time::Duration;

use cluster::{Cluster, SHORT, SOON};
use lab::evenring::Sections;
use lab::phone::{Behaviour, Options, Phones, Renew};
use lab::{HUB, Lab, Node, Spec, Version, three, wait_for, wait_until};

fn alone(version: Version) -> Lab {
    let name = if version == Version::V22 { "a" } else { "c" };
    Lab::start(&[Spec { name, version, endpoints: 12 }])
}

/// Logs `cc100` in and checks how that ends, and how many rings it took.
fn check(cluster: &Cluster, phones: &Phones, behaviour: Behaviour, state: &str, reason: &str) {
    phones.behave_all(behaviour);
    let before = phones.rings("cc100");
    let (login, code) = cluster.json_and_code(&["login", "cc100x", "--wait"]);
    let said = (login["state"].as_str().unwrap(), login["reason"].as_str().unwrap(), code);
    assert_eq!(said, (state, reason, i32::from(state != "live")), "{behaviour:?}: {}", cluster.logs());
    assert_eq!(phones.rings("cc100") - before, 1, "{behaviour:?}: rung once");
}

fn every_answer_of_a_phone(version: Version) {
    let lab = alone(version);
    let node = &lab.nodes()[0];
    let phones = Phones::register(100, 2, &lab.sip(), Behaviour::ANSWER);
    phones.wait_registered(SOON);
    let cluster = Cluster::start(&lab);
    cluster.wait_phones(node.name(), 2);

    check(&cluster, &phones, Behaviour::ANSWER, "live", "");
    let id = cluster.json(&["sessions"])["sessions"][0]["session"].as_str().unwrap().to_owned();
    phones.hang_up("cc100");
    cluster.wait_session(&id, "ended", "hung-up");

    check(&cluster, &phones, Behaviour::Answer { after: Duration::from_secs(1) }, "live", "");
    assert_eq!(cluster.json(&["logout", "cc100x"])["reason"], "logged-out");

    check(&cluster, &phones, Behaviour::Ring, "failed", "no-answer");
    check(&cluster, &phones, Behaviour::Silent, "failed", "silent");
    // Nobody can take back what was never answered: the phone would think for ever that it is being called.
    phones.forget_calls(node.address());
    check(&cluster, &phones, Behaviour::Busy, "failed", "busy");
    check(&cluster, &phones, Behaviour::RingThenBusy, "failed", "busy");
    check(&cluster, &phones, Behaviour::Decline, "failed", "declined");
    check(&cluster, &phones, Behaviour::Code(480), "failed", "phone-unavailable");
    check(&cluster, &phones, Behaviour::Code(404), "failed", "not-found");
    check(&cluster, &phones, Behaviour::Code(503), "failed", "congestion-34");
    cluster.wait_empty(&lab);

    phones.behave_all(Behaviour::Ring);
    let id = cluster.login("cc100x");
    wait_until(SOON, "the phone to ring", || phones.ringing("cc100") == 1);
    node.cli("channel request hangup all");
    cluster.wait_session(&id, "failed", "hung-up");

    let id = cluster.login("cc100x");
    wait_until(SOON, "the phone to ring", || phones.ringing("cc100") == 1);
    assert_eq!(cluster.json(&["logout", "cc100x"])["reason"], "logged-out");
    cluster.wait_session(&id, "ended", "logged-out");
    wait_until(SOON, "the phone to be quiet", || phones.ringing("cc100") == 0);
    cluster.wait_empty(&lab);
    assert_eq!(phones.max_ringing_at_once("cc100"), 1);
}

#[test]
fn every_answer_of_a_phone_on_22() {
    every_answer_of_a_phone(Version::V22);
}

#[test]
fn every_answer_of_a_phone_on_16() {
    every_answer_of_a_phone(Version::V16);
}

#[test]
fn every_answer_of_a_chan_sip_phone_on_16() {
    let lab = alone(Version::V16);
    let node = &lab.nodes()[0];
    let phones = Phones::with(Options {
        first: 200,
        count: 1,
        nodes: vec![node.chan_sip()],
        behaviour: Behaviour::ANSWER,
        expires: 60,
        renew: Renew::Always,
        from: HUB,
    });
    phones.wait_registered(SOON);
    let cluster = Cluster::start(&lab);
    cluster.wait_phones(node.name(), 1);
    for (behaviour, state, reason) in [
        (Behaviour::Busy, "failed", "busy"),
        (Behaviour::Decline, "failed", "declined"),
        (Behaviour::Code(480), "failed", "phone-unavailable"),
        (Behaviour::Ring, "failed", "no-answer"),
        (Behaviour::ANSWER, "live", ""),
    ] {
        phones.behave_all(behaviour);
        let before = phones.rings("cc200");
        let (login, _) = cluster.json_and_code(&["login", "cc200x", "--wait"]);
        assert_eq!((&login["state"], &login["reason"]), (&state.into(), &reason.into()), "{}", cluster.logs());
        assert_eq!(phones.rings("cc200") - before, 1);
    }
    cluster.json(&["logout", "cc200"]);
    cluster.wait_empty(&lab);
    phones.unregister("cc200", node.chan_sip());
    wait_until(SOON, "cc200 to be unregistered", || {
        cluster.json(&["explain", "cc200x"])["nodes"][0]["reason"] == "unregistered"
    });
}

/// What Asterisk refuses or cannot dial: no channel ever exists, or it says no at once.
fn what_cannot_be_dialled(version: Version) {
    let lab = alone(version);
    let node = &lab.nodes()[0];
    let phones = Phones::register(100, 1, &lab.sip(), Behaviour::ANSWER);
    let away = Phones::register(102, 1, &lab.sip(), Behaviour::ANSWER);
    phones.wait_registered(SOON);
    away.wait_registered(SOON);
    away.unplug("cc102");
    wait_until(SOON * 2, "cc102 to be found unreachable", || node.registered() == 1);
    for (ring, reason) in [
        ("dial = \"PJSIP/{extension}-nobody\"", "not-reachable"),
        ("dial = \"NOPE/{extension}\"", "not-reachable"),
        ("context = \"agents\"\nexten = \"nope\"", "refused: Extension does not exist."),
        // cc101 is known and has never registered.
        ("dial = \"PJSIP/cc101\"", "not-reachable"),
        // cc102 is registered, and does not answer to OPTIONS.
        ("dial = \"PJSIP/cc102\"", "not-reachable"),
    ] {
        let settings = format!("[ring]\ntimeout = \"4s\"\n{ring}\n");
        let cluster = Cluster::with(&lab, &Sections { rest: &settings, ..Sections::default() });
        cluster.wait_phones(node.name(), 1);
        let (login, code) = cluster.json_and_code(&["login", "cc100x", "--wait"]);
        assert_eq!((&login["state"], code), (&"failed".into(), 1), "{ring}: {}", cluster.logs());
        assert_eq!(login["reason"], reason, "{ring}: {}", cluster.logs());
        assert_eq!((phones.rings("cc100"), away.rings("cc102")), (0, 0), "{ring}");
        cluster.wait_empty(&lab);
    }
}

#[test]
fn what_cannot_be_dialled_on_22() {
    what_cannot_be_dialled(Version::V22);
}

#[test]
fn what_cannot_be_dialled_on_16() {
    what_cannot_be_dialled(Version::V16);
}

#[test]
fn a_phone_may_be_rung_into_the_dialplan() {
    let lab = alone(Version::V22);
    let phones = Phones::register(100, 1, &lab.sip(), Behaviour::ANSWER);
    phones.wait_registered(SOON);
    let settings = "[ring]\ncontext = \"agents\"\nexten = \"8600100\"\ncaller_id = '\"{agent}\" <{alias}>'\n[ring.variables]\nDESK = \"{campaign}-{session}\"\n";
    let cluster = Cluster::with(&lab, &Sections { rest: settings, ..Sections::default() });
    cluster.wait_phones("a", 1);
    let (login, code) = cluster.json_and_code(&["login", "cc100x", "--campaign", "sales", "--wait"]);
    assert_eq!(code, 0, "{login}");
    let node = lab.node("a");
    wait_until(SOON, "the agent in the conference", || node.cli("confbridge list").contains("8600100"));
    let channels = node.cli("core show channels concise");
    let name = channels.split('!').next().unwrap().trim();
    let shown = node.cli(&format!("core show channel {name}"));
    let desk = format!("DESK=sales-{}", login["session"].as_str().unwrap());
    assert!(shown.contains(&desk), "{shown}");
}

fn an_application_that_does_not_exist(version: Version) {
    let lab = alone(version);
    let phones = Phones::register(100, 1, &lab.sip(), Behaviour::ANSWER);
    phones.wait_registered(SOON);
    let settings = "[ring]\napplication = \"NoSuchApplication\"\n";
    let cluster = Cluster::with(&lab, &Sections { rest: settings, ..Sections::default() });
    cluster.wait_phones(lab.nodes()[0].name(), 1);
    let id = cluster.login("cc100x");
    cluster.wait_session(&id, "ended", "hung-up");
    assert_eq!(phones.rings("cc100"), 1);
}

#[test]
fn an_application_that_does_not_exist_is_found_out_when_the_phone_answers() {
    an_application_that_does_not_exist(Version::V22);
    an_application_that_does_not_exist(Version::V16);
}

/// A raw AMI session of the user that may do everything: for what the daemon itself would never do.
fn ami(node: &Node, actions: &str) -> std::net::TcpStream {
    let mut stream = std::net::TcpStream::connect(node.ami()).expect("connect to AMI");
    let (user, secret) = lab::config::LAB_USER;
    let text = format!("Action: Login\r\nUsername: {user}\r\nSecret: {secret}\r\nEvents: off\r\n\r\n{actions}");
    stream.write_all(text.as_bytes()).expect("write to AMI");
    stream
}

#[test]
fn a_channel_id_that_is_taken_is_never_rung_twice() {
    a_channel_id_that_is_taken(Version::V22);
    a_channel_id_that_is_taken(Version::V16);
}

fn a_channel_id_that_is_taken(version: Version) {
    let lab = alone(version);
    let node = &lab.nodes()[0];
    let phones = Phones::register(100, 2, &lab.sip(), Behaviour::ANSWER);
    phones.wait_registered(SOON);
    let cluster = Cluster::start(&lab);
    cluster.wait_phones(node.name(), 2);
    let id = "00000000000000aa";
    let mut stream = ami(
        node,
        &format!(
            "Action: Originate\r\nChannel: PJSIP/cc101\r\nApplication: Wait\r\nData: 60\r\nAsync: true\r\nChannelId: evenring-{id}\r\n\r\n"
        ),
    );
    wait_until(SOON, "the first channel of that id", || phones.live() == 1);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let placement = runtime.block_on(async {
        let settings = evenring::config::Settings::load(Some(cluster.cli.config()), std::iter::empty()).unwrap();
        let mut registry = evenring::registry::Registry::new(&settings).unwrap();
        let request = evenring::registry::LoginRequest {
            alias: "cc100x".parse().unwrap(),
            agent: None,
            campaign: None,
            class: evenring::node::session::Class::Local,
            moves: false,
            hold: None,
        };
        registry.place(&request, id.parse().unwrap()).await.unwrap()
    });
    assert_eq!(placement.node, node.name());
    cluster.wait_session(id, "failed", "not-reachable");
    assert_eq!((phones.rings("cc100"), phones.rings("cc101")), (0, 1));
    stream.write_all(b"Action: Logoff\r\n\r\n").unwrap();
    stream.read_to_end(&mut Vec::new()).unwrap();
}

/// Makes this node the only one where the phone may ring.
fn only_on(cluster: &Cluster, phones: &Phones, phone: &str, only: &str, lab: &Lab) {
    for node in lab.nodes() {
        if node.name() == only {
            phones.register_again(phone, node.sip(), 60);
        } else {
            phones.unregister(phone, node.sip());
        }
    }
    for node in lab.nodes() {
        let why = if node.name() == only { "" } else { "unregistered" };
        cluster.wait_why(&format!("{phone}x"), node.name(), why, SOON);
    }
}

/// Asterisk goes away in the middle of a ring: with word (stop) and without (kill), 22 and 16.
#[test]
fn a_ring_that_its_node_cannot_finish_goes_to_the_next() {
    let lab = Lab::start(&three(10));
    let phones = Phones::register(100, 6, &lab.sip(), Behaviour::Ring);
    phones.wait_registered(SOON);
    let cluster = Cluster::start(&lab);
    for node in lab.nodes() {
        cluster.wait_phones(node.name(), 6);
    }
    for (phone, first, kill) in
        [("cc100", "a", false), ("cc101", "a", true), ("cc102", "c", false), ("cc103", "c", true)]
    {
        let alias = format!("{phone}x");
        only_on(&cluster, &phones, phone, first, &lab);
        let id = cluster.login(&alias);
        wait_until(SOON, "the phone to ring", || phones.ringing(phone) == 1);
        assert_eq!(cluster.node_of(&id), first);
        for other in lab.nodes().iter().filter(|node| node.name() != first) {
            phones.register_again(phone, other.sip(), 60);
            cluster.wait_why(&alias, other.name(), "", SOON);
        }
        let node = lab.node(first);
        if kill {
            node.kill9()
        } else {
            node.stop()
        }
        wait_until(SOON, "another node to ring it", || phones.rings(phone) == 2);
        assert_ne!(cluster.node_of(&id), first, "{}", cluster.logs());
        assert_eq!(cluster.json(&["logout", &alias])["reason"], "logged-out", "{}", cluster.logs());
        phones.forget_calls(node.address());
        node.start();
        cluster.wait_node(first, "active");
    }
    // What a killed Asterisk had not written down is registered again.
    for (node, phone) in lab.nodes().iter().flat_map(|node| phones.names().into_iter().map(move |phone| (node, phone)))
    {
        phones.register_again(&phone, node.sip(), 60);
    }
    for node in lab.nodes() {
        cluster.wait_phones(node.name(), 6);
    }
    // What only one node cannot do, another one does; the agent's own answer ends it at once.
    phones.behave_all(Behaviour::ANSWER);
    for node in ["a", "b"] {
        phones.behave_all_on(lab.node(node).address(), Behaviour::Code(503));
    }
    for (alias, phone) in [("cc104x", "cc104"), ("cc105x", "cc105")] {
        let (login, code) = cluster.json_and_code(&["login", alias, "--wait"]);
        assert_eq!((&login["node"], code), (&"c".into(), 0), "{login} {}", cluster.logs());
        assert!((1..=3).contains(&phones.rings(phone)), "{}", phones.rings(phone));
        assert_eq!(phones.max_ringing_at_once(phone), 1);
    }
}

/// Each phone says nothing to the node that is asked first, and is answered at the other one. Returns who was first.
fn silent_then_answered(cluster: &Cluster, lab: &Lab, phones: &Phones) -> BTreeSet<String> {
    phones.behave_all(Behaviour::Silent);
    let names = phones.names();
    let ids: Vec<String> = names.iter().map(|phone| cluster.login(&format!("{phone}x"))).collect();
    let mut first = BTreeSet::new();
    for (phone, id) in names.iter().zip(&ids) {
        wait_until(SOON, "the phone to be called", || phones.rings(phone) == 1);
        let node = cluster.node_of(id);
        for other in lab.nodes().iter().filter(|other| other.name() != node) {
            phones.behave_on(phone, other.address(), Behaviour::ANSWER);
        }
        first.insert(node);
    }
    for (phone, id) in names.iter().zip(&ids) {
        let told = wait_for(SOON * 5, || match cluster.session(id) {
            session if session["state"] == "ringing" || session["state"] == "placed" => Err(format!("{session}")),
            session => Ok(session),
        });
        assert_eq!(told["state"], "live", "{told}; {}", cluster.logs());
        assert_eq!(phones.rings(phone), 2);
    }
    first
}

/// A phone that is registered and answers to OPTIONS, and whose INVITE is lost: the channel driver gives up by itself, after
/// 32 s with PJSIP, and says that nobody responds.
#[test]
fn a_phone_that_falls_silent_is_rung_elsewhere() {
    let spec = |name, version| Spec { name, version, endpoints: 2 };
    let lab = Lab::start(&[spec("a", Version::V22), spec("c", Version::V16)]);
    let phones = Phones::register(100, 2, &lab.sip(), Behaviour::ANSWER);
    phones.wait_registered(SOON);
    let cluster = Cluster::with(&lab, &Sections { rest: "[ring]\ntimeout = \"45s\"\n", ..Sections::default() });
    for node in lab.nodes() {
        cluster.wait_phones(node.name(), 2);
    }
    // The second goes to the node that has less: each version was first once.
    assert_eq!(silent_then_answered(&cluster, &lab, &phones).len(), 2);
}

/// Two Asterisks 16 with the same chan_sip phones.
fn two_with_chan_sip(count: u32, behaviour: Behaviour) -> (Lab, Phones, Cluster) {
    let spec = |name| Spec { name, version: Version::V16, endpoints: 1 };
    let lab = Lab::start(&[spec("c"), spec("d")]);
    let phones = Phones::with(Options {
        first: 200,
        count,
        nodes: lab.nodes().iter().map(Node::chan_sip).collect(),
        behaviour,
        expires: 60,
        renew: Renew::Always,
        from: HUB,
    });
    phones.wait_registered(SOON);
    let cluster = Cluster::with(&lab, &Sections { rest: "[ring]\ntimeout = \"20s\"\n", ..Sections::default() });
    for (node, phone) in lab.nodes().iter().flat_map(|node| phones.names().into_iter().map(move |name| (node, name))) {
        cluster.wait_why(&format!("{phone}x"), node.name(), "", SOON * 2);
    }
    (lab, phones, cluster)
}

/// The same with chan_sip, after 6.4 s.
#[test]
fn a_chan_sip_phone_that_falls_silent_is_rung_elsewhere() {
    let (lab, phones, cluster) = two_with_chan_sip(1, Behaviour::ANSWER);
    silent_then_answered(&cluster, &lab, &phones);
}

/// The Hangup of a chan_sip phone that rang has the same cause as a command of an operator's.
#[test]
fn an_asterisk_that_stops_while_a_chan_sip_phone_rings_is_no_hang_up() {
    let (lab, phones, cluster) = two_with_chan_sip(2, Behaviour::Ring);
    for (phone, command) in [("cc200", "core restart now"), ("cc201", "core stop now")] {
        let id = cluster.login(&format!("{phone}x"));
        wait_until(SOON, "the phone to ring", || phones.ringing(phone) == 1);
        let first = cluster.node_of(&id);
        lab.node(&first).say_cli(command);
        wait_until(SOON, &format!("another node to ring {phone}: {}", cluster.logs()), || phones.rings(phone) == 2);
        assert_ne!(cluster.node_of(&id), first, "{}", cluster.logs());
        assert_eq!(phones.max_ringing_at_once(phone), 1, "the first call was taken back before");
        if command == "core restart now" {
            cluster.wait_node(&first, "active");
            cluster.wait_why("cc201x", &first, "", SOON * 2);
        }
    }
}

#[test]
fn short_is_what_these_tests_need() {
    assert!(SHORT.contains("timeout = \"4s\""), "the times above are made for a ring timeout of 4 s");
}
