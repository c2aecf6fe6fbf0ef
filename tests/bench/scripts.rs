//! How long each script holds Redis in a large cluster: 200 nodes, 20,000 sessions, 100,000 phones. The real scripts, called as
//! the daemons and the command line call them.
//!
//! Owns the cluster that is looked at and its rows. What a row shows is the longest call of all that its work took, in Redis's
//! time on its core; beside it what Redis itself says (SLOWLOG), in which the machine's other work is, too.

use std::path::Path;
use std::time::{Duration, Instant};

use evenring::config::{NodeSettings, Settings};
use evenring::daemon::new_session;
use evenring::ids::{Generation, NodeName, Now, SessionId};
use evenring::node::roster::{PhoneChanges, PhoneState};
use evenring::node::session::{Class, Login, Outcome, Reason};
use evenring::node::{Duty, Live, NodeState};
use evenring::registry::view::{Verdict, Which};
use evenring::registry::{ADOPT_MOST, Beat, Beats, LoginRequest, Registry, Takes};
use redis::aio::MultiplexedConnection;

use crate::harness::{Bench, Reach, now};
use crate::lab::redis::Redis;
use crate::meter::Meter;

const NODES: u64 = 200;
/// On every node the same.
const PHONES: u32 = 500;
/// On each node.
const SESSIONS: u64 = 100;
/// Orders that wait in one node's queue.
const ORDERS: u32 = 300;
/// The first node: it gets the orders.
const FIRST: u64 = 0;
const REACH: Reach = Reach::AtMost(5_000.0);

pub fn rows(bench: &mut Bench) {
    const NAMES: [&str; 18] = [
        "script place, 200 nodes",
        "script explain, 200 nodes",
        "script receive and settle, 64 logins, 200 nodes",
        "script take, 64 orders",
        "script report, 200 live",
        "script report, 200 that could not ring, 200 nodes",
        "script report, 200 lost with rejoin, 200 nodes",
        "script adopt, 200 sessions",
        "script heartbeat, 200 nodes",
        "script heartbeat, a lost node with 300 orders and 100 calls",
        "script drain, 300 orders, 200 nodes",
        "script leave, 300 orders, 200 nodes",
        "script line, 1,000 come and go",
        "script sessions, 20,000 open and 20,000 over",
        "script status, 200 nodes",
        "script phones, 20,000 of one node told again",
        "script contacts, 20,000 of one node told again",
        "script logout",
    ];
    if !NAMES.iter().any(|name| bench.wants(name)) {
        return;
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut large = Large::new().await;
        let measured = [
            large.places().await,
            large.settles().await,
            large.takes_and_reports().await,
            large.lost_calls().await,
            large.beats().await,
            large.goes().await,
            large.lines().await,
            large.shows().await,
            large.tables().await,
        ];
        let measured: Measured = measured.into_iter().flatten().collect();
        for name in NAMES {
            let pairs: Vec<Longest> =
                measured.iter().filter(|(what, _)| *what == name).map(|(_, longest)| *longest).collect();
            assert!(!pairs.is_empty(), "{name} was not measured");
            bench.add(name, "us", REACH, &pairs);
        }
    });
}

