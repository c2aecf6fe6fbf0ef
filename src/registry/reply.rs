//! What the scripts reply, taken apart. Owns the words that stand in replies. Must never know what was asked.

use std::time::Duration;

use redis::{FromRedisValue, ScriptInvocation, Value, from_redis_value_ref};

use super::client::Connector;
use super::{Order, RegistryError};
use crate::ids::SessionId;
use crate::node::session::{Class, Login};
use crate::node::{BookedState, Duty};

/// Reads the tag of a reply that may say that this generation is not, or no longer, the node's.
pub(super) fn fence(tag: &str) -> Result<(), RegistryError> {
    match tag {
        "fenced" => Err(RegistryError::Fenced),
        "unknown" => Err(RegistryError::Forgotten),
        _ => Ok(()),
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
pub(super) fn duty(drain: Option<u8>) -> Duty {
    if drain == Some(1) { Duty::Draining } else { Duty::Serving }
}

pub(super) fn booked(state: &str) -> BookedState {
    match state {
        "placed" => BookedState::Placed,
        "ringing" => BookedState::Ringing,
        "live" => BookedState::Live,
        "unwanted" => BookedState::Unwanted,
        _ => BookedState::Gone,
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
        "moved" => Order::Moved(session, text(2).to_owned()),
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
