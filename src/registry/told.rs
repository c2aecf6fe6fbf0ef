//! What nodes say of themselves so that they can be compared: settings that must be the same on all of them, their clock, what
//! waits for a restart; and which two hosts want the same name. Owns the form of these in Redis. Must never judge a
//! difference.

use std::collections::BTreeMap;

use redis::ScriptInvocation;
use serde::{Deserialize, Serialize};

use super::reply::fence;
use super::{Registry, RegistryError};
use crate::ids::{Generation, NodeName};

/// What one daemon runs with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ToldSettings {
    /// What must be the same on all nodes: key and value.
    pub shared: BTreeMap<String, String>,
    /// Keys that a reload has changed and that need a restart.
    pub restart: Vec<String>,
}

/// The same as Redis has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ToldRow {
    /// What it said.
    pub settings: ToldSettings,
    /// By how many ms its host's clock is ahead of Redis's.
    pub clock_ahead_ms: i64,
}

/// Two daemons on two hosts that want one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rival {
    /// The name.
    pub node: String,
    /// Who has it.
    pub holder: String,
    /// Who asks for it in vain.
    pub rival: String,
    /// When that one last asked: ms since 1970, on Redis's clock.
    pub at: u64,
}

#[derive(Deserialize)]
struct RivalText {
    holder: String,
    rival: String,
    at: String,
}

impl Registry {
    /// Says what this node runs with, and what time it has.
    ///
    /// # Errors
    /// Redis unavailable; [`RegistryError::Fenced`]; [`RegistryError::Forgotten`].
    pub async fn tell_settings(
        &mut self,
        node: &NodeName,
        generation: Generation,
        told: &ToldSettings,
        wall_ms: u64,
    ) -> Result<(), RegistryError> {
        // Words always serialise.
        let text = serde_json::to_string(told).unwrap_or_default();
        let build = |call: &mut ScriptInvocation<'_>| {
            call.key(&self.namespace).arg(node.as_str()).arg(generation.to_string()).arg(&text).arg(wall_ms);
        };
        let (tag,): (String,) = self.connector.run(&self.scripts.settings, build).await?;
        fence(&tag)
    }

    /// What the nodes have said, by name. What another version wrote and nobody can read is left out.
    ///
    /// # Errors
    /// Redis unavailable.
    pub async fn told_settings(&mut self) -> Result<BTreeMap<String, ToldRow>, RegistryError> {
        let rows = self.hash(&format!("{}:index:settings", self.namespace)).await?;
        let read = |text: String| {
            let (ahead, json) = text.split_once(' ')?;
            Some(ToldRow { settings: serde_json::from_str(json).ok()?, clock_ahead_ms: ahead.parse().ok()? })
        };
        Ok(rows.into_iter().filter_map(|(node, text)| Some((node, read(text)?))).collect())
    }

    /// Who wants a name that somebody else has.
    ///
    /// # Errors
    /// Redis unavailable.
    pub async fn rivals(&mut self) -> Result<Vec<Rival>, RegistryError> {
        let rows = self.hash(&format!("{}:index:rivals", self.namespace)).await?;
        let read = |(node, text): (String, String)| {
            let RivalText { holder, rival, at } = serde_json::from_str(&text).ok()?;
            Some(Rival { node, holder, rival, at: at.parse().ok()? })
        };
        Ok(rows.into_iter().filter_map(read).collect())
    }
}
