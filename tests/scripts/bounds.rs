//! P16: what a script does for Redis is bounded, however large the cluster is, and what does not fit into one call is done by
//! the next. Counted in commands that Redis carries out, so that the machine's other work changes nothing.

use std::collections::BTreeSet;

use evenring::ids::SessionId;
use evenring::node::session::{Class, Login, Outcome, Reason};
use evenring::node::{AdminState, Live, NodeState};
use evenring::registry::view::{SessionState, Which};
use evenring::registry::{ADOPT_MOST, Order};

use crate::redis_fixture::{Cluster, Member, extensions, id, session};

/// Nodes that know all phones.
const NODES: usize = 100;
/// Phones that each of them knows.
const PHONES: usize = 200;
/// Commands of one call: about two milliseconds of Redis.
const MOST: u64 = 1_200;

/// A cluster in which the first node gets all logins.
async fn large() -> (Cluster, Vec<Member>) {
    cluster_of(NODES).await
}

async fn cluster_of(nodes: usize) -> (Cluster, Vec<Member>) {
    let mut cluster = Cluster::start().await;
    let names = extensions(PHONES);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut members = Vec::new();
    for number in 0..nodes {
        let mut node = crate::redis_fixture::node(&format!("n{number:03}"));
        node.weight = if number == 0 { 1_000 } else { 1 };
        members.push(cluster.up_as(node, &names).await);
    }
    // Nobody else is empty.
    for (number, member) in (0..).zip(&members[1..]) {
        adopt(&mut cluster, member, number..number + 1, Live::Yes).await;
    }
    (cluster, members)
}

async fn orders(cluster: &mut Cluster) -> Vec<SessionId> {
    let mut sessions = Vec::new();
    for name in extensions(PHONES) {
        let (id, node) = cluster.placed(&format!("{name}x"), "").await;
        assert_eq!(node, "n000");
        sessions.push(id);
    }
    sessions
}

/// Commands that one script carried out since the last look, on an average.
async fn commands(cluster: &mut Cluster) -> u64 {
    let text: String = cluster.run(&["INFO", "commandstats"]).await;
    cluster.run::<()>(&["CONFIG", "RESETSTAT"]).await;
    let (mut scripts, mut all) = (0, 0);
    for line in text.lines() {
        let Some((name, rest)) = line.strip_prefix("cmdstat_").and_then(|line| line.split_once(":calls=")) else {
            continue;
        };
        let calls: u64 = rest.split(',').next().unwrap().parse().unwrap();
        // A script that Redis did not know yet is called twice.
        let failed = rest.split_once("failed_calls=").unwrap().1.parse::<u64>().unwrap();
        if name == "evalsha" { scripts += calls - failed } else { all += calls }
    }
    assert!(scripts > 0, "no script ran: {text}");
    all / scripts
}

fn found(number: u64) -> Login {
    let text = format!("e{number}");
    Login {
        session: session(1_000_000 + number),
        attempt: 1,
        alias: id(&text),
        extension: id(&text),
        agent: id(&text),
        campaign: None,
        class: Class::Local,
    }
}

async fn adopt(cluster: &mut Cluster, member: &Member, numbers: std::ops::Range<u64>, live: Live) -> Vec<SessionId> {
    let all: Vec<_> = numbers.map(|number| (found(number), live)).collect();
    for part in all.chunks(ADOPT_MOST) {
        cluster.registry.adopt(&member.name, member.generation, part).await.unwrap();
    }
    all.into_iter().map(|(login, _)| login.session).collect()
}

/// Says what became of these, in as many calls as it takes; the results.
async fn report(cluster: &mut Cluster, member: &Member, outcomes: &[(SessionId, Outcome)]) -> Vec<String> {
    let (mut results, mut rest) = (Vec::new(), outcomes);
    while !rest.is_empty() {
        let told = cluster.registry.report(&member.name, member.generation, NodeState::Active, rest).await.unwrap();
        assert!(!told.is_empty(), "a call that settles nobody would be repeated for ever");
        rest = &rest[told.len()..];
        results.extend(told.iter().map(ToString::to_string));
    }
    results
}

