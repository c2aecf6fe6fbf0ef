//! The model's state, and what can be read off it. Owns the tables and the choice of a node. Must never know Redis:
//! holders, loads and indexes are not kept here, they follow from the open sessions.

use std::collections::{BTreeMap, BTreeSet};

use evenring::ids::SessionId;

use super::judge::Judge;

/// Milliseconds of model time.
pub type Ms = i64;
/// What disagrees, in words.
pub type Fault = String;

/// The settings of the run; all multiples of 20 s, so that no step of time ends exactly on a limit.
pub mod limits {
    use super::Ms;
    pub const LEASE: Ms = 120_000;
    pub const EXPIRY: Ms = 200_000;
    pub const KEEP: Ms = 400_000;
    pub const GRACE: Ms = 60_000;
    pub const VISIBILITY: Ms = 40_000;
    pub const INBOX_VISIBILITY: Ms = 10_000;
    pub const TRIES: u32 = 2;
    pub const GIVE_UP: Ms = 30_000 * TRIES as Ms + LEASE;
    pub const SUFFIX: &str = "x";
}

#[derive(Debug, Clone, Default)]
pub struct Node {
    pub generation: String,
    pub host: String,
    pub state: String,
    pub drain: bool,
    pub weight: u32,
    pub cap: Option<u32>,
    pub campaigns: Vec<String>,
    pub channels: usize,
    pub lease_until: Ms,
    /// The tick of its last heartbeat, how many ticks it is alive after that, and its number.
    pub beat: Ms,
    pub lease: Ms,
    pub beats: u64,
    /// How often an older generation of it was.
    pub refused: u64,
    /// The others have noticed that its lease has ended.
    pub lost: bool,
    /// The number of the last word on its phones.
    pub told: Option<u64>,
    /// Who waits there for their turn to ring.
    pub line: Vec<SessionId>,
    /// The number of its daemon's last take.
    pub take: u64,
    /// The number of its last report or adoption.
    pub writes: u64,
}

#[derive(Debug, Clone)]
pub struct Session {
    pub alias: String,
    pub extension: String,
    pub agent: String,
    pub campaign: String,
    pub remote: bool,
    pub node: String,
    pub state: &'static str,
    pub reason: String,
    pub since: Ms,
    pub created: Ms,
    pub attempt: u32,
    /// Those of the attempts that rang nobody.
    pub unrung: u32,
    pub tried: BTreeSet<String>,
    /// `None`: never again.
    pub give_up: Option<Ms>,
    pub hangup_requested: bool,
    /// It has no order: it waits until the nodes have reported.
    pub waits: bool,
    /// The generation that took its order, and the number of that take.
    pub taken: Option<(String, u64)>,
    /// When the order that nobody has taken expires.
    pub due: Option<Ms>,
    pub gone_at: Option<Ms>,
    /// The lost session that this one replaces, if any.
    pub rejoined_from: String,
    /// The session that its agent has moved to.
    pub moved_to: Option<SessionId>,
    /// Nobody is rung.
    pub hold: Option<Hold>,
}

/// How long a hold stays without a word, and whether its phone need not be registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hold {
    pub ttl: Ms,
    pub known: bool,
}

impl Session {
    pub fn is_open(&self) -> bool {
        matches!(self.state, "placed" | "held" | "ringing" | "live")
    }

    /// Whether it is this agent's, who has not moved on.
    pub fn is_of(&self, agent: &str) -> bool {
        self.agent == agent && self.moved_to.is_none()
    }

    /// Why it ends whose end was asked for.
    pub fn reason_of_hangup(&self) -> &'static str {
        if self.moved_to.is_some() { "moved" } else { "logged-out" }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    Ring { attempt: u32, expires: Ms, extension: String },
    HangUp,
}

#[derive(Debug, Clone)]
pub struct Message {
    pub session: SessionId,
    pub kind: Kind,
    pub visible_at: Ms,
    pub received: u32,
    /// The step in which it became visible: orders are taken oldest first.
    pub step: usize,
}

/// A message of the shared inbox.
#[derive(Debug, Clone)]
pub struct Mail {
    pub body: String,
    pub visible_at: Ms,
    pub received: u32,
}

