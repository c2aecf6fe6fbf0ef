//! A running cluster for a test: the lab's Asterisks, a fresh Redis, one daemon per node and the command line.
//!
//! Owns what tests ask of a cluster, in its users' words. Must never look past the command line, the phones and
//! Asterisk's own console, except to send many logins at once.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that fails says why")]

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::lab::evenring::{Cli, Daemon, Output, Sections, binary};
use crate::lab::redis::Redis;
use crate::lab::{HUB, Lab, Node, wait_for, wait_until};

/// Long enough for anything that should happen soon.
pub const SOON: Duration = Duration::from_secs(10);

/// The settings that tests run with: short, so that time limits can be waited for.
pub const SHORT: &str = "[ring]\ntimeout = \"4s\"\n";

/// See above.
#[derive(Debug)]
pub struct Cluster {
    pub daemons: Vec<Daemon>,
    pub redis: Redis,
    pub cli: Cli,
}

impl Cluster {
    /// Starts a Redis and a daemon on each node; returns when all are in the rotation.
    pub fn start(lab: &Lab) -> Self {
        Self::with(lab, &Sections { rest: SHORT, ..Sections::default() })
    }

    /// The same with more settings.
    pub fn with(lab: &Lab, sections: &Sections<'_>) -> Self {
        Self::on(Redis::start_with(HUB, &[]), lab, sections)
    }

    /// The same with this server.
    pub fn on(redis: Redis, lab: &Lab, sections: &Sections<'_>) -> Self {
        let cli = Cli::new(&redis.url());
        let daemons = lab.nodes().iter().map(|node| Daemon::start_with(node, &redis.url(), sections)).collect();
        let cluster = Self { daemons, redis, cli };
        for node in lab.nodes() {
            cluster.wait_node(node.name(), "active");
        }
        cluster
    }

    /// The same with another address of AMI.
    pub fn with_address(lab: &Lab, sections: &Sections<'_>, address: &str) -> Self {
        Self::with(lab, &Sections { address, ..*sections })
    }

    /// `evenring ARGUMENTS --json`, read.
    pub fn json(&self, arguments: &[&str]) -> Value {
        self.json_and_code(arguments).0
    }

    /// The same with the exit code.
    pub fn json_and_code(&self, arguments: &[&str]) -> (Value, i32) {
        let output = self.run(&[arguments, &["--json"]].concat());
        let value = serde_json::from_str(&output.stdout).unwrap_or_else(|error| {
            panic!("{arguments:?} printed no JSON ({error}): {}{}", output.stdout, output.stderr)
        });
        (value, output.status.code().expect("no signal"))
    }

