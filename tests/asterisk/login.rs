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

/// Issue: the answer was "live", and the phone on the new desk never rang.
#[test]
fn p7_an_agent_at_a_new_desk_is_told_where_they_are_and_moves_when_they_say_so() {
    let lab = Lab::start(&three(10));
    let phones = Phones::register(100, 4, &lab.sip(), Behaviour::ANSWER);
    phones.wait_registered(SOON);
    let cluster = Cluster::start(&lab);
    for name in ["a", "b", "c"] {
        cluster.wait_phones(name, 4);
    }
    let (first, code) = cluster.json_and_code(&["login", "cc100x", "--agent", "7", "--wait"]);
    assert_eq!((code, &first["outcome"], &first["state"]), (0, &"placed".into(), &"live".into()), "{first}");
    let (old, node) = (first["session"].as_str().unwrap(), first["node"].as_str().unwrap());

    // Another phone: refused, and both forms of the answer say where the agent is.
    let (refused, code) = cluster.json_and_code(&["login", "cc101x", "--agent", "7", "--wait"]);
    assert_eq!((code, &refused["outcome"], &refused["reason"]), (1, &"refused".into(), &"logged-in-elsewhere".into()));
    let of = |answer: &serde_json::Value| {
        ["session", "session_alias", "extension", "agent", "node"].map(|key| answer[key].clone())
    };
    assert_eq!(of(&refused), [old, "cc100x", "cc100", "7", node].map(serde_json::Value::from));
    let text = cluster.run(&["login", "cc101x", "--agent", "7"]);
    let words =
        format!("agent 7 is already logged in as cc100x on cc100 at node {node} (session {old}); nothing rings");
    assert!(text.status.code() == Some(1) && text.stderr.contains(&words), "{text:?}");
    assert!(text.stderr.contains("`evenring login cc101x --agent 7 --move`"), "{text:?}");
    // The same phone: that session, told apart from a new one.
    let (again, code) = cluster.json_and_code(&["login", "cc100", "--agent", "7", "--wait"]);
    assert_eq!((code, &again["outcome"], &again["session"]), (0, &"existing".into(), &old.into()), "{again}");
    assert_eq!((phones.rings("cc100"), phones.rings("cc101"), phones.live()), (1, 0, 1));

    // The move: the old call ends, the new phone rings once.
    let (moved, code) = cluster.json_and_code(&["login", "cc101x", "--agent", "7", "--move", "--wait"]);
    assert_eq!(
        (code, &moved["outcome"], &moved["state"]),
        (0, &"placed".into(), &"live".into()),
        "{moved} {}",
        cluster.logs()
    );
    assert_eq!(moved["moved_from"], serde_json::json!({"session": old, "extension": "cc100", "node": node}));
    cluster.wait_session(old, "ended", "moved");
    wait_until(SOON, "the old call to be over", || phones.live() == 1);
    assert_eq!((phones.rings("cc100"), phones.rings("cc101")), (1, 1));
    let (again, code) = cluster.json_and_code(&["login", "cc101x", "--agent", "7", "--move", "--wait"]);
    assert_eq!((code, &again["outcome"], &again["session"]), (0, &"existing".into(), &moved["session"]), "{again}");

    // Away from a phone that only rings yet.
    phones.behave("cc102", Behaviour::Answer { after: SOON * 6 });
    let ringing = cluster.json(&["login", "cc102x", "--agent", "7", "--move"]);
    wait_until(SOON, "the third phone to ring", || phones.ringing("cc102") == 1);
    let (last, code) = cluster.json_and_code(&["login", "cc103x", "--agent", "7", "--move", "--wait"]);
    assert_eq!((code, &last["state"]), (0, &"live".into()), "{last} {}", cluster.logs());
    cluster.wait_session(ringing["session"].as_str().unwrap(), "ended", "moved");
    wait_until(SOON, "one call to be left", || phones.live() == 1 && phones.ringing("cc102") == 0);
    assert_eq!(["cc100", "cc101", "cc102", "cc103"].map(|phone| phones.rings(phone)), [1; 4]);
    let kinds = ["logout", "ended"].map(|kind| cluster.run(&["events", "--event", kind]).ok().lines().count());
    assert_eq!(kinds, [3, 3], "{}", cluster.run(&["events"]).ok());
    assert!(cluster.run(&["events"]).ok().contains(&format!("moved from {old}")));
    println!(
        "{}{}{}",
        text.stderr,
        cluster.run(&["login", "cc103", "--agent", "7"]).stdout,
        cluster.run(&["login", "cc100x", "--agent", "7", "--move"]).stdout
    );
    assert_eq!(cluster.json_and_code(&["logout", "7"]).1, 0, "{}", cluster.logs());
    cluster.wait_empty(&lab);
}
