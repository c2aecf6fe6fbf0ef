//! The JSON documents that the command line and the HTTP API answer with: the same keys at both doors, and stable. Owns these
//! shapes. Must never know who asks.

use serde::Serialize;
use utoipa::ToSchema;

use super::drain::{Moved, Turned};
use super::view::{
    Candidate, MovedFrom, NodeRow, PhoneRow, Placement, PlacementReason, PlacementState, SessionRow, Verdict,
    reason_text,
};
use crate::ids::{NodeName, SessionId};
use crate::node::AdminState;

/// What became of a login. `session_alias`, `extension`, `agent`, `node` and `state` are those of the session.
#[derive(Debug, Serialize, ToSchema)]
pub struct LoginAnswer {
    /// What became of the request.
    pub outcome: Verdict,
    /// The alias that was asked for.
    pub alias: String,
    /// The session: the new one, the one that exists, or the one in the way.
    pub session: Option<String>,
    /// What the agent of the session logged in with.
    pub session_alias: String,
    /// The phone of the session.
    pub extension: String,
    /// The agent of the session.
    pub agent: String,
    /// The session that the agent left for it.
    pub moved_from: Option<MovedFrom>,
    /// The node of the session.
    pub node: String,
    /// The state of the session, or `refused`.
    #[schema(value_type = String)]
    pub state: PlacementState,
    /// Why.
    pub reason: String,
    /// Every node that was looked at.
    pub nodes: Vec<Candidate>,
}

impl LoginAnswer {
    /// The answer to a placement.
    pub fn of(placement: &Placement) -> Self {
        let state = (placement.node.clone(), placement.state.clone(), placement.reason.as_ref());
        Self::with_state(placement, state)
    }

    /// The same with how its session stands by now.
    pub fn with_state(
        placement: &Placement,
        (node, state, reason): (String, PlacementState, Option<&PlacementReason>),
    ) -> Self {
        Self {
            outcome: placement.verdict,
            alias: placement.alias.clone(),
            session: placement.session.map(|id| id.to_string()),
            session_alias: placement.session_alias.clone(),
            extension: placement.extension.clone(),
            agent: if placement.session.is_some() { placement.agent.clone() } else { String::new() },
            moved_from: placement.moved_from.clone(),
            node,
            state,
            reason: reason_text(reason),
            nodes: placement.nodes.clone(),
        }
    }
}

/// Where a login would ring, and why.
#[derive(Debug, Serialize, ToSchema)]
pub struct ExplainAnswer {
    /// What the agent of the session that exists is logged in with; empty if there is none.
    pub session_alias: String,
    /// Its phone, or the one that would ring.
    pub extension: String,
    /// The agent.
    pub agent: String,
    /// The node.
    pub node: String,
    /// The state of the session that exists, `would-place`, `refused` or `not-now`.
    #[schema(value_type = String)]
    pub state: PlacementState,
    /// Why.
    pub reason: String,
    /// Every node that was looked at.
    pub nodes: Vec<Candidate>,
}

impl ExplainAnswer {
    /// The answer to a placement that was only explained.
    pub fn of(placement: &Placement) -> Self {
        Self {
            session_alias: placement.session_alias.clone(),
            extension: placement.extension.clone(),
            agent: placement.agent.clone(),
            node: placement.node.clone(),
            state: placement.state.clone(),
            reason: reason_text(placement.reason.as_ref()),
            nodes: placement.nodes.clone(),
        }
    }
}

/// What became of a logout.
#[derive(Debug, Serialize, ToSchema)]
pub struct LogoutAnswer {
    /// The session; none if nobody is logged in.
    pub session: Option<String>,
    /// Its node.
    pub node: String,
    /// Its state; `none` if nobody is logged in.
    pub state: String,
    /// Why.
    pub reason: String,
}

impl LogoutAnswer {
    /// The answer about this session.
    pub fn new(session: Option<SessionId>, node: &str, state: &str, reason: &str) -> Self {
        let (node, state, reason) = (node.to_owned(), state.to_owned(), reason.to_owned());
        Self { session: session.map(|id| id.to_string()), node, state, reason }
    }
}

/// All nodes.
#[derive(Debug, Serialize, ToSchema)]
pub struct NodesAnswer {
    /// By name.
    pub nodes: Vec<NodeRow>,
    /// Why Redis takes no logins; empty if it does.
    pub redis: String,
}

/// Sessions.
#[derive(Debug, Serialize, ToSchema)]
pub struct SessionsAnswer {
    /// The oldest change first.
    pub sessions: Vec<SessionRow>,
}

/// Phones.
#[derive(Debug, Serialize, ToSchema)]
pub struct PhonesAnswer {
    /// By extension and node.
    pub phones: Vec<PhoneRow>,
}

/// What became of a request to drain or resume a node.
#[derive(Debug, Serialize, ToSchema)]
pub struct DrainAnswer {
    /// The node.
    pub node: String,
    /// Whether it drains now.
    pub draining: bool,
    /// Whether it did not before.
    pub changed: bool,
    /// The orders that it had not fetched.
    pub moved: Vec<Moved>,
    /// Local agents that are still logged in there.
    pub agents: u64,
    /// Remote agents that are still logged in there.
    pub remote: u64,
    /// How many other nodes are in the rotation.
    pub others: usize,
}

impl DrainAnswer {
    /// The answer about this node, with how many local and remote agents it still has.
    pub fn of(node: &NodeName, now: AdminState, turned: &Turned, (agents, remote): (u64, u64)) -> Self {
        Self {
            node: node.to_string(),
            draining: now == AdminState::Drain,
            changed: turned.before != now,
            moved: turned.moved.clone(),
            agents,
            remote,
            others: turned.others,
        }
    }
}
