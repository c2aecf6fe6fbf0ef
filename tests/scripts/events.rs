//! The event stream: what happened stands in it once, in order, and it never grows beyond its cap nor gets in anybody's way.

use std::net::Ipv4Addr;

use evenring::ids::Now;
use evenring::node::session::{Outcome, Reason};
use evenring::registry::HeartbeatSequence;
use evenring::registry::events::{Cursor, Entry, NewEvent};

use crate::lab::redis::Redis;
use crate::redis_fixture::{Cluster, cannot, connect, id, login, phones, previous, session, settings, word};

/// What has come since the last look.
async fn news(cluster: &mut Cluster, place: &mut Cursor) -> Vec<String> {
    let told = |entry: Entry| {
        let Entry { event, node, alias, agent, extension: phone, reason, .. } = entry;
        [event, node, alias, agent, phone, reason].join(" ").trim_end().to_owned()
    };
    cluster.registry.events(place, None).await.unwrap().into_iter().map(told).collect()
}

#[tokio::test]
async fn a_login_has_an_entry_for_each_of_its_changes() {
    let mut cluster = Cluster::start().await;
    let mut place = Cursor::start();
    let a = cluster.up("a", &["cc100"]).await;
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(news(&mut cluster, &mut place).await, [&format!("node-starting a    version {version}"), "node-up a"]);
    cluster.place(&login("nobodyx", "7")).await;
    let (first, _) = cluster.placed("cc100x", "7").await;
    cluster.place(&login("cc100x", "7")).await;
    cluster.take(&a).await;
    cluster.report(&a, first, Outcome::Live).await;
    cluster.report(&a, first, Outcome::Live).await;
    for _ in 0..2 {
        cluster.registry.logout(&id("cc100x")).await.unwrap();
    }
    cluster.report(&a, first, Outcome::Ended(Reason::LoggedOut)).await;
    cluster.report(&a, first, Outcome::Ended(Reason::LoggedOut)).await;
    cluster.beat(&a).await;
    let events = [
        "refused   7 nobody unknown-alias",
        "placed a cc100x 7 cc100",
        "ringing a cc100x 7 cc100",
        "live a cc100x 7 cc100",
        "logout a cc100x 7 cc100 requested",
        "ended a cc100x 7 cc100 logged-out",
    ];
    let events = events.map(|line| line.replace("refused   7", "refused  nobodyx 7"));
    assert_eq!(news(&mut cluster, &mut place).await, events, "and nothing twice");
    let all = cluster.registry.events(&mut Cursor::start(), None).await.unwrap();
    assert_eq!(all.iter().filter(|entry| entry.session == first.to_string()).count(), 5);
    let now = cluster.registry.now_ms().await.unwrap();
    assert!(all.iter().all(|entry| entry.at <= now && entry.at + 60_000 > now), "Redis's own time: {all:?}");
    let mut later = Cursor::at(all[2].at);
    let found = cluster.registry.events(&mut later, None).await.unwrap();
    assert!(found.contains(&all[2]) && found.iter().all(|entry| entry.at >= all[2].at));
    assert_eq!(cluster.registry.events(&mut Cursor::at(now + 60_000), None).await.unwrap(), []);
}

#[tokio::test]
async fn who_is_placed_elsewhere_or_waits_in_a_line_is_said_to() {
    let mut cluster = Cluster::start().await;
    let a = cluster.up("a", &["cc100", "cc101"]).await;
    let b = cluster.up("b", &["cc100"]).await;
    let mut place = Cursor::start();
    news(&mut cluster, &mut place).await;
    cluster.drain("b", true).await;
    let (first, _) = cluster.placed("cc100x", "7").await;
    cluster.drain("b", false).await;
    cluster.take(&a).await;
    cluster.report(&a, first, cannot()).await;
    cluster.take(&b).await;
    cluster.report(&b, first, cannot()).await;
    let (placed, rings) = ("placed a cc100x 7 cc100", "ringing a cc100x 7 cc100");
    let events = [
        placed,
        rings,
        "placed b cc100x 7 cc100 not-reachable on a",
        "ringing b cc100x 7 cc100",
        "failed b cc100x 7 cc100 not-reachable",
    ];
    assert_eq!(news(&mut cluster, &mut place).await, events);

    cluster.drain("b", true).await;
    let (second, _) = cluster.placed("cc100x", "7").await;
    cluster.take(&a).await;
    cluster.registry.report_ring_queue(&a.name, a.generation, &[second]).await.unwrap();
    cluster.placed("cc101x", "8").await;
    cluster.take(&a).await;
    let third = cluster.registry.sessions(evenring::registry::view::Which::Open).await.unwrap();
    let third = third.iter().find(|row| row.alias == "cc101x").unwrap().session.clone();
    cluster.registry.report_ring_queue(&a.name, a.generation, &[id(&third)]).await.unwrap();
    cluster.registry.report_ring_queue(&a.name, a.generation, &[]).await.unwrap();
    let events = [
        placed,
        rings,
        "queued a cc100x 7 cc100 position 1",
        "placed a cc101x 8 cc101",
        "queued a cc101x 8 cc101",
        rings,
        "ringing a cc101x 8 cc101",
    ];
    assert_eq!(news(&mut cluster, &mut place).await, events);
}

