//! P9: the agents of a lost node come back on others: evenly, once, and only who wants it.

use evenring::node::session::{Outcome, Reason};
use evenring::registry::view::SessionState;
use evenring::registry::{Order, Registry, Rejoined, Reported};

use evenring::ids::Now;
use evenring::node::NodeState;

use crate::redis_fixture::{Cluster, Member, extensions, id, reaped, whys};

/// Logs in, takes and reports live; all on `a`, which must be the only node.
async fn live_on(cluster: &mut Cluster, member: &Member, aliases: &[String]) -> Vec<evenring::ids::SessionId> {
    let mut sessions = Vec::new();
    for alias in aliases {
        sessions.push(cluster.placed(alias, "").await.0);
    }
    cluster.take(member).await;
    for session in &sessions {
        assert_eq!(cluster.report(member, *session, Outcome::Live).await, "done");
    }
    sessions
}

/// A heartbeat with `rejoin = "auto"`.
async fn auto_beat(cluster: &mut Cluster, auto: &mut Registry, member: &Member) -> Vec<(String, String, String)> {
    let how = (NodeState::Active, 0, 1);
    let beat = auto.heartbeat(&member.name, member.generation, how, (&mut cluster.beats, Now::default()));
    reaped(beat.await.unwrap())
}

fn new_session(result: &str) -> (String, evenring::ids::SessionId) {
    match Rejoined::parse(result) {
        Some(Rejoined::Ringing { node, session, .. }) => (node, id(&session)),
        Some(Rejoined::Stranded { .. }) | None => panic!("{result}"),
    }
}

#[tokio::test]
async fn p9_a_dead_hosts_agents_ring_elsewhere_evenly_and_once() {
    let mut cluster = Cluster::start().await;
    let names = extensions(12);
    let phones: Vec<&str> = names.iter().map(String::as_str).collect();
    let a = cluster.up("a", &phones).await;
    let aliases: Vec<String> = names.iter().map(|name| format!("{name}x")).collect();
    let old = live_on(&mut cluster, &a, &aliases).await;
    let (b, c) = (cluster.up("b", &phones).await, cluster.up("c", &phones).await);
    let mut auto = cluster.auto();
    cluster.lapse("a").await;
    let reaped = auto_beat(&mut cluster, &mut auto, &b).await;
    assert_eq!(reaped.len(), 12);
    assert_eq!(auto_beat(&mut cluster, &mut auto, &c).await, [], "once");
    assert_eq!((cluster.node("b").await.agents, cluster.node("c").await.agents), (6, 6), "P2");
    for (session, node, reason) in &reaped {
        assert_eq!(node, "a");
        assert!(old.contains(&id(session)));
        let (_, fresh) = new_session(reason);
        assert_eq!(cluster.fate(id(session)).await, ("ended".into(), "node-lost".into()));
        let (lost, row) = (cluster.row(id(session)).await, cluster.row(fresh).await);
        assert_eq!(&row.rejoined_from, session);
        assert_eq!((&row.alias, &row.agent, &row.extension), (&lost.alias, &lost.agent, &lost.extension));
        assert!(row.state == SessionState::Placed && lost.rejoined_from.is_empty() && !row.remote);
    }
    for member in [&b, &c] {
        let orders = cluster.take(member).await;
        assert!(orders.iter().all(|order| matches!(order, Order::Ring(login) if login.attempt == 1)), "{orders:?}");
        assert_eq!(orders.len(), 6);
    }
    // It is a session like any other: a login finds it.
    let again = cluster.place(&crate::redis_fixture::login("cc100x", "")).await;
    let came_back = reaped.iter().find(|row| row.0 == old[0].to_string()).map(|row| new_session(&row.2).1);
    assert_eq!((again.state.as_str(), again.session), ("ringing", came_back));
}

