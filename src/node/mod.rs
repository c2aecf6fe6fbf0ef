//! The decisions of a node, as a pure state machine: (input, now) goes in, effects come out. Owns the roster of phones, the
//! sessions on this node and the rules between them. Must never know a socket, a file, a clock, a random source, a
//! log or Redis: `daemon` carries its effects out.

mod channel_check;
mod connection;
mod endpoint;
mod io;
pub mod keyword;
pub mod left_out;
mod note;
mod orders;
mod outcome;
pub mod pacing;
mod phones;
mod recent_outcomes;
mod reconcile;
mod rights;
pub mod ring;
mod ring_queue;
pub mod roster;
pub mod session;
mod snapshot;
mod state;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::ami::action::Action;
use crate::ami::event::{ChannelState, Event};
use crate::ami::id::session_of_action_id;
use crate::ami::outcome::{Answer, Tag};
use crate::ids::{ChannelId, Extension, Generation, NodeName, Now, SessionId, Technology};
use crate::ring_policy::{RingSettings, Timeouts};
use channel_check::ChannelCheck;
pub use io::{Effect, Input, Live, RecordedState};
pub use note::Note;
use pacing::Bucket;
use phones::{Lists, Questions};
use recent_outcomes::RecentOutcomes;
use rights::Rights;
use ring_queue::RingQueue;
use roster::Roster;
use session::{Class, Outcome, Reason, Session, Step};
use snapshot::{Miscounted, Snapshot};
pub use state::{AdminState, NodeState};

/// After this long without AMI, Asterisk counts as down.
pub const GIVE_UP_AFTER: Duration = Duration::from_secs(3);
/// A full node checks its ring queue at least this often.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// An Originate that could not be sent is tried again after this.
const NOT_SENT_AGAIN: Duration = Duration::from_millis(200);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asterisk {
    /// Not connected. `gone`: nothing listens there, so that it has no calls.
    Away { ever: bool, gone: bool, give_up_at: Option<Now> },
    /// Connected and booted, lists are on their way.
    Syncing { again_at: Option<Now> },
    /// In sync.
    Ready,
}

#[derive(Debug)]
enum Purpose {
    Identity,
    Devices(u32),
    Peers(Technology, u32),
    Dialable(Extension),
    Contacts(Extension),
    ContactsOfOnline,
    Qualify,
    Logoff,
    Channels,
    /// With the try: a late answer to an earlier one says nothing about this one.
    Originate(SessionId, u32),
    HangUp(SessionId),
    ChannelCheck,
    Stopping(SessionId),
}

/// The machine.
#[derive(Debug)]
pub struct Node {
    name: NodeName,
    generation: Generation,
    ring: RingSettings,
    timeouts: Timeouts,
    /// When the last one that Redis has taken was sent.
    beaten: Option<Now>,
    asterisk: Asterisk,
    /// Which Asterisk it was that was seen last: with another one, all calls are gone.
    process: Option<Box<[u8]>>,
    restarted: bool,
    /// The phones.
    pub roster: Roster,
    sessions: BTreeMap<SessionId, Session>,
    waiting: RingQueue,
    /// The most phones ring at once: queued logins wait for one of them.
    full: bool,
    channels: BTreeSet<Box<[u8]>>,
    bucket: Bucket,
    snapshot: Snapshot,
    lists: Lists,
    questions: Questions,
    rights: Rights,
    miscounted: Miscounted,
    channel_check: ChannelCheck,
    open: BTreeMap<Tag, Purpose>,
    next_tag: u64,
    disputed: BTreeMap<SessionId, Now>,
    /// The daemon ends.
    stopping: bool,
    /// Asterisk ends, perhaps when its last call does.
    shutting_down: bool,
    admin_state: AdminState,
    rung: RecentOutcomes,
    /// No Originate before this: the last one could not be sent.
    hold_until: Now,
    /// The moment of the input that is being handled.
    now: Now,
    effects: VecDeque<Effect>,
}

impl Node {
    /// A node that knows nothing yet. A process that stood still for longer than its `lease` rings nobody of what it had
    /// taken before (P8).
    pub fn new(name: NodeName, generation: Generation, ring: RingSettings, timeouts: Timeouts, now: Now) -> Self {
        let bucket = Bucket::new(ring.rate, ring.burst, now);
        Self {
            name,
            generation,
            ring,
            timeouts,
            beaten: None,
            asterisk: Asterisk::Away { ever: false, gone: false, give_up_at: None },
            process: None,
            restarted: false,
            roster: Roster::default(),
            sessions: BTreeMap::new(),
            waiting: RingQueue::default(),
            full: false,
            channels: BTreeSet::new(),
            bucket,
            snapshot: Snapshot::default(),
            lists: Lists::default(),
            questions: Questions::default(),
            rights: Rights::default(),
            miscounted: Miscounted::default(),
            channel_check: ChannelCheck::new(generation, now),
            open: BTreeMap::new(),
            next_tag: 0,
            disputed: BTreeMap::new(),
            stopping: false,
            shutting_down: false,
            admin_state: AdminState::Ready,
            rung: RecentOutcomes::default(),
            hold_until: now,
            now,
            effects: VecDeque::new(),
        }
    }

