//! Holds in the model: a login that is reserved and that nobody rings. Owns how long it stays. Must never know Redis.

use evenring::ids::SessionId;

use super::rules::Wish;
use super::world::{Ms, Row, Session, World};

impl World {
    pub(super) fn assign_held(&mut self, id: SessionId, mut s: Session, (row, ttl): (&Row, Ms), why: &str) {
        (s.node, s.extension, s.attempt) = (row.node.clone(), row.extension.clone(), 1);
        (s.state, s.due, s.give_up) = ("held", Some(self.now + ttl), Some(self.now + ttl));
        self.sessions.insert(id, s);
        self.say(id, "held", why);
    }

    /// Who asks again for a hold that exists has its time begin anew.
    pub(super) fn renew(&mut self, id: SessionId, wish: &Wish) {
        let now = self.now;
        if let (Some(hold), Some(s)) = (wish.hold, self.sessions.get_mut(&id).filter(|s| s.state == "held")) {
            s.due = Some(now + hold.ttl);
        }
    }

    /// The agent of a hold is on the phone.
    pub fn confirm(&mut self, id: SessionId) -> &'static str {
        let now = self.now;
        let Some(s) = self.sessions.get_mut(&id) else { return "none" };
        if !s.is_open() {
            return "over";
        }
        if s.hold.is_none() {
            return "rung";
        }
        if s.state == "held" {
            (s.state, s.since, s.due) = ("live", now, None);
            self.say(id, "live", "");
        }
        "live"
    }
}