#[tokio::test]
async fn p9_a_node_whose_asterisk_died_says_so_itself() {
    let mut cluster = Cluster::start().await;
    let a = cluster.up("a", &["cc100", "cc101"]).await;
    let old = live_on(&mut cluster, &a, &["cc100x".into(), "cc101x".into()]).await;
    cluster.up("b", &["cc100"]).await;
    let mut auto = cluster.auto();
    let told: Vec<_> = old.iter().map(|session| (*session, Outcome::Ended(Reason::NodeLost))).collect();
    let results = auto.report(&a.name, a.generation, NodeState::Active, &told).await.unwrap();
    let (node, fresh) = new_session(&results[0].to_string());
    assert_eq!(node, "b", "never where it was lost");
    assert_eq!(results[1].to_string(), "stranded cc101x cc101", "no other node has that phone");
    assert_eq!(cluster.fate(old[1]).await, ("ended".into(), "node-lost".into()));
    assert_eq!(
        auto.report(&a.name, a.generation, NodeState::Active, &told).await.unwrap(),
        [Reported::Gone, Reported::Gone],
        "said twice"
    );
    assert_eq!(cluster.fate(fresh).await.0, "placed");
    assert_eq!(cluster.node("b").await.agents, 1);
    // A leg that survived where it was lost is not theirs any more.
    let leg = evenring::node::session::Login {
        session: old[0],
        attempt: 1,
        alias: id("cc100x"),
        extension: id("cc100"),
        agent: id("cc100"),
        campaign: None,
        class: evenring::node::session::Class::Local,
    };
    let adopted = auto.adopt(&a.name, a.generation, &[(leg, evenring::node::Live::Yes)]).await.unwrap();
    assert_eq!(adopted, [evenring::registry::Adopted::Stale]);
}

#[tokio::test]
async fn p9_nobody_is_rung_who_is_back_or_has_gone_or_did_not_lose_a_call() {
    let mut cluster = Cluster::start().await;
    let names = ["cc100", "cc101", "cc102", "cc103"];
    let a = cluster.up("a", &names).await;
    let old = live_on(&mut cluster, &a, &["cc100x".into(), "cc101x".into(), "cc102x".into()]).await;
    let (ringing, _) = cluster.placed("cc103x", "").await;
    cluster.take(&a).await;
    let b = cluster.up("b", &names).await;
    let mut auto = cluster.auto();
    cluster.registry.logout(&id("cc100x")).await.unwrap();
    cluster.lapse("a").await;
    let (back, _) = cluster.placed("cc101x", "").await;
    let reaped = auto_beat(&mut cluster, &mut auto, &b).await;
    let reason = |session: evenring::ids::SessionId| {
        reaped.iter().find(|row| row.0 == session.to_string()).map(|row| row.2.as_str()).unwrap_or_default()
    };
    assert_eq!(reason(old[0]), "node-lost", "they had asked to be logged out");
    assert_eq!(reason(old[1]), "", "they have logged in again, which ended the old session");
    assert_eq!(new_session(reason(old[2])).0, "b");
    assert_eq!(reason(ringing), "node-lost", "it may have rung there");
    assert_eq!(cluster.fate(back).await.0, "placed");
    assert_eq!(cluster.node("b").await.agents, 2);
}

#[tokio::test]
async fn p7_p8_calls_that_may_go_on_are_not_rung_again() {
    let mut cluster = Cluster::start().await;
    let a = cluster.up("a", &["cc100"]).await;
    let old = live_on(&mut cluster, &a, &["cc100x".into()]).await[0];
    let b = cluster.up("b", &["cc100"]).await;
    let mut auto = cluster.auto();
    // Redis was away: all leases have ended, and the first node that is back must not judge the others.
    cluster.silence(600_000).await;
    assert_eq!(auto_beat(&mut cluster, &mut auto, &b).await, []);
    assert_eq!(auto_beat(&mut cluster, &mut auto, &b).await, [], "not before a lease has passed");
    assert_eq!(cluster.fate(old).await.0, "live");
    cluster.beat(&a).await;
    assert_eq!(auto_beat(&mut cluster, &mut auto, &b).await, [], "it has come back in time");
    // A daemon that was stopped left its calls in Asterisk.
    cluster.registry.leave(&a.name, a.generation, &mut cluster.beats).await.unwrap();
    cluster.lapse("a").await;
    assert_eq!(auto_beat(&mut cluster, &mut auto, &b).await, [(old.to_string(), "a".into(), "node-lost".into())]);
    let explained =
        cluster.registry.explain(&crate::redis_fixture::login("cc100x", ""), id("00000000000000ff")).await.unwrap();
    assert_eq!(whys(&explained), [("a", "stopped"), ("b", "")]);
}

#[tokio::test]
async fn p9_by_hand_nobody_is_rung() {
    let mut cluster = Cluster::start().await;
    let a = cluster.up("a", &["cc100", "cc101"]).await;
    let old = live_on(&mut cluster, &a, &["cc100x".into(), "cc101x".into()]).await;
    let b = cluster.up("b", &["cc100", "cc101"]).await;
    assert_eq!(cluster.report(&a, old[0], Outcome::Ended(Reason::NodeLost)).await, "done");
    cluster.lapse("a").await;
    assert_eq!(cluster.beat(&b).await, [(old[1].to_string(), "a".into(), "node-lost".into())]);
    assert_eq!(cluster.node("b").await.agents, 0);
}
