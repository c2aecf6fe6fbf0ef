//! How a node takes its orders, and takes again what a lost answer took. Owns the numbers of takes in the model. Must never
//! know Redis.

use std::collections::BTreeSet;

use evenring::ids::SessionId;

use super::world::{Chosen, Fault, Kind, Ms, Session, World};

/// Who fetches: a node, one of its generations, and the number of the take.
#[derive(Debug, Clone, Copy)]
pub struct Taker<'a> {
    pub node: &'a str,
    pub generation: &'a str,
    pub number: u64,
}

/// One row of a `take`.
#[derive(Debug, Clone, PartialEq)]
pub enum Taken {
    Ring(SessionId, u32, String),
    HangUp(SessionId),
    Moved(SessionId, String),
    Expired(SessionId),
    Stale(SessionId),
}

impl World {
    /// A take begins: false if a later one was there before it. It takes nothing then.
    pub fn may_take(&mut self, node: &str, number: u64) -> bool {
        let known = self.nodes.get_mut(node).expect("a node");
        let may = number >= known.take;
        known.take = known.take.max(number);
        may
    }

    /// What this generation has taken since that take, and may never have heard of.
    pub fn unheard(&self, node: &str, generation: &str, since: u64) -> BTreeSet<SessionId> {
        let mine = |s: &Session| {
            let is_later = |(by, number): &(String, u64)| by == generation && *number >= since;
            s.node == node && s.state == "ringing" && s.taken.as_ref().is_some_and(is_later)
        };
        self.open()
            .filter(|(id, s)| mine(s) && self.expires(node, *id, s.attempt).is_some())
            .map(|(id, _)| id)
            .collect()
    }

    /// When the session's order expires, while it is in the queue.
    fn expires(&self, node: &str, id: SessionId, attempt: u32) -> Option<Ms> {
        self.queues.get(node)?.iter().filter(|message| message.session == id).find_map(|message| match message.kind {
            Kind::Ring { attempt: its, expires, .. } if its == attempt => Some(expires),
            Kind::Ring { .. } | Kind::HangUp => None,
        })
    }

    /// One of them is delivered again.
    pub fn take_again(&mut self, taker: &Taker<'_>, id: SessionId, chosen: Chosen<'_>) -> Result<Taken, Fault> {
        let s = self.sessions.get_mut(&id).expect("a session");
        if s.hangup_requested {
            let why = s.reason_of_hangup();
            self.finish(id, "ended", why);
            return Ok(Taken::Stale(id));
        }
        s.state = "placed";
        let attempt = s.attempt;
        let expires = self.expires(taker.node, id, attempt).expect("an order");
        self.hand_out(taker, id, expires, chosen)
    }

    fn hand_out(&mut self, taker: &Taker<'_>, id: SessionId, expires: Ms, chosen: Chosen<'_>) -> Result<Taken, Fault> {
        if self.now > expires {
            let result = self.place_again(id, "order-expired", chosen)?;
            return Ok(if result == "failed" { Taken::Expired(id) } else { Taken::Moved(id, result) });
        }
        let host = &self.nodes[taker.node];
        if host.state != "active" || host.drain {
            let why = if host.drain { "draining".to_owned() } else { host.state.clone() };
            return Ok(Taken::Moved(id, self.place_again(id, &why, chosen)?));
        }
        let now = self.now;
        let ringing = self.sessions.get_mut(&id).expect("a session");
        // Its order was taken before: that is what it waited for.
        let why = if ringing.due.is_none() { "delivered again" } else { "" };
        (ringing.state, ringing.since, ringing.due) = ("ringing", now, None);
        ringing.taken = Some((taker.generation.to_owned(), taker.number));
        let (attempt, extension) = (ringing.attempt, ringing.extension.clone());
        // Behind those who wait for their turn already.
        let line = &mut self.nodes.get_mut(taker.node).expect("a node").line;
        let waits = !line.is_empty();
        if waits && !line.contains(&id) {
            line.push(id);
        }
        self.say(id, if waits { "queued" } else { "ringing" }, why);
        Ok(Taken::Ring(id, attempt, extension))
    }

    /// What a node does with one order it received; `at` is which.
    pub fn take_one(&mut self, taker: &Taker<'_>, at: usize, chosen: Chosen<'_>) -> Result<Taken, Fault> {
        let node = taker.node;
        let message = self.queues[node][at].clone();
        let id = message.session;
        let Kind::Ring { attempt, expires, .. } = message.kind else {
            self.queues.get_mut(node).expect("a queue").remove(at);
            return Ok(Taken::HangUp(id));
        };
        let fits = |s: &&Session| s.state == "placed" && s.node == node && s.attempt == attempt;
        if !self.sessions.get(&id).is_some_and(|s| fits(&s)) {
            self.queues.get_mut(node).expect("a queue").remove(at);
            return Ok(Taken::Stale(id));
        }
        let until = self.now + self.limits.visibility;
        let hidden = &mut self.queues.get_mut(node).expect("a queue")[at];
        hidden.visible_at = until;
        hidden.received += 1;
        self.hand_out(taker, id, expires, chosen)
    }
}
