//! P10: what drain and resume do, and what they leave alone.

use evenring::ids::Now;
use evenring::node::session::{Outcome, Reason};
use evenring::node::{AdminState, Live, NodeState};
use evenring::registry::view::ShownNodeState;
use evenring::registry::{Adopted, Order, Registered, Registry, Turned};
use futures_util::StreamExt as _;

use crate::redis_fixture::{Cluster, extensions, id, node, session, word};

async fn set_state(cluster: &mut Cluster, name: &str, to: AdminState) -> Turned {
    cluster.registry.set_admin_state(&id(name), to).await.unwrap().expect("a node")
}

#[tokio::test]
async fn p10_what_was_not_taken_goes_elsewhere_at_once_and_evenly() {
    let mut cluster = Cluster::with("placement.tries = 1").await;
    let names = extensions(12);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let a = cluster.up("a", &names).await;
    let (live, _) = cluster.placed("cc100x", "").await;
    let (ringing, _) = cluster.placed("cc101x", "").await;
    cluster.take(&a).await;
    cluster.report(&a, live, Outcome::Live).await;
    for name in &names[2..] {
        cluster.placed(&format!("{name}x"), "").await;
    }
    let others = [cluster.up("b", &names).await, cluster.up("c", &names).await];

    let turned = set_state(&mut cluster, "a", AdminState::Drain).await;
    assert_eq!((turned.before, turned.others, turned.moved.len()), (AdminState::Ready, 2, 10));
    assert!(turned.moved.iter().all(|moved| moved.node.is_some()));
    for (name, agents) in [("a", 2), ("b", 5), ("c", 5)] {
        assert_eq!(cluster.node(name).await.agents, agents, "{name}");
    }
    assert_eq!(cluster.node("a").await.state, ShownNodeState::Draining);
    assert_eq!(cluster.run::<u64>(&["ZCARD", "NS:ring-a"]).await, 1, "the order that rings stays");
    assert_eq!(cluster.fate(live).await.0, "live", "P7: nobody is moved");
    assert_eq!(cluster.fate(ringing).await.0, "ringing");
    assert_eq!(cluster.report(&a, ringing, Outcome::Live).await, "done", "it may still answer");

    let again = set_state(&mut cluster, "a", AdminState::Drain).await;
    assert_eq!((again.before, again.moved.len()), (AdminState::Drain, 0), "said again it changes nothing");
    // It was no try: with one try in all, the next node rings.
    for other in &others {
        let orders = cluster.take(other).await;
        assert!(orders.iter().all(|order| matches!(order, Order::Ring(login) if login.attempt == 2)), "{orders:?}");
        assert_eq!(orders.len(), 5);
    }
}

#[tokio::test]
async fn p10_the_last_node_says_so_and_what_nobody_can_ring_fails() {
    let mut cluster = Cluster::start().await;
    cluster.up("a", &["cc100"]).await;
    let b = cluster.up("b", &[]).await;
    let (placed, _) = cluster.placed("cc100x", "7").await;
    cluster.registry.leave(&b.name, b.generation, &mut cluster.beats).await.unwrap();
    let turned = set_state(&mut cluster, "a", AdminState::Drain).await;
    assert_eq!((turned.others, &turned.moved[0].node), (0, &None));
    assert_eq!(cluster.fate(placed).await, ("failed".into(), "draining".into()));
    assert_eq!(cluster.registry.set_admin_state(&id("nobody"), AdminState::Drain).await.unwrap(), None);
    assert_eq!(cluster.run::<u64>(&["EXISTS", "NS:node:nobody"]).await, 0, "no node is made up");
    let back = set_state(&mut cluster, "a", AdminState::Ready).await;
    assert_eq!((back.before, back.moved.len()), (AdminState::Drain, 0));
    assert_eq!(cluster.placed("cc100x", "7").await.1, "a");
}

