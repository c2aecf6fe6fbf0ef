//! Plain reads and the operators' own tables: aliases, phones. Owns those keys. Must never need a script: each of
//! these is one command, or a read that may be a little old.

use std::collections::{BTreeMap, BTreeSet};

use super::view::{AliasRow, Parsed, PhoneRow};
use super::{Registry, RegistryError};
use crate::ids::{Agent, Alias, Extension, NodeName, SessionId};
use crate::node::roster::PhoneState;

impl Registry {
    /// Redis's clock, in ms since 1970.
    ///
    /// # Errors
    /// Redis unavailable.
    pub async fn now_ms(&mut self) -> Result<u64, RegistryError> {
        let (s, us): (u64, u64) = self.connector.command(&redis::cmd("TIME")).await?;
        Ok(s * 1000 + us / 1000)
    }

    /// The phones that nodes have reported, by extension and node.
    ///
    /// # Errors
    /// Redis unavailable.
    pub async fn phone_list(&mut self, only: Option<&Extension>) -> Result<Vec<PhoneRow>, RegistryError> {
        let ns = self.namespace.clone();
        let only = only.map(|only| self.placement.case.extension(only));
        let mut rows = Vec::new();
        for node in self.nodes().await? {
            if let Some(only) = &only {
                rows.extend(self.phone_on(only, &node.name).await?);
                continue;
            }
            let states: BTreeMap<String, String> = self.hash(&format!("{ns}:phones:{}", node.name)).await?;
            let mut contacts: BTreeMap<String, String> = self.hash(&format!("{ns}:contacts:{}", node.name)).await?;
            for (extension, state) in states {
                let contact = contacts.remove(&extension).and_then(|text| serde_json::from_str(&text).ok());
                rows.push(PhoneRow { extension, node: node.name.clone(), state: state.into(), contact });
            }
        }
        rows.sort_by(|a, b| (&a.extension, &a.node).cmp(&(&b.extension, &b.node)));
        Ok(rows)
    }

    async fn phone_on(&mut self, extension: &Extension, node: &str) -> Result<Option<PhoneRow>, RegistryError> {
        let ns = self.namespace.clone();
        let mut field = async |table: &str| -> Result<Option<String>, RegistryError> {
            let mut command = redis::cmd("HGET");
            command.arg(format!("{ns}:{table}:{node}")).arg(extension.as_str());
            self.connector.command(&command).await
        };
        let Some(state) = field("phones").await? else { return Ok(None) };
        let contact = field("contacts").await?.and_then(|text| serde_json::from_str(&text).ok());
        Ok(Some(PhoneRow { extension: extension.to_string(), node: node.to_owned(), state: state.into(), contact }))
    }

    /// The same as they may be shown: what a node knew that is not in sync with its Asterisk now is no state of a phone.
    ///
    /// # Errors
    /// Redis unavailable.
    pub async fn phones_shown(&mut self, only: Option<&Extension>) -> Result<Vec<PhoneRow>, RegistryError> {
        let mut phones = self.phone_list(only).await?;
        let nodes = self.nodes().await?;
        let in_sync: BTreeSet<&str> =
            nodes.iter().filter(|node| node.state.is_in_sync()).map(|node| node.name.as_str()).collect();
        for phone in phones.iter_mut().filter(|phone| !in_sync.contains(phone.node.as_str())) {
            (phone.state, phone.contact) = (Parsed::Known(PhoneState::Unknown), None);
        }
        Ok(phones)
    }

    /// The open session of an agent.
    ///
    /// # Errors
    /// Redis unavailable.
    pub async fn session_of_agent(&mut self, agent: &Agent) -> Result<Option<SessionId>, RegistryError> {
        let mut command = redis::cmd("HGET");
        command.arg(format!("{}:holders", self.namespace)).arg(format!("agent:{agent}"));
        let id: Option<String> = self.connector.command(&command).await?;
        Ok(id.and_then(|id| id.parse().ok()))
    }

    /// All explicit aliases.
    ///
    /// # Errors
    /// Redis unavailable.
    pub async fn aliases(&mut self) -> Result<Vec<AliasRow>, RegistryError> {
        let key = format!("{}:aliases", self.namespace);
        let table: BTreeMap<String, String> = self.hash(&key).await?;
        let row =
            |(alias, list): (String, String)| AliasRow { alias, phones: list.split(',').map(str::to_owned).collect() };
        Ok(table.into_iter().map(row).collect())
    }

    /// Makes or replaces explicit aliases, one at least, in one step.
    ///
    /// # Errors
    /// Redis unavailable.
    pub async fn set_aliases<'a>(
        &mut self,
        aliases: impl IntoIterator<Item = (&'a Alias, Vec<(Extension, NodeName)>)>,
    ) -> Result<(), RegistryError> {
        let mut command = redis::cmd("HSET");
        command.arg(format!("{}:aliases", self.namespace));
        let case = self.placement.case;
        for (alias, phones) in aliases {
            let phone = |(extension, node): &(Extension, NodeName)| format!("{}@{node}", case.extension(extension));
            let list: Vec<String> = phones.iter().map(phone).collect();
            command.arg(case.one_spelling(alias.as_str()).as_ref()).arg(list.join(","));
        }
        self.connector.command(&command).await
    }

    /// Forgets explicit aliases, one at least, in one step; how many there were. By their text: what is in Redis may be no
    /// name that could be made today.
    ///
    /// # Errors
    /// Redis unavailable.
    pub async fn remove_aliases(&mut self, aliases: impl IntoIterator<Item = &str>) -> Result<usize, RegistryError> {
        let mut command = redis::cmd("HDEL");
        command.arg(format!("{}:aliases", self.namespace));
        for alias in aliases {
            command.arg(alias);
        }
        self.connector.command(&command).await
    }

    pub(super) async fn hash(&mut self, key: &str) -> Result<BTreeMap<String, String>, RegistryError> {
        self.connector.command(redis::cmd("HGETALL").arg(key)).await
    }
}
