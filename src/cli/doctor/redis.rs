//! Judges whether Redis is set up for the cluster. Owns the judgement of what Redis returned. Must never query Redis.

use super::finding::{Finding, some};
use crate::registry::inspect::{Rights, Server};

/// What is known about the server.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) rights: Rights,
    /// `None`: this user may not read the settings, and no admin was named. `Err`: why the named admin cannot.
    pub(super) server: Result<Option<Server>, String>,
    /// Redis's clock minus ours.
    pub(super) clock_ahead_ms: i64,
    /// Explicit aliases: the only thing that only Redis knows.
    pub(super) aliases: usize,
    /// Behind Sentinel.
    pub(super) sentinel: bool,
}

/// With a larger difference, timestamps in logs cannot be compared.
const CLOCKS_APART_MS: i64 = 2_000;
/// Of maxmemory.
const FULL_PERCENT: u64 = 90;

pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![version(&facts.rights.version)];
    findings.extend(rights(&facts.rights));
    findings.push(clock(facts.clock_ahead_ms));
    match &facts.server {
        Ok(Some(server)) => findings.extend(judge_server(server, facts)),
        Err(why) => findings.push(Finding::failure("redis.server", why, "correct EVENRING_REDIS_ADMIN_URL")),
        Ok(None) => findings.push(Finding::note(
            "redis.server",
            "eviction, persistence and replicas were not checked: this Redis user may not read them",
            "run doctor as a Redis admin: EVENRING_REDIS_ADMIN_URL=redis://default:...@host:6379 evenring doctor \
                (behind Sentinel: a URL of the same form as redis.url, with the admin's login)",
        )),
    }
    findings
}

fn version(version: &str) -> Finding {
    let mut numbers = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    if numbers.next().is_some_and(|major| major >= 7) {
        return Finding::ok("redis.version", format!("Redis {version}"));
    }
    Finding::failure("redis.version", format!("Redis {version} is too old"), "install Redis 7.0 or newer")
}

fn rights(rights: &Rights) -> Vec<Finding> {
    let mut findings = Vec::new();
    let fix = "use the ACL line in docs/SECURITY.md (Redis ACL), with your namespace in all three places";
    if !rights.missing.is_empty() {
        let text = format!("the Redis user lacks rights: {}", some(&rights.missing));
        findings.push(Finding::failure("redis.acl", text, fix));
    }
    if !rights.excess.is_empty() {
        let text = format!("the Redis user has more rights than evenring needs: {}", some(&rights.excess));
        findings.push(Finding::warning("redis.acl", text, fix));
    }
    if findings.is_empty() {
        findings.push(Finding::ok("redis.acl", "the Redis user has exactly the rights that evenring needs"));
    }
    findings
}

fn clock(ahead_ms: i64) -> Finding {
    let apart = ahead_ms.abs();
    if apart < CLOCKS_APART_MS {
        return Finding::ok("redis.clock", format!("{apart} ms off this host's clock"));
    }
    let word = if ahead_ms > 0 { "ahead of" } else { "behind" };
    Finding::warning(
        "redis.clock",
        format!(
            "Redis's clock is {} s {word} this host's: logins work, but timestamps cannot be compared",
            apart / 1000
        ),
        "run an NTP client (chrony, systemd-timesyncd) on both hosts",
    )
}

fn judge_server(server: &Server, facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.push(eviction(server));
    if server.maxmemory > 0 && server.used_memory * 100 >= server.maxmemory * FULL_PERCENT {
        findings.push(Finding::warning(
            "redis.memory",
            format!("{} of {} bytes of maxmemory are used", server.used_memory, server.maxmemory),
            "raise maxmemory: when Redis is full, logins are refused",
        ));
    }
    findings.push(persistence(server, facts.aliases));
    if !server.last_save_ok {
        findings.push(Finding::failure(
            "redis.persistence",
            "Redis could not write its last RDB snapshot or append-only file, and may refuse all writes",
            "see Redis's log: its disk is full, or its directory is not writable",
        ));
    }
    findings.push(replicas(server, facts.sentinel));
    findings
}

