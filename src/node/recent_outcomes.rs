//! Recently rung attempts and their outcomes: an order that comes again because Redis lost its data does not ring a second
//! time (P1). Owns how long an outcome is remembered. Must never know an open session.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::session::Outcome;
use crate::ids::{Now, SessionId};

/// Longer than an order can lie in its queue.
const REMEMBER_FOR: Duration = Duration::from_secs(900);
/// The most that are remembered: 50 a second for longer than three minutes.
const REMEMBER_MOST: usize = 10_000;

/// The memory.
#[derive(Debug, Default)]
pub(super) struct RecentOutcomes {
    ended: BTreeMap<(SessionId, u32), Outcome>,
    order: VecDeque<(Now, SessionId, u32)>,
}

impl RecentOutcomes {
    /// This try of a session was written to Asterisk, and is over.
    pub(super) fn ended(&mut self, session: SessionId, attempt: u32, outcome: Outcome, now: Now) {
        self.forget(now);
        if self.ended.insert((session, attempt), outcome).is_none() {
            self.order.push_back((now, session, attempt));
        }
    }

    /// How it ended, if it was rung and that is remembered.
    pub(super) fn outcome(&mut self, session: SessionId, attempt: u32, now: Now) -> Option<Outcome> {
        self.forget(now);
        self.ended.get(&(session, attempt)).cloned()
    }

    fn forget(&mut self, now: Now) {
        while let Some((at, session, attempt)) = self.order.front().copied() {
            if now.since(at) < REMEMBER_FOR && self.order.len() < REMEMBER_MOST {
                return;
            }
            self.order.pop_front();
            self.ended.remove(&(session, attempt));
        }
    }
}
