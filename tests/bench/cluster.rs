//! Measures of whole daemons: placement in Redis, the way from login to ring, bursts, a large cluster at rest, an idle
//! daemon. Real binaries, real Redis; simulated Asterisks, for the real ones would be the limit.
//!
//! Owns what is measured and its floor. Must never judge: the harness compares with what is to be reached.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenring::config::Settings;
use evenring::ids::{Generation, Now, SessionId};
use evenring::node::NodeState;
use evenring::node::roster::{PhoneChanges, PhoneState};
use evenring::node::session::Class;
use evenring::registry::view::{SessionState, ShownNodeState, Verdict, Which};
use evenring::registry::{HeartbeatSequence, LoginRequest, Registered, Registry};
use evenring::runtime::random::new_session;

use crate::lab::now;
use crate::lab::redis::Redis;
use crate::load_nodes::daemons::SimDaemon;
use crate::load_nodes::{Settings as SimSettings, Sim, SimNode};

/// Logins of one round.
const ROUND: u32 = 2_000;
/// Connections that place side by side, so that Redis is the limit and not the way to it.
const LANES: u32 = 16;

fn request(number: u32) -> LoginRequest {
    // Every number in the range makes an alias.
    let alias = format!("cc{number}x").parse().expect("an alias");
    LoginRequest { alias, agent: None, campaign: None, class: Class::Local, moves: false, hold: None }
}

fn settings(dir: &Path, redis: &str, more: &str) -> Settings {
    let path = dir.join("bench.toml");
    std::fs::write(&path, format!("[redis]\nurl = \"{redis}\"\nresponse_timeout = \"30s\"\n{more}"))
        .expect("write settings");
    Settings::load(Some(&path), std::iter::empty()).expect("good settings")
}

async fn pause(time: Duration) {
    tokio::time::sleep(time).await;
}

/// A Redis with so many active nodes, on which all phones are registered. No daemon: only the tables.
struct Tables {
    redis: Redis,
    settings: Settings,
    nodes: u32,
    _dir: tempfile::TempDir,
}

impl Tables {
    async fn new(nodes: u32) -> Self {
        let redis = Redis::start();
        let dir = tempfile::tempdir().expect("a temporary directory");
        let settings = settings(dir.path(), &redis.url(), "[placement]\nlease = \"10m\"\n");
        Self { redis, settings, nodes, _dir: dir }
    }

    fn registry(&self) -> Registry {
        Registry::new(&self.settings).expect("good settings")
    }

    /// Everything as at the beginning, a while after the last silence.
    async fn reset(&self) {
        let client = redis::Client::open(self.redis.url()).expect("a URL");
        let mut connection = client
            .get_multiplexed_async_connection_with_config(
                &redis::AsyncConnectionConfig::new().set_response_timeout(Some(std::time::Duration::from_secs(30))),
            )
            .await
            .expect("Redis");
        redis::cmd("FLUSHALL").exec_async(&mut connection).await.expect("FLUSHALL");
        let judge = |field: &str, value: &str| {
            let mut set = redis::cmd("HSET");
            set.arg("{evenring}:judge").arg(field).arg(value);
            set
        };
        // An empty one would make logins wait.
        judge("tick", "1").exec_async(&mut connection).await.expect("HSET");
        let mut registry = self.registry();
        let extension = |n: u32| format!("cc{n}").parse().expect("an extension");
        let phones = (100..100 + ROUND).map(|n| (extension(n), PhoneState::Registered)).collect();
        let changes = PhoneChanges { replace: true, phones };
        for number in 0..self.nodes {
            let mut node = self.settings.node.clone();
            node.name = format!("n{number:03}").parse().expect("a node name");
            let generation = Generation::from_bits(u64::from(number));
            let registered = registry.register(&node, generation, "bench").await.expect("Redis");
            assert!(matches!(registered, Registered::Taken { .. }), "{registered:?}");
            registry.phones(&node.name, generation, &changes).await.expect("Redis");
            registry
                .heartbeat(
                    &node.name,
                    generation,
                    (NodeState::Active, 0, ROUND as usize),
                    (&mut HeartbeatSequence::default(), Now::default()),
                )
                .await
                .expect("Redis");
        }
        judge("floor", "-3600000").exec_async(&mut connection).await.expect("HSET");
    }

