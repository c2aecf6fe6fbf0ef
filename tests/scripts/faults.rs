//! What Redis unavailable looks like: which error, how soon, and that the next call works when it is back.

use std::net::Ipv4Addr;
use std::time::Duration;

use evenring::registry::view::Verdict;
use evenring::registry::{Registry, RegistryError};

use crate::lab::now;
use crate::lab::redis::Redis;
use crate::redis_fixture::{Cluster, connect, login, previous, session, settings, word};

fn registry(redis: &Redis) -> Registry {
    Registry::new(&settings(&redis.url(), "")).unwrap()
}

fn with(arguments: &[&str]) -> Redis {
    Redis::start_with(Ipv4Addr::LOCALHOST, arguments)
}

/// The error of a call that writes.
async fn refused(registry: &mut Registry) -> RegistryError {
    let node = crate::redis_fixture::node("a");
    let generation = evenring::ids::Generation::from_bits(1);
    registry.register(&node, generation, "host").await.expect_err("this Redis must refuse")
}

#[tokio::test]
async fn no_redis_is_unreachable_and_found_again_by_the_same_registry() {
    let mut cluster = Cluster::start().await;
    cluster.up("a", &["cc100"]).await;
    cluster.redis.kill9();
    assert_eq!(word(cluster.registry.nodes().await), "unreachable");
    assert_eq!(word(cluster.registry.place(&login("cc100x", ""), session(77)).await), "unreachable");
    cluster.redis.start_again();
    assert_eq!(cluster.registry.nodes().await.unwrap(), [], "empty, and the scripts are loaded anew");
}

#[tokio::test]
async fn a_wrong_password_is_denied_and_never_shown() {
    let redis = with(&["--requirepass", "right"]).with_credentials("default:wrongpassword@");
    let error = refused(&mut registry(&redis)).await;
    assert!(!format!("{error} {error:?}").contains("wrongpassword"), "P13: {error:?}");
    assert_eq!(word::<()>(Err(error)), "denied");
    let none = with(&["--requirepass", "right"]);
    let error = refused(&mut registry(&none)).await;
    assert!(matches!(error, RegistryError::Denied { .. }), "{error:?}");
    // may not run scripts; may, but not what they do; may, but not on these keys
    for rules in ["~* &* +@read +@connection", "~* &* +@scripting +@read +@connection", "~other* &* +@all"] {
        let words: Vec<&str> = "--user poor on >x".split(' ').chain(rules.split(' ')).collect();
        let poor = with(&words).with_credentials("poor:x@");
        let error = refused(&mut registry(&poor)).await;
        assert!(matches!(error, RegistryError::Denied { .. }), "{rules}: {error:?}");
    }
}

#[track_caller]
fn check_unwritable(error: RegistryError, advice: &str) {
    let shown = format!("{error:?}");
    assert!(shown.contains(advice), "{shown}");
    assert!(error.is_outage());
    assert_eq!(word::<()>(Err(error)), "not-writable", "{shown}");
}

#[tokio::test]
async fn a_redis_that_cannot_be_written_says_why() {
    let primary = with(&[]);
    let port = primary.address().port().to_string();
    let replica = with(&["--replicaof", "127.0.0.1", &port]);
    check_unwritable(refused(&mut registry(&replica)).await, "point redis.url at the primary");
    let full = with(&["--maxmemory", "1", "--maxmemory-policy", "noeviction"]);
    check_unwritable(refused(&mut registry(&full)).await, "raise maxmemory");
    let lonely = with(&["--min-replicas-to-write", "1"]);
    check_unwritable(refused(&mut registry(&lonely)).await, "min-replicas-to-write");
}

#[tokio::test]
async fn a_redis_that_fills_up_changes_nothing_by_halves() {
    let mut cluster = Cluster::start().await;
    let a = cluster.up("a", &["cc100"]).await;
    cluster.run::<()>(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]).await;
    cluster.run::<()>(&["CONFIG", "SET", "maxmemory", "1"]).await;
    check_unwritable(cluster.registry.place(&login("cc100x", "7"), session(77)).await.unwrap_err(), "raise maxmemory");
    cluster.run::<()>(&["CONFIG", "SET", "maxmemory", "0"]).await;
    assert_eq!(cluster.node("a").await.agents, 0);
    assert_eq!(cluster.run::<u64>(&["HLEN", "NS:holders"]).await, 0);
    cluster.placed("cc100x", "7").await;
    assert_eq!(cluster.take(&a).await.len(), 1);
}

