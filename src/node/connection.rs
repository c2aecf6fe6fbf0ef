//! Whether Asterisk is there: booted, gone, back, or given up, and what each means for sessions. Owns how long to wait
//! for it. Must never know how a connection is made.

use std::time::Duration;

use super::session::Reason;
use super::snapshot::Snapshot;
use super::{Asterisk, Effect, GIVE_UP_AFTER, Node, Note, Purpose};
use crate::ids::{Now, SessionId};

impl Node {
    pub(super) fn booted(&mut self, uptime: Option<Duration>, now: Now) {
        let started = uptime.map(|uptime| Now(now.0.saturating_sub(uptime)));
        // It stays said until the channels have been compared: Asterisk may say twice that it is booted.
        self.restarted |= match (self.asterisk_started, started) {
            (Some(before), Some(started)) => started > before.after(Duration::from_secs(2)),
            (Some(_), None) => true,
            (None, _) => false,
        };
        self.asterisk_started = started.or(Some(now));
        self.sessions.values_mut().for_each(|session| session.reconnected(now));
        self.sync();
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
        self.give_waiting_back(Reason::NodeLost);
        if gone {
            self.give_up();
        }
    }

    /// What was never written to Asterisk can be rung elsewhere at once.
    pub(super) fn give_waiting_back(&mut self, why: Reason) {
        for id in self.waiting.dissolve() {
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