    /// Logins a second through the real script.
    async fn place_rate(&self) -> f64 {
        let lanes = |lane: u32| {
            let mut registry = self.registry();
            async move {
                registry.now_ms().await.expect("Redis");
                move || async move {
                    for number in (100 + lane..100 + ROUND).step_by(LANES as usize) {
                        let placement = registry.place(&request(number), new_session()).await.expect("Redis");
                        assert_eq!(placement.verdict, Verdict::Placed);
                    }
                }
            }
        };
        let mut ready = Vec::new();
        for lane in 0..LANES {
            ready.push(lanes(lane).await);
        }
        rate(ready).await
    }

    /// The floor: a script that reads and writes the same keys and checks nothing.
    async fn bare_rate(&self) -> f64 {
        let client = redis::Client::open(self.redis.url()).expect("a URL");
        let script = Arc::new(redis::Script::new(include_str!("bare.lua")));
        let mut ready = Vec::new();
        for lane in 0..LANES {
            let patient = redis::AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(30)));
            let mut connection = client.get_multiplexed_async_connection_with_config(&patient).await.expect("Redis");
            let (script, nodes) = (script.clone(), self.nodes);
            ready.push(move || async move {
                for number in (100 + lane..100 + ROUND).step_by(LANES as usize) {
                    let mut call = script.prepare_invoke();
                    call.key("{evenring}").arg(new_session().to_string()).arg(format!("cc{number}x"));
                    call.arg(format!("cc{number}")).arg(number % nodes);
                    let _: redis::Value = call.invoke_async(&mut connection).await.expect("Redis");
                }
            });
        }
        rate(ready).await
    }
}

async fn rate<F, Fut>(lanes: Vec<F>) -> f64
where
    F: FnOnce() -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    let begin = now();
    let mut tasks = tokio::task::JoinSet::new();
    for lane in lanes {
        tasks.spawn(lane());
    }
    tasks.join_all().await;
    f64::from(ROUND) / begin.elapsed().as_secs_f64()
}

/// Placements a second and the floor's, `rounds` times, interleaved.
pub async fn placement(nodes: u32, rounds: usize) -> Vec<(f64, f64)> {
    let tables = Tables::new(nodes).await;
    let mut all = Vec::new();
    for _ in 0..rounds {
        tables.reset().await;
        let ours = tables.place_rate().await;
        tables.reset().await;
        all.push((ours, tables.bare_rate().await));
    }
    all
}

/// Daemons beside simulated nodes.
struct Cluster {
    nodes: Vec<SimNode>,
    daemons: Vec<SimDaemon>,
    settings: Settings,
    redis: Redis,
    _dir: tempfile::TempDir,
}

impl Cluster {
    async fn start(binary: &Path, count: usize, sim: SimSettings, more: &str) -> Self {
        let redis = Redis::start();
        let dir = tempfile::tempdir().expect("a temporary directory");
        let settings = settings(dir.path(), &redis.url(), more);
        let all = Sim::new();
        let (mut nodes, mut daemons) = (Vec::new(), Vec::new());
        for number in 0..count {
            let node = all.node(sim).await;
            let name = format!("n{number:02}");
            daemons.push(SimDaemon::start(binary, dir.path(), &name, node.address(), &redis.url(), more));
            nodes.push(node);
        }
        let cluster = Self { nodes, daemons, settings, redis, _dir: dir };
        let mut registry = cluster.registry();
        let begin = now();
        loop {
            let rows = registry.nodes().await.expect("Redis");
            let up = rows
                .iter()
                .filter(|n| n.state == ShownNodeState::Active && n.registrations == Some(u64::from(sim.phones)))
                .count();
            if up == count {
                return cluster;
            }
            assert!(
                begin.elapsed() < Duration::from_secs(60),
                "{up} of {count} nodes came up: {}",
                cluster.daemons[0].log()
            );
            pause(Duration::from_millis(20)).await;
        }
    }

    fn registry(&self) -> Registry {
        Registry::new(&self.settings).expect("good settings")
    }

