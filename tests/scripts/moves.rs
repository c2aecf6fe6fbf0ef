//! An agent at another desk: refused, unless they move; and a move is one step (P1, P2, P7).

use evenring::node::session::{Outcome, Reason};
use evenring::registry::view::{MovedFrom, Placement, Verdict};
use evenring::registry::{Adopted, LoginRequest, Order, session_of_message};

use crate::redis_fixture::{Cluster, Member, id, login, node, why, whys};

fn moves(alias: &str, agent: &str) -> LoginRequest {
    LoginRequest { moves: true, ..login(alias, agent) }
}

/// The session that an answer speaks of: alias, extension, agent, node.
fn of(placement: &Placement) -> [&str; 4] {
    [&placement.session_alias, &placement.extension, &placement.agent, &placement.node]
}

async fn live(cluster: &mut Cluster, member: &Member, alias: &str, agent: &str) -> evenring::ids::SessionId {
    let (session, _) = cluster.placed(alias, agent).await;
    cluster.take(member).await;
    assert_eq!(cluster.report(member, session, Outcome::Live).await, "done");
    session
}

async fn holder(cluster: &mut Cluster, field: &str) -> Option<String> {
    cluster.run(&["HGET", "NS:holders", field]).await
}

#[tokio::test]
async fn another_phone_is_refused_and_the_answer_says_where_the_agent_is() {
    let mut cluster = Cluster::start().await;
    let a = cluster.up("a", &["cc100", "cc116"]).await;
    let session = live(&mut cluster, &a, "cc100x", "7").await;
    for request in [login("cc116x", "7"), login("cc116", "7"), login("cc900x", "7")] {
        let refused = cluster.place(&request).await;
        assert_eq!((refused.verdict, why(&refused).as_str()), (Verdict::Refused, "logged-in-elsewhere"), "{request:?}");
        assert_eq!((refused.session, of(&refused)), (Some(session), ["cc100x", "cc100", "7", "a"]), "{request:?}");
    }
    let at = cluster.fresh();
    assert_eq!(why(&cluster.registry.explain(&login("cc116x", "7"), at).await.unwrap()), "logged-in-elsewhere");
    assert_eq!(cluster.take(&a).await, [], "nothing rings, and nobody is hung up");
    // The same phone by another name is the same login, also with --move.
    cluster.alias("desk", &["cc100@a", "cc116@a"]).await;
    for request in [login("cc100", "7"), login("desk", "7"), moves("cc100x", "7"), moves("desk", "7")] {
        let again = cluster.place(&request).await;
        assert_eq!((again.verdict, again.session), (Verdict::Existing, Some(session)), "{request:?}");
        assert_eq!((of(&again), &again.moved_from), (["cc100x", "cc100", "7", "a"], &None), "{request:?}");
    }
    assert_eq!(cluster.take(&a).await, []);
    assert_eq!(cluster.fate(session).await.0, "live");
}

#[tokio::test]
async fn p7_an_agent_who_moves_is_logged_out_and_placed_in_one_step() {
    let mut cluster = Cluster::start().await;
    let a = cluster.up("a", &["cc100", "cc116"]).await;
    let old = live(&mut cluster, &a, "cc100x", "7").await;
    let moved = cluster.place(&moves("cc116x", "7")).await;
    let new = moved.session.unwrap();
    assert_eq!((moved.verdict, of(&moved)), (Verdict::Placed, ["cc116x", "cc116", "7", "a"]));
    let was = MovedFrom { session: old.to_string(), extension: "cc100".into(), node: "a".into() };
    assert_eq!(moved.moved_from, Some(was));
    let orders = cluster.take(&a).await;
    assert!(
        matches!(&orders[..], [Order::HangUp(out), Order::Ring(login)] | [Order::Ring(login), Order::HangUp(out)]
            if *out == old && login.session == new && login.extension.as_str() == "cc116"),
        "{orders:?}"
    );
    // Until its call is over, the old one keeps phone and alias (P1), and is load (P5); the agent is the new one's.
    assert_eq!(cluster.fate(old).await.0, "live");
    let (agent, phone) = (holder(&mut cluster, "agent:7").await, holder(&mut cluster, "phone:cc100").await);
    assert_eq!((agent, phone), (Some(new.to_string()), Some(old.to_string())));
    assert_eq!(why(&cluster.place(&login("cc100x", "8")).await), "in-use");
    assert_eq!(why(&cluster.place(&login("cc100x", "")).await), "in-use", "it is no login of theirs any more");
    // The answer was lost, or the button was pressed twice.
    let again = cluster.registry.place(&moves("cc116x", "7"), new).await.unwrap();
    assert_eq!((again.verdict, again.session), (Verdict::Existing, Some(new)));
    assert_eq!(cluster.place(&moves("cc116x", "7")).await.session, Some(new));
    assert_eq!(cluster.take(&a).await, [], "nothing is ordered twice");

    assert_eq!(cluster.report(&a, old, Outcome::Ended(Reason::LoggedOut)).await, "done");
    assert_eq!(cluster.fate(old).await, ("ended".into(), "moved".into()));
    assert_eq!(holder(&mut cluster, "agent:7").await, Some(new.to_string()));
    assert_eq!(cluster.report(&a, new, Outcome::Live).await, "done");
    assert_eq!(cluster.place(&login("cc100x", "8")).await.verdict, Verdict::Placed, "its phone is free");
}

