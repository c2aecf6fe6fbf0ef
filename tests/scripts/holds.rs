//! Holds: the choice and the reservation of a login, and nobody is rung (P1, P2, P3). Owns what a hold may do and what no daemon
//! may do to it.

use std::time::Duration;

use evenring::ids::{Now, SessionId};
use evenring::node::roster::PhoneState;
use evenring::node::session::{Class, Login, Outcome, Reason};
use evenring::node::{Live, NodeState};
use evenring::registry::view::{Placement, SessionState, Verdict};
use evenring::registry::{Adopted, Confirmed, Hold, LoggedOut, LoginRequest, Order, Require};

use crate::redis_fixture::{Cluster, Member, id, login, phones, session, why, whys};

fn hold_for(alias: &str, agent: &str, seconds: u64) -> LoginRequest {
    let hold = Hold { ttl: Duration::from_secs(seconds), require: Require::Registered };
    LoginRequest { hold: Some(hold), ..login(alias, agent) }
}

fn hold(alias: &str, agent: &str) -> LoginRequest {
    hold_for(alias, agent, 30)
}

async fn held(cluster: &mut Cluster, alias: &str, agent: &str) -> (SessionId, String) {
    let placed = cluster.place(&hold(alias, agent)).await;
    assert_eq!((placed.verdict, placed.state.as_str()), (Verdict::Placed, "held"), "{placed:?}");
    (placed.session.unwrap(), placed.node)
}

/// As if so many seconds had passed for this one.
async fn wait(cluster: &mut Cluster, id: SessionId, seconds: i64) {
    let by = (-seconds * 1000).to_string();
    cluster.run::<String>(&["ZINCRBY", "NS:index:due", &by, &id.to_string()]).await;
}

async fn load(cluster: &mut Cluster, node: &str) -> u64 {
    cluster.run(&["SCARD", &format!("NS:local:{node}")]).await
}

#[tokio::test]
async fn p2_a_hold_is_load_from_the_moment_of_its_choice_and_rings_nobody() {
    let mut cluster = Cluster::start().await;
    let phones: Vec<String> = (100..130).map(|number| format!("cc{number}")).collect();
    let phones: Vec<&str> = phones.iter().map(String::as_str).collect();
    let members: [Member; 3] =
        [cluster.up("a", &phones).await, cluster.up("b", &phones).await, cluster.up("c", &phones).await];
    // Every third is an ordinary login: the loads are those of both.
    for (number, phone) in phones.iter().enumerate() {
        let alias = format!("{phone}x");
        match number % 3 {
            0 => drop(cluster.placed(&alias, "").await),
            _ => drop(held(&mut cluster, &alias, "").await),
        }
    }
    let mut rung = 0;
    for member in &members {
        assert_eq!(load(&mut cluster, member.name.as_str()).await, 10, "even");
        let orders = cluster.take(member).await;
        rung += orders.len();
        assert!(orders.iter().all(|order| matches!(order, Order::Ring(_))));
    }
    assert_eq!(rung, 10, "nobody is rung for a hold");
}

#[tokio::test]
async fn p1_an_agent_has_one_session_whichever_way_the_agent_asks() {
    let mut cluster = Cluster::start().await;
    let a = cluster.up("a", &["cc100", "cc101"]).await;
    let (session, _) = held(&mut cluster, "cc100x", "7").await;
    for request in [login("cc100x", "7"), hold("cc100x", "7"), hold("cc100", "7")] {
        let again = cluster.place(&request).await;
        assert_eq!((again.verdict, again.session), (Verdict::Existing, Some(session)), "{request:?}");
        assert_eq!(again.state.as_str(), "held");
    }
    let other = cluster.place(&hold("cc100x", "8")).await;
    assert_eq!((other.verdict, why(&other).as_str()), (Verdict::Refused, "in-use"));
    let elsewhere = cluster.place(&hold("cc101x", "7")).await;
    assert_eq!((elsewhere.verdict, why(&elsewhere).as_str()), (Verdict::Refused, "logged-in-elsewhere"));
    assert_eq!(cluster.take(&a).await, [], "nobody was rung");
    // Who is on the phone already is not held.
    let (rung, _) = cluster.placed("cc101x", "8").await;
    let existing = cluster.place(&hold("cc101x", "8")).await;
    assert_eq!((existing.verdict, existing.session), (Verdict::Existing, Some(rung)));
    assert_eq!(cluster.take(&a).await.len(), 1);
}

