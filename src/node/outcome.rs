//! How a session leaves a node, and why. Owns the words of the reasons, which stand in Redis, in JSON and in logs. Must never know
//! what evidence leads to them: `session` does.

/// How a session leaves this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The phone answered.
    Live,
    /// It was live and is over, or was called off.
    Ended(Reason),
    /// The phone's own answer, or an unknown outcome: no other node is tried.
    Failed(Reason),
    /// This node could not ring the phone: another one may.
    TryNextNode(Reason),
}

/// Why. The words are stable: they stand in Redis, in JSON and in logs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// The call was hung up.
    HungUp,
    /// `evenring logout`.
    LoggedOut,
    /// The phone is in another call (486).
    Busy,
    /// The agent pressed reject (603).
    Declined,
    /// It rang until the timeout.
    NoAnswer,
    /// The phone reported itself unavailable (480).
    PhoneUnavailable,
    /// No channel was made: not registered, unreachable or no such endpoint.
    NotReachable,
    /// The INVITE was never answered with anything.
    Silent,
    /// The phone does not know the address that was dialled (404).
    NotFound,
    /// Congestion or an error of the phone or its network (503 and its like); the Q.850 cause.
    Congestion(u16),
    /// Asterisk did not take the Originate; its own words.
    Refused(String),
    /// Asterisk or its host went away.
    NodeLost,
    /// The daemon of the node stops.
    Stopping,
    /// The node drains, and had not rung it yet.
    Draining,
    /// AMI was lost during the attempt and the channel cannot be found: the phone may have rung.
    OutcomeUnknown,
}

impl Reason {
    /// One of each: of those with more to say, one that says nothing.
    pub const ALL: [Self; 15] = [
        Self::HungUp,
        Self::LoggedOut,
        Self::Busy,
        Self::Declined,
        Self::NoAnswer,
        Self::PhoneUnavailable,
        Self::NotReachable,
        Self::Silent,
        Self::NotFound,
        Self::Congestion(0),
        Self::Refused(String::new()),
        Self::NodeLost,
        Self::Stopping,
        Self::Draining,
        Self::OutcomeUnknown,
    ];

    /// The reason without what differs from case to case.
    pub fn class(&self) -> &'static str {
        match self {
            Self::HungUp => "hung-up",
            Self::LoggedOut => "logged-out",
            Self::Busy => "busy",
            Self::Declined => "declined",
            Self::NoAnswer => "no-answer",
            Self::PhoneUnavailable => "phone-unavailable",
            Self::NotReachable => "not-reachable",
            Self::Silent => "silent",
            Self::NotFound => "not-found",
            Self::Congestion(_) => "congestion",
            Self::Refused(_) => "refused",
            Self::NodeLost => "node-lost",
            Self::Stopping => "stopping",
            Self::Draining => "draining",
            Self::OutcomeUnknown => "outcome-unknown",
        }
    }

    /// Reads the words back.
    pub fn parse(words: &str) -> Option<Self> {
        let read = match (words.strip_prefix("refused: "), words.strip_prefix("congestion-")) {
            (Some(message), _) => Self::Refused(message.to_owned()),
            (None, Some(cause)) => Self::Congestion(cause.parse().ok()?),
            (None, None) => Self::ALL.into_iter().find(|reason| reason.to_string() == words)?,
        };
        // Not `congestion-034`.
        (read.to_string() == words).then_some(read)
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.class())?;
        match self {
            Self::Congestion(cause) => write!(f, "-{cause}"),
            Self::Refused(message) => write!(f, ": {message}"),
            Self::HungUp | Self::LoggedOut | Self::Busy | Self::Declined | Self::NoAnswer => Ok(()),
            Self::PhoneUnavailable | Self::NotReachable | Self::Silent | Self::NotFound => Ok(()),
            Self::NodeLost | Self::Stopping | Self::Draining | Self::OutcomeUnknown => Ok(()),
        }
    }
}
