//! What a simulation has seen, as far as a promise needs it, and which second calls no node could have prevented. Owns these
//! excuses. Must never judge: `check` does.

use std::collections::{BTreeMap, BTreeSet};

use evenring::ids::SessionId;

use super::agenda::Life;
use super::model::world::{Ms, Session, World};

/// What has been seen so far, as far as a promise needs it.
#[derive(Debug, Default)]
pub struct History {
    /// INVITEs of each try.
    pub invites: BTreeMap<(SessionId, u32), u32>,
    /// When each try was placed.
    pub placed: BTreeMap<(SessionId, u32), Ms>,
    /// Where a session was live.
    pub live: BTreeMap<SessionId, String>,
    /// When a session was asked for.
    pub asked: BTreeMap<SessionId, Ms>,
    pub logged_out: BTreeSet<SessionId>,
    /// When the order of each try was taken.
    pub taken: BTreeMap<(SessionId, u32), Ms>,
    /// Ended as `node-lost` although the call went on: its node could not beat for a lease.
    pub lost: BTreeSet<SessionId>,
    /// When a lease of all nodes began anew, and at which tick: after an outage that was so long that all noticed it.
    pub silence_ended: (Ms, Ms),
    /// When Redis was emptied last.
    pub emptied_at: Option<Ms>,
    /// When each host's daemon last told Redis of its calls, and who has just registered, and will.
    pub told: BTreeMap<usize, Ms>,
    pub registering: BTreeSet<Life>,
    /// Who has been in sync with its Asterisk.
    pub in_sync: BTreeSet<Life>,
    /// From when to when Redis did not know of a session, for one of the reasons of this history.
    pub unsure: BTreeMap<SessionId, (Ms, Option<Ms>)>,
    /// The first was placed when nobody could know of the call of the second: Redis was emptied, and its daemon stayed away
    /// for longer than logins are held.
    pub unknown: BTreeSet<(SessionId, SessionId)>,
    /// Tries that were rung by a daemon that had slept for less than its lease, and does not know yet that another one has
    /// taken its place: nobody keeps that one from its Asterisk.
    pub superseded: BTreeSet<(SessionId, u32)>,
    /// The daemons that have left, by the word of Redis.
    pub left: BTreeSet<Life>,
    /// Redis said that the agent has moved on.
    pub stale: BTreeSet<SessionId>,
    /// Given up by a daemon that could not reach its Asterisk for too long, although the call went on.
    pub given_up: BTreeSet<SessionId>,
    /// A failover has lost where it was placed last, or that its order was taken. The node of before has its order again,
    /// or loses it to another one, and cannot know better; the one that rings it tells Redis with its next heartbeats. No
    /// node can prevent this second ring: only a Redis that waits for its replicas does.
    pub misplaced: BTreeSet<SessionId>,
    /// When a channel of the session last began or ended.
    pub changed: BTreeMap<SessionId, Ms>,
    /// When Redis last forgot something.
    pub redis_lost_at: Option<Ms>,
    /// When the replica stopped to follow.
    pub replica_since: Ms,
}

impl History {
    /// Nobody asks again with the id of a session whose record has expired.
    pub fn forgotten(&self, id: SessionId, now: Ms, keep: Ms) -> bool {
        self.asked.get(&id).is_some_and(|at| now - at >= keep)
            || self.redis_lost_at.is_some() && self.asked.contains_key(&id)
    }

    /// Whether it may have two calls, for one of the two reasons that no node can do anything about.
    pub fn is_excused(&self, id: &SessionId) -> bool {
        self.misplaced.contains(id) || self.given_up.contains(id)
    }

    /// The same of one try of it.
    pub fn is_try_excused(&self, id: SessionId, attempt: u32) -> bool {
        self.is_excused(&id) || self.superseded.contains(&(id, attempt))
    }

    pub fn redis_lost(&mut self, now: Ms) {
        self.redis_lost_at = Some(now);
        self.emptied_at = Some(now);
        self.left.clear();
    }

    /// Redis knows where its call is: from now on there is no excuse for another one.
    pub fn known_again(&mut self, id: SessionId, now: Ms) {
        if self.misplaced.remove(&id) | self.given_up.remove(&id) | self.lost.remove(&id) {
            self.live.remove(&id);
        }
        self.unsure.entry(id).and_modify(|span| span.1 = span.1.or(Some(now)));
    }

    /// Redis does not know any more where its call is.
    pub fn unknown_from(&mut self, id: SessionId, now: Ms) {
        let span = self.unsure.entry(id).or_insert((now, None));
        span.1 = None;
    }

    /// Whether this try was placed when Redis did not know of that session.
    pub fn is_placed_unknowing(&self, id: SessionId, attempt: u32, other: SessionId) -> bool {
        let span = self.unsure.get(&other).zip(self.placed.get(&(id, attempt)));
        span.is_some_and(|((from, to), at)| from <= at && to.is_none_or(|to| *at <= to))
    }

    /// What Redis believes has changed by itself: no placement.
    pub fn failed_over(&mut self, before: &World, world: &World, calls: Vec<SessionId>, now: Ms) {
        self.redis_lost_at = Some(now);
        self.left.clear();
        for (id, s) in world.open() {
            self.placed.entry((id, s.attempt)).or_insert(now);
            let known = |b: &Session| b.attempt == s.attempt && (b.state == s.state || s.state != "placed");
            if !before.sessions.get(&id).is_some_and(known) {
                self.misplaced.insert(id);
            }
        }
        let is_open = |id: &SessionId| world.sessions.get(id).is_some_and(Session::is_open);
        // Also those that this Redis had lost before, on their way to their Asterisk.
        let taken = self.taken.iter().filter(|(_, at)| **at >= self.replica_since).map(|((id, _), _)| *id);
        self.misplaced.extend(before.open().map(|(id, _)| id).chain(calls).chain(taken).filter(|id| !is_open(id)));
        for id in self.misplaced.clone() {
            self.unknown_from(id, now);
        }
        // What was placed since then never was, for this Redis.
        self.placed.retain(|(id, attempt), _| world.sessions.get(id).is_some_and(|s| *attempt <= s.attempt));
    }

    /// Nothing older than this matters any more.
    pub fn forget(&mut self, world: &World) {
        let open: BTreeSet<SessionId> = world.open().map(|(id, _)| id).collect();
        self.live.retain(|id, _| open.contains(id));
        self.changed.retain(|id, _| open.contains(id));
    }
}
