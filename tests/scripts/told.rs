//! What nodes tell of themselves: to be compared, and where they are reached; whether anybody can tell how they are; and two hosts
//! that want one name.

use evenring::config::NodeSettings;
use evenring::ids::Generation;
use evenring::registry::events::Cursor;
use evenring::registry::{Forgotten, Registered, ToldSettings};

use crate::redis_fixture::{Cluster, id, node, word};

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

#[tokio::test]
async fn where_a_node_is_reached_is_told_when_it_registers_and_when_that_changes() {
    let mut cluster = Cluster::start().await;
    let mut settings = NodeSettings { sip: Some(id("sip:10.0.0.11:5060")), ..node("a") };
    let a = cluster.up_as(settings.clone(), &["cc100"]).await;
    let row = cluster.node("a").await;
    assert_eq!((row.sip, row.address), (settings.sip.clone(), None));
    settings = NodeSettings { sip: None, address: Some(id("tel-1.example.net")), ..settings };
    cluster.registry.limits(&settings, a.generation).await.unwrap();
    let row = cluster.node("a").await;
    assert_eq!((row.sip, row.address), (None, settings.address));
    // Only what is one is shown as one.
    cluster.run::<u64>(&["HSET", "NS:node:a", "sip", "sip:10.0.0.11\n1 sip:10.0.0.66", "address", "a b"]).await;
    let row = cluster.node("a").await;
    assert_eq!((row.sip, row.address), (None, None));
}

#[tokio::test]
async fn after_an_outage_nobody_can_tell_how_a_node_is_until_it_has_reported_or_is_dead() {
    let mut cluster = Cluster::start().await;
    let a = cluster.up("a", &["cc100"]).await;
    let _b = cluster.up("b", &["cc100"]).await;
    // A Redis that did not know a node which it should know may have lost others.
    cluster.run::<u64>(&["HSET", "NS:judge", "hold", "1000000000"]).await;
    assert!(cluster.node("a").await.unsure);
    cluster.run::<u64>(&["HSET", "NS:judge", "hold", "0"]).await;
    let unsure = async |cluster: &mut Cluster| {
        let rows = cluster.registry.nodes().await.unwrap();
        rows.into_iter().map(|row| (row.state.to_string(), row.unsure)).collect::<Vec<_>>()
    };
    let row = |state: &str, unsure| (state.to_owned(), unsure);
    assert_eq!(unsure(&mut cluster).await, [row("active", false), row("active", false)]);
    cluster.silence(90_000).await;
    assert_eq!(unsure(&mut cluster).await, [row("lease-expired", true), row("lease-expired", true)]);
    cluster.beat(&a).await;
    assert_eq!(unsure(&mut cluster).await, [row("active", false), row("lease-expired", true)]);
    // The other one does not come back while this one beats.
    cluster.lapse("b").await;
    assert_eq!(unsure(&mut cluster).await, [row("active", false), row("lease-expired", false)]);
}