#[tokio::test]
async fn p16_what_a_node_could_not_ring_is_placed_again_a_few_at_a_time() {
    let (mut cluster, members) = large().await;
    let sessions = orders(&mut cluster).await;
    assert_eq!(cluster.take(&members[0]).await.len(), PHONES);
    commands(&mut cluster).await;
    let could_not: Vec<_> = sessions.iter().map(|id| (*id, Outcome::TryNextNode(Reason::NotReachable))).collect();
    let results = report(&mut cluster, &members[0], &could_not).await;
    let cost = commands(&mut cluster).await;
    assert!(cost < MOST, "{cost} commands a call");
    assert_eq!(results.len(), PHONES);
    assert!(results.iter().all(|result| result.starts_with("placed n")), "{results:?}");
}

#[tokio::test]
async fn p16_a_lost_node_is_cleaned_up_a_few_sessions_a_heartbeat() {
    let (mut cluster, members) = large().await;
    orders(&mut cluster).await;
    cluster.lapse("n000").await;
    commands(&mut cluster).await;
    let mut reaped = 0;
    for beats in 1.. {
        let some = cluster.beat(&members[1 + beats % (NODES - 1)]).await;
        assert!(!some.is_empty(), "{reaped} after {beats} heartbeats");
        assert!(some.iter().all(|(_, lost, result)| lost == "n000" && result.starts_with("placed ")), "{some:?}");
        reaped += some.len();
        if reaped == PHONES {
            break;
        }
    }
    let cost = commands(&mut cluster).await;
    assert!(cost < MOST, "{cost} commands a call");
}

#[tokio::test]
async fn p16_a_drain_moves_its_orders_a_few_at_a_time() {
    let (mut cluster, members) = large().await;
    orders(&mut cluster).await;
    commands(&mut cluster).await;
    let turned = cluster.registry.set_admin_state(&members[0].name, AdminState::Drain).await.unwrap().unwrap();
    let cost = commands(&mut cluster).await;
    assert!(cost < MOST, "{cost} commands a call");
    assert_eq!((turned.before, turned.others, turned.moved.len()), (AdminState::Ready, NODES - 1, PHONES));
    assert!(turned.moved.iter().all(|moved| moved.node.is_some()));
    let agents: Vec<u64> = cluster.registry.nodes().await.unwrap().iter().skip(1).map(|node| node.agents).collect();
    assert!(agents.iter().max().unwrap() - agents.iter().min().unwrap() <= 1, "P2: {agents:?}");
}

/// Where there are few nodes to look at, what is done for each session is the cost.
#[tokio::test]
async fn p16_a_drain_in_a_small_cluster_moves_a_few_at_a_time_as_well() {
    let (mut cluster, members) = cluster_of(2).await;
    orders(&mut cluster).await;
    commands(&mut cluster).await;
    let turned = cluster.registry.set_admin_state(&members[0].name, AdminState::Drain).await.unwrap().unwrap();
    let cost = commands(&mut cluster).await;
    assert!(cost < MOST, "{cost} commands a call");
    assert_eq!(turned.moved.len(), PHONES);
}

#[tokio::test]
async fn p16_orders_that_a_node_may_not_ring_are_placed_again_a_few_at_a_time() {
    let (mut cluster, members) = large().await;
    orders(&mut cluster).await;
    cluster.drain("n000", true).await;
    commands(&mut cluster).await;
    let mut moved = 0;
    while moved < PHONES {
        let some = cluster.take(&members[0]).await;
        assert!(!some.is_empty() && some.iter().all(|order| matches!(order, Order::Moved(..))), "{some:?}");
        moved += some.len();
    }
    let cost = commands(&mut cluster).await;
    assert!(cost < MOST, "{cost} commands a call");
    assert_eq!(cluster.take(&members[0]).await, []);
}

/// How many messages were settled, and the commands of one call.
async fn settle(cluster: &mut Cluster, bodies: impl Iterator<Item = String>) -> (usize, u64) {
    for body in bodies {
        // Its own id: nobody has sent the same before.
        cluster.run::<u64>(&["ZADD", "NS:logins", "1", &body]).await;
        cluster.run::<u64>(&["HSET", "NS:logins:Q", &body, &body]).await;
    }
    let messages = cluster.registry.receive_logins(64, None).await.unwrap().messages;
    commands(cluster).await;
    let mut rest = &messages[..];
    while !rest.is_empty() {
        let settled = cluster.registry.settle_logins(rest).await.unwrap();
        assert!(!settled.is_empty(), "a call that settles nobody would be repeated for ever");
        rest = &rest[settled.len()..];
    }
    (messages.len(), commands(cluster).await)
}

