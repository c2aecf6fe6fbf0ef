//! What Redis says, in the shape that people and programs read: the JSON keys here are stable. Owns those shapes.
//! Must never know how they are printed.

use std::fmt;

use serde::{Serialize, Serializer};
use utoipa::ToSchema;

use super::LeftOutRow;
pub use super::reasons::{EndReason, IneligibleReason, OwnReason, PlacementReason, RefusalReason, reason_text};
use super::reasons::{reason, serialize_reason};
pub use super::states::{Parsed, SessionState, ShownNodeState};
use crate::config::{HostAddress, SipUri};
use crate::ids::{Alias, SessionId};
use crate::node::roster::PhoneState;

/// The most sessions that one list holds.
pub const SESSIONS_MOST: usize = 100_000;

/// Which sessions to list.
#[derive(Debug, Clone, Copy)]
pub enum Which {
    /// Placed, ringing or live.
    Open,
    /// Those, and what ended within `placement.session_keep`.
    All,
    /// This one, if it is still readable.
    One(SessionId),
}

/// One node in a placement: may it ring the phone, and why not.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Candidate {
    /// The node.
    pub name: String,
    /// Whether it was a candidate.
    pub eligible: bool,
    /// Why not.
    #[serde(serialize_with = "serialize_reason")]
    #[schema(value_type = String)]
    pub reason: Option<Parsed<IneligibleReason>>,
    /// Its load at the choice: open local sessions divided by weight.
    pub load: f64,
}

/// What became of a request to log in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// A node was chosen and has the order.
    Placed,
    /// The agent or the phone has this session already.
    Existing,
    /// No session was made.
    Refused,
    /// Nothing was decided: Redis was away or empty, and not all nodes have reported since. Ask again.
    NotNow,
    /// Explain: a node would be chosen.
    WouldPlace,
}

/// What a placement says of the session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlacementState {
    /// Its state.
    Session(Parsed<SessionState>),
    /// There is none: the login was refused.
    Refused,
    /// There is none: it was only explained.
    WouldPlace,
    /// There is none yet.
    NotNow,
}

impl PlacementState {
    /// Whether it is that of a session in this state.
    pub fn is(&self, state: SessionState) -> bool {
        matches!(self, Self::Session(known) if *known == state)
    }

    /// The word in JSON.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Session(state) => state.as_str(),
            Self::Refused => "refused",
            Self::WouldPlace => "would-place",
            Self::NotNow => "not-now",
        }
    }
}

impl fmt::Display for PlacementState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Serialize for PlacementState {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// A placement: the choice and what led to it.
#[derive(Debug, Clone, Serialize)]
pub struct Placement {
    /// What became of it.
    #[serde(skip)]
    pub verdict: Verdict,
    /// The session; for a refusal the one that is in the way, if there is one.
    pub session: Option<SessionId>,
    /// The node; empty if none.
    pub node: String,
    /// The session's state; `refused` or `not-now` if there is none.
    pub state: PlacementState,
    /// Why it was refused, or the reason of the session that exists.
    #[serde(serialize_with = "serialize_reason")]
    pub reason: Option<PlacementReason>,
    /// The alias that was asked for.
    #[serde(skip)]
    pub alias: String,
    /// What the agent of the session logged in with; empty if there is no session.
    #[serde(skip)]
    pub session_alias: String,
    /// The phone of the session, or the one that would ring.
    #[serde(skip)]
    pub extension: String,
    /// The agent of the session.
    #[serde(skip)]
    pub agent: String,
    /// Where the agent was logged out for it.
    #[serde(skip)]
    pub moved_from: Option<MovedFrom>,
    /// Every node that was looked at, by name.
    pub nodes: Vec<Candidate>,
}

/// The session that ends because its agent moves to another phone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct MovedFrom {
    /// The session.
    pub session: String,
    /// Its phone.
    pub extension: String,
    /// Its node.
    pub node: String,
}

impl MovedFrom {
    /// Reads `SESSION EXTENSION NODE`; an empty text is none.
    fn read(text: &str) -> Option<Self> {
        let mut words = text.split(' ').map(str::to_owned);
        Some(Self { session: words.next()?, extension: words.next()?, node: words.next()? })
    }
}

/// `place.lua`'s reply, as it comes: outcome, session, node, state, reason, extension, agent, alias, moved from, rows.
pub(super) type PlaceReply =
    (String, String, String, String, String, String, String, String, String, Vec<(String, String, String, f64)>);