#[tokio::test]
async fn a_hold_ends_after_its_time_and_asking_again_renews_it() {
    let mut cluster = Cluster::start().await;
    let a = cluster.up("a", &["cc100"]).await;
    let (session, _) = held(&mut cluster, "cc100x", "7").await;
    wait(&mut cluster, session, 29).await;
    assert_eq!(cluster.beat(&a).await, [], "a second is left");
    assert_eq!(cluster.place(&hold("cc100x", "7")).await.session, Some(session));
    wait(&mut cluster, session, 29).await;
    assert_eq!(cluster.beat(&a).await, [], "it began anew");
    wait(&mut cluster, session, 2).await;
    assert_eq!(cluster.beat(&a).await, [(session.to_string(), "a".into(), "hold-expired".into())]);
    assert_eq!(cluster.fate(session).await, ("ended".into(), "hold-expired".into()));
    assert_eq!(load(&mut cluster, "a").await, 0);
    assert_eq!(cluster.run::<Vec<String>>(&["HKEYS", "NS:holders"]).await, Vec::<String>::new());
    // An ordinary login by the same agent does not renew a hold.
    let (session, _) = held(&mut cluster, "cc100x", "7").await;
    wait(&mut cluster, session, 29).await;
    cluster.place(&login("cc100x", "7")).await;
    wait(&mut cluster, session, 2).await;
    assert_eq!(cluster.beat(&a).await.len(), 1);
}

#[tokio::test]
async fn who_says_that_a_hold_is_live_keeps_it_and_no_daemon_touches_it() {
    let mut cluster = Cluster::start().await;
    let a = cluster.up("a", &["cc100"]).await;
    let (at, _) = held(&mut cluster, "cc100x", "7").await;
    for _ in 0..2 {
        assert_eq!(cluster.registry.confirm(at).await.unwrap(), Confirmed::Live);
    }
    wait(&mut cluster, at, 1_000).await;
    let how = (NodeState::Active, 0, 1);
    let beat =
        cluster.registry.heartbeat(&a.name, a.generation, how, (&mut cluster.beats, Now::default())).await.unwrap();
    assert!(beat.recorded.is_empty() && beat.reaped.is_empty(), "its node hears nothing of it: {beat:?}");
    for outcome in [Outcome::Ended(Reason::HungUp), Outcome::Failed(Reason::Busy), Outcome::Live] {
        assert_eq!(cluster.report(&a, at, outcome).await, "gone");
    }
    let row = cluster.row(at).await;
    assert!(row.hold && row.state == SessionState::Live, "{row:?}");
    // A channel that claims to be this session changes nothing.
    let claimed = Login {
        session: at,
        attempt: 1,
        alias: id("cc100x"),
        extension: id("cc100"),
        agent: id("7"),
        campaign: None,
        class: Class::Local,
    };
    let adopted = cluster.registry.adopt(&a.name, a.generation, &[(claimed, Live::NotYet)]).await.unwrap();
    assert_eq!((adopted, cluster.fate(at).await.0), (vec![Adopted::Kept], "live".into()));
    // Logged out: at once, and nobody is asked to hang up.
    assert!(matches!(cluster.registry.logout(&id("cc100x")).await.unwrap(), LoggedOut::Ended(its, _) if its == at));
    assert_eq!(cluster.take(&a).await, []);
    assert!(
        matches!(cluster.registry.confirm(at).await.unwrap(), Confirmed::Over(state, _) if state == SessionState::Ended)
    );
    assert_eq!(cluster.registry.confirm(session(99)).await.unwrap(), Confirmed::None);
    let (rung, _) = cluster.placed("cc100x", "7").await;
    assert_eq!(cluster.registry.confirm(rung).await.unwrap(), Confirmed::Rung);
}

