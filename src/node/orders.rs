//! Orders from Redis, and the Originates and hang-ups they become. Owns pacing and what the answers to both mean. Must
//! never judge a call: `session` does.

use super::session::{Login, Reason, Session, Step, Stopping};
use super::{AdminState, Asterisk, Effect, NOT_SENT_AGAIN, Node, Note, Purpose, ring};
use crate::ami::action::Action;
use crate::ami::id::originate_action_id;
use crate::ami::outcome::Answer;
use crate::ids::{ChannelId, Now, Phone, SessionId, Technology};

impl Node {
    pub(super) fn order(&mut self, login: Login, (asked, placed): (Now, Now), now: Now) {
        let id = login.session;
        // Redelivered, or adopted in the meantime: it rings once.
        if self.sessions.contains_key(&id) {
            return;
        }
        // A Redis that took over from another may have lost that it was rung, and how that ended.
        if let Some(outcome) = self.rung.outcome(id, login.attempt, now) {
            self.effects.push_back(Effect::Report(id, Some(login), outcome));
            return;
        }
        let mut session = Session::new(login);
        let back = match self.asterisk {
            Asterisk::Ready => {
                self.rings_nobody().or((now.since(asked) >= self.timeouts.lease).then_some(Reason::NodeLost))
            }
            Asterisk::Away { .. } | Asterisk::Syncing { .. } => Some(Reason::NodeLost),
        };
        let step = back.map_or(Step::Nothing, |why| session.lost(why));
        if step == Step::Nothing {
            self.waiting.join(id, placed, now);
        }
        self.sessions.insert(id, session);
        self.step(id, step);
    }

    /// Why no new login is rung here, although Asterisk could.
    fn rings_nobody(&self) -> Option<Reason> {
        match self.admin_state {
            _ if self.stopping || self.shutting_down => Some(Reason::Stopping),
            AdminState::Drain => Some(Reason::Draining),
            AdminState::Ready => None,
        }
    }

    pub(super) fn hang_up_order(&mut self, id: SessionId, now: Now) {
        let step = match self.sessions.get_mut(&id) {
            Some(session) => session.call_off(now),
            // Its call may be there all the same, or come yet. Redis knows the wish, and says it when the call is adopted, or
            // with its next heartbeats.
            None => Step::Nothing,
        };
        if step != Step::Nothing {
            self.waiting.leave(id);
        }
        self.step(id, step);
    }

    pub(super) fn stale(&mut self, ids: &[SessionId], now: Now) {
        for id in ids {
            self.effects.push_back(Effect::Note(Note::Drift(*id, "the agent has been placed elsewhere: hanging up")));
            match self.sessions.get_mut(id) {
                Some(session) => {
                    let step = session.call_off(now);
                    self.waiting.leave(*id);
                    self.step(*id, step);
                }
                None => self.send(Purpose::HangUp(*id), None, Action::hangup(ChannelId(*id))),
            }
        }
    }

    /// Writes as many Originates as the bucket and the cap allow.
    pub(super) fn ring_waiting(&mut self, now: Now) {
        if self.asterisk != Asterisk::Ready || now < self.hold_until || self.has_lease_expired(now) {
            return;
        }
        self.full = false;
        if self.waiting.is_empty() {
            return;
        }
        let most = usize::try_from(self.ring.at_once).unwrap_or(usize::MAX);
        let mut ringing = self.sessions.values().filter(|session| session.is_ringing()).count();
        while let Some(id) = self.waiting.first() {
            let Some(session) = self.sessions.get_mut(&id).filter(|session| session.is_waiting()) else {
                self.waiting.leave_first();
                continue;
            };
            self.full = ringing >= most;
            if self.full || !self.bucket.take(now) {
                return;
            }
            self.waiting.leave_first();
            let extension = &session.login.extension;
            let phone = self.roster.to_dial(extension).cloned();
            let phone = phone.unwrap_or_else(|| Phone { technology: Technology::Pjsip, extension: extension.clone() });
            match ring::originate(&session.login, &phone, &self.name, &self.ring) {
                Ok(action) => {
                    session.originated(self.ring.timeout, now);
                    ringing += 1;
                    let attempt = session.login.attempt;
                    let action_id = originate_action_id(self.generation, id, attempt);
                    self.effects.push_back(Effect::Note(Note::Ringing(id, action_id.clone())));
                    self.send(Purpose::Originate(id, attempt), Some(action_id), action);
                }
                Err(error) => {
                    let step = session.refused(&error.to_string());
                    self.effects.push_back(Effect::Note(Note::Unbuildable(id, error.to_string())));
                    self.step(id, step);
                }
            }
        }
    }

    pub(super) fn originate_answer(&mut self, id: SessionId, attempt: u32, answer: Answer, now: Now) {
        let back = self.rings_nobody();
        let Some(session) = self.sessions.get_mut(&id).filter(|session| session.login.attempt == attempt) else {
            return;
        };
        let step = match answer {
            Answer::Success(_) | Answer::List { .. } => Step::Nothing,
            Answer::Error { .. } if self.shutting_down => session.lost(Reason::Stopping),
            Answer::Error { message, .. } => session.refused(&message),
            Answer::NotSent(_) if matches!(self.asterisk, Asterisk::Away { .. }) => session.lost(Reason::NodeLost),
            Answer::NotSent(_) => {
                let step = session.not_sent();
                match back {
                    Some(why) if session.is_waiting() => session.lost(why),
                    Some(_) => step,
                    None => {
                        self.hold_until = now.after(NOT_SENT_AGAIN);
                        if session.is_waiting() {
                            self.waiting.return_first(id, now);
                        }
                        step
                    }
                }
            }
            // With the connection gone the next snapshot tells; otherwise ask for the channel now.
            Answer::Unknown(_) if matches!(self.asterisk, Asterisk::Away { .. }) => Step::Nothing,
            Answer::Unknown(_) => session.unanswered(now),
        };
        self.step(id, step);
    }

    /// The answer to a question that was asked because a live call had ended.
    pub(super) fn stopping_answer(&mut self, id: SessionId, answer: &Answer, now: Now) {
        let asterisk = match answer {
            Answer::Error { message, .. } if message.eq_ignore_ascii_case("Asterisk is shutting down") => Stopping::Yes,
            Answer::Success(_) | Answer::List { .. } | Answer::Error { .. } => Stopping::No,
            // The end of the connection, or the session's deadline, tells.
            Answer::NotSent(_) | Answer::Unknown(_) => return,
        };
        if let Some(session) = self.sessions.get_mut(&id) {
            let step = session.told(asterisk, now);
            self.step(id, step);
        }
    }

    pub(super) fn hang_up_answer(&mut self, id: SessionId, answer: Answer, now: Now) {
        match answer {
            // The Hangup event follows.
            Answer::Success(_) | Answer::List { .. } => {}
            Answer::Error { message, .. } if message.eq_ignore_ascii_case("No such channel") => {
                if let Some(session) = self.sessions.get_mut(&id) {
                    let step = session.missing(false, now);
                    self.step(id, step);
                }
            }
            Answer::Error { message, .. } => self.effects.push_back(Effect::Note(Note::HangUpFailed(id, message))),
            Answer::NotSent(why) => self.effects.push_back(Effect::Note(Note::HangUpFailed(id, why.to_string()))),
            Answer::Unknown(why) => self.effects.push_back(Effect::Note(Note::HangUpFailed(id, why.to_string()))),
        }
    }
}
