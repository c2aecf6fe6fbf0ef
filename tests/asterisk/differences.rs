//! What must be the same on all nodes and is not, what waits for a restart, and two hosts that want one name: the doctor names
//! each with the nodes, on real daemons.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that fails says why")]

#[path = "../cluster/mod.rs"]
mod cluster;
#[path = "../lab/mod.rs"]
mod lab;

use std::fs;

use cluster::{Cluster, SOON};
use lab::evenring::{Daemon, Place, Sections};
use lab::phone::{Behaviour, Phones};
use lab::redis::Redis;
use lab::{HUB, Lab, Spec, Version, run, wait_for};

/// What this lab does not have, and is not tested here: TLS and a password for Redis.
const REST: &str =
    "[ring]\ntimeout = \"4s\"\n[doctor]\naccept = [\"config.unwise\", \"redis.default-user\", \"redis.acl.excess\"]\n";

/// Waits until these are the troubles of node a: code and a part of the finding.
#[track_caller]
fn wait_troubles(cluster: &Cluster, lab: &Lab, expected: &[(&str, &str)]) {
    wait_for(SOON * 2, || {
        let (troubles, exit) = cluster.troubles(lab.node("a"));
        let fits = |((code, finding, fix), (wanted, part)): (&(String, String, String), &(&str, &str))| {
            code == wanted && finding.contains(part) && !fix.is_empty()
        };
        let is_right = troubles.len() == expected.len() && troubles.iter().zip(expected).all(fits);
        if is_right && (exit == 0) == expected.is_empty() {
            return Ok(());
        }
        Err(format!("{expected:?}: {troubles:#?}, exit code {exit}; {}", cluster.logs()))
    });
}

fn show(cluster: &Cluster, lab: &Lab, what: &str) {
    println!("==== {what}: evenring doctor\n{}", cluster.doctor(lab.node("a"), &[]).stdout);
    println!("==== {what}: evenring status\n{}", cluster.run(&["status"]).stdout);
}

#[test]
fn what_differs_waits_or_fights_is_named() {
    let spec = |name, version| Spec { name, version, endpoints: 2 };
    let lab = Lab::start(&[spec("a", Version::V22), spec("c", Version::V16)]);
    let phones = Phones::register(100, 2, &lab.sip(), Behaviour::ANSWER);
    phones.wait_registered(SOON);
    let mut cluster = Cluster::on(Redis::start_with(HUB, &[]), &lab, &Sections { rest: REST, ..Sections::default() });
    for node in lab.nodes() {
        cluster.wait_phones(node.name(), 2);
    }
    wait_troubles(&cluster, &lab, &[]);

    // Node c is started again with other settings.
    let before = fs::read_to_string(cluster.daemons[1].config()).unwrap();
    let differs = before.replace("timeout = \"4s\"", "timeout = \"5s\"");
    fs::write(
        cluster.daemons[1].config(),
        format!("{differs}[placement]\nrejoin = \"auto\"\ntries = 2\nalias_suffix = \"y\"\n"),
    )
    .unwrap();
    let again = |mut daemon: Daemon| {
        daemon.term();
        daemon.again()
    };
    let daemon = again(cluster.daemons.remove(1));
    cluster.daemons.push(daemon);
    cluster.wait_node("c", "active");
    wait_troubles(
        &cluster,
        &lab,
        &[
            ("nodes.settings", "placement.alias_suffix differs: \"x\" on a; \"y\" on c"),
            ("nodes.settings", "placement.rejoin differs: \"auto\" on c; \"manual\" on a"),
            ("nodes.settings", "placement.tries differs: 2 on c; 3 on a"),
            ("nodes.settings", "ring.timeout differs: \"4s\" on a; \"5s\" on c"),
        ],
    );
    show(&cluster, &lab, "different settings");
    fs::write(cluster.daemons[1].config(), &before).unwrap();
    let daemon = again(cluster.daemons.remove(1));
    cluster.daemons.push(daemon);
    cluster.wait_node("c", "active");
    wait_troubles(&cluster, &lab, &[]);

    // A reload that changes what only a restart applies.
    fs::write(cluster.daemons[1].config(), format!("{before}[placement]\ntries = 2\n")).unwrap();
    run(&format!("kill -HUP {}", cluster.daemons[1].pid()));
    cluster.daemons[1].wait_log("setting changed: needs a restart", SOON);
    wait_troubles(&cluster, &lab, &[("nodes.restart", "restart pending on c: placement.tries")]);
    assert_eq!(cluster.node("c")["restart_pending"], serde_json::json!(["placement.tries"]));
    let status = cluster.run(&["status"]).stdout;
    assert!(status.contains("c: restart pending for placement.tries: `systemctl restart evenring` there"), "{status}");
    show(&cluster, &lab, "restart pending");
    fs::write(cluster.daemons[1].config(), &before).unwrap();
    run(&format!("kill -HUP {}", cluster.daemons[1].pid()));
    wait_troubles(&cluster, &lab, &[]);

    the_same_name(&cluster, &lab);
}

/// A second daemon as on another host: it has the other host's name.
fn the_same_name(cluster: &Cluster, lab: &Lab) {
    let mut rival = cluster.daemons[1].second(Place::Apart);
    rival.wait_log("another daemon holds this node's name", SOON);
    let host = run("hostname").trim().to_owned();
    // Both are processes of one host here, at one address.
    let who = |pid: u32| format!("pid {pid} at {}", lab.node("c").address());
    let (holder, waits) = (who(cluster.daemons[1].pid()), who(rival.pid()));
    let both = format!("two hosts want the name c: {host} ({holder}) has it, {host} ({waits}) waits for it");
    wait_troubles(cluster, lab, &[("nodes.name", &both)]);
    show(cluster, lab, "two hosts, one name");
    let events = cluster.run(&["events", "--event", "name-conflict"]).stdout;
    println!("==== two hosts, one name: evenring events --event name-conflict\n{events}");
    println!("==== two hosts, one name: the log\n{}", rival.log().lines().last().unwrap_or_default());
    assert_eq!(events.lines().count(), 1, "once, not at each attempt: {events}");
    assert!(events.contains(&format!("held by {host} {holder}, wanted by {host} {waits}")), "{events}");
    rival.term();
    wait_troubles(cluster, lab, &[]);
}
