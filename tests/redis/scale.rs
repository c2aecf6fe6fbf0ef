//! More nodes and agents than real Asterisks fit on this machine: real daemons and real Redis beside simulated nodes.
//!
//! The first test holds the simulation against what real Asterisk does (`tests/asterisk/outcomes.rs`): same states, same reasons.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that fails says why")]

#[path = "../lab/mod.rs"]
mod lab;
#[path = "../load_nodes/mod.rs"]
mod load_nodes;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use evenring::config::Settings;
use evenring::node::session::Class;
use evenring::registry::view::{ShownNodeState, Verdict, Which, reason_text};
use evenring::registry::{LoginRequest, Registry};
use evenring::runtime::random::new_session;
use lab::redis::Redis;
use load_nodes::daemons::SimDaemon;
use load_nodes::{Behaviour, Settings as SimSettings, Sim, SimNode};

const SOON: Duration = Duration::from_secs(20);

struct Scale {
    nodes: Vec<SimNode>,
    daemons: Vec<SimDaemon>,
    settings: Settings,
    _redis: Redis,
    _dir: tempfile::TempDir,
}

impl Scale {
    /// Real daemons, as many as `count`, each beside a simulated node.
    async fn start(count: usize, sim: SimSettings, more: &str) -> Self {
        let redis = Redis::start();
        let dir = tempfile::tempdir().unwrap();
        let all = Sim::new();
        let (mut nodes, mut daemons) = (Vec::new(), Vec::new());
        for number in 0..count {
            let node = all.node(sim).await;
            let binary = Path::new(env!("CARGO_BIN_EXE_evenring"));
            let name = format!("n{number:02}");
            daemons.push(SimDaemon::start(binary, dir.path(), &name, node.address(), &redis.url(), more));
            nodes.push(node);
        }
        let config = dir.path().join("cli.toml");
        std::fs::write(&config, format!("[redis]\nurl = \"{}\"\nresponse_timeout = \"10s\"\n{more}", redis.url()))
            .unwrap();
        let settings = Settings::load(Some(&config), std::iter::empty()).unwrap();
        let scale = Self { nodes, daemons, settings, _redis: redis, _dir: dir };
        let mut registry = scale.registry();
        scale
            .until("all nodes in the rotation", async || {
                let nodes = registry.nodes().await.unwrap();
                nodes.len() == count
                    && nodes
                        .iter()
                        .all(|n| n.state == ShownNodeState::Active && n.registrations == Some(u64::from(sim.phones)))
            })
            .await;
        scale
    }

    fn registry(&self) -> Registry {
        Registry::new(&self.settings).unwrap()
    }

    async fn until(&self, what: &str, mut ready: impl AsyncFnMut() -> bool) {
        let waiting = async {
            while !ready().await {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if tokio::time::timeout(SOON, waiting).await.is_err() {
            let log = self.daemons[0].log();
            panic!("waited {SOON:?} for {what}; the first daemon says:\n{}", &log[log.len().saturating_sub(3000)..]);
        }
    }

    async fn states(&self, registry: &mut Registry) -> BTreeMap<(String, String), usize> {
        let mut states = BTreeMap::new();
        for row in registry.sessions(Which::All).await.unwrap() {
            *states.entry((row.state.to_string(), reason_text(row.reason.as_ref()))).or_default() += 1;
        }
        states
    }
}

fn request(number: u32) -> LoginRequest {
    LoginRequest {
        alias: format!("cc{number}x").parse().unwrap(),
        agent: None,
        campaign: None,
        class: Class::Local,
        moves: false,
        hold: None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_simulated_node_ends_rings_as_a_real_one_does() {
    let more = "[ring]\ntimeout = \"1s\"\n";
    let scale = Scale::start(1, SimSettings { phones: 20, ..SimSettings::default() }, more).await;
    let mut registry = scale.registry();
    let cases = [
        (Behaviour::Answer { after: Duration::ZERO }, "live", ""),
        (Behaviour::Answer { after: Duration::from_millis(200) }, "live", ""),
        (Behaviour::Busy, "failed", "busy"),
        (Behaviour::Ring, "failed", "no-answer"),
        (Behaviour::Congestion, "failed", "congestion-34"),
        (Behaviour::Unreachable, "failed", "not-reachable"),
    ];
    for (number, (behaviour, state, reason)) in (100..).zip(cases) {
        scale.nodes[0].behave(behaviour);
        let session = registry.place(&request(number), new_session()).await.unwrap().session.unwrap();
        let mut last = None;
        scale
            .until(&format!("{behaviour:?} to be {state} {reason}"), async || {
                last = registry.sessions(Which::One(session)).await.unwrap().pop();
                last.as_ref()
                    .is_some_and(|row| row.state.as_str() == state && reason_text(row.reason.as_ref()) == reason)
            })
            .await;
    }
    assert_eq!(scale.nodes[0].live(), 2);
    for alias in ["cc100x", "cc101x"] {
        registry.logout(&alias.parse().unwrap()).await.unwrap();
    }
    scale.until("no channel", async || scale.nodes[0].channels() == 0).await;
    assert_eq!(scale.nodes[0].rings().len(), 6, "one Originate each");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_logins_at_once_on_ten_nodes_are_even_and_none_is_lost_or_rung_twice() {
    const LOGINS: u32 = 1_000;
    let scale = Scale::start(10, SimSettings { phones: LOGINS, ..SimSettings::default() }, "").await;
    let mut tasks = tokio::task::JoinSet::new();
    let gate = Arc::new(tokio::sync::Barrier::new(50));
    for lane in 0..50 {
        let (mut registry, gate) = (scale.registry(), gate.clone());
        tasks.spawn(async move {
            registry.now_ms().await.unwrap();
            gate.wait().await;
            for number in (100 + lane..100 + LOGINS).step_by(50) {
                let placement = registry.place(&request(number), new_session()).await.unwrap();
                assert_eq!(placement.verdict, Verdict::Placed, "{placement:?}");
            }
        });
    }
    tasks.join_all().await;
    let mut registry = scale.registry();
    let agents: Vec<u64> = registry.nodes().await.unwrap().iter().map(|node| node.agents).collect();
    assert!(agents.iter().all(|count| *count == 100), "{agents:?}");
    scale
        .until("a thousand live sessions", async || {
            let states = scale.states(&mut registry).await;
            states.get(&("live".to_owned(), String::new())) == Some(&(LOGINS as usize))
        })
        .await;
    let mut rung = BTreeMap::<String, usize>::new();
    for ring in scale.nodes.iter().flat_map(SimNode::rings) {
        *rung.entry(ring.channel).or_default() += 1;
    }
    assert_eq!(rung.len(), LOGINS as usize);
    assert!(rung.values().all(|count| *count == 1), "somebody was rung twice");
    assert_eq!(scale.nodes.iter().map(SimNode::live).sum::<usize>(), LOGINS as usize);
}
