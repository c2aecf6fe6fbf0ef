//! A throwaway Redis with made-up nodes, for the tests of the registry.
//!
//! Owns the settings, the connections and the short words by which a test speaks to the registry. Must never know what
//! a script does: it uses the typed calls, and plain Redis commands to look behind them.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper that fails ends the test, and says why"
)]

use std::fmt::Debug;
use std::io::Write as _;
use std::str::FromStr;

use evenring::config::{NodeSettings, Settings};
use evenring::ids::{Alias, Extension, Generation, NodeName, Now, SessionId};
use evenring::node::NodeState;
use evenring::node::roster::{PhoneChanges, PhoneState};
use evenring::node::session::{Class, Outcome, Reason};
use evenring::registry::view::{NodeRow, Parsed, Placement, SessionRow, SessionState, Which, reason_text};
use evenring::registry::{
    FetchSequence, HeartbeatReply, HeartbeatSequence, LoginRequest, Order, Registered, Registry, RegistryError,
};
use redis::aio::MultiplexedConnection;

use crate::lab::redis::Redis;

/// The namespace of every test.
pub const NS: &str = "{evenring}";

/// An id that is known to be one.
pub fn id<T: FromStr<Err: Debug>>(text: &str) -> T {
    text.parse().unwrap_or_else(|error| panic!("{text:?}: {error:?}"))
}

/// The session with this number.
pub fn session(number: u64) -> SessionId {
    SessionId::from_bits(number)
}

/// The settings with this Redis and these lines of TOML.
pub fn settings(url: &str, toml: &str) -> Settings {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    writeln!(file, "redis.url = {url:?}\nnode.name = \"test\"\n{toml}").expect("write the settings");
    Settings::load(Some(file.path()), std::iter::empty()).expect("settings")
}

/// A login of a local agent.
pub fn login(alias: &str, agent: &str) -> LoginRequest {
    let agent = (!agent.is_empty()).then(|| id(agent));
    LoginRequest { alias: id(alias), agent, campaign: None, class: Class::Local, moves: false, hold: None }
}

/// A node as it registers.
pub fn node(name: &str) -> NodeSettings {
    NodeSettings { name: id(name), weight: 1, max_agents: None, campaigns: Vec::new(), sip: None, address: None }
}

/// Phones in this state, as the whole list of a node.
pub fn phones<'a>(state: PhoneState, extensions: impl IntoIterator<Item = &'a str>) -> PhoneChanges {
    PhoneChanges { replace: true, phones: extensions.into_iter().map(|text| (id(text), state)).collect() }
}

/// `cc100`, `cc101`, …
pub fn extensions(count: usize) -> Vec<String> {
    (100..100 + count).map(|number| format!("cc{number}")).collect()
}

/// Limits that only the test of a limit may meet.
const PATIENT: [(&str, &str); 3] =
    [("placement.lease", "60s"), ("redis.connect_timeout", "10s"), ("redis.response_timeout", "10s")];

/// A Redis and how to reach it.
#[derive(Debug)]
pub struct Cluster {
    /// The server.
    pub redis: Redis,
    /// One connection for the test itself.
    pub registry: Registry,
    /// A plain one.
    pub raw: MultiplexedConnection,
    /// Numbers for all heartbeats of all nodes.
    pub beats: HeartbeatSequence,
    /// Numbers for all takes of all nodes.
    pub fetches: FetchSequence,
    toml: String,
    sessions: u64,
}

impl Cluster {
    /// With settings that a slow machine does not trip over.
    pub async fn start() -> Self {
        Self::with("").await
    }

    /// With these settings beside those.
    pub async fn with(toml: &str) -> Self {
        Self::on(Redis::start(), toml).await
    }

    /// The same on this server.
    pub async fn on(redis: Redis, toml: &str) -> Self {
        let missing = PATIENT.into_iter().filter(|(key, _)| !toml.contains(key));
        let patient: Vec<String> = missing.map(|(key, value)| format!("{key} = '{value}'")).collect();
        let toml = format!("{}\n{toml}", patient.join("\n"));
        let registry = Registry::new(&settings(&redis.url(), &toml)).expect("a registry");
        let raw = connect(&redis).await;
        Self {
            redis,
            registry,
            raw,
            beats: HeartbeatSequence::default(),
            fetches: FetchSequence::default(),
            toml,
            sessions: 0,
        }
    }

