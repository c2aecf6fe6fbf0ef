//! P2: even, also when everybody comes at once. P3: only where it can ring, and why not elsewhere.

use std::collections::BTreeMap;

use evenring::config::NodeSettings;
use evenring::ids::Now;
use evenring::node::NodeState;
use evenring::node::roster::PhoneState;
use evenring::node::session::Class;
use evenring::registry::view::{Verdict, reason_text};
use evenring::registry::{LoginRequest, Registry};

use crate::redis_fixture::{Cluster, Member, extensions, id, login, node, phones, session, why, whys};

/// Logs in so many at once, over eight connections; how many each node got, and how many were refused.
async fn burst(cluster: &Cluster, first: usize, count: usize) -> (BTreeMap<String, usize>, usize) {
    let mut tasks = tokio::task::JoinSet::new();
    for lane in 0..8 {
        let mut registry: Registry = cluster.another();
        tasks.spawn(async move {
            let mut nodes = Vec::new();
            for at in (first..first + count).skip(lane).step_by(8) {
                let request = login(&format!("cc{}x", 100 + at), &format!("agent{at}"));
                nodes.push(registry.place(&request, session(1 << 32 | at as u64)).await.unwrap().node);
            }
            nodes
        });
    }
    let mut counts = BTreeMap::new();
    for node in tasks.join_all().await.into_iter().flatten() {
        *counts.entry(node).or_default() += 1;
    }
    let refused = counts.remove("").unwrap_or(0);
    (counts, refused)
}

async fn cluster_of(nodes: Vec<NodeSettings>, phones: usize) -> Cluster {
    let mut cluster = Cluster::start().await;
    let names = extensions(phones);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for node in nodes {
        cluster.up_as(node, &names).await;
    }
    cluster
}

