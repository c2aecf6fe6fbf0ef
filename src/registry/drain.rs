//! Drain and resume (P10). Owns that one call. Must never decide where an order goes: the script does.

use redis::ScriptInvocation;
use serde::Serialize;
use utoipa::ToSchema;

use super::reply::{PlacedAgain, Tagged, admin_state};
use super::{Registry, RegistryError, ms};
use crate::ids::NodeName;
use crate::node::AdminState;

/// An order that was placed elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Moved {
    /// The session.
    pub session: String,
    /// Where it rings now; `None`: no node could ring it, and it failed.
    pub node: Option<String>,
}

/// The result of draining or resuming a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turned {
    /// What it did before.
    pub before: AdminState,
    /// How many other nodes are in the rotation.
    pub others: usize,
    /// The orders that it had not taken.
    pub moved: Vec<Moved>,
}

impl Registry {
    /// Drains or resumes a node. Returns `None` if there is no such node.
    ///
    /// # Errors
    /// Redis unavailable.
    pub async fn set_admin_state(&mut self, node: &NodeName, to: AdminState) -> Result<Option<Turned>, RegistryError> {
        self.set_admin_state_by(node, to, "").await
    }

    /// The same, with who wants it, for the event; empty: nobody in particular.
    ///
    /// # Errors
    /// Redis unavailable.
    pub async fn set_admin_state_by(
        &mut self,
        node: &NodeName,
        to: AdminState,
        by: &str,
    ) -> Result<Option<Turned>, RegistryError> {
        let drain = match to {
            AdminState::Drain => "1",
            AdminState::Ready => "0",
        };
        let mut turned: Option<Turned> = None;
        loop {
            let (before, others, moved, more) = match self.turn_some(node, drain, by).await? {
                None => return Ok(turned),
                Some(reply) => reply,
            };
            let so_far =
                turned.get_or_insert_with(|| Turned { before: admin_state(Some(before)), others, moved: Vec::new() });
            so_far.others = others;
            so_far.moved.extend(moved.into_iter().map(|(session, result)| {
                let node = match PlacedAgain::parse(&result) {
                    Some(PlacedAgain::On(node)) => Some(node),
                    Some(PlacedAgain::Waiting | PlacedAgain::Failed) | None => None,
                };
                Moved { session, node }
            }));
            if !more {
                return Ok(turned);
            }
        }
    }

    /// One call: what the node did before, how many others are in the rotation, what was moved, and whether more is left.
    async fn turn_some(
        &mut self,
        node: &NodeName,
        drain: &str,
        by: &str,
    ) -> Result<Option<(u8, usize, Vec<(String, String)>, bool)>, RegistryError> {
        let build = |call: &mut ScriptInvocation<'_>| {
            call.key(&self.namespace).arg(node.as_str()).arg(drain);
            call.arg(ms(self.placement.order_expiry)).arg(ms(self.placement.session_keep)).arg(self.work_most).arg(by);
        };
        let reply = Tagged::of(&mut self.connector, &self.scripts.drain, build).await?;
        if reply.tag == "unknown" {
            return Ok(None);
        }
        let before = reply.part(&self.connector, 0)?.unwrap_or(0);
        let others = reply.part(&self.connector, 1)?.unwrap_or(0);
        let moved = reply.part(&self.connector, 2)?.unwrap_or_default();
        Ok(Some((before, others, moved, reply.part(&self.connector, 3)? == Some(1_u8))))
    }

    /// Whether this message of [`Registry::subscribe_orders`] says that the node drains or resumes.
    pub fn is_about_admin_state(message: &redis::Msg) -> bool {
        message.get_payload_bytes() == b"admin-state"
    }
}
