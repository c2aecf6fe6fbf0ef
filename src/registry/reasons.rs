//! The reasons in Redis as enums: why a node is not eligible, why a login is refused, why a session is as it is. Owns
//! these words. Must never know where they are shown.

use std::fmt;

use serde::{Serialize, Serializer};

use super::states::Parsed;
use crate::node::keyword::{Keyword as _, keywords};
use crate::node::session::Reason;

keywords! {
    /// Why a node may not ring a login.
    IneligibleReason {
        /// Its daemon was stopped.
        Stopped = "stopped",
        /// No heartbeat came for a lease.
        LeaseExpired = "lease-expired",
        /// Its Asterisk has not been in sync yet.
        Starting = "starting",
        /// Its Asterisk is unavailable.
        Down = "down",
        /// Its Asterisk is shutting down.
        Stopping = "stopping",
        /// No daemon of that name has registered.
        UnknownNode = "unknown-node",
        /// Operators have drained it.
        Draining = "draining",
        /// It does not serve this campaign.
        Campaign = "campaign",
        /// Its Asterisk has no such endpoint.
        UnknownPhone = "unknown-phone",
        /// The phone has no contact there.
        Unregistered = "unregistered",
        /// The phone's contact does not answer.
        Unreachable = "unreachable",
        /// It has as many agents as it may have.
        Full = "full",
        /// It could not ring this login before.
        Tried = "tried",
        /// Another session holds the phone.
        PhoneInUse = "phone-in-use",
    }
}

keywords! {
    /// Why a login got no session, or none yet.
    RefusalReason {
        /// No node can ring the phone: each has a reason.
        NoEligibleNode = "no-eligible-node",
        /// No node knows such a phone, and it is no explicit alias.
        UnknownAlias = "unknown-alias",
        /// The explicit alias names no phone.
        EmptyAlias = "empty-alias",
        /// Another agent is logged in there.
        InUse = "in-use",
        /// The agent is logged in with another phone.
        LoggedInElsewhere = "logged-in-elsewhere",
        /// Not all nodes have reported since Redis was unavailable.
        Recovering = "recovering",
        /// No node has registered.
        NoNode = "no-node",
    }
}

impl RefusalReason {
    /// Whether the login is over. Otherwise nothing was decided, and it can be tried again.
    pub fn is_final(self) -> bool {
        match self {
            Self::NoEligibleNode | Self::UnknownAlias | Self::EmptyAlias | Self::InUse | Self::LoggedInElsewhere => {
                true
            }
            Self::Recovering | Self::NoNode => false,
        }
    }
}

keywords! {
    /// What a script or a command says of a session, and no node reports.
    OwnReason {
        /// No node fetched the order in time.
        OrderExpired = "order-expired",
        /// Nobody said in time that the agent of a hold is on the phone.
        HoldExpired = "hold-expired",
        /// The daemon of its node was stopped before it could ring.
        Stopped = "stopped",
        /// Its node was not in sync with Asterisk when it fetched the order.
        Starting = "starting",
        /// The Asterisk of its node was unavailable when that fetched the order.
        Down = "down",
        /// Its agent has moved to another phone.
        Moved = "moved",
        /// Redis has lost it while `evenring logout` waited for its end.
        Forgotten = "forgotten",
        /// Redis has lost it while `evenring login` waited for the phone.
        ForgottenByRedis = "forgotten-by-redis",
        /// `evenring logout` found no session.
        NotLoggedIn = "not-logged-in",
    }
}

/// Why a session is over, or is placed again.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum EndReason {
    /// A node reported it, or a script on behalf of one.
    Node(Reason),
    /// A script or a command says it.
    Own(OwnReason),
    /// Words of another version, as they are.
    Other(String),
}

impl From<&str> for EndReason {
    fn from(words: &str) -> Self {
        match (Reason::parse(words), OwnReason::of(words)) {
            (Some(reason), _) => Self::Node(reason),
            (None, Some(reason)) => Self::Own(reason),
            (None, None) => Self::Other(words.to_owned()),
        }
    }
}

impl fmt::Display for EndReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(reason) => reason.fmt(f),
            Self::Own(reason) => f.write_str(reason.as_str()),
            Self::Other(words) => f.write_str(words),
        }
    }
}

/// The reason that comes with a placement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlacementReason {
    /// Why there is no session.
    Refusal(Parsed<RefusalReason>),
    /// That of the session which exists.
    Session(EndReason),
}

impl fmt::Display for PlacementReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refusal(reason) => reason.fmt(f),
            Self::Session(reason) => reason.fmt(f),
        }
    }
}

/// Reads a reason; an empty text is none.
pub(super) fn reason<T: for<'a> From<&'a str>>(words: &str) -> Option<T> {
    (!words.is_empty()).then(|| words.into())
}

/// A reason as it is shown; no reason is an empty text.
pub fn reason_text<T: fmt::Display>(reason: Option<&T>) -> String {
    reason.map(ToString::to_string).unwrap_or_default()
}

/// The same in JSON.
#[expect(clippy::ref_option, reason = "serde's signature")]
pub(super) fn serialize_reason<T: fmt::Display, S: Serializer>(
    reason: &Option<T>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    reason_text(reason.as_ref()).serialize(serializer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(words: &str, expected: &EndReason) {
        let parsed = EndReason::from(words);
        assert_eq!((&parsed, parsed.to_string().as_str()), (expected, words));
    }

    #[test]
    fn every_reason_of_a_session_reads_back() {
        for reason in Reason::ALL {
            check(&reason.to_string(), &EndReason::Node(reason));
        }
        for reason in OwnReason::ALL {
            check(reason.as_str(), &EndReason::Own(reason));
        }
        check("congestion-34", &EndReason::Node(Reason::Congestion(34)));
        check(
            "refused: Extension does not exist.",
            &EndReason::Node(Reason::Refused("Extension does not exist.".into())),
        );
        // No word is lost, whoever wrote it.
        for words in ["congestion-034", "congestion-x", "congestion-", "moved-away", "refused:"] {
            check(words, &EndReason::Other(words.to_owned()));
        }
    }
}
