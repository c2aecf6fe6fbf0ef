//! One session with Asterisk, from its greeting to its end, without a socket.
//!
//! Owns the order of things: challenge, login, boot, then actions and pings; which answer is whose; what is late. Must
//! never know a socket, a clock or what an action is for. The owner hands in what happened and when, then takes all
//! effects with [`Link::next_effect`], then waits, at most until [`Link::next_deadline`].

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use secrecy::SecretString;

use crate::ids::{Generation, Now};

use super::action::{Action, EventMask};
use super::frame::{Banner, FrameError, Item, Message};
use super::id::{is_plain_of, plain_action_id};
use super::outcome::{Answer, CloseReason, LinkEffect, NotSent, Stage, Strays, Tag, Unknown};
pub use super::pending::LIST_ITEMS;
use super::pending::{Owner, Pending};

/// The most actions that may wait for an answer at a time.
pub const OPEN_ACTIONS: usize = 1024;
/// How long after the login a missing `FullyBooted` is remarked upon. A real start took up to a second, one with broken
/// name look-ups 50.
pub const BOOT_HINT_AFTER: Duration = Duration::from_secs(10);

/// Whether actions wait for `FullyBooted`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Boot {
    /// They do. The user must be allowed to read class `system`, and the mask must let it through.
    Awaited,
    /// They may be sent at once after the login: the owner knows from elsewhere that Asterisk is booted.
    NotAwaited,
}

/// What a session is given.
#[derive(Debug, Clone)]
pub struct LinkSettings {
    /// The section of manager.conf.
    pub username: String,
    /// Its secret. Never sent: only a digest of it is.
    pub secret: SecretString,
    /// The events that are asked for.
    pub events: EventMask,
    /// How long after the last answered ping the next is sent.
    pub ping_interval: Duration,
    /// How long a ping may take.
    pub ping_timeout: Duration,
    /// How long banner, challenge and login may take together.
    pub login_timeout: Duration,
    /// How long the answer to an action may take, for a list to its end.
    pub action_timeout: Duration,
    /// So many items of a list of devices are kept.
    pub devices_most: usize,
    /// Whether actions wait for `FullyBooted`.
    pub boot: Boot,
    /// This life of the daemon: part of every ActionID.
    pub generation: Generation,
    /// Which connection of this life it is: no two may have the same number. Part of every ActionID.
    pub connection: u32,
}

/// The actions that a session sends for itself, one at a time.
enum Own {
    Challenge,
    Login,
    Logoff,
}

enum Ping {
    Off,
    Due(Now),
    Sent { id: String, sent: Now, deadline: Now },
}

/// The session. One for each connection.
pub struct Link {
    settings: LinkSettings,
    stage: Stage,
    /// When the stage has lasted too long.
    stage_deadline: Option<Now>,
    own: Option<(Own, String)>,
    ping: Ping,
    pending: Pending,
    booted: bool,
    version: String,
    seq: u64,
    out: BytesMut,
    /// Bytes that were given to the owner, and how many of them it has written.
    given: u64,
    written: u64,
    effects: VecDeque<LinkEffect>,
    strays: Strays,
    round_trip: Option<Duration>,
    shutting_down: bool,
}

impl Link {
    /// A session on a connection that has just been made. It waits for the banner.
    pub fn new(settings: LinkSettings, now: Now) -> Self {
        Self {
            stage: Stage::Greeting,
            stage_deadline: Some(now.after(settings.login_timeout)),
            own: None,
            ping: Ping::Off,
            pending: Pending::default(),
            booted: settings.boot == Boot::NotAwaited,
            version: String::new(),
            seq: u64::from(settings.connection) << 32,
            out: BytesMut::new(),
            given: 0,
            written: 0,
            effects: VecDeque::new(),
            strays: Strays::default(),
            round_trip: None,
            shutting_down: false,
            settings,
        }
    }

