//! Forgetting a dead node. Owns that one call. Must never decide whether it is dead: the script does.

use std::time::Duration;

use redis::ScriptInvocation;

use super::reply::Tagged;
use super::{Registry, RegistryError};
use crate::ids::NodeName;

/// The result of forgetting a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forgotten {
    /// It is gone.
    Yes,
    /// There is no such node.
    Unknown,
    /// It is alive: its lease runs for this long.
    Alive(Duration),
    /// It has this many open sessions, which another node ends first.
    Busy(u64),
}

impl Registry {
    /// Forgets a node whose lease has ended and that has no session.
    ///
    /// # Errors
    /// Redis unavailable.
    pub async fn forget(&mut self, node: &NodeName) -> Result<Forgotten, RegistryError> {
        let build = |call: &mut ScriptInvocation<'_>| {
            call.key(&self.namespace).arg(node.as_str());
        };
        let reply = Tagged::of(&mut self.connector, &self.scripts.forget, build).await?;
        let number = reply.part(&self.connector, 0)?.unwrap_or(0);
        Ok(match reply.tag.as_str() {
            "forgotten" => Forgotten::Yes,
            "alive" => Forgotten::Alive(Duration::from_millis(number)),
            "busy" => Forgotten::Busy(number),
            _ => Forgotten::Unknown,
        })
    }
}
