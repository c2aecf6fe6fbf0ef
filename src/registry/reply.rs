//! What the scripts reply, taken apart. Owns the words that stand in replies. Must never know what was asked.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use redis::{FromRedisValue, ScriptInvocation, Value, from_redis_value_ref};

use super::client::Connector;
use super::reasons::EndReason;
use super::{Order, RegistryError, Rejoined};
use crate::ids::SessionId;
use crate::node::session::{Class, Login};
use crate::node::{AdminState, RecordedState};

/// Reads the tag of a reply that may say that this generation is not, or no longer, the node's.
pub(super) fn fence(tag: &str) -> Result<(), RegistryError> {
    match tag {
        "fenced" => Err(RegistryError::Fenced),
        "superseded" => Err(RegistryError::Superseded),
        "unknown" => Err(RegistryError::Forgotten),
        _ => Ok(()),
    }
}

/// The number of the next report, adoption or change of limits. One count for the process: whatever a daemon says later has
/// a higher one (`scripts/lib/fencing.lua`).
pub(super) fn next_write() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    LAST.fetch_add(1, Ordering::Relaxed) + 1
}

/// Where a session went whose node could not ring it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlacedAgain {
    /// Another node has the order.
    On(String),
    /// It is placed again when the nodes have reported.
    Waiting,
    /// No node or no try is left, or its agent was logged out.
    Failed,
}

impl PlacedAgain {
    /// Reads the words of a script.
    pub fn parse(result: &str) -> Option<Self> {
        match result {
            "waiting" => Some(Self::Waiting),
            "failed" => Some(Self::Failed),
            _ => result.strip_prefix("placed ").map(|node| Self::On(node.to_owned())),
        }
    }
}

impl fmt::Display for PlacedAgain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::On(node) => write!(f, "placed {node}"),
            Self::Waiting => f.write_str("waiting"),
            Self::Failed => f.write_str("failed"),
        }
    }
}

/// What Redis made of an outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reported {
    /// It is written.
    Done,
    /// Redis has no such open session on this node.
    Gone,
    /// The session was placed again, or could not be.
    PlacedAgain(PlacedAgain),
    /// It was lost with its node, and its agent is rung from another one, or cannot be.
    Rejoined(Rejoined),
}

impl Reported {
    pub(super) fn parse(result: &str) -> Option<Self> {
        match result {
            "done" => Some(Self::Done),
            "gone" => Some(Self::Gone),
            _ => PlacedAgain::parse(result)
                .map(Self::PlacedAgain)
                .or_else(|| Rejoined::parse(result).map(Self::Rejoined)),
        }
    }
}

impl fmt::Display for Reported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("done"),
            Self::Gone => f.write_str("gone"),
            Self::PlacedAgain(result) => result.fmt(f),
            Self::Rejoined(result) => result.fmt(f),
        }
    }
}

/// A session of another node that a heartbeat settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reaped {
    /// The session.
    pub session: String,
    /// Where it was.
    pub node: String,
    /// What became of it.
    pub result: ReapResult,
}

/// What a heartbeat made of a session of another node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReapResult {
    /// It is over.
    Ended(EndReason),
    /// Another node has the order.
    Placed(String),
    /// It is placed again when the nodes have reported.
    Waiting,
    /// Its agent is rung from another node, or cannot be.
    Rejoined(Rejoined),
}

impl ReapResult {
    pub(super) fn parse(result: &str) -> Self {
        match (PlacedAgain::parse(result), Rejoined::parse(result)) {
            (Some(PlacedAgain::On(node)), _) => Self::Placed(node),
            (Some(PlacedAgain::Waiting), _) => Self::Waiting,
            (None, Some(rejoined)) => Self::Rejoined(rejoined),
            (Some(PlacedAgain::Failed) | None, _) => Self::Ended(result.into()),
        }
    }
}

impl fmt::Display for ReapResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended(reason) => reason.fmt(f),
            Self::Placed(node) => write!(f, "placed {node}"),
            Self::Waiting => f.write_str("waiting"),
            Self::Rejoined(result) => result.fmt(f),
        }
    }
}

