//! Whether a cluster kept its promises through a fault. Pure: what was seen goes in, what is wrong comes out.
//!
//! Owns the rules. Must never ask anybody anything, nor know which fault there was but by what it was allowed to do.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use evenring::ids::SessionId;
use evenring::registry::view::{NodeRow, SessionRow, SessionState, ShownNodeState, reason_text};

use super::mistakes;
use crate::lab::phone::{Record, What};

/// What somebody who wanted to log in was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// A session was made.
    Accepted,
    /// None was made, and this is why.
    Refused(String),
    /// Redis could not be asked. Perhaps a session was made.
    Error(String),
}

/// One attempt to log in. Whoever asks again with the same alias has the same phone.
#[derive(Debug, Clone)]
pub struct Asked {
    /// With what.
    pub alias: String,
    /// The node that was chosen for a new session; empty if none was made.
    pub node: String,
    /// The session that it would be, if that is known.
    pub session: Option<SessionId>,
    /// When.
    pub at: Instant,
    /// How long the answer took.
    pub took: Duration,
    /// The answer.
    pub answer: Answer,
}

/// One channel that rings an agent, as Asterisk's console shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Channel {
    /// Its session.
    pub session: String,
    /// The phone.
    pub phone: String,
    /// `Up`, `Ringing`, …
    pub state: String,
}

/// What the fault may do to those who were live when it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Calls {
    /// Nothing: the same sessions go on.
    Stay,
    /// They may be lost with their node; then the agents are rung elsewhere, as they were.
    Move,
}

/// What the fault may do to Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    /// Nothing.
    Stays,
    /// It loses what was written last, or all. Who asks for such a session is told that it is forgotten.
    Fades,
}

/// A phone or a node that does not hear, or is not heard, from some moment on: others cannot know of a call that it has,
/// and it cannot know that a call is over. When it hears again, a call that was on its way may ring for a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deaf {
    /// Who.
    pub who: Who,
    /// Since when.
    pub from: Instant,
    /// When it heard again, if it does.
    pub until: Option<Instant>,
}

/// Who does not hear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// A node: dead, frozen, or thought dead by the others.
    Node(Ipv4Addr),
    /// A phone that lost its power.
    Phone(String),
}

/// For so long Asterisk repeats an INVITE that nobody confirms: the 64 T1 of RFC 3261, timer B.
const REPEATS_FOR: Duration = Duration::from_secs(32);
/// What it sends last comes so long after the first. Half a second later it has forgotten the call: when the phone rings
/// then, nobody takes it back.
const LAST_REPEAT: Duration = Duration::from_secs(31);
/// A call that comes late is taken back so fast.
const TAKEN_BACK: Duration = Duration::from_secs(2);

impl Deaf {
    fn is_in(&self, ring: &Record) -> bool {
        match &self.who {
            Who::Node(node) => *node == ring.node,
            Who::Phone(phone) => *phone == ring.phone,
        }
    }

    /// The moment from which this call could go on for one side, and be over for the other.
    fn explains(&self, ring: &Record) -> Option<Instant> {
        let before = self.until.is_none_or(|until| ring.at <= until);
        (self.is_in(ring) && before).then_some(self.from.max(ring.at))
    }

    /// Whether this call may come late.
    fn delays(&self, ring: &Record) -> bool {
        self.is_in(ring) && self.from <= ring.at && self.until.is_none_or(|until| ring.at <= until + REPEATS_FOR)
    }

    /// Whether a call that rings from this moment on has nothing to do with it any more.
    pub fn is_past(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now > until + REPEATS_FOR)
    }
}

/// What the fault did, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Strike {
    /// The node that must leave the rotation: its name and its address.
    pub victim: Option<(String, Ipv4Addr)>,
    /// When it came.
    pub at: Instant,
    /// When Redis was first seen to have the victim out of the rotation, and when last.
    pub out: Option<(Instant, Instant)>,
}

/// All that was seen of one round.
#[derive(Debug, Clone)]
pub struct Evidence {
    /// The fault.
    pub strike: Strike,
    /// Those who ask again until they are accepted: their aliases. Each of them picks up, sooner or later.
    pub persistent: BTreeSet<String>,
    /// Nodes that were seen out of the rotation, if this fault may take none out of it.
    pub left: BTreeSet<String>,
    /// Those who asked to log in while the fault was there.
    pub asked: Vec<Asked>,
    /// The sessions that were live when it came.
    pub before: Vec<SessionRow>,
    /// What it may do to them.
    pub calls: Calls,
    /// And to Redis.
    pub memory: Memory,
    /// All sessions in Redis at the end, also those that are over.
    pub sessions: Vec<SessionRow>,
    /// All nodes in Redis at the end.
    pub nodes: Vec<NodeRow>,
    /// How many PJSIP phones each node's Asterisk can ring at the end.
    pub phones: BTreeMap<String, u64>,
    /// The channels in each node's Asterisk at the end.
    pub channels: BTreeMap<String, Vec<Channel>>,
    /// What the phones saw, oldest first.
    pub rings: Vec<Record>,
    /// Who did not hear.
    pub deaf: Vec<Deaf>,
    /// How often one login may be tried.
    pub tries: usize,
}

