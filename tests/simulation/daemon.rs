//! A daemon: the real `evenring::node::Node`, and around it what `src/daemon/node_loop.rs` does, in its order: after every
//! input all effects are carried out, then what waits is handed to the writer, one batch at a time, then the timer is
//! set. Owns that order. Must never decide anything about sessions or phones: `Node` does.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use evenring::ami::outcome::{Answer, NotSent, Tag};
use evenring::ids::{Generation, Now, SessionId};
use evenring::node::roster::PhoneChanges;
use evenring::node::session::{Login, Outcome};
use evenring::node::{Effect, Input, Live, Node, NodeState, Note};
use evenring::registry::Order;
use evenring::ring_policy::Timeouts;
use evenring::runtime::backoff::Backoff;

use super::Sim;
use super::agenda::{Conn, Ear, Event, Life};
use super::model::rules::Refused;
use super::model::world::Ms;
use super::orders::Fetcher;
use super::writer::{WriteBatch, WriteResult, Writer, Wrong};

const RETRY: Ms = 250;
const HEARTBEAT: Ms = 1_000;
const LAST_ORDERS: Ms = 600;
const LAST_WORDS: Ms = 1_200;
const FIRST_LOOK: Ms = 20;

/// What waits for Redis.
#[derive(Debug, Default)]
pub struct Pending {
    phones: Option<PhoneChanges>,
    adopt: BTreeMap<SessionId, (Login, Live)>,
    outcomes: BTreeMap<SessionId, Outcome>,
    beat: bool,
}

/// The AMI task's side.
#[derive(Debug)]
pub struct AmiSide {
    pub conn: Option<Conn>,
    /// Booted: actions may be sent.
    pub up: bool,
    /// Sent and not answered, oldest first.
    pub open: Vec<Tag>,
    pub backoff: Backoff,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stopping {
    No,
    LastOrderToCome,
    LastBatchToCome,
    LastBatchOnItsWay,
}

#[derive(Debug)]
pub struct Daemon {
    pub host: usize,
    pub life: Life,
    pub name: String,
    pub generation: String,
    born: Ms,
    /// Planted: so long its clock stood still with it.
    slept: Ms,
    pub node: Node,
    frozen_from: Ms,
    pub frozen_until: Ms,
    /// When it last came to itself after more than its lease.
    pub woke_at: Ms,
    /// It ends for that.
    stood_still: bool,
    /// What came while it was frozen, in order.
    unheard: VecDeque<Ear>,
    pending: Pending,
    writing: bool,
    retry_at: Option<Ms>,
    pub registered: bool,
    timer_at: Option<Ms>,
    stopping: Stopping,
    pub ami: AmiSide,
    pub writer: Writer,
    pub fetcher: Fetcher,
}

/// Why a daemon ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Fenced,
    Held,
    Stopped,
    /// For longer than its lease: a new life begins.
    StoodStill,
    Killed,
}

impl Daemon {
    pub fn clock(&self, now: Ms) -> Now {
        Now(Duration::from_millis(u64::try_from(now - self.born - self.slept).unwrap_or(0)))
    }

    pub fn tell(&mut self, input: Input<'_>, now: Ms) {
        let at = self.clock(now);
        self.node.handle(input, at);
    }

    pub fn is_stopping(&self) -> bool {
        self.stopping != Stopping::No
    }

    fn end(&self) -> End {
        if self.stood_still { End::StoodStill } else { End::Stopped }
    }

    fn nothing_waits(&self) -> bool {
        let p = &self.pending;
        p.phones.is_none() && p.adopt.is_empty() && p.outcomes.is_empty() && !p.beat
    }

    /// Redis has all that it knows.
    pub fn is_settled(&self) -> bool {
        let active = self.node.state() == NodeState::Active;
        active && self.registered && !self.writing && self.retry_at.is_none() && self.nothing_waits()
    }
}

