//! P14: nobody is judged by mistake, whatever Redis was through: an outage, another Redis, a clock that was set, a message that
//! comes late. Owns those cases; `rejoin` and `retries` have what becomes of nodes that are really dead.

use std::time::Duration;

use evenring::ids::{Generation, Now, SessionId};
use evenring::node::NodeState;
use evenring::node::session::{Login, Outcome};
use evenring::registry::view::{ShownNodeState, Verdict};
use evenring::registry::{HeartbeatSequence, LoggedOut, Order, Reported};

use crate::redis_fixture::{Cluster, Member, NS, id, login, node, previous, reaped, word};

/// Longer than the lease of these tests.
const OUTAGE_MS: u64 = 90_000;

fn at(ms: u64) -> Now {
    Now(Duration::from_millis(ms))
}

async fn beat_at(cluster: &mut Cluster, member: &Member, now: Now) -> Vec<(String, String, String)> {
    let beat = cluster.registry.heartbeat(
        &member.name,
        member.generation,
        (NodeState::Active, 0, 1),
        (&mut cluster.beats, now),
    );
    reaped(beat.await.unwrap())
}

/// Three logins on `a`: one placed, one ringing, one live.
async fn one_of_each(cluster: &mut Cluster, a: &Member) -> [SessionId; 3] {
    let (live, _) = cluster.placed("cc100x", "1").await;
    let (ringing, _) = cluster.placed("cc101x", "2").await;
    cluster.take(a).await;
    cluster.report(a, live, Outcome::Live).await;
    let (placed, _) = cluster.placed("cc102x", "3").await;
    [placed, ringing, live]
}

async fn states(cluster: &mut Cluster, sessions: [SessionId; 3]) -> [String; 3] {
    let mut states = Vec::new();
    for session in sessions {
        states.push(cluster.fate(session).await.0);
    }
    states.try_into().unwrap()
}

const PHONES: [&str; 4] = ["cc100", "cc101", "cc102", "cc103"];

#[tokio::test]
async fn after_an_outage_of_redis_no_session_of_a_healthy_node_is_judged() {
    let mut cluster = Cluster::with("placement.order_expiry = '600s'").await;
    let a = cluster.up("a", &PHONES).await;
    let sessions = one_of_each(&mut cluster, &a).await;
    let b = cluster.up("b", &PHONES).await;
    cluster.silence(OUTAGE_MS).await;
    // The agents ask again before any daemon is back, and after the first one is.
    for _ in 0..2 {
        for (alias, agent, state) in [("cc102x", "3", "placed"), ("cc101x", "2", "ringing"), ("cc100x", "1", "live")] {
            let again = cluster.place(&login(alias, agent)).await;
            assert_eq!((again.verdict, again.state.as_str(), again.node.as_str()), (Verdict::Existing, state, "a"));
        }
        assert_eq!(cluster.place(&login("cc103x", "4")).await.verdict, Verdict::NotNow, "b may have this agent");
        assert_eq!(cluster.beat(&b).await, []);
    }
    assert_eq!(states(&mut cluster, sessions).await, ["placed", "ringing", "live"]);
    assert!(matches!(cluster.registry.logout(&id("cc101x")).await.unwrap(), LoggedOut::Asked(_, node) if node == "a"));
    cluster.beat(&a).await;
    assert_eq!(cluster.placed("cc103x", "4").await.1, "b", "both have reported");
}

#[tokio::test]
async fn a_node_that_does_not_come_back_from_an_outage_is_dead_a_lease_after_it() {
    let mut cluster = Cluster::with("placement.order_expiry = '600s'").await;
    let a = cluster.up("a", &PHONES).await;
    let sessions = one_of_each(&mut cluster, &a).await;
    let b = cluster.up("b", &PHONES).await;
    cluster.silence(OUTAGE_MS).await;
    let mut beats = 0;
    while cluster.beat(&b).await.is_empty() {
        beats += 1;
        assert!(beats < 6, "nobody ends them");
        // A good third of a lease later.
        cluster.silence(21_000).await;
    }
    assert_eq!(beats, 3, "a lease of 60 s is over with the third beat of those that came 21 s apart");
    assert_eq!(states(&mut cluster, sessions).await, ["placed", "failed", "ended"]);
    assert_eq!(cluster.row(sessions[0]).await.node, "b");
}

