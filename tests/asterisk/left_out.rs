//! Phones that a node cannot follow, on a real Asterisk: the others ring, and everybody who looks is told.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that fails says why")]

#[path = "../cluster/mod.rs"]
mod cluster;
#[path = "../lab/mod.rs"]
mod lab;

use cluster::{Cluster, SHORT, SOON};
use lab::evenring::Sections;
use lab::http::get;
use lab::phone::{Behaviour, Phones};
use lab::{Lab, Spec, Version, wait_until};
use serde_json::json;

#[test]
fn what_does_not_fit_is_counted_and_said_and_the_rest_can_ring() {
    let lab = Lab::start(&["a", "b"].map(|name| Spec { name, version: Version::V22, endpoints: 3 }));
    for node in lab.nodes() {
        let settings = node.root().join("etc/asterisk/pjsip.conf");
        let text = std::fs::read_to_string(&settings).unwrap();
        let more = "\n[+4930123](phone-endpoint)\naors = cc100\n[cc500@tenant1](phone-endpoint)\naors = cc100\n";
        std::fs::write(&settings, text + more).unwrap();
        node.cli("module reload res_pjsip.so");
    }
    let phones = Phones::register(100, 1, &lab.sip(), Behaviour::ANSWER);
    phones.wait_registered(SOON);
    let mut cluster = Cluster::with(&lab, &Sections { rest: SHORT, ..Sections::default() });
    let name = json!([{"reason": "name", "phones": 1, "examples": ["PJSIP/cc500@tenant1"]}]);
    wait_until(SOON, "the endpoint without an id to be seen", || cluster.node("a")["left_out"] == name);
    cluster.wait_why("+4930123", "a", "", SOON);
    let (live, code) = cluster.json_and_code(&["login", "+4930123x", "--wait"]);
    assert_eq!((code, &live["state"], phones.rings("cc100")), (0, &"live".into(), 1), "{live} {}", cluster.logs());
    assert_eq!(cluster.json(&["logout", "+4930123"])["reason"], "logged-out");
    let said = "phones left out: agents cannot log in with them; run evenring doctor";
    let times = |log: String| log.matches(said).count();
    for _ in 0..3 {
        lab.nodes()[0].cli("module reload res_pjsip.so");
    }
    cluster.wait_beats("a", 3);
    assert_eq!(times(cluster.daemons[0].log()), 1, "{}", cluster.logs());

    // Few are let in: the node is in the rotation with those.
    let config = cluster.daemons[1].config().to_owned();
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("[ami]\n", "[ami]\nmax_phones = 2\nmax_devices = 3\n")).unwrap();
    let mut daemon = cluster.daemons.remove(1);
    daemon.term();
    cluster.daemons.push(daemon.again());
    wait_until(SOON, "the limits of b to be seen", || {
        let rows = cluster.node("b")["left_out"].as_array().cloned().unwrap_or_default();
        rows.iter().any(|row| row["reason"] == "max-devices")
    });
    cluster.wait_node("b", "active");
    assert_eq!(cluster.json(&["phones"])["phones"].as_array().unwrap().iter().filter(|p| p["node"] == "b").count(), 2);
    assert!(cluster.run(&["status"]).ok().contains("b: phones left out: "));
    let doctor = cluster.run(&["doctor"]).stdout;
    for part in [
        "left out on a: 1 have names that are not valid ids: PJSIP/cc500@tenant1",
        "raise ami.max_devices on that node",
    ] {
        assert!(doctor.contains(part), "{doctor}");
    }
    let page = get(&lab.nodes()[0], "/metrics").body;
    assert!(page.contains("evenring_phones_left_out{reason=\"name\"} 1"), "{page}");
}
