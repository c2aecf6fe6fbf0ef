//! The runs of the operators' keepalive command, recorded so that `evenring status` and the next generation know them. Owns
//! those two calls. Must never decide whether it runs: the daemon does.

use std::time::Duration;

use redis::ScriptInvocation;

use super::reply::{Tagged, fence};
use super::{Registry, RegistryError, ms};
use crate::ids::{Generation, NodeName};

impl Registry {
    /// Records a run for this reason. `Some` is how long to wait, because it has run recently.
    ///
    /// # Errors
    /// Redis unavailable; [`RegistryError::Fenced`]; [`RegistryError::Forgotten`].
    pub async fn keepalive_begins(
        &mut self,
        node: &NodeName,
        generation: Generation,
        every: Duration,
        why: &str,
    ) -> Result<Option<Duration>, RegistryError> {
        let build = |call: &mut ScriptInvocation<'_>| {
            call.key(&self.namespace)
                .arg(node.as_str())
                .arg(generation.to_string())
                .arg("begin")
                .arg(why)
                .arg(ms(every));
        };
        let reply = Tagged::of(&mut self.connector, &self.scripts.keepalive, build).await?;
        fence(&reply.tag)?;
        Ok(reply.part(&self.connector, 0)?.map(Duration::from_millis))
    }

    /// Records how the run ended.
    ///
    /// # Errors
    /// Redis unavailable; [`RegistryError::Fenced`]; [`RegistryError::Forgotten`].
    pub async fn keepalive_ended(
        &mut self,
        node: &NodeName,
        generation: Generation,
        result: &str,
    ) -> Result<(), RegistryError> {
        let build = |call: &mut ScriptInvocation<'_>| {
            call.key(&self.namespace).arg(node.as_str()).arg(generation.to_string()).arg("end").arg(result);
        };
        let (tag,): (String,) = self.connector.run(&self.scripts.keepalive, build).await?;
        fence(&tag)
    }
}
