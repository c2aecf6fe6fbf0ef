//! Judges whether Redis is set up for the cluster. Owns the judgement of what Redis returned. Must never query Redis.

use super::finding::{Finding, some};
use crate::registry::inspect::{Rights, Server};

/// What is known about the server.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) rights: Rights,
    /// `None`: this user may not read the settings, and no admin was named. `Err`: why the named admin cannot.
    pub(super) server: Result<Option<Server>, String>,
    /// Why it takes no writes, and what to do.
    pub(super) refused: Option<(String, &'static str)>,
    /// What somebody without a login may do there.
    pub(super) stranger: Stranger,
    /// Nobody on another host is meant by redis.url.
    pub(super) local: bool,
    /// What each sentinel says; empty without Sentinel.
    pub(super) sentinels: Vec<(String, Result<String, String>)>,
    /// Redis's clock minus ours.
    pub(super) clock_ahead_ms: i64,
    /// Explicit aliases: the only thing that only Redis knows.
    pub(super) aliases: usize,
    /// Behind Sentinel.
    pub(super) sentinel: bool,
}

/// How Redis receives somebody without user and password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stranger {
    /// It lets everybody in.
    In,
    /// It wants a login.
    Out,
    /// It said something else.
    Unknown(String),
}

/// With a larger difference, timestamps in logs cannot be compared.
const CLOCKS_APART_MS: i64 = 2_000;
/// Of maxmemory.
const FULL_PERCENT: u64 = 90;

pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![version(&facts.rights.version)];
    findings.extend(rights(&facts.rights));
    if let Some((why, advice)) = &facts.refused {
        let text = format!("{why}: all logins are refused, and nodes that cannot write count as lost");
        findings.push(Finding::failure("redis.write", text, *advice));
    }
    findings.push(clock(facts.clock_ahead_ms));
    findings.push(stranger(facts));
    findings.extend(sentinels(&facts.sentinels));
    match &facts.server {
        Ok(Some(server)) => {
            let mut found = judge_server(server, facts);
            if facts.refused.is_some() {
                // The same cause, seen a second time.
                found.retain(|finding| {
                    !["redis.memory", "redis.persistence.failed", "redis.replicas.role", "redis.replicas.few"]
                        .contains(&finding.code)
                });
            }
            findings.extend(found);
        }
        Err(why) => findings.push(Finding::failure("redis.server", why, "correct EVENRING_REDIS_ADMIN_URL")),
        Ok(None) => findings.push(Finding::note(
            "redis.server",
            "bind, protected mode, memory, eviction, persistence and replicas were not checked: this Redis user may not \
                read them",
            "run doctor as a Redis admin: EVENRING_REDIS_ADMIN_URL=redis://default:...@host:6379 evenring doctor \
                (behind Sentinel: a URL of the same form as redis.url, with the admin's login)",
        ).code("redis.server.unchecked")),
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
        findings.push(Finding::failure("redis.acl", text, fix).code("redis.acl.missing"));
    }
    if !rights.excess.is_empty() {
        let text = format!("the Redis user has more rights than evenring needs: {}", some(&rights.excess));
        findings.push(Finding::warning("redis.acl", text, fix).code("redis.acl.excess"));
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

/// Whoever is the default user may empty Redis, and log everybody out.
fn stranger(facts: &Facts) -> Finding {
    let fix = "in Redis's ACL file or redis.conf: turn its default user off (`user default off`) or give it a password \
        (`requirepass`), after evenring has a user of its own (docs/redis.md, Users)";
    match (&facts.stranger, facts.local) {
        (Stranger::Out, _) => Finding::ok("redis.default-user", "Redis lets nobody in without a login"),
        (Stranger::In, true) => Finding::note(
            "redis.default-user",
            "every user of this host can use Redis without a password, and other hosts cannot use it at all as long as \
                it is in protected mode",
            fix,
        ),
        (Stranger::In, false) => Finding::failure(
            "redis.default-user",
            "whoever reaches Redis over the network can use it without a password: its default user has none",
            fix,
        ),
        (Stranger::Unknown(why), _) => Finding::note(
            "redis.default-user",
            format!("whether Redis lets everybody in could not be checked: {why}"),
            "compare Redis's users with docs/redis.md, Users",
        )
        .code("redis.default-user.unchecked"),
    }
}

fn sentinels(said: &[(String, Result<String, String>)]) -> Option<Finding> {
    let named: std::collections::BTreeSet<&String> = said.iter().filter_map(|(_, said)| said.as_ref().ok()).collect();
    let silent: Vec<String> =
        said.iter().filter_map(|(host, said)| said.as_ref().err().map(|why| format!("{host} ({why})"))).collect();
    let fix = "see docs/redis.md, Sentinel; `redis-cli -p 26379 sentinel masters` on each host";
    if named.len() > 1 {
        let text = format!(
            "the sentinels name different primaries: {}",
            some(&named.iter().map(|name| (*name).clone()).collect::<Vec<_>>())
        );
        return Some(Finding::failure("redis.sentinel", text, fix));
    }
    if !silent.is_empty() {
        return Some(Finding::warning(
            "redis.sentinel",
            format!("sentinels that name no primary: {}", some(&silent)),
            fix,
        ));
    }
    let primary = named.first()?;
    Some(Finding::ok("redis.sentinel", format!("all {} sentinels name {primary}", said.len())))
}

/// Who can connect at all.
fn bind(server: &Server, facts: &Facts) -> Finding {
    let is_local = |address: &str| {
        let address = address.trim_start_matches('-');
        address == "localhost" || address.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
    };
    let (bind, protected) = (server.bind.as_str(), server.protected_mode);
    let open = bind.is_empty() || !bind.split_whitespace().all(is_local);
    let shown = if bind.is_empty() { "all addresses" } else { bind };
    let mode = if protected { "yes" } else { "no" };
    // Where redis.url is another host, that it lets everybody in has been said.
    if open && !protected && facts.local && facts.stranger == Stranger::In {
        return Finding::failure(
            "redis.bind",
            format!("Redis listens on {shown} without protected mode, and its default user has no password"),
            "`bind` only the addresses that the nodes use, and close the default user (docs/redis.md, Users)",
        );
    }
    Finding::ok("redis.bind", format!("bind {shown}, protected-mode {mode}"))
}

fn judge_server(server: &Server, facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![bind(server, facts)];
    findings.push(eviction(server));
    if server.maxmemory > 0 && server.used_memory * 100 >= server.maxmemory * FULL_PERCENT {
        findings.push(
            Finding::warning(
                "redis.memory",
                format!("{} of {} bytes of maxmemory are used", server.used_memory, server.maxmemory),
                "raise maxmemory: when Redis is full, logins are refused",
            )
            .code("redis.memory"),
        );
    }
    findings.push(persistence(server, facts.aliases));
    if !server.last_save_ok {
        findings.push(
            Finding::failure(
                "redis.persistence",
                "Redis could not write its last RDB snapshot or append-only file, and may refuse all writes",
                "see Redis's log: its disk is full, or its directory is not writable",
            )
            .code("redis.persistence.failed"),
        );
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
        )
        .code("redis.eviction.unused"),
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
        )
        .code("redis.persistence.off"),
    }
}

