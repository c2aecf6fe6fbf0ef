//! P4: no login is forgotten. P5 and P6: the dead leave, once. P10: drain. And the fence, and leaving in good order.

use evenring::config::NodeSettings;
use evenring::ids::{Generation, Now};
use evenring::node::session::{Login, Outcome, Reason};
use evenring::node::{AdminState, Live, NodeState};
use evenring::registry::view::{ShownNodeState, Which};
use evenring::registry::{Adopted, Fetch, FetchSequence, HeartbeatSequence, Order, PlacedAgain, Registered, Taken};

use crate::redis_fixture::{Cluster, Member, cannot, id, login, node, phones, previous, reaped, word};

/// Three nodes with a phone on each, and one login that rings; its node first.
async fn ringing(cluster: &mut Cluster) -> (evenring::ids::SessionId, Vec<Member>) {
    let mut members = Vec::new();
    for name in ["a", "b", "c"] {
        members.push(cluster.up(name, &["cc100"]).await);
    }
    let (session, node) = cluster.placed("cc100x", "7").await;
    members.sort_by_key(|member| member.name.as_str() != node);
    assert_eq!(cluster.take(&members[0]).await.len(), 1);
    (session, members)
}

fn find<'a>(members: &'a [Member], result: &str) -> &'a Member {
    let name = result.strip_prefix("placed ").unwrap_or_else(|| panic!("{result}"));
    members.iter().find(|member| member.name.as_str() == name).unwrap()
}

#[tokio::test]
async fn p4_a_node_that_cannot_is_followed_by_another_until_the_tries_are_over() {
    let mut cluster = Cluster::start().await;
    let (session, members) = ringing(&mut cluster).await;
    let second = cluster.report(&members[0], session, cannot()).await;
    let second = find(&members[1..], &second);
    assert_eq!(cluster.report(&members[0], session, cannot()).await, "gone", "said twice");
    assert_eq!(cluster.node(members[0].name.as_str()).await.agents, 0);
    let orders = cluster.take(second).await;
    assert!(matches!(&orders[..], [Order::Ring(login)] if login.attempt == 2), "{orders:?}");
    let third = cluster.report(second, session, cannot()).await;
    let third = find(&members[1..], &third);
    assert_ne!(third.name, second.name);
    cluster.take(third).await;
    assert_eq!(cluster.report(third, session, cannot()).await, "failed");
    assert_eq!(cluster.fate(session).await, ("failed".into(), "not-reachable".into()));
    for name in ["a", "b", "c"] {
        assert_eq!(cluster.node(name).await.agents, 0);
        assert_eq!(cluster.run::<u64>(&["ZCARD", &format!("NS:ring-{name}")]).await, 0);
    }
    assert_eq!(cluster.run::<u64>(&["HLEN", "NS:holders"]).await, 0);
}

#[tokio::test]
async fn p4_the_number_of_tries_is_a_limit() {
    let mut cluster = Cluster::with("placement.tries = 1").await;
    let (session, members) = ringing(&mut cluster).await;
    assert_eq!(cluster.report(&members[0], session, cannot()).await, "failed");
}

#[tokio::test]
async fn p4_after_the_time_to_give_up_nothing_is_tried() {
    let mut cluster = Cluster::start().await;
    let (session, members) = ringing(&mut cluster).await;
    cluster.run::<u64>(&["HSET", &format!("NS:session:{session}"), "give_up", "1000"]).await;
    assert_eq!(cluster.report(&members[0], session, cannot()).await, "failed");
    assert_eq!(cluster.fate(session).await.1, "not-reachable");
}

#[tokio::test]
async fn p4_the_agents_own_answer_ends_it() {
    let mut cluster = Cluster::start().await;
    for reason in [Reason::Busy, Reason::Declined, Reason::NoAnswer] {
        let (session, members) = ringing(&mut cluster).await;
        assert_eq!(cluster.report(&members[0], session, Outcome::Failed(reason.clone())).await, "done");
        assert_eq!(cluster.fate(session).await, ("failed".into(), reason.to_string()));
    }
}