    /// Something was read.
    pub fn received(&mut self, item: Item, now: Now) {
        match item {
            Item::Banner(banner) => self.greeted(banner),
            Item::Message(_) if self.stage == Stage::Closed => {}
            Item::Message(message) if message.is_event() => self.event(message),
            Item::Message(message) => self.response(message, now),
        }
    }

    /// Sends an action under an ActionID of the session's own. The answer comes as an effect, always, exactly once.
    pub fn send(&mut self, tag: Tag, action: Action, now: Now) {
        let id = self.next_id();
        self.send_with_id(tag, &id, action, now);
    }

    /// As [`Link::send`] with the caller's ActionID, which must be unique to action and life of the daemon: see
    /// [`super::id::originate_action_id`].
    pub fn send_with_id(&mut self, tag: Tag, action_id: &str, action: Action, now: Now) {
        let refused = match self.stage {
            Stage::Greeting | Stage::Login | Stage::Boot => Some(NotSent::NotReady),
            Stage::Logoff | Stage::Closed => Some(NotSent::Closed),
            Stage::Up if self.pending.len() >= OPEN_ACTIONS => Some(NotSent::TooManyOpen { limit: OPEN_ACTIONS }),
            Stage::Up if self.pending.contains(action_id.as_bytes()) => Some(NotSent::IdInUse),
            Stage::Up => action.encode(action_id, &mut self.out).err().map(NotSent::ActionId),
        };
        if let Some(reason) = refused {
            return self.answer(tag, Answer::NotSent(reason));
        }
        self.write();
        let (most, deadline) = (self.settings.devices_most, now.after(self.settings.action_timeout));
        self.pending.insert(action_id, (tag, &action), most, deadline, self.given);
    }

    /// Time has passed: call it at [`Link::next_deadline`] or later. Harmless when nothing is due.
    pub fn timer(&mut self, now: Now) {
        if self.stage_deadline.is_some_and(|deadline| deadline <= now) {
            self.stage_expired();
        }
        while let Some(tag) = self.pending.expired(now) {
            self.answer(tag, Answer::Unknown(Unknown::Deadline { after: self.settings.action_timeout }));
        }
        match &self.ping {
            Ping::Due(at) if *at <= now => {
                if let Some(id) = self.say(&Action::ping()) {
                    self.ping = Ping::Sent { id, sent: now, deadline: now.after(self.settings.ping_timeout) };
                }
            }
            Ping::Sent { deadline, .. } if *deadline <= now => {
                self.close(CloseReason::PingTimeout { after: self.settings.ping_timeout });
            }
            Ping::Off | Ping::Due(_) | Ping::Sent { .. } => {}
        }
    }

    /// So many more bytes of what was to be written are written. An action that is not, to its last byte, when the session
    /// ends was not sent.
    pub fn written(&mut self, bytes: usize) {
        self.written = self.written.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
    }

    /// The owner could not read for a while, or has not read all that came: what waits is not known yet, so the time for a
    /// ping begins anew.
    pub fn kept_waiting(&mut self, now: Now) {
        if let Ping::Sent { deadline, .. } = &mut self.ping {
            *deadline = now.after(self.settings.ping_timeout);
        }
    }

    /// The connection ended: end of file, reset, or a failed write.
    pub fn closed(&mut self, _now: Now) {
        match self.stage {
            Stage::Closed => {}
            Stage::Logoff => self.close(CloseReason::LoggedOff),
            stage @ (Stage::Greeting | Stage::Login | Stage::Boot | Stage::Up) => {
                self.close(CloseReason::Lost { stage })
            }
        }
    }

    /// What came cannot be read.
    pub fn unreadable(&mut self, error: FrameError) {
        if self.stage != Stage::Closed {
            self.close(CloseReason::Unreadable(error));
        }
    }

