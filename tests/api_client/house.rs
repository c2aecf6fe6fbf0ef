//! A daemon with the API, on a real Redis, beside a simulated node. Owns its tokens. Must never send a request of a test.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a helper that fails ends the test")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::api_client::{Client, free_address};
use crate::lab;
use crate::lab::redis::Redis;
use crate::lab::wait_for;
use crate::load_nodes::daemons::SimDaemon;
use crate::load_nodes::{Settings, Sim, SimNode};

pub const SOON: Duration = Duration::from_secs(30);

/// A daemon with the API, and a token for each use.
pub struct House {
    pub redis: Redis,
    node: SimNode,
    pub daemon: SimDaemon,
    pub tokens: BTreeMap<&'static str, String>,
    pub address: std::net::SocketAddr,
    pub tokens_file: PathBuf,
    _dir: tempfile::TempDir,
}

/// Name and scopes.
const TOKENS: [(&str, &[&str]); 6] = [
    ("reader", &["read"]),
    ("crm", &["login"]),
    ("desk7", &["login:agent=7"]),
    ("sales", &["login:campaign=sales"]),
    ("holder", &["hold"]),
    ("boss", &["read", "login", "admin"]),
];

/// A token, and its line for the file.
pub fn new_token(name: &str, scopes: &[&str]) -> (String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_evenring"));
    command.args(["token", "new", name, "--json"]).args(scopes.iter().flat_map(|scope| ["--scope", scope]));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let made: Value = serde_json::from_slice(&output.stdout).unwrap();
    (made["token"].as_str().unwrap().to_owned(), made["line"].as_str().unwrap().to_owned())
}

/// Writes the file of the tokens, with these rights.
pub fn write_tokens(file: &Path, lines: &[String], mode: u32) {
    fs::write(file, lines.join("\n")).unwrap();
    fs::set_permissions(file, fs::Permissions::from_mode(mode)).unwrap();
}

impl House {
    /// With more settings.
    pub async fn start(more: &str) -> Self {
        Self::with(Settings { phones: 20, ..Settings::default() }, more).await
    }

    /// Beside such a node.
    pub async fn with(sim: Settings, more: &str) -> Self {
        let (redis, dir, address) = (Redis::start(), tempfile::tempdir().unwrap(), free_address());
        let made = TOKENS.map(|(name, scopes)| (name, new_token(name, scopes)));
        let tokens_file = dir.path().join("tokens");
        write_tokens(&tokens_file, &made.clone().map(|(_, (_, line))| line), 0o640);
        let node = Sim::new().node(sim).await;
        let binary = Path::new(env!("CARGO_BIN_EXE_evenring"));
        let api = format!("[api]\nlisten = \"{address}\"\ntokens_file = \"{}\"\n{more}\n", tokens_file.display());
        let daemon = SimDaemon::start(binary, dir.path(), "tel-1", node.address(), &redis.url(), &api);
        let tokens = made.into_iter().map(|(name, (token, _))| (name, token)).collect();
        let house = Self { redis, node, daemon, tokens, address, tokens_file, _dir: dir };
        wait_for(SOON, || {
            let ready = std::net::TcpStream::connect(address).is_ok()
                && house.client("reader").get("/v1/nodes").json()["nodes"][0]["registrations"] == json!(20);
            if ready { Ok(()) } else { Err(format!("the node in the rotation; {}", house.daemon.log())) }
        });
        house
    }

    /// A client with this token.
    pub fn client(&self, token: &str) -> Client {
        Client { address: self.address, token: self.tokens[token].clone() }
    }

    /// One command of Redis.
    pub fn query<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let mut connection = redis::Client::open(self.redis.url()).unwrap().get_connection().unwrap();
        redis::cmd(words[0]).arg(&words[1..]).query(&mut connection).unwrap()
    }

    /// Everything in Redis that a client could change.
    pub fn state(&self) -> (u64, u64, Vec<String>, u64) {
        let events = self.query(&["XLEN", "{evenring}:events"]);
        let open = self.query(&["ZCARD", "{evenring}:index:open"]);
        let mut keys: Vec<String> = self.query(&["KEYS", "*session*"]);
        keys.sort();
        (events, open, keys, self.query(&["ZCARD", "{evenring}:logins"]))
    }

    /// Follows a session until it is live.
    pub fn until_live(&self, client: &Client, id: &str) -> Value {
        let begin = lab::now();
        loop {
            let row = client.get(&format!("/v1/logins/{id}?wait=5s"));
            assert_eq!(row.status, 200, "{row:?}");
            let row = row.json();
            if row["state"] == "live" || begin.elapsed() > SOON {
                return row;
            }
        }
    }
}

/// Asks for a login; status and body of the answer.
pub fn log_in(client: &Client, body: &Value) -> (u16, Value) {
    let answer = client.post("/v1/logins", &body.to_string());
    (answer.status, answer.json())
}
