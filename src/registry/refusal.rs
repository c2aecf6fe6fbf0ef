//! Maps errors from Redis to what they mean and what to do. Owns the error texts of Redis, Valkey and Sentinel. Must never
//! connect.
//!
//! Only an error inside one of our scripts can be our bug, and Redis then names the script. Every other error is about the
//! connection, the user or the server: an outage until it is repaired.

use redis::{ErrorKind, RedisError, ServerErrorKind};

use super::error::RegistryError;

/// Part of the error for bytes that no Redis sends.
const NO_REDIS: &str = "Parse error";

/// Part of every error from inside a script.
const IN_SCRIPT: &str = "@user_script";

/// Denials without an error code: instead of NOAUTH for a call with more than ten arguments, before Redis hangs up;
/// instead of NOPERM inside a script, from 7.0 and from 7.2 on; and those of servers without users.
const DENIED: [&str; 4] = [
    "Protocol error: unauthenticated",
    "The user executing the script can't",
    "ACL failure in script",
    "operation not permitted",
];

const CLUSTER: &str = "it is a Redis Cluster node: point redis.url at a single primary that has all keys, with or \
    without Sentinel";
const HARDENED: &str = "it lacks a command that evenring needs: use Redis 7.0 or newer without rename-command; \
    restrict users with the ACL instead (docs/SECURITY.md, Redis ACL)";

const PROTECTED: &str = "this is not about evenring's password: Redis lets in nobody from another host as long as its \
    default user has no password. In redis.conf, set `bind` and `requirepass`, or make users of your own and turn the \
    default user off (docs/redis.md, Let other hosts in)";
const FULL: &str = "it is out of memory: raise maxmemory (CONFIG SET maxmemory, and in redis.conf) and keep \
    maxmemory-policy noeviction (docs/redis.md, Memory)";
const UNSAVED: &str = "it could not save its data and therefore refuses writes: make room on its disk, or make its \
    directory writable; its log has the reason (docs/redis.md, Persistence)";
const ALONE: &str = "fewer replicas are connected than min-replicas-to-write: bring a replica back, or lower that \
    setting (docs/redis.md, Replicas)";

/// Errors on connecting, and what to do about each.
const AT_THE_DOOR: [(&str, &str); 8] = [
    (
        "max number of clients",
        "it accepts no more connections: raise maxclients and its limit of open files, or find the clients with \
            CLIENT LIST",
    ),
    ("protected mode", PROTECTED),
    ("unknown command", HARDENED),
    ("unknown subcommand", HARDENED),
    ("Unknown Redis command", HARDENED),
    ("DB index", "it has no database with the number in redis.url"),
    ("SELECT is not allowed", CLUSTER),
    ("without any password", "remove redis.password, or set a password for this user in Redis"),
];

/// The server that an error came from, as far as the advice depends on it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    /// `redis.url`.
    pub(super) url: &'a str,
    /// What to do about a server that is a replica.
    pub(super) replica: &'static str,
}

