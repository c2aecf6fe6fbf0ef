//! Nodes that go in good order, in both worlds: they stop, or drain. Owns the pairing of those calls. Must never know
//! where an order goes.

use evenring::ids::SessionId;
use evenring::node::AdminState;

use super::look::{difference, facts_of};
use super::op::Voice;
use super::run::{Checked, Pair, refusal, same};
use super::words::orders;
use super::world::{Chosen, Fault, World, limits};
use crate::redis_fixture::id;

impl Pair<'_> {
    pub(super) async fn leave(&mut self, voice: Voice) -> Checked {
        let generation = self.generation(voice);
        let real = refusal(self.in_parts.leave(&id(voice.node), generation, &mut self.cluster.beats).await)?;
        let number = self.beaten();
        same("leave", real.as_ref().map(drop).map_err(|r| *r), self.fence(voice))?;
        let Ok(real) = real else { return Ok(()) };
        let stopped = self.world.nodes[voice.node].state == "stopped";
        self.world.stop(voice.node, number, limits::GRACE);
        if !stopped {
            self.world.say_node("node-stopped", voice.node, "");
        }
        let moved = self.move_placed(voice.node, "stopped").await?;
        same("moved", real, moved)
    }

    pub(super) async fn set_admin_state(&mut self, node: &'static str, drain: bool) -> Checked {
        let to = if drain { AdminState::Drain } else { AdminState::Ready };
        let real = self.in_parts.set_admin_state(&id(node), to).await.map_err(|e| e.to_string())?;
        let before = self.world.nodes.get(node).map(|known| known.drain);
        let now = self.world.now;
        let serves = |n: &super::world::Node| n.lease_until >= now && n.state == "active" && !n.drain;
        let others = self.world.nodes.iter().filter(|(name, n)| *name != node && serves(n)).count();
        let model = before.map(|before| (before, others));
        same("turn", real.as_ref().map(|real| (real.before == AdminState::Drain, real.others)), model)?;
        let Some(real) = real else { return Ok(()) };
        let known = self.world.nodes.get_mut(node).expect("a node");
        if std::mem::replace(&mut known.drain, drain) != drain {
            self.world.say_node(if drain { "node-drain" } else { "node-resume" }, node, "");
        }
        let moved = if drain { self.move_placed(node, "draining").await? } else { 0 };
        same("moved", real.moved.len(), moved)
    }

    /// Moves what this node has not taken, as Redis has done; how many.
    async fn move_placed(&mut self, node: &str, why: &str) -> Result<usize, Fault> {
        self.look().await;
        let placed = self.world.open().filter(|(_, s)| s.node == node && s.state == "placed" && !s.waits);
        let placed: Vec<SessionId> = placed.map(|(id, _)| id).collect();
        let facts = self.look.facts(self.zero - self.world.now);
        let mut best: Result<World, Fault> = Err("nothing was moved".into());
        // In which order they are moved is nobody's business, but there must be one that leads to what is there.
        for order in orders(&placed) {
            let mut world = self.world.clone();
            let chosen = |id: SessionId| self.look.node_of(&id.to_string());
            let moved = order.iter().try_for_each(|at| world.place_again(*at, why, Chosen::By(&chosen)).map(drop));
            best = moved.map(|()| world);
            if best.as_ref().is_ok_and(|world| difference(&facts, &facts_of(world)).is_empty()) {
                break;
            }
        }
        self.world = best?;
        Ok(placed.len())
    }
}
