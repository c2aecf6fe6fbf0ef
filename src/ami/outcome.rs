//! The results of an AMI session for its owner: effects, answers and reasons.
//!
//! Owns the words, and what a person should do about each. Must never know how they come about: that is
//! [`super::link`].

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use super::action::ActionError;
use super::frame::{FrameError, Message};

/// The caller's own handle for an action. It comes back with the answer, exactly once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(pub u64);

/// What the owner of a session has to do, or should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkEffect {
    /// Write these bytes to the socket, after all earlier ones, and say so with [`super::link::Link::written`].
    Write(Bytes),
    /// Name and secret were accepted.
    LoggedIn {
        /// Of the interface, from the banner: `5.0.4` for Asterisk 16, `11.0.0` for 22.
        version: String,
    },
    /// Asterisk has loaded its modules: actions may be sent now.
    Booted,
    /// Logged in for [`super::link::BOOT_HINT_AFTER`], but Asterisk has not said that it is booted. Either it takes its
    /// time, or the user may not read class `system`. Said once; the wait goes on.
    Stalled,
    /// Whether Asterisk is shutting down: it refuses every action, and may let its calls end in peace before it goes
    /// (`core stop gracefully`). Said when that changes; `core abort shutdown` takes it back.
    ShuttingDown(bool),
    /// Something happened in Asterisk.
    Event(Message),
    /// How an action ended.
    Answer {
        /// Which.
        tag: Tag,
        /// How.
        answer: Answer,
    },
    /// The session is over: close the socket. Nothing follows.
    Close(CloseReason),
}

/// How an action ended. `NotSent` may be tried again; `Unknown` may have been carried out: ask Asterisk first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Asterisk says `Success`, or `Goodbye`.
    Success(Message),
    /// Asterisk refuses.
    Error {
        /// Its words, safe for a log line.
        message: String,
        /// All it said.
        raw: Message,
    },
    /// All items of a list, in their order. As many as Asterisk counted.
    List {
        /// Events; see [`super::item`] and [`super::event`].
        items: Vec<Message>,
    },
    /// It never reached the wire.
    NotSent(NotSent),
    /// It was written, and what became of it is not known.
    Unknown(Unknown),
}

/// Why an action never reached the wire.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotSent {
    /// Before Asterisk is booted, it would accept the action and do nothing.
    #[error("Asterisk is not ready yet")]
    NotReady,
    /// The session is ending or over.
    #[error("the session is over")]
    Closed,
    /// Asterisk answers too slowly.
    #[error("too many actions are waiting for an answer ({limit})")]
    TooManyOpen {
        /// [`super::link::OPEN_ACTIONS`].
        limit: usize,
    },
    /// Asterisk does not read from the connection.
    #[error("Asterisk has not read {waiting_bytes} bytes yet")]
    Clogged {
        /// Bytes that are not written yet.
        waiting_bytes: usize,
    },
    /// An action with this ActionID waits for its answer.
    #[error("its ActionID is already in use")]
    IdInUse,
    /// The ActionID cannot stand on the wire.
    #[error(transparent)]
    ActionId(ActionError),
}

/// Why it is not known what became of an action.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unknown {
    /// No answer in time.
    #[error("no answer within {after:?}")]
    Deadline {
        /// How long it was waited for.
        after: Duration,
    },
    /// The connection ended first.
    #[error("the connection ended before the answer came")]
    Closed,
    /// A list without end.
    #[error("the list has more than {limit} items")]
    ListTooLong {
        /// [`super::link::LIST_ITEMS`].
        limit: usize,
    },
    /// A list of devices with more of them than are wanted.
    #[error("the list has {beyond} items beyond the first {}, which are kept", .items.len())]
    ListCut {
        /// The first, as many as [`super::link::LinkSettings::devices_most`] says.
        items: Vec<Message>,
        /// How many more there were.
        beyond: usize,
    },
    /// Items are missing, or too many came.
    #[error("the list has {} items, but Asterisk counted {counted}", .items.len())]
    ListCount {
        /// Items that came.
        items: Vec<Message>,
        /// What `ListItems` says.
        counted: String,
    },
}