fn eviction(server: &Server) -> Finding {
    let policy = &server.maxmemory_policy;
    match (policy.as_str(), server.maxmemory) {
        ("noeviction", _) => Finding::ok("redis.eviction", "maxmemory-policy noeviction"),
        (_, 0) => Finding::warning(
            "redis.eviction",
            format!("maxmemory-policy {policy}: no effect while maxmemory is 0"),
            "set maxmemory-policy noeviction: if a key is evicted, an agent is no longer counted",
        ),
        (_, _) => Finding::failure(
            "redis.eviction",
            format!("maxmemory-policy {policy}: Redis evicts keys when it is full"),
            "set maxmemory-policy noeviction: if a key is evicted, an agent is no longer counted",
        ),
    }
}

fn persistence(server: &Server, aliases: usize) -> Finding {
    let kinds: Vec<&str> =
        [("RDB", server.rdb), ("AOF", server.aof)].into_iter().filter(|(_, on)| *on).map(|(name, _)| name).collect();
    match aliases {
        _ if !kinds.is_empty() => Finding::ok("redis.persistence", kinds.join(" and ")),
        0 => Finding::ok("redis.persistence", "none; not needed, because there are no explicit aliases"),
        _ => Finding::warning(
            "redis.persistence",
            format!("no persistence: explicit aliases would be lost with Redis ({aliases})"),
            "enable RDB (save 3600 1) or AOF (appendonly yes), and keep the output of `evenring alias export`",
        ),
    }
}

fn replicas(server: &Server, sentinel: bool) -> Finding {
    let (replicas, least) = (server.replicas, server.min_replicas_to_write);
    if server.role != "master" {
        return Finding::failure(
            "redis.replicas",
            format!("this Redis is a {}: it accepts no writes", server.role),
            "point redis.url at the primary, or at the sentinels (docs/operations.md, Redis Sentinel)",
        );
    }
    if replicas == 0 && !sentinel {
        return Finding::ok("redis.replicas", "a single server");
    }
    if least == 0 {
        return Finding::warning(
            "redis.replicas",
            format!(
                "replicas: {replicas}, but min-replicas-to-write is 0: after a failover the old primary keeps \
                    accepting logins"
            ),
            "on all servers: min-replicas-to-write 1 and min-replicas-max-lag 2 (docs/operations.md, Redis Sentinel)",
        );
    }
    if replicas < least {
        return Finding::failure(
            "redis.replicas",
            format!("connected replicas: {replicas}, min-replicas-to-write: {least}; writes are refused"),
            "bring replicas back",
        );
    }
    Finding::ok("redis.replicas", format!("replicas: {replicas}, min-replicas-to-write {least}"))
}

#[cfg(test)]
mod tests {
    use super::super::finding::check;
    use super::*;

    fn server() -> Server {
        Server {
            role: "master".into(),
            replicas: 0,
            min_replicas_to_write: 0,
            maxmemory: 0,
            used_memory: 1_000_000,
            maxmemory_policy: "noeviction".into(),
            rdb: true,
            aof: false,
            last_save_ok: true,
        }
    }

    fn facts(server: Option<Server>) -> Facts {
        let rights = Rights { version: "7.0.15".into(), missing: Vec::new(), excess: Vec::new() };
        Facts { rights, server: Ok(server), clock_ahead_ms: -12, aliases: 2, sentinel: false }
    }

    const HEAD: [(&str, &str, &str, &str); 3] = [
        ("redis.version", "ok", "Redis 7.0.15", ""),
        ("redis.acl", "ok", "exactly the rights", ""),
        ("redis.clock", "ok", "12 ms off", ""),
    ];
    const EVICTION: (&str, &str, &str, &str) = ("redis.eviction", "ok", "noeviction", "");
    const RDB: (&str, &str, &str, &str) = ("redis.persistence", "ok", "RDB", "");
    const SINGLE: (&str, &str, &str, &str) = ("redis.replicas", "ok", "single", "");

