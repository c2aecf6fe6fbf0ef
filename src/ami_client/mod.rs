//! The client of Asterisk's manager interface: one connection at a time, kept up until its owner says otherwise. Owns what is
//! said to and by its owner. Must never decide what an event means, nor know Redis.

mod codec;
mod connection;
mod reconnect;
mod socket;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tokio::sync::watch;

use crate::ami::action::{Action, EventMask};
use crate::ami::event::is_wanted;
use crate::ami::frame::{Limits, Message};
use crate::ami::link::{Boot, LinkSettings};
use crate::ami::outcome::{Answer, CloseReason, Tag};
use crate::config::{AmiLogin, AmiSettings, LiveSettings, Settings};
use crate::ids::{Generation, NodeName};
use crate::runtime::clock::Clock;

/// Messages from the owner.
#[derive(Debug)]
pub enum ToAmi {
    /// Send an action, under this ActionID or one of the link's own.
    Send(Tag, Option<String>, Action),
    /// Say goodbye and end.
    Logoff,
}

/// Messages to the owner.
#[derive(Debug)]
pub enum FromAmi {
    /// Logged in, with this version of the interface.
    LoggedIn(String),
    /// Whether Asterisk is shutting down, when that changes.
    ShuttingDown(bool),
    /// Something happened in Asterisk.
    Event(Message),
    /// How an action ended.
    Answer(Tag, Answer),
    /// The connection is over, or could not be made.
    Closed {
        /// What was found there.
        peer: PeerStatus,
        /// Why, as a text for people.
        reason: String,
        /// An operator must change something before a retry can help.
        needs_people: bool,
    },
}

/// What was found at the other end when a session ended or did not begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerStatus {
    /// The connection is refused: nothing listens.
    Refused,
    /// No response.
    Unresponsive,
    /// The peer responded, and ended the session or refused to begin one.
    Responding,
}

impl PeerStatus {
    fn of(reason: &CloseReason) -> Self {
        match reason {
            CloseReason::LoginTimeout { .. } | CloseReason::PingTimeout { .. } => Self::Unresponsive,
            CloseReason::LoginRefused { .. } | CloseReason::ShuttingDown | CloseReason::Lost { .. } => Self::Responding,
            CloseReason::LoggedOff | CloseReason::Unreadable(_) | CloseReason::Settings(_) => Self::Responding,
        }
    }
}

/// What has happened on all connections of a task so far.
#[derive(Debug, Default)]
pub struct Counts {
    /// Bytes read.
    pub bytes: AtomicU64,
    /// Events that were left out at the frame.
    pub skipped: AtomicU64,
    /// Logins that were accepted.
    pub logins: AtomicU64,
    /// Connections closed because the data broke a limit or is not AMI.
    pub unreadable: AtomicU64,
    /// Connections that ended because a ping was not answered.
    pub silent: AtomicU64,
    /// How long the last answered ping took, in µs; 0 before the first.
    pub ping_us: AtomicU64,
    /// Answers, items and other messages without a pending action.
    pub strays: AtomicU64,
    /// Times that reading stopped because the owner's channel was full.
    pub held: AtomicU64,
}

/// The task.
#[derive(Debug)]
pub struct Ami {
    /// For log lines: whose Asterisk it is.
    pub node: NodeName,
    /// Where it is.
    pub settings: AmiSettings,
    /// Who logs in, and all times.
    pub link: LinkSettings,
    /// The time.
    pub clock: Clock,
    /// For log lines: which of the connections this is.
    pub user: &'static str,
    /// The events that are not left out; see [`crate::ami::frame::Splitter::only`].
    pub wanted: fn(&[u8]) -> bool,
    /// How much one message may hold.
    pub limits: Limits,
    /// What has happened.
    pub counts: Arc<Counts>,
    /// The settings in effect, if they may change.
    pub(super) renewed: Option<Renewed>,
}

/// The settings in effect, and the login that a connection uses; `None` if they no longer name a user.
#[derive(Debug)]
pub(super) struct Renewed {
    pub(super) live_settings: watch::Receiver<LiveSettings>,
    pub(super) login: fn(&LiveSettings) -> Option<AmiLogin>,
}

impl Ami {
    /// A task with the daemon's own interest set and the usual limits.
    pub fn new(node: NodeName, settings: AmiSettings, link: LinkSettings, clock: Clock, user: &'static str) -> Self {
        let (wanted, limits, counts) = (is_wanted, Limits::DEFAULT, Arc::default());
        Self { node, settings, link, clock, user, wanted, limits, counts, renewed: None }
    }
}

/// What a session on the configured manager is given.
pub fn link_settings(settings: &Settings, login: AmiLogin, events: EventMask, generation: Generation) -> LinkSettings {
    LinkSettings {
        username: login.username,
        secret: login.secret,
        events,
        ping_interval: settings.ami.ping_interval,
        ping_timeout: settings.ami.ping_timeout,
        login_timeout: settings.ami.login_timeout,
        action_timeout: settings.ami.action_timeout,
        devices_most: usize::try_from(settings.ami.max_devices).unwrap_or(usize::MAX),
        boot: Boot::Awaited,
        generation,
        connection: 0,
    }
}