impl Placement {
    pub(super) fn from_reply(reply: PlaceReply, alias: &Alias) -> Self {
        let (outcome, session, node, state, words, extension, agent, session_alias, was, rows) = reply;
        let verdict = match outcome.as_str() {
            "placed" => Verdict::Placed,
            "existing" => Verdict::Existing,
            "would-place" => Verdict::WouldPlace,
            "not-now" => Verdict::NotNow,
            _ => Verdict::Refused,
        };
        let session = session.parse().ok();
        let (state, reason) = match verdict {
            Verdict::Placed | Verdict::Existing => {
                (PlacementState::Session(state.into()), reason(&words).map(PlacementReason::Session))
            }
            Verdict::Refused => (PlacementState::Refused, reason(&words).map(PlacementReason::Refusal)),
            Verdict::WouldPlace => (PlacementState::WouldPlace, reason(&words).map(PlacementReason::Refusal)),
            Verdict::NotNow => (PlacementState::NotNow, reason(&words).map(PlacementReason::Refusal)),
        };
        let candidate = |(name, _extension, why, load): (String, String, String, f64)| Candidate {
            eligible: why.is_empty(),
            name,
            reason: self::reason(&why),
            load,
        };
        let mut nodes: Vec<_> = rows.into_iter().map(candidate).collect();
        nodes.sort_by(|a, b| a.name.cmp(&b.name));
        let (alias, moved_from) = (alias.to_string(), MovedFrom::read(&was));
        Self { verdict, session, node, state, reason, alias, session_alias, extension, agent, moved_from, nodes }
    }
}

/// One node of the cluster.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct NodeRow {
    /// Its name.
    pub name: String,
    /// How it is.
    #[schema(value_type = String)]
    pub state: Parsed<ShownNodeState>,
    /// Open sessions of local agents.
    pub agents: u64,
    /// Open sessions of remote agents.
    pub remote: u64,
    /// `agents` divided by `weight`.
    pub load: f64,
    /// Its share.
    pub weight: u64,
    /// Sessions that wait for their turn to ring; they are among those above.
    pub queued: u64,
    /// Its cap of local agents.
    pub max_agents: Option<u64>,
    /// Where carriers and proxies send its calls.
    #[schema(value_type = Option<String>)]
    pub sip: Option<SipUri>,
    /// The host under which others reach it.
    #[schema(value_type = Option<String>)]
    pub address: Option<HostAddress>,
    /// Phones that can ring there; none can be told of a node that is not in sync with its Asterisk now.
    pub registrations: Option<u64>,
    /// Channels in its Asterisk.
    pub channels: u64,
    /// What is left of its lease, in ms; 0 if it has ended.
    pub lease_ms: u64,
    /// The life of its daemon.
    pub generation: String,
    /// How often an older life of it was refused.
    pub refused: u64,
    /// Of its daemon.
    pub version: String,
    /// How it compares names: exact or fold.
    pub case: String,
    /// Phones of its Asterisk with which nobody can log in there.
    pub left_out: Vec<LeftOutRow>,
    /// Why it takes no logins, and what to do; empty if it takes them.
    pub reason: String,
    /// Another daemon that wants this name and waits for it: its host and process; empty if none does.
    pub claimant: String,
    /// The runs of the keepalive command there, if there was one.
    pub keepalive: Option<KeepaliveRow>,
    /// Settings that a reload has changed there and that need a restart.
    pub restart_pending: Vec<String>,
    /// Nobody can tell now how it is: Redis was away or empty until a moment ago.
    #[serde(skip)]
    pub unsure: bool,
    /// The host of its daemon.
    #[serde(skip)]
    pub host: String,
}

/// How often the keepalive command has run on a node, and how it went the last time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct KeepaliveRow {
    /// How often.
    pub runs: u64,
    /// When it began the last time: ms since 1970, on Redis's clock.
    pub at: u64,
    /// Why.
    pub reason: String,
    /// How it ended; empty while it runs.
    pub result: String,
}

impl NodeRow {
    pub(super) fn from_reply(row: &[String]) -> Self {
        let text = |at: usize| row.get(at).cloned().unwrap_or_default();
        let number = |at: usize| row.get(at).and_then(|text| text.parse().ok()).unwrap_or(0);
        let (agents, weight) = (number(2), number(4).max(1));
        let state: Parsed<ShownNodeState> = text(1).into();
        Self {
            name: text(0),
            reason: reason_of(&state, &text(0), text(21)),
            agents,
            remote: number(3),
            load: ratio(agents, weight),
            weight,
            max_agents: text(5).parse().ok(),
            sip: text(23).parse().ok(),
            address: text(24).parse().ok(),
            registrations: state.is_in_sync().then(|| number(6)),
            state,
            channels: number(7),
            // A lease that has ended is a negative number, which is no u64.
            lease_ms: number(8),
            generation: text(9),
            refused: number(13),
            version: text(10),
            case: text(19),
            claimant: holder_text(&text(22)),
            left_out: serde_json::from_str(&text(20)).unwrap_or_default(),
            queued: number(14),
            keepalive: (number(15) > 0).then(|| KeepaliveRow {
                runs: number(15),
                at: number(16),
                reason: text(17),
                result: text(18),
            }),
            restart_pending: Vec::new(),
            unsure: number(25) == 1,
            host: text(11).split(['/', ' ']).next().unwrap_or_default().to_owned(),
        }
    }
}

