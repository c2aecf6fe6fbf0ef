//! A node fetches its orders, in both worlds. Owns which order must come when. Must never know what a rule says.

use std::collections::BTreeSet;

use evenring::ids::SessionId;
use evenring::registry::{Fetch, Order, RegistryError};

use super::fetch_sequence::{Taken, Taker};
use super::op::{FetchOutcome, Voice};
use super::run::{Checked, Pair, refusal, same};
use super::words::taken;
use super::world::{Chosen, Fault, World};
use crate::redis_fixture::id;

impl Pair<'_> {
    pub(super) async fn fetch(&mut self, voice: Voice, most: usize, outcome: FetchOutcome) -> Checked {
        let generation = self.generation(voice);
        let fetches = self.fetches.entry(generation).or_default();
        let asked = match outcome {
            FetchOutcome::Heard | FetchOutcome::Lost => fetches.ask(),
            FetchOutcome::Late => {
                let Fetch { number, since } = fetches.clone().ask();
                let number = number.saturating_sub(2).max(1);
                Fetch { number, since: since.min(number) }
            }
        };
        let real = self.cluster.registry.fetch_orders(&id(voice.node), generation, asked, most).await;
        if matches!(real, Err(RegistryError::NotNow { .. })) {
            same("a fence", self.fence(voice), Ok(()))?;
            return same("nobody knows the time", true, self.world.is_timeless());
        }
        let real = refusal(real)?;
        if outcome == FetchOutcome::Heard {
            self.fetches.entry(generation).or_default().hear();
        }
        same("take", real.as_ref().map(drop).map_err(|r| *r), self.fence(voice))?;
        let Ok(real) = real else { return Ok(()) };
        same("nobody knows the time", false, self.world.is_timeless())?;
        let real: Vec<Order> = real.into_iter().map(|taken| taken.order).collect();
        self.look().await;
        let generation = generation.to_string();
        let taker = Taker { node: voice.node, generation: &generation, number: asked.number };
        if !self.world.may_take(voice.node, asked.number) {
            return same("a take that comes late", real.len(), 0);
        }
        let real = self.taken_before(real, &taker, asked.since)?;
        let (now, node) = (self.world.now, voice.node);
        let queue = |world: &World| world.queues.get(node).cloned().unwrap_or_default();
        let visible = queue(&self.world).iter().filter(|m| m.visible_at <= now).count();
        let all = real.len();
        same("no more than there are", all <= visible.min(most), true)?;
        let mut last = 0;
        for order in real {
            let (at, hangs_up) = match &order {
                Order::HangUp(at) => (*at, true),
                Order::Ring(login) => (login.session, false),
                Order::Moved(at, _) | Order::Expired(at) => (*at, false),
                Order::Stale(at) => (id(at), false),
            };
            let is_it = |m: &&super::world::Message| {
                m.session == at && (m.kind == super::world::Kind::HangUp) == hangs_up && m.visible_at <= now
            };
            let found = queue(&self.world).iter().filter(is_it).map(|m| m.step).min();
            let step = found.ok_or_else(|| format!("{order:?} was not in the queue of {node}"))?;
            let position = queue(&self.world).iter().position(|m| is_it(&m) && m.step == step).unwrap_or_default();
            let visible_at = queue(&self.world)[position].visible_at;
            same("oldest first", true, visible_at >= last)?;
            last = visible_at;
            let chosen = |id: SessionId| self.look.node_of(&id.to_string());
            let model = self.world.take_one(&taker, position, Chosen::By(&chosen))?;
            if let Taken::Ring(at, ..) = &model {
                self.history.insert(*at, self.world.sessions[at].clone());
            }
            same("an order", taken(order), model)?;
        }
        // What is not there any more went with the session of another.
        let left = queue(&self.world).iter().filter(|m| m.visible_at <= now).count();
        same("the number of orders", all == most || left == 0, true)
    }

    /// What was taken before and may never have been heard of comes first; gives the rest.
    fn taken_before(&mut self, mut real: Vec<Order>, taker: &Taker<'_>, since: u64) -> Result<Vec<Order>, Fault> {
        let mut unheard = match since < taker.number {
            true => self.world.unheard(taker.node, taker.generation, since),
            false => BTreeSet::new(),
        };
        let rest = real.split_off(unheard.len().min(real.len()));
        for order in real {
            let order = taken(order);
            let (Taken::Ring(at, ..) | Taken::Moved(at, _) | Taken::Expired(at) | Taken::Stale(at) | Taken::HangUp(at)) =
                order;
            same("an order delivered again", unheard.remove(&at), true)?;
            let chosen = |id: SessionId| self.look.node_of(&id.to_string());
            let model = self.world.take_again(taker, at, Chosen::By(&chosen))?;
            same("an order delivered again", order, model)?;
        }
        same("orders that nobody heard of", unheard, BTreeSet::new())?;
        Ok(rest)
    }
}