#[tokio::test]
async fn what_must_go_elsewhere_waits_until_the_others_have_reported() {
    let mut cluster = Cluster::with("placement.order_expiry = '600s'").await;
    let a = cluster.up("a", &PHONES).await;
    let [_, ringing, live] = one_of_each(&mut cluster, &a).await;
    let b = cluster.up("b", &PHONES).await;
    cluster.silence(OUTAGE_MS).await;
    cluster.beat(&a).await;
    assert_eq!(cluster.report(&a, ringing, crate::redis_fixture::cannot()).await, "waiting");
    assert_eq!(cluster.fate(ringing).await, ("placed".into(), "not-reachable".into()));
    let lost = [(live, Outcome::Ended(evenring::node::session::Reason::NodeLost))];
    let told = cluster.auto().report(&a.name, a.generation, NodeState::Active, &lost).await.unwrap();
    assert!(told[0].to_string().starts_with("rejoined a "), "{told:?}");
    cluster.beat(&b).await;
    let until = cluster.registry.now_ms().await.unwrap() + 1_000;
    while cluster.registry.now_ms().await.unwrap() <= until {}
    let mut moved: Vec<_> = cluster.beat(&b).await.into_iter().map(|(_, node, result)| (node, result)).collect();
    moved.sort();
    assert_eq!(moved, [("a".into(), "placed b".into()), ("a".into(), "placed b".into())]);
    let taken = cluster.take(&b).await;
    let rung: Vec<_> = taken.iter().filter(|order| matches!(order, Order::Ring(_))).collect();
    assert_eq!(rung.len(), 2, "{taken:?}");
}

#[tokio::test]
async fn orders_are_fetched_only_when_it_is_known_how_old_they_are() {
    let mut cluster = Cluster::start().await;
    let a = cluster.up("a", &PHONES).await;
    cluster.placed("cc100x", "1").await;
    cluster.silence(OUTAGE_MS).await;
    let asked = cluster.fetches.ask();
    assert_eq!(word(cluster.registry.fetch_orders(&a.name, a.generation, asked, 9).await), "not-now");
    cluster.beat(&a).await;
    assert!(
        matches!(&cluster.take(&a).await[..], [Order::Ring(_)]),
        "10 s old it is, and 90 s long nobody could take it"
    );
}

/// By how many ms the clock of the scripts differs from that of Redis: nothing, where both are right.
async fn shift(cluster: &mut Cluster) -> i64 {
    cluster.run::<Option<i64>>(&["HGET", "NS:judge", "shift"]).await.unwrap_or(0)
}

/// As if Redis's clock had been set by `step` ms: what is stored was written by the clock before.
async fn step_clock(cluster: &mut Cluster, step: i64) {
    let shift = shift(cluster).await + step;
    cluster.run::<u64>(&["HSET", "NS:judge", "shift", &shift.to_string()]).await;
}

#[tokio::test]
async fn a_clock_that_is_set_changes_nothing() {
    for step in [-3_600_000, -80_000, -30_000, 45_000, 80_000, 3_600_000] {
        let mut cluster = Cluster::start().await;
        let a = cluster.up("a", &PHONES).await;
        let sessions = one_of_each(&mut cluster, &a).await;
        let b = cluster.up("b", &PHONES).await;
        for member in [&a, &b] {
            beat_at(&mut cluster, member, at(1_000)).await;
        }
        step_clock(&mut cluster, step).await;
        let again = cluster.place(&login("cc101x", "2")).await;
        assert_eq!((again.verdict, again.state.as_str()), (Verdict::Existing, "ringing"), "{step} ms");
        for member in [&b, &a, &b] {
            assert_eq!(beat_at(&mut cluster, member, at(2_000)).await, [], "{step} ms");
        }
        assert_eq!(states(&mut cluster, sessions).await, ["placed", "ringing", "live"], "{step} ms");
        let orders = cluster.take(&a).await;
        assert!(
            matches!(&orders[..], [Order::Ring(Login { session, .. })] if *session == sessions[0]),
            "{step} ms: {orders:?}"
        );
        assert_eq!(cluster.placed("cc103x", "4").await.1, "b", "{step} ms");
        let left = cluster.node("a").await.lease_ms;
        assert!((50_000..=60_000).contains(&left), "{step} ms: a lease of {left} ms");
    }
}

