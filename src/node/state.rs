//! How a node is, in one word. Owns the words. Must never know why: the machine does.

/// How the node is, for the heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NodeState {
    /// Asterisk has not been in sync yet.
    #[default]
    Starting,
    /// In sync: may be given logins.
    Active,
    /// Asterisk is shutting down: it takes no new calls, and may let the others end in peace.
    Stopping,
    /// Asterisk is away.
    Down,
}

impl NodeState {
    /// The word in Redis.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Active => "active",
            Self::Stopping => "stopping",
            Self::Down => "down",
        }
    }
}

/// Whether a node takes logins: an operator's word, which outlives daemons.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Duty {
    /// It does.
    Serving,
    /// It does not; what it has stays until it ends.
    Draining,
}
