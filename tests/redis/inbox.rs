//! The shared inbox beside a node's own orders: real daemons and real Redis, beside simulated nodes.
//!
//! Owns what a full inbox, a far Redis and the death of a listener must not do. What a single login in the inbox leads to is
//! the business of `registry_scripts`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that fails says why")]

#[path = "../lab/mod.rs"]
mod lab;
#[path = "../load_nodes/mod.rs"]
mod load_nodes;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use evenring::config::Settings;
use evenring::node::session::Class;
use evenring::registry::view::{ShownNodeState, Verdict, Which, reason_text};
use evenring::registry::{LoginRequest, Registry, script_hashes};
use evenring::runtime::random::new_session;
use lab::redis::Redis;
use load_nodes::daemons::SimDaemon;
use load_nodes::{Settings as SimSettings, Sim, SimNode};
use redis::aio::MultiplexedConnection;

/// What loads the machine may take so long; what is promised is far below it.
const SOON: Duration = Duration::from_secs(60);

struct House {
    nodes: Vec<SimNode>,
    daemons: BTreeMap<String, SimDaemon>,
    registry: Registry,
    raw: MultiplexedConnection,
    /// Messages so far.
    sent: u64,
    _redis: Redis,
    _dir: tempfile::TempDir,
}

impl House {
    /// So many daemons, whose way to Redis takes so long.
    async fn start(count: usize, phones: u32, round_trip: Duration, more: &str) -> Self {
        let redis = Redis::start();
        let address = match round_trip {
            Duration::ZERO => redis.address(),
            _ => lab::far::far(redis.address(), round_trip).await,
        };
        let dir = tempfile::tempdir().unwrap();
        let (all, binary) = (Sim::new(), Path::new(env!("CARGO_BIN_EXE_evenring")));
        let (mut nodes, mut daemons) = (Vec::new(), BTreeMap::new());
        for number in 0..count {
            let node = all.node(SimSettings { phones, rate: 100_000, ..SimSettings::default() }).await;
            let (name, url) = (format!("n{number:02}"), format!("redis://{address}"));
            let daemon = SimDaemon::start(binary, dir.path(), &name, node.address(), &url, more);
            daemons.insert(name, daemon);
            nodes.push(node);
        }
        let config = dir.path().join("cli.toml");
        std::fs::write(&config, format!("[redis]\nurl = \"{}\"\nresponse_timeout = \"10s\"\n", redis.url())).unwrap();
        let registry = Registry::new(&Settings::load(Some(&config), std::iter::empty()).unwrap()).unwrap();
        // Tens of thousands of messages take longer than the client's own half second.
        let patient = redis::AsyncConnectionConfig::new().set_response_timeout(Some(SOON));
        let client = redis::Client::open(redis.url()).unwrap();
        let raw = client.get_multiplexed_async_connection_with_config(&patient).await.unwrap();
        let mut house = Self { nodes, daemons, registry, raw, sent: 0, _redis: redis, _dir: dir };
        house
            .until("all nodes in the rotation", async |house| {
                let nodes = house.registry.nodes().await.unwrap();
                nodes.len() == count
                    && nodes
                        .iter()
                        .all(|n| n.state == ShownNodeState::Active && n.registrations == Some(u64::from(phones)))
            })
            .await;
        house
    }

