//! What the loop has yet to write to Redis. Owns how pending changes are merged into one batch. Must never decide when a
//! batch is written.

use std::collections::BTreeMap;

use super::super::registry_writer::{HeartbeatReport, NOTES_WAITING, WriteBatch};
use crate::ids::SessionId;
use crate::node::Live;
use crate::node::left_out::Group;
use crate::node::roster::PhoneChanges;
use crate::node::session::{Login, Outcome};
use crate::registry::events::NewEvent;

/// Pending changes. Bounded by the number of sessions and phones, because newer values replace older ones.
#[derive(Debug, Default)]
pub(super) struct Pending {
    pub(super) phones: Option<PhoneChanges>,
    pub(super) adopt: BTreeMap<SessionId, (Login, Live)>,
    pub(super) outcomes: BTreeMap<SessionId, Outcome>,
    pub(super) ring_queue: Option<Vec<SessionId>>,
    pub(super) left_out: Option<Vec<Group>>,
    /// Why the node is not in sync with its Asterisk; empty if it is.
    pub(super) reason: Option<String>,
    /// For the event stream.
    pub(super) notes: Vec<NewEvent>,
    pub(super) beat: bool,
}

impl Pending {
    pub(super) fn is_empty(&self) -> bool {
        let nothing = self.phones.is_none() && self.adopt.is_empty() && self.outcomes.is_empty();
        let nothing = nothing && self.ring_queue.is_none() && self.left_out.is_none() && self.reason.is_none();
        nothing && self.notes.is_empty() && !self.beat
    }

    /// Its call exists after all: drops an outcome that said otherwise.
    pub(super) fn adopt(&mut self, login: Login, live: Live) {
        self.outcomes.remove(&login.session);
        self.adopt.insert(login.session, (login, live));
    }

    /// A live session must still be adopted if Redis does not know it.
    pub(super) fn report(&mut self, session: SessionId, outcome: Outcome) {
        if outcome != Outcome::Live {
            self.adopt.remove(&session);
        }
        self.outcomes.insert(session, outcome);
    }

    pub(super) fn add_phones(&mut self, changes: PhoneChanges) {
        self.phones = Some(match self.phones.take() {
            Some(mut before) if !changes.replace => {
                // The later of two words about one phone wins in the script.
                before.phones.extend(changes.phones);
                before
            }
            Some(_) | None => changes,
        });
    }

    /// Keeps at most [`NOTES_WAITING`] entries while Redis is unavailable; the log has all of them.
    pub(super) fn note(&mut self, told: NewEvent) {
        if self.notes.len() < NOTES_WAITING {
            self.notes.push(told);
        }
    }

    /// Puts back what could not be written, unless something newer is known.
    pub(super) fn put_back(&mut self, rest: WriteBatch) {
        for (session, outcome) in rest.outcomes.into_iter().filter(|(session, _)| !self.adopt.contains_key(session)) {
            self.outcomes.entry(session).or_insert(outcome);
        }
        for (login, live) in rest.adopt {
            self.adopt.entry(login.session).or_insert((login, live));
        }
        self.ring_queue = self.ring_queue.take().or(rest.ring_queue);
        self.left_out = self.left_out.take().or(rest.left_out);
        self.reason = self.reason.take().or(rest.reason);
    }

    /// Everything for the writer. A node that leaves the rotation sends `leave` instead of a heartbeat.
    pub(super) fn into_batch(self, heartbeat: HeartbeatReport, leave: bool) -> WriteBatch {
        WriteBatch {
            phones: self.phones,
            adopt: self.adopt.into_values().collect(),
            outcomes: self.outcomes.into_iter().collect(),
            state: heartbeat.state,
            ring_queue: self.ring_queue,
            left_out: self.left_out,
            reason: self.reason,
            notes: self.notes,
            heartbeat: (self.beat && !leave).then_some(heartbeat),
            leave,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that fails says why")]
mod tests {
    use super::*;
    use crate::node::session::{Class, Reason};

    fn login() -> Login {
        Login {
            session: SessionId::from_bits(1),
            attempt: 1,
            alias: "a".parse().unwrap(),
            extension: "a".parse().unwrap(),
            agent: "a".parse().unwrap(),
            campaign: None,
            class: Class::Local,
        }
    }

    #[test]
    fn the_later_word_about_a_session_holds() {
        let (session, lost) = (login().session, Outcome::Ended(Reason::NodeLost));
        let waiting =
            |pending: &Pending| (pending.adopt.contains_key(&session), pending.outcomes.get(&session).cloned());
        let mut pending = Pending::default();
        pending.report(session, lost.clone());
        pending.adopt(login(), Live::Yes);
        assert_eq!(waiting(&pending), (true, None), "its call is there after all");
        pending.put_back(WriteBatch { outcomes: vec![(session, lost.clone())], ..WriteBatch::default() });
        assert_eq!(waiting(&pending), (true, None), "so was what could not be written");
        pending.report(session, Outcome::Live);
        assert_eq!(waiting(&pending), (true, Some(Outcome::Live)), "Redis may not know it yet");
        pending.report(session, lost.clone());
        assert_eq!(waiting(&pending), (false, Some(lost)));
    }
}
