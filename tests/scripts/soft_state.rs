//! P12: Redis holds soft state. What a node says after FLUSHALL makes it whole again.

use std::collections::BTreeSet;

use evenring::ids::Now;
use evenring::node::roster::PhoneState;
use evenring::node::session::Outcome;
use evenring::node::{Live, NodeState};
use evenring::registry::view::Verdict;
use evenring::registry::{Adopted, Order};

use redis::Value;
use tokio::task::JoinSet;

use crate::redis_fixture::{Cluster, NS, extensions, login, node, phones, previous, word};

#[tokio::test]
async fn p12_after_flushall_a_node_tells_everything_again() {
    let mut cluster = Cluster::start().await;
    let a = cluster.up("a", &["cc100", "cc101"]).await;
    let (live, _) = cluster.placed("cc100x", "7").await;
    let (ringing, _) = cluster.placed("cc101x", "8").await;
    let mut found = Vec::new();
    for order in cluster.take(&a).await {
        let Order::Ring(login) = order else { panic!("{order:?}") };
        found.push((login.clone(), if login.session == live { Live::Yes } else { Live::NotYet }));
    }
    cluster.report(&a, live, Outcome::Live).await;
    cluster.run::<()>(&["FLUSHALL"]).await;

    let beat = cluster
        .registry
        .heartbeat(&a.name, a.generation, (NodeState::Active, 2, 2), (&mut cluster.beats, Now::default()))
        .await;
    assert_eq!(word(beat), "forgotten");
    previous(cluster.registry.register(&node("a"), a.generation, "host").await.unwrap());
    let known = phones(PhoneState::Registered, ["cc100", "cc101"]);
    cluster.registry.phones(&a.name, a.generation, &known).await.unwrap();
    for expected in [Adopted::Restored, Adopted::Kept] {
        let results = cluster.registry.adopt(&a.name, a.generation, &found).await.unwrap();
        assert_eq!(results, [expected, expected], "said again it changes nothing");
    }
    cluster.beat(&a).await;
    assert_eq!(cluster.node("a").await.agents, 2);
    assert_eq!(cluster.fate(live).await, ("live".into(), String::new()));
    assert_eq!(cluster.fate(ringing).await, ("ringing".into(), String::new()));
    let again = cluster.place(&login("cc100x", "7")).await;
    assert_eq!((again.verdict, again.session), (Verdict::Existing, Some(live)));
    assert_eq!(cluster.report(&a, ringing, Outcome::Live).await, "done");
}

#[tokio::test]
async fn p12_who_moved_on_meanwhile_is_not_brought_back() {
    let mut cluster = Cluster::start().await;
    let a = cluster.up("a", &["cc100"]).await;
    let (old, _) = cluster.placed("cc100x", "7").await;
    let Order::Ring(channel) = cluster.take(&a).await.remove(0) else { panic!("no order") };
    cluster.report(&a, old, Outcome::Live).await;
    cluster.run::<()>(&["FLUSHALL"]).await;
    cluster.up("b", &["cc100"]).await;
    // Longer than logins are held.
    cluster.run::<u64>(&["HSET", "NS:judge", "hold", "0"]).await;
    let (new, node) = cluster.placed("cc100x", "7").await;
    assert_eq!(node, "b");
    let a = cluster.up("a", &["cc100"]).await;
    let results = cluster.registry.adopt(&a.name, a.generation, &[(channel, Live::Yes)]).await.unwrap();
    assert_eq!(results, [Adopted::Stale]);
    assert_eq!(cluster.node("a").await.agents, 0);
    assert_eq!(cluster.fate(new).await.0, "placed");
}