    /// One more registry, with a connection of its own.
    pub fn another(&self) -> Registry {
        Registry::new(&settings(&self.redis.url(), &self.toml)).expect("a registry")
    }

    /// One more registry with `rejoin = "auto"`.
    pub fn auto(&self) -> Registry {
        let toml = format!("{}\nplacement.rejoin = 'auto'", self.toml);
        Registry::new(&settings(&self.redis.url(), &toml)).expect("a registry")
    }

    /// Registers a node of weight 1 without limits that is active and has these phones.
    pub async fn up(&mut self, name: &str, extensions: &[&str]) -> Member {
        self.up_as(node(name), extensions).await
    }

    /// The same for any settings of a node. Its generation is one that nobody had before.
    pub async fn up_as(&mut self, node: NodeSettings, extensions: &[&str]) -> Member {
        self.sessions += 1;
        let member = Member { name: node.name.clone(), generation: Generation::from_bits(self.sessions) };
        let taken = self.registry.register(&node, member.generation, "host").await.expect("register");
        previous(taken);
        let changes = phones(PhoneState::Registered, extensions.iter().copied());
        self.registry.phones(&member.name, member.generation, &changes).await.expect("phones");
        self.beat(&member).await;
        member
    }

    /// A heartbeat of an active node; what it ended for others.
    pub async fn beat(&mut self, member: &Member) -> Vec<(String, String, String)> {
        let beat = self.registry.heartbeat(
            &member.name,
            member.generation,
            (NodeState::Active, 0, 1),
            (&mut self.beats, Now::default()),
        );
        reaped(beat.await.expect("heartbeat"))
    }

    /// A session id that nobody had before.
    pub fn fresh(&mut self) -> SessionId {
        self.sessions += 1;
        session(self.sessions)
    }

    /// Places a login with a new session id.
    pub async fn place(&mut self, request: &LoginRequest) -> Placement {
        let id = self.fresh();
        self.registry.place(request, id).await.expect("place")
    }

    /// Places a login that must succeed; its session.
    pub async fn placed(&mut self, alias: &str, agent: &str) -> (SessionId, String) {
        let placement = self.place(&login(alias, agent)).await;
        assert!(placement.state.is(SessionState::Placed), "{placement:?}");
        (placement.session.expect("a session"), placement.node)
    }

    /// Fetches this node's orders.
    pub async fn take(&mut self, member: &Member) -> Vec<Order> {
        let asked = self.fetches.ask();
        let taken = self.registry.fetch_orders(&member.name, member.generation, asked, 5000).await.expect("take");
        self.fetches.hear();
        taken.into_iter().map(|taken| taken.order).collect()
    }

    /// Reports one outcome.
    pub async fn report(&mut self, member: &Member, id: SessionId, outcome: Outcome) -> String {
        let told = [(id, outcome)];
        let report = self.registry.report(&member.name, member.generation, NodeState::Active, &told);
        let results = report.await.expect("report");
        results.first().expect("one result").to_string()
    }

    /// One session as it stands.
    pub async fn row(&mut self, id: SessionId) -> SessionRow {
        let rows = self.registry.sessions(Which::One(id)).await.expect("sessions");
        rows.into_iter().next().unwrap_or_else(|| panic!("no session {id}"))
    }

    /// State and reason of a session.
    pub async fn fate(&mut self, id: SessionId) -> (String, String) {
        let row = self.row(id).await;
        (row.state.to_string(), reason_text(row.reason.as_ref()))
    }

    /// One node as it stands.
    pub async fn node(&mut self, name: &str) -> NodeRow {
        let rows = self.registry.nodes().await.expect("nodes");
        rows.into_iter().find(|row| row.name == name).unwrap_or_else(|| panic!("no node {name}"))
    }

