//! The story: what happened in the cluster, in the order in which Redis saw it. Owns the form of an entry and how the stream
//! is read. Must never write what a script can write in the step that makes it true.

use std::time::Duration;

use redis::ScriptInvocation;
use serde::Serialize;

use super::reply::fence;
use super::{Registry, RegistryError, ms};
use crate::ids::{Generation, NodeName, SessionId};

/// Entries in one reply.
const PAGE: usize = 1_000;

/// One thing that happened. The JSON keys are stable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Its place in the story: Redis's own id, which only grows.
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
    /// The phone.
    pub phone: String,
    /// Why, or more about it.
    pub reason: String,
}

impl Entry {
    fn of((id, fields): (String, Vec<String>)) -> Self {
        let at = Place::time_of(&id);
        let mut entry = Self {
            id,
            at,
            event: String::new(),
            node: String::new(),
            session: String::new(),
            alias: String::new(),
            agent: String::new(),
            phone: String::new(),
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
                "phone" => entry.phone = value,
                "reason" => entry.reason = value,
                _ => {}
            }
        }
        entry
    }
}

/// A place between two entries: what was read last. It holds in any server that has the story, also after a failover.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place(String);

impl Place {
    /// Before everything.
    pub fn start() -> Self {
        Self("0-0".to_owned())
    }

    /// Before everything that happened at this time (ms since 1970, on Redis's clock) or later.
    pub fn at(time: u64) -> Self {
        time.checked_sub(1).map_or_else(Self::start, |before| Self(format!("{before}-{}", u64::MAX)))
    }

    fn time_of(id: &str) -> u64 {
        id.split('-').next().and_then(|time| time.parse().ok()).unwrap_or(0)
    }
}

/// What a daemon tells that no script can know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
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
    /// Redis out of use: ask again, nothing is lost or repeated.
    pub async fn story(&mut self, place: &mut Place, wait: Option<Duration>) -> Result<Vec<Entry>, RegistryError> {
        let mut command = redis::cmd("XREAD");
        command.arg("COUNT").arg(PAGE);
        if let Some(wait) = wait {
            // Zero would be for ever; longer than the limit of an answer would look like a dead server.
            let most = self.patience / 2;
            command.arg("BLOCK").arg(ms(wait.min(most)).max(1));
        }
        command.arg("STREAMS").arg(format!("{}:story", self.namespace)).arg(&place.0);
        let page: Page = self.connector.command(&command).await?;
        let entries: Vec<Entry> = page.into_iter().flatten().flat_map(|(_, entries)| entries).map(Entry::of).collect();
        if let Some(last) = entries.last() {
            place.0.clone_from(&last.id);
        }
        Ok(entries)
    }

    /// Why the story could not be written when the node was registered; said once.
    pub fn take_mute(&mut self) -> Option<String> {
        self.mute.take()
    }

    /// Writes what only the daemon knows. Each telling has a number of its own, so that it may be said again.
    ///
    /// # Errors
    /// Redis out of use; [`RegistryError::Fenced`]; [`RegistryError::Forgotten`].
    pub async fn note(
        &mut self,
        node: &NodeName,
        generation: Generation,
        number: u64,
        told: &[Told],
    ) -> Result<(), RegistryError> {
        let build = |call: &mut ScriptInvocation<'_>| {
            call.key(&self.namespace).arg(node.as_str()).arg(generation.to_string()).arg(number);
            for Told { event, session, reason } in told {
                call.arg(event).arg(session.map(|id| id.to_string()).unwrap_or_default()).arg(reason);
            }
        };
        let (tag,): (String,) = self.connector.run(&self.scripts.note, build).await?;
        fence(&tag)
    }
}