#[tokio::test]
async fn what_has_not_rung_yet_ends_at_once() {
    let mut cluster = Cluster::start().await;
    let a = cluster.up("a", &["cc100", "cc116"]).await;
    let (old, _) = cluster.placed("cc100x", "7").await;
    let new = cluster.place(&moves("cc116x", "7")).await.session.unwrap();
    assert_eq!(cluster.fate(old).await, ("ended".into(), "moved".into()));
    let orders = cluster.take(&a).await;
    assert!(matches!(&orders[..], [Order::Ring(login)] if login.session == new), "{orders:?}");
    // It rings, and does not reach its phone: no other node is tried, for the agent has moved on.
    let b = cluster.up("b", &["cc116", "cc200"]).await;
    let last = cluster.place(&moves("cc200x", "7")).await;
    assert_eq!(cluster.report(&a, new, crate::redis_fixture::cannot()).await, "failed");
    assert_eq!(cluster.fate(new).await, ("ended".into(), "moved".into()));
    assert_eq!(last.node, "b");
    assert!(matches!(&cluster.take(&b).await[..], [Order::Ring(login)] if Some(login.session) == last.session));
}

/// An agent who can not move keeps what they have.
#[tokio::test]
async fn a_move_that_is_refused_ends_nothing() {
    let mut cluster = Cluster::start().await;
    let a = cluster.up("a", &["cc100", "cc101"]).await;
    let old = live(&mut cluster, &a, "cc100x", "7").await;
    live(&mut cluster, &a, "cc101x", "8").await;
    for (alias, reason) in [("cc101x", "in-use"), ("cc900x", "unknown-alias")] {
        let refused = cluster.place(&moves(alias, "7")).await;
        assert_eq!((refused.verdict, why(&refused).as_str()), (Verdict::Refused, reason), "{alias}");
    }
    cluster.alias("far", &["cc101@nowhere"]).await;
    let refused = cluster.place(&moves("far", "7")).await;
    assert_eq!((why(&refused).as_str(), whys(&refused)), ("no-eligible-node", vec![("nowhere", "unknown-node")]));
    assert_eq!(cluster.take(&a).await, []);
    assert_eq!(cluster.fate(old).await.0, "live");
    assert_eq!(holder(&mut cluster, "agent:7").await, Some(old.to_string()));
}

/// The place that the agent leaves is free for them, and where they go is even with it.
#[tokio::test]
async fn p2_who_moves_is_no_load_where_they_leave() {
    let mut cluster = Cluster::start().await;
    let a =
        cluster.up_as(evenring::config::NodeSettings { max_agents: Some(1), ..node("a") }, &["cc100", "cc116"]).await;
    let old = live(&mut cluster, &a, "cc100x", "7").await;
    assert_eq!(why(&cluster.place(&login("cc116x", "8")).await), "no-eligible-node", "it is full");
    let moved = cluster.place(&moves("cc116x", "7")).await;
    assert_eq!((moved.verdict, moved.node.as_str()), (Verdict::Placed, "a"), "not for whoever leaves");
    cluster.take(&a).await;
    cluster.report(&a, old, Outcome::Ended(Reason::LoggedOut)).await;

    cluster.up("b", &["cc100", "cc101", "cc116"]).await;
    let other = cluster.place(&login("cc101x", "8")).await;
    assert_eq!(other.node, "b");
    for alias in ["cc100x", "cc116x", "cc100x", "cc116x"] {
        // Both nodes have one agent; with the one who leaves counted, b would be as good.
        let moved = cluster.place(&moves(alias, "7")).await;
        assert_eq!((moved.verdict, moved.node.as_str()), (Verdict::Placed, "a"), "{alias}");
        cluster.take(&a).await;
        let all: Vec<String> = cluster.run(&["SMEMBERS", "NS:local:a"]).await;
        for session in all {
            if cluster.run::<bool>(&["HEXISTS", &format!("NS:session:{session}"), "moved_to"]).await {
                cluster.report(&a, id(&session), Outcome::Ended(Reason::LoggedOut)).await;
            }
        }
    }
}