/// A holder of a node's name as Redis has it (host, boot and lock with slashes between them, a blank, the process), for
/// people: `tel-1 (pid 7)`.
pub fn holder_text(holder: &str) -> String {
    let host = holder.split(['/', ' ']).next().unwrap_or_default();
    match holder.split_once(' ') {
        Some((_, process)) => format!("{host} ({process})"),
        None => host.to_owned(),
    }
}

/// Why a node in this state takes no logins: what its daemon has said, or what can be told without it.
fn reason_of(state: &Parsed<ShownNodeState>, name: &str, said: String) -> String {
    let Parsed::Known(state) = state else { return said };
    match state {
        ShownNodeState::Active => String::new(),
        ShownNodeState::Draining => format!("drained by operators; evenring resume {name} takes it back"),
        ShownNodeState::Stopped => "its daemon was stopped; systemctl start evenring there".to_owned(),
        ShownNodeState::LeaseExpired => "no heartbeat: its host or daemon is down, or cannot reach Redis; see \
            systemctl status evenring there"
            .to_owned(),
        ShownNodeState::Unknown => format!("Redis has only its name; if it is gone, evenring forget {name}"),
        ShownNodeState::Starting | ShownNodeState::Down | ShownNodeState::Stopping if said.is_empty() => {
            "see systemctl status evenring there".to_owned()
        }
        ShownNodeState::Starting | ShownNodeState::Down | ShownNodeState::Stopping => said,
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of people are far below 2^52")]
fn ratio(agents: u64, weight: u64) -> f64 {
    agents as f64 / weight as f64
}

/// One session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct SessionRow {
    /// The session.
    pub session: String,
    /// What the agent logged in with.
    pub alias: String,
    /// The phone.
    pub extension: String,
    /// The person.
    pub agent: String,
    /// The campaign; empty if none.
    pub campaign: String,
    /// Where.
    pub node: String,
    /// How far it is.
    #[schema(value_type = String)]
    pub state: Parsed<SessionState>,
    /// How many are rung before them, and themselves; only while queued.
    pub queue_position: Option<u64>,
    /// Whether the agent is remote.
    pub remote: bool,
    /// Why it ended; of one that is open, why it was placed again.
    #[serde(serialize_with = "serialize_reason")]
    #[schema(value_type = String)]
    pub reason: Option<EndReason>,
    /// When its state last changed: ms since 1970, on Redis's clock.
    pub since: u64,
    /// The session that was lost with its node and that this one replaces; empty if none.
    pub rejoined_from: String,
    /// No daemon rings it or hangs it up: whoever asked for it does (a hold).
    pub hold: bool,
}

impl SessionRow {
    pub(super) fn from_reply(row: Vec<Option<String>>) -> Option<Self> {
        let mut cells = row.into_iter();
        let mut next = || cells.next().flatten();
        let mut row = Self {
            session: next()?,
            alias: next()?,
            extension: next()?,
            agent: next()?,
            campaign: next().unwrap_or_default(),
            node: next()?,
            state: next()?.into(),
            queue_position: None,
            remote: next().is_some_and(|flag| flag == "1"),
            reason: reason(&next().unwrap_or_default()),
            since: next().and_then(|text| text.parse().ok()).unwrap_or(0),
            // Behind the try and the time of creation.
            rejoined_from: cells.nth(2).flatten().unwrap_or_default(),
            hold: false,
        };
        row.queue_position = cells.next().flatten().and_then(|place| place.parse().ok());
        if row.queue_position.is_some() {
            row.state = Parsed::Known(SessionState::Queued);
        }
        row.hold = cells.next().flatten().is_some_and(|flag| flag == "1");
        Some(row)
    }

    /// Whether it is over.
    pub fn is_over(&self) -> bool {
        match self.state {
            Parsed::Known(state) => state.is_over(),
            Parsed::Other(_) => false,
        }
    }
}

/// One phone on one node.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct PhoneRow {
    /// The phone.
    pub extension: String,
    /// Where.
    pub node: String,
    /// Whether it can ring there.
    #[schema(value_type = String)]
    pub state: Parsed<PhoneState>,
    /// Address, round trip and expiry, if a second AMI user is configured there.
    #[schema(value_type = Option<Object>)]
    pub contact: Option<serde_json::Value>,
}

/// One explicit alias.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AliasRow {
    /// The alias.
    pub alias: String,
    /// Where it may ring: extension@node.
    pub phones: Vec<String>,
}
