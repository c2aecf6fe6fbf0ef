//! The whole cluster in one thread: many real node machines, the registry's plain model as their Redis, simulated
//! Asterisks, and everything between them that can be late, lost, repeated or dead, by one seed.
//!
//! Owns the world and its one loop. A step is one thing that happens: a message that arrives, a timer, a script in Redis,
//! a turn of a call, a fault. Time is only a number in it. The promises that are looked at after each step are in
//! `check`; the pieces of the daemon that are not pure are imitated in `daemon`, `writer`, `orders` and `wire`, each of
//! which says for which code it stands. Must never use a clock, a socket, a thread or any other source of chance.
#![allow(dead_code, unreachable_pub, reason = "the test and the example use their own parts")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a simulation that is wrong says why")]
#![allow(clippy::wildcard_enum_match_arm, reason = "most events mean nothing to most parts")]

mod agenda;
mod ami;
mod asterisk;
mod check;
mod daemon;
mod dice;
mod episode;
mod faults;
mod history;
#[allow(clippy::duplicate_mod, reason = "the tests of the scripts use it, too")]
mod model;
mod orders;
mod people;
mod setup;
mod store;
mod wire;
mod writer;

use std::collections::VecDeque;

use agenda::{Agenda, Conn, Event, Life};
use asterisk::Asterisk;
use daemon::Daemon;
use dice::Dice;
use history::History;
use model::world::Ms;
use setup::Setup;
use store::Store;
use wire::Link;

pub use episode::{Options, Report, run};
pub use setup::Plant;

/// One machine: an Asterisk, and mostly one daemon.
#[derive(Debug)]
pub struct Host {
    name: String,
    weight: u32,
    cap: Option<u32>,
    /// Which boot of the machine this is.
    boot: u32,
    asterisk: Asterisk,
    conns: Vec<Conn>,
    lives: Vec<Life>,
    /// AMI cannot be connected before this.
    unreachable_until: Ms,
    /// Since then its daemon could beat, if Redis was there.
    well_since: Ms,
    /// When its daemon's last word, a heartbeat or what goes before one, came to a Redis that was not there.
    refused_at: Ms,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Logins and faults.
    Chaos,
    /// No faults any more; waiting until every node is in the rotation.
    Healing { until: Ms },
    /// Two heartbeats for P5.
    Mending,
    /// As long as a login may take, for P4.
    Deciding,
    /// A burst on a cluster that is well.
    Burst,
}

/// What happened, for people. Kept only in a run that is replayed.
#[derive(Debug, Default)]
pub struct Trace {
    on: bool,
    lines: VecDeque<String>,
}

/// Lines of a trace that are kept.
const TRACE_LINES: usize = 400;

#[derive(Debug)]
pub struct Sim {
    now: Ms,
    dice: Dice,
    agenda: Agenda,
    setup: Setup,
    store: Store,
    hosts: Vec<Host>,
    daemons: Vec<Option<Box<Daemon>>>,
    generations: Vec<(usize, String)>,
    links: Vec<Link>,
    history: History,
    phase: Phase,
    cycles: u32,
    trace: Trace,
    /// Requests whose senders have given up may be carried out until then.
    late_until: Ms,
    violation: Option<String>,
    sessions: u64,
    accepted: u64,
    /// Agents who were logged in with another phone before.
    moves: u64,
    invites: u64,
    drifts: u64,
    /// Second rings that no node could prevent; see `check`.
    excused: u64,
    faults_seen: u64,
    /// What Redis may not know of time.
    steps: Vec<Step>,
    /// When its clock last made a step that is not small.
    stepped_at: Option<Ms>,
}

/// A step of Redis's clock that nobody has corrected yet.
#[derive(Debug)]
struct Step {
    at: Ms,
    size: Ms,
    /// The daemons that know what time it was before. `None`: nobody can tell. It is so small that it looks like time that has
    /// passed, or there was another one just before.
    knowers: Option<Vec<Life>>,
}

impl Sim {
    fn chaos(&self) -> bool {
        self.phase == Phase::Chaos
    }

    fn trace(&mut self, line: impl FnOnce() -> String) {
        if self.trace.on {
            if self.trace.lines.len() == TRACE_LINES {
                self.trace.lines.pop_front();
            }
            self.trace.lines.push_back(format!("{:>9} {}", self.now, line()));
        }
    }

    /// Which node a life spoke for, and with which generation.
    fn voices(&self, life: Life) -> (usize, String) {
        self.generations[life].clone()
    }

    /// The next thing that happens. False: it means nothing any more, and is no step.
    fn step(&mut self) -> bool {
        let Some((at, event)) = self.agenda.take() else { return false };
        self.now = at;
        match event {
            Event::Ask(ask) => self.asked(ask),
            Event::Hears(life, ear) => self.hear(life, ear),
            Event::ToAsterisk(conn, wire) => self.arrive(conn, wire),
            Event::Call(host, id, call, turn) => self.call(host, id, call, turn),
            Event::Say(host, life, said) => self.alive(host, life, |sim| sim.say(host, said)),
            Event::AsteriskStarts(host, life) => self.alive(host, life, |sim| sim.start_asterisk(host)),
            Event::AsteriskBooted(host, life) => self.alive(host, life, |sim| sim.boot(host)),
            Event::AsteriskExits(host, life) => self.alive(host, life, |sim| sim.exit_asterisk(host)),
            Event::DaemonStarts(host) => {
                self.restart_daemon(host);
                true
            }
            Event::Thaws(life) => self.thaw(life),
            Event::Login => self.login(),
            Event::Again(wish, id) => self.place(&wish, id),
            Event::Callers => self.callers(),
            Event::Logout => self.logout(),
            Event::Register(host, phone) => {
                self.turn_phone(host, phone, true);
                true
            }
            Event::Fault => self.fault(),
            Event::Strike(fault, host) => self.struck(fault, host),
            Event::Over(fault, host) => self.over(fault, host),
            Event::Phase => self.next_phase(),
        }
    }

    /// Does it if this life of the Asterisk is not over.
    fn alive(&mut self, host: usize, life: u32, what: impl FnOnce(&mut Self)) -> bool {
        let alive = self.hosts[host].asterisk.life == life;
        if alive {
            what(self);
        }
        alive
    }
}