#[tokio::test]
async fn a_daemon_that_does_not_know_the_time_does_not_keep_the_others_from_setting_it_right() {
    let hour = 3_600_000;
    for steps in [&[-hour][..], &[hour], &[hour, hour], &[hour, -hour]] {
        let mut cluster = Cluster::start().await;
        let a = cluster.up("a", &PHONES).await;
        let sessions = one_of_each(&mut cluster, &a).await;
        beat_at(&mut cluster, &a, at(1_000)).await;
        for (step, life) in steps.iter().zip(77..) {
            step_clock(&mut cluster, *step).await;
            // It comes first, and has never heard what time it is.
            let (mut stranger, life) = (cluster.another(), Generation::from_bits(life));
            previous(stranger.register(&node("b"), life, "host").await.unwrap());
            let how = (NodeState::Active, 0, 1);
            stranger.heartbeat(&id("b"), life, how, (&mut HeartbeatSequence::default(), at(0))).await.unwrap();
        }
        assert_eq!(beat_at(&mut cluster, &a, at(2_000)).await, [], "{steps:?}");
        assert_eq!(states(&mut cluster, sessions).await, ["placed", "ringing", "live"], "{steps:?}");
        assert_eq!(cluster.take(&a).await.len(), 1, "{steps:?}: its order is neither too old nor hidden");
    }
}

/// A clock that went back makes an old order young. Who has come since then has heard nothing else.
#[tokio::test]
async fn orders_are_fetched_only_when_somebody_who_knows_the_time_has_spoken() {
    let mut cluster = Cluster::start().await;
    let a = cluster.up("a", &PHONES).await;
    beat_at(&mut cluster, &a, at(1_000)).await;
    cluster.placed("cc100x", "1").await;
    step_clock(&mut cluster, -3_600_000).await;
    let (mut stranger, life) = (cluster.another(), Generation::from_bits(77));
    previous(stranger.register(&node("b"), life, "host").await.unwrap());
    let mut heard = HeartbeatSequence::default();
    for _ in 0..3 {
        let how = (NodeState::Active, 0, 1);
        stranger.heartbeat(&id("b"), life, how, (&mut heard, at(0))).await.unwrap();
        let asked = cluster.fetches.ask();
        assert_eq!(word(cluster.registry.fetch_orders(&a.name, a.generation, asked, 9).await), "not-now");
    }
    beat_at(&mut cluster, &a, at(9_000)).await;
    assert!(matches!(&cluster.take(&a).await[..], [Order::Ring(_)]), "8 s old it is");
}

#[tokio::test]
async fn a_node_that_is_gone_is_no_candidate_because_a_clock_went_back() {
    let mut cluster = Cluster::start().await;
    cluster.up("a", &PHONES).await;
    let b = cluster.up("b", &PHONES).await;
    cluster.lapse("a").await;
    let later = cluster.registry.now_ms().await.unwrap() + 3_600_000;
    cluster.run::<u64>(&["HSET", "NS:node:a", "lease_until", &later.to_string()]).await;
    cluster.beat(&b).await;
    for (alias, agent) in [("cc100x", "1"), ("cc101x", "2"), ("cc102x", "3")] {
        assert_eq!(cluster.placed(alias, agent).await.1, "b");
    }
}