impl Place<'_> {
    /// Explains an error.
    pub(super) fn explain(self, error: &RedisError) -> RegistryError {
        let (url, why) = (self.url.to_owned(), error.to_string());
        let said = cause(&why);
        let unwritable = |advice| RegistryError::NotWritable { url: url.clone(), why: said.clone(), advice };
        let unfit = |advice| RegistryError::Unfit { url: url.clone(), why: said.clone(), advice };
        let denied = || RegistryError::Denied { url: url.clone(), why: said.clone() };
        match error.code().unwrap_or_default() {
            "READONLY" => return unwritable(self.replica),
            "MISCONF" => return unwritable(UNSAVED),
            "OOM" => return unwritable(FULL),
            "NOREPLICAS" => return unwritable(ALONE),
            "DENIED" => return unfit(PROTECTED),
            "LOADING" | "MASTERDOWN" => return unwritable("wait until it has finished loading or syncing"),
            "BUSY" | "UNKILLABLE" => {
                return unwritable("a script is blocking Redis: wait, or run SCRIPT KILL");
            }
            "MOVED" | "ASK" | "TRYAGAIN" | "CROSSSLOT" | "CLUSTERDOWN" => return unfit(CLUSTER),
            "NOPROTO" => return unfit("Redis must be 7.0 or newer"),
            "NOAUTH" | "WRONGPASS" | "NOPERM" => return denied(),
            _ => {}
        }
        if DENIED.into_iter().any(|words| why.contains(words)) {
            return denied();
        }
        if let Some((_, advice)) = AT_THE_DOOR.into_iter().find(|(words, _)| why.contains(words)) {
            return unfit(advice);
        }
        let kind = error.kind();
        if matches!(kind, ErrorKind::AuthenticationFailed | ErrorKind::Server(ServerErrorKind::NoPerm)) {
            return denied();
        }
        if kind == ErrorKind::MasterNameNotFoundBySentinel {
            return self.unreachable(
                "the sentinels name no primary now: a failover is in progress, or the name in redis.url differs from \
                    the one in `sentinel monitor`",
            );
        }
        // What cannot be parsed is no Redis; what has another shape than we want is a bug.
        let misshapen =
            kind == ErrorKind::UnexpectedReturnType || (kind == ErrorKind::Parse && !why.contains(NO_REDIS));
        if misshapen || error.code() == Some("WRONGTYPE") {
            return RegistryError::Script { url, why };
        }
        if matches!(kind, ErrorKind::Server(_) | ErrorKind::Extension) {
            if !why.contains(IN_SCRIPT) {
                return unfit("see Redis's log, and check redis.url");
            }
            // Redis names the cause inside a script's error.
            let causes = [("READONLY", self.replica), ("MISCONF", UNSAVED), ("OOM ", FULL), ("NOREPLICAS", ALONE)];
            return match causes.into_iter().find(|(word, _)| why.contains(word)) {
                Some((_, advice)) => unwritable(advice),
                None => RegistryError::Script { url, why },
            };
        }
        self.explain_silence(error)
    }

    /// Explains an error that is not an answer from Redis.
    fn explain_silence(self, error: &RedisError) -> RegistryError {
        let (text, tls) = (error.to_string(), self.url.starts_with("rediss"));
        if error.is_timeout() {
            let hint = if tls {
                "no response in time; if the port does not use TLS, use redis://"
            } else {
                "no response in time"
            };
            return self.unreachable(hint);
        }
        let advice = if error.kind() == ErrorKind::Parse {
            "the server is not a Redis: check redis.url"
        } else if text.contains("certificate") {
            "check redis.ca_file, and that the certificate matches the name in redis.url; evenring sends no client \
                certificate"
        } else if tls && text.contains("corrupt message") {
            "the port does not use TLS: use redis://, or the TLS port"
        } else if !tls && error.is_connection_dropped() && !error.is_connection_refusal() {
            return self.unreachable(&format!(
                "{text}: the server closed the connection; if the port requires TLS, use \
                    rediss://"
            ));
        } else {
            return self.unreachable(&text);
        };
        let why = text.lines().next().unwrap_or_default().to_owned();
        RegistryError::Unfit { url: self.url.to_owned(), why, advice }
    }

    pub(super) fn unreachable(self, why: &str) -> RegistryError {
        RegistryError::Unreachable { url: self.url.to_owned(), why: why.to_owned() }
    }
}