#[tokio::test]
async fn p4_p8_an_order_that_is_too_old_rings_nobody() {
    let mut cluster = Cluster::with("placement.order_expiry = '1s'").await;
    let a = cluster.up("a", &["cc100", "cc101"]).await;
    let (taken, _) = cluster.placed("cc100x", "7").await;
    let (left, _) = cluster.placed("cc101x", "8").await;
    let start = cluster.registry.now_ms().await.unwrap();
    while cluster.registry.now_ms().await.unwrap() <= start + 1000 {}
    let orders = cluster.registry.fetch_orders(&a.name, a.generation, cluster.fetches.ask(), 1).await.unwrap();
    assert!(matches!(&orders[..], [Taken { order: Order::Expired(_), .. }]), "{orders:?}");
    assert_eq!(cluster.beat(&a).await.len(), 1, "a heartbeat finds the other one");
    for session in [taken, left] {
        assert_eq!(cluster.fate(session).await, ("failed".into(), "order-expired".into()));
    }
}

/// What a take brought: `ring SESSION`, `moved SESSION`, …
async fn told(cluster: &mut Cluster, node: &Member, take: Fetch) -> Vec<String> {
    let taken = cluster.registry.fetch_orders(&node.name, node.generation, take, 10).await.unwrap();
    let word = |taken: Taken| match taken.order {
        Order::Ring(login) => format!("ring {}", login.session),
        Order::HangUp(session) => format!("hangup {session}"),
        Order::Moved(session, to) => format!("moved {session} {to}"),
        Order::Expired(session) => format!("expired {session}"),
        Order::Stale(session) => format!("stale {session}"),
    };
    taken.into_iter().map(word).collect()
}

#[tokio::test]
async fn p4_what_a_take_took_whose_answer_was_lost_is_handed_out_again() {
    let mut cluster = Cluster::start().await;
    let a = cluster.up("a", &["cc100", "cc101", "cc102"]).await;
    let mut fetches = FetchSequence::default();
    let (first, _) = cluster.placed("cc100x", "1").await;
    let lost = fetches.ask();
    assert_eq!(told(&mut cluster, &a, lost).await, [format!("ring {first}")]);
    let (second, _) = cluster.placed("cc101x", "2").await;
    let heard = fetches.ask();
    let again = [format!("ring {first}"), format!("ring {second}")];
    assert_eq!(told(&mut cluster, &a, heard).await, again);
    fetches.hear();
    let (third, _) = cluster.placed("cc102x", "3").await;
    assert_eq!(told(&mut cluster, &a, lost).await, [""; 0], "carried out after a later one: takes nothing");
    let next = fetches.ask();
    assert_eq!(told(&mut cluster, &a, next).await, [format!("ring {third}")], "what was heard is not said again");
}

#[tokio::test]
async fn p1_p10_an_order_is_handed_out_again_only_to_who_may_still_ring_it() {
    let mut cluster = Cluster::start().await;
    let a = cluster.up("a", &["cc100", "cc101", "cc102", "cc103"]).await;
    let mut fetches = FetchSequence::default();
    let mut sessions = Vec::new();
    for (alias, agent) in [("cc100x", "1"), ("cc101x", "2"), ("cc102x", "3"), ("cc103x", "4")] {
        sessions.push(cluster.placed(alias, agent).await.0);
    }
    let [live, left, found, moves] = sessions[..] else { panic!("four sessions") };
    assert_eq!(told(&mut cluster, &a, fetches.ask()).await.len(), 4);
    assert_eq!(cluster.report(&a, live, Outcome::Live).await, "done");
    cluster.registry.logout(&id("cc101x")).await.unwrap();
    let adopted = cluster.registry.adopt(&a.name, a.generation, &[(channel(found), Live::NotYet)]).await.unwrap();
    assert_eq!(adopted, [Adopted::Kept]);
    let b = cluster.up("b", &["cc103"]).await;
    cluster.registry.set_admin_state(&a.name, AdminState::Drain).await.unwrap();
    let mut words = told(&mut cluster, &a, fetches.ask()).await;
    words.sort();
    let mut expected = [format!("hangup {left}"), format!("moved {moves} placed b"), format!("stale {left}")];
    expected.sort();
    assert_eq!(words, expected);
    assert_eq!(cluster.fate(left).await, ("ended".into(), "logged-out".into()));
    assert_eq!(cluster.take(&b).await.len(), 1);
}