#[tokio::test]
async fn logins_of_the_inbox_are_not_hidden_by_a_clock_that_goes_back() {
    let mut cluster = Cluster::start().await;
    let a = cluster.up("a", &PHONES).await;
    beat_at(&mut cluster, &a, at(1_000)).await;
    let later = cluster.registry.now_ms().await.unwrap() + 60_000;
    cluster.run::<u64>(&["ZADD", "NS:logins", &later.to_string(), "m1"]).await;
    cluster.run::<u64>(&["HSET", "NS:logins:Q", "m1", r#"{"alias":"cc100x"}"#]).await;
    assert!(cluster.registry.receive_logins(1, None).await.unwrap().messages.is_empty());
    step_clock(&mut cluster, -60_000).await;
    beat_at(&mut cluster, &a, at(2_000)).await;
    assert_eq!(cluster.registry.receive_logins(1, None).await.unwrap().messages[0].id, "m1");
}

#[tokio::test]
async fn a_heartbeat_that_is_carried_out_late_changes_nothing() {
    let mut cluster = Cluster::start().await;
    let a = cluster.up("a", &PHONES).await;
    let b = cluster.up("b", &PHONES).await;
    cluster.registry.leave(&a.name, a.generation, &mut cluster.beats).await.unwrap();
    let before: Vec<String> = cluster.run(&["HGETALL", "NS:node:a"]).await;
    // What a's daemon had sent before it left; nobody hears the answer.
    let late = cluster
        .another()
        .heartbeat(&a.name, a.generation, (NodeState::Active, 0, 1), (&mut HeartbeatSequence::default(), at(0)))
        .await;
    assert_eq!(word(late), "not-now");
    assert_eq!(cluster.run::<Vec<String>>(&["HGETALL", "NS:node:a"]).await, before);
    assert_eq!(cluster.placed("cc100x", "1").await.1, b.name.as_str());
}

#[tokio::test]
async fn an_order_that_nobody_took_is_placed_again_without_that_node() {
    let mut cluster = Cluster::with("placement.order_expiry = '1s'\nplacement.tries = 1").await;
    let members = [cluster.up("a", &PHONES).await, cluster.up("b", &PHONES).await, cluster.up("c", &PHONES).await];
    let (session, mut node) = cluster.placed("cc100x", "1").await;
    let mut seen = vec![node.clone()];
    // More often than there are tries: who rang nobody has not tried.
    for _ in 0..2 {
        let start = cluster.registry.now_ms().await.unwrap();
        while cluster.registry.now_ms().await.unwrap() <= start + 1_000 {}
        let moved = cluster.beat(&members[0]).await;
        let row = cluster.row(session).await;
        assert_eq!(moved, [(session.to_string(), node, format!("placed {}", row.node))]);
        assert!(!seen.contains(&row.node), "{seen:?} and again {}", row.node);
        node = row.node;
        seen.push(node.clone());
    }
    let start = cluster.registry.now_ms().await.unwrap();
    while cluster.registry.now_ms().await.unwrap() <= start + 1_000 {}
    assert_eq!(cluster.beat(&members[0]).await, [(session.to_string(), node, "order-expired".into())]);
    assert_eq!(cluster.fate(session).await, ("failed".into(), "order-expired".into()));
}

#[tokio::test]
async fn a_redis_that_has_lost_everything_waits_for_the_nodes_that_come_back() {
    let mut cluster = Cluster::start().await;
    let a = cluster.up("a", &PHONES).await;
    let (live, _) = cluster.placed("cc100x", "1").await;
    let Order::Ring(call) = cluster.take(&a).await.remove(0) else { panic!("no order") };
    cluster.report(&a, live, Outcome::Live).await;
    let mut other = cluster.another();
    previous(other.register(&node("b"), Generation::from_bits(77), "host").await.unwrap());
    cluster.run::<()>(&["FLUSHALL"]).await;
    assert_eq!(cluster.place(&login("cc100x", "1")).await.verdict, Verdict::NotNow, "nobody is known");
    // b is back first, and could ring the phone that is in a call on a.
    previous(other.register(&node("b"), Generation::from_bits(77), "host").await.unwrap());
    let all = crate::redis_fixture::phones(evenring::node::roster::PhoneState::Registered, PHONES);
    other.phones(&id("b"), Generation::from_bits(77), &all).await.unwrap();
    other
        .heartbeat(
            &id("b"),
            Generation::from_bits(77),
            (NodeState::Active, 0, 1),
            (&mut HeartbeatSequence::default(), at(0)),
        )
        .await
        .unwrap();
    assert_eq!(cluster.place(&login("cc100x", "1")).await.verdict, Verdict::NotNow);
    assert_eq!(word(cluster.registry.logout(&id("cc100x")).await), "not-now");
    previous(cluster.registry.register(&node("a"), a.generation, "host").await.unwrap());
    let adopted = cluster.registry.adopt(&a.name, a.generation, &[(call, evenring::node::Live::Yes)]).await.unwrap();
    assert_eq!(adopted, [evenring::registry::Adopted::Restored]);
    let again = cluster.place(&login("cc100x", "1")).await;
    assert_eq!((again.verdict, again.session), (Verdict::Existing, Some(live)));
}

/// It cannot know that there are others, and that one of them has the agent.
#[tokio::test]
async fn a_daemon_that_starts_first_after_redis_has_lost_everything_rings_nobody_before_the_others_are_back() {
    let mut cluster = Cluster::start().await;
    let a = cluster.up("a", &PHONES).await;
    let (live, _) = cluster.placed("cc100x", "1").await;
    let Order::Ring(call) = cluster.take(&a).await.remove(0) else { panic!("no order") };
    cluster.report(&a, live, Outcome::Live).await;
    cluster.run::<()>(&["FLUSHALL"]).await;
    let b = cluster.up("b", &PHONES).await;
    assert_eq!(cluster.place(&login("cc100x", "1")).await.verdict, Verdict::NotNow);
    assert_eq!(word(cluster.registry.logout(&id("cc100x")).await), "not-now");
    previous(cluster.registry.register(&node("a"), a.generation, "host").await.unwrap());
    cluster.registry.adopt(&a.name, a.generation, &[(call, evenring::node::Live::Yes)]).await.unwrap();
    let again = cluster.place(&login("cc100x", "1")).await;
    assert_eq!((again.verdict, again.session), (Verdict::Existing, Some(live)));
    // An outage is no time in which anybody could have come back.
    for _ in 0..2 {
        cluster.silence(OUTAGE_MS).await;
        for member in [&a, &b] {
            cluster.beat(member).await;
        }
    }
    // It waits no longer than that: two thirds of a lease.
    for _ in 0..2 {
        assert_eq!(cluster.place(&login("cc101x", "2")).await.verdict, Verdict::NotNow);
        cluster.silence(21_000).await;
        cluster.beat(&b).await;
    }
    assert_eq!(cluster.placed("cc101x", "2").await.1, "b");
}

/// An outage of Redis in which its clock goes back, and the first who comes after it has never heard what time it is.
#[tokio::test]
async fn time_goes_on_when_the_clock_goes_back_and_nobody_is_left_who_knows_it() {
    let mut cluster = Cluster::start().await;
    let a = cluster.up("a", &PHONES).await;
    let (session, _) = cluster.placed("cc100x", "1").await;
    step_clock(&mut cluster, -3_600_000).await;
    // As every daemon does that has just started.
    cluster.beats = HeartbeatSequence::default();
    let a = Member { name: a.name, generation: Generation::from_bits(99) };
    previous(cluster.registry.register(&node("a"), a.generation, "host").await.unwrap());
    let all = crate::redis_fixture::phones(evenring::node::roster::PhoneState::Registered, PHONES);
    cluster.registry.phones(&a.name, a.generation, &all).await.unwrap();
    cluster.beat(&a).await;
    let off = shift(&mut cluster).await;
    assert!(off.abs() < 10_000, "wrong by {off} ms");
    // As exact as that: the order may still lie in the future by so much.
    step_clock(&mut cluster, off.abs() + 1).await;
    let orders = cluster.take(&a).await;
    assert!(matches!(&orders[..], [Order::Ring(Login { session: its, .. })] if *its == session), "{orders:?}");
}

/// A heartbeat that says the clock has stepped, as it stands on the wire.
async fn beat_with_step(
    cluster: &mut Cluster,
    member: &Member,
    number: u64,
    (expected, corrections): (u64, u64),
    step: i64,
) -> String {
    let script = redis::Script::new(&evenring::registry::script_text("heartbeat").expect("a script"));
    let mut call = script.prepare_invoke();
    call.key(NS).arg(member.name.as_str()).arg(member.generation.to_string());
    for word in ["60000", "active", "0", "1", "60000", "200", "600000", "0", "60000"] {
        call.arg(word);
    }
    call.arg(number).arg(expected).arg(step).arg(5_000).arg(86_400_000).arg(corrections);
    let reply: Vec<redis::Value> = call.invoke_async(&mut cluster.raw).await.unwrap();
    redis::from_redis_value(reply[0].clone()).unwrap()
}

/// Two daemons find the same step, and each says so.
#[tokio::test]
async fn a_step_of_the_clock_is_corrected_once_and_only_on_the_clock_on_which_it_was_found() {
    let mut cluster = Cluster::start().await;
    let (a, b) = (cluster.up("a", &PHONES).await, cluster.up("b", &PHONES).await);
    let now = cluster.registry.now_ms().await.unwrap();
    cluster.silence(OUTAGE_MS).await;
    step_clock(&mut cluster, 80_000).await;
    for member in [&a, &b] {
        assert_eq!(beat_with_step(&mut cluster, member, 901, (now + 80_000, 0), 80_000).await, "ok");
        let off = shift(&mut cluster).await;
        assert_eq!(off, 0, "{} has set the clock wrong", member.name);
    }
    step_clock(&mut cluster, -50_000).await;
    assert_eq!(
        beat_with_step(&mut cluster, &a, 902, (now + 80_000, 1), 80_000).await,
        "late",
        "it is another clock again"
    );
}

/// It came between a step and its correction, so what it learnt is wrong.
#[tokio::test]
async fn whoever_has_not_heard_of_the_last_correction_is_not_believed() {
    let mut cluster = Cluster::start().await;
    let (a, newcomer) = (cluster.up("a", &PHONES).await, cluster.up("b", &PHONES).await);
    let now = cluster.registry.now_ms().await.unwrap();
    cluster.silence(OUTAGE_MS).await;
    step_clock(&mut cluster, 80_000).await;
    assert_eq!(beat_with_step(&mut cluster, &a, 901, (now + 80_000, 0), 80_000).await, "ok");
    cluster.silence(OUTAGE_MS).await;
    step_clock(&mut cluster, 40_000).await;
    assert_eq!(beat_with_step(&mut cluster, &newcomer, 901, (now + 40_000, 0), -40_000).await, "ok");
    assert_eq!(shift(&mut cluster).await, 40_000, "it has set the clock");
    assert_eq!(beat_with_step(&mut cluster, &a, 902, (now + 40_000, 1), 40_000).await, "ok");
    assert_eq!(shift(&mut cluster).await, 0, "who has heard of it is believed");
}

/// What Redis's clock lost in an outage that it seems to be shorter by.
#[tokio::test]
async fn a_clock_that_goes_back_by_less_than_an_outage_is_corrected_too() {
    let mut cluster = Cluster::start().await;
    let a = cluster.up("a", &PHONES).await;
    beat_at(&mut cluster, &a, at(1_000)).await;
    cluster.silence(OUTAGE_MS).await;
    step_clock(&mut cluster, -30_000).await;
    beat_at(&mut cluster, &a, at(1_000)).await;
    let off = shift(&mut cluster).await;
    assert!(off.abs() < 10_000, "wrong by {off} ms");
}

#[tokio::test]
async fn a_stopping_asterisk_is_out_before_its_sessions_end() {
    let mut cluster = Cluster::start().await;
    let (a, b) = (cluster.up("a", &PHONES).await, cluster.up("b", &PHONES).await);
    let mut on_a = Vec::new();
    for alias in ["cc100x", "cc101x", "cc102x"] {
        let (session, node) = cluster.placed(alias, "").await;
        on_a.extend((node == "a").then_some((session, Outcome::Ended(evenring::node::session::Reason::NodeLost))));
    }
    cluster.take(&a).await;
    cluster.take(&b).await;
    let told = cluster.registry.report(&a.name, a.generation, NodeState::Down, &on_a).await.unwrap();
    assert!(told.iter().all(|result| *result == Reported::Done), "{told:?}");
    assert_eq!(cluster.node("a").await.state, ShownNodeState::Down, "in the same step");
    assert_eq!(cluster.placed("cc103x", "").await.1, "b");
}
