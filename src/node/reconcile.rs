//! Asking Asterisk for its channels outside of a snapshot: about single sessions, after an event that could not be read, and
//! slowly but always about all of them. Owns when it is asked and whom an answer serves: one question at a time, for
//! everybody who asks. Must never judge a call: `session` does.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::session::Outcome;
use super::snapshot::{channel, login_of};
use super::{Asterisk, Effect, Node, Note, Purpose, ring};
use crate::ami::action::Action;
use crate::ami::frame::Message;
use crate::ami::outcome::{Answer, Unknown};
use crate::ids::{ChannelId, Generation, Now, SessionId};

/// All channels are compared so often, and up to [`JITTER`] later: nodes that started together do not ask together.
const COMPARE_EVERY: Duration = Duration::from_secs(25);
const JITTER: Duration = Duration::from_secs(5);
/// What differs must differ again after this: the event that tells it may be on its way.
const DIFFERS_AGAIN: Duration = Duration::from_secs(2);
/// Events that cannot be read lead to no more than one question in this time.
const GAP_EVERY: Duration = Duration::from_secs(5);
/// A question about single sessions that got no list is asked again after this.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// And one about all of them after this.
const COMPARE_AGAIN: Duration = Duration::from_secs(5);

/// What is asked and what waits to be.
#[derive(Debug)]
pub(super) struct Reconcile {
    every: Duration,
    /// For the next question.
    waiting: BTreeSet<SessionId>,
    /// For the question that is on its way.
    asked: BTreeSet<SessionId>,
    under_way: bool,
    /// When all channels are compared next.
    compare_at: Now,
    /// When an event that could not be read leads to a question.
    gap_at: Option<Now>,
    gaps_quiet_until: Now,
    /// No question before this.
    hold_until: Now,
    /// What differed in the last list.
    differing: BTreeSet<SessionId>,
    /// What Redis believes to be here and nobody here knows: how it has ended if Asterisk does not know it, either.
    doubts: BTreeMap<SessionId, Outcome>,
}

impl Reconcile {
    pub(super) fn new(generation: Generation, now: Now) -> Self {
        let bits = u64::from_str_radix(&generation.to_string(), 16).unwrap_or_default();
        let jitter = Duration::from_millis(bits % u64::try_from(JITTER.as_millis()).unwrap_or(1));
        let every = COMPARE_EVERY + jitter;
        Self {
            every,
            waiting: BTreeSet::new(),
            asked: BTreeSet::new(),
            under_way: false,
            compare_at: now.after(every),
            gap_at: None,
            gaps_quiet_until: now,
            hold_until: now,
            differing: BTreeSet::new(),
            doubts: BTreeMap::new(),
        }
    }

    /// Somebody wants to know whether this session's channel is there.
    pub(super) fn ask(&mut self, id: SessionId) {
        self.waiting.insert(id);
    }

    /// Redis speaks of a session that nobody here knows: before it is said to be over, Asterisk is asked.
    pub(super) fn doubt(&mut self, id: SessionId, outcome: Outcome) {
        self.doubts.insert(id, outcome);
        self.ask(id);
    }

    /// The connection is over: no answer comes any more, and the next one begins with a snapshot.
    pub(super) fn closed(&mut self) {
        self.waiting.clear();
        self.asked.clear();
        self.differing.clear();
        self.doubts.clear();
        self.under_way = false;
        self.gap_at = None;
    }

    /// A snapshot has told everything. Who asked after it had begun still waits.
    pub(super) fn synced(&mut self, now: Now) {
        self.differing.clear();
        self.compare_at = now.after(self.every);
    }

    /// An event was lost.
    pub(super) fn gap(&mut self, now: Now) {
        self.gap_at = self.gap_at.or(Some(now.max(self.gaps_quiet_until)));
    }

    /// When something is due on a node in sync.
    pub(super) fn deadline(&self) -> Option<Now> {
        if self.under_way {
            return self.gap_at;
        }
        let waiting = (!self.waiting.is_empty()).then_some(self.hold_until);
        [Some(self.compare_at.max(self.hold_until)), waiting, self.gap_at].into_iter().flatten().min()
    }

    fn gap_is_due(&mut self, now: Now) -> bool {
        if self.gap_at.is_none_or(|at| at > now) {
            return false;
        }
        self.gap_at = None;
        self.gaps_quiet_until = now.after(GAP_EVERY);
        self.compare_at = now;
        true
    }

