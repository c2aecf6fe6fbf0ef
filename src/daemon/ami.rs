//! The task that owns the AMI socket. Connects, lets `ami::link` speak, carries bytes both ways, connects again.
//! Owns the words with its owner, and the backoff. Must never decide what an event means: messages go to the owner as
//! they are.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tracing::warn;

use super::clock::{Clock, Repeats};
use super::reload::InForce;
use super::socket::connect;
use super::talk::{End, Talk};
use crate::ami::backoff::{Ended, Retry};
use crate::ami::frame::{Limits, Message};
use crate::ami::link::LinkSettings;
use crate::ami::outcome::{Answer, CloseReason, NotSent, Tag};
use crate::ami::{action::Action, event::is_wanted};
use crate::config::{AmiLogin, AmiSettings};
use crate::ids::{NodeName, Now};

/// What the owner asks for.
#[derive(Debug)]
pub enum ToAmi {
    /// Send an action, under this ActionID or one of the link's own.
    Send(Tag, Option<String>, Action),
    /// Say goodbye and end.
    Logoff,
}

/// What the owner is told.
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
        silence: Silence,
        /// Why, in words for people.
        reason: String,
        /// Trying again will not help before a person has changed something.
        needs_people: bool,
    },
}

/// Who is there when there is no session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Silence {
    /// The connection is refused: nothing listens.
    Nobody,
    /// Somebody may be there, and says nothing.
    Mute,
    /// Somebody is there, and ended the session or did not begin one.
    Speaks,
}