#[tokio::test]
async fn p16_logins_of_the_inbox_are_settled_a_few_at_a_time_in_any_cluster() {
    for nodes in [2, NODES] {
        let (mut cluster, _) = cluster_of(nodes).await;
        let login = |name: String| format!(r#"{{"alias":"{name}x","reply":"web-1"}}"#);
        for bodies in [extensions(64), (0..64).map(|number| format!("nobody{number}")).collect()] {
            let (count, cost) = settle(&mut cluster, bodies.into_iter().map(login)).await;
            assert_eq!(count, 64);
            assert!(cost < MOST, "{nodes} nodes: {cost} commands a call");
        }
        let (count, cost) = settle(&mut cluster, (0..64).map(|n| format!(r#"{{"alias":{n},"reply":"web-1"}}"#))).await;
        assert_eq!(count, 64);
        assert!(cost < MOST, "{nodes} nodes: {cost} commands a call");
    }
}

#[tokio::test]
async fn p16_two_hundred_that_answer_at_once_are_told_in_parts() {
    let (mut cluster, members) = cluster_of(2).await;
    let sessions = orders(&mut cluster).await;
    assert_eq!(cluster.take(&members[0]).await.len(), PHONES);
    commands(&mut cluster).await;
    let live: Vec<_> = sessions.iter().map(|id| (*id, Outcome::Live)).collect();
    assert_eq!(report(&mut cluster, &members[0], &live).await.len(), PHONES);
    let cost = commands(&mut cluster).await;
    assert!(cost < MOST, "{cost} commands a call");
}

#[tokio::test]
async fn p16_a_daemon_that_stops_gives_its_orders_away_a_few_at_a_time() {
    let (mut cluster, members) = large().await;
    orders(&mut cluster).await;
    commands(&mut cluster).await;
    assert_eq!(
        cluster.registry.leave(&members[0].name, members[0].generation, &mut cluster.beats).await.unwrap(),
        PHONES
    );
    let cost = commands(&mut cluster).await;
    assert!(cost < MOST, "{cost} commands a call");
    assert_eq!(cluster.node("n000").await.agents, 0);
}

#[tokio::test]
async fn p16_sessions_are_read_a_page_at_a_time_and_each_is_there_once() {
    let mut cluster = Cluster::start().await;
    let a = cluster.up("a", &[]).await;
    let over = adopt(&mut cluster, &a, 0..450, Live::Yes).await;
    let ended = Outcome::Ended(Reason::HungUp);
    report(&mut cluster, &a, &over.iter().map(|id| (*id, ended.clone())).collect::<Vec<_>>()).await;
    adopt(&mut cluster, &a, 450..900, Live::Yes).await;
    commands(&mut cluster).await;
    let rows = cluster.registry.sessions(Which::All).await.unwrap();
    let cost = commands(&mut cluster).await;
    assert!(cost < 300, "{cost} commands a call");
    let ids: BTreeSet<&str> = rows.iter().map(|row| row.session.as_str()).collect();
    assert_eq!((rows.len(), ids.len()), (900, 900), "each once");
    assert!(
        rows[..450].iter().all(|row| row.state == SessionState::Ended)
            && rows[450..].iter().all(|row| row.state == SessionState::Live)
    );
    assert!(rows[..450].is_sorted_by_key(|row| row.since) && rows[450..].is_sorted_by_key(|row| row.since));
    let open = cluster.registry.sessions(Which::Open).await.unwrap();
    assert_eq!(open, rows[450..]);
}

#[tokio::test]
async fn p16_a_long_line_is_told_in_parts_and_is_whole_in_the_end() {
    let mut cluster = Cluster::start().await;
    let a = cluster.up("a", &[]).await;
    let waiting = adopt(&mut cluster, &a, 0..800, Live::NotYet).await;
    commands(&mut cluster).await;
    cluster.registry.report_ring_queue(&a.name, a.generation, &waiting).await.unwrap();
    cluster.registry.report_ring_queue(&a.name, a.generation, &waiting[500..]).await.unwrap();
    let cost = commands(&mut cluster).await;
    assert!(cost < 500, "{cost} commands a call");
    assert_eq!(cluster.node("a").await.queued, 300);
    let rows = cluster.registry.sessions(Which::Open).await.unwrap();
    let place = |id: &SessionId| rows.iter().find(|row| row.session == id.to_string()).unwrap().queue_position;
    assert_eq!((place(&waiting[499]), place(&waiting[500]), place(&waiting[799])), (None, Some(1), Some(300)));
    // Of the node two, of each session found and queued, and of those who left the line ringing.
    assert_eq!(cluster.run::<u64>(&["XLEN", "NS:events"]).await, 2 + 800 * 2 + 500);
}
