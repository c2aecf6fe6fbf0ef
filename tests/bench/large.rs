//! The large cluster that the rows of scripts are measured in: 200 nodes, 20,000 sessions, 100,000 phones.
//!
//! Owns how it is filled and brought back to where it was, and what the calls since a moment took. Must never know what a row
//! is about.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use evenring::config::{NodeSettings, Settings};
use evenring::ids::{Generation, NodeName, Now, SessionId};
use evenring::node::roster::{PhoneChanges, PhoneState};
use evenring::node::session::{Class, Login, Outcome, Reason};
use evenring::node::{Live, NodeState, RecordedState};
use evenring::registry::view::Verdict;
use evenring::registry::{
    FetchSequence, HeartbeatReply, HeartbeatSequence, LoginRequest, Registered, Registry, script_hashes,
};
use evenring::runtime::random::new_session;
use redis::aio::MultiplexedConnection;

use crate::harness::now;
use crate::lab::redis::Redis;
use crate::meter::Meter;

pub const NODES: u64 = 200;
/// On every node the same.
const PHONES: u32 = 500;
/// On each node.
pub const SESSIONS: u64 = 100;
/// Orders that wait in one node's queue.
pub const ORDERS: u32 = 300;
/// The first node: it gets the orders.
pub const FIRST: u64 = 0;

/// What each call took, in their order: on the core, and by the clock. The least of all rounds.
#[derive(Debug, Default)]
pub struct Calls {
    on_core: Vec<f64>,
    by_clock: Vec<f64>,
}

impl Calls {
    fn add(known: &mut Vec<f64>, round: Vec<f64>) {
        known.resize(known.len().max(round.len()), f64::INFINITY);
        for (least, took) in known.iter_mut().zip(round) {
            *least = least.min(took);
        }
    }

    /// The longest of them.
    pub fn longest(&self) -> (f64, f64) {
        let most = |calls: &[f64]| calls.iter().copied().fold(0.0, f64::max);
        (most(&self.on_core), most(&self.by_clock))
    }
}

pub struct Large {
    pub registry: Registry,
    pub settings: Settings,
    pub beats: HeartbeatSequence,
    /// What the rounds so far have measured, by row.
    pub measured: BTreeMap<&'static str, Calls>,
    raw: MultiplexedConnection,
    hashes: BTreeMap<&'static str, String>,
    fetches: FetchSequence,
    begin: Instant,
    meter: Meter,
    found: u64,
    _redis: Redis,
    _dir: tempfile::TempDir,
}

pub fn name(number: u64) -> NodeName {
    format!("n{number:03}").parse().expect("a node name")
}

pub fn life(number: u64) -> Generation {
    Generation::from_bits(number)
}

pub fn request(number: u32) -> LoginRequest {
    let alias = format!("cc{}x", 100 + number).parse().expect("an alias");
    LoginRequest { alias, agent: None, campaign: None, class: Class::Local, moves: false, hold: None }
}

/// An agent who is logged in: not one of those who log in here.
fn login(session: u64, text: &str) -> Login {
    Login {
        session: SessionId::from_bits(session),
        attempt: 1,
        alias: format!("{text}x").parse().expect("an alias"),
        extension: text.parse().expect("an extension"),
        agent: text.parse().expect("an agent"),
        campaign: None,
        class: Class::Local,
    }
}

fn settings(dir: &Path, redis: &str, rejoin: &str) -> Settings {
    let path = dir.join("large.toml");
    let text = format!(
        "[redis]\nurl = \"{redis}\"\nresponse_timeout = \"30s\"\n[placement]\nlease = \"10m\"\nrejoin = \"{rejoin}\"\n"
    );
    std::fs::write(&path, text).expect("write settings");
    Settings::load(Some(&path), std::iter::empty()).expect("good settings")
}

