//! Reports of a node's phones: which can ring, and the details of their contacts. Owns how a long list is split into
//! several calls. Must never judge a phone: the roster does.

use std::collections::BTreeMap;

use redis::Script;

use super::Registry;
use super::client::Connector;
use super::error::RegistryError;
use super::reply::fence;
use crate::ids::{Generation, NodeName};
use crate::node::roster::{PhoneChanges, PhoneState};

/// The most phones in one call. Twenty thousand in one keep Redis, which all nodes share, from everything else for so
/// long that the calls of the others run into their limit; a thousand take it less than a millisecond.
const PART: usize = 1_000;

/// How a call continues what was told before, as the scripts write it.
#[derive(Debug, Clone, Copy)]
enum Mode {
    /// More of the whole list follows.
    Part,
    /// The end of the whole list.
    Replace,
    /// Some are different now.
    Change,
}

impl Mode {
    fn as_str(self) -> &'static str {
        match self {
            Self::Part => "part",
            Self::Replace => "replace",
            Self::Change => "change",
        }
    }
}

/// The node that reports, and the table.
struct Telling<'a> {
    script: &'a Script,
    namespace: &'a str,
    node: &'a NodeName,
    generation: Generation,
    /// How many there are in all.
    total: usize,
}

impl Telling<'_> {
    async fn call(
        &self,
        connector: &mut Connector,
        mode: Mode,
        number: u64,
        pairs: &[(&str, &str)],
    ) -> Result<(), RegistryError> {
        let (tag,): (String,) = connector
            .run(self.script, |call| {
                call.key(self.namespace).arg(self.node.as_str()).arg(self.generation.to_string());
                call.arg(mode.as_str()).arg(number).arg(self.total).arg(pairs);
            })
            .await?;
        fence(&tag)
    }

    /// The whole list. Nobody sees a part of it: the last call puts it in the place of the one before.
    async fn whole(&self, connector: &mut Connector, number: u64, pairs: &[(&str, &str)]) -> Result<(), RegistryError> {
        let mut rest = pairs;
        while let Some((part, more)) = rest.split_at_checked(PART).filter(|(_, more)| !more.is_empty()) {
            self.call(connector, Mode::Part, number, part).await?;
            rest = more;
        }
        self.call(connector, Mode::Replace, number, rest).await
    }
}

impl Registry {
    /// Writes which phones can ring.
    ///
    /// # Errors
    /// Redis unavailable; [`RegistryError::Fenced`]; [`RegistryError::Forgotten`].
    pub async fn phones(
        &mut self,
        node: &NodeName,
        generation: Generation,
        changes: &PhoneChanges,
    ) -> Result<(), RegistryError> {
        // Of two words about one phone the later one holds.
        let mut phones: BTreeMap<&str, &str> =
            changes.phones.iter().map(|(extension, state)| (extension.as_str(), state.as_str())).collect();
        if changes.replace {
            phones.retain(|_, state| *state != PhoneState::Unknown.as_str());
        }
        let pairs: Vec<_> = phones.into_iter().collect();
        let (script, namespace) = (&self.scripts.phones, self.namespace.as_str());
        let telling = Telling { script, namespace, node, generation, total: pairs.len() };
        if changes.replace {
            // Also if this fails: it may be carried out, and even after the next one.
            self.told += 1;
            return telling.whole(&mut self.connector, self.told, &pairs).await;
        }
        for part in pairs.chunks(PART) {
            self.told += 1;
            telling.call(&mut self.connector, Mode::Change, self.told, part).await?;
        }
        Ok(())
    }

    /// Replaces the contact details: extension and a JSON object each.
    ///
    /// # Errors
    /// Redis unavailable; [`RegistryError::Fenced`]; [`RegistryError::Forgotten`].
    pub async fn contacts(
        &mut self,
        node: &NodeName,
        generation: Generation,
        contacts: &[(String, String)],
    ) -> Result<(), RegistryError> {
        let case = self.placement.case;
        let pairs: BTreeMap<_, &str> =
            contacts.iter().map(|(x, details)| (case.one_spelling(x), details.as_str())).collect();
        let pairs: Vec<_> = pairs.iter().map(|(x, details)| (x.as_ref(), *details)).collect();
        let (script, namespace) = (&self.scripts.contacts, self.namespace.as_str());
        let telling = Telling { script, namespace, node, generation, total: pairs.len() };
        self.told += 1;
        telling.whole(&mut self.connector, self.told, &pairs).await
    }
}
