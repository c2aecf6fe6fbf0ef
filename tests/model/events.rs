//! The event stream in both worlds: every change of a session has exactly one entry, in the order of the changes, and so have the
//! changes of nodes. Owns that comparison. Must never know how an entry lies in Redis.

use std::collections::BTreeMap;

use evenring::registry::events::Entry;

use super::run::{Checked, Pair, same};
use super::world::World;

impl World {
    /// What a heartbeat says: of its own node, and of those whose lease has ended.
    pub(super) fn beaten(&mut self, node: &str, changed: bool, lost: bool) {
        if changed || lost {
            let event = if self.nodes[node].state == "active" { "node-up" } else { "node-down" };
            self.say_node(event, node, if lost { "its lease had expired" } else { "" });
        }
        let unnoticed = |n: &super::world::Node| self.is_dead(n) && n.state != "stopped" && !n.lost;
        let gone = self.nodes.iter().filter(|(name, n)| *name != node && unnoticed(n));
        let gone: Vec<String> = gone.map(|(name, _)| name.clone()).collect();
        for name in gone {
            self.nodes.get_mut(&name).expect("a node").lost = true;
            self.say_node("node-lease-expired", &name, "no heartbeat for a lease");
        }
    }
}

fn told(entry: Entry) -> (String, String) {
    let Entry { event, node, session, alias, agent, extension: phone, reason, .. } = entry;
    let whose = if session.is_empty() && event != "refused" { node.clone() } else { session };
    (whose, [event, node, alias, agent, phone, reason].join(" ").trim_end().to_owned())
}

/// By whose they are: in which order two sessions of one step change is nobody's business.
fn sorted(entries: impl IntoIterator<Item = (String, String)>) -> BTreeMap<String, Vec<String>> {
    let mut all = BTreeMap::<String, Vec<String>>::new();
    for (whose, text) in entries {
        all.entry(whose).or_default().push(text);
    }
    all
}

impl Pair<'_> {
    /// What was written since the last look. Each login that was refused or has failed is counted once.
    pub(super) async fn events(&mut self) -> Checked {
        let entries = self.cluster.registry.events(&mut self.read, None).await.map_err(|e| e.to_string())?;
        for entry in entries.iter().filter(|entry| ["refused", "failed"].contains(&entry.event.as_str())) {
            let reason = entry.reason.split(':').next().unwrap_or_default();
            let reason = reason.trim_end_matches(|c: char| c.is_ascii_digit() || c == '-');
            *self.counted.entry(format!("{} {reason}", entry.event)).or_default() += 1;
        }
        let counts: BTreeMap<String, u64> = self.cluster.run(&["HGETALL", "NS:index:counts"]).await;
        same("the counts of logins", counts, self.counted.clone())?;
        let model = sorted(std::mem::take(&mut self.world.events));
        same("the event stream", sorted(entries.into_iter().map(told)), model)
    }
}