    /// `evenring ARGUMENTS`.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.cli.run(arguments)
    }

    /// `evenring doctor ARGUMENTS` on a node, with its daemon's configuration.
    pub fn doctor(&self, node: &Node, arguments: &[&str]) -> Output {
        let daemon = self.daemons.iter().find(|daemon| daemon.log_file().starts_with(node.dir())).expect("a daemon");
        let conf = node.root().join("etc/asterisk/manager.conf");
        std::fs::set_permissions(&conf, std::fs::Permissions::from_mode(0o640)).expect("make it private");
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &node.namespace()]).arg(binary()).arg("doctor").args(arguments);
        command.arg("--config").arg(daemon.config()).arg("--manager-conf").arg(conf);
        command.output().expect("run evenring doctor").into()
    }

    /// The same as JSON: warnings and failures as (code, finding, fix), and the exit code.
    pub fn troubles(&self, node: &Node) -> (Vec<(String, String, String)>, i32) {
        let output = self.doctor(node, &["--json"]);
        let rows: Vec<Value> =
            serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
        let text = |row: &Value, key: &str| row[key].as_str().expect(key).to_owned();
        let rows = rows.iter().filter(|row| ["warning", "failure"].contains(&row["level"].as_str().expect("level")));
        let rows = rows.map(|row| (text(row, "code"), text(row, "finding"), text(row, "fix"))).collect();
        (rows, output.status.code().expect("no signal"))
    }

    /// One node, as `status` shows it.
    pub fn node(&self, name: &str) -> Value {
        let status = self.json(&["status"]);
        let nodes = status["nodes"].as_array().expect("nodes").clone();
        nodes.into_iter().find(|node| node["name"] == name).unwrap_or(Value::Null)
    }

    /// Waits until a node has this state.
    pub fn wait_node(&self, name: &str, state: &str) {
        wait_for(SOON, || match self.node(name) {
            node if node["state"] == state => Ok(()),
            node => Err(format!("node {name} to be {state}: {node}; {}", self.logs())),
        });
    }

    /// Waits until a node has given so many heartbeats: its lease grows with each. Whatever its daemon would have done by
    /// itself, it has done by then.
    pub fn wait_beats(&self, name: &str, count: usize) {
        let lease = || self.node(name)["lease_ms"].as_u64().unwrap_or(0);
        let (mut beats, mut before) = (0, lease());
        wait_for(SOON, || {
            let left = lease();
            beats += usize::from(left > std::mem::replace(&mut before, left));
            if beats < count { Err(format!("{count} heartbeats of {name}, not {beats}")) } else { Ok(()) }
        });
    }

    /// Waits until a node has at least so many phones that can ring (node b's own IAX2 phone may come and go).
    pub fn wait_phones(&self, name: &str, count: u64) {
        wait_for(SOON * 2, || match self.node(name) {
            node if node["registrations"].as_u64() >= Some(count) => Ok(()),
            node => Err(format!("node {name} to have {count} phones: {node}")),
        });
    }

    /// Waits until `explain` gives this reason for a node (empty: it may ring).
    pub fn wait_why(&self, alias: &str, node: &str, why: &str, timeout: Duration) {
        wait_for(timeout, || {
            let explained = self.json(&["explain", alias]);
            let nodes = explained["nodes"].as_array().cloned().unwrap_or_default();
            let found = nodes.iter().find(|candidate| candidate["name"] == node).map(|found| found["reason"].clone());
            if found == Some(why.into()) {
                Ok(())
            } else {
                Err(format!("{alias} on {node} to be {why:?}: {explained}"))
            }
        });
    }

    /// Local agents per node.
    pub fn agents(&self) -> BTreeMap<String, u64> {
        let status = self.json(&["status"]);
        let nodes = status["nodes"].as_array().expect("nodes").iter();
        nodes.map(|n| (n["name"].as_str().unwrap().to_owned(), n["agents"].as_u64().unwrap())).collect()
    }

    /// All sessions, also those that are over.
    pub fn sessions(&self) -> Vec<Value> {
        self.json(&["sessions", "--all"])["sessions"].as_array().expect("sessions").clone()
    }

    /// One session.
    pub fn session(&self, id: &str) -> Value {
        self.sessions().into_iter().find(|session| session["session"] == id).unwrap_or(Value::Null)
    }

    /// Waits until a session has this state and reason.
    pub fn wait_session(&self, id: &str, state: &str, reason: &str) {
        wait_for(SOON * 2, || match self.session(id) {
            session if session["state"] == state && session["reason"] == reason => Ok(()),
            session => Err(format!("session {id} to be {state} {reason:?}: {session}; {}", self.logs())),
        });
    }

    /// Logs in and does not wait; the session's id.
    pub fn login(&self, alias: &str) -> String {
        let (login, code) = self.json_and_code(&["login", alias]);
        assert_eq!(code, 0, "{login}");
        login["session"].as_str().expect("a session").to_owned()
    }

    /// Where a session is.
    pub fn node_of(&self, id: &str) -> String {
        self.session(id)["node"].as_str().expect("a node").to_owned()
    }

    /// Waits until nobody is logged in and no Asterisk has a channel.
    pub fn wait_empty(&self, lab: &Lab) {
        wait_until(SOON, "no session to be open", || {
            self.json(&["sessions"])["sessions"].as_array().is_some_and(Vec::is_empty)
        });
        for node in lab.nodes() {
            wait_until(SOON, "no channel to be left", || node.channels() == 0);
        }
        assert!(self.agents().values().all(|agents| *agents == 0));
    }

    /// The end of all logs, for a panic.
    pub fn logs(&self) -> String {
        let last = |daemon: &Daemon| {
            let log = daemon.log();
            let lines: Vec<&str> = log.lines().collect();
            lines[lines.len().saturating_sub(25)..].join("\n")
        };
        self.daemons.iter().map(last).collect::<Vec<_>>().join("\n----\n")
    }
}
