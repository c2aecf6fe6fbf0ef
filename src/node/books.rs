//! Redis's books against what is here (P5). Owns how long a difference must last and how it is mended. Must never
//! write to Redis: its effects are.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::session::{Outcome, Reason, Session};
use super::{Asterisk, BookedState, Effect, Live, Node, Note};
use crate::ids::{Now, SessionId};

/// Redis and the node must disagree for this long before it is called drift: a report may be on its way.
const DISAGREE_FOR: Duration = Duration::from_millis(900);

impl Node {
    pub(super) fn tell_all(&mut self) {
        self.roster.tell_all();
        for session in self.sessions.values() {
            let live = if session.is_live() { Live::Yes } else { Live::NotYet };
            self.effects.push_back(Effect::Adopt(session.login.clone(), live));
        }
    }

    /// A heartbeat that was on its way at `asked` has been taken. Others may have had the sessions of a node whose lease was
    /// over: who waits here and is not in the books any more is not rung.
    pub(super) fn beaten(&mut self, books: &[(SessionId, BookedState)], asked: Now, now: Now) {
        let lapsed = self.has_lapsed(now);
        self.beaten = Some(asked);
        self.compare(books, now);
        let booked: BTreeSet<SessionId> = books.iter().map(|(id, _)| *id).collect();
        let lost =
            |(id, session): (&SessionId, &Session)| (session.is_waiting() && !booked.contains(id)).then_some(*id);
        for id in self.sessions.iter().filter_map(lost).filter(|_| lapsed).collect::<Vec<_>>() {
            self.mend(id, books, false, now);
        }
    }

    /// Whether its lease may be over: others may call this node dead, and have its sessions.
    pub(super) fn has_lapsed(&self, now: Now) -> bool {
        self.beaten.is_some_and(|at| now.since(at) >= self.lease)
    }

    /// Compares what Redis believes with what is here (P5). A difference must last, for a report may be on its way.
    fn compare(&mut self, books: &[(SessionId, BookedState)], now: Now) {
        let gone = match self.asterisk {
            Asterisk::Ready => false,
            // It has no calls, whoever it was that knew of them.
            Asterisk::Away { gone: true, .. } => true,
            Asterisk::Away { .. } | Asterisk::Syncing { .. } => return,
        };
        let mut disputed = BTreeMap::new();
        let mut lasting = Vec::new();
        let mut dispute = |id: SessionId, before: &BTreeMap<SessionId, Now>| {
            let since = before.get(&id).copied().unwrap_or(now);
            disputed.insert(id, since);
            if now.since(since) >= DISAGREE_FOR {
                lasting.push(id);
            }
        };
        for (id, state) in books {
            let differs = match self.sessions.get(id) {
                None => *state != BookedState::Placed,
                Some(session) if session.is_unwanted() => false,
                // A Redis that took over from another may have lost that it is live.
                Some(session) => *state == BookedState::Unwanted || session.is_live() && *state != BookedState::Live,
            };
            if differs {
                dispute(*id, &self.disputed);
            }
        }
        let booked: BTreeSet<SessionId> = books.iter().map(|(id, _)| *id).collect();
        for (id, _) in self.sessions.iter().filter(|(id, session)| !booked.contains(id) && !session.is_unwanted()) {
            dispute(*id, &self.disputed);
        }
        self.disputed = disputed;
        for id in lasting {
            self.disputed.remove(&id);
            self.mend(id, books, gone, now);
        }
    }

    fn mend(&mut self, id: SessionId, books: &[(SessionId, BookedState)], gone: bool, now: Now) {
        let unwanted = books.contains(&(id, BookedState::Unwanted));
        let (what, effect) = match self.sessions.get(&id) {
            Some(_) if unwanted => {
                self.hang_up_order(id, now);
                ("the order to hang up was lost: hanging up", None)
            }
            Some(session) if session.is_waiting() => {
                self.sessions.remove(&id);
                self.waiting.leave(id);
                ("Redis ended it before it was rung: not ringing it", None)
            }
            Some(session) => {
                let live = if session.is_live() { Live::Yes } else { Live::NotYet };
                ("Redis had lost it: told again", Some(Effect::Adopt(session.login.clone(), live)))
            }
            None => {
                let outcome = if unwanted {
                    Outcome::Ended(Reason::LoggedOut)
                } else if books.contains(&(id, BookedState::Live)) {
                    Outcome::Ended(if gone { Reason::NodeLost } else { Reason::HungUp })
                } else if gone {
                    // It may have been answered: it is not rung again, as for any lost node.
                    Outcome::Failed(Reason::NodeLost)
                } else {
                    Outcome::Failed(Reason::OutcomeUnknown)
                };
                if !gone {
                    return self.reconcile.doubt(id, outcome);
                }
                ("Asterisk is gone: ended", Some(Effect::Report(id, None, outcome)))
            }
        };
        self.effects.push_back(Effect::Note(Note::Drift(id, what)));
        self.effects.extend(effect);
    }
}
