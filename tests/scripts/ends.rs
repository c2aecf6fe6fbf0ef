//! P16: what nobody needs any more ends by itself: what is known of a node that does not come back, and answers that nobody
//! fetches. What operators or other programs made stays.

use evenring::ids::Now;
use evenring::node::NodeState;
use evenring::registry::Settled;
use evenring::registry::view::ShownNodeState;

use crate::redis_fixture::{Cluster, Member, extensions, node, previous};

const DAY: i64 = 24 * 3_600_000;

/// As if the others had noticed so much earlier that this node is dead.
async fn long_gone(cluster: &mut Cluster, name: &str, ms: i64) {
    cluster.run::<i64>(&["HINCRBY", &format!("NS:node:{name}"), "gone", &format!("-{ms}")]).await;
}

async fn keys_of(cluster: &mut Cluster, node: &str) -> Vec<String> {
    let keys: Vec<String> = cluster.run(&["KEYS", "NS:*"]).await;
    let ours = |key: &String| key.split([':', '-']).any(|word| word == node);
    let mut keys: Vec<String> = keys.into_iter().filter(ours).map(|key| key.replace("{evenring}:", "")).collect();
    keys.sort();
    keys
}

/// A node that is dead, and has an agent, phones, contacts and an order; and one that is alive.
async fn one_of_two_is_dead() -> (Cluster, Member, Member) {
    let mut cluster = Cluster::start().await;
    let dead = cluster.up("dead", &["cc100", "cc101"]).await;
    cluster.registry.contacts(&dead.name, dead.generation, &[("cc100".to_owned(), "{}".to_owned())]).await.unwrap();
    cluster.placed("cc100x", "7").await;
    let alive = cluster.up("alive", &["cc100"]).await;
    cluster.alias("desk", &["cc100@dead", "cc100@alive"]).await;
    cluster.lapse("dead").await;
    cluster.beat(&alive).await;
    (cluster, dead, alive)
}

#[tokio::test]
async fn p16_a_node_that_nobody_has_heard_of_for_a_month_is_forgotten() {
    let (mut cluster, dead, alive) = one_of_two_is_dead().await;
    let (all, others) = (keys_of(&mut cluster, "dead").await, keys_of(&mut cluster, "alive").await);
    assert_eq!(all, ["contacts:dead", "node:dead", "phones:dead", "ring-dead:Q"]);
    long_gone(&mut cluster, "dead", 29 * DAY).await;
    cluster.beat(&alive).await;
    assert_eq!(keys_of(&mut cluster, "dead").await, all, "it may come back");
    long_gone(&mut cluster, "dead", 2 * DAY).await;
    cluster.beat(&alive).await;
    assert_eq!(keys_of(&mut cluster, "dead").await, [""; 0]);
    assert_eq!(keys_of(&mut cluster, "alive").await, others);
    assert_eq!(cluster.run::<Vec<String>>(&["SMEMBERS", "NS:index:nodes"]).await, ["alive"]);
    let queues: Vec<String> = cluster.run(&["SMEMBERS", "NS:QUEUES"]).await;
    assert!(!queues.contains(&"ring-dead".to_owned()), "{queues:?}");
    let alias: String = cluster.run(&["HGET", "NS:aliases", "desk"]).await;
    assert_eq!(alias, "cc100@dead,cc100@alive", "the operators' own table");
    let late = (NodeState::Active, 0, 1);
    let beat =
        cluster.registry.heartbeat(&dead.name, dead.generation, late, (&mut cluster.beats, Now::default())).await;
    assert_eq!(crate::redis_fixture::word(beat), "forgotten", "it registers as a new one");
    cluster.up("dead", &["cc100"]).await;
    assert_eq!(cluster.node("dead").await.state, ShownNodeState::Active);
}

