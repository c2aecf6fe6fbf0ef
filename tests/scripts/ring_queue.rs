//! Who waits for their turn says so, with their place; and a dead node is forgotten.

use evenring::ids::SessionId;
use evenring::node::session::Outcome;
use evenring::registry::Forgotten;

use crate::redis_fixture::{Cluster, extensions, id, word};

async fn states(cluster: &mut Cluster, ids: &[SessionId]) -> Vec<(String, Option<u64>)> {
    let mut all = Vec::new();
    for id in ids {
        let row = cluster.row(*id).await;
        all.push((row.state.to_string(), row.queue_position));
    }
    all
}

#[tokio::test]
async fn who_waits_is_queued_with_his_place_until_the_node_says_otherwise() {
    let mut cluster = Cluster::start().await;
    let names = extensions(6);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let a = cluster.up("a", &names).await;
    let mut ids = Vec::new();
    for name in &names[..4] {
        ids.push(cluster.placed(&format!("{name}x"), "").await.0);
    }
    cluster.take(&a).await;
    for name in &names[4..] {
        ids.push(cluster.placed(&format!("{name}x"), "").await.0);
    }
    let rows = |expected: [(&str, Option<u64>); 6]| expected.map(|(state, place)| (state.to_owned(), place)).to_vec();
    let (rings, placed) = (("ringing", None), ("placed", None));
    assert_eq!(states(&mut cluster, &ids).await, rows([rings, rings, rings, rings, placed, placed]));

    cluster.registry.report_ring_queue(&a.name, a.generation, &[ids[2], ids[1], ids[3]]).await.unwrap();
    let queued = |place| ("queued", Some(place));
    let expected = rows([rings, queued(2), queued(1), queued(3), queued(4), queued(5)]);
    assert_eq!(states(&mut cluster, &ids).await, expected, "those that were not taken come behind");
    assert_eq!((cluster.node("a").await.queued, cluster.node("a").await.agents), (5, 6));
    // One that is over has no place, whatever the line says; nor has a hang-up.
    cluster.report(&a, ids[2], Outcome::Live).await;
    cluster.registry.logout(&id("cc101x")).await.unwrap();
    cluster.registry.logout(&id("cc104x")).await.unwrap();
    let expected = rows([rings, queued(2), ("live", None), queued(3), ("ended", None), queued(4)]);
    assert_eq!(states(&mut cluster, &ids).await, expected);

    // A node that has a line rings in the order in which it fetches.
    cluster.take(&a).await;
    let expected = rows([rings, queued(2), ("live", None), queued(3), ("ended", None), queued(4)]);
    assert_eq!(states(&mut cluster, &ids).await, expected);

    cluster.registry.report_ring_queue(&a.name, a.generation, &[]).await.unwrap();
    let expected = rows([rings, rings, ("live", None), rings, ("ended", None), rings]);
    assert_eq!(states(&mut cluster, &ids).await, expected);
    assert_eq!(cluster.node("a").await.queued, 0);

    // The next daemon has no line yet, and what an older one says is refused.
    cluster.registry.report_ring_queue(&a.name, a.generation, &[ids[1]]).await.unwrap();
    let next = cluster.up("a", &names).await;
    assert_eq!(cluster.node("a").await.queued, 0);
    assert_eq!(word(cluster.registry.report_ring_queue(&a.name, a.generation, &[ids[1]]).await), "fenced");
    cluster.registry.report_ring_queue(&next.name, next.generation, &[ids[1]]).await.unwrap();
    cluster.registry.leave(&next.name, next.generation, &mut cluster.beats).await.unwrap();
    assert_eq!(cluster.node("a").await.queued, 0, "a daemon that stops rings nobody");
}

#[tokio::test]
async fn only_a_dead_node_without_sessions_is_forgotten() {
    let mut cluster = Cluster::start().await;
    let a = cluster.up("a", &["cc100"]).await;
    let b = cluster.up("b", &[]).await;
    assert!(matches!(cluster.registry.forget(&a.name).await.unwrap(), Forgotten::Alive(left) if left.as_secs() > 30));
    cluster.placed("cc100x", "7").await;
    cluster.take(&a).await;
    cluster.registry.contacts(&a.name, a.generation, &[("cc100".to_owned(), "{}".to_owned())]).await.unwrap();
    cluster.alias("desk", &["cc100@a"]).await;
    cluster.lapse("a").await;
    assert_eq!(cluster.registry.forget(&a.name).await.unwrap(), Forgotten::Busy(1));
    assert_eq!(cluster.node("a").await.agents, 1, "a refusal changes nothing");
    cluster.beat(&b).await;
    assert_eq!(cluster.registry.forget(&a.name).await.unwrap(), Forgotten::Yes);

    let rows = cluster.registry.nodes().await.unwrap();
    assert_eq!(rows.iter().map(|row| row.name.as_str()).collect::<Vec<_>>(), ["b"]);
    let left: Vec<String> = cluster.run(&["KEYS", "NS:*a"]).await;
    assert_eq!(left, [""; 0], "nothing of it is left");
    assert_eq!(cluster.run::<Vec<String>>(&["SMEMBERS", "NS:QUEUES"]).await.len(), 2, "logins and ring-b");
    assert_eq!(cluster.registry.aliases().await.unwrap().len(), 1, "that is the operators' own");
    assert_eq!(cluster.registry.forget(&a.name).await.unwrap(), Forgotten::Unknown);
    assert_eq!(cluster.registry.forget(&id("nobody")).await.unwrap(), Forgotten::Unknown);
    // Its old daemon was only frozen: it is told to register again, and is there as before.
    assert_eq!(word(cluster.registry.fetch_orders(&a.name, a.generation, cluster.fetches.ask(), 1).await), "forgotten");
    let back = cluster.up("a", &["cc100"]).await;
    assert_eq!(cluster.placed("cc100x", "7").await.1, "a");
    assert_eq!(cluster.take(&back).await.len(), 1);
}
