//! A Redis that is far away, and a whole shift that logs in through the inbox at once. So many calls are too much for real
//! Asterisks on one machine: the nodes are simulated (`tests/load_nodes`), with real daemons, one process each.
//!
//! Owns that round and its rules, which are those of the judge where they fit. Must never touch a real node.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use evenring::config::Settings;
use evenring::registry::view::{NodeRow, SessionRow, SessionState, ShownNodeState, Which, reason_text};
use evenring::registry::{Registry, RegistryError};

use super::load_nodes::daemons::SimDaemon;
use super::load_nodes::{Behaviour, Settings as SimSettings, Sim, SimNode};
use super::round::Outcome;
use super::setup::{ANSWERS_AFTER, FIRST, alias};
use crate::lab::distance::Distance;
use crate::lab::evenring::binary;
use crate::lab::redis::Redis;
use crate::lab::{now, python, wait_for};

/// Its name on the command line.
pub const NAME: &str = "redis-far";
/// What happens, for people.
pub const WHAT: &str = "Redis is 20 ms away, each way; 2,000 logins at once through the inbox, on 6 simulated nodes";

const DELAY: Duration = Duration::from_millis(20);
const LOGINS: u32 = 2_000;
const NODES: usize = 6;
/// After this, whatever has not come will not come.
const PATIENCE: Duration = Duration::from_secs(240);
/// Between two looks: each reads all sessions.
const LOOK: Duration = Duration::from_millis(500);

/// A client that knows RSMQ and nothing of evenring.
const SEND: &str = "
import json, sys
from rsmq import RedisSMQ
client = RedisSMQ(host='127.0.0.1', port=sys.argv[1], ns='{evenring}', qname='logins')
first, count = int(sys.argv[2]), int(sys.argv[3])
for number in range(first, first + count):
    client.sendMessage().message(json.dumps({'alias': 'cc%dx' % number})).execute()
";

/// What runs. What uses Redis and the nodes ends before they do.
struct Shift {
    registry: Registry,
    daemons: Vec<SimDaemon>,
    nodes: Vec<SimNode>,
    distance: Distance,
    redis: Redis,
    dir: tempfile::TempDir,
    runtime: tokio::runtime::Runtime,
}

impl Shift {
    fn start() -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
        let (redis, dir) = (Redis::start(), tempfile::tempdir().expect("a temporary directory"));
        let distance = Distance::start(redis.address().into(), DELAY);
        let all = Sim::new();
        let phones = SimSettings {
            phones: LOGINS,
            behaviour: Behaviour::Answer { after: ANSWERS_AFTER },
            ..SimSettings::default()
        };
        let nodes: Vec<SimNode> = (0..NODES).map(|_| runtime.block_on(all.node(phones))).collect();
        let url = format!("redis://{}", distance.address());
        let start = |(number, node): (usize, &SimNode)| {
            SimDaemon::start(&binary(), dir.path(), &format!("n{number:02}"), node.address(), &url, "")
        };
        let daemons = nodes.iter().enumerate().map(start).collect();
        let registry = near(dir.path(), &redis);
        let mut shift = Self { registry, daemons, nodes, distance, redis, dir, runtime };
        wait_for(PATIENCE, || {
            let nodes = shift.look().map_err(|error| error.to_string())?.0;
            let whole =
                |row: &NodeRow| row.state == ShownNodeState::Active && row.registrations == Some(u64::from(LOGINS));
            if nodes.len() == NODES && nodes.iter().all(whole) { Ok(()) } else { Err(format!("all nodes: {nodes:?}")) }
        });
        shift
    }

    fn look(&mut self) -> Result<(Vec<NodeRow>, Vec<SessionRow>), RegistryError> {
        let registry = &mut self.registry;
        self.runtime.block_on(async { Ok((registry.nodes().await?, registry.sessions(Which::All).await?)) })
    }

    /// All log in, as fast as one client can say it.
    fn send(&self) {
        let arguments = [self.redis.address().port().to_string(), FIRST.to_string(), LOGINS.to_string()];
        let output = Command::new(python()).args(["-c", SEND]).args(arguments).output().expect("run Python");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// How many wait in the inbox.
    fn waiting(&self) -> usize {
        let mut connection = redis::Client::open(self.redis.url())
            .and_then(|client| client.get_connection())
            .expect("Redis is well, and near");
        redis::cmd("ZCARD").arg("{evenring}:logins").query(&mut connection).expect("the length of the inbox")
    }
}