    /// How the node is.
    pub fn state(&self) -> NodeState {
        match self.asterisk {
            Asterisk::Ready if self.shutting_down => NodeState::Stopping,
            Asterisk::Ready => NodeState::Active,
            Asterisk::Syncing { .. } => NodeState::Starting,
            Asterisk::Away { ever: false, .. } => NodeState::Starting,
            Asterisk::Away { ever: true, .. } => NodeState::Down,
        }
    }

    /// Whether it takes logins, as far as it was told.
    pub fn admin_state(&self) -> AdminState {
        self.admin_state
    }

    /// How many channels Asterisk has, ours or not.
    pub fn channels(&self) -> usize {
        self.channels.len()
    }

    /// About how many sessions Redis and this node disagree, whether or not that lasts.
    pub fn disputed(&self) -> usize {
        self.disputed.len()
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
            Asterisk::Ready => self.channel_check.deadline(),
        };
        let paced = (self.asterisk == Asterisk::Ready && !self.waiting.is_empty()).then(|| {
            match self.full || self.has_lease_expired(now) {
                // Nothing can be done then; but who stood still gives it back.
                true => self.now.after(LOOK_AGAIN.min(self.timeouts.lease / 3)),
                false => self.bucket.next(now).max(self.hold_until),
            }
        });
        let sessions = if self.is_away() { None } else { self.sessions.values().filter_map(Session::deadline).min() };
        [asterisk, paced, sessions, self.waiting.due(), self.questions.deadline(), self.rights.deadline()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Handles one input; its effects come out of [`Self::next_effect`].
    pub fn handle(&mut self, input: Input<'_>, now: Now) {
        let before = self.state();
        // What waits for its turn has a timer: a gap is a process that stood still.
        if now.since(self.now) >= self.timeouts.lease {
            self.give_waiting_back(Reason::NodeLost);
        }
        self.now = now;
        match input {
            Input::Closed { gone } => self.closed(gone, now),
            Input::ShuttingDown(is) => {
                self.shutting_down = is;
                if is {
                    self.give_waiting_back(Reason::Stopping);
                }
            }
            Input::Event(event) => self.event(event, now),
            Input::Gap => self.channel_check.gap(now),
            Input::Answer(tag, answer) => self.answer(tag, answer, now),
            Input::Ring(login, asked, placed) => self.order(login, (asked, placed), now),
            Input::HangUp(id) => self.hang_up_order(id, now),
            Input::Recorded(recorded, asked) => self.beaten(&recorded, asked, now),
            Input::Stale(ids) => self.stale(&ids, now),
            Input::Registered => {
                self.waiting.tell_again();
                self.tell_all();
            }
            Input::AdminState(admin_state) => {
                self.admin_state = admin_state;
                if admin_state == AdminState::Drain {
                    self.give_waiting_back(Reason::Draining);
                }
            }
            Input::Settings(ring) => {
                self.bucket.change(ring.rate, ring.burst, now);
                self.ring = ring;
                self.rights.settings_read(now);
            }
            Input::Timer => self.timer(now),
            Input::Stopping => {
                self.stopping = true;
                self.give_waiting_back(Reason::Stopping);
            }
        }
        self.ring_waiting(now);
        self.check_channels(now);
        self.ask_contacts(now);
        self.log_in_again(now);
        self.effects.extend(self.waiting.news(now).map(Effect::RingQueue));
        if self.state() != before {
            self.effects.push_back(Effect::Beat);
        }
    }

    fn event(&mut self, event: Event<'_>, now: Now) {
        match event {
            Event::ContactStatus { phone, status, .. } => {
                self.roster.contact(phone.clone(), status);
                self.heard_of(phone.extension);
            }
            Event::PeerStatus { phone, status } => {
                self.roster.peer(phone.clone(), status);
                self.heard_of(phone.extension);
            }
            Event::DeviceState { phone, state } => {
                self.roster.device(phone.clone(), state);
                self.heard_of(phone.extension);
            }
            Event::Newchannel(channel) => {
                self.channels.insert(channel.unique.into());
                self.on_channel(channel.unique, |session| session.channel_made(now));
                self.ask_whose(channel.unique);
            }
            Event::Newstate(channel) if channel.state == ChannelState::Ringing => {
                self.on_channel(channel.unique, |session| session.alerting(now));
            }
            Event::Newstate(channel) if channel.state == ChannelState::Up => {
                self.on_channel(channel.unique, |session| session.answered(now));
            }
            Event::HangupRequest { unique } => self.on_channel(unique, Session::hangs_up),
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
            Event::Reload { .. } if !self.is_away() => self.ask_phones(false),
            Event::FullyBooted { .. } => self.booted(now),
            Event::NoId { technology, name } => self.roster.left_out.name(technology, name),
            Event::OriginateResponse { action_id: None, .. }
            | Event::Newstate(_)
            | Event::Reload { .. }
            | Event::Other => {}
        }
    }

    fn is_away(&self) -> bool {
        matches!(self.asterisk, Asterisk::Away { .. })
    }

    fn originate_response(&mut self, action_id: &[u8], ok: bool, reason: u8, now: Now) {
        // By ActionID, never by channel: a refused duplicate carries the channel id of the live call. It may be
        // one of an earlier generation, if the channel was adopted.
        let Some((_, id, attempt)) = session_of_action_id(action_id) else { return };
        let Some(session) = self.sessions.get_mut(&id).filter(|s| s.login.attempt == attempt) else { return };
        let step = if ok { session.answered(now) } else { session.originate_failed(reason, now) };
        self.step(id, step);
    }

    fn on_channel(&mut self, unique: &[u8], change: impl FnOnce(&mut Session) -> Step) {
        let Some(ChannelId(id)) = ChannelId::parse(unique) else { return };
        if let Some(session) = self.sessions.get_mut(&id) {
            let step = change(session);
            self.step(id, step);
        }
    }

    /// Adopts one of our channels that is unknown here: from an earlier daemon, or given up as lost.
    fn ask_whose(&mut self, unique: &[u8]) {
        if let Some(ChannelId(id)) = ChannelId::parse(unique)
            && !self.is_away()
            && !self.sessions.contains_key(&id)
        {
            self.step(id, Step::Ask);
        }
    }

    fn answer(&mut self, tag: Tag, answer: Answer, now: Now) {
        let Some(purpose) = self.open.remove(&tag) else { return };
        self.rights.answered(&purpose, &answer, now);
        match purpose {
            Purpose::Identity => self.identity_answer(answer, now),
            Purpose::Devices(round) => self.devices_answer(round, answer, now),
            Purpose::Peers(technology, round) => self.peers_answer(technology, round, answer),
            Purpose::Dialable(extension) => self.dialable_answer(extension, answer),
            Purpose::Contacts(extension) => self.contacts_answer(&extension, answer),
            Purpose::ContactsOfOnline => self.contacts_of_online_answer(answer),
            // What comes of it comes as an event, or as the end of the connection.
            Purpose::Qualify | Purpose::Logoff => {}
            Purpose::Channels => self.channels_answer(answer, now),
            Purpose::Originate(id, attempt) => self.originate_answer(id, attempt, answer, now),
            Purpose::HangUp(id) => self.hang_up_answer(id, answer, now),
            Purpose::ChannelCheck => self.channel_check_answer(answer, now),
            Purpose::Stopping(id) => self.stopping_answer(id, &answer, now),
        }
    }

    fn timer(&mut self, now: Now) {
        match self.asterisk {
            Asterisk::Away { give_up_at: Some(at), .. } if at <= now => self.give_up(),
            Asterisk::Syncing { again_at: Some(at) } if at <= now => self.sync(),
            Asterisk::Away { .. } | Asterisk::Syncing { .. } | Asterisk::Ready => {}
        }
        // Nothing can be known of a session while Asterisk is away: it comes back, or all of them are given up.
        if self.is_away() {
            return;
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

    fn step(&mut self, id: SessionId, step: Step) {
        match step {
            Step::Nothing => {}
            Step::HangUp => self.send(Purpose::HangUp(id), None, Action::hangup(ChannelId(id))),
            Step::Ask => self.channel_check.ask(id),
            // What is asked does not matter: one that stops refuses everything.
            Step::AskStopping => self.send(Purpose::Stopping(id), None, Action::ping()),
            Step::Report(outcome) => {
                let login = self.sessions.get(&id).map(|session| session.login.clone());
                if outcome != Outcome::Live
                    && let Some(session) = self.sessions.remove(&id)
                    && !session.is_waiting()
                {
                    self.rung.ended(id, session.login.attempt, outcome.clone(), self.now);
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
