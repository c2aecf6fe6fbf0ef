//! The event stream: what happened in the cluster, in the order in which Redis saw it. Owns the form of an entry and how
//! the stream is read. Must never write an event that a script can write in the same step as the change.

use std::str::FromStr;
use std::time::Duration;

use redis::ScriptInvocation;
use serde::Serialize;
use utoipa::ToSchema;

use super::reply::fence;
use super::{Registry, RegistryError, ms};
use crate::ids::{Generation, NodeName, SessionId};
use crate::node::keyword::keywords;

keywords! {
    /// What an event is. A node of another version may write others.
    EventKind {
        /// The new state of a session.
        Placed = "placed",
        /// The new state of a session.
        Held = "held",
        /// The new state of a session.
        Queued = "queued",
        /// The new state of a session.
        Ringing = "ringing",
        /// The new state of a session.
        Live = "live",
        /// The new state of a session.
        Ended = "ended",
        /// The new state of a session.
        Failed = "failed",
        /// A login got no session.
        Refused = "refused",
        /// The node of an agent is asked to hang up.
        Logout = "logout",
        /// The agent of a lost node is rung from another one.
        Rejoin = "rejoin",
        /// No other node can ring the phone of the agent of a lost node.
        Stranded = "stranded",
        /// A daemon has registered.
        NodeStarting = "node-starting",
        /// It is in sync with its Asterisk.
        NodeUp = "node-up",
        /// It no longer is.
        NodeDown = "node-down",
        /// It was stopped properly.
        NodeStopped = "node-stopped",
        /// It sent no heartbeat for a lease.
        NodeLeaseExpired = "node-lease-expired",
        /// Two hosts want its name.
        NameConflict = "name-conflict",
        /// Operators have drained it.
        NodeDrain = "node-drain",
        /// Operators have resumed it.
        NodeResume = "node-resume",
        /// It was forgotten.
        NodeForgotten = "node-forgotten",
        /// The keepalive command runs, or has ended.
        Keepalive = "keepalive",
        /// Redis and an Asterisk disagreed.
        Drift = "drift",
    }
}

/// Entries in one reply.
const PAGE: usize = 1_000;

/// One thing that happened. The JSON keys are stable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Entry {
    /// Its place in the event stream: Redis's own id, which only grows.
    pub id: String,
    /// When: ms since 1970, on Redis's clock.
    pub at: u64,
    /// What.
    pub event: String,
    /// Where; empty for a login that was refused.
    pub node: String,
    /// The session; empty if it is about a node.
    pub session: String,
    /// What the agent logged in with.
    pub alias: String,
    /// The person.
    pub agent: String,
    /// The phone that rings.
    pub extension: String,
    /// Why, or more about it.
    pub reason: String,
}

impl Entry {
    fn of((id, fields): (String, Vec<String>)) -> Self {
        let at = Cursor::time_of(&id);
        let mut entry = Self {
            id,
            at,
            event: String::new(),
            node: String::new(),
            session: String::new(),
            alias: String::new(),
            agent: String::new(),
            extension: String::new(),
            reason: String::new(),
        };
        let mut fields = fields.into_iter();
        while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
            match name.as_str() {
                "event" => entry.event = value,
                "node" => entry.node = value,
                "session" => entry.session = value,
                "alias" => entry.alias = value,
                "agent" => entry.agent = value,
                "extension" => entry.extension = value,
                "reason" => entry.reason = value,
                _ => {}
            }
        }
        entry
    }
}

/// A place between two entries: what was read last. It holds in any server that has the event stream, also after a failover.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor(String);

impl Cursor {
    /// Before everything.
    pub fn start() -> Self {
        Self("0-0".to_owned())
    }

    /// Before everything that happened at this time (ms since 1970, on Redis's clock) or later.
    pub fn at(time: u64) -> Self {
        time.checked_sub(1).map_or_else(Self::start, |before| Self(format!("{before}-{}", u64::MAX)))
    }

