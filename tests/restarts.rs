//! The daemon goes away and comes back while phones ring and calls are up: nobody is rung twice, nobody is cut.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails says why")]

mod cluster;
mod lab;

use std::time::Duration;

use cluster::{Cluster, SOON};
use lab::phone::{Behaviour, Phones};
use lab::{Lab, Spec, Version, wait_until};

fn restarts(version: Version) {
    let lab = Lab::start(&[Spec { name: "a", version, endpoints: 10 }]);
    let node = lab.node("a");
    let phones = Phones::register(100, 4, &lab.sip(), Behaviour::ANSWER);
    phones.wait_registered(SOON);
    let mut cluster = Cluster::start(&lab);
    cluster.wait_phones("a", 4);

    let (live, _) = cluster.json_and_code(&["login", "cc100x", "--agent", "7", "--wait"]);
    let live = live["session"].as_str().unwrap().to_owned();
    let generation = cluster.node("a")["generation"].clone();
    for way in ["kill", "term"] {
        phones.behave("cc101", Behaviour::Answer { after: Duration::from_millis(2_500) });
        let ringing = cluster.login("cc101x");
        wait_until(SOON, "cc101 to ring", || phones.ringing("cc101") == 1);
        let mut daemon = cluster.daemons.pop().unwrap();
        if way == "kill" {
            daemon.kill9();
        } else {
            let ended = daemon.term();
            assert!(ended.status.success(), "SIGTERM: {}", ended.status);
            assert!(ended.took < Duration::from_secs(2), "SIGTERM took {:?}", ended.took);
            assert_eq!(cluster.node("a")["state"], "stopped");
            let (refused, code) = cluster.json_and_code(&["login", "cc102x"]);
            assert_eq!((code, &refused["nodes"][0]["why"]), (1, &"stopped".into()), "{refused}");
        }
        cluster.daemons.push(daemon.again());
        wait_until(SOON, "a new life with a new generation", || {
            let node = cluster.node("a");
            node["state"] == "active" && node["generation"] != generation
        });
        cluster.wait_session(&ringing, "live", "");
        assert_eq!(cluster.session(&live)["state"], "live", "{}", cluster.logs());
        assert_eq!(cluster.agents()["a"], 2);
        assert_eq!(cluster.json(&["logout", "cc101x"])["reason"], "logged-out", "{}", cluster.logs());
    }
    // A call that ended while nobody looked is found out.
    let mut daemon = cluster.daemons.pop().unwrap();
    daemon.kill9();
    phones.hang_up("cc100");
    node.wait_channels(0, SOON);
    cluster.daemons.push(daemon.again());
    cluster.wait_session(&live, "ended", "hung-up");
    assert_eq!((phones.rings("cc100"), phones.rings("cc101"), phones.rings("cc102")), (1, 2, 0));
    cluster.wait_empty(&lab);
}

#[test]
fn of_the_daemon_beside_22() {
    restarts(Version::V22);
}

#[test]
fn of_the_daemon_beside_16() {
    restarts(Version::V16);
}

#[test]
fn of_a_redis_that_forgets_everything() {
    let lab = Lab::start(&[Spec { name: "a", version: Version::V22, endpoints: 10 }]);
    let phones = Phones::register(100, 2, &lab.sip(), Behaviour::ANSWER);
    phones.wait_registered(SOON);
    let mut cluster = Cluster::start(&lab);
    cluster.wait_phones("a", 2);
    let (live, _) = cluster.json_and_code(&["login", "cc100x", "--agent", "7", "--campaign", "c", "--wait"]);
    let id = live["session"].as_str().unwrap().to_owned();
    cluster.redis.kill9();
    let (code, text) = {
        let output = cluster.run(&["login", "cc101x"]);
        (output.status.code(), output.stderr)
    };
    assert_eq!(code, Some(3), "{text}");
    assert!(text.contains("not reachable"), "{text}");
    assert_eq!(phones.live(), 1, "calls go on");
    cluster.redis.start_again();
    cluster.wait_node("a", "active");
    cluster.wait_session(&id, "live", "");
    let session = cluster.session(&id);
    assert_eq!(
        (&session["agent"], &session["campaign"], &session["alias"]),
        (&"7".into(), &"c".into(), &"cc100x".into())
    );
    cluster.wait_phones("a", 2);
    assert_eq!(cluster.json(&["logout", "7"])["reason"], "logged-out");
    assert_eq!(phones.rings("cc100"), 1);
    cluster.wait_empty(&lab);
}