/// What Redis said, as a part of a sentence: without quotes around its word, the place in one of our scripts, and the page
/// with which it explains protected mode.
fn cause(said: &str) -> String {
    let first = if said.contains("protected mode") { said.split(". ").next().unwrap_or(said) } else { said };
    let end = first.find(" script: ").filter(|_| first.contains(IN_SCRIPT)).unwrap_or(first.len());
    let mut cause = first[..end].trim_end_matches(['.', ',', ' ']).to_owned();
    if let Some((word, rest)) = cause.strip_prefix('"').and_then(|rest| rest.split_once("\": ")) {
        cause = format!("{word}: {rest}");
    }
    cause
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a server's words mean: `out` if they are an outage.
    #[track_caller]
    fn check(said: &str, out: bool, advice: &str) {
        let value = redis::parse_redis_value(format!("-{said}\r\n").as_bytes()).unwrap();
        let redis::Value::ServerError(error) = value else { panic!("no error: {value:?}") };
        let error = RedisError::from(error);
        let place = Place { url: "redis://host", replica: "replica" };
        let explained = place.explain(&error);
        assert_eq!(explained.is_outage(), out, "{explained:?}");
        assert!(explained.to_string().contains(advice), "{explained}");
    }

    #[test]
    fn what_is_said_at_the_door_is_an_outage_and_says_what_to_do() {
        for (said, advice) in [
            ("ERR max number of clients reached", "raise maxclients"),
            ("ERR max number of clients + cluster connections reached", "raise maxclients"),
            (
                "DENIED Redis is running in protected mode because protected mode is enabled",
                "not about evenring's password",
            ),
            ("MOVED 13484 10.0.0.1:6379", "Redis Cluster"),
            ("ASK 13484 10.0.0.1:6379", "Redis Cluster"),
            ("TRYAGAIN Multiple keys request during rehashing of slot", "Redis Cluster"),
            ("CLUSTERDOWN Hash slot not served", "Redis Cluster"),
            ("ERR SELECT is not allowed in cluster mode", "Redis Cluster"),
            ("ERR unknown command 'EVALSHA', with args beginning with: ", "rename-command"),
            ("ERR unknown command `EVALSHA`, with args", "rename-command"),
            ("ERR Unknown Redis command called from script script: 32, on @user_script:33.", "rename-command"),
            ("ERR DB index is out of range", "no database with the number"),
            ("ERR Client sent AUTH, but no password is set", "redis.url"),
            ("ERR AUTH <password> called without any password configured for the default user", "redis.password"),
            ("ERR operation not permitted", "the password and the ACL"),
            ("NOPROTO unsupported protocol version", "7.0 or newer"),
            ("LOADING Redis is loading the dataset in memory", "wait until it has finished loading"),
            ("BUSY Redis is busy running a script.", "SCRIPT KILL"),
            ("UNKILLABLE Sorry the script already executed write commands", "SCRIPT KILL"),
            ("ERR Protocol error: invalid bulk length", "Redis's log"),
            ("WEIRD something of the next version", "Redis's log"),
            (
                "OOM command not allowed when used memory > 'maxmemory'. script: 1, on @user_script:1.",
                "raise maxmemory",
            ),
            ("MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist.", "make room"),
            ("NOREPLICAS Not enough good replicas to write. script: 1, on @user_script:1.", "min-replicas-to-write"),
            ("READONLY You can't write against a read only replica. script: 1, on @user_script:1.", "replica"),
            ("NOPERM User x has no permissions to run the 'evalsha' command", "the password and the ACL"),
        ] {
            check(said, true, advice);
        }
    }

    #[test]
    fn the_cause_is_a_part_of_a_sentence() {
        for (said, expected) in [
            ("\"OOM\": command not allowed. script: 12, on @user_script:1.", "OOM: command not allowed"),
            (
                "\"DENIED\": Redis is running in protected mode because x. In this mode y. z.",
                "DENIED: Redis is running in protected mode because x",
            ),
            ("An error: \"x\": y", "An error: \"x\": y"),
            ("on the script: x", "on the script: x"),
        ] {
            assert_eq!(cause(said), expected);
        }
    }

    #[test]
    fn what_fails_inside_of_a_script_is_none() {
        check(
            "ERR user_script:3: attempt to index a nil value script: 32, on @user_script:3.",
            false,
            "a script failed",
        );
        check(
            "WRONGTYPE Operation against a key holding the wrong kind of value script: 3, on @user_script:1.",
            false,
            "a script",
        );
        check("WRONGTYPE Operation against a key holding the wrong kind of value", false, "wrong kind");
    }
}
