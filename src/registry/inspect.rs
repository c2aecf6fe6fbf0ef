//! Facts about Redis itself for operators: the rights of our user, the server's settings, how long orders wait. Owns those
//! queries. Must never judge an answer or be needed by the daemon: reading the server's settings is not in its ACL.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use redis::{Cmd, ScriptInvocation, Value, from_redis_value_ref};

pub use super::try_login::NEEDED;
use super::try_login::command_name;
use super::{Registry, RegistryError};

/// Commands that evenring does not need, and their names.
const EXCESS: [(&str, &str); 13] = [
    ("flushall", "FLUSHALL"),
    ("config get x", "CONFIG"),
    ("acl list", "ACL"),
    ("shutdown", "SHUTDOWN"),
    ("debug sleep 0", "DEBUG"),
    ("module list", "MODULE"),
    ("replicaof no one", "REPLICAOF"),
    ("keys x", "KEYS"),
    ("eval x 0", "EVAL"),
    ("script flush", "SCRIPT FLUSH"),
    ("hgetall other", "reading the keys of others"),
    ("hset other f v", "writing the keys of others"),
    ("publish other m", "publishing to others"),
];

/// What the configured user may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rights {
    /// Of Redis.
    pub version: String,
    /// What it needs and may not.
    pub missing: Vec<String>,
    /// What it may and does not need.
    pub excess: Vec<String>,
}

/// How the server is set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// master or slave.
    pub role: String,
    /// Connected ones.
    pub replicas: u64,
    /// With fewer, it takes no writes.
    pub min_replicas_to_write: u64,
    /// The addresses that it listens on; empty is all.
    pub bind: String,
    /// It lets nobody in from other hosts while its default user has no password.
    pub protected_mode: bool,
    /// Bytes; 0 is no limit.
    pub maxmemory: u64,
    /// Bytes.
    pub used_memory: u64,
    /// What it does when it is full.
    pub maxmemory_policy: String,
    /// It takes snapshots.
    pub rdb: bool,
    /// It writes an append-only file.
    pub aof: bool,
    /// The last of either went well.
    pub last_save_ok: bool,
}

/// A queue and its oldest message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// The queue.
    pub queue: String,
    /// How long its oldest message that can be received waits; `None`: none does.
    pub oldest: Option<Duration>,
}

impl Registry {
    /// What the configured user may do, without doing any of it.
    ///
    /// # Errors
    /// Redis unavailable; [`RegistryError::Denied`] also if the user may not even run scripts.
    pub async fn rights(&mut self) -> Result<Rights, RegistryError> {
        let asked: Vec<&str> = NEEDED.into_iter().chain(EXCESS.map(|(line, _)| line)).collect();
        let reply = self.may(&asked).await?;
        let (needed, excess) = reply.1.split_at(NEEDED.len().min(reply.1.len()));
        let missing: BTreeSet<String> =
            NEEDED.iter().zip(needed).filter(|(_, may)| !**may).map(|(line, _)| command_name(line)).collect();
        let excess = EXCESS.iter().zip(excess).filter(|(_, may)| **may).map(|((_, what), _)| (*what).to_owned());
        Ok(Rights { version: reply.0, missing: missing.into_iter().collect(), excess: excess.collect() })
    }

    async fn may(&mut self, lines: &[&str]) -> Result<(String, Vec<bool>), RegistryError> {
        let build = |call: &mut ScriptInvocation<'_>| {
            call.key(&self.namespace);
            for line in lines {
                call.arg(*line);
            }
        };
        let reply: Vec<Value> = self.connector.run(&self.scripts.rights, build).await?;
        let version = reply.first().and_then(|value| from_redis_value_ref(value).ok()).unwrap_or_default();
        let may = |value| from_redis_value_ref::<u8>(value).is_ok_and(|flag| flag == 1);
        Ok((version, reply.iter().skip(1).map(may).collect()))
    }

    /// What each sentinel says is the primary now, or why it names none; empty without Sentinel.
    pub async fn sentinels(&self) -> Vec<(String, Result<String, String>)> {
        self.connector.survey().await
    }

    /// How the server is set up; `None`: this user may not ask.
    ///
    /// # Errors
    /// Redis unavailable.
    pub async fn server(&mut self) -> Result<Option<Server>, RegistryError> {
        let settings =
            ["config", "get", "maxmemory*", "min-replicas-to-write", "save", "appendonly", "bind", "protected-mode"];
        let (_, may) = self.may(&["info", &settings.join(" ")]).await?;
        if may.contains(&false) {
            return Ok(None);
        }
        let ask = |words: &[&str]| {
            let mut command = Cmd::new();
            command.arg(words);
            command
        };
        let info: String = self.connector.command(&ask(&["info"])).await?;
        let config: BTreeMap<String, String> = self.connector.command(&ask(&settings)).await?;
        let info: BTreeMap<&str, &str> = info.lines().filter_map(|line| line.split_once(':')).collect();
        let said = |key: &str| info.get(key).copied().unwrap_or_default();
        let set = |key: &str| config.get(key).map(String::as_str).unwrap_or_default();
        let number = |text: &str| text.parse().unwrap_or(0);
        Ok(Some(Server {
            role: said("role").to_owned(),
            replicas: number(said("connected_slaves")),
            min_replicas_to_write: number(set("min-replicas-to-write")),
            bind: set("bind").to_owned(),
            protected_mode: set("protected-mode") == "yes",
            maxmemory: number(set("maxmemory")),
            used_memory: number(said("used_memory")),
            maxmemory_policy: set("maxmemory-policy").to_owned(),
            rdb: !set("save").is_empty(),
            aof: set("appendonly") == "yes",
            last_save_ok: said("rdb_last_bgsave_status") != "err" && said("aof_last_write_status") != "err",
        }))
    }

    /// How long orders and logins wait in the queues of these nodes, and in the shared inbox.
    ///
    /// # Errors
    /// Redis unavailable.
    pub async fn waiting(&mut self, nodes: &[String]) -> Result<Vec<Waiting>, RegistryError> {
        let now = self.now_ms().await?;
        let mut queues = vec![super::inbox::QUEUE.to_owned()];
        queues.extend(nodes.iter().map(|node| format!("ring-{node}")));
        let mut rows = Vec::new();
        for queue in queues {
            let mut first = redis::cmd("ZRANGEBYSCORE");
            first.arg(format!("{}:{queue}", self.namespace)).arg("-inf").arg(now);
            first.arg("WITHSCORES").arg("LIMIT").arg(0).arg(1);
            let first: Vec<(String, f64)> = self.connector.command(&first).await?;
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "ms since 1970")]
            let oldest = first.first().map(|(_, since)| Duration::from_millis(now.saturating_sub(*since as u64)));
            rows.push(Waiting { queue, oldest });
        }
        Ok(rows)
    }
}
