//! What a node decides, and nothing else: (input, now) goes in, effects come out. Owns the roster of phones, the
//! sessions on this node and the rules between them. Must never know a socket, a file, a clock, a random source, a
//! log or Redis: `daemon` carries its effects out.

pub mod pacing;
pub mod ring;
pub mod roster;
pub mod session;
mod snapshot;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::ami::action::Action;
use crate::ami::event::{ChannelState, Event};
use crate::ami::id::{originate_action_id, session_of_action_id};
use crate::ami::outcome::{Answer, Tag};
use crate::config::RingSettings;
use crate::ids::{ChannelId, Generation, NodeName, Now, SessionId};
use pacing::Bucket;
use roster::Roster;
use session::{Class, Login, Outcome, Reason, Session, Step};
use snapshot::Snapshot;

/// What happens to a node.
#[derive(Debug)]
pub enum Input<'a> {
    /// The AMI connection is over. `gone`: nobody listens there any more, or Asterisk said that it stops.
    Closed {
        /// Asterisk is known to be gone, and all calls with it.
        gone: bool,
    },
    /// AMI: something happened.
    Event(Event<'a>),
    /// AMI: the answer to an [`Effect::Ami`].
    Answer(Tag, Answer),
    /// Redis: an order to ring.
    Ring(Login),
    /// Redis: an order to hang up.
    HangUp(SessionId),
    /// Redis: what it believes of this node's sessions, with every heartbeat.
    Books(Vec<(SessionId, BookedState)>),
    /// Redis: the answer to an [`Effect::Adopt`], for sessions whose agent has moved on.
    Stale(Vec<SessionId>),
    /// Redis: this node has just been registered and Redis knows nothing of it.
    Registered,
    /// A deadline has passed.
    Timer,
    /// The daemon stops: what was not written to Asterisk is given back.
    Stopping,
}

/// The state of a session in Redis, as far as its node cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BookedState {
    /// Its order has not been taken.
    Placed,
    /// Ringing.
    Ringing,
    /// Live.
    Live,
    /// In the node's set, but over or unknown.
    Gone,
}

/// What is to be done.
#[derive(Debug)]
pub enum Effect {
    /// Send an action to Asterisk. Originates bring their own ActionID.
    Ami {
        /// Comes back with the answer.
        tag: Tag,
        /// The ActionID, if it is not the link's to choose.
        action_id: Option<String>,
        /// The action.
        action: Action,
    },
    /// Tell Redis what became of a session. Who it was is known unless only Redis knew the session.
    Report(SessionId, Option<Login>, Outcome),
    /// Tell Redis that this session lives here.
    Adopt(Login, Live),
    /// The node's state changed: send a heartbeat now.
    Beat,
    /// Something an operator should read.
    Note(Note),
}

/// Whether an adopted session is live or still ringing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Live {
    /// The call is up.
    Yes,
    /// It is still ringing.
    NotYet,
}

/// Things worth a log line that no other effect tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// An Originate goes to Asterisk, under this ActionID.
    Ringing(SessionId, String),
    /// A snapshot is complete.
    Synced {
        /// Phones that can ring.
        registered: usize,
        /// Channels in Asterisk.
        channels: usize,
        /// Sessions of ours among them.
        sessions: usize,
    },
    /// Asterisk refused a part of the snapshot.
    SnapshotFailed {
        /// The AMI action.
        action: &'static str,
        /// What Asterisk said.
        message: String,
    },
    /// A channel has a session id of ours but not our variables.
    Unreadable(SessionId),
    /// Asterisk has been away too long: its sessions are given up.
    GivenUp {
        /// How many.
        sessions: usize,
    },
    /// Redis and this node disagreed about a session; it was mended.
    Drift(SessionId, &'static str),
    /// Asterisk did not do a hang-up.
    HangUpFailed(SessionId, String),
    /// An Originate could not even be built.
    Unbuildable(SessionId, String),
}

/// How the node is, for the heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeState {
    /// Asterisk has not been in sync yet.
    Starting,
    /// In sync: may be given logins.
    Active,
    /// Asterisk is away.
    Down,
}

impl NodeState {
    /// The word in Redis.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Active => "active",
            Self::Down => "down",
        }
    }
}

