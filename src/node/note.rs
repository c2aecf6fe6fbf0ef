//! Notes of a node for operators. Owns the list. Must never know the texts: `daemon` writes them.

use crate::ids::{SessionId, Technology};

/// Things worth a log line that no other effect tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// An Originate goes to Asterisk, under this ActionID.
    Ringing(SessionId, String),
    /// A snapshot is complete.
    Synced {
        /// Phones that can ring.
        registered: usize,
        /// Channels in Asterisk.
        channels: usize,
        /// Sessions of ours among them.
        sessions: usize,
    },
    /// Asterisk refused a part of the snapshot.
    SnapshotFailed {
        /// The AMI action.
        action: &'static str,
        /// What Asterisk said.
        message: String,
    },
    /// Asterisk's count of a list is wrong, twice in a row: the items that could be read are used.
    Miscounted {
        /// The AMI action.
        action: &'static str,
        /// Items that came.
        found: usize,
        /// What Asterisk counted.
        counted: String,
    },
    /// Asterisk refused to list the peers of a driver.
    PeersUnlisted {
        /// The driver.
        technology: Technology,
        /// What Asterisk said.
        message: String,
    },
    /// A channel has a session id of ours but not our variables.
    Unreadable(SessionId),
    /// Asterisk has been away too long: its sessions are given up.
    GivenUp {
        /// How many.
        sessions: usize,
    },
    /// Redis and this node disagreed about a session; it was repaired.
    Drift(SessionId, &'static str),
    /// Asterisk did not do a hang-up.
    HangUpFailed(SessionId, String),
    /// An Originate could not even be built.
    Unbuildable(SessionId, String),
}
