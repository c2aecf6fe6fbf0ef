//! The Redis user that docs/SECURITY.md tells operators to make, on a real Redis: it may do all that the program does, and
//! nothing else.
//!
//! Owns a walk through every call of the registry. Must never hold a rule of its own: the line stands in docs/SECURITY.md.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that fails says why")]

#[path = "../lab/mod.rs"]
mod lab;

use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use evenring::config::{NodeSettings, Settings};
use evenring::ids::{Alias, Generation, NodeName, Now, SessionId};
use evenring::node::roster::{PhoneChanges, PhoneState};
use evenring::node::session::{Class, Login, Outcome, Reason};
use evenring::node::{AdminState, Live, NodeState};
use evenring::registry::events::{Cursor, NewEvent};
use evenring::registry::inspect::NEEDED;
use evenring::registry::view::{Placement, Verdict, Which};
use evenring::registry::{
    Adopted, Fetch, Forgotten, HeartbeatSequence, LoggedOut, LoginRequest, Order, Registered, Registry, Settled,
};
use lab::redis::{Program, Redis};
use redis::{ErrorKind, ServerErrorKind};

/// The life of every daemon here.
fn life() -> Generation {
    Generation::from_bits(1)
}

fn file(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect(path)
}

/// The one line of docs/SECURITY.md that makes the user.
fn line() -> String {
    let readme = file("docs/SECURITY.md");
    let lines: Vec<&str> = readme.lines().filter(|line| line.starts_with("user evenring ")).collect();
    assert_eq!(lines.len(), 1, "docs/SECURITY.md has one line that makes the Redis user: {lines:?}");
    lines[0].to_owned()
}

/// A Redis with that user, and with the default user for what an administrator does.
struct House {
    redis: Redis,
    password: String,
}

impl House {
    fn start(program: Program) -> Self {
        let line = line();
        let user = line.strip_prefix("user ").unwrap();
        let everybody = ["--user", "default", "on", "nopass", "~*", "&*", "+@all", "--user"];
        let users: Vec<&str> = everybody.into_iter().chain(user.split(' ')).collect();
        let redis = Redis::start_program(program, Ipv4Addr::LOCALHOST, &users);
        let password = line.split(' ').find_map(|word| word.strip_prefix('>')).expect("a password").to_owned();
        Self { redis, password }
    }

    fn registry(&self) -> Registry {
        let toml = format!(
            "node.name = \"tel-1\"\nplacement.lease = \"1m\"\n[redis]\nurl = \"{}\"\nusername = \"evenring\"\n\
             password = \"{}\"\n",
            self.redis.url(),
            self.password
        );
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), toml).unwrap();
        Registry::new(&Settings::load(Some(file.path()), std::iter::empty()).unwrap()).unwrap()
    }

    fn connect(&self, credentials: &str) -> redis::Connection {
        let client = redis::Client::open(format!("redis://{credentials}{}", self.redis.address())).unwrap();
        client.get_connection().unwrap()
    }

    fn admin(&self, words: &[&str]) -> redis::Value {
        query(&mut self.connect(""), words).unwrap()
    }
}

fn query(connection: &mut redis::Connection, words: &[&str]) -> Result<redis::Value, redis::RedisError> {
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]);
    command.query(connection)
}

fn node(name: &str) -> NodeName {
    name.parse().unwrap()
}

async fn join(registry: &mut Registry, name: &str) {
    let settings =
        NodeSettings { name: node(name), weight: 1, max_agents: None, campaigns: Vec::new(), sip: None, address: None };
    let registered = registry.register(&settings, life(), "host").await.unwrap();
    assert!(matches!(registered, Registered::Taken { .. }), "{registered:?}");
    let phones = (100..110).map(|n| (format!("cc{n}").parse().unwrap(), PhoneState::Registered)).collect();
    registry.phones(&node(name), life(), &PhoneChanges { replace: true, phones }).await.unwrap();
    beat(registry, name).await;
}

async fn beat(registry: &mut Registry, name: &str) -> usize {
    registry
        .heartbeat(&node(name), life(), (NodeState::Active, 0, 10), (&mut HeartbeatSequence::default(), Now::default()))
        .await
        .unwrap()
        .reaped
        .len()
}

fn request(alias: &str) -> LoginRequest {
    LoginRequest {
        alias: alias.parse().unwrap(),
        agent: None,
        campaign: None,
        class: Class::Local,
        moves: false,
        hold: None,
    }
}

async fn place(registry: &mut Registry, alias: &str, session: u64) -> Placement {
    let placement = registry.place(&request(alias), SessionId::from_bits(session)).await.unwrap();
    assert_eq!(placement.verdict, Verdict::Placed, "{placement:?}");
    placement
}