/// After this long without AMI, Asterisk counts as gone although nobody said so.
pub const GIVE_UP_AFTER: Duration = Duration::from_secs(3);
/// Redis and the node must disagree for this long before it is called drift: a report may be on its way.
const DISAGREE_FOR: Duration = Duration::from_millis(900);
/// A failed snapshot is tried again after this.
const SNAPSHOT_AGAIN: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asterisk {
    /// Not connected. `since` ends with [`GIVE_UP_AFTER`].
    Away { ever: bool, give_up_at: Option<Now> },
    /// Connected and booted, lists are on their way.
    Syncing { again_at: Option<Now> },
    /// In sync.
    Ready,
}

#[derive(Debug, Clone, Copy)]
enum Purpose {
    Devices,
    Channels,
    Originate(SessionId),
    HangUp(SessionId),
    Probe(SessionId),
}

/// The machine.
#[derive(Debug)]
pub struct Node {
    name: NodeName,
    generation: Generation,
    ring: RingSettings,
    asterisk: Asterisk,
    /// When Asterisk started, on our clock: a different one means that all calls are gone.
    asterisk_started: Option<Now>,
    restarted: bool,
    /// The phones.
    pub roster: Roster,
    sessions: BTreeMap<SessionId, Session>,
    waiting: VecDeque<SessionId>,
    channels: BTreeSet<Box<[u8]>>,
    bucket: Bucket,
    snapshot: Snapshot,
    open: BTreeMap<Tag, Purpose>,
    next_tag: u64,
    disputed: BTreeMap<SessionId, Now>,
    effects: VecDeque<Effect>,
}

impl Node {
    /// A node that knows nothing yet.
    pub fn new(name: NodeName, generation: Generation, ring: RingSettings, now: Now) -> Self {
        let bucket = Bucket::new(ring.rate, ring.burst, now);
        Self {
            name,
            generation,
            ring,
            asterisk: Asterisk::Away { ever: false, give_up_at: None },
            asterisk_started: None,
            restarted: false,
            roster: Roster::default(),
            sessions: BTreeMap::new(),
            waiting: VecDeque::new(),
            channels: BTreeSet::new(),
            bucket,
            snapshot: Snapshot::default(),
            open: BTreeMap::new(),
            next_tag: 0,
            disputed: BTreeMap::new(),
            effects: VecDeque::new(),
        }
    }

    /// How the node is.
    pub fn state(&self) -> NodeState {
        match self.asterisk {
            Asterisk::Ready => NodeState::Active,
            Asterisk::Syncing { .. } => NodeState::Starting,
            Asterisk::Away { ever: false, .. } => NodeState::Starting,
            Asterisk::Away { ever: true, .. } => NodeState::Down,
        }
    }

    /// How many channels Asterisk has, ours or not.
    pub fn channels(&self) -> usize {
        self.channels.len()
    }

    /// The sessions on this node.
    pub fn sessions(&self) -> impl Iterator<Item = &Session> {
        self.sessions.values()
    }

    /// The next thing to do.
    pub fn next_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When [`Input::Timer`] is wanted.
    pub fn next_deadline(&mut self, now: Now) -> Option<Now> {
        let asterisk = match self.asterisk {
            Asterisk::Away { give_up_at, .. } => give_up_at,
            Asterisk::Syncing { again_at } => again_at,
            Asterisk::Ready => None,
        };
        let paced = (self.asterisk == Asterisk::Ready && !self.waiting.is_empty()).then(|| self.bucket.next(now));
        let sessions = self.sessions.values().filter_map(Session::deadline).min();
        [asterisk, paced, sessions].into_iter().flatten().min()
    }

    /// Takes one input; what is to be done comes out of [`Self::next_effect`].
    pub fn handle(&mut self, input: Input<'_>, now: Now) {
        let before = self.state();
        match input {
            Input::Closed { gone } => self.closed(gone, now),
            Input::Event(event) => self.event(event, now),
            Input::Answer(tag, answer) => self.answer(tag, answer, now),
            Input::Ring(login) => self.order(login),
            Input::HangUp(id) => self.hang_up_order(id),
            Input::Books(books) => self.compare(&books, now),
            Input::Stale(ids) => self.stale(&ids),
            Input::Registered => self.tell_all(),
            Input::Timer => self.timer(now),
            Input::Stopping => self.give_waiting_back(Reason::Stopping),
        }
        self.ring_waiting(now);
        if self.state() != before {
            self.effects.push_back(Effect::Beat);
        }
    }