/// Everything that is not as promised.
pub fn judge(seen: &Evidence) -> Vec<String> {
    let mut wrong = Vec::new();
    wrong.extend(logins(seen));
    wrong.extend(agents(seen));
    wrong.extend(rings(seen));
    wrong.extend(two_at_a_time(seen));
    wrong.extend(loads(seen));
    wrong.extend(rotation(seen));
    wrong.extend(mistakes::all(seen));
    wrong
}

/// What became of a login: P4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate<'a> {
    /// Redis knows no such session.
    Unknown,
    /// Neither live nor over.
    Open(&'a SessionRow),
    /// The agent has answered.
    Live(&'a SessionRow),
    /// Over.
    Over(&'a SessionRow),
}

/// The fate of the newest session of an attempt.
pub fn fate<'a>(asked: &Asked, sessions: &'a [SessionRow]) -> Fate<'a> {
    let id = asked.session.map(|id| id.to_string());
    let same = |row: &&SessionRow| match &id {
        Some(id) => row.session == *id,
        None => row.alias == asked.alias,
    };
    match sessions.iter().filter(same).max_by_key(|row| row.since) {
        None => Fate::Unknown,
        Some(row) if row.state == SessionState::Live => Fate::Live(row),
        Some(row) if row.is_over() => Fate::Over(row),
        Some(row) => Fate::Open(row),
    }
}

fn logins(seen: &Evidence) -> Vec<String> {
    let wrong = seen.asked.iter().filter_map(|asked| match (fate(asked, &seen.sessions), &asked.answer) {
        (Fate::Live(_), _) => None,
        (Fate::Over(row), _) if row.reason.is_some() => None,
        (Fate::Over(row), _) => Some(format!("P4: {} is {} without a reason", asked.alias, row.state)),
        (Fate::Open(row), _) => Some(format!("P4: {} on {} is {} for ever", asked.alias, row.node, row.state)),
        (Fate::Unknown, Answer::Accepted) if seen.memory == Memory::Stays => {
            Some(format!("P4: {} was accepted, and Redis does not know the session", asked.alias))
        }
        (Fate::Unknown, Answer::Accepted | Answer::Refused(_) | Answer::Error(_)) => None,
    });
    wrong.collect()
}

/// Those who were live are so still: P7, P9.
fn agents(seen: &Evidence) -> Vec<String> {
    let live = |test: &dyn Fn(&SessionRow) -> bool| {
        seen.sessions.iter().filter(|row| row.state == SessionState::Live && test(row)).count()
    };
    let wrong = seen.before.iter().filter_map(|was| {
        let (found, promise) = match seen.calls {
            Calls::Stay => (live(&|row| row.session == was.session && row.node == was.node), "P7"),
            Calls::Move => (live(&|row| row.agent == was.agent && row.alias == was.alias), "P9"),
        };
        let now = seen.sessions.iter().filter(|row| row.agent == was.agent);
        let text = |row: &SessionRow| {
            format!("{} {} on {} {}", row.session, row.state, row.node, reason_text(row.reason.as_ref()))
        };
        let now: Vec<String> = now.map(text).collect();
        (found != 1).then(|| {
            format!("{promise}: agent {} was live on {} as {}; now: {now:?}", was.agent, was.node, was.session)
        })
    });
    wrong.collect()
}