    /// Places so many logins from all lanes at once; when the last was accepted.
    async fn place_all(&self, logins: u32) -> Duration {
        let mut tasks = tokio::task::JoinSet::new();
        let begin = now();
        for lane in 0..LANES {
            let mut registry = self.registry();
            tasks.spawn(async move {
                for number in (100 + lane..100 + logins).step_by(LANES as usize) {
                    let placement = registry.place(&request(number), new_session()).await.expect("Redis");
                    assert_eq!(placement.verdict, Verdict::Placed, "{placement:?}");
                }
            });
        }
        tasks.join_all().await;
        begin.elapsed()
    }

    async fn wait_live(&self, logins: usize) {
        let begin = now();
        while self.nodes.iter().map(SimNode::live).sum::<usize>() < logins {
            assert!(begin.elapsed() < Duration::from_secs(60), "not all became live: {}", self.daemons[0].log());
            pause(Duration::from_millis(10)).await;
        }
    }
}

/// From login to ring, in µs.
#[derive(Debug)]
pub struct Latency {
    /// From the accepted login (the answer of the placement is here) to the last byte of Originate at the node.
    pub ring_us: Vec<f64>,
    /// A bare Redis round trip, taken in between.
    pub ping_us: Vec<f64>,
}

/// `logins` logins, `per_second` of them, on one node.
pub async fn latency(binary: &Path, logins: u32, per_second: u32) -> Latency {
    let sim = SimSettings { phones: logins, rate: 100_000, ..SimSettings::default() };
    let cluster = Cluster::start(binary, 1, sim, "[ring]\nrate = 10000\nburst = 10000\n").await;
    let mut registry = cluster.registry();
    let mut accepted = BTreeMap::<SessionId, Instant>::new();
    let mut ping_us = Vec::new();
    let begin = now();
    for number in 0..logins {
        let due = begin + Duration::from_secs_f64(f64::from(number) / f64::from(per_second));
        pause(due.saturating_duration_since(now())).await;
        if number % 10 == 0 {
            let start = now();
            registry.now_ms().await.expect("Redis");
            ping_us.push(micros(start.elapsed()));
        }
        let session = new_session();
        let placement = registry.place(&request(100 + number), session).await.expect("Redis");
        assert_eq!(placement.verdict, Verdict::Placed);
        accepted.insert(session, now());
    }
    cluster.wait_live(logins as usize).await;
    let rings = cluster.nodes[0].rings();
    assert_eq!(rings.len(), logins as usize);
    let session = |unique: &str| unique.trim_start_matches("evenring-").parse::<SessionId>().expect("a session");
    let since = |ring: &crate::load_nodes::Ring| ring.at.saturating_duration_since(accepted[&session(&ring.unique)]);
    Latency { ring_us: rings.iter().map(|ring| micros(since(ring))).collect(), ping_us }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// What became of many logins at once.
#[derive(Debug)]
pub struct Burst {
    /// Largest load minus smallest.
    pub spread: u64,
    /// Logins that are not live in the end.
    pub lost: usize,
    /// Phones with more than one Originate.
    pub twice: usize,
    /// From the first login to the last Originate.
    pub last_ring: Duration,
}

/// `logins` at once on so many nodes, with the daemon's own pacing.
pub async fn burst(binary: &Path, nodes: usize, logins: u32) -> Burst {
    let sim = SimSettings { phones: logins, ..SimSettings::default() };
    let cluster = Cluster::start(binary, nodes, sim, "").await;
    let begin = now();
    cluster.place_all(logins).await;
    cluster.wait_live(logins as usize).await;
    let mut registry = cluster.registry();
    let agents: Vec<u64> = registry.nodes().await.expect("Redis").iter().map(|node| node.agents).collect();
    let mut live = 0;
    let settled = now();
    while live < logins as usize && settled.elapsed() < Duration::from_secs(10) {
        live = registry
            .sessions(Which::Open)
            .await
            .expect("Redis")
            .iter()
            .filter(|row| row.state == SessionState::Live)
            .count();
        pause(Duration::from_millis(20)).await;
    }
    let rings: Vec<_> = cluster.nodes.iter().flat_map(SimNode::rings).collect();
    let mut rung = BTreeMap::<&str, usize>::new();
    for ring in &rings {
        *rung.entry(ring.channel.as_str()).or_default() += 1;
    }
    Burst {
        spread: agents.iter().max().unwrap_or(&0) - agents.iter().min().unwrap_or(&0),
        lost: logins as usize - live,
        twice: rung.values().filter(|count| **count > 1).count(),
        last_ring: rings.iter().map(|ring| ring.at - begin).max().unwrap_or_default(),
    }
}

/// What a daemon costs while nothing changes.
#[derive(Debug)]
pub struct AtRest {
    /// Resident memory, MB.
    pub rss_mb: f64,
    /// Part of one core, in per cent.
    pub cpu_percent: f64,
}

/// One daemon among so many, each with so many live agents; several looks of so long each.
pub async fn steady(binary: &Path, nodes: usize, agents: u32, looks: usize, time: Duration) -> Vec<AtRest> {
    let logins = agents * u32::try_from(nodes).expect("a few nodes");
    let sim = SimSettings { phones: logins, rate: 100_000, ..SimSettings::default() };
    let cluster = Cluster::start(binary, nodes, sim, "[ring]\nrate = 10000\nburst = 10000\n").await;
    cluster.place_all(logins).await;
    cluster.wait_live(logins as usize).await;
    pause(Duration::from_secs(3)).await;
    look(cluster.daemons[0].pid(), looks, time).await
}

async fn look(pid: u32, looks: usize, time: Duration) -> Vec<AtRest> {
    let mut all = Vec::new();
    for _ in 0..looks {
        all.push(at_rest(pid, time).await);
    }
    all
}

async fn at_rest(pid: u32, time: Duration) -> AtRest {
    let before = cpu(pid);
    let begin = now();
    pause(time).await;
    let used = cpu(pid) - before;
    AtRest { rss_mb: rss_mb(pid), cpu_percent: 100.0 * used.as_secs_f64() / begin.elapsed().as_secs_f64() }
}

/// Time on a core since the start, of all threads.
fn cpu(pid: u32) -> Duration {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("the process lives");
    let of = |path: PathBuf| {
        let text = std::fs::read_to_string(path.join("schedstat")).expect("schedstat");
        text.split(' ').next().and_then(|ns| ns.parse().ok()).map(Duration::from_nanos).expect("a number")
    };
    tasks.map(|task| of(task.expect("a task").path())).sum()
}

fn rss_mb(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process lives");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").parse::<f64>().expect("a number") / 1024.0
}

