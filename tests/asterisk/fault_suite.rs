//! The fault suite, a part of it, as `./dev faults` runs it; and whether its judge sees what is planted.
//!
//! Owns which faults every run of the tests has, and the planted faults. Must never know how a fault is made.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that fails says why")]

#[path = "../faults/mod.rs"]
mod faults;
#[path = "../lab/mod.rs"]
mod lab;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use evenring::registry::view::{NodeRow, SessionRow};
use faults::judge::{Answer, Asked, Calls, Channel, Deaf, Evidence, Memory, Strike, Who, judge};
use faults::round::{Fault, Live, Outcome};
use faults::{ground::Ground, report, setup::Setup, table};
use lab::now;
use lab::phone::{Record, What};

/// One of each kind, which are quick.
const CHOSEN: [&str; 3] = ["asterisk-kill", "redis-flush", "phones-unregister"];
/// An Asterisk stops with all its agents, while others log in; here with fewer than `./dev faults` has.
const STOPS: &str = "stop-now";
/// Redis is away for longer than a lease, and everybody logs in again.
const AWAY: [&str; 2] = ["redis-away-frozen", "redis-away-journal"];

fn chosen(names: &[&str]) -> Vec<Fault> {
    let chosen: Vec<_> = table::all().into_iter().filter(|fault| names.contains(&fault.name)).collect();
    assert_eq!(chosen.len(), names.len());
    chosen
}

/// All of these keep all promises; the last line, for programs.
#[track_caller]
fn kept(outcomes: &[Outcome]) -> serde_json::Value {
    println!("{}", report::table(outcomes));
    let line: serde_json::Value = serde_json::from_str(&report::line(outcomes, Duration::ZERO)).unwrap();
    assert_eq!((&line["faults"], &line["violations"]), (&outcomes.len().into(), &0.into()), "{line}");
    line
}

#[test]
fn the_promises_hold_through_some_of_the_faults() {
    let mut faults = chosen(&CHOSEN);
    let small = |fault: Fault| Fault { ground: Ground::Sentinel, live: Live::OnA(40, 6), logins: 40, ..fault };
    faults.extend(chosen(&[STOPS]).into_iter().map(small));
    let mut stage = Setup::set(Ground::Sentinel);
    let outcomes = faults::play_on(&mut stage, &faults);
    let line = kept(&outcomes);
    // It did something.
    assert!(line["logins"].as_u64() > Some(90) && line["invites"].as_u64() > Some(300), "{line}");
    for outcome in &outcomes {
        let moved = match outcome.name {
            "asterisk-kill" => 50,
            STOPS => 40,
            _ => 0,
        };
        assert_eq!(outcome.moved, moved, "{outcome:?}");
    }

    // The judge is not blind: somebody else rings a phone, and that is seen.
    stage.lab.node("b").ring("PJSIP/cc101", 1);
    lab::wait_until(Duration::from_secs(10), "cc101 to ring", || !stage.phones.invites().is_empty());
    let (nodes, sessions) = stage.look().unwrap();
    let seen = Evidence { rings: stage.phones.records(), nodes, sessions, ..clean() };
    assert!(judge(&seen).iter().any(|word| word.contains("rang cc101 for no session")), "{:?}", judge(&seen));
}

#[test]
fn nobody_is_judged_dead_after_redis_was_away_for_longer_than_a_lease() {
    let outcomes = faults::play_on(&mut Setup::set(Ground::Journal), &chosen(&AWAY));
    let line = kept(&outcomes);
    // Each of them: 20 live, 10 whose phones rang, 8 whose orders lay there, and 20 who came when it was away.
    assert_eq!(line["invites"].as_u64(), Some(2 * 58), "{line}");
    for outcome in &outcomes {
        assert_eq!((outcome.moved, outcome.became_live), (0, 38), "{outcome:?}");
        assert!(outcome.errors > 50, "Redis was not away: {outcome:?}");
    }
}

#[test]
fn the_page_has_every_fault() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/faults.md")).unwrap();
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    assert!(readme.contains("(docs/faults.md)") && page.contains("./dev faults"));
    for (name, what) in faults::all() {
        let row = format!("| {name}: {what} ");
        assert!(page.contains(&row), "docs/faults.md has no row for {name}: run ./dev faults and put its table there");
    }
}

// ---------------------------------------------------------------- the judge

const NODE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 11);
const OTHER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 12);
/// The session that was live before, and the one that came with the fault.
const OLD: &str = "00000000000000aa";
const NEW: &str = "00000000000000bb";

