//! Who waits on a node for his turn to ring. Owns that one call, and how a line is written. Must never keep one: the node
//! tells it anew.

use redis::ScriptInvocation;

use super::reply::fence;
use super::{Registry, RegistryError};
use crate::ids::{Generation, NodeName, SessionId};

/// What it costs Redis that somebody comes into a line or leaves it, as a script counts its work.
const WORK_A_CHANGE: usize = 12;

impl Registry {
    /// Says who waits, in order.
    ///
    /// # Errors
    /// Redis out of use; [`RegistryError::Fenced`]; [`RegistryError::Forgotten`].
    pub async fn line(
        &mut self,
        node: &NodeName,
        generation: Generation,
        waiting: &[SessionId],
    ) -> Result<(), RegistryError> {
        let line: String = waiting.iter().map(|id| format!("{id} ")).collect();
        let most = self.work_most.div_ceil(WORK_A_CHANGE);
        let build = |call: &mut ScriptInvocation<'_>| {
            call.key(&self.namespace).arg(node.as_str()).arg(generation.to_string()).arg(&line).arg(most);
        };
        loop {
            let (tag,): (String,) = self.connector.run(&self.scripts.line, build).await?;
            fence(&tag)?;
            if tag != "more" {
                return Ok(());
            }
        }
    }
}
