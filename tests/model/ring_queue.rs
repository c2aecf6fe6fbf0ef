//! Who waits for their turn, and nodes that are forgotten, in both worlds. Owns the pairing of those calls, and what the places
//! must be. Must never know Redis's keys.

use std::collections::BTreeSet;

use evenring::ids::SessionId;
use evenring::registry::Forgotten;
use evenring::registry::view::{SessionRow, Which};

use super::op::Voice;
use super::run::{Checked, Pair, refusal, same};
use super::world::{Kind, Message, World};
use crate::redis_fixture::id;

impl World {
    /// Orders to ring that a node with a line could take now.
    fn behind(&self, node: &str) -> Vec<&Message> {
        let paces = self.nodes.get(node).is_some_and(|n| !n.line.is_empty());
        let all = self.queues.get(node).into_iter().flatten();
        all.filter(|m| paces && m.kind != Kind::HangUp && m.visible_at <= self.now).collect()
    }

    /// Who comes into the line is queued, who leaves it rings, unless that session is over.
    fn line_up(&mut self, node: &str, waiting: &[SessionId]) {
        let known = self.nodes.get_mut(node).expect("a node");
        let before = std::mem::replace(&mut known.line, waiting.to_vec());
        let rings = |world: &Self, id: &SessionId| {
            world.sessions.get(id).is_some_and(|s| s.state == "ringing" && s.node == node)
        };
        for id in before.iter().filter(|id| !waiting.contains(id)) {
            if rings(self, id) {
                self.say(*id, "ringing", "");
            }
        }
        for (at, id) in waiting.iter().enumerate().filter(|(_, id)| !before.contains(id)) {
            if rings(self, id) {
                self.say(*id, "queued", &format!("position {}", at + 1));
            }
        }
    }

    /// `Err`: why not.
    fn forget(&mut self, node: &str) -> &'static str {
        let sessions = self.open().filter(|(_, s)| s.node == node).count();
        match self.nodes.get(node) {
            None => return "unknown",
            Some(known) if (0..=known.lease).contains(&(known.lease_until - self.now)) || self.awaited(known) => {
                return "alive";
            }
            Some(_) if sessions > 0 => return "busy",
            Some(_) => {}
        }
        self.nodes.remove(node);
        self.phones.remove(node);
        self.contacts.remove(node);
        self.queues.remove(node);
        self.rivals.remove(node);
        self.say_node("node-forgotten", node, "");
        "forgotten"
    }
}

impl Pair<'_> {
    pub(super) async fn line(&mut self, voice: Voice, waiting: &[SessionId]) -> Checked {
        let generation = self.generation(voice);
        let real = refusal(self.in_parts.report_ring_queue(&id(voice.node), generation, waiting).await)?;
        let fence = self.fence(voice);
        if fence.is_ok() {
            self.world.line_up(voice.node, waiting);
        }
        same("line", real, fence)?;
        let rows = self.cluster.registry.sessions(Which::All).await.map_err(|e| e.to_string())?;
        rows.iter().try_for_each(|row| self.place_of(row))?;
        self.places_behind(voice.node, &rows)?;
        let nodes = self.cluster.registry.nodes().await.map_err(|e| e.to_string())?;
        for row in nodes {
            let line = self.world.nodes.get(&row.name).map_or(0, |n| n.line.len());
            same("queued", row.queued, (line + self.world.behind(&row.name).len()) as u64)?;
        }
        Ok(())
    }

    /// Who rings and stands in the line is queued there; who is placed on a node with a line, somewhere behind it.
    fn place_of(&self, row: &SessionRow) -> Checked {
        let at: SessionId = id(&row.session);
        let Some(s) = self.world.sessions.get(&at) else { return Ok(()) };
        let line = self.world.nodes.get(&s.node).map_or(&[][..], |n| &n.line);
        let in_line = line.iter().position(|waiting| *waiting == at).map(|place| place as u64 + 1);
        match s.state {
            "ringing" => same("a place", row.queue_position, in_line)?,
            "placed" => {
                let most = (line.len() + self.world.behind(&s.node).len()) as u64;
                let fits = row.queue_position.is_none_or(|place| place > line.len() as u64 && place <= most);
                same("a place behind", (row.queue_position.is_some(), fits), (!line.is_empty() && !s.waits, true))?;
            }
            _ => same("no place", row.queue_position, None)?,
        }
        same("state", row.state.as_str(), if row.queue_position.is_some() { "queued" } else { s.state })
    }

    /// Everybody has a place of their own, the older order the better one.
    fn places_behind(&self, node: &str, rows: &[SessionRow]) -> Checked {
        let behind = self.world.behind(node);
        let order = |row: &SessionRow| behind.iter().find(|m| m.session == id(&row.session)).map(|m| m.step);
        let placed = |row: &&SessionRow| row.node == node && self.world.sessions[&id(&row.session)].state == "placed";
        let mut places: Vec<_> = rows.iter().filter(placed).map(|row| (row.queue_position, order(row))).collect();
        let own: BTreeSet<_> = places.iter().map(|(place, _)| *place).collect();
        same("own places", places.is_empty() || own.contains(&None) || own.len() == places.len(), true)?;
        places.sort_unstable();
        same("oldest first", true, places.is_sorted_by_key(|(_, step)| *step) || own.contains(&None))
    }

    pub(super) async fn forget(&mut self, node: &str) -> Checked {
        let real = match self.cluster.registry.forget(&id(node)).await.map_err(|e| e.to_string())? {
            Forgotten::Yes => "forgotten",
            Forgotten::Unknown => "unknown",
            Forgotten::Alive(_) => "alive",
            Forgotten::Busy(_) => "busy",
        };
        same("forget", real, self.world.forget(node))
    }
}
