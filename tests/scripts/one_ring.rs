//! P1: one ring for one login. P11: what an id cannot be. And what an alias means.

use evenring::ids::{Agent, Alias, Extension, SessionId};
use evenring::node::Live;
use evenring::node::session::{Outcome, Reason};
use evenring::registry::view::Verdict;
use evenring::registry::{Adopted, LoggedOut, Order};

use crate::redis_fixture::{Cluster, Member, id, login, why, whys};

#[tokio::test(flavor = "multi_thread")]
async fn p1_fifty_identical_logins_at_once_are_one_session() {
    let mut cluster = Cluster::start().await;
    let a = cluster.up("a", &["cc100"]).await;
    cluster.up("b", &["cc100"]).await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let (mut registry, at) = (cluster.another(), cluster.fresh());
        tasks.spawn(async move { registry.place(&login("cc100x", "7"), at).await.unwrap() });
    }
    let placements = tasks.join_all().await;
    let placed = placements.iter().filter(|p| p.verdict == Verdict::Placed).count();
    let existing = placements.iter().filter(|p| p.verdict == Verdict::Existing).count();
    assert_eq!((placed, existing), (1, 49));
    assert!(placements.iter().all(|p| p.session == placements[0].session && p.node == placements[0].node));
    let taken = cluster.take(&a).await.len();
    assert_eq!(taken, usize::from(placements[0].node == "a"));
}

#[tokio::test]
async fn p1_who_is_logged_in_keeps_the_session_under_any_name() {
    let mut cluster = Cluster::start().await;
    cluster.up("a", &["cc100", "cc101"]).await;
    let (session, _) = cluster.placed("cc100x", "7").await;
    for (alias, agent) in [("cc100x", "7"), ("cc100", "7"), ("cc100", ""), ("cc100x", "")] {
        let again = cluster.place(&login(alias, agent)).await;
        assert_eq!((again.verdict, again.session), (Verdict::Existing, Some(session)), "{alias} {agent}");
    }
    for alias in ["cc100x", "cc100"] {
        let other = cluster.place(&login(alias, "8")).await;
        assert_eq!((other.verdict, why(&other).as_str()), (Verdict::Refused, "in-use"), "{alias}");
        assert_eq!(other.session, Some(session), "the session that is in the way");
    }
}

#[tokio::test]
async fn p1_the_same_request_again_never_rings_twice_even_when_it_is_over() {
    let mut cluster = Cluster::start().await;
    let a = cluster.up("a", &["cc100"]).await;
    let (session, _) = cluster.placed("cc100x", "7").await;
    cluster.take(&a).await;
    cluster.report(&a, session, Outcome::Failed(Reason::Busy)).await;
    let again = cluster.registry.place(&login("cc100x", "7"), session).await.unwrap();
    assert_eq!((again.verdict, again.state.as_str(), why(&again).as_str()), (Verdict::Existing, "failed", "busy"));
    assert_eq!(cluster.take(&a).await, []);
}

#[tokio::test]
async fn p1_an_order_that_is_delivered_again_rings_nobody() {
    let mut cluster = Cluster::start().await;
    let a = cluster.up("a", &["cc100"]).await;
    let (session, _) = cluster.placed("cc100x", "7").await;
    assert!(matches!(&cluster.take(&a).await[..], [Order::Ring(login)] if login.session == session));
    assert_eq!(cluster.take(&a).await, [], "it is hidden");
    let order: Vec<String> = cluster.run(&["ZRANGE", "NS:ring-a", "0", "-1"]).await;
    cluster.run::<u64>(&["ZADD", "NS:ring-a", "1", &order[0]]).await;
    assert_eq!(cluster.take(&a).await, [Order::Stale(session.to_string())], "its visibility time is over");
    assert_eq!(cluster.run::<u64>(&["ZCARD", "NS:ring-a"]).await, 0);
}