impl Sim {
    /// Starts a daemon on this host, with a new generation.
    pub fn start_daemon(&mut self, host: usize) {
        let life = self.daemons.len();
        let generation = Generation::from_bits(0x1000 + u64::try_from(life).unwrap_or(0));
        let name = self.hosts[host].name.clone();
        let [lease, order_expiry] =
            [self.setup.limits.lease, self.setup.limits.expiry].map(|ms| Duration::from_millis(ms.unsigned_abs()));
        let timeouts = Timeouts { lease, order_expiry };
        let node =
            Node::new(name.parse().expect("a name"), generation, self.setup.ring.clone(), timeouts, Now::default());
        let daemon = Daemon {
            host,
            life,
            name,
            generation: generation.to_string(),
            born: self.now,
            slept: 0,
            node,
            frozen_from: 0,
            frozen_until: 0,
            woke_at: 0,
            stood_still: false,
            unheard: VecDeque::new(),
            pending: Pending { beat: true, ..Pending::default() },
            writing: false,
            retry_at: None,
            registered: false,
            timer_at: None,
            stopping: Stopping::No,
            ami: AmiSide { conn: None, up: false, open: Vec::new(), backoff: Backoff::AMI },
            writer: Writer::default(),
            fetcher: Fetcher::default(),
        };
        self.generations.push((host, daemon.generation.clone()));
        self.daemons.push(Some(Box::new(daemon)));
        self.hosts[host].lives.push(life);
        self.hosts[host].well_since = self.now;
        self.trace(|| format!("n{host}: daemon {life} starts, generation {generation}"));
        let at = self.now + self.dice.span(1, 30);
        self.agenda.put(at, Event::Hears(life, Ear::Connect));
        self.agenda.put(self.now, Event::Hears(life, Ear::Beat));
    }

    /// Takes a daemon away, at once: kill -9, or its own end.
    pub fn end_daemon(&mut self, life: Life, end: End) {
        let Some(daemon) = self.daemons[life].take() else { return };
        self.gone(&daemon, end);
    }

    fn gone(&mut self, daemon: &Daemon, end: End) {
        let (host, life) = (daemon.host, daemon.life);
        self.trace(|| format!("n{host}: daemon {life} ends: {end:?}"));
        self.hosts[host].lives.retain(|other| *other != life);
        if let Some(conn) = daemon.ami.conn {
            self.abandon(conn, matches!(end, End::Stopped | End::StoodStill));
        }
        // Restart=always, after RestartSec. Of two daemons on one host only one is systemd's.
        if matches!(end, End::Held | End::Fenced | End::StoodStill) {
            let at = self.now + if end == End::StoodStill { 1 } else { self.dice.span(500, 700) };
            self.agenda.put(at, Event::DaemonStarts(host));
        }
    }

    /// One input of a daemon. False: it means nothing any more.
    pub fn hear(&mut self, life: Life, ear: Ear) -> bool {
        let Some(mut d) = self.daemons[life].take() else { return false };
        if d.frozen_until > self.now {
            d.unheard.push_back(ear);
            self.daemons[life] = Some(d);
            return false;
        }
        if self.trace.on && !matches!(ear, Ear::Timer | Ear::Beat | Ear::Poll(_) | Ear::Wake | Ear::Reply(..)) {
            let (host, shown) = (d.host, format!("{ear:?}"));
            self.trace(|| format!("n{host}: daemon {life} hears {}", shown.chars().take(220).collect::<String>()));
        }
        let (did, end) = self.heard(&mut d, ear);
        if let Some(end) = end {
            self.gone(&d, end);
            return true;
        }
        // One that stops only waits for its writer.
        if !d.is_stopping() {
            self.set_admin_state(&mut d);
        }
        self.daemons[life] = Some(d);
        did
    }

    /// SIGSTOP. Another one may make it longer.
    pub fn freeze(&mut self, life: Life, until: Ms) {
        if let Some(daemon) = &mut self.daemons[life] {
            if daemon.frozen_until <= self.now {
                daemon.frozen_from = self.now;
            }
            daemon.frozen_until = daemon.frozen_until.max(until);
            self.agenda.put(until, Event::Thaws(life));
        }
    }

    /// SIGCONT: what came meanwhile is heard now, in its order.
    pub fn thaw(&mut self, life: Life) -> bool {
        let Some(d) = self.daemons[life].as_mut().filter(|d| d.frozen_until <= self.now) else { return false };
        let unheard = std::mem::take(&mut d.unheard);
        let stood = self.now - d.frozen_from;
        let long = stood >= self.setup.limits.lease;
        if long {
            d.woke_at = self.now;
        }
        if self.setup.sleeper {
            d.slept += stood;
        }
        let host = d.host;
        self.hosts[host].well_since = self.now;
        if long && !self.setup.sleeper {
            self.begin_anew(life);
        }
        for ear in unheard {
            self.hear(life, ear);
        }
        true
    }

    /// A daemon that stood still for longer than its lease gives back what waits, and begins a new life.
    fn begin_anew(&mut self, life: Life) {
        let Some(mut d) = self.daemons[life].take() else { return };
        if !d.is_stopping() {
            self.trace(|| format!("n{}: daemon {life} stood still", d.host));
            d.stood_still = true;
            self.terminate(&mut d);
        }
        self.daemons[life] = Some(d);
    }