fn session(id: &str, phone: &str, state: &str) -> SessionRow {
    SessionRow {
        session: id.into(),
        alias: format!("{phone}x"),
        extension: phone.into(),
        agent: phone.into(),
        campaign: String::new(),
        node: "a".into(),
        state: state.into(),
        remote: false,
        reason: None,
        since: 1,
        queue_position: None,
        rejoined_from: String::new(),
        hold: false,
    }
}

fn ring(id: &str, phone: &str, node: Ipv4Addr, at: Instant, what: What) -> Record {
    let from = format!("\"{id}\" <sip:{phone}@{node}>;tag=1");
    Record { at, phone: phone.into(), node, call_id: format!("{id}@{node}"), from, what }
}

/// Two agents on node a, one of them since before the fault; all is well.
fn clean() -> Evidence {
    let start = now();
    let later = |ms: u64| start + Duration::from_millis(ms);
    let sessions = vec![session(OLD, "cc100", "live"), session(NEW, "cc101", "live")];
    let channel =
        |row: &SessionRow| Channel { session: row.session.clone(), phone: row.extension.clone(), state: "Up".into() };
    let took = Duration::from_millis(5);
    Evidence {
        strike: Strike { victim: Some(("a".into(), NODE)), at: later(900), out: Some((later(1_100), later(5_000))) },
        persistent: BTreeSet::new(),
        left: BTreeSet::new(),
        asked: vec![Asked {
            alias: "cc101x".into(),
            node: "b".into(),
            session: Some(NEW.parse().unwrap()),
            at: later(1_000),
            took,
            answer: Answer::Accepted,
        }],
        before: vec![sessions[0].clone()],
        calls: Calls::Stay,
        memory: Memory::Stays,
        nodes: vec![NodeRow {
            name: "a".into(),
            state: "active".into(),
            agents: 2,
            remote: 0,
            load: 2.0,
            weight: 1,
            max_agents: None,
            sip: None,
            address: None,
            registrations: Some(2),
            channels: 2,
            lease_ms: 2_000,
            generation: "1".into(),
            refused: 0,
            queued: 0,
            version: String::new(),
            case: "exact".to_owned(),
            reason: String::new(),
            claimant: String::new(),
            left_out: Vec::new(),
            keepalive: None,
            restart_pending: Vec::new(),
            unsure: false,
            host: String::new(),
        }],
        phones: BTreeMap::from([("a".into(), 2)]),
        channels: BTreeMap::from([("a".into(), sessions.iter().map(channel).collect())]),
        sessions,
        rings: vec![
            ring(OLD, "cc100", NODE, later(0), What::Invite),
            ring(OLD, "cc100", NODE, later(300), What::Answer(200)),
            ring(NEW, "cc101", NODE, later(1_010), What::Invite),
            ring(NEW, "cc101", NODE, later(1_310), What::Answer(200)),
        ],
        deaf: Vec::new(),
        tries: 3,
    }
}

/// What is planted is seen, and named by this promise.
#[track_caller]
fn sees(promise: &str, words: &str, plant: impl FnOnce(&mut Evidence)) {
    let mut seen = clean();
    plant(&mut seen);
    let wrong = judge(&seen);
    assert!(wrong.iter().any(|line| line.starts_with(promise) && line.contains(words)), "{words}: {wrong:?}");
}

/// This is allowed.
#[track_caller]
fn allows(plant: impl FnOnce(&mut Evidence)) {
    let mut seen = clean();
    plant(&mut seen);
    assert_eq!(judge(&seen), [""; 0]);
}

/// A node that does not hear for ten seconds.
fn deaf(node: Ipv4Addr, from: Instant) -> Deaf {
    Deaf { who: Who::Node(node), from, until: Some(from + Duration::from_secs(10)) }
}