#[tokio::test]
async fn p16_a_node_that_comes_back_counts_its_month_anew() {
    let (mut cluster, dead, alive) = one_of_two_is_dead().await;
    long_gone(&mut cluster, "dead", 29 * DAY).await;
    cluster.beat(&dead).await;
    cluster.lapse("dead").await;
    cluster.beat(&alive).await;
    long_gone(&mut cluster, "dead", 2 * DAY).await;
    cluster.beat(&alive).await;
    assert_eq!(cluster.node("dead").await.state, ShownNodeState::LeaseExpired);
    // The same by a new life of its daemon.
    long_gone(&mut cluster, "dead", 27 * DAY).await;
    let life = evenring::ids::Generation::from_bits(77);
    previous(cluster.registry.register(&node("dead"), life, "host").await.unwrap());
    cluster.lapse("dead").await;
    cluster.beat(&alive).await;
    long_gone(&mut cluster, "dead", 2 * DAY).await;
    cluster.beat(&alive).await;
    assert_eq!(cluster.node("dead").await.state, ShownNodeState::LeaseExpired);
}

#[tokio::test]
async fn p10_a_node_that_drains_drains_when_it_comes_back_however_late() {
    let (mut cluster, _, alive) = one_of_two_is_dead().await;
    cluster.drain("dead", true).await;
    for _ in 0..2 {
        long_gone(&mut cluster, "dead", 31 * DAY).await;
        cluster.beat(&alive).await;
        assert_eq!(keys_of(&mut cluster, "dead").await, ["node:dead", "ring-dead:Q"], "what it tells again has ended");
    }
    cluster.up("dead", &["cc100"]).await;
    assert_eq!(cluster.node("dead").await.state, ShownNodeState::Draining);
}

#[tokio::test]
async fn p16_of_many_nodes_that_are_gone_one_heartbeat_forgets_one() {
    let mut cluster = Cluster::start().await;
    let alive = cluster.up("alive", &[]).await;
    for name in ["a", "b", "c"] {
        cluster.up(name, &["cc100"]).await;
        cluster.lapse(name).await;
    }
    cluster.beat(&alive).await;
    for name in ["a", "b", "c"] {
        long_gone(&mut cluster, name, 31 * DAY).await;
    }
    for left in [3, 2, 1, 1] {
        cluster.beat(&alive).await;
        assert_eq!(cluster.run::<i64>(&["SCARD", "NS:index:nodes"]).await, left);
    }
}

