//! The daemon goes away and comes back while phones ring and calls are up: nobody is rung twice, nobody is cut.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails says why")]

#[path = "../cluster/mod.rs"]
mod cluster;
#[path = "../lab/mod.rs"]
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
            assert!(ended.took < lab::at_this_load(Duration::from_secs(2)), "SIGTERM took {:?}", ended.took);
            assert_eq!(cluster.node("a")["state"], "stopped");
            let (refused, code) = cluster.json_and_code(&["login", "cc102x"]);
            assert_eq!((code, &refused["nodes"][0]["reason"]), (1, &"stopped".into()), "{refused}");
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

/// P12: nobody else knows of its calls, and its next life may be long in coming.
#[test]
fn of_a_daemon_that_is_stopped_when_redis_has_just_lost_everything() {
    let lab = Lab::start(&[Spec { name: "a", version: Version::V22, endpoints: 10 }]);
    let phones = Phones::register(100, 2, &lab.sip(), Behaviour::ANSWER);
    phones.wait_registered(SOON);
    let mut cluster = Cluster::start(&lab);
    cluster.wait_phones("a", 2);
    let (live, _) = cluster.json_and_code(&["login", "cc100x", "--agent", "7", "--wait"]);
    let id = live["session"].as_str().unwrap().to_owned();
    let mut redis = redis::Client::open(cluster.redis.url()).unwrap().get_connection().unwrap();
    let mut daemon = cluster.daemons.pop().unwrap();
    daemon.sigstop();
    redis::cmd("FLUSHALL").exec(&mut redis).unwrap();
    let told = std::process::Command::new("kill").args(["-TERM", &daemon.pid().to_string()]).status().unwrap();
    assert!(told.success());
    daemon.sigcont();
    assert_eq!(daemon.wait_end(SOON), Some(0), "{}", daemon.log());
    assert_eq!(cluster.node("a")["state"], "stopped");
    assert_eq!(cluster.session(&id)["state"], "live", "{}", daemon.log());
    cluster.daemons.push(daemon.again());
    cluster.wait_node("a", "active");
    assert_eq!(cluster.session(&id)["state"], "live", "{}", cluster.logs());
    assert_eq!((phones.live(), phones.rings("cc100")), (1, 1));
}

/// P12: who waits is told what is true after the repair, not what a Redis knows that has just been emptied.
#[test]
fn of_a_redis_that_forgets_while_somebody_waits() {
    let lab = Lab::start(&[Spec { name: "a", version: Version::V22, endpoints: 10 }]);
    let phones = Phones::register(100, 8, &lab.sip(), Behaviour::Answer { after: Duration::from_millis(2_500) });
    phones.wait_registered(SOON);
    let cluster = Cluster::start(&lab);
    cluster.wait_phones("a", 8);
    let mut redis = redis::Client::open(cluster.redis.url()).unwrap().get_connection().unwrap();
    let mut other = redis::Client::open(cluster.redis.url()).unwrap().get_connection().unwrap();
    let mut forget = || redis::cmd("FLUSHALL").exec(&mut redis).unwrap();

    // A burst of logins that all ring, and a burst of losses.
    let aliases: Vec<String> = (100..106).map(|number| format!("cc{number}x")).collect();
    let waiting: Vec<_> =
        aliases.iter().map(|alias| cluster.cli.begin(&["login", alias, "--wait", "--json"])).collect();
    wait_until(SOON, "all six to ring", || {
        aliases.iter().all(|alias| phones.ringing(alias.trim_end_matches('x')) == 1)
    });
    for _ in 0..6 {
        forget();
        let mut known = || redis::cmd("EXISTS").arg("{evenring}:node:a").query::<bool>(&mut other).unwrap();
        wait_until(SOON, "the daemon to register again: the next loss hits the middle of the repair", &mut known);
    }
    for login in waiting {
        let told = login.finish();
        let answer: serde_json::Value = serde_json::from_str(&told.stdout).unwrap();
        assert_eq!((&answer["state"], told.status.code()), (&"live".into(), Some(0)), "{answer}; {}", cluster.logs());
    }

    let live = || cluster.sessions().iter().filter(|session| session["state"] == "live").count();
    wait_until(SOON, "all six to be known again", || live() == 6);

    // A wish that is lost is said again: the daemon stands still, so that it is lost before it is taken.
    cluster.daemons[0].sigstop();
    let leaving = cluster.cli.begin(&["logout", "cc100x", "--json"]);
    wait_until(SOON, "the wish to be in Redis", || wanted(&cluster));
    forget();
    cluster.daemons[0].sigcont();
    let told = leaving.finish();
    let answer: serde_json::Value = serde_json::from_str(&told.stdout).unwrap();
    assert_eq!((&answer["state"], &answer["reason"]), (&"ended".into(), &"logged-out".into()), "{}", cluster.logs());
    assert_eq!(phones.live(), 5, "one call ended, and no other");

    // What nobody has is forgotten, in the end: the order to ring is lost before it is taken.
    wait_until(SOON, "logins to be decided again", || cluster.json_and_code(&["explain", "cc107x"]).1 == 0);
    cluster.daemons[0].sigstop();
    let lost = cluster.cli.begin(&["login", "cc107x", "--wait", "--json"]);
    wait_until(SOON, "the login to be placed", || cluster.sessions().iter().any(|s| s["alias"] == "cc107x"));
    forget();
    cluster.daemons[0].sigcont();
    let told = lost.finish();
    assert!(told.stdout.contains("forgotten-by-redis"), "{told:?}");
    assert_eq!(phones.rings("cc107"), 0);
}

fn wanted(cluster: &Cluster) -> bool {
    let mut redis = redis::Client::open(cluster.redis.url()).unwrap().get_connection().unwrap();
    let keys: Vec<String> = redis::cmd("KEYS").arg("*:session:*").query(&mut redis).unwrap();
    keys.iter().any(|key| {
        let wish: Option<String> = redis::cmd("HGET").arg(key).arg("hangup_requested").query(&mut redis).unwrap();
        wish.as_deref() == Some("1")
    })
}