#[test]
fn the_judge_sees_a_phone_that_rings_too_often() {
    let later = |seen: &Evidence, ms: u64| seen.rings[2].at + Duration::from_millis(ms);
    allows(|_| {});
    sees("P1", "more than once a try", |seen| {
        let again = Record { call_id: "other".into(), at: later(seen, 9_000), ..seen.rings[2].clone() };
        seen.rings.push(again);
    });
    // The next try is fine when the first has ended, and not while it goes on.
    allows(|seen| {
        let at = later(seen, 400);
        seen.rings[3].what = What::Answer(503);
        seen.rings.push(ring(NEW, "cc101", OTHER, at, What::Invite));
    });
    sees("P1", "had a call from 10.77.0.11 when 10.77.0.12 rang it", |seen| {
        seen.rings.insert(3, ring(NEW, "cc101", OTHER, later(seen, 100), What::Invite));
    });
    sees("P1", "had a call from 10.77.0.11", |seen| {
        let at = later(seen, 2_000);
        seen.rings.push(ring("00000000000000cc", "cc101", OTHER, at, What::Invite));
    });
    // A node that was dead cannot end its call; one that died later could have.
    let second = |seen: &mut Evidence, died: u64| {
        seen.deaf.push(deaf(NODE, later(seen, died)));
        let at = later(seen, 500);
        seen.rings.push(ring(NEW, "cc101", OTHER, at, What::Invite));
    };
    allows(|seen| second(seen, 200));
    sees("P1", "had a call", |seen| second(seen, 700));
    // What had been on its way to a node rings when that is back, and is taken back at once.
    let late = |seen: &mut Evidence, from: u64, at: u64, back: u64| {
        seen.deaf.push(deaf(OTHER, later(seen, from)));
        let (at, back) = (later(seen, at), later(seen, back));
        seen.rings.push(ring(NEW, "cc101", OTHER, at, What::Invite));
        seen.rings.push(ring(NEW, "cc101", OTHER, back, What::Cancel));
    };
    allows(|seen| late(seen, 100, 9_000, 9_500));
    allows(|seen| {
        late(seen, 9_500, 9_000, 9_500);
        seen.deaf[0].who = Who::Phone("cc101".into());
        seen.deaf[0].from = later(seen, 100);
    });
    sees("P1", "had a call", |seen| late(seen, 100, 9_000, 19_000));
    sees("P1", "had a call", |seen| late(seen, 9_500, 9_000, 9_500));
    sees("P1", "had a call", |seen| late(seen, 100, 60_000, 60_100));
    // The last repetition of all: Asterisk has forgotten the call when it rings.
    allows(|seen| late(seen, 100, 31_500, 60_000));
    sees("P1", "had a call", |seen| late(seen, 100, 30_000, 60_000));
    // Its calls are its own again when it hears again.
    sees("P1", "had a call", |seen| {
        seen.deaf.push(Deaf { who: Who::Node(NODE), from: seen.rings[0].at, until: Some(seen.rings[1].at) });
        let at = later(seen, 500);
        seen.rings.push(ring(NEW, "cc101", OTHER, at, What::Invite));
    });
    sees("P1", "for no session", |seen| seen.rings[2].from = "<sip:1@2>".into());
    sees("P1", "more than once a try", |seen| {
        for last in 12..16 {
            let node = Ipv4Addr::new(10, 77, 0, last);
            let at = later(seen, 1_000 * u64::from(last));
            seen.rings.push(ring(NEW, "cc101", node, at, What::Invite));
            seen.rings.push(ring(NEW, "cc101", node, at, What::Cancel));
        }
    });
}

#[test]
fn the_judge_sees_ghosts_and_loads_that_disagree() {
    sees("P5", "a ghost", |seen| {
        seen.channels.get_mut("a").unwrap().pop();
    });
    sees("P5", "not open in Redis", |seen| {
        let ghost = Channel { session: "00000000000000cc".into(), phone: "cc102".into(), state: "Up".into() };
        seen.channels.get_mut("a").unwrap().push(ghost);
    });
    sees("P5", "not open in Redis", |seen| seen.sessions[1].state = "ended".into());
    sees("P5", "Redis says 3 agents", |seen| seen.nodes[0].agents = 3);
    sees("P5", "1 channels", |seen| seen.nodes[0].channels = 1);
    sees("P5", "1 of them up", |seen| seen.channels.get_mut("a").unwrap()[0].state = "Ringing".into());
    sees("P5", "two calls of one session", |seen| {
        let twice = seen.channels["a"][0].clone();
        seen.channels.get_mut("a").unwrap().push(twice);
    });
}

#[test]
fn the_judge_sees_who_was_forgotten_or_moved() {
    sees("P4", "ringing for ever", |seen| seen.sessions[1].state = "ringing".into());
    sees("P4", "without a reason", |seen| seen.sessions[1].state = "failed".into());
    sees("P4", "does not know the session", |seen| {
        seen.sessions.pop();
    });
    // Redis has lost its memory: then a login may be forgotten, if it did not leave a call behind.
    let forget = |seen: &mut Evidence| {
        seen.memory = Memory::Fades;
        seen.sessions.pop();
    };
    sees("P5", "not open in Redis", forget);
    allows(|seen| {
        forget(seen);
        seen.channels.get_mut("a").unwrap().pop();
        (seen.nodes[0].agents, seen.nodes[0].channels) = (1, 1);
    });
    sees("P7", "agent cc100 was live", |seen| seen.sessions[0].session = "00000000000000cc".into());
    sees("P7", "agent cc100 was live", |seen| seen.sessions[0].state = "ended".into());
    sees("P9", "agent cc100 was live", |seen| {
        seen.calls = Calls::Move;
        seen.sessions.remove(0);
    });
}