/// The registry of one who is not far from Redis.
fn near(dir: &Path, redis: &Redis) -> Registry {
    let file = dir.join("near.toml");
    std::fs::write(&file, format!("[redis]\nurl = \"{}\"\nresponse_timeout = \"10s\"\n", redis.url()))
        .expect("write the settings");
    let settings = Settings::load(Some(&file), std::iter::empty()).expect("the settings are good");
    Registry::new(&settings).expect("Redis has a good address")
}

/// Plays it.
pub fn play() -> Outcome {
    println!("{NODES} simulated nodes start, with real daemons and a Redis that is {DELAY:?} away");
    let begin = now();
    let mut shift = Shift::start();
    let sent = now();
    shift.send();
    let mut left = std::collections::BTreeSet::new();
    let mut looked = now();
    let (nodes, sessions) = wait_for(PATIENCE, || {
        let open = |sessions: &[SessionRow]| {
            sessions.iter().filter(|row| !row.is_over() && row.state != SessionState::Live).count()
        };
        if looked.elapsed() < LOOK {
            return Err("the next look".to_owned());
        }
        let (nodes, sessions) = shift.look().map_err(|error| error.to_string())?;
        looked = now();
        left.extend(nodes.iter().filter(|row| row.state != ShownNodeState::Active).map(|row| row.name.clone()));
        match (shift.waiting(), open(&sessions)) {
            (0, 0) => Ok((nodes, sessions)),
            (waiting, open) => Err(format!("{waiting} logins in the inbox and {open} under way to be done with")),
        }
    });
    let mut outcome = Outcome { name: NAME, what: WHAT, settled: Some(sent.elapsed()), ..Outcome::default() };
    outcome.accepted = sessions.len();
    outcome.became_live = sessions.iter().filter(|row| row.state == SessionState::Live).count();
    for row in sessions.iter().filter(|row| row.is_over()) {
        outcome.failed += 1;
        *outcome.whys.entry(reason_text(row.reason.as_ref())).or_default() += 1;
    }
    outcome.invites = shift.nodes.iter().map(|node| node.rings().len()).sum();
    outcome.violations = wrong(&shift, &nodes, &sessions);
    outcome.violations.extend(left.iter().map(|node| format!("P6: node {node} left the rotation")));
    if !outcome.violations.is_empty() {
        let log = shift.daemons[0].log();
        eprintln!("the first daemon said last:\n{}", &log[log.len().saturating_sub(6_000)..]);
    }
    outcome.took = begin.elapsed();
    outcome
}

fn wrong(shift: &Shift, nodes: &[NodeRow], sessions: &[SessionRow]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut live = BTreeMap::<&str, usize>::new();
    for row in sessions.iter().filter(|row| row.state == SessionState::Live) {
        *live.entry(&row.alias).or_default() += 1;
    }
    for alias in (0..LOGINS).map(alias) {
        let count = live.get(alias.as_str()).copied().unwrap_or_default();
        if count != 1 {
            let rows = sessions.iter().filter(|row| row.alias == alias);
            let rows: Vec<String> =
                rows.map(|row| format!("{} {} {}", row.node, row.state, reason_text(row.reason.as_ref()))).collect();
            wrong.push(format!("P4: {alias} is live {count} times: {rows:?}"));
        }
    }
    let mut rung = BTreeMap::<String, usize>::new();
    for ring in shift.nodes.iter().flat_map(SimNode::rings) {
        *rung.entry(ring.channel).or_default() += 1;
    }
    for (phone, count) in rung.iter().filter(|(_, count)| **count > 1) {
        wrong.push(format!("P1: {phone} rang {count} times"));
    }
    let agents: Vec<u64> = nodes.iter().map(|node| node.agents).collect();
    let spread = agents.iter().max().zip(agents.iter().min()).map_or(0, |(most, least)| most - least);
    if spread > 1 {
        wrong.push(format!("P2: the spread is {spread}: {agents:?}"));
    }
    for (row, node) in nodes.iter().zip(&shift.nodes) {
        if row.agents != node.live() as u64 {
            wrong.push(format!(
                "P5: {}: Redis says {} agents, and there are {} calls",
                row.name,
                row.agents,
                node.live()
            ));
        }
    }
    wrong
}
