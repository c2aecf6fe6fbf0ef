//! Queries Asterisk's channels outside of a snapshot: for single sessions, after an unreadable event, and at a slow rate for
//! all of them. Owns when to query and which requests an answer serves: one query at a time, for all requests. Must never
//! judge a call: `session` does.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::session::Outcome;
use super::snapshot::{channel, login_of};
use super::{Asterisk, Effect, Node, Note, Purpose, ring};
use crate::ami::action::Action;
use crate::ami::frame::Message;
use crate::ami::outcome::{Answer, Unknown};
use crate::ids::{ChannelId, Generation, Now, SessionId};

/// Interval of the comparison of all channels; up to [`JITTER`] is added, so that nodes do not query in step.
const COMPARE_EVERY: Duration = Duration::from_secs(25);
const JITTER: Duration = Duration::from_secs(5);
/// A difference must persist for this long: its event may be on its way.
const DIFFERS_AGAIN: Duration = Duration::from_secs(2);
/// Events that cannot be read lead to no more than one question in this time.
const GAP_EVERY: Duration = Duration::from_secs(5);
/// A question about single sessions that got no list is asked again after this.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// And one about all of them after this.
const COMPARE_AGAIN: Duration = Duration::from_secs(5);

/// What is asked and what waits to be.
#[derive(Debug)]
pub(super) struct ChannelCheck {
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
    /// Sessions that only Redis knows: the outcome to report if Asterisk does not know them either.
    doubts: BTreeMap<SessionId, Outcome>,
}

impl ChannelCheck {
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

    /// Redis has a session that is unknown here: Asterisk is queried before it is reported as over.
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

    /// The list of channels in a snapshot is complete. Requests made after its start remain.
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
    /// Sends the queries that are due. Runs at the end of every input, so that one query serves all requests.
    pub(super) fn check_channels(&mut self, now: Now) {
        if self.is_away() {
            return;
        }
        let ready = self.asterisk == Asterisk::Ready;
        if ready && self.channel_check.gap_is_due(now) {
            self.ask_phones(true);
        }
        if self.channel_check.begins(now, ready) {
            self.send(Purpose::ChannelCheck, None, Action::status(&ring::VARIABLES));
        }
    }

    pub(super) fn channel_check_answer(&mut self, answer: Answer, now: Now) {
        self.channel_check.under_way = false;
        let asked = std::mem::take(&mut self.channel_check.asked);
        let (items, all) = match answer {
            Answer::List { items } => (items, true),
            Answer::Unknown(Unknown::ListCount { items, .. }) => (items, false),
            Answer::Success(_) | Answer::Error { .. } | Answer::NotSent(_) | Answer::Unknown(_) => {
                // The deadline of a session that is known may be far away, and of one that is not, nobody else would ask.
                self.channel_check.waiting.extend(asked);
                self.channel_check.hold_until = now.after(ASK_AGAIN);
                self.channel_check.compare_at = self.channel_check.compare_at.max(now.after(COMPARE_AGAIN));
                return;
            }
        };
        self.channel_check.compare_at = now.after(self.channel_check.every);
        for id in &asked {
            self.asked_for(*id, &items, all, now);
        }
        if self.asterisk == Asterisk::Ready {
            self.compare_channels(&items, all, now);
        }
    }

    /// Judges one requested session: is its channel there?
    fn asked_for(&mut self, id: SessionId, items: &[Message], all: bool, now: Now) {
        let unique = ChannelId(id).to_string();
        let found = items.iter().filter_map(channel).find(|item| item.channel.unique == unique.as_bytes());
        let doubt = self.channel_check.doubts.remove(&id);
        match (found, self.sessions.get_mut(&id)) {
            (Some(item), _) => self.channel_found(id, &item, now),
            (None, Some(session)) if all => {
                let step = session.missing(false, now);
                self.step(id, step);
            }
            (None, Some(_)) => {}
            (None, None) => {
                let Some(outcome) = doubt else { return };
                self.effects.push_back(Effect::Note(Note::Drift(id, "no such channel in Asterisk: ended")));
                self.effects.push_back(Effect::Report(id, None, outcome));
            }
        }
    }

    /// Compares all channels with all sessions. A difference that was there the last time too is repaired and reported.
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
                Some(session) if session.differs(Some(item.channel.state)) => "the phone had answered: live",
                None if login_of(id, &item).is_some() => "unknown evenring channel: adopted",
                Some(_) | None => continue,
            };
            differing.insert(id);
            if self.channel_check.differing.contains(&id) {
                differing.remove(&id);
                self.effects.push_back(Effect::Note(Note::Drift(id, what)));
                self.channel_found(id, &item, now);
            }
        }
        missing.retain(|id| all && self.sessions.get(id).is_some_and(|session| session.differs(None)));
        for id in missing {
            if !self.channel_check.differing.contains(&id) {
                differing.insert(id);
            } else if let Some(session) = self.sessions.get_mut(&id) {
                let step = session.missing(false, now);
                self.effects.push_back(Effect::Note(Note::Drift(id, "the channel had ended: ended")));
                self.step(id, step);
            }
        }
        if !differing.is_empty() {
            self.channel_check.compare_at = now.after(DIFFERS_AGAIN);
        }
        self.channel_check.differing = differing;
    }
}
