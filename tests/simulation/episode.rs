//! Runs of many episodes. Owns when faults begin and end and when the promises that need time are looked at, the seeds of
//! the episodes, and how a failure is shown: episode k of seed S is the first one of seed S + k, so the command that
//! replays a failure is short.

use super::agenda::{Agenda, Event};
use super::asterisk::Asterisk;
use super::dice::Dice;
use super::history::History;
use super::model::world::Ms;
use super::setup::{Plant, Setup};
use super::store::Store;
use super::{Host, Phase, Sim, Trace};

/// Times that faults come and go in an episode.
const CYCLES: u32 = 3;
/// How long the last faults may have effects before every node must be back in the rotation.
const HEALED_WITHIN: Ms = 30_000;
/// P5: two heartbeats, and the way to Redis, Asterisk and back.
const TWO_BEATS: Ms = 2_000 + 300;
/// Beyond ring timeout × tries + lease: Asterisk is asked what became of a call that nobody speaks of.
const GRACE: Ms = 6_000;

#[derive(Debug, Clone, Copy)]
pub struct Options {
    pub seed: u64,
    pub steps: u64,
    pub plant: Option<Plant>,
}

#[derive(Debug, Default)]
pub struct Report {
    pub steps: u64,
    pub episodes: u64,
    pub logins: u64,
    /// Those of agents who were logged in with another phone before.
    pub moves: u64,
    pub invites: u64,
    pub faults: u64,
    pub drifts: u64,
    /// Second rings that no node could prevent.
    pub excused: u64,
    /// Simulated time, in s.
    pub seconds: Ms,
    pub violation: Option<Violation>,
}

/// What broke, and how to see it again.
#[derive(Debug)]
pub struct Violation {
    pub what: String,
    pub seed: u64,
    /// Steps of that seed, up to the one that broke.
    pub steps: u64,
    pub trace: Vec<String>,
}

/// Runs so many steps, in as many episodes as that fetches, or up to the first violation. Tells `progress` now and then.
pub fn run(options: Options, mut progress: impl FnMut(&Report)) -> Report {
    let mut report = Report::default();
    while report.steps < options.steps && report.violation.is_none() {
        let seed = options.seed.wrapping_add(report.episodes);
        let left = options.steps - report.steps;
        let mut sim = Sim::new(seed, options.plant, false);
        let steps = sim.run(left);
        report.steps += steps;
        report.episodes += 1;
        report.logins += sim.accepted;
        report.moves += sim.moves;
        report.invites += sim.invites;
        report.faults += sim.faults_seen;
        report.drifts += sim.drifts;
        report.excused += sim.excused;
        report.seconds += sim.now / 1000;
        if sim.violation.is_some() {
            let mut again = Sim::new(seed, options.plant, true);
            again.run(steps);
            let what =
                again.violation.unwrap_or_else(|| "a replay that goes another way: the simulation is wrong".into());
            report.violation = Some(Violation { what, seed, steps, trace: again.trace.lines.into() });
        }
        progress(&report);
    }
    report
}

impl Sim {
    fn new(seed: u64, plant: Option<Plant>, traced: bool) -> Self {
        let mut dice = Dice::new(seed);
        let setup = Setup::new(&mut dice, plant);
        let mut store = Store::new(setup.limits);
        store.unfenced = plant == Some(Plant::Fence);
        store.world.bug = plant.and_then(Plant::bug);
        let host = |number: usize| Host {
            name: format!("n{number}"),
            weight: setup.weights[number],
            cap: setup.caps[number],
            boot: 0,
            asterisk: Asterisk::booted(setup.phones, number % 2 == 1),
            conns: Vec::new(),
            lives: Vec::new(),
            unreachable_until: 0,
            well_since: 0,
            refused_at: 0,
        };
        let hosts: Vec<Host> = (0..setup.weights.len()).map(host).collect();
        let desk = (0..hosts.len()).map(|n| (format!("e{}", n % setup.phones), format!("n{n}"))).collect();
        store.world.aliases.insert("desk".to_owned(), desk);
        let mut sim = Self {
            now: 100_000,
            dice,
            agenda: Agenda::default(),
            setup,
            store,
            hosts,
            daemons: Vec::new(),
            generations: Vec::new(),
            links: Vec::new(),
            history: History::default(),
            steps: Vec::new(),
            stepped_at: None,
            phase: Phase::Deciding,
            cycles: 0,
            trace: Trace { on: traced, ..Trace::default() },
            violation: None,
            sessions: 0,
            accepted: 0,
            moves: 0,
            invites: 0,
            drifts: 0,
            excused: 0,
            late_until: 0,
            faults_seen: 0,
        };
        if traced {
            let text = format!("{:?}", sim.setup);
            sim.trace(|| text);
        }
        (0..sim.hosts.len()).for_each(|host| sim.start_daemon(host));
        sim.phase = Phase::Healing { until: sim.now + HEALED_WITHIN };
        sim.agenda.put(sim.now, Event::Phase);
        sim
    }