#[tokio::test]
async fn p1_garbage_in_a_nodes_queue_is_stale_and_goes() {
    let mut cluster = Cluster::start().await;
    let a = cluster.up("a", &["cc100"]).await;
    let bodies =
        ["", "x", "[]", "7", "null", "{}", r#"{"kind":"ring","session":{}}"#, r#"{"kind":"hangup","session":[1]}"#];
    for (at, body) in bodies.iter().enumerate() {
        cluster.run::<u64>(&["ZADD", "NS:ring-a", "1", &format!("{at:032}")]).await;
        cluster.run::<u64>(&["HSET", "NS:ring-a:Q", &format!("{at:032}"), body]).await;
    }
    cluster.run::<u64>(&["ZADD", "NS:ring-a", "1", "without-a-body"]).await;
    let taken = cluster.take(&a).await;
    assert_eq!(taken.len(), bodies.len() + 1);
    assert!(taken.iter().all(|order| matches!(order, Order::Stale(_))), "{taken:?}");
    assert_eq!(cluster.run::<u64>(&["ZCARD", "NS:ring-a"]).await, 0);
}

#[tokio::test]
async fn logging_out_ends_what_was_not_rung_and_asks_for_the_rest() {
    let mut cluster = Cluster::start().await;
    let a = cluster.up("a", &["cc100"]).await;
    for who in ["cc100x", "cc100", "7", "the session"] {
        let (session, _) = cluster.placed("cc100x", "7").await;
        let name: Alias = if who == "the session" { id(&session.to_string()) } else { id(who) };
        let out = cluster.registry.logout(&name).await.unwrap();
        assert_eq!(out, LoggedOut::Ended(session, "a".into()), "{who}");
        assert_eq!(cluster.take(&a).await, [], "{who}: its order is gone");
        let (session, _) = cluster.placed("cc100x", "7").await;
        cluster.take(&a).await;
        assert_eq!(
            cluster
                .registry
                .logout(&id(who.split(' ').next().filter(|_| who != "the session").unwrap_or("7")))
                .await
                .unwrap(),
            LoggedOut::Asked(session, "a".into())
        );
        assert_eq!(cluster.take(&a).await, [Order::HangUp(session)]);
        assert_eq!(cluster.report(&a, session, Outcome::Ended(Reason::LoggedOut)).await, "done");
    }
    assert_eq!(cluster.registry.logout(&id("cc100x")).await.unwrap(), LoggedOut::Nobody);
}

#[tokio::test]
async fn a_log_out_while_it_rings_ends_it_instead_of_the_next_try() {
    let mut cluster = Cluster::start().await;
    let members = [cluster.up("a", &["cc100"]).await, cluster.up("b", &["cc100"]).await];
    let (session, node) = cluster.placed("cc100x", "7").await;
    let member = members.iter().find(|member| member.name.as_str() == node).unwrap();
    cluster.take(member).await;
    cluster.registry.logout(&id("7")).await.unwrap();
    assert_eq!(cluster.report(member, session, crate::redis_fixture::cannot()).await, "failed");
    assert_eq!(cluster.fate(session).await, ("ended".into(), "logged-out".into()));
}

#[tokio::test]
async fn the_suffix_comes_off_only_where_that_names_a_phone() {
    let mut cluster = Cluster::start().await;
    cluster.up("a", &["cc100", "max", "cc200x", "cc300", "cc300x"]).await;
    for (alias, extension) in [
        ("cc100x", "cc100"),
        ("cc100", "cc100"),
        ("max", "max"),
        ("maxx", "max"),
        ("cc200x", "cc200x"),
        ("cc200xx", "cc200x"),
        ("cc300x", "cc300"),
        ("cc300xx", "cc300x"),
    ] {
        let at = cluster.fresh();
        let explained = cluster.registry.explain(&login(alias, ""), at).await.unwrap();
        assert_eq!((explained.verdict, explained.extension.as_str()), (Verdict::WouldPlace, extension), "{alias}");
    }
    let unknown = cluster.place(&login("cc900x", "")).await;
    assert_eq!((why(&unknown).as_str(), whys(&unknown)), ("unknown-alias", vec![("a", "unknown-phone")]));
    assert_eq!(why(&cluster.place(&login("x", "")).await), "unknown-alias", "the suffix alone is no alias");
}

#[tokio::test]
async fn an_explicit_alias_wins_over_the_suffix_and_spares_phones_in_use() {
    let mut cluster = Cluster::start().await;
    cluster.up("a", &["cc100", "desk1"]).await;
    cluster.up("b", &["cc100", "desk2"]).await;
    cluster.alias("cc100x", &["desk1@a", "desk2@b"]).await;
    let (first, node) = cluster.placed("cc100x", "7").await;
    let own = if node == "a" { "desk1" } else { "desk2" };
    assert_eq!(cluster.row(first).await.extension, own);
    cluster.alias("other", &["desk1@a", "desk2@b", "desk3@nowhere"]).await;
    let second = cluster.place(&login("other", "8")).await;
    assert_eq!(second.state.as_str(), "placed");
    assert_ne!(second.extension, own);
    cluster.alias("third", &["desk1@a", "desk2@b", "desk3@nowhere"]).await;
    let third = cluster.place(&login("third", "9")).await;
    assert_eq!(whys(&third), [("a", "phone-in-use"), ("b", "phone-in-use"), ("nowhere", "unknown-node")]);
    // a dead node's session keeps nobody from its phone
    let survivor = if node == "a" { "b" } else { "a" };
    cluster.lapse(&node).await;
    cluster.alias("fourth", &[&format!("{own}@{survivor}")]).await;
    let at = cluster.fresh();
    assert_eq!(
        whys(&cluster.registry.explain(&login("fourth", "9"), at).await.unwrap()),
        [(survivor, "unknown-phone")]
    );
    cluster.alias("cc100x", &[]).await;
    assert_eq!(why(&cluster.place(&login("cc100x", "5")).await), "empty-alias");
}

#[test]
fn p11_no_id_can_leave_its_key_or_its_message() {
    for text in ["a b", "a\r\nb", "a:b", "{x}", "a@b", "a,b", "\"", "\\", "*", "\0", "é", "", &"a".repeat(65)] {
        assert!(text.parse::<Alias>().is_err() && text.parse::<Agent>().is_err(), "{text:?}");
        assert!(text.parse::<Extension>().is_err() && text.parse::<evenring::ids::NodeName>().is_err(), "{text:?}");
    }
}

/// What a frozen Redis still had in a connection that its daemon has given up, as it stands on the wire.
async fn report_late(cluster: &mut Cluster, member: &Member, session: SessionId, number: u64) -> String {
    let script = redis::Script::new(&evenring::registry::script_text("report").expect("a script"));
    let mut call = script.prepare_invoke();
    call.key("{evenring}").arg(member.name.as_str()).arg(member.generation.to_string()).arg(number);
    for word in ["10000", "600000", "0", "60000", "down", "1000"] {
        call.arg(word);
    }
    call.arg(session.to_string()).arg("try-next-node").arg("node-lost");
    let reply: Vec<redis::Value> = call.invoke_async(&mut cluster.raw).await.unwrap();
    redis::from_redis_value(reply[0].clone()).unwrap()
}

/// Found by the simulation: the daemon had lost its Asterisk, said so to a Redis that was frozen, and found the call again.
#[tokio::test]
async fn p1_a_report_that_comes_after_what_was_said_later_changes_nothing() {
    let mut cluster = Cluster::start().await;
    let a = cluster.up("a", &["cc100"]).await;
    let (session, _) = cluster.placed("cc100x", "7").await;
    let Order::Ring(channel) = cluster.take(&a).await.remove(0) else { panic!("no order") };
    let found = [(channel, Live::Yes)];
    assert_eq!(cluster.registry.adopt(&a.name, a.generation, &found).await.unwrap(), [Adopted::Kept]);
    let said: u64 = cluster.run(&["HGET", "NS:node:a", "writes"]).await;
    for number in [said, said - 1] {
        assert_eq!(report_late(&mut cluster, &a, session, number).await, "superseded");
    }
    assert_eq!(cluster.fate(session).await, ("live".into(), String::new()));
    assert_eq!(cluster.node("a").await.state.as_str(), "active", "nor is the node down");
    // The next one counts, and so do those of its next life, which are numbered anew.
    assert_eq!(report_late(&mut cluster, &a, session, said + 1).await, "ok");
    let a = cluster.up("a", &["cc100"]).await;
    assert_eq!(report_late(&mut cluster, &a, session, 1).await, "ok");
}
