//! What goes wrong, how long it lasts, and how all is made well again. Owns the list of faults and their lengths. Must
//! never know what should happen then.

use super::agenda::{Ear, Event, Life};
use super::asterisk::Said;
use super::daemon::End;
use super::model::world::{Ms, World};
use super::{Sim, Step};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Redis refuses connections.
    RedisDown,
    /// Redis stands still; what was sent is carried out later, when those who asked have given up.
    RedisStalls,
    Flush,
    /// The clock of Redis is set.
    ClockSteps,
    /// A replica takes over that lacks the last writes.
    FailOver,
    /// kill -9 of the daemon.
    Kill,
    /// Daemon and Asterisk are gone at once; the host comes back as another boot.
    HostDies,
    /// SIGSTOP.
    Freeze,
    /// A daemon is frozen, another one of the same node starts, and the first one wakes up.
    SecondDaemon,
    AmiDrops,
    /// AMI is silent, and cannot be connected for a while.
    AmiMute,
    AsteriskRestarts,
    AsteriskDies,
    Terminate,
    Drain,
    Reload,
    Phone,
}

pub const ALL: [Fault; 17] = [
    Fault::RedisDown,
    Fault::RedisStalls,
    Fault::Flush,
    Fault::ClockSteps,
    Fault::FailOver,
    Fault::Kill,
    Fault::HostDies,
    Fault::Freeze,
    Fault::SecondDaemon,
    Fault::AmiDrops,
    Fault::AmiMute,
    Fault::AsteriskRestarts,
    Fault::AsteriskDies,
    Fault::Terminate,
    Fault::Drain,
    Fault::Reload,
    Fault::Phone,
];

/// What is no failure, but everyday work.
pub const GENTLE: [Fault; 3] = [Fault::Terminate, Fault::Drain, Fault::Reload];

impl Sim {
    /// One more fault.
    pub fn fault(&mut self) -> bool {
        if !self.chaos() {
            return false;
        }
        let next = self.now + self.dice.span(1, self.setup.fault_gap * 2);
        self.agenda.put(next, Event::Fault);
        let Some(fault) = self.any_fault() else { return false };
        let host = self.dice.index(self.hosts.len());
        self.struck(fault, host)
    }

    fn any_fault(&mut self) -> Option<Fault> {
        let which = self.dice.index(self.setup.faults.len());
        self.setup.faults.get(which).copied()
    }

    /// Something delicate is under way at this host: perhaps a fault comes just now, or a few ms later.
    pub fn strike(&mut self, host: usize) {
        if self.chaos()
            && self.dice.chance(self.setup.strikes)
            && let Some(fault) = self.any_fault()
        {
            let at = self.now + self.dice.delay(40);
            self.agenda.put(at, Event::Strike(fault, host));
        }
    }

    /// A fault begins.
    pub fn struck(&mut self, fault: Fault, host: usize) -> bool {
        if !self.chaos() {
            return false;
        }
        let for_all = matches!(fault, Fault::RedisDown | Fault::RedisStalls);
        let longest = if for_all { 4 * self.setup.limits.lease } else { 9_000 };
        let long = if self.dice.chance(5_000) { self.dice.span(5, 400) } else { self.dice.span(100, longest) };
        self.trace(|| format!("fault: {fault:?} at n{host} for {long} ms"));
        self.faults_seen += 1;
        self.begin(fault, host, long);
        self.agenda.put(self.now + long, Event::Over(fault, host));
        true
    }

    fn begin(&mut self, fault: Fault, host: usize, long: Ms) {
        let now = self.now;
        let lives = self.hosts[host].lives.clone();
        let alone = lives.len() == 1;
        match fault {
            Fault::RedisDown => self.redis_goes(),
            Fault::RedisStalls => {
                self.store.stalled_until = self.store.stalled_until.max(now + long);
                self.agenda.put(now + long + 1, Event::Callers);
            }
            Fault::ClockSteps => self.step_clock(),
            Fault::Flush => {
                self.store.pass(now);
                // Time begins anew, and nobody has a word about it; a failover may bring back the old one.
                let shift = self.store.world.judge.shift.abs();
                self.store.flush();
                if shift > 0 {
                    self.stepped(shift, true);
                }
                self.history.redis_lost(now);
            }
            Fault::FailOver => {
                self.store.replica = Some(self.store.world.clone());
                self.history.replica_since = now;
            }
            Fault::Kill => lives.into_iter().for_each(|life| self.end_daemon(life, End::Killed)),
            Fault::HostDies => {
                lives.into_iter().for_each(|life| self.end_daemon(life, End::Killed));
                self.die(host);
                self.hosts[host].boot += 1;
            }
            Fault::Freeze | Fault::SecondDaemon => {
                lives.into_iter().for_each(|life| self.freeze(life, now + long));
                if fault == Fault::SecondDaemon && alone {
                    self.start_daemon(host);
                }
            }
            Fault::AmiDrops => {
                for conn in self.hosts[host].conns.clone() {
                    let cut = self.dice.chance(5_000);
                    self.hang(conn, false, cut);
                }
            }
            Fault::AmiMute => {
                self.hosts[host].unreachable_until = now + long;
                self.hosts[host].conns.clone().into_iter().for_each(|conn| self.mute(conn));
            }
            Fault::AsteriskRestarts if self.hosts[host].asterisk.booted && !self.hosts[host].asterisk.stopping => {
                if self.dice.chance(5_000) {
                    self.stop_asterisk(host)
                } else {
                    self.stop_in_peace(host)
                }
            }
            Fault::AsteriskRestarts => {}
            Fault::AsteriskDies => self.die(host),
            Fault::Terminate => {
                lives.into_iter().for_each(|life| self.agenda.put(now, Event::Hears(life, Ear::Terminate)));
            }
            Fault::Drain => self.drain(host, true),
            Fault::Reload => self.say(host, Said::Reload),
            Fault::Phone => {
                let phone = self.dice.index(self.setup.phones);
                self.turn_phone(host, phone, false);
                self.agenda.put(now + long, Event::Register(host, phone));
            }
        }
    }

