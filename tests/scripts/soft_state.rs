//! P12: Redis holds soft state. What a node says after FLUSHALL makes it whole again.

use evenring::node::session::Outcome;
use evenring::node::{Live, NodeState};
use evenring::registry::view::Verdict;
use evenring::registry::{Adopted, Order};

use crate::ledger::{Cluster, login, node, phones, word};

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

    let beat = cluster.registry.heartbeat(&a.name, a.generation, NodeState::Active, 2, 2).await;
    assert_eq!(word(beat), "forgotten");
    cluster.registry.register(&node("a"), a.generation, "host").await.unwrap().unwrap();
    let known = phones(evenring::node::roster::PhoneState::Registered, ["cc100", "cc101"]);
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
        cluster.registry.heartbeat(&a.name, a.generation, NodeState::Active, 0, 2).await.unwrap().phones_lost
    };
    let change = phones(evenring::node::roster::PhoneState::Unregistered, ["cc100"]);
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
    let all = phones(evenring::node::roster::PhoneState::Registered, ["cc100", "cc101"]);
    cluster.registry.phones(&a.name, a.generation, &all).await.unwrap();
    assert!(!beat(&mut cluster).await);
    // One that has the registration, but never got the phones.
    cluster.registry.register(&node("a"), a.generation, "host").await.unwrap().unwrap();
    assert!(beat(&mut cluster).await);
}