    /// When the entry before it happened, and which of that ms it was: places compare as these do.
    pub fn key(&self) -> (u64, u64) {
        let (time, number) = self.0.split_once('-').unwrap_or((&self.0, "0"));
        (time.parse().unwrap_or(0), number.parse().unwrap_or(0))
    }

    fn time_of(id: &str) -> u64 {
        id.split('-').next().and_then(|time| time.parse().ok()).unwrap_or(0)
    }
}

impl FromStr for Cursor {
    type Err = String;

    /// Reads the id of an entry, `1700000000000-0`, for a place behind it; or a time alone.
    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| -> Option<u64> {
            let plain = !text.is_empty() && text.len() <= 20 && text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse().ok().filter(|_| plain)
        };
        let (time, count) = text.split_once('-').unwrap_or((text, "0"));
        match (number(time), number(count)) {
            (Some(time), Some(count)) => Ok(Self(format!("{time}-{count}"))),
            (None, _) | (_, None) => Err("the id of an event is two numbers with a dash between them".to_owned()),
        }
    }
}

/// An event that only a daemon knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    /// What.
    pub event: &'static str,
    /// Whose; none: the node's own.
    pub session: Option<SessionId>,
    /// More about it.
    pub reason: String,
}

type Page = Option<Vec<(String, Vec<(String, Vec<String>)>)>>;

impl Registry {
    /// The next entries, and `place` is moved behind them. Without a wait an empty list is the end; with one, nothing has
    /// happened for so long, or for as long as Redis may take for an answer.
    ///
    /// # Errors
    /// Redis unavailable: ask again, nothing is lost or repeated.
    pub async fn events(&mut self, place: &mut Cursor, wait: Option<Duration>) -> Result<Vec<Entry>, RegistryError> {
        let mut command = redis::cmd("XREAD");
        command.arg("COUNT").arg(PAGE);
        if let Some(wait) = wait {
            // Zero would be for ever; longer than the limit of an answer would look like a dead server.
            let most = self.patience / 2;
            command.arg("BLOCK").arg(ms(wait.min(most)).max(1));
        }
        command.arg("STREAMS").arg(format!("{}:events", self.namespace)).arg(&place.0);
        let page: Page = self.connector.command(&command).await?;
        let entries: Vec<Entry> = page.into_iter().flatten().flat_map(|(_, entries)| entries).map(Entry::of).collect();
        if let Some(last) = entries.last() {
            place.0.clone_from(&last.id);
        }
        Ok(entries)
    }

    /// The oldest entry that there is.
    ///
    /// # Errors
    /// Redis unavailable.
    pub async fn oldest_event(&mut self) -> Result<Option<Entry>, RegistryError> {
        let mut command = redis::cmd("XREAD");
        command.arg("COUNT").arg(1).arg("STREAMS").arg(format!("{}:events", self.namespace)).arg(Cursor::start().0);
        let page: Page = self.connector.command(&command).await?;
        Ok(page.into_iter().flatten().flat_map(|(_, entries)| entries).map(Entry::of).next())
    }

    /// Why the event stream could not be written when the node was registered; said once.
    pub fn take_mute(&mut self) -> Option<String> {
        self.mute.take()
    }

    /// Writes events that only the daemon knows. Each call has its own number, so that it can be repeated.
    ///
    /// # Errors
    /// Redis unavailable; [`RegistryError::Fenced`]; [`RegistryError::Forgotten`].
    pub async fn append_events(
        &mut self,
        node: &NodeName,
        generation: Generation,
        number: u64,
        told: &[NewEvent],
    ) -> Result<(), RegistryError> {
        let build = |call: &mut ScriptInvocation<'_>| {
            call.key(&self.namespace).arg(node.as_str()).arg(generation.to_string()).arg(number);
            for NewEvent { event, session, reason } in told {
                call.arg(event).arg(session.map(|id| id.to_string()).unwrap_or_default()).arg(reason);
            }
        };
        let (tag,): (String,) = self.connector.run(&self.scripts.append_events, build).await?;
        fence(&tag)
    }
}
