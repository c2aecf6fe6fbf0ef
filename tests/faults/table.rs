//! All faults, in the order in which they are played.
//!
//! Owns how each is made and repaired, and what it may cost. Must never look whether it did cost more.

use std::time::Duration;

use super::callers::Door;
use super::clock;
use super::ground::Ground;
use super::judge::{Calls, Deaf, Memory, Who};
use super::outages;
use super::round::{Fault, Limits, Live, Rotation};
use super::setup::{FIRST, LEASE, Setup};
use super::stops;
use crate::lab::now;
use crate::lab::wires::{Cable, End};

/// The node that most faults strike; it has Asterisk 22.
pub(super) const A: &str = "a";
/// The one with Asterisk 16.
const C: &str = "c";
/// The first phones that vanish in the middle: some of those who just log in.
const VANISHING: std::ops::Range<u32> = 36..44;

pub(super) const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Out at once: P6, and room for a busy machine.
pub(super) const AT_ONCE: Option<Duration> = Some(ms(500));
/// Asterisk says nothing by itself: the next ping, or the first login there, finds it out.
pub(super) const NEXT_PING: Option<Duration> = Some(ms(2_600));
/// When its lease ends, at the latest with the next look of the others.
const LEASE_ENDS: Option<Duration> = Some(ms(4_000));

const NOTHING: fn(&mut Setup) = |_| {};
/// Somebody who logs in is told so fast that it does not work now.
const PROMPT: Duration = ms(2_500);
pub(super) const NO_LIMITS: Limits = Limits { out: None, again: None, prompt: Some(PROMPT), elsewhere: None };

/// What most have in common: twenty live agents, thirty logins, nothing may be lost.
pub(super) const PLAIN: Fault = Fault {
    name: "",
    what: "",
    ground: Ground::Sentinel,
    live: Live::Spread(20),
    logins: 30,
    every: ms(100),
    door: Door::Here,
    victim: None,
    rotation: Rotation::Changes,
    calls: Calls::Stay,
    memory: Memory::Stays,
    prepare: NOTHING,
    strike: NOTHING,
    hold: ms(1_000),
    repair: |_| Vec::new(),
    limits: NO_LIMITS,
};

/// The same for a node that goes away with its calls.
pub(super) const LOST: Fault = Fault { victim: Some(A), calls: Calls::Move, ..PLAIN };

/// The whole suite.
pub fn all() -> Vec<Fault> {
    let here =
        [daemons(), logs(), asterisks(), consoles(), hosts(), redises(), redis_cables(), other_cables(), phones()];
    [here.concat(), outages::all(), stops::all()].concat()
}

fn daemons() -> Vec<Fault> {
    vec![
        Fault {
            name: "daemon-kill",
            what: "kill -9 of a daemon; systemd starts it again",
            strike: |stage| stage.daemon(A).kill9(),
            ..PLAIN
        },
        Fault {
            name: "daemon-freeze",
            what: "SIGSTOP of a daemon for 2 s, less than its lease",
            strike: |stage| stage.daemon(C).sigstop(),
            hold: ms(2_000),
            repair: |stage| {
                stage.daemon(C).sigcont();
                Vec::new()
            },
            ..PLAIN
        },
        Fault {
            name: "daemon-freeze-long",
            what: "SIGSTOP of a daemon for 6 s: the others take it for dead",
            victim: Some(A),
            calls: Calls::Move,
            strike: |stage| {
                stage.deafen(A);
                stage.daemon(A).sigstop();
            },
            hold: ms(6_000),
            repair: |stage| {
                stage.daemon(A).sigcont();
                Vec::new()
            },
            limits: Limits { out: LEASE_ENDS, ..NO_LIMITS },
            ..PLAIN
        },
        Fault {
            name: "clock",
            what: "the clock of a daemon jumps an hour ahead, and back",
            prepare: |stage| {
                clock::prepare(stage, A);
            },
            strike: |stage| clock::set(stage, A, "+3600"),
            hold: ms(3_000),
            repair: |stage| clock::repair(stage, A),
            ..PLAIN
        },
    ]
}

/// Its log goes into a pipe, as a container's does.
fn logs() -> Vec<Fault> {
    vec![Fault {
        name: "log-blocked",
        what: "a daemon logs into a pipe that is full, and that nobody reads for 6 s",
        logins: 60,
        every: ms(50),
        rotation: Rotation::Stays,
        prepare: |stage| {
            stage.restart_daemon_into_a_pipe(A);
            stage.wait_whole();
        },
        strike: |stage| stage.pipes[A].block(),
        hold: ms(6_000),
        repair: |stage| {
            stage.pipes[A].unblock();
            Vec::new()
        },
        ..PLAIN
    }]
}