/// An idle daemon, and how long it took from start to READY.
pub async fn idle(binary: &Path, looks: usize, time: Duration) -> (Vec<AtRest>, Vec<Duration>) {
    let sim = SimSettings { phones: 20, ..SimSettings::default() };
    let cluster = Cluster::start(binary, 1, sim, "").await;
    pause(Duration::from_secs(2)).await;
    let rest = look(cluster.daemons[0].pid(), looks, time).await;
    let mut took = Vec::new();
    for _ in 0..looks {
        took.push(ready(binary, &cluster).await);
    }
    (rest, took)
}

/// Starts one more daemon beside the first node's Asterisk and waits for READY on a notify socket of its own.
async fn ready(binary: &Path, cluster: &Cluster) -> Duration {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("notify");
    let socket = tokio::net::UnixDatagram::bind(&path).expect("a socket");
    let (user, secret) = crate::load_nodes::USER;
    let config = dir.path().join("one.toml");
    let text = format!(
        "[node]\nname = \"one\"\n[ami]\naddress = \"{}\"\nusername = \"{user}\"\nsecret = \"{secret}\"\n[redis]\nurl = \"{}\"\n",
        cluster.nodes[0].address(),
        cluster.redis.url()
    );
    std::fs::write(&config, text).expect("write settings");
    let begin = now();
    let mut child = std::process::Command::new(binary)
        .arg("run")
        .arg("--config")
        .arg(&config)
        .env("NOTIFY_SOCKET", &path)
        .env("RUNTIME_DIRECTORY", dir.path())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("start evenring");
    let mut text = vec![0; 4096];
    let wait = async {
        loop {
            let count = socket.recv(&mut text).await.expect("a datagram");
            if text[..count].windows(7).any(|part| part == b"READY=1") {
                return begin.elapsed();
            }
        }
    };
    let took = tokio::time::timeout(Duration::from_secs(20), wait).await.expect("READY within 20 s");
    child.kill().expect("kill the daemon");
    child.wait().expect("wait for the daemon");
    took
}