/// Where a phone may ring, and why not.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    pub node: String,
    pub extension: String,
    pub why: String,
    pub load: f64,
    channels: usize,
}

/// What an alias means.
pub struct Meaning {
    pub targets: Vec<(String, String)>,
    pub known: bool,
    pub explicit: bool,
}

/// Who chooses a node for a session.
#[derive(Clone, Copy)]
pub enum Chosen<'a> {
    /// Redis did; the model says whether it may.
    By(&'a dyn Fn(SessionId) -> Option<String>),
    /// The model does, where no Redis is there to ask.
    Free,
}

/// The limits that the rules count with.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub lease: Ms,
    pub expiry: Ms,
    pub keep: Ms,
    pub visibility: Ms,
    pub tries: u32,
    pub give_up: Ms,
}

impl Default for Limits {
    fn default() -> Self {
        let (lease, expiry, keep) = (limits::LEASE, limits::EXPIRY, limits::KEEP);
        let (visibility, tries, give_up) = (limits::VISIBILITY, limits::TRIES, limits::GIVE_UP);
        Self { lease, expiry, keep, visibility, tries, give_up }
    }
}

#[derive(Debug, Clone, Default)]
pub struct World {
    pub now: Ms,
    pub step: usize,
    pub nodes: BTreeMap<String, Node>,
    /// Who has a name, and who wanted it last and did not get it.
    pub rivals: BTreeMap<String, (String, String)>,
    pub phones: BTreeMap<String, BTreeMap<String, String>>,
    pub contacts: BTreeMap<String, BTreeMap<String, String>>,
    pub aliases: BTreeMap<String, Vec<(String, String)>>,
    /// The shared inbox, by message id.
    pub inbox: BTreeMap<String, Mail>,
    /// What was no login, sorted.
    pub dead: Vec<String>,
    /// What was sent back to the senders, sorted.
    pub answers: Vec<String>,
    pub sessions: BTreeMap<SessionId, Session>,
    pub ended: BTreeMap<SessionId, Ms>,
    pub queues: BTreeMap<String, Vec<Message>>,
    pub limits: Limits,
    /// The nodes whose queue has got a message, until somebody looks.
    pub woken: Vec<String>,
    /// What the event stream must have got, until somebody looks: whose (a session, a node, or nobody), and what.
    pub events: Vec<(String, String)>,
    pub judge: Judge,
    /// A session that is over as soon as the choice is made, and no load for it.
    pub leaves: Option<SessionId>,
    /// What the simulation has planted.
    pub bug: Option<Bug>,
}

/// A bug that the simulation plants into the rules, to see that it would be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// A session that is only placed is no load.
    Blind,
    /// A lease that has ended by the clock makes a node dead.
    Hasty,
    /// Nobody notices that the clock has stepped.
    Timeless,
    /// An order that nobody took fails.
    Impatient,
    /// The number of a heartbeat means nothing.
    Unnumbered,
}

impl World {
    /// An entry about a session as it stands.
    pub fn say(&mut self, id: SessionId, event: &str, reason: &str) {
        let Some(s) = self.sessions.get(&id) else { return };
        let text = [event, &s.node, &s.alias, &s.agent, &s.extension, reason].join(" ");
        self.events.push((id.to_string(), text.trim_end().to_owned()));
    }

    /// An entry about a node.
    pub fn say_node(&mut self, event: &str, node: &str, reason: &str) {
        self.events.push((node.to_owned(), format!("{event} {node}    {reason}").trim_end().to_owned()));
    }

    pub fn open(&self) -> impl Iterator<Item = (SessionId, &Session)> {
        self.sessions.iter().filter(|(_, s)| s.is_open()).map(|(id, s)| (*id, s))
    }

    /// Its node is dead, so that the session counts as over.
    pub fn is_lost(&self, session: &Session) -> bool {
        self.nodes.get(&session.node).is_none_or(|node| self.is_dead(node))
    }

    pub fn locals(&self, node: &str) -> usize {
        self.open()
            .filter(|(id, _)| Some(*id) != self.leaves)
            .filter(|(_, s)| s.node == node && !s.remote && !(self.bug == Some(Bug::Blind) && s.state == "placed"))
            .count()
    }

