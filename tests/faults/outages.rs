//! Redis is away for longer than a lease: a part of the table. Agents are live, phones ring, and orders lie in Redis when
//! it goes; everybody logs in again while it is away, when it is back and no daemon is, and when one daemon is.
//!
//! Owns what strikes there. Must never look whether it did harm.

use std::time::Duration;

use super::callers::{Door, Patience};
use super::ground::Ground;
use super::judge::Memory;
use super::round::{Fault, Live};
use super::setup::{LEASE, Setup, alias};
use super::table::PLAIN;
use crate::lab::phone::Behaviour;
use crate::lab::wait_until;
use crate::lab::wires::{Cable, End};

/// Who is live, who logs in, whose phones ring when it comes, and whose orders lie in Redis then: phones by number.
const LIVE: u32 = 20;
const LOGINS: u32 = 30;
const RINGING: std::ops::Range<u32> = LIVE..LIVE + LOGINS / 3;
const PLACED: std::ops::Range<u32> = LIVE + LOGINS..LIVE + LOGINS + 8;

/// Twice the lease.
const AWAY: Duration = Duration::from_secs(2 * LEASE.as_secs());
/// Every other one who rings picks up while Redis is away, the others when it is back.
const PICKS_UP: [Duration; 2] = [Duration::from_secs(3), Duration::from_secs(10)];
/// From the first daemon that is back to the others.
const FIRST: Duration = Duration::from_millis(1_000);
/// For so long they ask again: there is a time in which nobody can know whom a node has.
const PATIENT: Duration = Duration::from_secs(15);
/// What is said at once is said by then.
const SAID: Duration = Duration::from_secs(20);

pub(super) fn all() -> Vec<Fault> {
    let away = Fault {
        live: Live::Spread(LIVE),
        logins: LOGINS,
        prepare: |stage| {
            for (n, after) in RINGING.zip(PICKS_UP.into_iter().cycle()) {
                stage.phones.behave(alias(n).trim_end_matches('x'), Behaviour::Answer { after });
            }
        },
        hold: AWAY,
        ..PLAIN
    };
    vec![
        Fault {
            name: "redis-away-frozen",
            what: "SIGSTOP of the only Redis for 6 s; the same logins again",
            ground: Ground::Journal,
            strike: |stage| goes(stage, |stage| stage.redis.sigstop()),
            repair: |stage| comes_back(stage, |stage| stage.redis.sigcont()),
            ..away
        },
        Fault {
            name: "redis-away-journal",
            what: "kill -9 of the only Redis, back from its journal after 6 s; the same logins again",
            ground: Ground::Journal,
            strike: |stage| goes(stage, |stage| stage.redis.kill9()),
            repair: |stage| comes_back(stage, |stage| stage.redis.start_again()),
            ..away
        },
        Fault {
            name: "redis-away-empty",
            what: "kill -9 of the only Redis, back empty after 6 s; the same logins again",
            ground: Ground::Memory,
            memory: Memory::Fades,
            strike: |stage| goes(stage, |stage| stage.redis.kill9()),
            repair: |stage| comes_back(stage, |stage| stage.redis.start_again()),
            ..away
        },
    ]
}

fn everybody() -> Vec<String> {
    (0..PLACED.end).map(alias).collect()
}

fn cables(stage: &Setup) -> Vec<&'static str> {
    stage.lab.nodes().iter().map(crate::lab::Node::name).collect()
}

/// It goes, while the daemons stand still for a moment: what was just accepted lies there, and nobody has taken it.
fn goes(stage: &mut Setup, go: fn(&mut Setup)) {
    for node in cables(stage) {
        stage.daemon(node).sigstop();
    }
    stage.ask(Door::Here, PLACED.map(alias).collect(), Duration::from_millis(1), Patience::Once);
    let placed = |stage: &Setup| {
        let asked = stage.asked();
        PLACED.map(alias).all(|alias| asked.iter().any(|one| one.alias == alias))
    };
    wait_until(SAID, "the last orders to be placed", || placed(stage));
    go(stage);
    for node in cables(stage) {
        stage.daemon(node).sigcont();
    }
    stage.ask(Door::Here, everybody(), Duration::from_millis(80), Patience::Once);
}

/// It comes back, and nobody reaches it but those who log in; then one node; then all.
fn comes_back(stage: &mut Setup, come: fn(&mut Setup)) -> Vec<String> {
    for node in cables(stage) {
        stage.wires.pull(End::Node(node, Cable::Data));
    }
    come(stage);
    stage.ask(Door::Here, everybody(), Duration::from_millis(5), Patience::Once);
    wait_until(SAID, "those who log in again to be told", || stage.all_told());
    stage.ask(Door::Here, everybody(), Duration::from_millis(20), Patience::Until(PATIENT));
    let mut nodes = cables(stage).into_iter();
    if let Some(node) = nodes.next_back() {
        stage.wires.put_back(End::Node(node, Cable::Data));
    }
    stage.wait(FIRST);
    for node in nodes {
        stage.wires.put_back(End::Node(node, Cable::Data));
    }
    Vec::new()
}
