//! How often an Asterisk is asked that does not let the daemon in, or only for a moment: not again and again, and at once
//! when somebody has repaired what was wrong and says so.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that fails says why")]

#[path = "../cluster/mod.rs"]
mod cluster;
#[path = "../fake_ami/mod.rs"]
mod fake_ami;
#[path = "../lab/mod.rs"]
mod lab;

use std::fs;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use cluster::{Cluster, SOON};
use fake_ami::{Client, Peer};
use lab::evenring::{Daemon, Sections};
use lab::{Lab, Spec, Version, now, run};

/// What the log says when only a person can help.
const MENDED: &str = "AMI unavailable, needs attention";

#[tokio::test]
async fn what_boots_and_drops_is_asked_less_and_less() {
    let (seen, heard) = mpsc::channel::<Instant>();
    let peer = Peer::start(move |_, mut conn| {
        let _ = seen.send(now());
        conn.login();
        // The client has the boot before the end.
        let _ = conn.hear();
    });
    let mut client = Client::start(&peer, |_| ());
    let mut times = Vec::new();
    while times.len() < 8 {
        client.booted().await;
        client
            .to
            .try_send(evenring::ami_client::ToAmi::Send(
                evenring::ami::outcome::Tag(1),
                None,
                evenring::ami::action::Action::new("Ping").unwrap(),
            ))
            .unwrap();
        times.push(heard.recv().unwrap());
    }
    let gaps: Vec<_> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let least = [20, 20, 20, 125, 250, 500, 1000].map(Duration::from_millis);
    assert!(gaps.iter().zip(least).all(|(gap, least)| *gap >= least), "{gaps:?}");
}

fn one_node() -> Lab {
    Lab::start(&[Spec { name: "a", version: Version::V22, endpoints: 2 }])
}

/// Waits until the daemon has given up to ask often; it then has said twice that AMI is unavailable.
fn wait_given_up(daemon: &mut Daemon, reason: &str) {
    daemon.wait_log(MENDED, SOON);
    let log = daemon.log();
    let last = log.lines().rfind(|line| line.contains(MENDED)).unwrap();
    assert!(last.contains(reason), "{reason:?} in {last}");
}

fn hang_up(daemon: &Daemon) {
    run(&format!("kill -HUP {}", daemon.pid()));
}

#[test]
fn a_wrong_secret_is_not_tried_for_ever_and_the_right_one_at_once() {
    let lab = one_node();
    let mut cluster = Cluster::start(&lab);
    let mut daemon = cluster.daemons.remove(0);
    let secret = daemon.config().with_file_name("ami-secret");
    let right = fs::read_to_string(&secret).unwrap();
    daemon.kill9();
    fs::write(&secret, "mistyped").unwrap();
    let mut daemon = daemon.again();
    wait_given_up(&mut daemon, "Authentication failed");
    // Still wrong: it is tried once more, and no more than that.
    let refused =
        || fs::read_to_string(lab.node("a").log()).unwrap_or_default().matches("failed to authenticate").count();
    let before = refused();
    hang_up(&daemon);
    daemon.wait_log("settings reloaded", SOON);
    lab::wait_until(SOON, "another try", || refused() > before);
    fs::write(&secret, right).unwrap();
    hang_up(&daemon);
    cluster.wait_node("a", "active");
    let log = daemon.log();
    assert!(log.contains("setting applied node=a key=\"ami.secret\"") && !log.contains("mistyped"), "{log}");
}

#[test]
fn a_user_that_asterisk_lacks_is_found_after_a_reload() {
    let lab = one_node();
    let mut cluster = Cluster::start(&lab);
    let daemon = &mut cluster.daemons[0];
    let conf = lab.node("a").root().join("etc/asterisk/manager.conf");
    let right = fs::read_to_string(&conf).unwrap();
    fs::write(&conf, right.replace("[evenring]", "[somebody]")).unwrap();
    lab.node("a").restart();
    wait_given_up(daemon, "Authentication failed");
    fs::write(&conf, right).unwrap();
    lab.node("a").cli("manager reload");
    hang_up(daemon);
    cluster.wait_node("a", "active");
}

#[test]
fn rights_that_were_repaired_are_had_after_a_reload() {
    let lab = one_node();
    let mut cluster = Cluster::start(&lab);
    let daemon = &mut cluster.daemons[0];
    let conf = lab.node("a").root().join("etc/asterisk/manager.conf");
    let right = fs::read_to_string(&conf).unwrap();
    let wrong = right.replace("write = originate,call,reporting,agent", "write = originate");
    assert_ne!(right, wrong);
    fs::write(&conf, wrong).unwrap();
    lab.node("a").restart();
    daemon.wait_log("Asterisk refuses part of the snapshot", SOON);
    fs::write(&conf, right).unwrap();
    lab.node("a").cli("manager reload");
    // The login that is there keeps the rights it was made with.
    cluster.wait_node("a", "starting");
    hang_up(&cluster.daemons[0]);
    cluster.wait_node("a", "active");
}

#[test]
fn a_certificate_that_nobody_trusts_is_for_people_too() {
    let lab = one_node();
    let redis = lab::redis::Redis::start_with(lab::HUB, &[]);
    let sections = Sections { address: "tls://127.0.0.1:5039", ..Sections::default() };
    let mut daemon = Daemon::start_with(lab.node("a"), &redis.url(), &sections);
    wait_given_up(&mut daemon, "certificate");
    let text = fs::read_to_string(daemon.config()).unwrap();
    let trusted = format!("[ami]\nca_file = \"{}\"\n", lab.certificate().display());
    fs::write(daemon.config(), text.replace("[ami]\n", &trusted)).unwrap();
    hang_up(&daemon);
    let cli = lab::evenring::Cli::new(&redis.url());
    let cluster = Cluster { daemons: vec![daemon], redis, cli };
    cluster.wait_node("a", "active");
}