    #[test]
    fn a_good_redis_and_one_that_may_not_be_looked_at() {
        check(&judge(&facts(Some(server()))), &[&HEAD[..], &[EVICTION, RDB, SINGLE]].concat());
        let note = ("redis.server", "note", "were not checked", "EVENRING_REDIS_ADMIN_URL=");
        check(&judge(&facts(None)), &[&HEAD[..], &[note]].concat());
        let server = Err("who: not reachable".to_owned());
        let repair = ("redis.server", "failure", "who: not reachable", "correct EVENRING_REDIS_ADMIN_URL");
        check(&judge(&Facts { server, ..facts(None) }), &[&HEAD[..], &[repair]].concat());
    }

    #[test]
    fn users_versions_and_clocks() {
        let rights = Rights {
            version: "6.2.1".into(),
            missing: vec!["HSET".into()],
            excess: vec!["FLUSHALL".into(), "keys of others".into()],
        };
        let acl = "ACL line in docs/SECURITY.md";
        check(
            &judge(&Facts { rights, clock_ahead_ms: 3_600_000, ..facts(None) }),
            &[
                ("redis.version", "failure", "6.2.1 is too old", "7.0"),
                ("redis.acl", "failure", "lacks rights: HSET", acl),
                ("redis.acl", "warning", "FLUSHALL, keys of others", acl),
                ("redis.clock", "warning", "3600 s ahead of", "NTP"),
                ("redis.server", "note", "", ""),
            ],
        );
    }

    #[test]
    fn memory_disk_and_replicas() {
        let with = |change: fn(&mut Server)| {
            let mut server = server();
            change(&mut server);
            judge(&facts(Some(server))).split_off(HEAD.len())
        };
        let noeviction = "maxmemory-policy noeviction";
        check(
            &with(|s| s.maxmemory_policy = "allkeys-lru".into()),
            &[("redis.eviction", "warning", "allkeys-lru: no effect", noeviction), RDB, SINGLE],
        );
        check(
            &with(|s| (s.maxmemory_policy, s.maxmemory) = ("volatile-ttl".into(), 1_100_000)),
            &[
                ("redis.eviction", "failure", "evicts keys", noeviction),
                ("redis.memory", "warning", "1000000 of 1100000", "raise maxmemory"),
                RDB,
                SINGLE,
            ],
        );
        check(
            &with(|s| (s.rdb, s.last_save_ok) = (false, false)),
            &[
                EVICTION,
                ("redis.persistence", "warning", "explicit aliases would be lost with Redis (2)", "appendonly yes"),
                ("redis.persistence", "failure", "could not write", "disk"),
                SINGLE,
            ],
        );
        let replicas = |level, text, fix| [EVICTION, RDB, ("redis.replicas", level, text, fix)];
        check(&with(|s| s.role = "slave".into()), &replicas("failure", "is a slave", "primary"));
        check(&with(|s| s.replicas = 2), &replicas("warning", "min-replicas-to-write is 0", "min-replicas-to-write 1"));
        check(&with(|s| (s.replicas, s.min_replicas_to_write) = (1, 1)), &replicas("ok", "replicas: 1", ""));
        check(
            &with(|s| (s.replicas, s.min_replicas_to_write) = (1, 2)),
            &replicas("failure", "refused", "replicas back"),
        );
        let alone = Facts { sentinel: true, aliases: 0, ..facts(Some(Server { rdb: false, ..server() })) };
        let last = judge(&alone).split_off(HEAD.len());
        let none = ("redis.persistence", "ok", "no explicit aliases", "");
        check(&last, &[EVICTION, none, ("redis.replicas", "warning", "replicas: 0", "min-replicas-to-write 1")]);
    }
}
