//! The logins that wait on a node because of its pacing. Owns that one call, and how a ring queue is written. Must never
//! keep one: the node reports it.

use redis::ScriptInvocation;

use super::reply::fence;
use super::{Registry, RegistryError};
use crate::ids::{Generation, NodeName, SessionId};

/// Work of one login that joins or leaves a ring queue, as scripts count it.
const WORK_A_CHANGE: usize = 12;

impl Registry {
    /// Says who waits, in order.
    ///
    /// # Errors
    /// Redis unavailable; [`RegistryError::Fenced`]; [`RegistryError::Forgotten`].
    pub async fn report_ring_queue(
        &mut self,
        node: &NodeName,
        generation: Generation,
        waiting: &[SessionId],
    ) -> Result<(), RegistryError> {
        let queue: String = waiting.iter().map(|id| format!("{id} ")).collect();
        let most = self.work_most.div_ceil(WORK_A_CHANGE);
        let build = |call: &mut ScriptInvocation<'_>| {
            call.key(&self.namespace).arg(node.as_str()).arg(generation.to_string()).arg(&queue).arg(most);
        };
        loop {
            let (tag,): (String,) = self.connector.run(&self.scripts.ring_queue, build).await?;
            fence(&tag)?;
            if tag != "more" {
                return Ok(());
            }
        }
    }
}