    /// What the loop does before it waits.
    fn set_admin_state(&mut self, d: &mut Daemon) {
        self.carry_out(d);
        self.hand_to_writer(d);
        let now = d.clock(self.now);
        let Some(at) = d.node.next_deadline(now) else { return };
        let whole = i64::try_from(at.0.as_micros().div_ceil(1000)).unwrap_or(Ms::MAX);
        let at = (d.born + d.slept + whole).max(self.now);
        if d.timer_at.is_none_or(|set| set > at) {
            d.timer_at = Some(at);
            self.agenda.put(at, Event::Hears(d.life, Ear::Timer));
        }
    }

    fn heard(&mut self, d: &mut Daemon, ear: Ear) -> (bool, Option<End>) {
        let now = self.now;
        let last = matches!(ear, Ear::Reply(..) | Ear::LastWordsOver | Ear::LastOrderCame)
            || matches!(ear, Ear::Order(..) if d.stopping == Stopping::LastOrderToCome);
        if d.is_stopping() && !last {
            return (false, None);
        }
        match ear {
            Ear::Timer => {
                if d.timer_at.is_none_or(|at| at > now) {
                    return (false, None);
                }
                d.timer_at = None;
                let at = d.clock(now);
                let due = d.node.next_deadline(at).is_some_and(|deadline| deadline <= at);
                if due {
                    d.tell(Input::Timer, now);
                }
                return (due, None);
            }
            Ear::Beat => {
                let next = d.born + ((now - d.born) / HEARTBEAT + 1) * HEARTBEAT;
                self.agenda.put(next, Event::Hears(d.life, Ear::Beat));
                d.pending.beat = true;
            }
            Ear::Retry => d.retry_at = d.retry_at.filter(|at| *at > now),
            Ear::Connect => self.connect(d),
            Ear::Said(conn, said) => return (self.heard_event(d, conn, &said), None),
            Ear::Answer(conn, tag, answer) => return (self.answered(d, conn, tag, answer), None),
            Ear::NotSent(tag) => d.tell(Input::Answer(tag, Answer::NotSent(NotSent::Closed)), now),
            Ear::Dropped(conn, gone) => return (self.dropped(d, conn, gone), None),
            Ear::NoConnection { gone } => self.closed(d, gone),
            Ear::Order(Order::Ring(login), asked) => {
                let placed = self.history.placed.get(&(login.session, login.attempt)).copied().unwrap_or(asked);
                let placed = d.clock(placed);
                let asked = d.clock(if self.setup.sleeper { now } else { asked });
                d.tell(Input::Ring(login, asked, placed), now);
            }
            Ear::Order(Order::HangUp(id), _) => d.tell(Input::HangUp(id), now),
            Ear::Order(Order::Moved(..) | Order::Expired(_) | Order::Stale(_), _) => return (false, None),
            Ear::Listen | Ear::Poll(_) | Ear::Wake | Ear::Deaf => return (self.fetcher_hears(d, &ear), None),
            Ear::Reply(mouth, number, reply) => return self.replied(d, mouth, number, reply),
            Ear::Terminate => self.terminate(d),
            Ear::LastOrderCame => return (self.last_order(d), None),
            Ear::LastWordsOver => return (true, Some(d.end())),
        }
        (true, None)
    }

    /// A batch came back from the writer.
    pub fn written(&mut self, d: &mut Daemon, done: WriteResult) -> Option<End> {
        let now = self.now;
        d.writing = false;
        if done.held {
            return Some(End::Held);
        }
        let forgotten = done.registered || matches!(done.wrong, Some(Wrong::Refused(Refused::Forgotten)));
        if done.registered {
            d.registered = true;
            self.hosts[d.host].well_since = now;
            d.tell(Input::Registered, now);
        }
        if !done.stale.is_empty() {
            d.tell(Input::Stale(done.stale), now);
        }
        if let Some((recorded, asked)) = done.recorded {
            d.tell(Input::Recorded(recorded, asked), now);
        }
        if done.rest.phones.is_some() || done.phones_lost {
            d.node.roster.tell_all();
        }
        let adopted = &d.pending.adopt;
        for (session, outcome) in done.rest.outcomes.into_iter().filter(|(id, _)| !adopted.contains_key(id)) {
            d.pending.outcomes.entry(session).or_insert(outcome);
        }
        for (login, live) in done.rest.adopt {
            d.pending.adopt.entry(login.session).or_insert((login, live));
        }
        match done.wrong {
            None => {}
            Some(Wrong::Refused(Refused::Fenced)) => return Some(End::Fenced),
            Some(Wrong::Refused(Refused::Forgotten)) => d.pending.beat = true,
            Some(Wrong::Outage) => {
                d.pending.beat = true;
                d.retry_at = Some(now + RETRY);
                self.agenda.put(now + RETRY, Event::Hears(d.life, Ear::Retry));
            }
        }
        match d.stopping {
            Stopping::No | Stopping::LastOrderToCome => None,
            Stopping::LastBatchOnItsWay if d.stood_still || !forgotten => Some(d.end()),
            Stopping::LastBatchToCome | Stopping::LastBatchOnItsWay => {
                self.last_batch(d);
                None
            }
        }
    }

