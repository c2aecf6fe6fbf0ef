//! Why a node takes no logins, and who else wants its name, stand in its row as long as they are so.

use evenring::ids::Generation;

use crate::redis_fixture::{Cluster, node, word};

#[tokio::test]
async fn why_a_node_is_not_in_sync_is_seen_by_all_until_it_is() {
    let mut cluster = Cluster::start().await;
    let a = cluster.up("a", &["cc100"]).await;
    assert_eq!(cluster.node("a").await.reason, "");
    let said = "Asterisk refused the login of evenring: \"no\"";
    cluster.registry.report_reason(&a.name, a.generation, said).await.unwrap();
    assert_eq!(cluster.node("a").await.reason, "", "it is active");
    let state = |state: &'static str| ["HSET", "{evenring}:node:a", "state", state];
    for down in ["starting", "down", "stopping"] {
        cluster.run::<u8>(&state(down)).await;
        assert_eq!(cluster.node("a").await.reason, said, "{down}");
    }
    cluster.run::<u8>(&state("stopped")).await;
    assert_eq!(cluster.node("a").await.reason, "its daemon was stopped; systemctl start evenring there");
    let next = Generation::from_bits(900);
    cluster.registry.register(&node("a"), next, "host").await.unwrap();
    assert_eq!(cluster.node("a").await.reason, "see systemctl status evenring there", "the next one has not said any");
    assert_eq!(word(cluster.registry.report_reason(&a.name, a.generation, said).await), "fenced");
    cluster.drain("a", true).await;
    cluster.run::<u8>(&state("active")).await;
    assert_eq!(cluster.node("a").await.reason, "drained by operators; evenring resume a takes it back");
    cluster.lapse("a").await;
    let gone = cluster.node("a").await.reason;
    assert!(gone.starts_with("no heartbeat: its host or daemon is down"), "{gone}");
}

#[tokio::test]
async fn who_waits_for_a_name_is_seen_while_it_asks() {
    let mut cluster = Cluster::start().await;
    cluster.up("a", &[]).await;
    assert_eq!(cluster.node("a").await.claimant, "");
    let next = Generation::from_bits(900);
    cluster.registry.register(&node("a"), next, "tel-2/boot/1:7 pid 5").await.unwrap();
    assert_eq!(cluster.node("a").await.claimant, "tel-2 (pid 5)");
    cluster.run::<i64>(&["HINCRBY", "{evenring}:node:a", "claimed_at", "-5001"]).await;
    assert_eq!(cluster.node("a").await.claimant, "", "it has given up");
    cluster.registry.register(&node("a"), next, "tel-2/boot/1:7 pid 5").await.unwrap();
    cluster.lapse("a").await;
    cluster.registry.register(&node("a"), next, "tel-2/boot/1:7 pid 5").await.unwrap();
    assert_eq!(cluster.node("a").await.claimant, "", "it has the name");
}
