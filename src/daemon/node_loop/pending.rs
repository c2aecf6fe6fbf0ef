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
        for (session, outcome) in rest.outcomes {
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