    fn booted(&mut self, uptime: Option<Duration>, now: Now) {
        let started = uptime.map(|uptime| Now(now.0.saturating_sub(uptime)));
        self.restarted = match (self.asterisk_started, started) {
            (Some(before), Some(started)) => started > before.after(Duration::from_secs(2)),
            (Some(_), None) => true,
            (None, _) => false,
        };
        self.asterisk_started = started.or(Some(now));
        self.sync();
    }

    fn closed(&mut self, gone: bool, now: Now) {
        let give_up_at = match self.asterisk {
            Asterisk::Away { give_up_at, .. } => give_up_at,
            Asterisk::Syncing { .. } | Asterisk::Ready => Some(now.after(GIVE_UP_AFTER)),
        };
        let ever = !matches!(self.asterisk, Asterisk::Away { ever: false, .. });
        self.asterisk = Asterisk::Away { ever, give_up_at };
        self.snapshot = Snapshot::default();
        self.open.clear();
        self.give_waiting_back(Reason::NodeLost);
        if gone {
            self.give_up();
        }
    }

    /// What was never written to Asterisk can be rung elsewhere at once.
    fn give_waiting_back(&mut self, why: Reason) {
        for id in std::mem::take(&mut self.waiting) {
            if let Some(session) = self.sessions.get_mut(&id) {
                let step = session.lost(why.clone());
                self.step(id, step);
            }
        }
    }

    fn give_up(&mut self) {
        if let Asterisk::Away { give_up_at, .. } = &mut self.asterisk {
            *give_up_at = None;
        }
        self.channels.clear();
        let ids: Vec<SessionId> = self.sessions.keys().copied().collect();
        if !ids.is_empty() {
            self.effects.push_back(Effect::Note(Note::GivenUp { sessions: ids.len() }));
        }
        for id in ids {
            if let Some(session) = self.sessions.get_mut(&id) {
                let step = session.lost(Reason::NodeLost);
                self.step(id, step);
            }
        }
    }

    fn event(&mut self, event: Event<'_>, now: Now) {
        match event {
            Event::ContactStatus { phone, status, .. } => self.roster.contact(phone, status),
            Event::PeerStatus { phone, status } => self.roster.peer(phone, status),
            Event::DeviceState { phone, state } => self.roster.device(phone, state),
            Event::Newchannel(channel) => {
                self.channels.insert(channel.unique.into());
                self.on_channel(channel.unique, Session::channel_made);
            }
            Event::Newstate(channel) if channel.state == ChannelState::Ringing => {
                self.on_channel(channel.unique, Session::alerting);
            }
            Event::Newstate(channel) if channel.state == ChannelState::Up => {
                self.on_channel(channel.unique, Session::answered);
            }
            Event::Hangup { channel, cause } => {
                self.channels.remove(channel.unique);
                let alerted = channel.state == ChannelState::Ringing;
                self.on_channel(channel.unique, |session| session.hung_up(cause, alerted, now));
            }
            Event::OriginateResponse { action_id: Some(action_id), ok, reason, .. } => {
                self.originate_response(action_id, ok, reason, now);
            }
            Event::Shutdown { .. } => self.closed(true, now),
            // A reload changes who is known here, without an event for each: look again.
            Event::Reload { .. } if self.asterisk == Asterisk::Ready => self.ask_devices(),
            Event::FullyBooted { uptime } => self.booted(uptime, now),
            Event::OriginateResponse { action_id: None, .. }
            | Event::Newstate(_)
            | Event::Reload { .. }
            | Event::Other => {}
        }
    }

    fn originate_response(&mut self, action_id: &[u8], ok: bool, reason: u8, now: Now) {
        // By ActionID, never by channel: a refused duplicate carries the channel id of the live call. It may be
        // one of an earlier generation, if the channel was adopted.
        let Some((_, id, attempt)) = session_of_action_id(action_id) else { return };
        let Some(session) = self.sessions.get_mut(&id).filter(|s| s.login.attempt == attempt) else { return };
        let step = if ok { session.answered() } else { session.originate_failed(reason, now) };
        self.step(id, step);
    }

    fn on_channel(&mut self, unique: &[u8], change: impl FnOnce(&mut Session) -> Step) {
        let Some(ChannelId(id)) = ChannelId::parse(unique) else { return };
        if let Some(session) = self.sessions.get_mut(&id) {
            let step = change(session);
            self.step(id, step);
        }
    }

