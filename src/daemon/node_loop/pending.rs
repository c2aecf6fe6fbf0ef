//! What the loop has yet to tell Redis. Owns how words that wait are merged into one batch. Must never decide when one goes.

use std::collections::BTreeMap;

use super::super::books::{Batch, NOTES_WAITING, Pulse};
use crate::ids::SessionId;
use crate::node::Live;
use crate::node::left_out::Group;
use crate::node::roster::PhoneChanges;
use crate::node::session::{Login, Outcome};
use crate::registry::story::Told;

/// What waits for Redis. Bounded by the number of sessions and phones, for a newer word replaces an older one.
#[derive(Debug, Default)]
pub(super) struct Pending {
    pub(super) phones: Option<PhoneChanges>,
    pub(super) adopt: BTreeMap<SessionId, (Login, Live)>,
    pub(super) outcomes: BTreeMap<SessionId, Outcome>,
    pub(super) line: Option<Vec<SessionId>>,
    pub(super) left_out: Option<Vec<Group>>,
    /// For the story.
    pub(super) notes: Vec<Told>,
    pub(super) beat: bool,
}

impl Pending {
    pub(super) fn is_empty(&self) -> bool {
        let nothing = self.phones.is_none() && self.adopt.is_empty() && self.outcomes.is_empty();
        nothing && self.line.is_none() && self.left_out.is_none() && self.notes.is_empty() && !self.beat
    }

    /// What was said of its end before was wrong: its call is there.
    pub(super) fn adopt(&mut self, login: Login, live: Live) {
        self.outcomes.remove(&login.session);
        self.adopt.insert(login.session, (login, live));
    }

    /// One that is live is still to be adopted, where Redis does not know it.
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

    /// While Redis is away there may come more than it wants to know later: the log has all of it.
    pub(super) fn note(&mut self, told: Told) {
        if self.notes.len() < NOTES_WAITING {
            self.notes.push(told);
        }
    }

    /// Puts back what could not be written, unless something newer is known.
    pub(super) fn put_back(&mut self, rest: Batch) {
        for (session, outcome) in rest.outcomes.into_iter().filter(|(session, _)| !self.adopt.contains_key(session)) {
            self.outcomes.entry(session).or_insert(outcome);
        }
        for (login, live) in rest.adopt {
            self.adopt.entry(login.session).or_insert((login, live));
        }
        self.line = self.line.take().or(rest.line);
        self.left_out = self.left_out.take().or(rest.left_out);
    }

    /// All of it, for the writer. A node that leaves the rotation says so instead of beating.
    pub(super) fn into_batch(self, pulse: Pulse, leave: bool) -> Batch {
        Batch {
            phones: self.phones,
            adopt: self.adopt.into_values().collect(),
            outcomes: self.outcomes.into_iter().collect(),
            state: pulse.state,
            line: self.line,
            left_out: self.left_out,
            notes: self.notes,
            pulse: (self.beat && !leave).then_some(pulse),
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
        pending.put_back(Batch { outcomes: vec![(session, lost.clone())], ..Batch::default() });
        assert_eq!(waiting(&pending), (true, None), "so was what could not be written");
        pending.report(session, Outcome::Live);
        assert_eq!(waiting(&pending), (true, Some(Outcome::Live)), "Redis may not know it yet");
        pending.report(session, lost.clone());
        assert_eq!(waiting(&pending), (false, Some(lost)));
    }
}
