//! The Redis user for programs that log agents in over the queue, as docs/SECURITY.md tells operators to make it: two foreign
//! clients, PyRSMQ and npm's rsmq, log in with it, and it may do nothing else.
//!
//! Owns what such a program can do with its password. Must never hold a rule of its own: the lines stand in systemd/redis.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that fails says why")]

#[path = "../lab/mod.rs"]
mod lab;
#[path = "../load_nodes/mod.rs"]
mod load_nodes;

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use lab::redis::{Program, Redis};
use lab::wait_for;
use load_nodes::daemons::SimDaemon;
use load_nodes::{Settings, Sim, SimNode};
use redis::{ErrorKind, ServerErrorKind};

const SOON: Duration = Duration::from_secs(30);

/// The line that makes a user.
fn line(user: &str) -> String {
    let path = format!("systemd/redis/{user}.conf");
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(&path)).expect(&path);
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let [line] = lines[..] else { panic!("{path} has one line that makes the user: {lines:?}") };
    assert!(line.starts_with(&format!("user {user} on >CHANGE-ME ")), "{line}");
    line.to_owned()
}

/// A Redis with both users, and one daemon beside a simulated node.
struct House {
    redis: Redis,
    node: SimNode,
    daemon: SimDaemon,
    _dir: tempfile::TempDir,
}

impl House {
    async fn start(program: Program) -> Self {
        let (own, web) = (line("evenring"), line("evenring-web"));
        // who forgets to log in is nobody
        let (default, admin) = ("user default off".to_owned(), "user admin on >admin-password ~* &* +@all".to_owned());
        let lines =
            [default, admin, own.replace("CHANGE-ME", "own-password"), web.replace("CHANGE-ME", "web-password")];
        let mut users = Vec::new();
        for line in &lines {
            users.push("--user");
            users.extend(line.strip_prefix("user ").unwrap().split(' '));
        }
        let redis = Redis::start_program(program, Ipv4Addr::LOCALHOST, &users);
        let dir = tempfile::tempdir().unwrap();
        let node = Sim::new().node(Settings { phones: 4, ..Settings::default() }).await;
        let url = format!("redis://evenring:own-password@{}", redis.address());
        let binary = Path::new(env!("CARGO_BIN_EXE_evenring"));
        let daemon = SimDaemon::start(binary, dir.path(), "tel-1", node.address(), &url, "");
        let house = Self { redis, node, daemon, _dir: dir };
        wait_for(SOON, || {
            let state = house.admin(&["HGET", "{evenring}:node:tel-1", "state"]);
            let missing = || format!("the node in the rotation: {state:?}; {}", house.daemon.log());
            if state == active() { Ok(()) } else { Err(missing()) }
        });
        house
    }

    fn admin(&self, words: &[&str]) -> redis::Value {
        let client = redis::Client::open(format!("redis://admin:admin-password@{}", self.redis.address())).unwrap();
        query(&mut client.get_connection().unwrap(), words).unwrap()
    }

    fn web(&self) -> redis::Connection {
        let client =
            redis::Client::open(format!("redis://evenring-web:web-password@{}", self.redis.address())).unwrap();
        client.get_connection().unwrap()
    }

    /// Runs a client; what it prints, as JSON.
    fn client(&self, mut command: Command) -> serde_json::Value {
        command.arg(self.redis.address().port().to_string());
        let output = command.output().expect("run the client; ./dev setup installs it");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command:?}: {error}; {}", self.daemon.log());
        serde_json::from_slice(&output.stdout).unwrap_or_else(|wrong| panic!("{wrong}: {output:?}"))
    }
}

fn active() -> redis::Value {
    redis::Value::BulkString(b"active".to_vec())
}

fn query(connection: &mut redis::Connection, words: &[&str]) -> Result<redis::Value, redis::RedisError> {
    redis::cmd(words[0]).arg(&words[1..]).query(connection)
}

/// Logs cc100 and cc101 in, waits for each answer, takes one at once and the other in two steps; then, what it may not do.
const PYTHON: &str = r#"
import json, sys, time
from redis.exceptions import NoPermissionError
from rsmq import RedisSMQ
from rsmq.cmd import NoMessageInQueue
login = {"username": "evenring-web", "password": "web-password", "encoding": "utf-8", "decode_responses": True}
client = RedisSMQ(host="127.0.0.1", port=sys.argv[1], ns="{evenring}", options=login)
client.createQueue().qname("web-py").execute()
def wait(take):
    end = time.monotonic() + 30
    while time.monotonic() < end:
        try:
            return take()
        except NoMessageInQueue:
            time.sleep(0.05)