#[test]
fn the_judge_sees_a_node_that_is_not_back() {
    sees("P6", "node a is down", |seen| seen.nodes[0].state = "down".into());
    sees("P12", "1 phones, not 2", |seen| seen.nodes[0].registrations = Some(1));
    sees("P12", "does not know node a", |seen| seen.nodes.clear());
}

/// A login that asks until it is accepted: its phone rang once, and it is live.
fn persists(seen: &mut Evidence) {
    seen.persistent.insert("cc101x".into());
}

#[test]
fn the_judge_sees_who_was_taken_for_dead() {
    let later = |seen: &Evidence, ms: u64| seen.rings[2].at + Duration::from_millis(ms);
    allows(persists);
    // A node that was not lost hangs up on nobody, also if its agent is live elsewhere in the end.
    let cut = |seen: &mut Evidence| {
        let at = later(seen, 5_000);
        seen.rings.push(ring(NEW, "cc101", NODE, at, What::Bye));
    };
    sees("P7", "cc101 was cut off by 10.77.0.11", |seen| {
        seen.strike.victim = None;
        cut(seen);
    });
    allows(|seen| {
        seen.calls = Calls::Move;
        cut(seen);
    });
    // An Asterisk that stops may hang up on those who picked up when it had begun to.
    allows(cut);
    sees("P7", "cc101 was cut off", |seen| {
        cut(seen);
        seen.strike.at = later(seen, 2_000);
    });
    // The first call is taken back, and then there is another: never two at a time, and yet it rang twice.
    let again = |seen: &mut Evidence| {
        persists(seen);
        seen.rings[3].what = What::Cancel;
        let at = later(seen, 1_000);
        seen.rings.push(ring("00000000000000cc", "cc101", OTHER, at, What::Invite));
        seen.rings.push(ring("00000000000000cc", "cc101", OTHER, at, What::Answer(200)));
    };
    sees("P1", "cc101 rang 2 times, and was never lost", again);
    allows(|seen| {
        again(seen);
        seen.calls = Calls::Move;
    });
    let lost = |seen: &mut Evidence| {
        let lost = SessionRow { reason: Some("node-lost".into()), ..session("00000000000000cc", "cc102", "failed") };
        seen.sessions.push(lost);
    };
    sees("P14", "cc102x is failed as node-lost, and node a was not lost", lost);
    allows(|seen| {
        lost(seen);
        seen.calls = Calls::Move;
    });
    sees("P4", "cc102x on a is order-expired", |seen| {
        lost(seen);
        seen.sessions[2].reason = Some("order-expired".into());
    });
    sees("P6", "node b left the rotation", |seen| {
        seen.left.insert("b".into());
    });
}

#[test]
fn the_judge_sees_who_is_turned_away_or_sent_to_a_node_that_stops() {
    sees("P8", "cc101x asked until the end, was told Refused", |seen| {
        persists(seen);
        seen.asked[0].answer = Answer::Refused("not now".into());
    });
    sees("P8", "cc101x asked until the end, was told Accepted at last, and is Over", |seen| {
        persists(seen);
        seen.sessions[1] = SessionRow { reason: Some("no-answer".into()), ..session(NEW, "cc101", "failed") };
    });
    sees("P8", "cc103x never asked", |seen| {
        seen.persistent.insert("cc103x".into());
    });
    // Node a was struck at 900 ms, and was seen out of the rotation from 1.1 s to 5 s.
    let sent = |seen: &mut Evidence, ms: u64| {
        seen.asked[0].node = "a".into();
        seen.asked[0].at = seen.rings[0].at + Duration::from_millis(ms);
    };
    allows(|seen| sent(seen, 1_000));
    sees("P6", "cc101x was sent to a 1.2s after the fault", |seen| sent(seen, 2_100));
    allows(|seen| sent(seen, 5_100));
    allows(|seen| {
        sent(seen, 2_100);
        seen.strike.victim = None;
    });
    // Its agents ring elsewhere, and still somebody is sent there.
    sees("P6", "cc101x was sent to a 100ms after the fault", |seen| {
        sent(seen, 1_000);
        seen.calls = Calls::Move;
        seen.deaf.push(deaf(NODE, seen.rings[0].at));
        let at = seen.rings[0].at + Duration::from_millis(950);
        seen.rings.push(ring(OLD, "cc100", OTHER, at, What::Invite));
    });
}