    /// Says goodbye: no more actions; those that are open may still be answered until Asterisk says goodbye, too.
    pub fn logoff(&mut self, now: Now) {
        match self.stage {
            Stage::Greeting | Stage::Login => self.close(CloseReason::LoggedOff),
            Stage::Boot | Stage::Up => {
                if let Some(id) = self.say(&Action::logoff()) {
                    self.own = Some((Own::Logoff, id));
                    self.stage = Stage::Logoff;
                    self.stage_deadline = Some(now.after(self.settings.action_timeout));
                    self.ping = Ping::Off;
                }
            }
            Stage::Logoff | Stage::Closed => {}
        }
    }

    /// When [`Link::timer`] has something to do next.
    pub fn next_deadline(&self) -> Option<Now> {
        let ping = match &self.ping {
            Ping::Off => None,
            Ping::Due(at) => Some(*at),
            Ping::Sent { deadline, .. } => Some(*deadline),
        };
        [self.stage_deadline, ping, self.pending.next_deadline()].into_iter().flatten().min()
    }

    /// Returns the next effect. Take all of them before waiting.
    pub fn next_effect(&mut self) -> Option<LinkEffect> {
        self.effects.pop_front()
    }

    /// How far it has come.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// How many actions wait for their answer.
    pub fn open_actions(&self) -> usize {
        self.pending.len()
    }

    /// Messages so far without a pending action.
    pub fn strays(&self) -> Strays {
        self.strays
    }

    /// How long the last ping that was answered took.
    pub fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    fn greeted(&mut self, banner: Banner) {
        if self.stage != Stage::Greeting {
            return;
        }
        self.version = banner.version;
        self.stage = Stage::Login;
        self.say_own(Own::Challenge, &Action::challenge());
    }

    fn response(&mut self, message: Message, now: Now) {
        if message.response().is_none() {
            self.strays.unreadable += 1;
            return;
        }
        let Some(id) = message.action_id() else { return self.unaddressed(&message) };
        if let Some((own, _)) = self.own.take_if(|(_, own_id)| own_id.as_bytes() == id) {
            return match own {
                Own::Challenge => self.challenged(&message),
                Own::Login => self.login_answered(&message, now),
                Own::Logoff => self.close(CloseReason::LoggedOff),
            };
        }
        match &self.ping {
            Ping::Sent { id: ping_id, sent, .. } if ping_id.as_bytes() == id => {
                self.round_trip = Some(now.since(*sent));
                self.ping = Ping::Due(now.after(self.settings.ping_interval));
                return self.shuts_down(is_shutting_down(&message));
            }
            Ping::Off | Ping::Due(_) | Ping::Sent { .. } => {}
        }
        if is_shutting_down(&message) {
            self.shuts_down(true);
        }
        match self.pending.response(id, message.clone()) {
            Owner::Ended(tag, answer) => self.answer(tag, answer),
            Owner::Kept => {}
            Owner::Nobody => self.strays.foreign += 1,
        }
    }

    /// An answer without ActionID. While logging in, it may be the one that ends it.
    fn unaddressed(&mut self, message: &Message) {
        self.strays.unaddressed += 1;
        match self.stage {
            Stage::Greeting | Stage::Login if is_shutting_down(message) => self.close(CloseReason::ShuttingDown),
            Stage::Greeting | Stage::Login | Stage::Boot | Stage::Up | Stage::Logoff | Stage::Closed => {}
        }
    }

    fn challenged(&mut self, message: &Message) {
        let Some(challenge) = message.get("Challenge") else { return self.refused(message) };
        let settings = &self.settings;
        match Action::login(&settings.username, &settings.secret, challenge, &settings.events) {
            Ok(login) => self.say_own(Own::Login, &login),
            Err(error) => self.close(CloseReason::Settings(error)),
        }
    }

    fn login_answered(&mut self, message: &Message, now: Now) {
        if message.response() != Some(b"Success") {
            return self.refused(message);
        }
        self.stage = Stage::Boot;
        self.stage_deadline = Some(now.after(BOOT_HINT_AFTER));
        self.ping = Ping::Due(now.after(self.settings.ping_interval));
        self.effects.push_back(LinkEffect::LoggedIn { version: self.version.clone() });
        if self.booted {
            self.up();
        }
    }