/// An order as it was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// The order.
    pub order: Order,
    /// How long it had waited, if it is one to ring.
    pub waited: Duration,
}

/// What waits in a queue: messages that anybody may take now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Backlog {
    /// How many, up to a thousand.
    pub depth: u32,
    /// How long the oldest of them has been there to take.
    pub oldest: Duration,
}

/// A reply of a tag and more parts, which a refusal leaves out.
pub(super) struct Tagged {
    pub(super) tag: String,
    parts: Vec<Value>,
}

impl Tagged {
    pub(super) async fn of(
        connector: &mut Connector,
        script: &redis::Script,
        build: impl Fn(&mut ScriptInvocation<'_>),
    ) -> Result<Self, RegistryError> {
        let mut parts: Vec<Value> = connector.run(script, build).await?;
        let rest = parts.split_off(parts.len().min(1));
        let tag = parts.first().map_or(Ok(String::new()), from_redis_value_ref);
        Ok(Self { tag: tag.map_err(|error| connector.script_error(error.to_string()))?, parts: rest })
    }

    pub(super) fn part<T: FromRedisValue>(&self, connector: &Connector, at: usize) -> Result<Option<T>, RegistryError> {
        let part = self.parts.get(at).map(from_redis_value_ref).transpose();
        part.map_err(|error| connector.script_error(error.to_string()))
    }
}

impl Tagged {
    /// A queue's depth and the age of its oldest message in ms.
    pub(super) fn backlog(&self, connector: &Connector, at: usize) -> Result<Backlog, RegistryError> {
        let (depth, oldest_ms) = self.part::<(u32, u64)>(connector, at)?.unwrap_or_default();
        Ok(Backlog { depth, oldest: Duration::from_millis(oldest_ms) })
    }
}

/// A reply of a tag and one more part, which a refusal leaves out.
pub(super) async fn tagged2<A: FromRedisValue>(
    connector: &mut Connector,
    script: &redis::Script,
    build: impl Fn(&mut ScriptInvocation<'_>),
) -> Result<(String, Option<A>), RegistryError> {
    let reply = Tagged::of(connector, script, build).await?;
    let part = reply.part(connector, 0)?;
    Ok((reply.tag, part))
}

/// The flag as the scripts write it.
pub(super) fn admin_state(drain: Option<u8>) -> AdminState {
    if drain == Some(1) { AdminState::Drain } else { AdminState::Ready }
}

pub(super) fn recorded_state(state: &str) -> RecordedState {
    match state {
        "placed" => RecordedState::Placed,
        "ringing" => RecordedState::Ringing,
        "live" => RecordedState::Live,
        "hangup-requested" => RecordedState::HangupRequested,
        _ => RecordedState::Gone,
    }
}

pub(super) fn taken(row: &[String]) -> Taken {
    let waited = row.get(8).and_then(|ms| ms.parse().ok()).map(Duration::from_millis).unwrap_or_default();
    Taken { order: order(row), waited }
}

fn order(row: &[String]) -> Order {
    let text = |at: usize| row.get(at).map(String::as_str).unwrap_or_default();
    let stale = || Order::Stale(text(1).to_owned());
    let Ok(session) = text(1).parse::<SessionId>() else { return stale() };
    match text(0) {
        "ring" => login(session, row).map_or_else(stale, Order::Ring),
        "hangup" => Order::HangUp(session),
        "moved" => PlacedAgain::parse(text(2)).map_or_else(stale, |result| Order::Moved(session, result)),
        "expired" => Order::Expired(session),
        _ => stale(),
    }
}

fn login(session: SessionId, row: &[String]) -> Option<Login> {
    let campaign = row.get(6)?;
    Some(Login {
        session,
        attempt: row.get(2)?.parse().ok()?,
        alias: row.get(3)?.parse().ok()?,
        extension: row.get(4)?.parse().ok()?,
        agent: row.get(5)?.parse().ok()?,
        campaign: if campaign.is_empty() { None } else { Some(campaign.parse().ok()?) },
        class: if row.get(7)? == "1" { Class::Remote } else { Class::Local },
    })
}