#[tokio::test]
async fn p9_a_hold_ends_with_its_node_and_nobody_is_rung_for_it() {
    let mut cluster = Cluster::start().await;
    let both = ["cc100", "cc101"];
    let a = cluster.up("a", &both).await;
    let (waiting, _) = held(&mut cluster, "cc100x", "7").await;
    let (live, _) = held(&mut cluster, "cc101x", "8").await;
    cluster.registry.confirm(live).await.unwrap();
    let b = cluster.up("b", &both).await;
    cluster.lapse(a.name.as_str()).await;
    let how = (NodeState::Active, 0, 1);
    let mut auto = cluster.auto();
    let beat = auto.heartbeat(&b.name, b.generation, how, (&mut cluster.beats, Now::default())).await.unwrap();
    assert_eq!(beat.reaped.len(), 2);
    for at in [waiting, live] {
        assert_eq!(cluster.fate(at).await, ("ended".into(), "node-lost".into()));
    }
    assert_eq!(cluster.take(&b).await, [], "nobody is rung from another node");
}

#[tokio::test]
async fn p3_known_allows_phones_that_register_only_after_the_choice() {
    let mut cluster = Cluster::start().await;
    let (a, b) = (cluster.up("a", &["cc100"]).await, cluster.up("b", &["cc100"]).await);
    let unregistered = phones(PhoneState::Unregistered, ["web1"]);
    cluster.registry.phones(&b.name, b.generation, &unregistered).await.unwrap();
    let refused = cluster.place(&hold("web1x", "7")).await;
    assert_eq!((refused.verdict, why(&refused).as_str()), (Verdict::Refused, "no-eligible-node"));
    let known = Hold { ttl: Hold::TTL, require: Require::Known };
    let request = LoginRequest { hold: Some(known), ..login("web1x", "7") };
    let placed: Placement = cluster.place(&request).await;
    assert_eq!((placed.verdict, placed.node.as_str()), (Verdict::Placed, "b"), "{:?}", whys(&placed));
    // A phone that nobody has an endpoint for stays unknown, and a drained node stays out.
    let nobody = cluster.place(&LoginRequest { hold: Some(known), ..login("web2x", "8") }).await;
    assert_eq!(why(&nobody), "unknown-alias");
    cluster.drain("b", true).await;
    let drained = cluster.place(&LoginRequest { hold: Some(known), ..login("web1", "9") }).await;
    assert_eq!(drained.verdict, Verdict::Refused);
    assert_eq!(cluster.take(&a).await, []);
}

#[tokio::test]
async fn a_login_of_the_inbox_may_be_a_hold() {
    let mut cluster = Cluster::start().await;
    let a = cluster.up("a", &["cc100", "cc101"]).await;
    let bodies = [
        r#"{"alias":"cc100x","agent":"7","ring":"none","ttl":"45s","reply":"web-1"}"#,
        r#"{"alias":"cc101x","ttl":"45s","reply":"web-1"}"#,
        r#"{"alias":"cc101x","ring":"none","ttl":"1h","reply":"web-1"}"#,
        r#"{"alias":"cc101x","ring":"loudly","reply":"web-1"}"#,
    ];
    for (number, body) in bodies.iter().enumerate() {
        let (id, at) = (format!("{number:032}"), cluster.registry.now_ms().await.unwrap().to_string());
        cluster.run::<u64>(&["ZADD", "NS:logins", &at, &id]).await;
        cluster.run::<u64>(&["HSET", "NS:logins:Q", &id, body]).await;
    }
    let received = cluster.registry.receive_logins(9, None).await.unwrap().messages;
    let wrong: Vec<String> = received.iter().filter_map(|message| message.login.as_ref().err().cloned()).collect();
    assert_eq!(
        wrong,
        [
            r#"ttl and require need "ring": "none""#,
            r#"ttl "1h" is not a time from 1s to 5m, such as 30s"#,
            r#"ring "loudly" is not "none": leave it out, and the phone is rung"#,
        ]
    );
    cluster.registry.settle_logins(&received).await.unwrap();
    let answers: Vec<String> = cluster.run(&["HVALS", "NS:web-1:Q"]).await;
    let answer = answers.iter().find(|answer| answer.contains(r#""outcome":"placed""#)).unwrap();
    assert!(answer.contains(r#""node":"a","state":"held""#), "{answer}");
    assert_eq!(load(&mut cluster, "a").await, 1);
    assert_eq!(cluster.take(&a).await, []);
}