    pub fn carry_out(&mut self, d: &mut Daemon) {
        let mut gives_up = false;
        while let Some(effect) = d.node.next_effect() {
            match effect {
                Effect::Ami { tag, action_id, action } => self.send(d, tag, action_id, &action),
                Effect::Report(session, _, outcome) => {
                    self.trace(|| format!("n{}: daemon {} reports {session}: {outcome:?}", d.host, d.life));
                    if gives_up {
                        self.given_up(d.host, session);
                    }
                    if outcome != Outcome::Live {
                        d.pending.adopt.remove(&session);
                    }
                    d.pending.outcomes.insert(session, outcome);
                }
                Effect::Adopt(login, live) => {
                    self.trace(|| format!("n{}: daemon {} adopts {} {live:?}", d.host, d.life, login.session));
                    d.pending.outcomes.remove(&login.session);
                    d.pending.adopt.insert(login.session, (login, live));
                }
                Effect::RingQueue(_) => {}
                Effect::Beat => d.pending.beat = true,
                Effect::Note(Note::Drift(session, what)) => {
                    self.drifts += 1;
                    self.trace(|| format!("n{}: daemon {}: drift of {session}: {what}", d.host, d.life));
                }
                Effect::Note(Note::GivenUp { .. }) => gives_up = true,
                Effect::Note(_) => {}
            }
        }
        if let Some(changes) = d.node.roster.take_changes() {
            d.pending.phones = Some(match d.pending.phones.take() {
                Some(mut before) if !changes.replace => {
                    before.phones.extend(changes.phones);
                    before
                }
                Some(_) | None => changes,
            });
        }
        if d.registered && !d.is_stopping() {
            self.open_orders(d);
        }
    }

    fn hand_to_writer(&mut self, d: &mut Daemon) {
        if d.writing || d.retry_at.is_some() || d.nothing_waits() || d.is_stopping() {
            return;
        }
        let batch = Self::batch(d, false);
        d.writing = true;
        self.write(d, batch);
    }

    fn batch(d: &mut Daemon, leave: bool) -> WriteBatch {
        let pending = std::mem::take(&mut d.pending);
        let pulse = (d.node.state().as_str(), d.node.channels());
        WriteBatch {
            phones: pending.phones,
            adopt: pending.adopt.into_values().collect(),
            outcomes: pending.outcomes.into_iter().collect(),
            state: d.node.state().as_str(),
            pulse: (pending.beat && !leave).then_some(pulse),
            leave,
        }
    }

    /// SIGTERM.
    fn terminate(&mut self, d: &mut Daemon) {
        d.stopping = Stopping::LastOrderToCome;
        self.agenda.put(self.now + LAST_WORDS, Event::Hears(d.life, Ear::LastWordsOver));
        d.tell(Input::Stopping, self.now);
        let idle = self.close_orders(d) || !d.registered;
        let wait = if idle { (d.fetcher.told_at - self.now).max(0) } else { LAST_ORDERS };
        self.agenda.put(self.now + wait, Event::Hears(d.life, Ear::LastOrderCame));
    }

    /// All orders have been given back; now Redis hears of it.
    fn last_order(&mut self, d: &mut Daemon) -> bool {
        if d.stopping != Stopping::LastOrderToCome {
            return false;
        }
        d.stopping = Stopping::LastBatchToCome;
        if !d.writing {
            self.last_batch(d);
        }
        true
    }

    fn last_batch(&mut self, d: &mut Daemon) {
        self.carry_out(d);
        d.stopping = Stopping::LastBatchOnItsWay;
        d.writing = true;
        let batch = Self::batch(d, !d.stood_still);
        self.write(d, batch);
    }
}
