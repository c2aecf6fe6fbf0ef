//! Handles an AMI login with too few rights. Owns when to log in again. Must never know which rights there are.
//!
//! A login keeps the rights that it started with: neither `manager reload` nor a changed manager.conf changes them (measured
//! on Asterisk 16 and 22). So a refused action stays refused until the next login.

use std::time::Duration;

use super::{Node, Purpose};
use crate::ami::action::Action;
use crate::ami::outcome::Answer;
use crate::ids::Now;

/// A login that lacks necessary rights is repeated after this, and at once after a reload.
const LOGIN_AGAIN: Duration = Duration::from_secs(30);

/// What this login was refused.
#[derive(Debug, Default)]
pub(super) struct Rights {
    /// Something.
    refused: bool,
    /// When to log in again.
    again_at: Option<Now>,
}

impl Rights {
    /// When something is due.
    pub(super) fn deadline(&self) -> Option<Now> {
        self.again_at
    }

    /// An answer to one of our actions.
    pub(super) fn answered(&mut self, purpose: &Purpose, answer: &Answer, now: Now) {
        let stays = matches!(purpose, Purpose::Logoff) && !matches!(answer, Answer::Success(_));
        if !is_denied(answer) && !stays {
            return;
        }
        self.refused = true;
        match purpose {
            Purpose::Devices(_)
            | Purpose::Channels
            | Purpose::Originate(_, _)
            | Purpose::HangUp(_)
            | Purpose::Logoff => {
                self.again_at = self.again_at.or(Some(now.after(LOGIN_AGAIN)));
            }
            // A node does without.
            Purpose::Identity | Purpose::Peers(_, _) | Purpose::Dialable(_) | Purpose::Contacts(_) => {}
            Purpose::ContactsOfOnline | Purpose::Qualify | Purpose::ChannelCheck | Purpose::Stopping(_) => {}
        }
    }

    /// Somebody may have repaired it.
    pub(super) fn settings_read(&mut self, now: Now) {
        if self.refused {
            self.again_at = Some(now);
        }
    }

    /// The connection is over.
    pub(super) fn closed(&mut self) {
        *self = Self::default();
    }
}

/// Whether Asterisk says that this login may not do that.
pub(super) fn is_denied(answer: &Answer) -> bool {
    matches!(answer, Answer::Error { message, .. } if message.eq_ignore_ascii_case("Permission denied"))
}

impl Node {
    /// Ends a login of which it is known that another may have more rights. At the end of every input.
    pub(super) fn log_in_again(&mut self, now: Now) {
        if self.rights.again_at.is_some_and(|at| at <= now) {
            self.rights = Rights::default();
            self.send(Purpose::Logoff, None, Action::logoff());
        }
    }
}
