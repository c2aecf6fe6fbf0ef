//! The state of a node as one word. Owns the words. Must never know the reason for a state: the state machine does.

use super::keyword::keywords;

keywords! {
    /// How the node is, for the heartbeat.
    #[derive(Default)]
    NodeState {
        /// Asterisk has not been in sync yet.
        #[default]
        Starting = "starting",
        /// In sync: may be given logins.
        Active = "active",
        /// Asterisk is shutting down: it takes no new calls, and may let the others end in peace.
        Stopping = "stopping",
        /// Asterisk is away.
        Down = "down",
    }
}

/// Whether a node takes logins: an operator's word, which outlives daemons.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdminState {
    /// It does.
    Ready,
    /// It does not; what it has stays until it ends.
    Drain,
}
