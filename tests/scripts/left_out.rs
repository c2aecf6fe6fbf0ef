//! Which phones a node leaves out stands in its row, until it says otherwise or another daemon has its name.

use evenring::ids::Generation;
use evenring::node::left_out::{Group, Why};

use crate::redis_fixture::{Cluster, word};

#[tokio::test]
async fn who_is_left_out_is_seen_by_all() {
    let mut cluster = Cluster::start().await;
    let a = cluster.up("a", &["cc100"]).await;
    assert_eq!(cluster.node("a").await.left_out, []);
    let name = Group { reason: Why::Name, count: 2, examples: vec!["PJSIP/cc500@t1".into(), "SIP/\\x1b\"".into()] };
    let groups = [name, Group { reason: Why::MaxDevices, count: 30_000, examples: Vec::new() }];
    for _ in 0..2 {
        cluster.registry.left_out(&a.name, a.generation, &groups).await.unwrap();
        let rows = cluster.node("a").await.left_out;
        let seen: Vec<_> = rows.iter().map(|row| (row.reason.as_str(), row.phones, row.examples.len())).collect();
        assert_eq!(seen, [("name", 2, 2), ("max-devices", 30_000, 0)]);
        assert_eq!(rows[0].examples, groups[0].examples);
    }
    let old = Generation::from_bits(0xbad);
    assert_eq!(word(cluster.registry.left_out(&a.name, old, &[]).await), "fenced");
    let next = cluster.up("a", &["cc100"]).await;
    assert_eq!(cluster.node("a").await.left_out, [], "the next daemon has not said any");
    cluster.registry.left_out(&next.name, next.generation, &groups[..1]).await.unwrap();
    cluster.registry.left_out(&next.name, next.generation, &[]).await.unwrap();
    assert_eq!(cluster.node("a").await.left_out, []);
    cluster.run::<String>(&["FLUSHALL"]).await;
    assert_eq!(word(cluster.registry.left_out(&next.name, next.generation, &groups).await), "forgotten");
}
