//! The states in Redis as enums, and how a word becomes one. Owns these words. Must never know where they are shown.
//!
//! During an upgrade a node of another version may write a word that this one does not know. It is kept and shown as it is.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};

use crate::node::keyword::{Keyword, keywords};
use crate::node::{AdminState, NodeState};

/// A word from Redis, parsed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(from = "String", bound = "T: Keyword")]
pub enum Parsed<T> {
    /// One that this version knows.
    Known(T),
    /// One of another version, as it is.
    Other(String),
}

impl<T: Keyword> Parsed<T> {
    /// The word.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Known(value) => value.word(),
            Self::Other(word) => word,
        }
    }
}

impl<T: Keyword> From<String> for Parsed<T> {
    fn from(word: String) -> Self {
        T::of(&word).map_or(Self::Other(word), Self::Known)
    }
}

impl<T: Keyword> From<&str> for Parsed<T> {
    fn from(word: &str) -> Self {
        word.to_owned().into()
    }
}

impl<T: PartialEq> PartialEq<T> for Parsed<T> {
    fn eq(&self, value: &T) -> bool {
        matches!(self, Self::Known(known) if known == value)
    }
}

impl<T: Keyword> fmt::Display for Parsed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl<T: Keyword> Serialize for Parsed<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

keywords! {
    /// How far a session is.
    SessionState {
        /// Its node has the order.
        Placed = "placed",
        /// It is reserved, and nobody is rung: whoever asked does that.
        Held = "held",
        /// It waits for its turn to ring; shown as long as its position is known.
        Queued = "queued",
        /// Its phone rings.
        Ringing = "ringing",
        /// Its agent has answered.
        Live = "live",
        /// It was live and is over, or somebody logged the agent out.
        Ended = "ended",
        /// It never became live.
        Failed = "failed",
    }
}

impl SessionState {
    /// Whether a session in this state is over.
    pub fn is_over(self) -> bool {
        match self {
            Self::Ended | Self::Failed => true,
            Self::Placed | Self::Held | Self::Queued | Self::Ringing | Self::Live => false,
        }
    }
}

keywords! {
    /// How a node is, as it is shown: what it said last, its lease, and what operators want of it.
    ShownNodeState {
        /// In sync with its Asterisk, and may be given logins.
        Active = "active",
        /// Its Asterisk has not been in sync yet.
        Starting = "starting",
        /// Its Asterisk is unavailable.
        Down = "down",
        /// It would be active, and operators have drained it.
        Draining = "draining",
        /// Its Asterisk is shutting down.
        Stopping = "stopping",
        /// Its daemon was stopped.
        Stopped = "stopped",
        /// No heartbeat came for a lease.
        LeaseExpired = "lease-expired",
        /// Redis has its name, and no state.
        Unknown = "unknown",
    }
}

impl ShownNodeState {
    /// How a node that sends heartbeats is shown.
    pub fn of(state: NodeState, admin_state: AdminState) -> Self {
        match (state, admin_state) {
            (NodeState::Active, AdminState::Drain) => Self::Draining,
            (NodeState::Active, AdminState::Ready) => Self::Active,
            (NodeState::Starting, AdminState::Drain | AdminState::Ready) => Self::Starting,
            (NodeState::Stopping, AdminState::Drain | AdminState::Ready) => Self::Stopping,
            (NodeState::Down, AdminState::Drain | AdminState::Ready) => Self::Down,
        }
    }

    /// Whether its daemon knows now which phones its Asterisk has.
    pub fn is_in_sync(self) -> bool {
        match self {
            Self::Active | Self::Draining | Self::Stopping => true,
            Self::Starting | Self::Down | Self::Stopped | Self::LeaseExpired | Self::Unknown => false,
        }
    }

    /// Whether a daemon that runs may be in this state.
    pub fn is_running(self) -> bool {
        match self {
            Self::Active | Self::Starting | Self::Down | Self::Draining | Self::Stopping => true,
            Self::Stopped | Self::LeaseExpired | Self::Unknown => false,
        }
    }
}

impl Parsed<ShownNodeState> {
    /// The same of a state that may be one of another version.
    pub fn is_in_sync(&self) -> bool {
        match self {
            Self::Known(state) => state.is_in_sync(),
            Self::Other(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::left_out::Why;
    use crate::node::roster::PhoneState;

    #[track_caller]
    fn check<T: Keyword + fmt::Debug>(least: usize) {
        assert!(T::VALUES.len() >= least, "{:?}", T::VALUES);
        for value in T::VALUES {
            let parsed = Parsed::<T>::from(value.word());
            assert_eq!(parsed, Parsed::Known(*value));
            assert_eq!(serde_json::to_string(&parsed).unwrap(), format!("\"{}\"", value.word()));
            assert!(value.word().chars().all(|c| c.is_ascii_lowercase() || c == '-'), "{parsed}");
        }
    }

    #[test]
    fn every_word_reads_back() {
        check::<SessionState>(7);
        check::<ShownNodeState>(8);
        check::<NodeState>(4);
        check::<PhoneState>(4);
        check::<Why>(3);
    }

    #[test]
    fn a_word_of_another_version_is_kept() {
        let parsed: Parsed<SessionState> = serde_json::from_str("\"paused\"").unwrap();
        assert_eq!(parsed, Parsed::Other("paused".to_owned()));
        assert_eq!(
            (parsed.to_string().as_str(), serde_json::to_string(&parsed).unwrap()),
            ("paused", "\"paused\"".into())
        );
        assert!(parsed != SessionState::Placed);
    }

    #[test]
    fn every_state_of_a_node_is_shown_by_its_own_word_unless_it_drains() {
        for state in NodeState::ALL {
            let shown = ShownNodeState::of(state, AdminState::Ready);
            assert_eq!((shown.as_str(), shown.is_running()), (state.as_str(), true));
        }
        assert_eq!(ShownNodeState::of(NodeState::Active, AdminState::Drain), ShownNodeState::Draining);
    }
}