#[tokio::test]
async fn p10_what_was_taken_and_not_rung_is_given_back_and_is_no_try() {
    let mut cluster = Cluster::with("placement.tries = 1").await;
    let a = cluster.up("a", &["cc100"]).await;
    let (given, _) = cluster.placed("cc100x", "7").await;
    cluster.take(&a).await;
    let b = cluster.up("b", &["cc100"]).await;
    set_state(&mut cluster, "a", AdminState::Drain).await;
    assert_eq!(cluster.report(&a, given, Outcome::TryNextNode(Reason::Draining)).await, "placed b");
    cluster.take(&b).await;
    // Back again: a node that drained was never asked, so it may ring now.
    set_state(&mut cluster, "a", AdminState::Ready).await;
    set_state(&mut cluster, "b", AdminState::Drain).await;
    assert_eq!(cluster.report(&b, given, Outcome::TryNextNode(Reason::Draining)).await, "placed a");
    cluster.take(&a).await;
    assert_eq!(cluster.report(&a, given, Outcome::Live).await, "done");
}

#[tokio::test]
async fn p10_the_node_is_told_and_every_heartbeat_says_it() {
    let mut cluster = Cluster::start().await;
    let a = cluster.up("a", &["cc100"]).await;
    let mut news = cluster.another().subscribe_orders(&a.name).await.unwrap().into_on_message();
    set_state(&mut cluster, "a", AdminState::Drain).await;
    let message = news.next().await.unwrap();
    assert!(Registry::is_about_admin_state(&message), "{message:?}");
    let admin_state = |beat: evenring::registry::HeartbeatReply| beat.admin_state;
    let beat = cluster
        .registry
        .heartbeat(&a.name, a.generation, (NodeState::Active, 0, 1), (&mut cluster.beats, Now::default()))
        .await;
    assert_eq!(beat.map(admin_state).unwrap(), AdminState::Drain);
    // A daemon that is started again finds it.
    let a = cluster.up("a", &["cc100"]).await;
    let beat = cluster
        .registry
        .heartbeat(&a.name, a.generation, (NodeState::Active, 0, 1), (&mut cluster.beats, Now::default()))
        .await;
    assert_eq!(beat.map(admin_state).unwrap(), AdminState::Drain);
    set_state(&mut cluster, "a", AdminState::Ready).await;
    assert!(Registry::is_about_admin_state(&news.next().await.unwrap()));
    cluster.placed("cc100x", "").await;
    assert!(!Registry::is_about_admin_state(&news.next().await.unwrap()), "an order is another wake-up");
}

#[tokio::test]
async fn p10_p12_a_redis_that_forgot_is_told_again_before_the_node_can_get_a_login() {
    let mut cluster = Cluster::start().await;
    let a = cluster.up("a", &["cc100"]).await;
    set_state(&mut cluster, "a", AdminState::Drain).await;
    cluster.run::<()>(&["FLUSHALL"]).await;
    let beat = cluster
        .registry
        .heartbeat(&a.name, a.generation, (NodeState::Active, 0, 1), (&mut cluster.beats, Now::default()))
        .await;
    assert_eq!(word(beat), "forgotten");
    // What the daemon does then, in this order: it is not active before it drains.
    assert_eq!(
        cluster.registry.register(&node("a"), a.generation, "host").await.unwrap(),
        Registered::Taken { previous: None }
    );
    assert_eq!(cluster.node("a").await.state, ShownNodeState::Starting);
    set_state(&mut cluster, "a", AdminState::Drain).await;
    cluster.beat(&a).await;
    assert_eq!(cluster.node("a").await.state, ShownNodeState::Draining);
    let found = evenring::node::session::Login {
        session: session(5),
        attempt: 1,
        alias: id("cc100x"),
        extension: id("cc100"),
        agent: id("7"),
        campaign: None,
        class: evenring::node::session::Class::Local,
    };
    let adopted = cluster.registry.adopt(&a.name, a.generation, &[(found, Live::Yes)]).await.unwrap();
    assert_eq!(adopted, [Adopted::Restored], "calls stay");
}
