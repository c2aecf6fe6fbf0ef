//! The inputs and effects of a node. Owns the two lists. Must never know which input causes which effect: `Node::handle`
//! does.

use super::session::{Login, Outcome};
use super::{AdminState, Note};
use crate::ami::action::Action;
use crate::ami::event::Event;
use crate::ami::outcome::{Answer, Tag};
use crate::ids::{Now, SessionId};
use crate::ring_policy::RingSettings;

/// What happens to a node.
#[derive(Debug)]
pub enum Input<'a> {
    /// The AMI connection is over. `gone`: nobody listens there any more, or Asterisk said that it stops.
    Closed {
        /// Asterisk is known to be gone, and all calls with it.
        gone: bool,
    },
    /// AMI: whether Asterisk is shutting down, when that changes. Said again by every connection.
    ShuttingDown(bool),
    /// AMI: something happened.
    Event(Event<'a>),
    /// AMI: an event that matters could not be read.
    Gap,
    /// AMI: the answer to an [`Effect::Ami`].
    Answer(Tag, Answer),
    /// Redis: an order to ring, when Redis was asked for it, and when it was placed.
    Ring(Login, Now, Now),
    /// Redis: an order to hang up.
    HangUp(SessionId),
    /// Redis: what it believes of this node's sessions, with every heartbeat, and when that was sent.
    Recorded(Vec<(SessionId, RecordedState)>, Now),
    /// Redis: the answer to an [`Effect::Adopt`], for sessions whose agent has moved on.
    Stale(Vec<SessionId>),
    /// Redis: this node has just been registered and Redis knows nothing of it.
    Registered,
    /// Redis: whether this node takes logins.
    AdminState(AdminState),
    /// The operator wants phones rung otherwise from now on.
    Settings(RingSettings),
    /// A deadline has passed.
    Timer,
    /// The daemon stops: what was not written to Asterisk is given back, and so is every order from now on.
    Stopping,
}

/// The state of a session in Redis, as far as its node cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordedState {
    /// Its order has not been taken.
    Placed,
    /// Ringing.
    Ringing,
    /// Live.
    Live,
    /// Ringing or live, and its agent has asked to be logged out.
    HangupRequested,
    /// In the node's set, but over or unknown.
    Gone,
}

/// An action for the daemon to carry out.
#[derive(Debug)]
pub enum Effect {
    /// Send an action to Asterisk. Originates bring their own ActionID.
    Ami {
        /// Comes back with the answer.
        tag: Tag,
        /// The ActionID, if it is not the link's to choose.
        action_id: Option<String>,
        /// The action.
        action: Action,
    },
    /// Tell Redis what became of a session. Who it was is known unless only Redis knew the session.
    Report(SessionId, Option<Login>, Outcome),
    /// Tell Redis that this session lives here.
    Adopt(Login, Live),
    /// Tell Redis who waits for their turn to ring: all of them, in their order.
    RingQueue(Vec<SessionId>),
    /// The node's state changed: send a heartbeat now.
    Beat,
    /// Something an operator should read.
    Note(Note),
}

/// Whether an adopted session is live or still ringing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Live {
    /// The call is up.
    Yes,
    /// It is still ringing.
    NotYet,
}
