//! The phones that a node leaves out, as its state shows them. Owns their form in Redis. Must never judge a phone.

use redis::ScriptInvocation;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::reply::{fence, next_write};
use super::states::Parsed;
use super::{Registry, RegistryError};
use crate::ids::{Generation, NodeName};
use crate::node::left_out::{Group, Why};

/// The phones of one node that are left out for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LeftOutRow {
    /// Why.
    #[schema(value_type = String)]
    pub reason: Parsed<Why>,
    /// How many.
    pub phones: usize,
    /// A few of them, escaped.
    pub examples: Vec<String>,
}

impl From<&Group> for LeftOutRow {
    fn from(group: &Group) -> Self {
        Self { reason: Parsed::Known(group.reason), phones: group.count, examples: group.examples.clone() }
    }
}

impl Registry {
    /// Says which phones are left out.
    ///
    /// # Errors
    /// Redis unavailable; [`RegistryError::Fenced`]; [`RegistryError::Forgotten`].
    pub async fn left_out(
        &mut self,
        node: &NodeName,
        generation: Generation,
        groups: &[Group],
    ) -> Result<(), RegistryError> {
        let rows: Vec<LeftOutRow> = groups.iter().map(LeftOutRow::from).collect();
        // Words and numbers always serialise.
        let text = serde_json::to_string(&rows).unwrap_or_default();
        let number = next_write();
        let build = |call: &mut ScriptInvocation<'_>| {
            call.key(&self.namespace).arg(node.as_str()).arg(generation.to_string());
            call.arg(number).arg("left_out").arg(&text);
        };
        let (tag,): (String,) = self.connector.run(&self.scripts.limits, build).await?;
        fence(&tag)
    }
}