/// How far a session has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Connected; waiting for the banner.
    Greeting,
    /// Waiting for the challenge, or for the answer to the login.
    Login,
    /// Logged in; waiting for `FullyBooted`.
    Boot,
    /// In use.
    Up,
    /// Said goodbye.
    Logoff,
    /// Over.
    Closed,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Greeting => "before its greeting",
            Self::Login => "during the login",
            Self::Boot => "before it was fully booted",
            Self::Up => "while in use",
            Self::Logoff => "after the logoff",
            Self::Closed => "after its end",
        })
    }
}

/// Why a session is over: what happened, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// Wrong name or secret, or not permitted from this address. Asterisk does not say which.
    #[error("Asterisk refused the login of {user}: {message}; check user, secret, permit and deny in manager.conf")]
    LoginRefused {
        /// Who wanted to log in.
        user: String,
        /// Asterisk's message.
        message: String,
    },
    /// Asterisk's answer to connections during its shutdown.
    #[error("Asterisk is shutting down; no action needed, evenring reconnects")]
    ShuttingDown,
    /// Banner, challenge or answer did not come.
    #[error(
        "no complete login within {after:?} (stuck {stage}); check that this port is Asterisk's AMI and that Asterisk \
            is running"
    )]
    LoginTimeout {
        /// The time that was allowed.
        after: Duration,
        /// What was waited for.
        stage: Stage,
    },
    /// Connected, but no answer: host or network failed, or Asterisk hangs.
    #[error("Asterisk did not answer a ping within {after:?}; evenring reconnects, check the host and the network")]
    PingTimeout {
        /// The time that was allowed.
        after: Duration,
    },
    /// Asterisk ended, or dropped the connection because it was read too slowly.
    #[error("Asterisk closed the connection {stage}; {}", lost_hint(*stage))]
    Lost {
        /// How far the session had come.
        stage: Stage,
    },
    /// The owner logged off.
    #[error("logged off")]
    LoggedOff,
    /// The peer does not send AMI, or broke a limit.
    #[error("{0}; check host and port in ami.address")]
    Unreadable(FrameError),
    /// The settings cannot be put into a login.
    #[error("cannot send the login: {0}; check ami.username")]
    Settings(ActionError),
}

impl CloseReason {
    /// Whether trying again will not help before a person has changed something.
    pub fn needs_people(&self) -> bool {
        match self {
            Self::LoginRefused { .. } | Self::Unreadable(_) | Self::Settings(_) => true,
            Self::ShuttingDown | Self::LoginTimeout { .. } | Self::PingTimeout { .. } => false,
            Self::Lost { .. } | Self::LoggedOff => false,
        }
    }
}

fn lost_hint(stage: Stage) -> &'static str {
    match stage {
        Stage::Greeting => "this happens when more than authlimit connections wait for a login",
        Stage::Login => "this happens after authtimeout",
        Stage::Boot | Stage::Up => {
            "evenring reconnects; if Asterisk is still running, set writetimeout = 5000 in manager.conf"
        }
        Stage::Logoff | Stage::Closed => "no action needed",
    }
}

/// Messages without a pending action. A few are harmless; many mean that something is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Strays {
    /// Answers without ActionID: Asterisk could not read a request.
    pub unaddressed: u64,
    /// Answers to an unknown or completed action.
    pub foreign: u64,
    /// Items of lists that are no longer awaited.
    pub late: u64,
    /// Neither event nor answer.
    pub unreadable: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_connection_says_what_to_look_at() {
        for (stage, hint) in [
            (Stage::Greeting, "authlimit"),
            (Stage::Login, "authtimeout"),
            (Stage::Boot, "writetimeout"),
            (Stage::Up, "writetimeout"),
            (Stage::Logoff, "no action needed"),
        ] {
            let said = CloseReason::Lost { stage }.to_string();
            assert!(said.contains(hint), "{said}");
        }
    }
}
