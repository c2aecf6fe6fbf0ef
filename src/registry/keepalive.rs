//! The runs of the operators' keepalive command: said here, so that `evenring status` and the next life of the daemon know of
//! them. Owns those two calls. Must never decide whether it runs: the daemon does.

use std::time::Duration;

use redis::ScriptInvocation;

use super::reply::{Tagged, fence};
use super::{Registry, RegistryError, ms};
use crate::ids::{Generation, NodeName};

impl Registry {
    /// It is to run now, for this reason. `Some`: not before so long, for it has run.
    ///
    /// # Errors
    /// Redis out of use; [`RegistryError::Fenced`]; [`RegistryError::Forgotten`].
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

    /// It has ended so.
    ///
    /// # Errors
    /// Redis out of use; [`RegistryError::Fenced`]; [`RegistryError::Forgotten`].
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
