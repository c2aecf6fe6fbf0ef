//! The figures of a run, as one line of JSON, and whether they are what they must be.
//!
//! Owns the names of the figures and their limits. Must never measure anything.

use std::collections::BTreeMap;

use serde::Serialize;

use super::LOCAL;

/// What was measured. The defaults are those of a run that measured nothing, and are wrong.
#[derive(Debug, Default, Serialize)]
pub struct Facts {
    /// Processes of `evenring login` that succeeded, of the first thirty.
    pub logins: usize,
    /// Live local sessions, as `sessions --json` has them.
    pub live: usize,
    /// Local agents, as `status --json` has them.
    pub per_node: BTreeMap<String, u64>,
    /// The most agents on a node, less the fewest.
    pub spread: u64,
    /// Calls that came in at the phones for those logins.
    pub invites: usize,
    /// From the kill of an Asterisk until Redis no longer says that its node is active.
    pub left_rotation_ms: Option<u64>,
    /// Channels in all Asterisks after everybody has logged out.
    pub channels_left: Option<usize>,
    /// What else was not as promised.
    #[serde(skip)]
    surprises: Vec<String>,
}

impl Facts {
    /// Keeps what is not as promised.
    pub(super) fn note(&mut self, surprises: impl IntoIterator<Item = String>) {
        self.surprises.extend(surprises);
    }

    /// One JSON object.
    pub fn line(&self) -> String {
        serde_json::to_string(self).expect("figures are always JSON")
    }

    /// All that is wrong; nothing if the demo shows what it promises.
    pub fn wrong(&self) -> Vec<String> {
        let all = LOCAL as usize;
        let counts = [
            ("logins", Some(self.logins), all),
            ("live", Some(self.live), all),
            ("invites", Some(self.invites), all),
            ("channels_left", self.channels_left, 0),
        ];
        let text = |figure: Option<usize>| figure.map_or("not known".to_owned(), |figure| figure.to_string());
        let unequal = counts.into_iter().filter(|(_, found, must)| *found != Some(*must));
        let mut wrong: Vec<String> =
            unequal.map(|(name, found, must)| format!("{name} is {}, and must be {must}", text(found))).collect();
        if self.per_node.len() != 3 || self.spread > 1 {
            wrong.push(format!("the agents are {:?}: on three nodes they must differ by at most 1", self.per_node));
        }
        if self.left_rotation_ms.is_none() {
            wrong.push("the node of the killed Asterisk has not left the rotation".to_owned());
        }
        wrong.extend(self.surprises.iter().cloned());
        wrong
    }
}

/// The most agents on a node, less the fewest.
pub(super) fn spread(agents: &BTreeMap<String, u64>) -> u64 {
    agents.values().max().unwrap_or(&0) - agents.values().min().unwrap_or(&0)
}
