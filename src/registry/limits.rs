//! What a node says of itself while its daemon runs: weight, caps and addresses, and why it is not in sync. Owns those calls, and the
//! ring timeout that several calls need. Must never read settings itself.

use std::time::Duration;

use redis::ScriptInvocation;

use super::reply::{fence, next_write};
use super::{Registry, RegistryError, campaigns_of, cap_of, text_of};
use crate::config::NodeSettings;
use crate::ids::{Generation, NodeName};

impl Registry {
    /// Says what the node takes from now on, and where it is reached.
    ///
    /// # Errors
    /// Redis unavailable; [`RegistryError::Fenced`]; [`RegistryError::Forgotten`].
    pub async fn limits(&mut self, node: &NodeSettings, generation: Generation) -> Result<(), RegistryError> {
        let (campaigns, cap) = (campaigns_of(node), cap_of(node));
        let number = next_write();
        let build = |call: &mut ScriptInvocation<'_>| {
            call.key(&self.namespace).arg(node.name.as_str()).arg(generation.to_string());
            call.arg(number)
                .arg("weight")
                .arg(node.weight)
                .arg("max_agents")
                .arg(&cap)
                .arg("campaigns")
                .arg(&campaigns)
                .arg("sip")
                .arg(text_of(node.sip.as_ref()))
                .arg("address")
                .arg(text_of(node.address.as_ref()));
        };
        let (tag,): (String,) = self.connector.run(&self.scripts.limits, build).await?;
        fence(&tag)
    }

    /// Says why the node is not in sync with its Asterisk; nothing if it is.
    ///
    /// # Errors
    /// Redis unavailable; [`RegistryError::Fenced`]; [`RegistryError::Forgotten`].
    pub async fn report_reason(
        &mut self,
        node: &NodeName,
        generation: Generation,
        reason: &str,
    ) -> Result<(), RegistryError> {
        let number = next_write();
        let build = |call: &mut ScriptInvocation<'_>| {
            call.key(&self.namespace).arg(node.as_str()).arg(generation.to_string());
            call.arg(number).arg("reason").arg(reason);
        };
        let (tag,): (String,) = self.connector.run(&self.scripts.limits, build).await?;
        fence(&tag)
    }

    /// How long phones ring from now on: orders stay hidden longer than that, and no login outlives all its tries.
    pub fn ring_for(&mut self, timeout: Duration) {
        self.ring_timeout = timeout;
    }
}