fn replicas(server: &Server, sentinel: bool) -> Finding {
    let (replicas, least) = (server.replicas, server.min_replicas_to_write);
    if server.role != "master" {
        return Finding::failure(
            "redis.replicas",
            format!("this Redis is a {}: it accepts no writes", server.role),
            "point redis.url at the primary, or at the sentinels (docs/operations.md, Redis Sentinel)",
        )
        .code("redis.replicas.role");
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
        )
        .code("redis.replicas.min");
    }
    if replicas < least {
        return Finding::failure(
            "redis.replicas",
            format!("connected replicas: {replicas}, min-replicas-to-write: {least}; writes are refused"),
            "bring replicas back",
        )
        .code("redis.replicas.few");
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
            bind: "127.0.0.1 -::1".into(),
            protected_mode: true,
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
        Facts {
            rights,
            server: Ok(server),
            refused: None,
            stranger: Stranger::Out,
            local: false,
            sentinels: Vec::new(),
            clock_ahead_ms: -12,
            aliases: 2,
            sentinel: false,
        }
    }

    const HEAD: [(&str, &str, &str, &str); 4] = [
        ("redis.version", "ok", "Redis 7.0.15", ""),
        ("redis.acl", "ok", "exactly the rights", ""),
        ("redis.clock", "ok", "12 ms off", ""),
        ("redis.default-user", "ok", "nobody in without", ""),
    ];
    const BIND: (&str, &str, &str, &str) = ("redis.bind", "ok", "bind 127.0.0.1 -::1, protected-mode yes", "");
    const EVICTION: (&str, &str, &str, &str) = ("redis.eviction", "ok", "noeviction", "");
    const RDB: (&str, &str, &str, &str) = ("redis.persistence", "ok", "RDB", "");
    const SINGLE: (&str, &str, &str, &str) = ("redis.replicas", "ok", "single", "");

    #[test]
    fn a_good_redis_and_one_that_may_not_be_looked_at() {
        check(&judge(&facts(Some(server()))), &[&HEAD[..], &[BIND, EVICTION, RDB, SINGLE]].concat());
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
                HEAD[3],
                ("redis.server", "note", "", ""),
            ],
        );
    }

    /// One cause, one finding, one advice.
    #[test]
    fn a_redis_that_takes_no_writes_is_one_finding() {
        let full = Server { maxmemory: 1_000_000, last_save_ok: false, min_replicas_to_write: 1, ..server() };
        let refused = Some(("Redis accepts no writes: OOM".to_owned(), "raise maxmemory"));
        check(
            &judge(&Facts { refused, ..facts(Some(full)) }),
            &[
                HEAD[0],
                HEAD[1],
                ("redis.write", "failure", "OOM: all logins are refused", "raise maxmemory"),
                HEAD[2],
                HEAD[3],
                BIND,
                EVICTION,
                RDB,
                SINGLE,
            ],
        );
    }

    #[test]
    fn a_default_user_without_a_password() {
        let of = |stranger, local| judge(&Facts { stranger, local, ..facts(None) }).remove(3);
        check(&[of(Stranger::In, true)], &[("redis.default-user", "note", "every user of this host", "docs/redis.md")]);
        check(&[of(Stranger::In, false)], &[("redis.default-user", "failure", "over the network", "default off")]);
        let unknown = Stranger::Unknown("no answer".into());
        check(&[of(unknown, false)], &[("redis.default-user", "note", "not be checked: no answer", "docs/redis.md")]);
        let open = Server { bind: "* -::*".into(), protected_mode: false, ..server() };
        let found = judge(&Facts { stranger: Stranger::In, local: true, ..facts(Some(open)) });
        check(&found[4..5], &[("redis.bind", "failure", "listens on * -::* without", "default user")]);
    }

    #[test]
    fn sentinels_that_are_silent_or_disagree() {
        let said = |rows: &[(&str, Result<&str, &str>)]| {
            let own = |text: &str| text.to_owned();
            let rows: Vec<_> = rows.iter().map(|(host, said)| (own(host), said.map(own).map_err(own))).collect();
            sentinels(&rows).into_iter().collect::<Vec<_>>()
        };
        check(&said(&[]), &[]);
        check(&said(&[("s1", Ok("a")), ("s2", Ok("a"))]), &[("redis.sentinel", "ok", "all 2 sentinels name a", "")]);
        check(
            &said(&[("s1", Ok("a")), ("s2", Err("refused"))]),
            &[("redis.sentinel", "warning", "s2 (refused)", "docs/redis.md")],
        );
        check(
            &said(&[("s1", Ok("a")), ("s2", Ok("b"))]),
            &[("redis.sentinel", "failure", "different primaries: a, b", "docs/redis.md")],
        );
    }

    #[test]
    fn memory_disk_and_replicas() {
        let with = |change: fn(&mut Server)| {
            let mut server = server();
            change(&mut server);
            judge(&facts(Some(server))).split_off(HEAD.len() + 1)
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
        let last = judge(&alone).split_off(HEAD.len() + 1);
        let none = ("redis.persistence", "ok", "no explicit aliases", "");
        check(&last, &[EVICTION, none, ("redis.replicas", "warning", "replicas: 0", "min-replicas-to-write 1")]);
    }
}