fn asterisks() -> Vec<Fault> {
    vec![
        Fault {
            name: "asterisk-kill",
            what: "kill -9 of an Asterisk with 50 agents; started again after 3 s",
            live: Live::OnA(50, 6),
            strike: |stage| {
                stage.deafen(A);
                stage.lab.node(A).kill9();
            },
            hold: ms(3_000),
            repair: |stage| start_asterisk(stage, A),
            limits: Limits { out: AT_ONCE, elsewhere: Some(ms(1_000) + PACING), ..NO_LIMITS },
            ..LOST
        },
        Fault {
            name: "asterisk-freeze",
            what: "SIGSTOP of an Asterisk for 8 s",
            strike: |stage| {
                stage.deafen(A);
                stage.lab.node(A).sigstop();
            },
            hold: ms(8_000),
            repair: |stage| {
                stage.lab.node(A).sigcont();
                Vec::new()
            },
            // ami.ping_interval and ami.ping_timeout
            limits: Limits { out: Some(ms(2_500 + 2_500 + 500)), ..NO_LIMITS },
            ..LOST
        },
        Fault {
            name: "asterisk-restart",
            what: "`core restart now` (22)",
            strike: |stage| {
                stage.deafen(A);
                stage.lab.node(A).say_cli("core restart now");
            },
            hold: ms(4_000),
            limits: Limits { out: AT_ONCE, ..NO_LIMITS },
            ..LOST
        },
        Fault {
            name: "asterisk-restart-16",
            what: "`core restart now` (16)",
            victim: Some(C),
            strike: |stage| {
                stage.deafen(C);
                stage.lab.node(C).say_cli("core restart now");
            },
            hold: ms(4_000),
            limits: Limits { out: AT_ONCE, ..NO_LIMITS },
            ..LOST
        },
    ]
}

/// What an operator types at Asterisk's console, and no call is lost.
fn consoles() -> Vec<Fault> {
    vec![
        Fault {
            name: "asterisk-graceful",
            what: "`core stop gracefully` (22), and after 4 s `core abort shutdown`",
            victim: Some(A),
            strike: |stage| stage.lab.node(A).say_cli("core stop gracefully"),
            hold: ms(4_000),
            repair: stops::abort_shutdown,
            limits: Limits { out: NEXT_PING, ..NO_LIMITS },
            ..PLAIN
        },
        Fault {
            name: "asterisk-reload",
            what: "`module reload` on all three",
            strike: |stage| {
                for node in stage.lab.nodes() {
                    node.cli("module reload");
                }
            },
            ..PLAIN
        },
    ]
}

fn hosts() -> Vec<Fault> {
    vec![
        Fault {
            name: "host-kill",
            what: "kill -9 of daemon and Asterisk together, 50 agents; back after 6 s",
            live: Live::OnA(50, 6),
            strike: |stage| {
                stage.deafen(A);
                stage.hold_back(A);
                stage.daemon(A).kill9();
                stage.lab.node(A).kill9();
            },
            hold: ms(6_000),
            repair: |stage| {
                stage.let_go(A);
                start_asterisk(stage, A)
            },
            limits: Limits { out: LEASE_ENDS, elsewhere: Some(LEASE_AND_ONE), ..NO_LIMITS },
            ..LOST
        },
        Fault {
            name: "host-freeze",
            what: "SIGSTOP of daemon and Asterisk together for 6 s, 50 agents",
            live: Live::OnA(50, 6),
            strike: |stage| {
                stage.deafen(A);
                stage.daemon(A).sigstop();
                stage.lab.node(A).sigstop();
            },
            hold: ms(6_000),
            repair: |stage| {
                stage.lab.node(A).sigcont();
                stage.daemon(A).sigcont();
                Vec::new()
            },
            limits: Limits { out: LEASE_ENDS, elsewhere: Some(LEASE_AND_ONE), ..NO_LIMITS },
            ..LOST
        },
    ]
}

/// Beyond `ring.burst` a node rings `ring.rate` phones a second: 50 agents are within the burst.
const PACING: Duration = Duration::ZERO;
const LEASE_AND_ONE: Duration = ms(4_000);
const _: () = assert!(LEASE.as_millis() + 1_000 == LEASE_AND_ONE.as_millis());

fn redises() -> Vec<Fault> {
    let failover = Fault { logins: 50, memory: Memory::Fades, ..PLAIN };
    vec![
        Fault {
            name: "redis-kill",
            what: "kill -9 of the Redis primary",
            strike: |stage| stage.redis.kill9(),
            hold: ms(5_000),
            repair: |stage| {
                stage.redis.start_again();
                Vec::new()
            },
            limits: Limits { again: Some(ms(3_500)), ..NO_LIMITS },
            ..failover
        },
        Fault {
            name: "redis-flush",
            what: "FLUSHALL",
            strike: |stage| {
                let mut connection = redis::Client::open(stage.redis.primary_url())
                    .and_then(|client| client.get_connection())
                    .expect("the primary");
                redis::cmd("FLUSHALL").exec(&mut connection).expect("FLUSHALL");
            },
            hold: ms(2_000),
            // A lease, in which each node says whom it has, a heartbeat, and room for a busy machine.
            limits: Limits { again: Some(ms(5_000)), ..NO_LIMITS },
            ..Fault { logins: 60, ..failover }
        },
        Fault {
            name: "redis-freeze",
            what: "SIGSTOP of the Redis primary for 6 s",
            strike: |stage| stage.redis.sigstop(),
            hold: ms(6_000),
            repair: |stage| {
                stage.redis.sigcont();
                Vec::new()
            },
            limits: Limits { again: Some(ms(3_500)), ..NO_LIMITS },
            ..failover
        },
    ]
}