    fn answer(&mut self, tag: Tag, answer: Answer, now: Now) {
        let Some(purpose) = self.open.remove(&tag) else { return };
        match purpose {
            Purpose::Devices | Purpose::Channels => self.snapshot_answer(purpose, answer, now),
            Purpose::Originate(id) => self.originate_answer(id, answer, now),
            Purpose::HangUp(id) => self.hang_up_answer(id, answer),
            Purpose::Probe(id) => self.probe_answer(id, answer, now),
        }
    }

    fn originate_answer(&mut self, id: SessionId, answer: Answer, now: Now) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let step = match answer {
            Answer::Success(_) | Answer::List { .. } => Step::Nothing,
            Answer::Error { message, .. } => session.refused(&message),
            Answer::NotSent(_) => {
                session.not_sent();
                self.waiting.push_front(id);
                Step::Nothing
            }
            // With the connection gone the next snapshot tells; otherwise ask for the channel now.
            Answer::Unknown(_) if matches!(self.asterisk, Asterisk::Away { .. }) => Step::Nothing,
            Answer::Unknown(_) => session.ask(now),
        };
        self.step(id, step);
    }

    fn hang_up_answer(&mut self, id: SessionId, answer: Answer) {
        match answer {
            // The Hangup event follows.
            Answer::Success(_) | Answer::List { .. } => {}
            Answer::Error { message, .. } if message.eq_ignore_ascii_case("No such channel") => {
                if let Some(session) = self.sessions.get_mut(&id) {
                    let step = session.missing(false);
                    self.step(id, step);
                }
            }
            Answer::Error { message, .. } => self.effects.push_back(Effect::Note(Note::HangUpFailed(id, message))),
            Answer::NotSent(why) => self.effects.push_back(Effect::Note(Note::HangUpFailed(id, why.to_string()))),
            Answer::Unknown(why) => self.effects.push_back(Effect::Note(Note::HangUpFailed(id, why.to_string()))),
        }
    }

    fn order(&mut self, login: Login) {
        let id = login.session;
        // Redelivered, or adopted in the meantime: it rings once.
        if self.sessions.contains_key(&id) {
            return;
        }
        let mut session = Session::new(login);
        if self.asterisk == Asterisk::Ready {
            self.sessions.insert(id, session);
            self.waiting.push_back(id);
        } else {
            let step = session.lost(Reason::NodeLost);
            self.sessions.insert(id, session);
            self.step(id, step);
        }
    }

    fn hang_up_order(&mut self, id: SessionId) {
        let step = match self.sessions.get_mut(&id) {
            Some(session) => session.call_off(),
            None => Step::Report(Outcome::Ended(Reason::LoggedOut)),
        };
        self.waiting.retain(|waiting| *waiting != id || step == Step::Nothing);
        self.step(id, step);
    }

    fn stale(&mut self, ids: &[SessionId]) {
        for id in ids {
            self.sessions.remove(id);
            self.effects.push_back(Effect::Note(Note::Drift(*id, "its agent has moved on: hanging up")));
            self.send(Purpose::HangUp(*id), None, Action::hangup(ChannelId(*id)));
        }
    }

    fn tell_all(&mut self) {
        self.roster.tell_all();
        for session in self.sessions.values().filter(|session| !session.is_waiting()) {
            let live = if session.is_live() { Live::Yes } else { Live::NotYet };
            self.effects.push_back(Effect::Adopt(session.login.clone(), live));
        }
    }

    /// Compares what Redis believes with what is here (P5). A difference must last, for a report may be on its way.
    fn compare(&mut self, books: &[(SessionId, BookedState)], now: Now) {
        if self.asterisk != Asterisk::Ready {
            return;
        }
        let mut disputed = BTreeMap::new();
        let mut lasting = Vec::new();
        let mut dispute = |id: SessionId, before: &BTreeMap<SessionId, Now>| {
            let since = before.get(&id).copied().unwrap_or(now);
            disputed.insert(id, since);
            if now.since(since) >= DISAGREE_FOR {
                lasting.push(id);
            }
        };
        for (id, state) in books {
            if *state != BookedState::Placed && !self.sessions.contains_key(id) {
                dispute(*id, &self.disputed);
            }
        }
        let booked: BTreeSet<SessionId> = books.iter().map(|(id, _)| *id).collect();
        for id in self.sessions.keys().filter(|id| !booked.contains(id)) {
            dispute(*id, &self.disputed);
        }
        self.disputed = disputed;
        for id in lasting {
            self.disputed.remove(&id);
            self.mend(id, books);
        }
    }

    fn mend(&mut self, id: SessionId, books: &[(SessionId, BookedState)]) {
        let (what, effect) = match self.sessions.get(&id) {
            Some(session) if session.is_waiting() => {
                self.sessions.remove(&id);
                self.waiting.retain(|waiting| *waiting != id);
                ("Redis ended it before it was rung: not ringing it", None)
            }
            Some(session) => {
                let live = if session.is_live() { Live::Yes } else { Live::NotYet };
                ("Redis had lost it: told again", Some(Effect::Adopt(session.login.clone(), live)))
            }
            None => {
                let was_live = books.contains(&(id, BookedState::Live));
                let outcome =
                    if was_live { Outcome::Ended(Reason::HungUp) } else { Outcome::Failed(Reason::OutcomeUnknown) };
                ("Asterisk has no such channel: ended", Some(Effect::Report(id, None, outcome)))
            }
        };
        self.effects.push_back(Effect::Note(Note::Drift(id, what)));
        self.effects.extend(effect);
    }

    fn timer(&mut self, now: Now) {
        match self.asterisk {
            Asterisk::Away { give_up_at: Some(at), .. } if at <= now => self.give_up(),
            Asterisk::Syncing { again_at: Some(at) } if at <= now => self.sync(),
            Asterisk::Away { .. } | Asterisk::Syncing { .. } | Asterisk::Ready => {}
        }
        let due: Vec<SessionId> =
            self.sessions.iter().filter(|(_, s)| s.deadline().is_some_and(|at| at <= now)).map(|(id, _)| *id).collect();
        for id in due {
            if let Some(session) = self.sessions.get_mut(&id) {
                let step = session.timer(now);
                self.step(id, step);
            }
        }
    }

    /// Writes as many Originates as the bucket allows.
    fn ring_waiting(&mut self, now: Now) {
        if self.asterisk != Asterisk::Ready {
            return;
        }
        while let Some(id) = self.waiting.front().copied() {
            let Some(session) = self.sessions.get_mut(&id).filter(|session| session.is_waiting()) else {
                self.waiting.pop_front();
                continue;
            };
            if !self.bucket.take(now) {
                return;
            }
            self.waiting.pop_front();
            let technology = self.roster.technology(&session.login.extension).unwrap_or(crate::ids::Technology::Pjsip);
            match ring::originate(&session.login, technology, &self.name, &self.ring) {
                Ok(action) => {
                    session.originated(self.ring.timeout, now);
                    let action_id = originate_action_id(self.generation, id, session.login.attempt);
                    self.effects.push_back(Effect::Note(Note::Ringing(id, action_id.clone())));
                    self.send(Purpose::Originate(id), Some(action_id), action);
                }
                Err(error) => {
                    let step = session.refused(&error.to_string());
                    self.effects.push_back(Effect::Note(Note::Unbuildable(id, error.to_string())));
                    self.step(id, step);
                }
            }
        }
    }

    fn step(&mut self, id: SessionId, step: Step) {
        match step {
            Step::Nothing => {}
            Step::HangUp => self.send(Purpose::HangUp(id), None, Action::hangup(ChannelId(id))),
            Step::Ask => self.send(Purpose::Probe(id), None, Action::status(&ring::VARIABLES)),
            Step::Report(outcome) => {
                let login = self.sessions.get(&id).map(|session| session.login.clone());
                if outcome != Outcome::Live {
                    self.sessions.remove(&id);
                }
                self.effects.push_back(Effect::Report(id, login, outcome));
            }
        }
    }

    fn send(&mut self, purpose: Purpose, action_id: Option<String>, action: Action) {
        let tag = Tag(self.next_tag);
        self.next_tag += 1;
        self.open.insert(tag, purpose);
        self.effects.push_back(Effect::Ami { tag, action_id, action });
    }
}

/// How many open sessions of local agents are here: what the load in Redis must be.
pub fn local_sessions<'a>(sessions: impl Iterator<Item = &'a Session>) -> usize {
    sessions.filter(|session| session.login.class == Class::Local).count()
}
