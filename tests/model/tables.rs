//! The tables beside the sessions, in both worlds: phones, contact details, explicit aliases. Owns the pairing of those
//! calls. Must never know what they are used for.

use std::collections::BTreeMap;

use evenring::node::roster::PhoneChanges;

use super::op::Voice;
use super::run::{Checked, Pair, refusal, same};
use super::words::phone_state;
use crate::redis_fixture::id;

impl Pair<'_> {
    pub(super) async fn phones(&mut self, voice: Voice, replace: bool, phones: &[(&str, &str)]) -> Checked {
        let list = phones.iter().map(|(extension, word)| (id(extension), phone_state(word))).collect();
        let changes = PhoneChanges { replace, phones: list };
        let generation = self.generation(voice);
        let real = refusal(self.cluster.registry.phones(&id(voice.node), generation, &changes).await)?;
        if phones.is_empty() && !replace {
            // Nothing to say: Redis is not asked, whoever it is.
            return same("phones", real, Ok(()));
        }
        let fence = self.fence(voice);
        if fence.is_ok() {
            let known = self.world.phones.entry(voice.node.to_owned()).or_default();
            if replace {
                known.clear();
            }
            for (extension, word) in phones {
                known.insert((*extension).to_owned(), (*word).to_owned());
                known.retain(|_, word| word != "unknown");
            }
        }
        same("phones", real, fence)
    }

    pub(super) async fn set_alias(&mut self, alias: &str, places: &[(&str, &str)]) -> Checked {
        let list: Vec<_> = places.iter().map(|(extension, node)| (id(extension), id(node))).collect();
        self.cluster.registry.set_aliases([(&id(alias), list)]).await.map_err(|e| e.to_string())?;
        let list = places.iter().map(|(extension, node)| ((*extension).to_owned(), (*node).to_owned()));
        self.world.aliases.insert(alias.to_owned(), list.collect());
        Ok(())
    }

    pub(super) async fn remove_alias(&mut self, alias: &str) -> Checked {
        let real = self.cluster.registry.remove_aliases([alias]).await.map_err(|e| e.to_string())?;
        same("remove alias", real, usize::from(self.world.aliases.remove(alias).is_some()))
    }

    pub(super) async fn contacts(&mut self, voice: Voice, contacts: &[(&str, &str)]) -> Checked {
        let list: Vec<_> = contacts.iter().map(|(extension, json)| ((*extension).into(), (*json).into())).collect();
        let generation = self.generation(voice);
        let real = refusal(self.cluster.registry.contacts(&id(voice.node), generation, &list).await)?;
        let fence = self.fence(voice);
        if fence.is_ok() {
            // The whole list, each time; of two words about one phone the later one holds.
            let list: BTreeMap<_, _> = list.into_iter().collect();
            self.world.contacts.insert(voice.node.to_owned(), list);
        }
        same("contacts", real, fence)
    }
}