#[tokio::test]
async fn p5_phones_that_a_failover_lost_are_noticed_at_the_next_heartbeat() {
    let mut cluster = Cluster::start().await;
    let a = cluster.up("a", &["cc100", "cc101"]).await;
    let beat = async |cluster: &mut Cluster| {
        cluster
            .registry
            .heartbeat(&a.name, a.generation, (NodeState::Active, 0, 2), (&mut cluster.beats, Now::default()))
            .await
            .unwrap()
            .phones_lost
    };
    let change = phones(PhoneState::Unregistered, ["cc100"]);
    let change = evenring::node::roster::PhoneChanges { replace: false, ..change };
    cluster.registry.phones(&a.name, a.generation, &change).await.unwrap();
    assert!(!beat(&mut cluster).await);
    // A replica that lacks the last word takes over; a change on top of it does not hide that.
    let number = || ["HSET", "NS:node:a", "phones", "1"];
    let _: u64 = cluster.run(&number()).await;
    assert!(beat(&mut cluster).await);
    let _: u64 = cluster.run(&number()).await;
    cluster.registry.phones(&a.name, a.generation, &change).await.unwrap();
    assert!(beat(&mut cluster).await);
    let all = phones(PhoneState::Registered, ["cc100", "cc101"]);
    cluster.registry.phones(&a.name, a.generation, &all).await.unwrap();
    assert!(!beat(&mut cluster).await);
    // One that has the registration, but never got the phones.
    previous(cluster.registry.register(&node("a"), a.generation, "host").await.unwrap());
    assert!(beat(&mut cluster).await);
}

const MANY: usize = 5_500;

/// A node with two phones tells of [`MANY`] others; meanwhile this is done to the parts that lie aside. How many phones
/// the others saw, and whether the node hears at its next heartbeat that something was lost.
async fn told_in_parts(meanwhile: &[&str]) -> (BTreeSet<usize>, bool, Cluster) {
    let mut cluster = Cluster::start().await;
    let (a, list) = (cluster.up("a", &["one", "two"]).await, extensions(MANY));
    let all = phones(PhoneState::Registered, list.iter().map(String::as_str));
    let (mut registry, name, generation) = (cluster.another(), a.name.clone(), a.generation);
    let mut teller = JoinSet::new();
    teller.spawn(async move {
        registry.phones(&name, generation, &all).await.unwrap();
        registry
    });
    let (mut seen, mut touched) = (BTreeSet::new(), false);
    let mut registry = loop {
        seen.insert(cluster.run::<usize>(&["HLEN", "NS:phones:a"]).await);
        for key in cluster.run::<Vec<String>>(&["KEYS", "NS:phones:a:*"]).await {
            touched |= cluster.run::<Value>(&[meanwhile, &[&key]].concat()).await == Value::Int(1);
        }
        if let Some(registry) = teller.try_join_next() {
            break registry.unwrap();
        }
        tokio::task::yield_now().await;
    };
    assert!(touched, "no part was seen: it was told in one piece");
    seen.insert(cluster.run::<usize>(&["HLEN", "NS:phones:a"]).await);
    let lost = registry
        .heartbeat(&a.name, a.generation, (NodeState::Active, 0, 2), (&mut cluster.beats, Now::default()))
        .await
        .unwrap()
        .phones_lost;
    (seen, lost, cluster)
}

#[tokio::test]
async fn p3_a_long_list_of_phones_is_never_seen_in_part() {
    let (seen, lost, mut cluster) = told_in_parts(&["EXISTS"]).await;
    assert_eq!((seen, lost), (BTreeSet::from([2, MANY]), false));
    assert_eq!(cluster.run::<Vec<String>>(&["KEYS", "NS:phones:a*"]).await, [format!("{NS}:phones:a")]);
    assert_eq!(cluster.run::<i64>(&["PTTL", "NS:phones:a"]).await, -1, "it does not end with the parts");
}

#[tokio::test]
async fn p5_a_part_that_was_lost_is_noticed_at_the_next_heartbeat() {
    let (seen, lost, _cluster) = told_in_parts(&["DEL"]).await;
    assert_eq!((seen, lost), (BTreeSet::from([2]), true));
}