impl Silence {
    fn of(reason: &CloseReason) -> Self {
        match reason {
            CloseReason::LoginTimeout { .. } | CloseReason::PingTimeout { .. } => Self::Mute,
            CloseReason::LoginRefused { .. } | CloseReason::ShuttingDown | CloseReason::Lost { .. } => Self::Speaks,
            CloseReason::LoggedOff | CloseReason::Unreadable(_) | CloseReason::Settings(_) => Self::Speaks,
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
    /// Connections that ended because what came broke a limit or is no AMI.
    pub unreadable: AtomicU64,
    /// Connections that ended because a ping was not answered.
    pub silent: AtomicU64,
    /// How long the last answered ping took, in µs; 0 before the first.
    pub ping_us: AtomicU64,
    /// Answers, items and other messages that belonged to nobody.
    pub strays: AtomicU64,
    /// Times that the owner had no room, so that reading stopped.
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
    /// Which of the settings in force are its own, if they may change.
    pub(super) renewed: Option<Renewed>,
}

/// The settings in force, and what of them a connection is made with. `None`: they name no user any more.
#[derive(Debug)]
pub(super) struct Renewed {
    pub(super) in_force: watch::Receiver<InForce>,
    pub(super) login: fn(&InForce) -> Option<AmiLogin>,
}

impl Renewed {
    /// Waits until the settings were read again; for ever if they never are.
    async fn changed(renewed: Option<&mut Self>) {
        let heard = match renewed {
            Some(renewed) => renewed.in_force.changed().await.is_ok(),
            None => false,
        };
        if !heard {
            std::future::pending().await
        }
    }
}

/// What a wait between two connections ended with.
#[derive(Debug, PartialEq, Eq)]
enum Pause {
    Over,
    Renewed,
    Stop,
}

impl Ami {
    /// A task with the daemon's own interest set and the usual limits.
    pub fn new(node: NodeName, settings: AmiSettings, link: LinkSettings, clock: Clock, user: &'static str) -> Self {
        let (wanted, limits, counts) = (is_wanted, Limits::DEFAULT, Arc::default());
        Self { node, settings, link, clock, user, wanted, limits, counts, renewed: None }
    }

    /// Keeps a connection until told to stop.
    pub async fn run(mut self, mut orders: mpsc::Receiver<ToAmi>, told: mpsc::Sender<FromAmi>) {
        let mut retry = Retry::START;
        let mut repeats = Repeats::default();
        loop {
            self.take_over();
            let mut up = None;
            let closed = match connect(&self.settings).await {
                Ok(stream) => match Talk::new(&self, stream).run(&mut orders, &told, &mut up).await {
                    End::Stop => return,
                    End::Closed(reason) => FromAmi::Closed {
                        silence: Silence::of(&reason),
                        reason: reason.to_string(),
                        needs_people: reason.needs_people(),
                    },
                },
                Err(error) => no_connection(&error),
            };
            let ended = self.ended(up, &closed);
            let wait = retry.next_wait(ended, super::random_bits());
            if up.is_some() {
                repeats.clear();
            }
            self.complain(&closed, retry.waits_for_people(), &mut repeats);
            if told.send(closed).await.is_err() {
                return;
            }
            self.link.connection = self.link.connection.wrapping_add(1);
            match self.pause(wait, &mut orders, &told).await {
                Pause::Over => {}
                Pause::Renewed => retry = Retry::START,
                Pause::Stop => return,
            }
        }
    }

    /// How it ended: when Asterisk was booted, and what was found at the end.
    fn ended(&self, up: Option<Now>, closed: &FromAmi) -> Ended {
        match (up, closed) {
            (Some(since), _) => Ended::Up(self.clock.now().since(since)),
            (None, FromAmi::Closed { needs_people: true, .. }) => Ended::NeedsPeople,
            (None, _) => Ended::Failed,
        }
    }

    fn complain(&self, closed: &FromAmi, waits: bool, repeats: &mut Repeats) {
        let (node, user, address) = (&self.node, self.user, &self.settings.address);
        let FromAmi::Closed { reason, .. } = closed else { return };
        let key = if waits { format!("{reason}, waiting") } else { reason.clone() };
        let Some(held) = repeats.allow(&key, self.clock.now()) else { return };
        if waits {
            warn!(%node, user, %address, reason, held, "AMI is away, and somebody must mend that: it is tried every five \
                minutes, and at once after a reload");
        } else {
            warn!(%node, user, %address, reason, held, "AMI is away");
        }
    }

    /// The next connection is made with the settings that are in force.
    fn take_over(&mut self) {
        let Some(renewed) = &mut self.renewed else { return };
        let in_force = renewed.in_force.borrow_and_update();
        self.settings = in_force.ami.clone();
        if let Some(login) = (renewed.login)(&in_force) {
            (self.link.username, self.link.secret) = (login.username, login.secret);
        }
        let (link, ami) = (&mut self.link, &self.settings);
        (link.ping_interval, link.ping_timeout) = (ami.ping_interval, ami.ping_timeout);
        (link.login_timeout, link.action_timeout) = (ami.login_timeout, ami.action_timeout);
    }

    /// Waits, and meanwhile says of every action that it was not sent.
    async fn pause(
        &mut self,
        wait: Duration,
        orders: &mut mpsc::Receiver<ToAmi>,
        told: &mpsc::Sender<FromAmi>,
    ) -> Pause {
        let until = self.clock.now().after(wait);
        loop {
            tokio::select! {
                () = self.clock.sleep_until(Some(until)) => return Pause::Over,
                () = Renewed::changed(self.renewed.as_mut()) => return Pause::Renewed,
                order = orders.recv() => match order {
                    Some(ToAmi::Send(tag, _, _)) => {
                        if told.send(FromAmi::Answer(tag, Answer::NotSent(NotSent::Closed))).await.is_err() {
                            return Pause::Stop;
                        }
                    }
                    Some(ToAmi::Logoff) | None => return Pause::Stop,
                },
            }
        }
    }
}

fn no_connection(error: &io::Error) -> FromAmi {
    let silence = if error.kind() == io::ErrorKind::ConnectionRefused {
        Silence::Nobody
    } else if error.kind() == io::ErrorKind::TimedOut {
        Silence::Mute
    } else {
        Silence::Speaks
    };
    let hint = match silence {
        Silence::Nobody => "is Asterisk running, and is manager.conf enabled?",
        Silence::Mute | Silence::Speaks => "check ami.address, ca_file and server_name",
    };
    let reason = format!("no connection to Asterisk: {error}; {hint}");
    // A certificate that does not fit, one that cannot be read, a name that is none.
    let needs_people = matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::Other);
    FromAmi::Closed { silence, reason, needs_people }
}
