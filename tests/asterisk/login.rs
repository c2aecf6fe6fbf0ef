//! The way of a login, end to end, on three real Asterisks (22, 22 and 16) with real Redis and the real binary.
//!
//! Must never use a fake: phones are scripted, everything they talk to is real.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails says why")]

#[path = "../cluster/mod.rs"]
mod cluster;
#[path = "../lab/mod.rs"]
mod lab;

use cluster::{Cluster, SHORT, SOON};
use lab::evenring::Sections;
use lab::phone::{Behaviour, Phones};
use lab::redis::{Program, Redis};
use lab::{HUB, Lab, three, wait_until};

#[test]
fn a_valkey_does_as_well_as_a_redis() {
    let lab = Lab::start(&three(10));
    let phones = Phones::register(100, 3, &lab.sip(), Behaviour::ANSWER);
    phones.wait_registered(SOON);
    let valkey = Redis::start_program(Program::Valkey, HUB, &[]);
    let cluster = Cluster::on(valkey, &lab, &Sections { rest: SHORT, ..Sections::default() });
    for name in ["a", "b", "c"] {
        cluster.wait_phones(name, 3);
    }
    for alias in ["cc100x", "cc101x", "cc102x"] {
        let (login, code) = cluster.json_and_code(&["login", alias, "--wait"]);
        assert_eq!((code, &login["state"]), (0, &"live".into()), "{login} {}", cluster.logs());
    }
    assert!(cluster.agents().values().all(|agents| *agents == 1), "{:?}", cluster.agents());
    assert_eq!(phones.invites().len(), 3);
    assert_eq!(cluster.json(&["logout", "cc100x"])["state"], "ended");
    assert_eq!(cluster.json_and_code(&["drain", "a"]).1, 0);
}

#[test]
fn an_agent_logs_in_once_and_the_right_phone_rings_once() {
    let lab = Lab::start(&three(10));
    let phones = Phones::register(100, 6, &lab.sip(), Behaviour::ANSWER);
    phones.wait_registered(SOON);
    let cluster = Cluster::start(&lab);
    for name in ["a", "b", "c"] {
        cluster.wait_phones(name, 6);
    }
    let (login, code) = cluster.json_and_code(&["login", "cc100x", "--agent", "7", "--campaign", "sales", "--wait"]);
    assert_eq!(code, 0, "{login} {}", cluster.logs());
    assert_eq!((&login["state"], &login["reason"]), (&"live".into(), &"".into()));
    assert_eq!(login["nodes"].as_array().map(Vec::len), Some(3));
    assert_eq!(phones.rings("cc100"), 1);
    assert_eq!(phones.invites().len(), 1, "no other phone rings");
    let node = login["node"].as_str().unwrap();
    assert_eq!(lab.name_of(phones.invites()[0].node), node);
    assert!(
        lab.node(node).cli("core show channels concise").contains("evenring-7"),
        "the agent is in their conference"
    );

    let (again, code) = cluster.json_and_code(&["login", "cc100x", "--agent", "7", "--wait"]);
    assert_eq!((code, &again["session"]), (0, &login["session"]), "a second login is the first");
    assert_eq!(phones.invites().len(), 1);

    for alias in ["cc101x", "cc102", "cc103x", "cc104x", "cc105x"] {
        assert_eq!(cluster.json_and_code(&["login", alias, "--wait"]).1, 0, "{}", cluster.logs());
    }
    assert!(cluster.agents().values().all(|agents| *agents == 2), "{:?}", cluster.agents());
    let text = cluster.run(&["status"]).ok();
    assert!(text.contains("active"), "{text}");

    let out = cluster.json(&["logout", "cc100x"]);
    assert_eq!((&out["state"], &out["reason"]), (&"ended".into(), &"logged-out".into()), "{}", cluster.logs());
    phones.hang_up("cc101");
    wait_until(SOON, "the agent who hung up to be gone", || cluster.agents().values().sum::<u64>() == 4);
    for alias in ["cc102x", "cc103", "cc104x", "cc105x"] {
        assert_eq!(cluster.json_and_code(&["logout", alias]).1, 0, "{}", cluster.logs());
    }
    cluster.wait_empty(&lab);
}
