//! What nodes tell of themselves to be compared, and two hosts that want one name.

use evenring::ids::Generation;
use evenring::registry::events::Cursor;
use evenring::registry::{Forgotten, Registered, ToldSettings};

use crate::redis_fixture::{Cluster, node, word};

#[tokio::test]
async fn settings_and_clock_are_told_by_the_nodes_own_daemon_only() {
    let mut cluster = Cluster::start().await;
    let a = cluster.up("a", &["cc100"]).await;
    let shared = [("placement.tries".to_owned(), "3".to_owned())].into();
    let told = ToldSettings { shared, restart: vec!["placement.lease".to_owned()] };
    let now = cluster.registry.now_ms().await.unwrap();
    cluster.registry.tell_settings(&a.name, a.generation, &told, now + 5_000).await.unwrap();
    let rows = cluster.registry.told_settings().await.unwrap();
    assert_eq!(rows["a"].settings, told);
    assert!((0..=5_000).contains(&rows["a"].clock_ahead_ms), "ahead, but for the way to Redis: {rows:?}");
    cluster.registry.tell_settings(&a.name, a.generation, &told, now - 60_000).await.unwrap();
    assert!(cluster.registry.told_settings().await.unwrap()["a"].clock_ahead_ms <= -60_000);

    let old = Generation::from_bits(99);
    let other = ToldSettings::default();
    assert_eq!(word(cluster.registry.tell_settings(&a.name, old, &other, now).await), "fenced");
    assert_eq!(cluster.registry.told_settings().await.unwrap()["a"].settings, told);
    // What another version wrote and nobody can read is no row.
    cluster.run::<u64>(&["HSET", "NS:index:settings", "b", "nonsense"]).await;
    assert_eq!(cluster.registry.told_settings().await.unwrap().len(), 1);
}

#[tokio::test]
async fn two_hosts_that_want_one_name_are_both_known_until_it_is_forgotten() {
    let mut cluster = Cluster::start().await;
    let a = cluster.up("a", &["cc100"]).await;
    cluster.run::<u64>(&["HSET", "NS:node:a", "host", "tel-1/boot/1 pid 7 at 10.0.0.1"]).await;
    for _ in 0..3 {
        let asked =
            cluster.registry.register(&node("a"), Generation::from_bits(9), "tel-9/boot/2 pid 8").await.unwrap();
        assert!(matches!(asked, Registered::Held { .. }), "{asked:?}");
    }
    let rivals = cluster.registry.rivals().await.unwrap();
    assert_eq!(rivals.len(), 1, "{rivals:?}");
    let rival = &rivals[0];
    let hosts = (rival.node.as_str(), rival.holder.as_str(), rival.rival.as_str());
    assert_eq!(hosts, ("a", "tel-1/boot/1 pid 7 at 10.0.0.1", "tel-9/boot/2 pid 8"));
    assert!(rival.at <= cluster.registry.now_ms().await.unwrap());
    let events = cluster.registry.events(&mut Cursor::start(), None).await.unwrap();
    let conflicts: Vec<_> = events.iter().filter(|entry| entry.event == "name-conflict").collect();
    assert_eq!(conflicts.len(), 1, "once, not at each attempt: {conflicts:?}");
    assert_eq!(conflicts[0].reason, "held by tel-1 pid 7 at 10.0.0.1, wanted by tel-9 pid 8");

    cluster.registry.tell_settings(&a.name, a.generation, &ToldSettings::default(), 0).await.unwrap();
    cluster.lapse("a").await;
    assert_eq!(cluster.registry.forget(&a.name).await.unwrap(), Forgotten::Yes);
    assert_eq!(
        (cluster.registry.rivals().await.unwrap(), cluster.registry.told_settings().await.unwrap().len()),
        (vec![], 0)
    );
}