#[tokio::test]
async fn what_a_daemon_tells_stands_there_once() {
    let mut cluster = Cluster::start().await;
    let a = cluster.up("a", &["cc100"]).await;
    let (login, _) = cluster.placed("cc100x", "7").await;
    let mut place = Cursor::start();
    news(&mut cluster, &mut place).await;
    let told = |session| [NewEvent { event: "drift", session, reason: "repaired".to_owned() }];
    for _ in 0..2 {
        cluster.registry.append_events(&a.name, a.generation, 1, &told(Some(login))).await.unwrap();
    }
    cluster.registry.append_events(&a.name, a.generation, 2, &told(None)).await.unwrap();
    assert_eq!(news(&mut cluster, &mut place).await, ["drift a cc100x 7 cc100 repaired", "drift a    repaired"]);
    let next = cluster.up("a", &["cc100"]).await;
    news(&mut cluster, &mut place).await;
    assert_eq!(word(cluster.registry.append_events(&a.name, a.generation, 3, &told(None)).await), "fenced");
    cluster.registry.append_events(&next.name, next.generation, 2, &told(None)).await.unwrap();
    assert_eq!(news(&mut cluster, &mut place).await, ["drift a    repaired"], "each life has its own numbers");
}

/// Entries as long as real ones, more than there may be.
const FILL: &str =
    "for i = 1, tonumber(ARGV[1]) do redis.call('XADD', KEYS[1], '*', 'event', 'ringing', 'node', 'tel-12',
  'session', string.format('%016x', i), 'alias', 'cc1234x', 'agent', 'agent1234', 'phone', 'cc1234', 'reason',
  'not-reachable on tel-11') end";

#[tokio::test]
async fn the_story_keeps_its_cap_and_the_newest() {
    let mut cluster = Cluster::start().await;
    cluster.up("a", &["cc100"]).await;
    let before: u64 = cluster.run(&["MEMORY", "USAGE", "NS:events"]).await;
    cluster.run::<()>(&["EVAL", FILL, "1", "NS:events", "105000"]).await;
    assert!(cluster.run::<u64>(&["XLEN", "NS:events"]).await > 105_000);
    let (login, _) = cluster.placed("cc100x", "7").await;
    let kept: u64 = cluster.run(&["XLEN", "NS:events"]).await;
    assert!((100_000..100_200).contains(&kept), "{kept}");
    let bytes: u64 = cluster.run(&["MEMORY", "USAGE", "NS:events", "SAMPLES", "0"]).await;
    println!("{kept} entries take {} KiB, {} bytes each; the first two took {before}", bytes >> 10, bytes / kept);
    assert!(bytes < 16 << 20, "README.md says 16 MiB: {bytes}");
    let (mut place, mut all) = (Cursor::start(), Vec::new());
    loop {
        let page = cluster.registry.events(&mut place, None).await.unwrap();
        if page.is_empty() {
            break;
        }
        all.extend(page);
    }
    assert_eq!(all.len() as u64, kept, "all pages, and no entry twice");
    assert!(all.iter().all(|entry| entry.event != "node-starting"), "the oldest is gone");
    assert_eq!(all.last().map(|entry| entry.session.clone()), Some(login.to_string()));
}

/// An ACL of before there was a events: nobody's login fails for that, and the daemon is told.
#[tokio::test]
async fn a_user_who_may_not_write_it_is_told_and_everything_else_works() {
    let user = "--user poor on >x ~* &* +@all -xadd";
    let redis = Redis::start_with(Ipv4Addr::LOCALHOST, &user.split(' ').collect::<Vec<_>>());
    let poor = redis.with_credentials("poor:x@");
    let mut registry = evenring::registry::Registry::new(&settings(&poor.url(), "")).unwrap();
    let (node, life) = (crate::redis_fixture::node("a"), evenring::ids::Generation::from_bits(1));
    previous(registry.register(&node, life, "host").await.unwrap());
    let why = registry.take_mute().expect("the daemon is told");
    assert!(why.contains("run"), "it may not run this command: {why}");
    assert_eq!(registry.take_mute(), None, "once");
    let changes = phones(evenring::node::roster::PhoneState::Registered, ["cc100"]);
    registry.phones(&node.name, life, &changes).await.unwrap();
    registry
        .heartbeat(
            &node.name,
            life,
            (evenring::node::NodeState::Active, 0, 1),
            (&mut HeartbeatSequence::default(), Now::default()),
        )
        .await
        .unwrap();
    let placed = registry.place(&login("cc100x", "7"), session(1)).await.unwrap();
    assert_eq!(placed.state.as_str(), "placed", "{placed:?}");
    let mut raw = connect(&poor).await;
    let left: u64 = redis::cmd("EXISTS").arg("{evenring}:events").query_async(&mut raw).await.unwrap();
    assert_eq!(left, 0);
}
