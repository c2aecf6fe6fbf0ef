//! Many at once: the shift start, and the impatient. Real Redis, three real Asterisks, two hundred phones.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails says why")]

#[path = "../cluster/mod.rs"]
mod cluster;
#[path = "../lab/mod.rs"]
mod lab;

use std::collections::BTreeMap;
use std::time::Duration;

use cluster::{Cluster, SOON};
use evenring::config::Settings;
use evenring::node::session::Class;
use evenring::registry::view::{Placement, Verdict};
use evenring::registry::{LoginRequest, Registry};
use evenring::runtime::random::new_session;
use lab::phone::{Behaviour, Phones};
use lab::{Lab, now, three, wait_for};

/// Sends these logins from as many connections as there are logins, all at the same moment.
fn at_once(cluster: &Cluster, aliases: &[String], class: Class) -> Vec<Placement> {
    let settings = Settings::load(Some(cluster.cli.config()), std::iter::empty()).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        let gate = std::sync::Arc::new(tokio::sync::Barrier::new(aliases.len()));
        for alias in aliases {
            let mut registry = Registry::new(&settings).unwrap();
            let (alias, gate) = (alias.parse().unwrap(), gate.clone());
            tasks.spawn(async move {
                registry.now_ms().await.expect("a connection");
                gate.wait().await;
                let request = LoginRequest { alias, agent: None, campaign: None, class, moves: false, hold: None };
                registry.place(&request, new_session()).await.expect("a placement")
            });
        }
        tasks.join_all().await
    })
}

fn wait_all_live(cluster: &Cluster, phones: &Phones, count: usize) {
    wait_for(Duration::from_secs(30), || {
        let sessions = cluster.sessions();
        let mut states = BTreeMap::<String, usize>::new();
        for session in &sessions {
            *states.entry(session["state"].as_str().unwrap().to_owned()).or_default() += 1;
        }
        if states.get("live") == Some(&count) && phones.live() == count {
            Ok(())
        } else {
            Err(format!("{count} live sessions: {states:?}, {} phones are up; {}", phones.live(), cluster.logs()))
        }
    });
}

#[test]
fn two_hundred_logins_at_once_are_even_and_each_rings_once() {
    let lab = Lab::start(&three(210));
    let phones = Phones::register(100, 203, &lab.sip(), Behaviour::ANSWER);
    phones.wait_registered(SOON);
    let cluster = Cluster::start(&lab);
    for node in lab.nodes() {
        cluster.wait_phones(node.name(), 203);
    }
    let aliases: Vec<String> = (100..300).map(|number| format!("cc{number}x")).collect();
    let begin = now();
    let placements = at_once(&cluster, &aliases, Class::Local);
    let placed = begin.elapsed();
    wait_all_live(&cluster, &phones, 200);
    println!("200 logins: all placed after {placed:?}, all live after {:?}", begin.elapsed());
    assert!(placements.iter().all(|placement| placement.verdict == Verdict::Placed));

    let agents = cluster.agents();
    let spread = agents.values().max().unwrap() - agents.values().min().unwrap();
    assert!(spread <= 1, "{agents:?}");
    assert_eq!(agents.values().sum::<u64>(), 200);
    for name in phones.names().iter().take(200) {
        assert_eq!(phones.rings(name), 1, "{name}");
    }
    assert_eq!(phones.invites().len(), 200);
    for node in lab.nodes() {
        // Beside the phones' own channels, each conference has two of its own.
        let channels = node.cli("core show channels concise");
        let phones = channels.lines().filter(|line| line.starts_with("PJSIP/")).count();
        assert_eq!(phones as u64, agents[node.name()], "{}: {channels}", node.name());
    }

    // Remote agents are placed and change no load.
    let remote: Vec<String> = (300..303).map(|number| format!("cc{number}x")).collect();
    let placements = at_once(&cluster, &remote, Class::Remote);
    assert!(placements.iter().all(|placement| placement.verdict == Verdict::Placed));
    wait_all_live(&cluster, &phones, 203);
    assert_eq!(cluster.agents(), agents);
}

#[test]
fn the_same_login_fifty_times_at_once_is_one_session_and_one_ring() {
    let lab = Lab::start(&three(10));
    let phones = Phones::register(100, 2, &lab.sip(), Behaviour::ANSWER);
    phones.wait_registered(SOON);
    let cluster = Cluster::start(&lab);
    for node in lab.nodes() {
        cluster.wait_phones(node.name(), 2);
    }
    // By alias and by bare extension: it is the same phone.
    let aliases: Vec<String> = (0..50).map(|n| if n % 2 == 0 { "cc100x" } else { "cc100" }.to_owned()).collect();
    let placements = at_once(&cluster, &aliases, Class::Local);
    let first = placements[0].session;
    assert!(placements.iter().all(|placement| placement.session == first), "{placements:?}");
    assert_eq!(placements.iter().filter(|placement| placement.verdict == Verdict::Placed).count(), 1);
    wait_all_live(&cluster, &phones, 1);
    assert_eq!(phones.invites().len(), 1);
    assert_eq!(cluster.sessions().len(), 1);
}