async fn take(registry: &mut Registry, name: &str) -> Vec<Order> {
    registry
        .fetch_orders(&node(name), life(), Fetch { number: 1, since: 1 }, 10)
        .await
        .unwrap()
        .into_iter()
        .map(|taken| taken.order)
        .collect()
}

async fn report(registry: &mut Registry, name: &str, session: u64, outcome: Outcome) -> String {
    let told = [(SessionId::from_bits(session), outcome)];
    registry.report(&node(name), life(), NodeState::Active, &told).await.unwrap().remove(0).to_string()
}

async fn a_login(registry: &mut Registry) {
    let would = registry.explain(&request("cc100x"), SessionId::from_bits(1)).await.unwrap();
    assert_eq!(would.verdict, Verdict::WouldPlace);
    let first = place(registry, "cc100x", 1).await.node;
    let second = if first == "tel-1" { "tel-2" } else { "tel-1" };
    let _wake_ups = registry.subscribe_orders(&node(&first)).await.unwrap();
    let _news = registry.subscribe_session(SessionId::from_bits(1)).await.unwrap();
    assert!(matches!(take(registry, &first).await[..], [Order::Ring(_)]));
    let cannot = Outcome::TryNextNode(Reason::NotReachable);
    assert_eq!(report(registry, &first, 1, cannot).await, format!("placed {second}"));
    let orders = take(registry, second).await;
    let [Order::Ring(login)] = &orders[..] else { panic!("{orders:?}") };
    assert_eq!(report(registry, second, 1, Outcome::Live).await, "done");
    let lost = Login {
        session: SessionId::from_bits(2),
        alias: "cc101x".parse().unwrap(),
        extension: "cc101".parse().unwrap(),
        agent: "cc101".parse().unwrap(),
        ..login.clone()
    };
    let found = [(login.clone(), Live::Yes), (lost, Live::Yes)];
    let adopted = registry.adopt(&node(second), life(), &found).await.unwrap();
    assert_eq!(adopted, [Adopted::Kept, Adopted::Restored]);
    assert_eq!(registry.sessions(Which::Open).await.unwrap().len(), 2);
    let who = "cc100x".parse::<Alias>().unwrap();
    assert!(matches!(registry.logout(&who).await.unwrap(), LoggedOut::Asked(_, _)));
    assert!(matches!(take(registry, second).await[..], [Order::HangUp(_)]));
    assert_eq!(report(registry, second, 1, Outcome::Ended(Reason::LoggedOut)).await, "done");
    assert_eq!(registry.sessions(Which::One(SessionId::from_bits(1))).await.unwrap().len(), 1);
    assert_eq!(registry.sessions(Which::All).await.unwrap().len(), 2);
}

async fn nodes_that_go(house: &House, registry: &mut Registry) {
    for name in ["tel-1", "tel-2"] {
        take(registry, name).await;
    }
    join(&mut house.registry(), "gone").await;
    for (alias, phone) in [("desk1", "cc105@gone"), ("desk2", "cc106@tel-2"), ("desk3", "cc107@tel-2")] {
        let (extension, name) = phone.split_once('@').unwrap();
        registry
            .set_aliases([(&alias.parse().unwrap(), vec![(extension.parse().unwrap(), node(name))])])
            .await
            .unwrap();
    }
    assert_eq!(registry.aliases().await.unwrap().len(), 3);
    place(registry, "desk1", 11).await;
    house.admin(&["HSET", "{evenring}:node:gone", "lease_until", "0", "expired", "1"]);
    assert_eq!(beat(registry, "tel-1").await, 1, "a survivor ends what is left of the node that is gone");
    place(registry, "desk2", 12).await;
    place(registry, "desk3", 13).await;
    let who = "desk3".parse::<Alias>().unwrap();
    assert!(matches!(registry.logout(&who).await.unwrap(), LoggedOut::Ended(_, _)));
    assert_eq!(registry.remove_aliases([who.as_str()]).await.unwrap(), 1);
    registry.set_aliases([(&"desk2".parse().unwrap(), vec![("cc108".parse().unwrap(), node("tel-1"))])]).await.unwrap();
    let drained = registry.set_admin_state(&node("tel-2"), AdminState::Drain).await.unwrap().unwrap();
    assert_eq!(drained.moved.len(), 1);
    let limits = NodeSettings {
        name: node("tel-1"),
        weight: 2,
        max_agents: Some(9),
        campaigns: Vec::new(),
        sip: None,
        address: None,
    };
    registry.limits(&limits, life()).await.unwrap();
    let resumed = registry.set_admin_state(&node("tel-2"), AdminState::Ready).await.unwrap().unwrap();
    assert_eq!(resumed.before, AdminState::Drain);
    assert_eq!(registry.leave(&node("tel-2"), life(), &mut HeartbeatSequence::default()).await.unwrap(), 0);
    assert!(matches!(take(registry, "tel-1").await[..], [Order::Ring(_)]), "the order has moved");
    assert_eq!(registry.nodes().await.unwrap().len(), 3);
    registry.report_ring_queue(&node("tel-1"), life(), &[SessionId::from_bits(12)]).await.unwrap();
    let queued = registry.sessions(Which::One(SessionId::from_bits(12))).await.unwrap().remove(0);
    assert_eq!((queued.state.as_str(), queued.queue_position), ("queued", Some(1)));
    assert!(matches!(registry.forget(&node("tel-1")).await.unwrap(), Forgotten::Alive(_)));
    assert_eq!(registry.forget(&node("gone")).await.unwrap(), Forgotten::Yes);
}

