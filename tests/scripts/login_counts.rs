//! Logins that were refused or have failed are counted once in the cluster, whoever placed them, and every node is told the
//! same numbers.

use evenring::ids::Now;
use evenring::node::NodeState;
use evenring::node::session::{Outcome, Reason};
use evenring::registry::LoginCounts;
use evenring::registry::view::Verdict;

use crate::redis_fixture::{Cluster, Member, login, session};

async fn counts(cluster: &mut Cluster, member: &Member) -> Vec<(&'static str, u64)> {
    let how = (NodeState::Active, 0, 1);
    let beat = cluster.registry.heartbeat(&member.name, member.generation, how, (&mut cluster.beats, Now::default()));
    let LoginCounts { refused, failed } = beat.await.unwrap().counts;
    refused.into_iter().chain(failed).filter(|(_, count)| *count > 0).collect()
}

#[tokio::test]
async fn each_login_that_is_refused_or_fails_is_counted_once() {
    let mut cluster = Cluster::start().await;
    let a = cluster.up("a", &["cc100", "cc101", "cc102"]).await;
    let b = cluster.up("b", &[]).await;
    assert_eq!(counts(&mut cluster, &a).await, []);
    for request in [login("nobodyx", ""), login("nobodyx", "7")] {
        assert_eq!(cluster.place(&request).await.verdict, Verdict::Refused);
    }
    // Who only asks is not counted, nor is who is told again.
    cluster.registry.explain(&login("nobodyx", ""), session(77)).await.unwrap();
    assert_eq!(counts(&mut cluster, &a).await, [("unknown-alias", 2)]);

    let (busy, _) = cluster.placed("cc100x", "7").await;
    let (congested, _) = cluster.placed("cc101x", "8").await;
    let (live, _) = cluster.placed("cc102x", "9").await;
    cluster.take(&a).await;
    cluster.report(&a, busy, Outcome::Failed(Reason::Busy)).await;
    cluster.report(&a, busy, Outcome::Failed(Reason::Busy)).await;
    // No other node can ring it.
    cluster.report(&a, congested, Outcome::TryNextNode(Reason::Congestion(34))).await;
    cluster.report(&a, live, Outcome::Live).await;
    assert_eq!(cluster.place(&login("cc102x", "10")).await.verdict, Verdict::Refused);
    cluster.report(&a, live, Outcome::Ended(Reason::HungUp)).await;
    let (refused, _) = cluster.placed("cc100x", "7").await;
    cluster.take(&a).await;
    cluster.report(&a, refused, Outcome::Failed(Reason::Refused("Extension does not exist.".into()))).await;
    let (node_lost, _) = cluster.placed("cc101x", "8").await;
    cluster.take(&a).await;
    let expected = [("in-use", 1), ("unknown-alias", 2), ("busy", 1), ("congestion", 1), ("refused", 1)];
    for member in [&a, &b] {
        assert_eq!(counts(&mut cluster, member).await, expected, "every node is told the same");
    }
    cluster.lapse("a").await;
    assert!(counts(&mut cluster, &b).await.contains(&("node-lost", 1)));
    assert_eq!(cluster.fate(node_lost).await, ("failed".to_owned(), "node-lost".to_owned()));
    cluster.run::<u8>(&["HSET", "NS:index:counts", "refused of-another-version", "3"]).await;
    assert!(counts(&mut cluster, &b).await.contains(&("other", 3)));
}
