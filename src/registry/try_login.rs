//! Whether Redis would take a login now: the commands that one needs are allowed, and a write is carried out. Owns that
//! question, for everybody who says that logins work, and the list of those commands. Must never place anybody or ask about nodes.

use std::collections::BTreeSet;

use redis::ScriptInvocation;

use super::{Registry, RegistryError};

/// What the scripts and the client do, each with arguments of its usual shape. `NS` is the namespace.
pub const NEEDED: [&str; 34] = [
    "evalsha 0 1 NS",
    "script load x",
    "subscribe NS:x",
    "time",
    "del NS:x",
    "unlink NS:x",
    "exists NS:x",
    "hdel NS:x f",
    "hget NS:x f",
    "hgetall NS:x",
    "hincrby NS:x f 1",
    "hlen NS:x",
    "hmget NS:x f",
    "hset NS:x f v",
    "hsetnx NS:x f v",
    "persist NS:x",
    "pexpire NS:x 1",
    "publish NS:x m",
    "rename NS:x NS:y",
    "sadd NS:x m",
    "scard NS:x",
    "smembers NS:x",
    "srem NS:x m",
    "xadd NS:x * f v",
    "xread streams NS:x 0",
    "zadd NS:x 1 m",
    "zcard NS:x",
    "zrangebyscore NS:x 0 1",
    "zrem NS:x m",
    "zremrangebyscore NS:x 0 1",
    "zscore NS:x m",
    // Every kind of key and channel.
    "hget NS f",
    "publish NS:rt:x m",
    "zadd NS:ring-x 1 m",
];

/// What logins work without: the event stream, and a way to remove keys that DEL replaces.
const DISPENSABLE: [&str; 3] = ["XADD", "XREAD", "UNLINK"];

/// The name of a command of [`NEEDED`].
pub(super) fn command_name(line: &str) -> String {
    let count = if line.starts_with("script ") { 2 } else { 1 };
    line.split(' ').take(count).collect::<Vec<_>>().join(" ").to_ascii_uppercase()
}

impl Registry {
    /// Whether Redis would take a login now. One key is written, which ends by itself.
    ///
    /// # Errors
    /// Why a login would fail: Redis unavailable, [`RegistryError::Lacks`] or [`RegistryError::NotWritable`].
    pub async fn try_login(&mut self) -> Result<(), RegistryError> {
        let needed: Vec<&str> =
            NEEDED.into_iter().filter(|line| !DISPENSABLE.contains(&command_name(line).as_str())).collect();
        let build = |call: &mut ScriptInvocation<'_>| {
            call.key(&self.namespace);
            for line in &needed {
                call.arg(*line);
            }
        };
        let may: Vec<u8> = self.connector.run(&self.scripts.try_login, build).await?;
        let missing: BTreeSet<String> =
            needed.iter().zip(&may).filter(|(_, may)| **may == 0).map(|(line, _)| command_name(line)).collect();
        match missing.into_iter().collect::<Vec<_>>().join(", ") {
            all if all.is_empty() => Ok(()),
            missing => Err(self.connector.lacks(missing)),
        }
    }

    /// Some versions of Redis do not say which command a script may not run: this asks for it.
    pub(super) async fn name_what_is_missing(&mut self, error: RegistryError) -> RegistryError {
        if !matches!(error, RegistryError::Denied { .. }) {
            return error;
        }
        match self.try_login().await {
            Err(named @ RegistryError::Lacks { .. }) => named,
            Ok(()) | Err(_) => error,
        }
    }
}