/// The session that an INVITE is for: the lab's daemons give it as the caller's name.
pub fn session_of(from: &str) -> Option<&str> {
    let name = from.split('"').nth(1)?;
    (name.len() == 16 && name.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(name)
}

/// INVITEs by session and node: P1.
fn rings(seen: &Evidence) -> Vec<String> {
    let mut by_session = BTreeMap::<&str, Vec<&Record>>::new();
    let mut wrong = Vec::new();
    for ring in seen.rings.iter().filter(|record| record.what == What::Invite) {
        match session_of(&ring.from) {
            Some(session) => by_session.entry(session).or_default().push(ring),
            None => wrong.push(format!("P1: {} rang {} for no session: {}", ring.node, ring.phone, ring.from)),
        }
    }
    for (session, rings) in by_session {
        let nodes: BTreeSet<Ipv4Addr> = rings.iter().map(|ring| ring.node).collect();
        let phones: BTreeSet<&str> = rings.iter().map(|ring| ring.phone.as_str()).collect();
        if rings.len() > nodes.len() || rings.len() > seen.tries || phones.len() > 1 {
            let words: Vec<String> = rings.iter().map(|ring| format!("{} by {}", ring.phone, ring.node)).collect();
            wrong.push(format!("P1: session {session} rang more than once a try: {words:?}"));
        }
    }
    wrong
}

/// When the phone was told, or said itself, that this call is over.
fn told(seen: &Evidence, ring: &Record) -> Option<Instant> {
    let told = seen.rings.iter().filter(|record| record.call_id == ring.call_id && record.phone == ring.phone);
    let told = told.filter(|record| match record.what {
        What::Invite => false,
        What::Cancel | What::Bye => true,
        What::Answer(code) => code >= 300,
    });
    told.map(|record| record.at).min()
}

/// When a call of this phone was over for it, or nobody could tell it any more.
fn end(seen: &Evidence, ring: &Record) -> Option<Instant> {
    seen.deaf.iter().filter_map(|deaf| deaf.explains(ring)).chain(told(seen, ring)).min()
}

fn is_taken_back(seen: &Evidence, ring: &Record) -> bool {
    told(seen, ring).is_some_and(|end| end.duration_since(ring.at) <= TAKEN_BACK)
}

/// Whether this call came late from a node that had not heard, and was taken back or the very last one.
fn is_late(seen: &Evidence, ring: &Record) -> bool {
    let back = is_taken_back(seen, ring);
    seen.deaf.iter().any(|deaf| deaf.delays(ring) && (back || ring.at >= deaf.from + LAST_REPEAT))
}

/// How many calls came from a node that did not hear for a while, after this moment, and were taken back.
pub fn late(seen: &Evidence, after: Instant) -> usize {
    let rings = seen.rings.iter().filter(|ring| ring.what == What::Invite && ring.at > after);
    rings.filter(|ring| is_taken_back(seen, ring) && seen.deaf.iter().any(|deaf| deaf.delays(ring))).count()
}

/// No phone has two calls at once, ringing or answered: P1.
fn two_at_a_time(seen: &Evidence) -> Vec<String> {
    let mut calls = BTreeMap::<&str, Vec<(&Record, Option<Instant>)>>::new();
    for ring in seen.rings.iter().filter(|record| record.what == What::Invite) {
        calls.entry(&ring.phone).or_default().push((ring, end(seen, ring)));
    }
    let mut wrong = Vec::new();
    for (phone, calls) in calls {
        for (at, (first, end)) in calls.iter().enumerate() {
            for (second, _) in &calls[at + 1..] {
                if end.is_none_or(|end| end > second.at) && !is_late(seen, second) {
                    let later = second.at.duration_since(first.at);
                    let (one, two) = (first.node, second.node);
                    wrong.push(format!("P1: {phone} had a call from {one} when {two} rang it, {later:?} after that"));
                }
            }
        }
    }
    wrong
}

/// Redis and Asterisk agree: P5.
fn loads(seen: &Evidence) -> Vec<String> {
    let mut wrong = Vec::new();
    for node in &seen.nodes {
        let open = seen.sessions.iter().filter(|row| row.node == node.name && !row.is_over());
        let (redis, local): (BTreeSet<&str>, usize) =
            (open.clone().map(|row| row.session.as_str()).collect(), open.filter(|row| !row.remote).count());
        let none = Vec::new();
        let channels = seen.channels.get(&node.name).unwrap_or(&none);
        let asterisk: BTreeSet<&str> = channels.iter().map(|channel| channel.session.as_str()).collect();
        for ghost in redis.difference(&asterisk) {
            wrong.push(format!(
                "P5: {}: a ghost: session {ghost} is open in Redis, and Asterisk has no such call",
                node.name
            ));
        }
        for lost in asterisk.difference(&redis) {
            wrong.push(format!(
                "P5: {}: Asterisk has a call of session {lost}, which is not open in Redis there",
                node.name
            ));
        }
        if channels.len() != asterisk.len() {
            wrong.push(format!("P5: {}: two calls of one session: {channels:?}", node.name));
        }
        let up = channels.iter().filter(|channel| channel.state == "Up").count();
        let counts = [node.agents + node.remote, node.channels, up as u64];
        if counts.iter().any(|count| *count != channels.len() as u64) || node.agents != local as u64 {
            let all = channels.len();
            wrong.push(format!(
                "P5: {}: Redis says {} agents, {} remote and {} channels; Asterisk has {all}, {up} of them up",
                node.name, node.agents, node.remote, node.channels
            ));
        }
    }
    wrong
}

/// Every node is back: P6, P8.
fn rotation(seen: &Evidence) -> Vec<String> {
    let mut wrong: Vec<String> = Vec::new();
    let missing = seen.channels.keys().filter(|name| !seen.nodes.iter().any(|node| node.name == **name));
    wrong.extend(missing.map(|name| format!("P12: Redis does not know node {name}")));
    for node in &seen.nodes {
        if node.state != ShownNodeState::Active {
            wrong.push(format!("P6: node {} is {}", node.name, node.state));
        }
        let phones = seen.phones.get(&node.name).copied().unwrap_or_default();
        // There may be more, of other channel drivers.
        if node.registrations < Some(phones) {
            let known = node.registrations.unwrap_or_default();
            wrong.push(format!("P12: node {} has {known} phones, not {phones}", node.name));
        }
    }
    wrong
}