async fn the_inbox(house: &House, registry: &mut Registry) {
    for (id, body) in [("good", r#"{"alias":"cc103x","reply":"web-1"}"#), ("none", "{}")] {
        house.admin(&["HSET", "{evenring}:logins:Q", id, body]);
        house.admin(&["ZADD", "{evenring}:logins", "0", id]);
    }
    let received = registry.receive_logins(10, Some((&node("tel-1"), Duration::from_secs(60)))).await.unwrap();
    assert!(received.listens);
    let _wake_ups = registry.subscribe_logins().await.unwrap();
    let settled = registry.settle_logins(&received.messages).await.unwrap();
    assert!(matches!(settled[..], [Settled::Placed(_), Settled::NoLogin]), "{settled:?}");
    assert_eq!(house.admin(&["ZCARD", "{evenring}:web-1"]), redis::Value::Int(1), "the sender has its answer");
}

async fn the_story(registry: &mut Registry) {
    let told = [NewEvent { event: "drift", session: None, reason: "repaired".to_owned() }];
    registry.append_events(&node("tel-1"), life(), 1, &told).await.unwrap();
    let minute = Duration::from_secs(60);
    let begins = registry.keepalive_begins(&node("tel-1"), life(), minute, "gone").await.unwrap();
    assert_eq!(begins, None);
    registry.keepalive_ended(&node("tel-1"), life(), "exit status: 0").await.unwrap();
    let again = registry.keepalive_begins(&node("tel-1"), life(), minute, "gone").await.unwrap();
    assert!(again.is_some_and(|left| left <= minute && left > minute / 2), "{again:?}");
    let mut place = Cursor::start();
    let events = registry.events(&mut place, None).await.unwrap();
    let reasons: Vec<&str> = events.iter().rev().take(3).map(|entry| entry.reason.as_str()).collect();
    assert_eq!(reasons, ["exit status: 0", "gone", "repaired"]);
    assert_eq!(registry.events(&mut place, Some(Duration::from_millis(1))).await.unwrap(), []);
    assert_eq!(registry.take_mute(), None);
}

async fn phones(registry: &mut Registry) {
    let changes = PhoneChanges { replace: false, phones: vec![("cc109".parse().unwrap(), PhoneState::Unknown)] };
    registry.phones(&node("tel-1"), life(), &changes).await.unwrap();
    registry.contacts(&node("tel-1"), life(), &[("cc100".to_owned(), "{}".to_owned())]).await.unwrap();
    let list = registry.phone_list(Some(&"cc100".parse().unwrap())).await.unwrap();
    assert!(list.iter().any(|row| row.node == "tel-1" && row.contact.is_some()), "{list:?}");
    assert!(registry.now_ms().await.unwrap() > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_user_may_do_all_that_the_program_does() {
    all(House::start(Program::Redis)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_user_may_do_all_that_the_program_does_on_valkey() {
    let house = House::start(Program::Valkey);
    let text: String = redis::from_redis_value(house.admin(&["INFO", "server"])).unwrap();
    assert!(text.contains("valkey_version"), "{text}");
    all(house).await;
}

async fn all(house: House) {
    let mut registry = house.registry();
    // A daemon each.
    join(&mut house.registry(), "tel-1").await;
    join(&mut house.registry(), "tel-2").await;
    a_login(&mut registry).await;
    the_inbox(&house, &mut registry).await;
    phones(&mut registry).await;
    the_story(&mut registry).await;
    nodes_that_go(&house, &mut registry).await;
    assert_eq!(house.admin(&["ACL", "LOG"]), redis::Value::Array(Vec::new()), "Redis has denied something");
}

/// Who may look at the server, and what a user lacks or has too much of, in the registry's own words.
#[tokio::test(flavor = "multi_thread")]
async fn the_registry_knows_what_its_user_may_do() {
    let house = House::start(Program::Redis);
    let own = house.registry().rights().await.unwrap();
    assert_eq!((own.missing, own.excess), (Vec::new(), Vec::new()));
    assert_eq!(house.registry().server().await.unwrap(), None, "that is not in the line");
    assert_eq!(house.admin(&["ACL", "LOG"]), redis::Value::Array(Vec::new()), "nothing was tried that is denied");
    house.admin(&["ACL", "SETUSER", "evenring", "-zscore", "-subscribe", "+keys", "&other"]);
    let rights = house.registry().rights().await.unwrap();
    assert_eq!(rights.missing, ["SUBSCRIBE", "ZSCORE"]);
    assert_eq!(rights.excess, ["KEYS", "publishing to others"]);
    house.admin(&["ACL", "SETUSER", "evenring", "allcommands", "allkeys"]);
    let mut all = house.registry();
    assert!(all.rights().await.unwrap().excess.contains(&"FLUSHALL".to_owned()));
    let server = all.server().await.unwrap().expect("it may look now");
    assert_eq!((server.role.as_str(), server.maxmemory_policy.as_str(), server.rdb), ("master", "noeviction", false));
    assert!(server.used_memory > 0 && server.last_save_ok);
}

#[test]
fn the_registry_asks_for_just_the_commands_of_the_line() {
    let granted: BTreeSet<String> =
        line().split(' ').filter_map(|word| word.strip_prefix('+')).map(str::to_owned).collect();
    let first = |line: &str| match line.split(' ').collect::<Vec<_>>()[..] {
        ["script", sub, ..] => format!("script|{sub}"),
        [name, ..] => name.to_owned(),
        [] => String::new(),
    };
    assert_eq!(NEEDED.iter().map(|line| first(line)).collect::<BTreeSet<_>>(), granted);
}

#[test]
fn the_user_may_do_nothing_else() {
    let house = House::start(Program::Redis);
    let mut connection = house.connect(&format!("evenring:{}@", house.password));
    let denied = [
        &["FLUSHALL"][..],
        &["CONFIG", "GET", "*"],
        &["KEYS", "*"],
        &["SCAN", "0"],
        &["ACL", "LIST"],
        &["SCRIPT", "FLUSH"],
        &["EVAL", "return 1", "0"],
        &["GET", "{evenring}:x"],
        &["HGETALL", "other"],
        &["HSET", "{evenring}x", "a", "b"],
        &["HSET", "evenring:node:a", "state", "active"],
        &["PUBLISH", "other", "x"],
        &["SUBSCRIBE", "other"],
    ];
    for words in denied {
        let error = query(&mut connection, words).expect_err(&format!("{words:?} was allowed"));
        assert_eq!(error.kind(), ErrorKind::Server(ServerErrorKind::NoPerm), "{words:?}: {error}");
    }
    let script = "return redis.call('HGET', 'other', 'x')";
    let sha: String = redis::cmd("SCRIPT").arg("LOAD").arg(script).query(&mut connection).unwrap();
    let error = query(&mut connection, &["EVALSHA", &sha, "0"]).expect_err("a script may do more than its caller");
    assert_ne!(error.kind(), ErrorKind::Server(ServerErrorKind::NoScript), "{error}");
}

#[test]
fn the_user_may_do_no_command_that_nobody_needs() {
    let granted: BTreeSet<String> =
        line().split(' ').filter_map(|word| word.strip_prefix('+')).map(str::to_owned).collect();
    // What the client itself says; AUTH and HELLO need no permission.
    let mut needed: BTreeSet<String> = ["evalsha", "script|load", "subscribe"].map(str::to_owned).into();
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/registry");
    for folder in [scripts.clone(), scripts.join("scripts"), scripts.join("scripts/lib")] {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_file()) {
            let text = fs::read_to_string(entry.path()).unwrap();
            let calls = text.split("call('").chain(text.split("redis::cmd(\"")).skip(1);
            let names = calls.map(|rest| rest.split(['\'', '"']).next().unwrap());
            let is_name = |name: &&str| !name.is_empty() && name.chars().all(|c| c.is_ascii_uppercase());
            needed.extend(names.filter(is_name).map(str::to_ascii_lowercase));
        }
    }
    // Said to sentinels only, which have users of their own.
    needed.remove("sentinel");
    assert!(needed.contains("zrangebyscore") && needed.contains("time"), "the scripts were not found: {needed:?}");
    assert_eq!(granted, needed);
}