    /// A plain command whose answer matters not, or is read as `T`.
    pub async fn run<T: redis::FromRedisValue>(&mut self, words: &[&str]) -> T {
        let mut command = redis::cmd(words[0]);
        for word in &words[1..] {
            command.arg(word.replace("NS", NS));
        }
        command.query_async(&mut self.raw).await.unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    /// As if a node's host had died long ago, while the others beat.
    pub async fn lapse(&mut self, name: &str) {
        let key = format!("NS:node:{name}");
        self.run::<u64>(&["HSET", &key, "lease_until", "1000", "beat", "-1000000000"]).await;
        self.run::<u64>(&["HSET", "NS:judge", "floor", "-2000000000"]).await;
    }

    /// As if nobody had beaten for `ms`, because Redis was away: all that it knows of time is that much older.
    pub async fn silence(&mut self, ms: u64) {
        for name in self.run::<Vec<String>>(&["SMEMBERS", "NS:index:nodes"]).await {
            self.run::<i64>(&["HINCRBY", &format!("NS:node:{name}"), "lease_until", &format!("-{ms}")]).await;
        }
        self.run::<i64>(&["HINCRBY", "NS:judge", "seen", &format!("-{ms}")]).await;
    }

    /// The flag alone, as if it had been set while the node was just taking its orders.
    pub async fn drain(&mut self, name: &str, drain: bool) {
        let key = format!("NS:node:{name}");
        self.run::<u64>(&["HSET", &key, "drain", if drain { "1" } else { "0" }]).await;
    }

    /// Makes an explicit alias of `extension@node` words.
    pub async fn alias(&mut self, alias: &str, places: &[&str]) {
        let alias: Alias = id(alias);
        let split = |place: &&str| {
            let (extension, node) = place.split_once('@').expect("extension@node");
            (id::<Extension>(extension), id::<NodeName>(node))
        };
        let places: Vec<_> = places.iter().map(split).collect();
        self.registry.set_aliases([(&alias, places)]).await.expect("set alias");
    }
}

/// A plain connection.
pub async fn connect(redis: &Redis) -> MultiplexedConnection {
    let client = redis::Client::open(redis.url()).expect("a client");
    client
        .get_multiplexed_async_connection_with_config(
            &redis::AsyncConnectionConfig::new().set_response_timeout(Some(std::time::Duration::from_secs(30))),
        )
        .await
        .expect("a connection")
}

/// A node that is up: what its daemon knows of itself.
#[derive(Debug, Clone)]
pub struct Member {
    /// Its name.
    pub name: NodeName,
    /// Its life.
    pub generation: Generation,
}

/// The outcome that makes Redis try the next node.
pub fn cannot() -> Outcome {
    Outcome::TryNextNode(Reason::NotReachable)
}

/// Whose the name was that has been taken.
pub fn previous(registered: Registered) -> Option<Generation> {
    match registered {
        Registered::Taken { previous } => previous,
        Registered::Held { by, left } => panic!("{by} holds the name for {left:?}"),
    }
}

/// What a heartbeat settled for others: session, node and result.
pub fn reaped(beat: HeartbeatReply) -> Vec<(String, String, String)> {
    beat.reaped.into_iter().map(|row| (row.session, row.node, row.result.to_string())).collect()
}

/// Why a login was refused, or the session is over.
pub fn why(placement: &Placement) -> String {
    reason_text(placement.reason.as_ref())
}

/// Why each node was refused.
pub fn whys(placement: &Placement) -> Vec<(&str, &str)> {
    placement.nodes.iter().map(|row| (row.name.as_str(), row.reason.as_ref().map_or("", Parsed::as_str))).collect()
}

/// A word for the error of a call that must fail.
pub fn word<T: Debug>(result: Result<T, RegistryError>) -> &'static str {
    match result.expect_err("this must be refused") {
        RegistryError::Settings(_) => "settings",
        RegistryError::Unreachable { .. } => "unreachable",
        RegistryError::Denied { .. } => "denied",
        RegistryError::Lacks { .. } => "lacks",
        RegistryError::NotWritable { .. } => "not-writable",
        RegistryError::Unfit { .. } => "unfit",
        RegistryError::Fenced => "fenced",
        RegistryError::Superseded => "superseded",
        RegistryError::Forgotten => "forgotten",
        RegistryError::NotNow { .. } => "not-now",
        RegistryError::Script { .. } => "script",
    }
}