impl Large {
    pub async fn new() -> Self {
        let redis = Redis::start();
        let dir = tempfile::tempdir().expect("a temporary directory");
        let meter = Meter::start(redis.address(), redis.pid()).await;
        let settings = settings(dir.path(), &meter.url(), "auto");
        let registry = Registry::new(&settings).expect("good settings");
        let client = redis::Client::open(redis.url()).expect("a URL");
        let patient = redis::AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(30)));
        let raw = client.get_multiplexed_async_connection_with_config(&patient).await.expect("Redis");
        let mut large = Self {
            registry,
            settings,
            beats: HeartbeatSequence::default(),
            measured: BTreeMap::new(),
            raw,
            hashes: script_hashes().into_iter().collect(),
            fetches: FetchSequence::default(),
            begin: now(),
            meter,
            found: 1 << 40,
            _redis: redis,
            _dir: dir,
        };
        large.ask(&["CONFIG", "SET", "slowlog-log-slower-than", "0"]).await;
        large.ask(&["CONFIG", "SET", "slowlog-max-len", "1000000"]).await;
        for number in 0..NODES {
            large.join(number).await;
            large.fill(number).await;
        }
        large
    }

    /// The agents of a node, who are logged in all the time.
    pub async fn fill(&mut self, number: u64) {
        let found: Vec<_> =
            (0..SESSIONS).map(|k| (login((number + 1) << 16 | k, &format!("old{number}-{k}")), Live::Yes)).collect();
        self.registry.adopt(&name(number), life(number), &found).await.expect("Redis");
    }

    /// Calls that a node finds in its Asterisk, and that nobody knew of.
    pub fn found(&mut self, count: u64, live: Live) -> Vec<(Login, Live)> {
        let first = self.found;
        self.found += count;
        (0..count).map(|k| (login(first + k, &format!("new{k}")), live)).collect()
    }

    pub async fn ask(&mut self, words: &[&str]) -> redis::Value {
        redis::cmd(words[0]).arg(&words[1..]).query_async(&mut self.raw).await.expect("Redis")
    }

    pub fn settings_of(&self, number: u64) -> NodeSettings {
        // The first one takes all logins: it has a share that nobody else has.
        let weight = if number == FIRST { 1_000 } else { 1 };
        NodeSettings { name: name(number), weight, ..self.settings.node.clone() }
    }

    pub async fn join(&mut self, number: u64) {
        let node = self.settings_of(number);
        let registered = self.registry.register(&node, life(number), "bench").await.expect("Redis");
        assert!(matches!(registered, Registered::Taken { .. }), "{registered:?}");
        let extension = |n: u32| format!("cc{}", 100 + n).parse().expect("an extension");
        let phones = (0..PHONES).map(|n| (extension(n), PhoneState::Registered)).collect();
        let changes = PhoneChanges { replace: true, phones };
        self.registry.phones(&name(number), life(number), &changes).await.expect("Redis");
        self.beat(number).await;
    }

    pub async fn pulse(&mut self, number: u64) -> HeartbeatReply {
        let (how, now) = ((NodeState::Active, 0, PHONES as usize), Now(self.begin.elapsed()));
        let beat = self.registry.heartbeat(&name(number), life(number), how, (&mut self.beats, now)).await;
        beat.expect("Redis")
    }

    pub async fn beat(&mut self, number: u64) -> usize {
        self.pulse(number).await.reaped.len()
    }

    /// Puts orders into the queue of the first node.
    pub async fn order(&mut self, count: u32) -> Vec<SessionId> {
        let mut sessions = Vec::new();
        for number in 0..count {
            let placement = self.registry.place(&request(number), new_session()).await.expect("Redis");
            assert_eq!((placement.verdict, placement.node.as_str()), (Verdict::Placed, "n000"), "{placement:?}");
            sessions.extend(placement.session);
        }
        sessions
    }

    /// Ends what [`Self::order`] began, wherever it is.
    pub async fn call_off(&mut self, count: u32) {
        for number in 0..count {
            self.registry.logout(&request(number).alias).await.expect("Redis");
        }
        for number in 0..NODES {
            self.finish_hung_up(number).await;
        }
    }

    /// Nothing rings in this cluster: what was asked to hang up has done so.
    pub async fn finish_hung_up(&mut self, number: u64) {
        let recorded = self.pulse(number).await.recorded;
        let unwanted = |state| state == RecordedState::HangupRequested;
        let outcomes: Vec<_> = recorded
            .into_iter()
            .filter(|(_, state)| unwanted(*state))
            .map(|(id, _)| (id, Outcome::Ended(Reason::LoggedOut)))
            .collect();
        self.report(number, outcomes).await;
    }

    pub async fn report(&mut self, number: u64, outcomes: Vec<(SessionId, Outcome)>) {
        let mut rest = &outcomes[..];
        while !rest.is_empty() {
            let results =
                self.registry.report(&name(number), life(number), NodeState::Active, rest).await.expect("Redis");
            rest = &rest[results.len()..];
        }
    }

    pub async fn take(&mut self, most: usize) -> usize {
        let asked = self.fetches.ask();
        let taken = self.registry.fetch_orders(&name(FIRST), life(FIRST), asked, most).await.expect("Redis");
        self.fetches.hear();
        taken.len()
    }

    pub async fn watch(&mut self) {
        self.ask(&["SLOWLOG", "RESET"]).await;
        self.meter.take();
    }

    /// The calls since [`Self::watch`] of the script that the row is named after.
    pub async fn row(&mut self, row: &'static str) {
        type Entry = (u64, u64, u64, Vec<redis::Value>);
        let script = row.split([' ', ',']).nth(1).expect("script NAME");
        let hash = self.hashes.get(script).unwrap_or_else(|| panic!("{row}: there is no script {script}"));
        let costs = self.meter.take().into_iter().filter(|(which, _)| which == hash).map(|(_, cost)| cost).collect();
        let log: Vec<Vec<redis::Value>> =
            redis::cmd("SLOWLOG").arg("GET").arg("-1").query_async(&mut self.raw).await.expect("Redis");
        let read = |entry: Vec<redis::Value>| -> Entry {
            redis::from_redis_value(redis::Value::Array(entry.into_iter().take(4).collect())).expect("an entry")
        };
        let is_it = |entry: &Entry| {
            let second = entry.3.get(1).map(redis::from_redis_value_ref::<String>);
            second.is_some_and(|word| word.as_ref() == Ok(hash))
        };
        // The newest comes first.
        let log = log.into_iter().rev().map(read).filter(is_it).map(|entry| entry.2 as f64).collect();
        let calls = self.measured.entry(row).or_default();
        Calls::add(&mut calls.on_core, costs);
        Calls::add(&mut calls.by_clock, log);
        assert!(calls.longest().0 > 0.0, "{row}: it did not run");
    }
}
