//! The task that writes to Redis: registration, phones, adopted sessions, outcomes, heartbeat, leave, in that order, one
//! call after the other. Stands for `src/daemon/registry_writer.rs`, and for the connection to Redis below it
//! (`src/registry/client.rs`): what may be lost or late. Must never decide what to write.

use evenring::ids::{Now, SessionId};
use evenring::node::roster::PhoneChanges;
use evenring::node::session::{Login, Outcome};
use evenring::node::{Live, RecordedState};
use evenring::registry::{Adopted, HeartbeatSequence, Sent};

use super::Sim;
use super::agenda::{Ask, Ear, Event, Mouth};
use super::daemon::{Daemon, End};
use super::model::rules::Refused;
use super::model::world::Ms;
use super::store::{Call, Reply};

/// How long an answer of Redis is waited for.
const RESPONSE_TIMEOUT: Ms = 500;

#[derive(Debug, Default)]
pub struct WriteBatch {
    pub phones: Option<PhoneChanges>,
    pub adopt: Vec<(Login, Live)>,
    pub outcomes: Vec<(SessionId, Outcome)>,
    pub state: &'static str,
    pub pulse: Option<(&'static str, usize)>,
    pub leave: bool,
}

/// Why a batch was not written.
#[derive(Debug, Clone, Copy)]
pub enum Wrong {
    Refused(Refused),
    Outage,
}

#[derive(Debug, Default)]
pub struct WriteResult {
    pub registered: bool,
    pub held: bool,
    pub recorded: Option<(Vec<(SessionId, RecordedState)>, Now)>,
    pub phones_lost: bool,
    pub stale: Vec<SessionId>,
    pub rest: WriteBatch,
    pub wrong: Option<Wrong>,
}

#[derive(Debug, Default)]
pub struct Writer {
    registered: bool,
    batch: WriteBatch,
    done: WriteResult,
    number: u32,
    /// The number of the last word on phones, as `Registry` counts.
    told: u64,
    /// The number of the last report or adoption.
    writes: u64,
    beats: HeartbeatSequence,
    /// The heartbeat that is under way, and when it was handed out.
    sent: Option<(Sent, Now)>,
    /// It has been registered once.
    known: bool,
    /// How many corrections there were when it heard what time Redis has.
    knows_time: Option<u64>,
}

impl Writer {
    /// It has heard what time Redis has, and nobody has put that right since.
    pub fn knows_time(&self, corrections: u64) -> bool {
        self.knows_time == Some(corrections)
    }

    /// The next call that the batch needs.
    fn next(&mut self, weight: u32, cap: Option<u32>, boot: u32, now: Now) -> Option<Call> {
        let b = &self.batch;
        if !self.registered {
            return Some(Call::Register { boot, weight, cap, returns: self.known });
        }
        if let Some(changes) = &b.phones {
            return Some(Call::Phones(changes.clone(), self.told + 1));
        }
        if !b.adopt.is_empty() {
            self.writes += 1;
            return Some(Call::Adopt(self.writes, b.adopt.clone()));
        }
        if !b.outcomes.is_empty() {
            self.writes += 1;
            return Some(Call::Report(self.writes, b.state, b.outcomes.clone()));
        }
        if let Some((state, channels)) = b.pulse {
            let (sent, _) = *self.sent.get_or_insert((self.beats.next(now), now));
            return Some(Call::Beat { state, channels, sent });
        }
        if !b.leave {
            return None;
        }
        Some(Call::Leave(self.beats.last_one()))
    }

    /// Takes out of the batch what has been written.
    fn take_out(&mut self, reply: Reply) {
        if !self.registered {
            (self.registered, self.done.registered, self.known) = (true, true, true);
        } else if self.batch.phones.take().is_some() {
        } else if !self.batch.adopt.is_empty() {
            let Reply::Adopted(results) = reply else { return };
            let stale = self.batch.adopt.drain(..).zip(results).filter(|(_, result)| *result == Adopted::Stale);
            self.done.stale.extend(stale.map(|((login, _), _)| login.session));
        } else if !self.batch.outcomes.is_empty() {
            self.batch.outcomes.clear();
        } else if self.batch.pulse.take().is_some() {
            let sent = self.sent.take();
            if let Reply::Recorded(recorded, told, redis) = reply {
                let asked = sent.map_or(Now::default(), |(_, at)| at);
                self.knows_time = Some(redis.corrections);
                self.beats.answered(redis, asked);
                self.done.phones_lost = self.told > 0 && told != Some(self.told);
                self.done.recorded = Some((recorded, asked));
            }
        } else {
            self.batch.leave = false;
        }
    }
}

impl Sim {
    /// The loop hands out a batch.
    pub fn write(&mut self, d: &mut Daemon, batch: WriteBatch) {
        (d.writer.batch, d.writer.done) = (batch, WriteResult::default());
        // A batch that is never empty has a first call; the writer asks before anything else happens.
        let _ = self.go_on(d);
    }