    async fn until(&mut self, what: &str, mut ready: impl AsyncFnMut(&mut Self) -> bool) {
        let waiting = async {
            while !ready(self).await {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if tokio::time::timeout(lab::at_this_load(SOON), waiting).await.is_err() {
            let log = self.daemons.values().next().unwrap().log();
            panic!("waited {SOON:?} for {what}; the first daemon says:\n{}", &log[log.len().saturating_sub(3000)..]);
        }
    }

    /// Puts these into the inbox as RSMQ clients do in realtime mode, and wakes whoever listens.
    async fn submit(&mut self, bodies: impl Iterator<Item = String>) {
        let mut pipe = redis::pipe();
        for body in bodies {
            let id = format!("{:032}", self.sent);
            self.sent += 1;
            pipe.zadd("{evenring}:logins", &id, 1).ignore().hset("{evenring}:logins:Q", &id, body).ignore();
        }
        pipe.publish("{evenring}:rt:logins", "1").ignore();
        pipe.exec_async(&mut self.raw).await.unwrap();
    }

    async fn waiting(&mut self) -> u64 {
        redis::cmd("ZCARD").arg("{evenring}:logins").query_async(&mut self.raw).await.unwrap()
    }

    /// Sessions by state and reason.
    async fn fates(&mut self) -> BTreeMap<(String, String), usize> {
        let mut fates = BTreeMap::new();
        for row in self.registry.sessions(Which::All).await.unwrap() {
            *fates.entry((row.state.to_string(), reason_text(row.reason.as_ref()))).or_default() += 1;
        }
        fates
    }

    /// How often each script has run since the log of Redis was emptied, but for the heartbeats.
    async fn scripts(&mut self) -> BTreeMap<&'static str, u64> {
        type Entry = (u64, u64, u64, Vec<String>, String, String);
        let log: Vec<Entry> = redis::cmd("SLOWLOG").arg("GET").arg("-1").query_async(&mut self.raw).await.unwrap();
        let names: BTreeMap<String, &str> = script_hashes().into_iter().map(|(name, hash)| (hash, name)).collect();
        let mut counts = BTreeMap::new();
        for (.., words, _, _) in log {
            if let Some(name) = words.get(1).and_then(|hash| names.get(hash)).filter(|name| **name != "heartbeat") {
                *counts.entry(*name).or_default() += 1;
            }
        }
        counts
    }

    /// Who would be reached by a wake-up of the inbox.
    async fn listeners(&mut self) -> u64 {
        let mut ask = redis::cmd("PUBSUB");
        let (_, count): (String, u64) =
            ask.arg("NUMSUB").arg("{evenring}:rt:logins").query_async(&mut self.raw).await.unwrap();
        count
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p4_with_a_far_redis_two_thousand_logins_of_the_inbox_become_live_and_no_order_expires() {
    const LOGINS: u32 = 2_000;
    let more = "[ring]\nrate = 10000\nburst = 10000\n";
    let mut house = House::start(3, LOGINS, Duration::from_millis(20), more).await;
    house.submit((100..100 + LOGINS).map(|n| format!(r#"{{"alias":"cc{n}x","reply":"web-1"}}"#))).await;
    house
        .until("the end of every login", async |house| {
            let fates = house.fates().await;
            let over = |state: &str| !["placed", "queued", "ringing"].contains(&state);
            fates.values().sum::<usize>() == LOGINS as usize && fates.keys().all(|(state, _)| over(state))
        })
        .await;
    let live = (("live".to_owned(), String::new()), LOGINS as usize);
    assert_eq!(house.fates().await, BTreeMap::from([live]));
    let mut rung = BTreeMap::<String, usize>::new();
    for ring in house.nodes.iter().flat_map(SimNode::rings) {
        *rung.entry(ring.channel).or_default() += 1;
    }
    assert_eq!(rung.len(), LOGINS as usize);
    assert!(rung.values().all(|count| *count == 1), "P1: somebody was rung twice");
    let answers: u64 = redis::cmd("ZCARD").arg("{evenring}:web-1").query_async(&mut house.raw).await.unwrap();
    assert_eq!(answers, u64::from(LOGINS), "one answer each");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p16_a_node_rings_while_the_inbox_is_full_of_junk() {
    const JUNK: usize = 60_000;
    const LOGINS: u32 = 20;
    let mut house = House::start(2, LOGINS, Duration::ZERO, "").await;
    house.submit((0..JUNK).map(|n| format!("junk {n}"))).await;
    for number in 100..100 + LOGINS {
        let alias = format!("cc{number}x").parse().unwrap();
        let request =
            LoginRequest { alias, agent: None, campaign: None, class: Class::Local, moves: false, hold: None };
        let placement = house.registry.place(&request, new_session()).await.unwrap();
        assert_eq!(placement.verdict, Verdict::Placed, "{placement:?}");
    }
    let mut left = 0;
    house
        .until("all to be live", async |house| {
            left = house.waiting().await;
            let live = house.fates().await.remove(&("live".to_owned(), String::new()));
            live == Some(LOGINS as usize)
        })
        .await;
    assert!(left > 0, "the orders waited until the inbox was empty");
    house.until("the end of the junk", async |house| house.waiting().await == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p16_a_wake_up_of_the_inbox_reaches_two_nodes_and_another_one_when_one_of_them_dies() {
    let mut house = House::start(6, 50, Duration::ZERO, "[placement]\npoll = \"500ms\"\n").await;
    house.until("two listeners", async |house| house.listeners().await == 2).await;
    let mut seats = redis::cmd("ZRANGE");
    seats.arg("{evenring}:index:listeners").arg(0).arg(-1);
    let before: Vec<String> = seats.query_async(&mut house.raw).await.unwrap();
    assert_eq!(before.len(), 2, "{before:?}");
    house.daemons.remove(&before[0]).expect("a listener is one of ours");
    house
        .until("another listener", async |house| {
            let after: Vec<String> = seats.query_async(&mut house.raw).await.unwrap();
            !after.contains(&before[0]) && after.len() == 2 && house.listeners().await == 2
        })
        .await;
    house.submit((100..120).map(|n| format!(r#"{{"alias":"cc{n}x"}}"#))).await;
    house
        .until("all to be live", async |house| {
            house.fates().await.get(&("live".to_owned(), String::new())) == Some(&20)
        })
        .await;
}

/// Scripts that one login of the inbox may cost in all, from the wake-up to the agent who has answered: two who listen look into
/// the inbox, one settles it, its node takes the order and reports. The rest are the polls of so many nodes meanwhile.
const SCRIPTS_MOST: u64 = 7;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p16_a_login_of_the_inbox_costs_the_same_few_scripts_in_a_large_cluster() {
    const LOGINS: u64 = 20;
    let more = "[placement]\npoll = \"60s\"\nheartbeat = \"2s\"\nlease = \"60s\"\n";
    for nodes in [12, 200] {
        let mut house = House::start(nodes, LOGINS as u32, Duration::ZERO, more).await;
        house.until("two listeners", async |house| house.listeners().await == 2).await;
        for words in [["CONFIG", "SET", "slowlog-max-len", "100000"], ["CONFIG", "SET", "slowlog-log-slower-than", "0"]]
        {
            redis::cmd(words[0]).arg(&words[1..]).exec_async(&mut house.raw).await.unwrap();
        }
        redis::cmd("SLOWLOG").arg("RESET").exec_async(&mut house.raw).await.unwrap();
        for number in 0..LOGINS {
            house.submit(std::iter::once(format!(r#"{{"alias":"cc{}x","reply":"web-1"}}"#, 100 + number))).await;
            let live = (number + 1) as usize;
            let all_live =
                async |house: &mut House| house.fates().await.get(&("live".to_owned(), String::new())) == Some(&live);
            house.until("the login to be live", all_live).await;
        }
        let mut scripts = house.scripts().await;
        // The test's own looks.
        scripts.remove("sessions");
        let all: u64 = scripts.values().sum();
        println!("{nodes} nodes, {LOGINS} logins: {all} scripts {scripts:?}");
        assert!(all <= SCRIPTS_MOST * LOGINS, "{nodes} nodes, {LOGINS} logins: {scripts:?}");
    }
}