    /// A fault is over.
    pub fn over(&mut self, fault: Fault, host: usize) -> bool {
        match fault {
            Fault::RedisDown => {
                self.store.up = true;
                self.callers();
            }
            Fault::FailOver if self.store.replica.is_some() => {
                self.store.pass(self.now);
                if self.dice.chance(3_000) {
                    self.step_clock();
                    self.store.pass(self.now);
                }
                let before = self.store.fail_over();
                self.lose_correction(&before);
                for host in &mut self.hosts {
                    let beats = |world: &World| world.nodes.get(&host.name).map(|node| node.beats);
                    // Its last heartbeats were lost.
                    if beats(&before) != beats(&self.store.world) {
                        host.well_since = self.now;
                    }
                }
                let calls = self.hosts.iter().flat_map(|host| host.asterisk.channels.keys().copied()).collect();
                self.history.failed_over(&before, &self.store.world, calls, self.now);
                self.redis_goes();
                self.store.up = true;
            }
            Fault::Kill | Fault::Terminate => self.restart_daemon(host),
            Fault::HostDies => {
                self.start_asterisk(host);
                self.restart_daemon(host);
            }
            Fault::AsteriskDies => self.start_asterisk(host),
            Fault::Drain => self.drain(host, false),
            Fault::RedisStalls
            | Fault::FailOver
            | Fault::Flush
            | Fault::ClockSteps
            | Fault::Freeze
            | Fault::SecondDaemon
            | Fault::AmiDrops
            | Fault::AmiMute
            | Fault::AsteriskRestarts
            | Fault::Reload
            | Fault::Phone => return false,
        }
        true
    }

    /// From 0.1 s to an hour, forth or back.
    fn step_clock(&mut self) {
        let most = [1_000, 10_000, 100_000, 3_600_000][self.dice.index(4)];
        let size = self.dice.span(100, most);
        let by = if self.dice.chance(5_000) { size } else { -size };
        self.trace(|| format!("the clock of Redis goes on by {by} ms"));
        self.store.step_clock(by);
        self.stepped(size, size <= self.setup.limits.lease);
    }

    fn stepped(&mut self, size: Ms, small: bool) {
        let daemons = self.daemons.iter().flatten();
        // Who came after a step knows a wrong time until it hears of the correction. Before that, it is believed.
        let soon = self.stepped_at.is_some_and(|at| self.now - at < self.setup.limits.lease / 2);
        self.stepped_at = (!small).then_some(self.now).or(self.stepped_at);
        let corrections = self.store.world.judge.corrections;
        let knowers = daemons.filter(|d| d.writer.knows_time(corrections)).map(|d| d.life);
        let knowers = (!small && !soon).then(|| knowers.collect());
        self.steps.push(Step { at: self.now, size, knowers });
    }

    /// What the primary knew of the wrong clock is lost with it; nobody can see that if the time of the replica just fits.
    fn lose_correction(&mut self, before: &World) {
        self.store.pass(self.now);
        let (judge, lease) = (&self.store.world.judge, self.setup.limits.lease);
        let lost = (before.judge.shift - judge.shift).abs();
        let gap = judge.seen.map_or(Ms::MAX, |seen| self.store.world.now - seen);
        if lost > 0 {
            self.stepped(lost, (0..=lease * 2 / 3).contains(&gap));
        }
    }

    /// A daemon has told Redis what time it is.
    pub fn time_is_known(&mut self, life: Life) {
        self.steps.retain(|step| !step.knowers.as_ref().is_some_and(|knowers| knowers.contains(&life)));
    }

    /// By so much something from then may be older or younger than anybody knows.
    pub fn slack_since(&self, then: Ms) -> Ms {
        self.steps.iter().rev().take_while(|step| step.at >= then).map(|step| step.size).sum()
    }

    /// systemd keeps one daemon running.
    pub fn restart_daemon(&mut self, host: usize) {
        if self.hosts[host].lives.is_empty() {
            self.start_daemon(host);
        }
    }

    fn drain(&mut self, host: usize, drain: bool) {
        let name = self.hosts[host].name.clone();
        if let Some(node) = self.store.world.nodes.get_mut(&name) {
            node.drain = drain;
        }
    }

    /// All connections to Redis end.
    fn redis_goes(&mut self) {
        self.store.up = false;
        for life in self.hosts.iter().flat_map(|host| host.lives.clone()).collect::<Vec<_>>() {
            self.agenda.put(self.now, Event::Hears(life, Ear::Deaf));
        }
    }

    /// Nothing goes wrong any more, and what is down is started.
    pub fn heal(&mut self) {
        (self.store.up, self.store.replica) = (true, None);
        for host in 0..self.hosts.len() {
            self.drain(host, false);
            self.hosts[host].unreachable_until = 0;
            if !self.hosts[host].asterisk.stopping {
                self.start_asterisk(host);
            }
            self.restart_daemon(host);
            for phone in 0..self.setup.phones {
                self.turn_phone(host, phone, true);
            }
        }
    }
}