    /// An explicit alias wins; the suffix is taken off where that names a phone that somebody knows.
    pub fn meaning(&self, alias: &str) -> Meaning {
        if let Some(list) = self.aliases.get(alias) {
            let targets = list.iter().map(|(extension, node)| (node.clone(), extension.clone())).collect();
            return Meaning { targets, known: true, explicit: true };
        }
        let stem = alias.strip_suffix(limits::SUFFIX).filter(|stem| !stem.is_empty()).unwrap_or(alias);
        let is_known =
            |phone: &str| self.nodes.keys().any(|n| self.phones.get(n).is_some_and(|list| list.contains_key(phone)));
        let phone = if !is_known(stem) && is_known(alias) { alias } else { stem };
        let targets = self.nodes.keys().map(|node| (node.clone(), phone.to_owned())).collect();
        Meaning { targets, known: is_known(phone), explicit: false }
    }

    /// Why a node may not ring a phone; empty if it may.
    fn refusal(&self, name: &str, extension: &str, s: &Session) -> String {
        let (campaign, remote) = (&s.campaign, s.remote);
        let any = s.hold.is_some_and(|hold| hold.known);
        let Some(node) = self.nodes.get(name) else { return "unknown-node".into() };
        let phone = self.phones.get(name).and_then(|list| list.get(extension));
        let full = !remote && node.cap.is_some_and(|cap| self.locals(name) >= cap as usize);
        let left = node.lease_until - self.now;
        let over = left < 0 || left > node.lease && self.bug != Some(Bug::Timeless);
        match phone {
            _ if over && node.state == "stopped" => "stopped".into(),
            _ if over => "lease-expired".into(),
            _ if node.state != "active" => node.state.clone(),
            _ if node.drain => "draining".into(),
            _ if !node.campaigns.is_empty() && !node.campaigns.iter().any(|c| c == campaign) => "campaign".into(),
            None => "unknown-phone".into(),
            Some(state) if state != "registered" && !any => state.clone(),
            Some(_) if full => "full".into(),
            Some(_) => String::new(),
        }
    }

    /// Every target with its judgement. `alone` is given where another session's phone must not be taken: whose it is.
    pub fn choose_node(&self, targets: &[(String, String)], s: &Session, alone: Option<SessionId>) -> Vec<Row> {
        let row = |(node, extension): &(String, String)| {
            let mut why = self.refusal(node, extension, s);
            if why.is_empty() && s.tried.contains(node) {
                why = "tried".into();
            }
            let taken =
                |id| self.open().any(|(o, other)| o != id && other.extension == *extension && !self.is_lost(other));
            if why.is_empty() && alone.is_some_and(taken) {
                why = "phone-in-use".into();
            }
            let weight = self.nodes.get(node).map_or(1, |n| n.weight);
            #[expect(clippy::cast_precision_loss, reason = "a handful of sessions")]
            let load = self.locals(node) as f64 / f64::from(weight);
            let channels = self.nodes.get(node).map_or(0, |n| n.channels);
            Row { node: node.clone(), extension: extension.clone(), why, load, channels }
        };
        targets.iter().map(row).collect()
    }

    /// The row of the node that was chosen. It must be eligible, of the least load, and of those of the fewest channels.
    pub fn best(rows: &[Row], id: SessionId, chosen: Chosen<'_>) -> Result<Option<Row>, Fault> {
        let eligible = || rows.iter().filter(|row| row.why.is_empty());
        let least = eligible().map(|row| row.load).fold(f64::INFINITY, f64::min);
        let fewest = eligible().filter(|row| row.load <= least).map(|row| row.channels).min();
        let Some(fewest) = fewest else { return Ok(None) };
        let mut equal = eligible().filter(|row| row.load <= least && row.channels == fewest);
        let Chosen::By(told) = chosen else { return Ok(equal.min_by_key(|row| tie(id, &row.node)).cloned()) };
        let told = told(id);
        let found = equal.find(|row| Some(&*row.node) == told.as_deref());
        found.cloned().map(Some).ok_or_else(|| format!("{told:?} was chosen among {rows:?}"))
    }
}

/// Breaks a tie: the same for the same session and node, and otherwise any number (FNV-1a).
fn tie(id: SessionId, node: &str) -> u64 {
    let text = format!("{id}{node}");
    let hash = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    hash ^ (hash >> 29)
}