/// Whoever finds the call of the old session again hangs it up: after a restart, a lost order, a lost lease.
#[tokio::test]
async fn p12_a_move_outlives_a_lost_order() {
    let mut cluster = Cluster::start().await;
    let a = cluster.up("a", &["cc100", "cc116"]).await;
    let old = live(&mut cluster, &a, "cc100x", "7").await;
    let login_of_old = cluster.row(old).await;
    let new = cluster.place(&moves("cc116x", "7")).await.session.unwrap();
    cluster.run::<u64>(&["DEL", "NS:ring-a", "NS:ring-a:Q"]).await;
    let found = evenring::node::session::Login {
        session: old,
        attempt: 1,
        alias: id(&login_of_old.alias),
        extension: id(&login_of_old.extension),
        agent: id("7"),
        campaign: None,
        class: evenring::node::session::Class::Local,
    };
    let found = [(found, evenring::node::Live::Yes)];
    assert_eq!(cluster.registry.adopt(&a.name, a.generation, &found).await.unwrap(), [Adopted::Stale]);
    assert_eq!(holder(&mut cluster, "agent:7").await, Some(new.to_string()));
    // The new one is over before the old call is: the agent is nobody's.
    assert_eq!(cluster.registry.logout(&id("7")).await.unwrap(), evenring::registry::LoggedOut::Ended(new, "a".into()));
    assert_eq!(cluster.registry.adopt(&a.name, a.generation, &found).await.unwrap(), [Adopted::Stale]);
    assert_eq!(holder(&mut cluster, "agent:7").await, None);
    assert_eq!(cluster.report(&a, old, Outcome::Ended(Reason::LoggedOut)).await, "done");
    assert_eq!(cluster.fate(old).await, ("ended".into(), "moved".into()));
}

/// Many at once, from many desks: in the end the agent has one session, and every other one has been told to end.
#[tokio::test(flavor = "multi_thread")]
async fn p1_thirty_moves_at_once_leave_one_session_of_the_agent() {
    let mut cluster = Cluster::start().await;
    let phones: Vec<String> = (100..130).map(|number| format!("cc{number}")).collect();
    let a = cluster.up("a", &phones.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let first = live(&mut cluster, &a, "cc100x", "7").await;
    let mut tasks = tokio::task::JoinSet::new();
    for phone in &phones {
        let (mut registry, at, request) = (cluster.another(), cluster.fresh(), moves(&format!("{phone}x"), "7"));
        tasks.spawn(async move { registry.place(&request, at).await.unwrap() });
    }
    let placements = tasks.join_all().await;
    assert!(placements.iter().all(|p| p.verdict != Verdict::Refused), "{placements:?}");
    let open: Vec<String> = cluster.run(&["ZRANGE", "NS:index:open", "0", "-1"]).await;
    let last = holder(&mut cluster, "agent:7").await.unwrap();
    let orders = cluster.take(&a).await;
    let (out, ring): (Vec<_>, Vec<_>) = orders.iter().partition(|order| matches!(order, Order::HangUp(_)));
    assert!(matches!(&ring[..], [Order::Ring(login)] if login.session.to_string() == last), "{orders:?}");
    assert!(matches!(&out[..], [Order::HangUp(session)] if *session == first), "{orders:?}");
    assert_eq!(open.len(), 2, "the last, and the call that is being hung up: {open:?}");
}

#[tokio::test]
async fn the_inbox_moves_an_agent_as_the_command_does() {
    let mut cluster = Cluster::start().await;
    let a = cluster.up("a", &["cc100", "cc116"]).await;
    let old = live(&mut cluster, &a, "cc100x", "7").await;
    let bodies =
        [r#"{"alias":"cc116x","agent":"7","reply":"w"}"#, r#"{"alias":"cc116x","agent":"7","move":true,"reply":"w"}"#];
    for (at, body) in bodies.iter().enumerate() {
        cluster.run::<u64>(&["ZADD", "NS:logins", &at.to_string(), &format!("{at:032}")]).await;
        cluster.run::<u64>(&["HSET", "NS:logins:Q", &format!("{at:032}"), body]).await;
    }
    let messages = cluster.registry.receive_logins(10, None).await.unwrap().messages;
    cluster.registry.settle_logins(&messages).await.unwrap();
    let new = session_of_message(&messages[1].id);
    let sent: Vec<String> = cluster.run(&["HVALS", "NS:w:Q"]).await;
    let answers: Vec<serde_json::Value> =
        sent.iter().filter_map(|text| serde_json::from_str(text).ok()).filter(serde_json::Value::is_object).collect();
    let refused = serde_json::json!({"alias": "cc116x", "outcome": "refused", "state": "refused", "agent": "7",
        "reason": "logged-in-elsewhere", "session": old.to_string(), "session_alias": "cc100x", "extension": "cc100",
        "node": "a", "moved_from": ""});
    let placed = serde_json::json!({"alias": "cc116x", "outcome": "placed", "state": "placed", "agent": "7",
        "reason": "", "session": new.to_string(), "session_alias": "cc116x", "extension": "cc116",
        "node": "a", "moved_from": old.to_string()});
    assert_eq!(answers.len(), 2, "{answers:?}");
    assert!(answers.contains(&refused) && answers.contains(&placed), "{answers:#?}");
}