/// Nodes that cannot write lose their leases. That is not why nobody can log in, at either door.
#[tokio::test]
async fn a_full_redis_is_the_reason_and_not_the_nodes_that_it_lost() {
    for silent in [false, true] {
        let mut cluster = Cluster::start().await;
        cluster.up("a", &["cc100"]).await;
        if silent {
            cluster.silence(600_000).await;
        } else {
            cluster.lapse("a").await;
        }
        let verdict = cluster.place(&login("cc100x", "7")).await.verdict;
        assert_eq!(verdict, if silent { Verdict::NotNow } else { Verdict::Refused });
        cluster.registry.try_login().await.unwrap();
        cluster.run::<u64>(&["ZADD", "NS:logins", "0", "message"]).await;
        cluster.run::<u64>(&["HSET", "NS:logins:Q", "message", r#"{"alias":"cc100x","reply":"web"}"#]).await;
        let messages = cluster.registry.receive_logins(10, None).await.unwrap().messages;
        cluster.run::<()>(&["CONFIG", "SET", "maxmemory-policy", "noeviction", "maxmemory", "1"]).await;
        let refused = cluster.registry.place(&login("cc100x", "7"), session(77)).await;
        check_unwritable(refused.unwrap_err(), "raise maxmemory");
        check_unwritable(cluster.registry.try_login().await.unwrap_err(), "raise maxmemory");
        if !silent {
            check_unwritable(cluster.registry.settle_logins(&messages).await.unwrap_err(), "raise maxmemory");
        }
        assert_eq!(cluster.run::<u64>(&["ZCARD", "NS:logins"]).await, 1, "the login waits in the inbox");
    }
}

#[tokio::test]
async fn what_a_login_may_not_do_is_named_and_nothing_is_written_for_it() {
    let mut cluster = Cluster::start().await;
    cluster.up("a", &["cc100"]).await;
    cluster.registry.try_login().await.unwrap();
    assert_eq!(cluster.run::<u64>(&["HLEN", "NS:index:try"]).await, 1);
    assert!(cluster.run::<i64>(&["PTTL", "NS:index:try"]).await > 0, "it ends by itself");
    cluster.run::<u64>(&["DEL", "NS:index:try"]).await;
    cluster.run::<()>(&["ACL", "SETUSER", "default", "-zadd", "-publish", "-xadd"]).await;
    let placed = cluster.registry.place(&login("cc100x", "7"), session(77)).await;
    for error in [placed.unwrap_err(), cluster.registry.try_login().await.unwrap_err()] {
        let RegistryError::Lacks { missing, .. } = &error else { panic!("{error:?}") };
        assert_eq!(missing, "PUBLISH, ZADD");
        assert!(error.is_outage() && error.needs_people(), "{error}");
    }
    assert_eq!(cluster.run::<u64>(&["EXISTS", "NS:index:try"]).await, 0);
    cluster.run::<()>(&["ACL", "SETUSER", "default", "+zadd", "+publish"]).await;
    cluster.registry.try_login().await.expect("without the event stream, logins work");
}

#[tokio::test]
async fn p8_a_frozen_redis_is_unreachable_in_time_and_works_after_the_thaw() {
    let mut cluster = Cluster::with("redis.connect_timeout = '500ms'\nredis.response_timeout = '500ms'").await;
    cluster.up("a", &["cc100"]).await;
    cluster.redis.sigstop();
    let begin = now();
    // The first call has a connection, the second one needs a new one. 500 ms each is the limit.
    for _ in 0..2 {
        assert_eq!(word(cluster.registry.nodes().await), "unreachable");
    }
    let took = begin.elapsed();
    assert!(took < Duration::from_millis(5000), "{took:?}");
    cluster.redis.sigcont();
    assert_eq!(cluster.registry.nodes().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_demoted_primary_is_left_at_once() {
    let primary = with(&[]);
    let mut registry = registry(&primary);
    registry.nodes().await.unwrap();
    let mut raw = connect(&primary).await;
    let demote: Result<(), _> = redis::cmd("REPLICAOF").arg("127.0.0.1").arg("1").query_async(&mut raw).await;
    demote.unwrap();
    check_unwritable(refused(&mut registry).await, "point redis.url at the primary");
    let promote: Result<(), _> = redis::cmd("REPLICAOF").arg("NO").arg("ONE").query_async(&mut raw).await;
    promote.unwrap();
    let generation = evenring::ids::Generation::from_bits(1);
    previous(registry.register(&crate::redis_fixture::node("a"), generation, "host").await.unwrap());
}
