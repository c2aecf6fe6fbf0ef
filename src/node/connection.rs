//! The state of Asterisk (booted, lost, back or given up) and what it means for sessions. Owns how long to wait for it. Must
//! never know how a connection is made.

use super::session::Reason;
use super::snapshot::{Miscounted, Snapshot};
use super::{Asterisk, Effect, GIVE_UP_AFTER, Node, Note, Purpose};
use crate::ids::{Now, SessionId};

impl Node {
    pub(super) fn booted(&mut self, now: Now) {
        self.sessions.values_mut().for_each(|session| session.reconnected(now));
        self.sync();
    }

    /// Asterisk says which process it is; `None` if its user may not be told. Only one that is known to be another has lost
    /// the calls of the one before.
    pub(super) fn is_process(&mut self, process: Option<Box<[u8]>>) {
        let Some(process) = process else { return };
        // It stays said until the channels have been compared: Asterisk may say twice that it is booted.
        self.restarted |= self.process.as_ref().is_some_and(|before| *before != process);
        self.process = Some(process);
    }

    pub(super) fn closed(&mut self, gone: bool, now: Now) {
        let shutting_down = std::mem::take(&mut self.shutting_down);
        let deadline = (!self.sessions.is_empty()).then(|| now.after(GIVE_UP_AFTER));
        let give_up_at = match self.asterisk {
            // It lives, and nobody can look at the calls that it lets end.
            Asterisk::Away { .. } if shutting_down => None,
            Asterisk::Away { give_up_at, .. } => give_up_at.or(deadline),
            Asterisk::Syncing { .. } | Asterisk::Ready => Some(now.after(GIVE_UP_AFTER)),
        };
        let ever = !matches!(self.asterisk, Asterisk::Away { ever: false, .. });
        self.asterisk = Asterisk::Away { ever, gone, give_up_at };
        self.snapshot = Snapshot::default();
        // Of an Originate that nobody has read yet, "not sent" is still to come; all other answers mean nothing now.
        self.open.retain(|_, purpose| matches!(purpose, Purpose::Originate(_, _)));
        self.disputed.clear();
        self.channel_check.closed();
        self.lists.closed();
        self.questions.closed();
        self.rights.closed();
        self.miscounted = Miscounted::default();
        self.give_waiting_back(Reason::NodeLost);
        if gone {
            self.give_up();
        }
    }

    /// What was never written to Asterisk can be rung elsewhere at once.
    pub(super) fn give_waiting_back(&mut self, why: Reason) {
        let all = self.waiting.dissolve();
        self.give_back(all, why);
    }

    /// The same of some; they have left the queue.
    pub(super) fn give_back(&mut self, ids: Vec<SessionId>, why: Reason) {
        for id in ids {
            if let Some(session) = self.sessions.get_mut(&id) {
                let step = session.lost(why.clone());
                self.step(id, step);
            }
        }
    }

    pub(super) fn give_up(&mut self) {
        if let Asterisk::Away { give_up_at, .. } = &mut self.asterisk {
            *give_up_at = None;
        }
        self.channels.clear();
        let ids: Vec<SessionId> = self.sessions.keys().copied().collect();
        if !ids.is_empty() {
            self.effects.push_back(Effect::Note(Note::GivenUp { sessions: ids.len() }));
        }
        for id in ids {
            if let Some(session) = self.sessions.get_mut(&id) {
                let step = session.lost(Reason::NodeLost);
                self.step(id, step);
            }
        }
    }
}