answers = []
for alias in ["cc100x", "cc101x"]:
    client.sendMessage().qname("logins").message({"alias": alias, "agent": alias, "reply": "web-py"}).execute()
    take = client.popMessage() if alias == "cc100x" else client.receiveMessage().vt(30)
    message = wait(take.qname("web-py").execute)
    answers.append(json.loads(message["message"]))
gone = client.deleteMessage().qname("web-py").id(message["id"]).execute()
left = client.getQueueAttributes().qname("web-py").execute()["msgs"]
refused = []
for what in [client.popMessage().qname("logins"), client.receiveMessage().qname("ring-tel-1"), client.listQueues(),
             client.createQueue().qname("other"), client.deleteQueue().qname("logins")]:
    try:
        what.execute()
    except NoPermissionError as error:
        refused.append(str(error))
print(json.dumps({"answers": answers, "gone": gone, "left": left, "refused": len(refused)}))
"#;

/// The same with npm's rsmq, which needs `no_ready_check`: its Redis client would ask INFO, and this user may not.
const NODE: &str = r#"
const RSMQ = require("rsmq");
const login = { user: "evenring-web", password: "web-password", no_ready_check: true };
const client = new RSMQ({ host: "127.0.0.1", port: process.argv[1], ns: "{evenring}", realtime: true, ...login });
async function wait(take) {
  for (let turn = 0; turn < 600; turn++) {
    const message = await take();
    if (message.id) return message;
    await new Promise(resolve => setTimeout(resolve, 50));
  }
}
async function main() {
  await client.createQueueAsync({ qname: "web-js" });
  const answers = [];
  let message;
  for (const alias of ["cc102x", "cc103x"]) {
    await client.sendMessageAsync({ qname: "logins", message: JSON.stringify({ alias, agent: alias, reply: "web-js" }) });
    const qname = "web-js";
    message = await wait(() => alias == "cc102x" ? client.popMessageAsync({ qname }) : client.receiveMessageAsync({ qname }));
    answers.push(JSON.parse(message.message));
  }
  const gone = await client.deleteMessageAsync({ qname: "web-js", id: message.id }) == 1;
  const left = (await client.getQueueAttributesAsync({ qname: "web-js" })).msgs;
  let refused = 0;
  for (const what of [() => client.popMessageAsync({ qname: "logins" }),
                      () => client.receiveMessageAsync({ qname: "ring-tel-1" }), () => client.listQueuesAsync(),
                      () => client.createQueueAsync({ qname: "other" }), () => client.deleteQueueAsync({ qname: "logins" })]) {
    try {
      await what();
    } catch (error) {
      if (/NOPERM/.test(String(error)) || (error.errors || []).some(one => one.code == "NOPERM")) refused++;
    }
  }
  console.log(JSON.stringify({ answers, gone, left, refused }));
  await client.quitAsync();
}
main().catch(error => { console.error(error); process.exit(1); });
"#;

/// Both logins were placed on the node and rang there, and what the client tried beyond that was refused.
fn judge(house: &House, told: &serde_json::Value, phones: [&str; 2]) {
    for (answer, phone) in told["answers"].as_array().unwrap().iter().zip(phones) {
        let fields = ["alias", "node", "state"].map(|field| answer[field].as_str().unwrap());
        assert_eq!(fields, [&format!("{phone}x"), "tel-1", "placed"], "{told}");
        let is_its = |ring: &load_nodes::Ring| ring.channel == format!("PJSIP/{phone}");
        wait_for(SOON, || house.node.rings().iter().any(is_its).then_some(()).ok_or(format!("{phone} to ring")));
    }
    assert_eq!((&told["gone"], &told["left"], &told["refused"]), (&true.into(), &0.into(), &5.into()), "{told}");
}