#[tokio::test]
async fn p4_p6_what_a_lost_node_had_not_taken_goes_elsewhere() {
    let mut cluster = Cluster::start().await;
    let members = [cluster.up("a", &["cc100"]).await, cluster.up("b", &["cc100"]).await];
    let (session, node) = cluster.placed("cc100x", "7").await;
    let survivor = members.iter().find(|member| member.name.as_str() != node).unwrap().clone();
    cluster.lapse(&node).await;
    let expected = (session.to_string(), node, format!("placed {}", survivor.name));
    assert_eq!(cluster.beat(&survivor).await, [expected]);
    assert!(matches!(&cluster.take(&survivor).await[..], [Order::Ring(login)] if login.session == session));
}

#[tokio::test(flavor = "multi_thread")]
async fn p5_p6_a_lost_nodes_sessions_end_exactly_once() {
    let mut cluster = Cluster::start().await;
    let names = crate::redis_fixture::extensions(150);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut members = Vec::new();
    for name in ["a", "b", "c"] {
        members.push(cluster.up(name, &names).await);
    }
    for name in &names {
        cluster.placed(&format!("{name}x"), "").await;
    }
    for member in &members {
        let orders = cluster.take(member).await;
        assert_eq!(orders.len(), 50);
        for order in orders {
            let Order::Ring(login) = order else { panic!("{order:?}") };
            cluster.report(member, login.session, Outcome::Live).await;
        }
    }
    let mut survivors = Vec::new();
    for at in 0..40 {
        let (mut registry, node) = (cluster.another(), node(&format!("d{at}")));
        previous(registry.register(&node, Generation::from_bits(1_000 + at), "host").await.unwrap());
        survivors.push((registry, node.name, Generation::from_bits(1_000 + at)));
    }
    cluster.lapse("a").await;
    let mut tasks = tokio::task::JoinSet::new();
    for (mut registry, name, generation) in survivors {
        tasks.spawn(async move {
            let how = (NodeState::Starting, 0, 1);
            let mut beats = HeartbeatSequence::default();
            let beat = registry.heartbeat(&name, generation, how, (&mut beats, Now::default()));
            reaped(beat.await.unwrap())
        });
    }
    let reaped: Vec<_> = tasks.join_all().await.into_iter().flatten().collect();
    assert_eq!(reaped.len(), 50);
    assert!(reaped.iter().all(|(_, node, reason)| node == "a" && reason == "node-lost"));
    assert_eq!(reaped.iter().map(|row| &row.0).collect::<std::collections::BTreeSet<_>>().len(), 50);
    assert_eq!(cluster.node("a").await.agents, 0);
    assert_eq!(cluster.registry.sessions(Which::Open).await.unwrap().len(), 100);
}

#[tokio::test]
async fn p5_what_a_fault_took_from_the_tables_comes_back() {
    let mut cluster = Cluster::start().await;
    let a = cluster.up("a", &["cc100"]).await;
    let (session, _) = cluster.placed("cc100x", "7").await;
    let Order::Ring(login) = cluster.take(&a).await.remove(0) else { panic!("no order") };
    cluster.report(&a, session, Outcome::Live).await;
    cluster.run::<u64>(&["DEL", "NS:local:a", "NS:holders", "NS:index:open"]).await;
    let beat = cluster
        .registry
        .heartbeat(&a.name, a.generation, (NodeState::Active, 1, 1), (&mut cluster.beats, Now::default()))
        .await
        .unwrap();
    assert_eq!(beat.recorded, []);
    let adopted = cluster.registry.adopt(&a.name, a.generation, &[(login.clone(), Live::Yes)]).await.unwrap();
    assert_eq!(adopted, [Adopted::Kept]);
    assert_eq!(cluster.node("a").await.agents, 1);
    assert_eq!(cluster.run::<u64>(&["HLEN", "NS:holders"]).await, 3);
    assert_eq!(cluster.registry.sessions(Which::Open).await.unwrap().len(), 1);
    // a record that is lost is no load, from the next heartbeat on
    cluster.run::<u64>(&["DEL", &format!("NS:session:{session}")]).await;
    cluster.beat(&a).await;
    assert_eq!(cluster.node("a").await.agents, 0);
    assert_eq!(cluster.run::<u64>(&["ZCARD", "NS:index:open"]).await, 0);
}