    /// Runs the episode, but no more than so many steps. How many there were.
    fn run(&mut self, most: u64) -> u64 {
        let mut steps = 0;
        while steps < most && self.cycles < CYCLES && self.violation.is_none() {
            let did = self.step();
            steps += u64::from(did || self.violation.is_some());
        }
        steps
    }

    /// Every node is in the rotation, and nothing that was broken is still unnoticed.
    fn is_well(&self) -> bool {
        let late = self.store.stalled_until.max(self.late_until);
        late < self.now
            && self.hosts.iter().all(|host| {
                let [life] = host.lives[..] else { return false };
                let Some(daemon) = &self.daemons[life] else { return false };
                let speaks = daemon.ami.conn.is_some_and(|conn| self.links[conn].alive && !self.links[conn].muted);
                // Redis may know a newer generation, and the daemon will hear of it at its next heartbeat.
                let known =
                    self.store.world.nodes.get(&host.name).is_some_and(|known| known.generation == daemon.generation);
                let asterisk = host.asterisk.booted && !host.asterisk.stopping;
                let at_work = daemon.frozen_until <= self.now && !daemon.is_stopping() && daemon.is_settled();
                speaks && known && asterisk && at_work
            })
    }

    pub fn next_phase(&mut self) -> bool {
        let (limits, before) = (self.store.world.limits, self.phase);
        let wait = match self.phase {
            Phase::Healing { until } => {
                if self.is_well() {
                    self.phase = Phase::Mending;
                    TWO_BEATS
                } else {
                    // systemd starts again what ended by itself.
                    (0..self.hosts.len()).for_each(|host| self.restart_daemon(host));
                    if self.now > until {
                        self.not_well();
                    }
                    100
                }
            }
            Phase::Mending => {
                self.store.pass(self.now);
                self.compare(TWO_BEATS);
                self.phase = Phase::Deciding;
                limits.give_up + GRACE
            }
            Phase::Deciding => {
                self.look_closely();
                let before = self.spread();
                self.phase = Phase::Burst;
                self.burst();
                self.even(before);
                limits.give_up + GRACE
            }
            Phase::Burst => {
                self.look_closely();
                self.begin_chaos();
                self.setup.chaos
            }
            Phase::Chaos => {
                self.phase = Phase::Healing { until: self.now + HEALED_WITHIN };
                self.heal();
                self.cycles += 1;
                100
            }
        };
        self.agenda.put(self.now + wait, Event::Phase);
        let phase = self.phase;
        if phase == before {
            return false;
        }
        self.trace(|| format!("phase: {phase:?}"));
        true
    }

    /// Nothing is under way any more: all is decided, and both sides agree to the last call.
    fn look_closely(&mut self) {
        self.store.pass(self.now);
        self.all_decided();
        self.compare(0);
        self.history.forget(&self.store.world);
    }

    fn begin_chaos(&mut self) {
        self.phase = Phase::Chaos;
        let now = self.now;
        self.agenda.put(now, Event::Login);
        let (logout, fault) = (now + self.dice.upto(2_000), now + self.dice.upto(2_000));
        self.agenda.put(logout, Event::Logout);
        self.agenda.put(fault, Event::Fault);
    }

    fn not_well(&mut self) {
        let states: Vec<String> = self.hosts.iter().map(|host| self.state(host)).collect();
        self.broken("P6", || {
            format!("{HEALED_WITHIN} ms after the last fault not all nodes are back: {}", states.join("; "))
        });
    }

    fn state(&self, host: &Host) -> String {
        let daemons = host.lives.iter().filter_map(|life| self.daemons[*life].as_ref());
        let daemons: Vec<String> =
            daemons.map(|d| format!("daemon {} {:?} registered {}", d.life, d.node.state(), d.registered)).collect();
        format!("{} with booted {} and [{}]", host.name, host.asterisk.booted, daemons.join(", "))
    }
}