const TO_REDIS: End<'_> = End::Node(A, Cable::Data);
const TO_PHONES: End<'_> = End::Node(A, Cable::Phones);

fn redis_cables() -> Vec<Fault> {
    vec![
        Fault {
            name: "redis-link",
            what: "node and Redis cut off from each other for 1 s: with heartbeat and reconnecting less than the lease",
            strike: |stage| stage.wires.pull(TO_REDIS),
            hold: ms(1_000),
            repair: |stage| {
                stage.wires.put_back(TO_REDIS);
                Vec::new()
            },
            ..PLAIN
        },
        Fault {
            name: "redis-link-long",
            what: "node and Redis cut off from each other for 7 s",
            victim: Some(A),
            calls: Calls::Move,
            strike: |stage| {
                stage.deafen(A);
                stage.wires.pull(TO_REDIS);
            },
            hold: ms(7_000),
            repair: |stage| {
                stage.wires.put_back(TO_REDIS);
                Vec::new()
            },
            limits: Limits { out: LEASE_ENDS, ..NO_LIMITS },
            ..PLAIN
        },
        Fault {
            name: "redis-loss",
            what: "20 % of the packets between node and Redis lost, both ways, for 5 s",
            victim: Some(A),
            calls: Calls::Move,
            strike: |stage| {
                stage.deafen(A);
                stage.wires.spoil(TO_REDIS, 20);
            },
            hold: ms(5_000),
            repair: |stage| {
                stage.wires.repair(TO_REDIS);
                Vec::new()
            },
            ..PLAIN
        },
    ]
}

fn other_cables() -> Vec<Fault> {
    vec![
        Fault {
            name: "client-link",
            what: "the desk where logins are made cut off from Redis for 2 s",
            door: Door::Desk,
            memory: Memory::Stays,
            strike: |stage| stage.wires.pull(End::Desk),
            hold: ms(2_000),
            repair: |stage| {
                stage.wires.put_back(End::Desk);
                Vec::new()
            },
            ..PLAIN
        },
        Fault {
            name: "client-loss",
            what: "20 % of the packets between that desk and Redis lost, both ways, for 3 s",
            door: Door::Desk,
            strike: |stage| stage.wires.spoil(End::Desk, 20),
            hold: ms(3_000),
            repair: |stage| {
                stage.wires.repair(End::Desk);
                Vec::new()
            },
            ..PLAIN
        },
        Fault {
            name: "phone-link",
            what: "node and phones cut off from each other for 9 s",
            strike: |stage| {
                stage.deafen(A);
                stage.wires.pull(TO_PHONES);
            },
            hold: ms(9_000),
            repair: |stage| {
                stage.wires.put_back(TO_PHONES);
                Vec::new()
            },
            ..PLAIN
        },
        Fault {
            name: "phone-loss",
            what: "20 % of the packets between node and phones lost, both ways, for 5 s",
            strike: |stage| stage.wires.spoil(TO_PHONES, 20),
            hold: ms(5_000),
            repair: |stage| {
                stage.wires.repair(TO_PHONES);
                Vec::new()
            },
            ..PLAIN
        },
    ]
}

fn phones() -> Vec<Fault> {
    vec![
        Fault {
            name: "phones-unregister",
            what: "8 phones unregister everywhere just when they are to ring",
            strike: |stage| {
                for (phone, node) in vanishing(stage) {
                    stage.phones.unregister(&phone, node);
                }
            },
            hold: ms(3_000),
            repair: |stage| {
                for (phone, node) in vanishing(stage) {
                    stage.phones.register_again(&phone, node, 60);
                }
                Vec::new()
            },
            ..PLAIN
        },
        Fault {
            name: "phones-die",
            what: "8 phones lose their power just when they are to ring, for 9 s",
            strike: |stage| {
                for (phone, _) in vanishing(stage) {
                    stage.deaf.push(Deaf { who: Who::Phone(phone.clone()), from: now(), until: None });
                    stage.phones.unplug(&phone);
                }
            },
            hold: ms(9_000),
            repair: |stage| {
                for (phone, _) in vanishing(stage) {
                    stage.phones.plug_in(&phone);
                }
                Vec::new()
            },
            ..PLAIN
        },
    ]
}

fn vanishing(stage: &Setup) -> Vec<(String, std::net::SocketAddrV4)> {
    let phones = VANISHING.map(|n| format!("cc{}", FIRST + n));
    phones.flat_map(|phone| stage.lab.sip().into_iter().map(move |node| (phone.clone(), node))).collect()
}

/// Asterisk starts after a death; the phones see that their calls with it are dead.
pub(super) fn start_asterisk(stage: &mut Setup, name: &str) -> Vec<String> {
    stage.phones.forget_calls(stage.lab.node(name).address());
    stage.lab.node(name).start();
    Vec::new()
}
