//! Compares the sessions recorded in Redis with those of the node (P5). Owns how long a difference must last and how it is
//! repaired. Must never write to Redis: it only returns effects.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::session::{Outcome, Reason, Session};
use super::{Asterisk, Effect, Live, Node, Note, RecordedState};
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

    /// Redis has accepted the heartbeat sent at `asked`. If the lease had expired, other nodes may have had the sessions:
    /// a queued login that is no longer recorded is not rung, nor one that is too old by now.
    pub(super) fn beaten(&mut self, recorded: &[(SessionId, RecordedState)], asked: Now, now: Now) {
        let lease_expired = self.has_lease_expired(now);
        self.beaten = Some(asked);
        self.compare(recorded, now);
        let known: BTreeSet<SessionId> = recorded.iter().map(|(id, _)| *id).collect();
        let lost = |(id, session): (&SessionId, &Session)| (session.is_waiting() && !known.contains(id)).then_some(*id);
        for id in self.sessions.iter().filter_map(lost).filter(|_| lease_expired).collect::<Vec<_>>() {
            self.repair(id, recorded, false, now);
        }
        if lease_expired {
            let then = Now(now.0.saturating_sub(self.timeouts.order_expiry));
            let old = self.waiting.dissolve_older(then);
            self.give_back(old, Reason::NodeLost);
        }
    }

    /// Whether its lease may be over: others may call this node dead, and have its sessions.
    pub(super) fn has_lease_expired(&self, now: Now) -> bool {
        self.beaten.is_some_and(|at| now.since(at) >= self.timeouts.lease)
    }

    /// Compares what Redis believes with what is here (P5). A difference must last, for a report may be on its way.
    fn compare(&mut self, recorded: &[(SessionId, RecordedState)], now: Now) {
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
        for (id, state) in recorded {
            let differs = match self.sessions.get(id) {
                None => *state != RecordedState::Placed,
                Some(session) if session.is_hangup_requested() => false,
                // A Redis that took over from another may have lost that it is live.
                Some(session) => {
                    *state == RecordedState::HangupRequested || session.is_live() && *state != RecordedState::Live
                }
            };
            if differs {
                dispute(*id, &self.disputed);
            }
        }
        let known: BTreeSet<SessionId> = recorded.iter().map(|(id, _)| *id).collect();
        for (id, _) in
            self.sessions.iter().filter(|(id, session)| !known.contains(id) && !session.is_hangup_requested())
        {
            dispute(*id, &self.disputed);
        }
        self.disputed = disputed;
        for id in lasting {
            self.disputed.remove(&id);
            self.repair(id, recorded, gone, now);
        }
    }

    fn repair(&mut self, id: SessionId, recorded: &[(SessionId, RecordedState)], gone: bool, now: Now) {
        let hangup_requested = recorded.contains(&(id, RecordedState::HangupRequested));
        let (what, effect) = match self.sessions.get(&id) {
            Some(_) if hangup_requested => {
                self.hang_up_order(id, now);
                ("the hang-up order was lost: hanging up", None)
            }
            Some(session) if session.is_waiting() => {
                self.sessions.remove(&id);
                self.waiting.leave(id);
                ("Redis ended the session before it rang: not ringing", None)
            }
            Some(session) => {
                let live = if session.is_live() { Live::Yes } else { Live::NotYet };
                ("Redis had lost the session: reported again", Some(Effect::Adopt(session.login.clone(), live)))
            }
            None => {
                let outcome = if hangup_requested {
                    Outcome::Ended(Reason::LoggedOut)
                } else if recorded.contains(&(id, RecordedState::Live)) {
                    Outcome::Ended(if gone { Reason::NodeLost } else { Reason::HungUp })
                } else if gone {
                    // It may have been answered: it is not rung again, as for any lost node.
                    Outcome::Failed(Reason::NodeLost)
                } else {
                    Outcome::Failed(Reason::OutcomeUnknown)
                };
                if !gone {
                    return self.channel_check.doubt(id, outcome);
                }
                ("Asterisk down: ended", Some(Effect::Report(id, None, outcome)))
            }
        };
        self.effects.push_back(Effect::Note(Note::Drift(id, what)));
        self.effects.extend(effect);
    }
}