async fn both_clients(program: Program) {
    let house = House::start(program).await;
    let mut python = Command::new(lab::python());
    python.args(["-c", PYTHON]);
    judge(&house, &house.client(python), ["cc100", "cc101"]);
    let mut node = Command::new("node");
    node.args(["-e", NODE]).current_dir(lab::node_clients());
    judge(&house, &house.client(node), ["cc102", "cc103"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn both_clients_log_agents_in_with_a_user_of_their_own() {
    both_clients(Program::Redis).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_clients_log_agents_in_on_valkey() {
    both_clients(Program::Valkey).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p11_the_user_may_do_nothing_else() {
    let house = House::start(Program::Redis).await;
    let mut web = house.web();
    // Each of them as it would be of use to a thief; the second word is the key, if there is one.
    let refused = [
        &["HGETALL", "{evenring}:node:tel-1"][..],
        &["HSET", "{evenring}:node:tel-1", "state", "stopped"],
        &["HGET", "{evenring}:logins:Q", "vt"],
        &["HDEL", "{evenring}:logins:Q", "vt"],
        &["ZRANGEBYSCORE", "{evenring}:logins", "-inf", "+inf"],
        &["ZREM", "{evenring}:logins", "x"],
        &["ZADD", "{evenring}:ring-tel-1", "1", "x"],
        &["HSET", "{evenring}:ring-tel-1:Q", "x", "{}"],
        &["HSET", "{evenring}:aliases", "desk7", "cc100@tel-1"],
        &["HSET", "{evenring}:session:1", "state", "ended"],
        &["HSET", "1732943029123", "a", "b"],
        &["HSET", "{evenring}:web", "a", "b"],
        &["SMEMBERS", "{evenring}:QUEUES"],
        &["SREM", "{evenring}:QUEUES", "logins"],
        &["SADD", "{evenring}:index:nodes", "x"],
        &["DEL", "{evenring}:web-1"],
        &["PUBLISH", "{evenring}:news", "x"],
        &["SUBSCRIBE", "{evenring}:news"],
        &["PSUBSCRIBE", "*"],
        &["EVAL", "return 1", "0"],
        &["SCRIPT", "FLUSH"],
        &["KEYS", "*"],
        &["SCAN", "0"],
        &["FLUSHALL"],
        &["CONFIG", "GET", "*"],
        &["ACL", "LIST"],
        &["INFO"],
    ];
    for words in refused {
        let error = query(&mut web, words).expect_err(&format!("{words:?} was allowed"));
        assert_eq!(error.kind(), ErrorKind::Server(ServerErrorKind::NoPerm), "{words:?}: {error}");
    }
    // its own scripts may do no more than it
    for (script, key) in [
        ("return redis.call('ZRANGEBYSCORE', '{evenring}:logins', '-inf', '+inf')", "{evenring}:web-1"),
        ("return redis.call('HSET', '{evenring}:node:tel-1', 'state', 'stopped')", "{evenring}:web-1"),
        ("return redis.call('HSET', KEYS[1], 'a', 'b')", "1732943029123"),
    ] {
        let sha: String = redis::cmd("SCRIPT").arg("LOAD").arg(script).query(&mut web).unwrap();
        let error = query(&mut web, &["EVALSHA", &sha, "1", key]).expect_err(script).to_string();
        assert!(
            error.contains("The user executing the script can't access") || error.contains("ACL failure"),
            "{error}"
        );
    }
    // nor with the daemons' scripts, whose keys it may not name
    let error = query(&mut web, &["EVALSHA", &"0".repeat(40), "1", "{evenring}"]).expect_err("a key of the daemons");
    assert_eq!(error.kind(), ErrorKind::Server(ServerErrorKind::NoPerm), "{error}");
    assert_eq!(house.admin(&["HGET", "{evenring}:node:tel-1", "state"]), active());
    // a client in realtime mode wakes the daemons, and may wait for its answers
    query(&mut web, &["PUBLISH", "{evenring}:rt:logins", "1"]).unwrap();
    query(&mut web, &["SUBSCRIBE", "{evenring}:rt:web-1"]).unwrap();
}

#[test]
fn the_page_shows_the_lines_that_are_shipped() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/SECURITY.md")).unwrap();
    for user in ["evenring", "evenring-web"] {
        let line = line(user);
        assert!(page.lines().any(|shown| shown == line), "docs/SECURITY.md does not show {line}");
    }
}