fn some(count: usize) -> Vec<NodeSettings> {
    (0..count).map(|at| node(&format!("n{at}"))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn p2_after_a_burst_loads_differ_by_one_at_most() {
    for (nodes, logins) in [(3, 200), (10, 200), (3, 2000), (10, 2000)] {
        let cluster = cluster_of(some(nodes), logins).await;
        let begin = crate::lab::now();
        let (counts, refused) = burst(&cluster, 0, logins).await;
        println!("{logins} logins on {nodes} nodes in {:?}", begin.elapsed());
        let (most, least) = (counts.values().max().unwrap(), counts.values().min().unwrap());
        assert_eq!((counts.values().sum::<usize>(), refused, counts.len()), (logins, 0, nodes));
        assert!(most - least <= 1, "{counts:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p2_weights_are_shares() {
    let mut nodes = some(3);
    nodes[0].weight = 2;
    let (counts, _) = burst(&cluster_of(nodes, 400).await, 0, 400).await;
    assert_eq!(counts.into_values().collect::<Vec<_>>(), [200, 100, 100]);
}

#[tokio::test(flavor = "multi_thread")]
async fn p2_a_cap_holds_when_everybody_comes_at_once() {
    let mut nodes = some(3);
    for (node, most) in nodes.iter_mut().zip([5, 10, 15]) {
        node.max_agents = Some(most);
    }
    let mut cluster = cluster_of(nodes, 100).await;
    let (counts, refused) = burst(&cluster, 0, 100).await;
    assert_eq!((counts.into_values().collect::<Vec<_>>(), refused), (vec![5, 10, 15], 70));
    let full = cluster.place(&login("cc199x", "late")).await;
    assert_eq!(whys(&full), [("n0", "full"), ("n1", "full"), ("n2", "full")]);
    // P2: remote agents are no load, and no cap keeps them out
    let remote = LoginRequest { class: Class::Remote, ..login("cc199x", "late") };
    assert_eq!(cluster.place(&remote).await.state.as_str(), "placed");
    let rows = cluster.registry.nodes().await.unwrap();
    assert_eq!(rows.iter().map(|row| row.agents).sum::<u64>(), 30);
    assert_eq!(rows.iter().map(|row| row.remote).sum::<u64>(), 1);
}

#[tokio::test]
async fn p2_remote_agents_never_move_the_balance() {
    let mut cluster = cluster_of(some(2), 40).await;
    cluster.alias("far", &["cc120@n0"]).await;
    let far = LoginRequest { class: Class::Remote, ..login("far", "") };
    assert_eq!(cluster.place(&far).await.node, "n0");
    for at in 0..10 {
        cluster.placed(&format!("cc{}x", 100 + at), "").await;
    }
    assert_eq!((cluster.node("n0").await.agents, cluster.node("n1").await.agents), (5, 5));
    assert_eq!(cluster.node("n0").await.remote, 1);
}

#[tokio::test]
async fn ties_go_to_fewest_channels_and_then_anywhere() {
    let mut cluster = Cluster::start().await;
    let mut members = Vec::new();
    for name in ["a", "b", "c"] {
        members.push(cluster.up(name, &["cc100"]).await);
    }
    let mut firsts: BTreeMap<String, usize> = BTreeMap::new();
    for at in 0..300 {
        let random = evenring::registry::session_of_message(&at.to_string());
        let placement = cluster.registry.place(&login("cc100x", "7"), random).await.unwrap();
        *firsts.entry(placement.node).or_default() += 1;
        cluster.registry.logout(&id("7")).await.unwrap();
    }
    assert!(firsts.len() == 3 && firsts.values().all(|count| *count >= 60), "{firsts:?}");
    for (member, channels) in members.iter().zip([3, 1, 2]) {
        let beat = cluster.registry.heartbeat(
            &member.name,
            member.generation,
            (NodeState::Active, channels, 1),
            (&mut cluster.beats, Now::default()),
        );
        beat.await.unwrap();
    }
    for _ in 0..10 {
        assert_eq!(cluster.placed("cc100x", "7").await.1, "b");
        cluster.registry.logout(&id("7")).await.unwrap();
    }
}

async fn set_phone(cluster: &mut Cluster, member: &Member, state: PhoneState) {
    let changes = phones(state, ["cc100"]);
    cluster.registry.phones(&member.name, member.generation, &changes).await.unwrap();
}

#[tokio::test]
async fn p3_each_refusal_says_why() {
    let mut cluster = Cluster::start().await;
    let nobody = cluster.place(&login("cc100x", "7")).await;
    assert_eq!((nobody.verdict, why(&nobody).as_str()), (Verdict::NotNow, "no-node"));
    let mut red = node("a");
    red.campaigns = vec![id("red"), id("blue")];
    red.max_agents = Some(1);
    let a = cluster.up_as(red, &["cc100", "cc101"]).await;
    let why = async |cluster: &mut Cluster, campaign: &str| {
        let campaign = (!campaign.is_empty()).then(|| id(campaign));
        let at = cluster.fresh();
        let placement = cluster.registry.explain(&LoginRequest { campaign, ..login("cc100x", "7") }, at).await.unwrap();
        assert_eq!(placement.verdict == Verdict::WouldPlace, placement.nodes[0].eligible, "{placement:?}");
        reason_text(placement.nodes[0].reason.as_ref())
    };
    assert_eq!(why(&mut cluster, "red").await, "");
    assert_eq!(why(&mut cluster, "blue").await, "");
    for campaign in ["", "re", "green"] {
        assert_eq!(why(&mut cluster, campaign).await, "campaign", "{campaign:?}");
    }
    for (state, word) in [(PhoneState::Unreachable, "unreachable"), (PhoneState::Unregistered, "unregistered")] {
        set_phone(&mut cluster, &a, state).await;
        assert_eq!(why(&mut cluster, "red").await, word);
    }
    set_phone(&mut cluster, &a, PhoneState::Unknown).await;
    assert_eq!(why(&mut cluster, "red").await, "unknown-phone");
    let both = phones(PhoneState::Registered, ["cc100", "cc101"]);
    cluster.registry.phones(&a.name, a.generation, &both).await.unwrap();
    let other = LoginRequest { campaign: Some(id("red")), ..login("cc101x", "8") };
    assert_eq!(cluster.place(&other).await.state.as_str(), "placed");
    assert_eq!(why(&mut cluster, "red").await, "full");
    cluster.registry.logout(&id("8")).await.unwrap();
    for (state, word) in [(NodeState::Starting, "starting"), (NodeState::Down, "down"), (NodeState::Active, "")] {
        cluster
            .registry
            .heartbeat(&a.name, a.generation, (state, 0, 1), (&mut cluster.beats, Now::default()))
            .await
            .unwrap();
        assert_eq!(why(&mut cluster, "red").await, word);
    }
    cluster.drain("a", true).await;
    assert_eq!(why(&mut cluster, "red").await, "draining");
    cluster.drain("a", false).await;
    cluster.lapse("a").await;
    assert_eq!(why(&mut cluster, "red").await, "lease-expired");
    cluster.beat(&a).await;
    cluster.registry.leave(&a.name, a.generation, &mut cluster.beats).await.unwrap();
    assert_eq!(why(&mut cluster, "red").await, "stopped");
    cluster.alias("desk", &["cc100@elsewhere"]).await;
    assert_eq!(whys(&cluster.place(&login("desk", "")).await), [("elsewhere", "unknown-node")]);
}