/// The longest call: on the core, and by the clock.
type Longest = (f64, f64);
type Measured = Vec<(&'static str, Longest)>;

struct Large {
    registry: Registry,
    raw: MultiplexedConnection,
    settings: Settings,
    takes: Takes,
    beats: Beats,
    begin: Instant,
    meter: Meter,
    _redis: Redis,
    _dir: tempfile::TempDir,
}

fn name(number: u64) -> NodeName {
    format!("n{number:03}").parse().expect("a node name")
}

fn life(number: u64) -> Generation {
    Generation::from_bits(number)
}

fn request(number: u32) -> LoginRequest {
    let alias = format!("cc{}x", 100 + number).parse().expect("an alias");
    LoginRequest { alias, agent: None, campaign: None, class: Class::Local }
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
    async fn new() -> Self {
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
            raw,
            settings,
            takes: Takes::default(),
            beats: Beats::default(),
            begin: now(),
            meter,
            _redis: redis,
            _dir: dir,
        };
        large.ask(&["CONFIG", "SET", "slowlog-log-slower-than", "0"]).await;
        large.ask(&["CONFIG", "SET", "slowlog-max-len", "1000000"]).await;
        for number in 0..NODES {
            large.join(number).await;
            let found: Vec<_> = (0..SESSIONS)
                .map(|k| (login((number + 1) << 16 | k, &format!("old{number}-{k}")), Live::Yes))
                .collect();
            large.registry.adopt(&name(number), life(number), &found).await.expect("Redis");
        }
        large
    }

    async fn ask(&mut self, words: &[&str]) -> redis::Value {
        redis::cmd(words[0]).arg(&words[1..]).query_async(&mut self.raw).await.expect("Redis")
    }

    async fn join(&mut self, number: u64) {
        // The first one takes all logins: it has a share that nobody else has.
        let weight = if number == FIRST { 1_000 } else { 1 };
        let node = NodeSettings { name: name(number), weight, ..self.settings.node.clone() };
        self.registry.register(&node, life(number), "bench").await.expect("Redis").expect("a free name");
        let extension = |n: u32| format!("cc{}", 100 + n).parse().expect("an extension");
        let phones = (0..PHONES).map(|n| (extension(n), PhoneState::Registered)).collect();
        let changes = PhoneChanges { replace: true, phones };
        self.registry.phones(&name(number), life(number), &changes).await.expect("Redis");
        self.beat(number).await;
    }

    async fn pulse(&mut self, number: u64) -> Beat {
        let (how, now) = ((NodeState::Active, 0, PHONES as usize), Now(self.begin.elapsed()));
        let beat = self.registry.heartbeat(&name(number), life(number), how, (&mut self.beats, now)).await;
        beat.expect("Redis")
    }

    async fn beat(&mut self, number: u64) -> usize {
        self.pulse(number).await.reaped.len()
    }

    /// Puts orders into the queue of the first node.
    async fn order(&mut self, count: u32) -> Vec<SessionId> {
        let mut sessions = Vec::new();
        for number in 0..count {
            let placement = self.registry.place(&request(number), new_session()).await.expect("Redis");
            assert_eq!((placement.verdict, placement.node.as_str()), (Verdict::Placed, "n000"), "{placement:?}");
            sessions.extend(placement.session);
        }
        sessions
    }

    /// Ends what [`Self::order`] began, wherever it is.
    async fn call_off(&mut self, count: u32) {
        for number in 0..count {
            self.registry.logout(&request(number).alias).await.expect("Redis");
        }
        for number in 0..NODES {
            self.finish_hung_up(number).await;
        }
    }

    /// Nothing rings in this cluster: what was asked to hang up has done so.
    async fn finish_hung_up(&mut self, number: u64) {
        let books = self.pulse(number).await.books;
        let unwanted = |state| state == evenring::node::BookedState::Unwanted;
        let outcomes: Vec<_> = books
            .into_iter()
            .filter(|(_, state)| unwanted(*state))
            .map(|(id, _)| (id, Outcome::Ended(Reason::LoggedOut)))
            .collect();
        self.report(number, outcomes).await;
    }

    async fn report(&mut self, number: u64, outcomes: Vec<(SessionId, Outcome)>) {
        let mut rest = &outcomes[..];
        while !rest.is_empty() {
            let results =
                self.registry.report(&name(number), life(number), NodeState::Active, rest).await.expect("Redis");
            rest = &rest[results.len()..];
        }
    }

    async fn take(&mut self, most: usize) -> usize {
        let asked = self.takes.ask();
        let taken = self.registry.take(&name(FIRST), life(FIRST), asked, most).await.expect("Redis");
        self.takes.hear();
        taken.len()
    }

    async fn watch(&mut self) {
        self.ask(&["SLOWLOG", "RESET"]).await;
        self.meter.take();
    }

    /// The longest call of a script since [`Self::watch`], in us.
    async fn longest(&mut self) -> Longest {
        type Entry = (u64, u64, u64, Vec<redis::Value>);
        let costs = self.meter.take();
        let log: Vec<Vec<redis::Value>> =
            redis::cmd("SLOWLOG").arg("GET").arg("-1").query_async(&mut self.raw).await.expect("Redis");
        let read = |entry: Vec<redis::Value>| -> Entry {
            redis::from_redis_value(redis::Value::Array(entry.into_iter().take(4).collect())).expect("an entry")
        };
        let is_script = |entry: &Entry| {
            let word: String = redis::from_redis_value_ref(&entry.3[0]).unwrap_or_default();
            word.eq_ignore_ascii_case("evalsha")
        };
        let by_clock = log.into_iter().map(read).filter(is_script).map(|entry| entry.2).max().expect("a script ran");
        (costs.into_iter().fold(0.0, f64::max), by_clock as f64)
    }

    async fn places(&mut self) -> Measured {
        self.watch().await;
        self.order(ORDERS).await;
        let placed = self.longest().await;
        self.watch().await;
        for number in 0..20 {
            self.registry.explain(&request(ORDERS + number), new_session()).await.expect("Redis");
        }
        let explained = self.longest().await;
        self.watch().await;
        self.call_off(ORDERS).await;
        let called_off = self.longest().await;
        vec![
            ("script place, 200 nodes", placed),
            ("script explain, 200 nodes", explained),
            ("script logout", called_off),
        ]
    }

    async fn settles(&mut self) -> Measured {
        for number in 0..64 {
            let (id, body) = (format!("{number:032}"), format!(r#"{{"alias":"cc{}x","reply":"web-1"}}"#, 100 + number));
            self.ask(&["ZADD", "{evenring}:logins", "1", &id]).await;
            self.ask(&["HSET", "{evenring}:logins:Q", &id, &body]).await;
        }
        self.watch().await;
        let messages = self.registry.receive_logins(64, None).await.expect("Redis").messages;
        let mut rest = &messages[..];
        while !rest.is_empty() {
            rest = &rest[self.registry.settle_logins(rest).await.expect("Redis").len()..];
        }
        let settled = self.longest().await;
        self.call_off(64).await;
        vec![("script receive and settle, 64 logins, 200 nodes", settled)]
    }

    async fn takes_and_reports(&mut self) -> Measured {
        let sessions = self.order(200).await;
        self.watch().await;
        while self.take(64).await > 0 {}
        let taken = self.longest().await;
        self.watch().await;
        self.report(FIRST, sessions.iter().map(|id| (*id, Outcome::Live)).collect()).await;
        let live = self.longest().await;
        self.call_off(200).await;
        let sessions = self.order(200).await;
        while self.take(64).await > 0 {}
        self.watch().await;
        self.report(FIRST, sessions.iter().map(|id| (*id, Outcome::Cannot(Reason::NotReachable))).collect()).await;
        let could_not = self.longest().await;
        self.call_off(200).await;
        vec![
            ("script take, 64 orders", taken),
            ("script report, 200 live", live),
            ("script report, 200 that could not ring, 200 nodes", could_not),
        ]
    }

    async fn lost_calls(&mut self) -> Measured {
        let sessions = self.order(200).await;
        while self.take(64).await > 0 {}
        self.report(FIRST, sessions.iter().map(|id| (*id, Outcome::Live)).collect()).await;
        self.watch().await;
        self.report(FIRST, sessions.iter().map(|id| (*id, Outcome::Ended(Reason::NodeLost))).collect()).await;
        let lost = self.longest().await;
        self.call_off(200).await;
        let found: Vec<_> = (0..200).map(|k| (login(9 << 40 | k, &format!("new{k}")), Live::Yes)).collect();
        self.watch().await;
        for part in found.chunks(ADOPT_MOST) {
            self.registry.adopt(&name(FIRST), life(FIRST), part).await.expect("Redis");
        }
        let adopted = self.longest().await;
        let over = found.iter().map(|(login, _)| (login.session, Outcome::Ended(Reason::HungUp))).collect();
        self.report(FIRST, over).await;
        vec![("script report, 200 lost with rejoin, 200 nodes", lost), ("script adopt, 200 sessions", adopted)]
    }

    async fn beats(&mut self) -> Measured {
        self.watch().await;
        for number in 0..NODES {
            self.beat(number).await;
        }
        let beat = self.longest().await;
        self.order(ORDERS).await;
        self.ask(&["HSET", "{evenring}:node:n000", "lease_until", "1000", "lost", "1"]).await;
        self.watch().await;
        let mut reaped = 0;
        while reaped < 400 {
            reaped += self.beat(1).await;
        }
        let reaping = self.longest().await;
        self.join(FIRST).await;
        self.call_off(ORDERS).await;
        vec![
            ("script heartbeat, 200 nodes", beat),
            ("script heartbeat, a lost node with 300 orders and 100 calls", reaping),
        ]
    }

    async fn goes(&mut self) -> Measured {
        self.order(ORDERS).await;
        self.watch().await;
        let turned = self.registry.turn(&name(FIRST), Duty::Draining).await.expect("Redis").expect("a node");
        let drained = self.longest().await;
        assert_eq!(turned.moved.len(), ORDERS as usize);
        self.registry.turn(&name(FIRST), Duty::Serving).await.expect("Redis");
        self.call_off(ORDERS).await;
        self.order(ORDERS).await;
        self.watch().await;
        assert_eq!(
            self.registry.leave(&name(FIRST), life(FIRST), &mut self.beats).await.expect("Redis"),
            ORDERS as usize
        );
        let left = self.longest().await;
        self.join(FIRST).await;
        self.call_off(ORDERS).await;
        vec![("script drain, 300 orders, 200 nodes", drained), ("script leave, 300 orders, 200 nodes", left)]
    }

    async fn lines(&mut self) -> Measured {
        let found: Vec<_> = (0..1_000).map(|k| (login(8 << 40 | k, &format!("new{k}")), Live::NotYet)).collect();
        for part in found.chunks(ADOPT_MOST) {
            self.registry.adopt(&name(FIRST), life(FIRST), part).await.expect("Redis");
        }
        let waiting: Vec<_> = found.iter().map(|(login, _)| login.session).collect();
        self.watch().await;
        for line in [&waiting[..], &waiting[500..], &[]] {
            self.registry.line(&name(FIRST), life(FIRST), line).await.expect("Redis");
        }
        let longest = self.longest().await;
        let over = waiting.iter().map(|id| (*id, Outcome::Failed(Reason::NoAnswer))).collect();
        self.report(FIRST, over).await;
        vec![("script line, 1,000 come and go", longest)]
    }

    async fn shows(&mut self) -> Measured {
        let mut over: u64 = 7 << 40;
        while self.over().await < 20_000 {
            let found: Vec<_> = (0..100).map(|k| (login(over + k, &format!("over{k}")), Live::Yes)).collect();
            over += 100;
            self.registry.adopt(&name(FIRST), life(FIRST), &found).await.expect("Redis");
            let ended = found.iter().map(|(login, _)| (login.session, Outcome::Ended(Reason::HungUp))).collect();
            self.report(FIRST, ended).await;
        }
        self.watch().await;
        let rows = self.registry.sessions(Which::All).await.expect("Redis");
        let sessions = self.longest().await;
        assert!(rows.len() > 35_000, "{}", rows.len());
        self.watch().await;
        assert_eq!(self.registry.nodes().await.expect("Redis").len(), NODES as usize);
        let status = self.longest().await;
        vec![("script sessions, 20,000 open and 20,000 over", sessions), ("script status, 200 nodes", status)]
    }

    async fn over(&mut self) -> u64 {
        redis::cmd("ZCARD").arg("{evenring}:index:ended").query_async(&mut self.raw).await.expect("Redis")
    }

    async fn tables(&mut self) -> Measured {
        let extension = |n: u32| format!("big{n}").parse().expect("an extension");
        let phones: Vec<_> = (0..20_000).map(|n| (extension(n), PhoneState::Registered)).collect();
        self.watch().await;
        for _ in 0..3 {
            let changes = PhoneChanges { replace: true, phones: phones.clone() };
            self.registry.phones(&name(1), life(1), &changes).await.expect("Redis");
        }
        let told = self.longest().await;
        let details = r#"{"address":"192.0.2.1:5060","rtt_us":1234}"#;
        let contacts: Vec<_> = (0..20_000).map(|n| (format!("big{n}"), details.to_owned())).collect();
        self.watch().await;
        for _ in 0..3 {
            self.registry.contacts(&name(1), life(1), &contacts).await.expect("Redis");
        }
        let contacts = self.longest().await;
        vec![
            ("script phones, 20,000 of one node told again", told),
            ("script contacts, 20,000 of one node told again", contacts),
        ]
    }
}