    /// The next call, or the end of the batch.
    fn go_on(&mut self, d: &mut Daemon) -> Option<WriteResult> {
        let host = &self.hosts[d.host];
        match d.writer.next(host.weight, host.cap, host.boot, d.clock(self.now)) {
            Some(call) => {
                d.writer.told += u64::from(matches!(call, Call::Phones(..)));
                d.writer.number += 1;
                let number = d.writer.number;
                self.ask(d, Mouth::Writer, number, call);
                None
            }
            None => Some(std::mem::take(&mut d.writer.done)),
        }
    }

    /// Redis answered one of the two tasks.
    pub fn replied(&mut self, d: &mut Daemon, mouth: Mouth, number: u32, reply: Option<Reply>) -> (bool, Option<End>) {
        if mouth == Mouth::Fetcher {
            return (self.fetched(d, number, reply), None);
        }
        if number != d.writer.number {
            return (false, None);
        }
        let wrong = match reply {
            None => Some(Wrong::Outage),
            Some(Reply::Refused(refused)) => Some(Wrong::Refused(refused)),
            Some(Reply::Late(redis)) => {
                let again = d
                    .writer
                    .sent
                    .and_then(|(sent, at)| Some((d.writer.beats.again(&sent, u64::try_from(redis).unwrap_or(0))?, at)));
                d.writer.sent = again;
                match again {
                    Some(_) => {
                        let _ = self.go_on(d);
                        return (true, None);
                    }
                    None => Some(Wrong::Outage),
                }
            }
            Some(Reply::Held) => {
                d.writer.done.held = true;
                None
            }
            Some(reply) => {
                d.writer.take_out(reply);
                let Some(done) = self.go_on(d) else { return (true, None) };
                return (true, self.written(d, done));
            }
        };
        d.writer.number += 1;
        d.writer.sent = None;
        if matches!(wrong, Some(Wrong::Refused(Refused::Forgotten))) {
            d.writer.registered = false;
        }
        let mut done = std::mem::take(&mut d.writer.done);
        done.rest = std::mem::take(&mut d.writer.batch);
        done.wrong = wrong;
        (true, self.written(d, done))
    }

    /// A request goes to Redis. It may be lost, or come too late for the asker.
    pub fn ask(&mut self, d: &Daemon, mouth: Mouth, number: u32, call: Call) {
        let (now, life) = (self.now, d.life);
        let fate = self.dice.next() % 10_000;
        let chaos = if self.chaos() { self.setup.redis_faults } else { 0 };
        let error = |after: Ms| (now + after, Event::Hears(life, Ear::Reply(mouth, number, None)));
        let (mut delay, mut orphan) = (self.dice.upto(1), false);
        if fate < chaos {
            if matches!(call, Call::Beat { .. }) {
                self.hosts[d.host].well_since = now;
            }
            let after = if self.dice.chance(5_000) { RESPONSE_TIMEOUT } else { self.dice.upto(20) };
            let (at, event) = error(after);
            self.agenda.put(at, event);
            if self.dice.chance(5_000) {
                return;
            }
            // It runs all the same, perhaps long after.
            (delay, orphan) = (self.dice.delay(2_500), true);
            self.late_until = self.late_until.max(now + delay);
        }
        if self.chaos() && matches!(call, Call::Beat { .. }) && self.dice.chance(self.setup.late_beats) && !orphan {
            self.hosts[d.host].well_since = now;
            let (at, event) = error(RESPONSE_TIMEOUT);
            self.agenda.put(at, event);
            (delay, orphan) = (self.dice.span(RESPONSE_TIMEOUT, 8_000), true);
            self.late_until = self.late_until.max(now + delay);
        }
        let ask = Ask { life, mouth, number, asked_at: now, orphan, call };
        self.agenda.put(now + delay, Event::Ask(Box::new(ask)));
    }

    /// A request comes to Redis.
    pub fn asked(&mut self, mut ask: Box<Ask>) -> bool {
        let reply = |ask: &Ask, reply| Event::Hears(ask.life, Ear::Reply(ask.mouth, ask.number, reply));
        if !self.store.up {
            if ask.mouth == Mouth::Writer {
                let (host, _) = self.voices(ask.life);
                self.hosts[host].refused_at = self.now;
            }
            if !ask.orphan {
                self.agenda.put(self.now, reply(&ask, None));
            }
            return false;
        }
        if self.store.stalled_until > self.now {
            let at = self.store.stalled_until + self.dice.upto(5);
            self.late_until = self.late_until.max(at);
            if !ask.orphan && at >= ask.asked_at + RESPONSE_TIMEOUT {
                self.agenda.put(ask.asked_at + RESPONSE_TIMEOUT, reply(&ask, None));
                ask.orphan = true;
            }
            self.agenda.put(at, Event::Ask(ask));
            return false;
        }
        let call = ask.call.clone();
        let answer = self.run_script(ask.life, call);
        if !ask.orphan {
            let at = self.now + self.dice.upto(1);
            self.agenda.put(at, reply(&ask, Some(answer)));
        }
        true
    }
}