#[tokio::test]
async fn p6_an_agent_of_a_dead_node_need_not_wait_for_the_sweep() {
    let mut cluster = Cluster::start().await;
    let (session, members) = ringing(&mut cluster).await;
    cluster.report(&members[0], session, Outcome::Live).await;
    cluster.lapse(members[0].name.as_str()).await;
    let (_, node) = cluster.placed("cc100x", "7").await;
    assert_ne!(node, members[0].name.as_str());
    assert_eq!(cluster.fate(session).await, ("ended".into(), "node-lost".into()));
}

#[tokio::test]
async fn p10_a_draining_node_gives_its_orders_away() {
    let mut cluster = Cluster::start().await;
    let a = cluster.up("a", &["cc100", "cc101"]).await;
    let (first, _) = cluster.placed("cc100x", "7").await;
    let (second, _) = cluster.placed("cc101x", "8").await;
    cluster.take(&a).await;
    cluster.report(&a, first, Outcome::Live).await;
    cluster.report(&a, second, Outcome::Ended(Reason::HungUp)).await;
    let (second, _) = cluster.placed("cc101x", "8").await;
    cluster.up("b", &["cc100", "cc101"]).await;
    cluster.drain("a", true).await;
    assert_eq!(cluster.take(&a).await, [Order::Moved(second, PlacedAgain::On("b".into()))]);
    assert_eq!(cluster.row(second).await.node, "b");
    assert_eq!(cluster.fate(first).await.0, "live", "P7: nobody is moved");
    // a restarted daemon still drains
    let again = cluster.up("a", &["cc100", "cc101"]).await;
    assert_eq!(cluster.node("a").await.state, ShownNodeState::Draining);
    cluster.drain("a", false).await;
    cluster.beat(&again).await;
    assert_eq!(cluster.node("a").await.state, ShownNodeState::Active);
}

#[tokio::test]
async fn p6_what_an_old_generation_says_is_refused() {
    let mut cluster = Cluster::start().await;
    let (session, members) = ringing(&mut cluster).await;
    let old = members[0].clone();
    let names = cluster.run::<Vec<String>>(&["SMEMBERS", "NS:index:nodes"]).await;
    assert_eq!(names.len(), 3);
    let new = cluster.up(old.name.as_str(), &["cc100"]).await;
    assert_ne!(new.generation, old.generation);
    let before: Vec<String> = cluster.run(&["HGETALL", &format!("NS:session:{session}")]).await;
    let stranger = Member { name: id("nobody"), generation: old.generation };
    for (member, expected) in [(&old, "fenced"), (&stranger, "forgotten")] {
        let (name, generation) = (&member.name, member.generation);
        let registry = &mut cluster.registry;
        assert_eq!(
            word(
                registry
                    .heartbeat(name, generation, (NodeState::Down, 0, 0), (&mut cluster.beats, Now::default()))
                    .await
            ),
            expected
        );
        assert_eq!(word(registry.fetch_orders(name, generation, Fetch { number: 1, since: 1 }, 9).await), expected);
        assert_eq!(
            word(registry.report(name, generation, NodeState::Active, &[(session, Outcome::Live)]).await),
            expected
        );
        assert_eq!(word(registry.leave(name, generation, &mut cluster.beats).await), expected);
        let settings = NodeSettings { weight: 9, ..node(name.as_str()) };
        assert_eq!(word(registry.limits(&settings, generation).await), expected);
        assert_eq!(word(registry.contacts(name, generation, &[]).await), expected);
        let none = phones(evenring::node::roster::PhoneState::Registered, []);
        assert_eq!(word(registry.phones(name, generation, &none).await), expected);
        assert_eq!(word(registry.adopt(name, generation, &[(channel(session), Live::Yes)]).await), expected);
    }
    assert_eq!(cluster.run::<Vec<String>>(&["HGETALL", &format!("NS:session:{session}")]).await, before);
    let row = cluster.node(new.name.as_str()).await;
    assert_eq!((row.state.as_str(), row.refused), ("active", 8), "each refusal is counted");
    let beat = cluster
        .registry
        .heartbeat(&new.name, new.generation, (NodeState::Active, 0, 1), (&mut cluster.beats, Now::default()))
        .await
        .unwrap();
    assert_eq!(beat.refused, 8, "and the node's daemon hears of it");
    assert_eq!(cluster.run::<u64>(&["HLEN", &format!("NS:phones:{}", new.name)]).await, 1);
}