/// A login of the inbox, answered into this queue.
async fn answer(cluster: &mut Cluster, extension: &str, queue: &str) {
    let body = format!(r#"{{"alias":"{extension}x","reply":"{queue}"}}"#);
    cluster.run::<u64>(&["ZADD", "NS:logins", "1", extension]).await;
    cluster.run::<u64>(&["HSET", "NS:logins:Q", extension, &body]).await;
    let messages = cluster.registry.receive_logins(10, None).await.unwrap().messages;
    let settled = cluster.registry.settle_logins(&messages).await.unwrap();
    assert!(matches!(settled[..], [Settled::Placed(_)]), "{settled:?}");
}

/// As if so much time had passed for this queue.
async fn later(cluster: &mut Cluster, queue: &str, ms: i64) {
    let key = format!("NS:{queue}");
    for id in cluster.run::<Vec<String>>(&["ZRANGE", &key, "0", "-1"]).await {
        cluster.run::<String>(&["ZINCRBY", &key, &format!("-{ms}"), &id]).await;
    }
    if cluster.run::<bool>(&["HEXISTS", &format!("{key}:Q"), "evenring"]).await {
        cluster.run::<i64>(&["HINCRBY", &format!("{key}:Q"), "evenring", &format!("-{ms}")]).await;
    }
    if cluster.run::<Option<String>>(&["ZSCORE", "NS:index:answers", queue]).await.is_some() {
        cluster.run::<String>(&["ZINCRBY", "NS:index:answers", &format!("-{ms}"), queue]).await;
    }
}

async fn waiting(cluster: &mut Cluster, queue: &str) -> (i64, i64) {
    let key = format!("NS:{queue}");
    (cluster.run(&["ZCARD", &key]).await, cluster.run(&["EXISTS", &format!("{key}:Q")]).await)
}

#[tokio::test]
async fn p16_answers_that_nobody_takes_end_and_so_does_the_queue_that_was_made_for_them() {
    let mut cluster = Cluster::start().await;
    let a = cluster.up("a", &["cc100", "cc101"]).await;
    answer(&mut cluster, "cc100", "web-1").await;
    later(&mut cluster, "web-1", 59 * 60_000).await;
    cluster.beat(&a).await;
    assert_eq!(waiting(&mut cluster, "web-1").await, (1, 1), "somebody may come for it");
    later(&mut cluster, "web-1", 2 * 60_000).await;
    cluster.beat(&a).await;
    assert_eq!(waiting(&mut cluster, "web-1").await, (0, 1));
    let fields: Vec<String> = cluster.run(&["HKEYS", "NS:web-1:Q"]).await;
    assert!(fields.iter().all(|field| field.len() < 20), "the answer itself, too: {fields:?}");
    // Who comes to see whether an answer is there finds a queue.
    later(&mut cluster, "web-1", 6 * DAY).await;
    cluster.beat(&a).await;
    assert_eq!(waiting(&mut cluster, "web-1").await, (0, 1));
    answer(&mut cluster, "cc101", "web-1").await;
    for _ in 0..2 {
        later(&mut cluster, "web-1", 2 * DAY).await;
        cluster.beat(&a).await;
    }
    assert_eq!(waiting(&mut cluster, "web-1").await, (0, 1), "a week since the last answer");
    later(&mut cluster, "web-1", 4 * DAY).await;
    cluster.beat(&a).await;
    assert_eq!(waiting(&mut cluster, "web-1").await, (0, 0));
    assert_eq!(cluster.run::<i64>(&["SISMEMBER", "NS:QUEUES", "web-1"]).await, 0);
    assert_eq!(cluster.run::<i64>(&["ZCARD", "NS:index:answers"]).await, 0);
}

#[tokio::test]
async fn what_others_made_or_put_into_a_queue_stays() {
    let mut cluster = Cluster::start().await;
    let a = cluster.up("a", &["cc100", "cc101"]).await;
    // A queue as a client makes it, and a message of a client's own.
    cluster.run::<i64>(&["HSET", "NS:theirs:Q", "vt", "5", "delay", "0", "maxsize", "65536"]).await;
    cluster.run::<i64>(&["SADD", "NS:QUEUES", "theirs"]).await;
    answer(&mut cluster, "cc100", "theirs").await;
    answer(&mut cluster, "cc101", "both").await;
    let foreign = "fg1234567890abcdefghijklmnopqrsA";
    cluster.run::<i64>(&["ZADD", "NS:both", "1", foreign]).await;
    cluster.run::<i64>(&["HSET", "NS:both:Q", foreign, "a job"]).await;
    for _ in 0..3 {
        later(&mut cluster, "theirs", 8 * DAY).await;
        later(&mut cluster, "both", 8 * DAY).await;
        cluster.beat(&a).await;
    }
    assert_eq!(waiting(&mut cluster, "theirs").await, (0, 1), "the answer has ended");
    assert_eq!(waiting(&mut cluster, "both").await, (1, 1));
    assert_eq!(cluster.run::<String>(&["HGET", "NS:both:Q", foreign]).await, "a job");
    assert_eq!(cluster.run::<i64>(&["ZCARD", "NS:index:answers"]).await, 0);
}

#[tokio::test]
async fn p16_a_queue_that_nobody_reads_does_not_grow_for_ever() {
    let mut cluster = Cluster::start().await;
    let names = extensions(12);
    let phones: Vec<&str> = names.iter().map(String::as_str).collect();
    cluster.up("a", &phones).await;
    for name in &phones {
        answer(&mut cluster, name, "web-1").await;
        later(&mut cluster, "web-1", 15 * 60_000).await;
    }
    assert_eq!(waiting(&mut cluster, "web-1").await.0, 4, "those of the last hour");
}

/// What stands in the list is somebody else's key by now.
#[tokio::test]
async fn a_queue_that_became_something_else_stops_no_heartbeat() {
    let mut cluster = Cluster::start().await;
    let a = cluster.up("a", &["cc100"]).await;
    answer(&mut cluster, "cc100", "web-1").await;
    later(&mut cluster, "web-1", DAY).await;
    cluster.run::<String>(&["SET", "NS:web-1", "x"]).await;
    cluster.beat(&a).await;
    assert_eq!(cluster.run::<String>(&["GET", "NS:web-1"]).await, "x");
    assert_eq!(cluster.run::<i64>(&["ZCARD", "NS:index:answers"]).await, 0);
}