    fn refused(&mut self, message: &Message) {
        self.close(if is_shutting_down(message) {
            CloseReason::ShuttingDown
        } else {
            CloseReason::LoginRefused { user: self.settings.username.clone(), message: message.shown("Message") }
        });
    }

    fn event(&mut self, message: Message) {
        let name = message.event_name().unwrap_or_default();
        // The outcome of a ring is never an item, whatever ActionID it carries.
        if name != b"OriginateResponse"
            && let Some(id) = message.action_id()
        {
            match self.pending.item(id, &message) {
                Owner::Ended(tag, answer) => return self.answer(tag, answer),
                Owner::Kept => return,
                Owner::Nobody if !self.pending.contains(id) && is_plain_of(id, self.settings.generation) => {
                    self.strays.late += 1;
                    return;
                }
                Owner::Nobody => {}
            }
        }
        if name == b"FullyBooted" {
            self.booted = true;
            if self.stage == Stage::Boot {
                self.up();
            }
        }
        self.effects.push_back(LinkEffect::Event(message));
    }

    fn up(&mut self) {
        self.stage = Stage::Up;
        self.stage_deadline = None;
        self.effects.push_back(LinkEffect::Booted);
    }

    fn stage_expired(&mut self) {
        self.stage_deadline = None;
        match self.stage {
            stage @ (Stage::Greeting | Stage::Login) => {
                self.close(CloseReason::LoginTimeout { after: self.settings.login_timeout, stage });
            }
            Stage::Boot => self.effects.push_back(LinkEffect::Stalled),
            Stage::Logoff => self.close(CloseReason::LoggedOff),
            Stage::Up | Stage::Closed => {}
        }
    }

    /// Any answer may say that it does, and only a ping that it does not any more.
    fn shuts_down(&mut self, is: bool) {
        if std::mem::replace(&mut self.shutting_down, is) != is {
            self.effects.push_back(LinkEffect::ShuttingDown(is));
        }
    }

    fn close(&mut self, reason: CloseReason) {
        if reason == CloseReason::ShuttingDown {
            self.shuts_down(true);
        }
        for (tag, sent) in self.pending.drain(self.written) {
            self.answer(tag, if sent { Answer::Unknown(Unknown::Closed) } else { Answer::NotSent(NotSent::Closed) });
        }
        self.stage = Stage::Closed;
        self.stage_deadline = None;
        self.own = None;
        self.ping = Ping::Off;
        self.effects.push_back(LinkEffect::Close(reason));
    }

    fn answer(&mut self, tag: Tag, answer: Answer) {
        self.effects.push_back(LinkEffect::Answer { tag, answer });
    }

    fn say_own(&mut self, own: Own, action: &Action) {
        self.own = self.say(action).map(|id| (own, id));
    }

    /// Writes an action of the session's own, and gives its ActionID. `None` when that ended the session.
    fn say(&mut self, action: &Action) -> Option<String> {
        let id = self.next_id();
        match action.encode(&id, &mut self.out) {
            Ok(()) => {
                self.write();
                Some(id)
            }
            Err(error) => {
                self.close(CloseReason::Settings(error));
                None
            }
        }
    }

    fn write(&mut self) {
        let bytes: Bytes = self.out.split().freeze();
        self.given += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.effects.push_back(LinkEffect::Write(bytes));
    }

    fn next_id(&mut self) -> String {
        self.seq = self.seq.wrapping_add(1);
        plain_action_id(self.settings.generation, self.seq)
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Link({:?}, {} open)", self.stage, self.pending.len())
    }
}

fn is_shutting_down(message: &Message) -> bool {
    message.response() == Some(b"Error")
        && message.text("Message").is_some_and(|text| text.to_ascii_lowercase().contains("shutting down"))
}