fn channel(session: evenring::ids::SessionId) -> Login {
    let request = login("cc100x", "7");
    let (extension, class) = (id("cc100"), request.class);
    Login { session, attempt: 1, alias: request.alias, extension, agent: id("7"), campaign: None, class }
}

#[tokio::test]
async fn p6_another_host_gets_the_name_only_when_the_lease_is_over() {
    let mut cluster = Cluster::start().await;
    let first = cluster.up("a", &[]).await;
    let next = Generation::from_bits(900);
    let held = cluster.registry.register(&node("a"), next, "other").await.unwrap();
    let is_held = matches!(&held, Registered::Held { by, left } if by == "host" && left.as_secs() >= 50);
    assert!(is_held, "{held:?}");
    cluster.beat(&first).await;
    cluster.lapse("a").await;
    let registered = cluster.registry.register(&node("a"), next, "other").await.unwrap();
    assert_eq!(registered, Registered::Taken { previous: Some(first.generation) });
}

#[tokio::test]
async fn p6_the_same_holder_takes_over_at_once_and_what_stands_behind_the_blank_is_for_people() {
    let mut cluster = Cluster::start().await;
    let lives = [1, 2, 3].map(Generation::from_bits);
    previous(cluster.registry.register(&node("a"), lives[0], "tel-1/boot/1:7 pid 5").await.unwrap());
    let next = cluster.registry.register(&node("a"), lives[1], "tel-1/boot/1:7 pid 6").await.unwrap();
    assert_eq!(next, Registered::Taken { previous: Some(lives[0]) });
    let other = cluster.registry.register(&node("a"), lives[2], "tel-1/boot/1:8 pid 7").await.unwrap();
    let is_held = matches!(&other, Registered::Held { by, .. } if by == "tel-1/boot/1:7 pid 6");
    assert!(is_held, "another lock proves nothing: {other:?}");
}

#[tokio::test]
async fn leaving_moves_orders_and_keeps_calls_for_the_grace() {
    let mut cluster = Cluster::start().await;
    let a = cluster.up("a", &["cc100", "cc101", "cc102"]).await;
    let (live, _) = cluster.placed("cc100x", "7").await;
    cluster.take(&a).await;
    cluster.report(&a, live, Outcome::Live).await;
    let (moved, _) = cluster.placed("cc101x", "8").await;
    let b = cluster.up("b", &["cc101"]).await;
    assert_eq!(cluster.registry.leave(&a.name, a.generation, &mut cluster.beats).await.unwrap(), 1);
    assert_eq!(cluster.row(moved).await.node, "b");
    assert_eq!(cluster.beat(&b).await, [], "the grace");
    assert_eq!(cluster.fate(live).await.0, "live");
    assert_eq!(cluster.node("a").await.state, ShownNodeState::Stopped);
    // the next daemon, on any host, finds it there
    let next = Generation::from_bits(900);
    previous(cluster.registry.register(&node("a"), next, "other").await.unwrap());
    let found = [(channel(live), Live::Yes)];
    assert_eq!(cluster.registry.adopt(&a.name, next, &found).await.unwrap(), [Adopted::Kept]);
    cluster.registry.leave(&a.name, next, &mut cluster.beats).await.unwrap();
    cluster.lapse("a").await;
    assert_eq!(cluster.beat(&b).await, [(live.to_string(), "a".into(), "node-lost".into())]);
}

#[tokio::test]
async fn a_second_try_takes_nobodys_phone_when_the_alias_changed_its_meaning() {
    let mut cluster = Cluster::start().await;
    let a = cluster.up("a", &["cc100", "cc200"]).await;
    cluster.alias("cc100x", &["cc200@a"]).await;
    let (first, _) = cluster.placed("cc100x", "7").await;
    cluster.take(&a).await;
    let (second, _) = cluster.placed("cc100", "8").await;
    cluster.up("b", &["cc100"]).await;
    assert_eq!(cluster.registry.remove_aliases(["cc100x"]).await.unwrap(), 1);
    assert_eq!(cluster.report(&a, first, cannot()).await, "failed", "cc100 is agent 8's now");
    let holder: String = cluster.run(&["HGET", "NS:holders", "phone:cc100"]).await;
    assert_eq!(holder, second.to_string());
}