    fn begins(&mut self, now: Now, ready: bool) -> bool {
        let due = !self.waiting.is_empty() || ready && self.compare_at <= now;
        if self.under_way || !due || now < self.hold_until {
            return false;
        }
        self.under_way = true;
        self.asked = std::mem::take(&mut self.waiting);
        true
    }
}

impl Node {
    /// Asks what is to be asked by now. At the end of every input, so that all who ask meanwhile are served by one question.
    pub(super) fn reconcile(&mut self, now: Now) {
        if self.is_away() {
            return;
        }
        let ready = self.asterisk == Asterisk::Ready;
        if ready && self.reconcile.gap_is_due(now) {
            self.ask_phones(true);
        }
        if self.reconcile.begins(now, ready) {
            self.send(Purpose::Reconcile, None, Action::status(&ring::VARIABLES));
        }
    }

    pub(super) fn reconcile_answer(&mut self, answer: Answer, now: Now) {
        self.reconcile.under_way = false;
        let asked = std::mem::take(&mut self.reconcile.asked);
        let (items, all) = match answer {
            Answer::List { items } => (items, true),
            Answer::Unknown(Unknown::ListCount { items, .. }) => (items, false),
            Answer::Success(_) | Answer::Error { .. } | Answer::NotSent(_) | Answer::Unknown(_) => {
                // The deadline of a session that is known may be far away, and of one that is not, nobody else would ask.
                self.reconcile.waiting.extend(asked);
                self.reconcile.hold_until = now.after(ASK_AGAIN);
                self.reconcile.compare_at = self.reconcile.compare_at.max(now.after(COMPARE_AGAIN));
                return;
            }
        };
        self.reconcile.compare_at = now.after(self.reconcile.every);
        for id in &asked {
            self.asked_for(*id, &items, all, now);
        }
        if self.asterisk == Asterisk::Ready {
            self.compare_channels(&items, all, now);
        }
    }

    /// One session that somebody asked about: is its channel there?
    fn asked_for(&mut self, id: SessionId, items: &[Message], all: bool, now: Now) {
        let unique = ChannelId(id).to_string();
        let found = items.iter().filter_map(channel).find(|item| item.channel.unique == unique.as_bytes());
        let doubt = self.reconcile.doubts.remove(&id);
        match (found, self.sessions.get_mut(&id)) {
            (Some(item), _) => self.channel_found(id, &item, now),
            (None, Some(session)) if all => {
                let step = session.missing(false, now);
                self.step(id, step);
            }
            (None, Some(_)) => {}
            (None, None) => {
                let Some(outcome) = doubt else { return };
                self.effects.push_back(Effect::Note(Note::Drift(id, "Asterisk has no such channel: ended")));
                self.effects.push_back(Effect::Report(id, None, outcome));
            }
        }
    }

    /// All channels against all sessions. What differs now and differed the last time was missed: it is mended, and told.
    fn compare_channels(&mut self, items: &[Message], all: bool, now: Now) {
        let mut missing: BTreeSet<SessionId> = self.sessions.keys().copied().collect();
        let mut differing = BTreeSet::new();
        if all {
            self.channels.clear();
        }
        for item in items.iter().filter_map(channel) {
            self.channels.insert(item.channel.unique.into());
            let Some(ChannelId(id)) = ChannelId::parse(item.channel.unique) else { continue };
            missing.remove(&id);
            let what = match self.sessions.get(&id) {
                Some(session) if session.differs(Some(item.channel.state)) => "its phone had answered: live",
                None if login_of(id, &item).is_some() => "a channel of ours that nobody knew: adopted",
                Some(_) | None => continue,
            };
            differing.insert(id);
            if self.reconcile.differing.contains(&id) {
                differing.remove(&id);
                self.effects.push_back(Effect::Note(Note::Drift(id, what)));
                self.channel_found(id, &item, now);
            }
        }
        missing.retain(|id| all && self.sessions.get(id).is_some_and(|session| session.differs(None)));
        for id in missing {
            if !self.reconcile.differing.contains(&id) {
                differing.insert(id);
            } else if let Some(session) = self.sessions.get_mut(&id) {
                let step = session.missing(false, now);
                self.effects.push_back(Effect::Note(Note::Drift(id, "its channel had ended: ended")));
                self.step(id, step);
            }
        }
        if !differing.is_empty() {
            self.reconcile.compare_at = now.after(DIFFERS_AGAIN);
        }
        self.reconcile.differing = differing;
    }
}
