//! Runs a sequence on the real scripts and on the model, side by side. Owns the pairing of the two. Must never decide
//! what is right: it only says where they differ.

use std::collections::BTreeMap;

use evenring::config::NodeSettings;
use evenring::ids::{Generation, Now, SessionId};
use evenring::node::session::{Outcome, Reason};
use evenring::node::{AdminState, Live, NodeState};
use evenring::registry::{
    self, Adopted, Confirmed, FetchSequence, HeartbeatSequence, InboxMessage, LoggedOut, Registered, Registry,
    RegistryError,
};

use evenring::registry::events::Cursor;

use super::judge::Judge;
use super::look::{Look, difference, facts_of};
use super::op::{Login, Op, Voice};
use super::rules::{Refused, Rejoined};
use super::words::{answer, as_login, comparable, outcome, recorded, request, wish};
use super::world::{Chosen, Fault, Node, Session, World};
use crate::redis_fixture::{Cluster, id, session};

/// The settings that `world::limits` says.
pub const TOML: &str = "
placement.lease = '120s'
placement.order_expiry = '200s'
placement.session_keep = '400s'
placement.tries = 2
ring.timeout = '30s'
redis.response_timeout = '20s'
redis.connect_timeout = '20s'
";

/// A run must not take so long that real time is mistaken for model time.
const SLOWEST_MS: i64 = 800;

/// When the lease of a dead host was over.
const LONG_AGO: i64 = -600_000;

/// Both worlds.
pub struct Pair<'a> {
    pub(super) cluster: &'a mut Cluster,
    pub(super) world: World,
    pub(super) look: Look,
    pub(super) zero: i64,
    /// Every generation a node ever had, the last one last.
    generations: BTreeMap<&'static str, Vec<Generation>>,
    /// Every login that was ever received from the inbox.
    pub(super) received: Vec<InboxMessage>,
    /// Every session there ever was.
    pub(super) known: Vec<SessionId>,
    /// How each was last rung.
    pub(super) history: BTreeMap<SessionId, Session>,
    numbers: u64,
    /// The generation that the registry has registered last.
    last_registered: Option<(&'static str, Generation)>,
    /// How many numbers of heartbeats are used up.
    beats: u64,
    /// How far each generation is with its fetches.
    pub(super) fetches: BTreeMap<Generation, FetchSequence>,
    /// What has been read of the event stream.
    pub(super) read: Cursor,
    /// How many logins were refused or have failed, as the entries read so far say.
    pub(super) counted: BTreeMap<String, u64>,
    /// With `rejoin = "auto"`.
    auto: Registry,
    /// Whose scripts stop at every look at nodes, and are called again for the rest.
    pub(super) in_parts: Registry,
}

pub(super) type Checked = Result<(), Fault>;

pub(super) fn same<T: PartialEq + std::fmt::Debug>(what: &str, real: T, model: T) -> Checked {
    if real == model { Ok(()) } else { Err(format!("{what}: Redis {real:?}, model {model:?}")) }
}

/// A refusal of the whole call; any other error ends the run.
pub(super) fn refusal<T>(result: Result<T, RegistryError>) -> Result<Result<T, Refused>, Fault> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(RegistryError::Fenced) => Ok(Err(Refused::Fenced)),
        Err(RegistryError::Forgotten) => Ok(Err(Refused::Forgotten)),
        Err(error) => Err(error.to_string()),
    }
}

/// Runs the sequence; again if the machine was so slow that the clocks of the two worlds came apart.
pub async fn run(cluster: &mut Cluster, ops: &[Op]) -> Checked {
    for _ in 0..20 {
        let mut pair = Pair::new(cluster).await;
        let result = pair.all(ops).await;
        if Look::at(&mut pair.cluster.raw).await.clock - pair.zero < SLOWEST_MS {
            return result;
        }
    }
    Err(format!("20 times slower than {SLOWEST_MS} ms for {} operations", ops.len()))
}

impl<'a> Pair<'a> {
    async fn new(cluster: &'a mut Cluster) -> Self {
        let _: () = cluster.run(&["FLUSHALL"]).await;
        // One that knows nothing at all comes with `Op::Flush`.
        let _: u64 = cluster.run(&["HSET", "NS:judge", "tick", "1"]).await;
        (cluster.registry, cluster.beats) = (cluster.another(), HeartbeatSequence::default());
        let look = Look::at(&mut cluster.raw).await;
        let zero = look.clock - 50;
        let (generations, history) = (BTreeMap::new(), BTreeMap::new());
        let (received, known) = (Vec::new(), Vec::new());
        let judge = Judge { tick: 1, ..Judge::default() };
        let world = World { judge, ..World::default() };
        let (auto, in_parts) = (cluster.auto(), cluster.another().with_work(1));
        Self {
            cluster,
            world,
            look,
            zero,
            generations,
            received,
            known,
            history,
            numbers: 0,
            last_registered: None,
            beats: 0,
            fetches: BTreeMap::new(),
            read: Cursor::start(),
            counted: BTreeMap::new(),
            auto,
            in_parts,
        }
    }

    async fn all(&mut self, ops: &[Op]) -> Checked {
        for (at, op) in ops.iter().enumerate() {
            self.world.step = at;
            self.one(op).await.map_err(|fault| format!("step {at}, {op:?}: {fault}"))?;
            self.look().await;
            self.events().await.map_err(|fault| format!("step {at}, {op:?}: {fault}"))?;
            let mut faults = self.look.broken();
            faults.extend(difference(&self.look.facts(self.zero - self.world.now), &facts_of(&self.world)));
            if !faults.is_empty() {
                return Err(format!("step {at}, {op:?}:\n  {}", faults.join("\n  ")));
            }
        }
        Ok(())
    }

    pub(super) async fn look(&mut self) {
        self.look = Look::at(&mut self.cluster.raw).await;
    }

    pub(super) fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    pub(super) fn generation(&self, voice: Voice) -> Generation {
        let all = self.generations.get(voice.node).map_or(&[][..], Vec::as_slice);
        let found = if voice.old { all.len().checked_sub(2).map(|at| all[at]) } else { all.last().copied() };
        found.unwrap_or(Generation::from_bits(u64::MAX))
    }

    pub(super) fn fence(&mut self, voice: Voice) -> Result<(), Refused> {
        let generation = self.generation(voice).to_string();
        self.world.fence(voice.node, &generation)
    }

    /// The node of the first session, if that is to speak for it.
    fn home<T>(&self, voice: Voice, home: bool, of: &[(usize, T)]) -> Voice {
        let first = of.first().filter(|_| home).and_then(|(which, _)| self.world.sessions.get(&self.which(*which)));
        let node = first.and_then(|s| super::op::NODES.into_iter().find(|node| *node == s.node));
        Voice { node: node.unwrap_or(voice.node), ..voice }
    }

    fn which(&self, which: usize) -> SessionId {
        if self.known.is_empty() { session(u64::MAX) } else { self.known[which % self.known.len()] }
    }

    async fn one(&mut self, op: &Op) -> Checked {
        match op {
            Op::Register { .. } => self.register(op).await,
            Op::Beat { voice, state, channels, rejoin, late } => {
                self.beat(*voice, (state, *channels), *rejoin, *late).await
            }
            Op::Phones { voice, replace, phones } => self.phones(*voice, *replace, phones).await,
            Op::Contacts { voice, contacts } => self.contacts(*voice, contacts).await,
            Op::SetAlias { alias, places } => self.set_alias(alias, places).await,
            Op::RemoveAlias { alias } => self.remove_alias(alias).await,
            Op::Place { login, again } => self.place(login, *again).await,
            Op::Explain { login } => self.explain(&Login { hold: None, ..login.clone() }).await,
            Op::Confirm { which } => self.confirm(self.which(*which)).await,
            Op::Submit { login, reply } => self.submit(login.as_ref(), *reply).await,
            Op::Serve { most, until } => self.serve(*most, *until).await,
            Op::AnswerAgain { which } => self.answer_again(*which).await,
            Op::Fetch { voice, most, outcome } => self.fetch(*voice, *most, *outcome).await,
            Op::Report { voice, home, outcomes, rejoin } => {
                self.report(self.home(*voice, *home, outcomes), outcomes, *rejoin).await
            }
            Op::Adopt { voice, home, found } => self.adopt(self.home(*voice, *home, found), found).await,
            Op::Leave { voice } => self.leave(*voice).await,
            Op::Logout { who } => self.logout((*who).to_owned()).await,
            Op::LogoutSession { which } => self.logout(self.which(*which).to_string()).await,
            Op::Drain { node, drain } => self.set_admin_state(node, *drain).await,
            Op::Line { voice, home, waiting } => {
                let mut ids: Vec<_> = waiting.iter().map(|(which, ())| self.which(*which)).collect();
                ids.sort_unstable();
                ids.dedup();
                self.line(self.home(*voice, *home, waiting), &ids).await
            }
            Op::Forget { node } => self.forget(node).await,
            Op::Pass { seconds } => {
                Look::age(&mut self.cluster.raw, seconds * 1000).await;
                self.world.pass(seconds * 1000);
                Ok(())
            }
            Op::Lapse { node } => {
                if let Some(known) = self.world.nodes.get_mut(*node) {
                    (known.lease_until, known.beat) = (LONG_AGO, LONG_AGO);
                    self.world.judge.floor = 2 * LONG_AGO;
                    let at = (self.zero - self.world.now + LONG_AGO + 50).to_string();
                    let (key, long_ago) = (format!("NS:node:{node}"), LONG_AGO.to_string());
                    let _: u64 = self.cluster.run(&["HSET", &key, "lease_until", &at, "beat", &long_ago]).await;
                    let _: u64 = self.cluster.run(&["HSET", "NS:judge", "floor", &(2 * LONG_AGO).to_string()]).await;
                }
                Ok(())
            }
            Op::Flush => {
                let _: () = self.cluster.run(&["FLUSHALL"]).await;
                // The next events may begin in the same ms.
                self.read = Cursor::start();
                self.counted.clear();
                self.world = World { now: self.world.now, step: self.world.step, ..World::default() };
                Ok(())
            }
        }
    }

    async fn register(&mut self, op: &Op) -> Checked {
        let Op::Register { node, host, same: again, weight, cap, red } = op else { return Ok(()) };
        let last = self.generations.get(node).and_then(|all| all.last()).copied();
        let number = self.number();
        let generation = last.filter(|_| *again).unwrap_or(Generation::from_bits(number));
        let campaigns: Vec<_> = if *red { vec!["red"] } else { Vec::new() };
        let settings = NodeSettings {
            name: id(node),
            weight: *weight,
            max_agents: *cap,
            campaigns: campaigns.iter().map(|name| id(name)).collect(),
            sip: None,
            address: None,
        };
        let real = self.cluster.registry.register(&settings, generation, host).await.map_err(|e| e.to_string())?;
        let new = Node {
            generation: generation.to_string(),
            host: (*host).to_owned(),
            state: "starting".into(),
            weight: *weight,
            cap: *cap,
            campaigns: campaigns.into_iter().map(str::to_owned).collect(),
            ..Node::default()
        };
        let returns = self.last_registered == Some((*node, generation));
        let model = self.world.register(node, new, returns);
        if model.is_ok() {
            self.last_registered = Some((*node, generation));
        }
        if model.is_ok() && last != Some(generation) {
            self.generations.entry(node).or_default().push(generation);
        }
        let real = match real {
            Registered::Taken { previous } => Ok(previous.map(|g| g.to_string())),
            Registered::Held { by, .. } => Err(by),
        };
        same("register", real, model)
    }

    /// One more number is used up.
    pub(super) fn beaten(&mut self) -> u64 {
        self.beats += 1;
        self.beats
    }

    async fn beat(&mut self, voice: Voice, (state, channels): (&str, usize), rejoin: bool, late: bool) -> Checked {
        let generation = self.generation(voice);
        let as_node = match state {
            "active" => NodeState::Active,
            "down" => NodeState::Down,
            _ => NodeState::Starting,
        };
        // One that comes late has numbers that are used up.
        let mut first = HeartbeatSequence::default();
        let (registry, beats) = match rejoin {
            true => (&mut self.auto, if late { &mut first } else { &mut self.cluster.beats }),
            false => (&mut self.cluster.registry, if late { &mut first } else { &mut self.cluster.beats }),
        };
        let how = (as_node, channels, 0);
        let knows = beats.clone().next(Now::default()).expected > 0;
        let real = registry.heartbeat(&id(voice.node), generation, how, (beats, Now::default())).await;
        let used = self.world.nodes.get(voice.node).map_or(0, |node| node.beats);
        // It is sent twice: whoever hears that it is late sends it again.
        let number = if late { used.clamp(0, 1) + 1 } else { self.beaten() };
        let is_late = matches!(real, Err(RegistryError::NotNow { .. }));
        let fence = self.fence(voice);
        if is_late || late && fence.is_ok() && used >= number {
            return same("a heartbeat that comes late", (is_late, used >= number), (true, true));
        }
        let beat = refusal(real)?;
        same("heartbeat", beat.as_ref().map(drop).map_err(|r| *r), fence)?;
        let Ok(beat) = beat else { return Ok(()) };
        self.look().await;
        let (changed, lost) =
            self.world.beat(voice.node, number, (state, channels), knows).ok_or("a late heartbeat was heard")?;
        self.world.beaten(voice.node, changed, lost);
        let rows: Vec<_> = beat.reaped.into_iter().map(|row| (row.session, row.node, row.result.to_string())).collect();
        self.reaped(voice, &rows, rejoin)?;
        let awaits = self.world.awaits_anybody();
        let left = self.world.open().find(|(_, s)| {
            (s.node != voice.node && self.world.is_lost(s) && !s.waits)
                || !awaits && s.due.is_some_and(|due| due <= self.world.now)
        });
        same("left behind by a heartbeat", None, left.map(|(id, _)| id))?;
        let drains = self.world.nodes[voice.node].drain;
        same("admin_state", beat.admin_state, if drains { AdminState::Drain } else { AdminState::Ready })?;
        same("refused", beat.refused, self.world.nodes[voice.node].refused)?;
        self.world.forget_ended();
        let mut recorded: Vec<_> = beat.recorded.into_iter().map(|(id, state)| (id, recorded(state))).collect();
        recorded.sort_unstable();
        let model = self
            .world
            .open()
            .filter(|(_, s)| s.node == voice.node && s.hold.is_none())
            .map(|(id, s)| (id, if s.hangup_requested { "hangup-requested" } else { s.state }))
            .collect();
        same("recorded", recorded, model)
    }

    /// What a heartbeat has settled for others, or placed again.
    fn reaped(&mut self, voice: Voice, rows: &[(String, String, String)], rejoin: bool) -> Checked {
        let chosen = |id: SessionId| self.look.node_of(&id.to_string());
        for (session, node, reason) in rows {
            let at: SessionId = id(session);
            let s = self.world.sessions.get(&at).filter(|s| s.is_open() && s.node == *node);
            let s =
                s.ok_or_else(|| format!("{session} was ended, but the model has no such open session on {node}"))?;
            let result = if self.world.is_lost(s) && !s.waits && node != voice.node {
                let rejoin = if rejoin { Rejoined::Auto(reason) } else { Rejoined::Manual };
                self.world.reap_one(at, rejoin, Chosen::By(&chosen))?
            } else {
                let late = s.due.is_some_and(|due| due <= self.world.now);
                if !late {
                    return Err(format!("an expired order: {session} {node} {reason}: {s:?} at {}", self.world.now));
                }
                self.world.overdue(at, Chosen::By(&chosen))?
            };
            same("reaped", reason.clone(), result)?;
        }
        for (_, _, reason) in rows {
            self.remember(reason);
        }
        Ok(())
    }

    async fn place(&mut self, login: &Login, again: Option<usize>) -> Checked {
        let number = self.number();
        // an id whose record has expired means nothing to anybody
        let old = again.map(|which| self.which(which)).filter(|id| self.world.sessions.contains_key(id));
        let at = old.unwrap_or(session(number << 8));
        let real = self.cluster.registry.place(&request(login), at).await.map_err(|e| e.to_string())?;
        self.look().await;
        let chosen = |id: SessionId| self.look.node_of(&id.to_string());
        let model = self.world.place(&wish(login), at, false, Chosen::By(&chosen))?;
        if model.verdict == "placed" {
            self.known.push(at);
            self.history.insert(at, self.world.sessions[&at].clone());
        }
        same("place", answer(&real), comparable(model))
    }

    async fn confirm(&mut self, at: SessionId) -> Checked {
        let real = match self.cluster.registry.confirm(at).await.map_err(|e| e.to_string())? {
            Confirmed::Live => "live",
            Confirmed::None => "none",
            Confirmed::Rung => "rung",
            Confirmed::Over(..) => "over",
        };
        same("confirm", real, self.world.confirm(at))
    }

    async fn explain(&mut self, login: &Login) -> Checked {
        let at = session(u64::MAX - 1);
        let real = self.cluster.registry.explain(&request(login), at).await.map_err(|e| e.to_string())?;
        let node = real.node.clone();
        let model = self.world.place(&wish(login), at, true, Chosen::By(&|_| Some(node.clone())))?;
        same("explain", answer(&real), comparable(model))
    }

    async fn report(&mut self, voice: Voice, outcomes: &[(usize, &'static str)], rejoin: bool) -> Checked {
        let generation = self.generation(voice);
        let ids: Vec<_> = outcomes.iter().map(|(which, what)| (self.which(*which), *what)).collect();
        let list: Vec<_> = ids.iter().map(|(id, what)| (*id, outcome(what))).collect();
        // A node loses its calls with its Asterisk.
        let lost = list.iter().any(|(_, outcome)| *outcome == Outcome::Ended(Reason::NodeLost));
        let told = if lost { NodeState::Down } else { NodeState::Active };
        let registry = if rejoin { &mut self.auto } else { &mut self.cluster.registry };
        let real = refusal(registry.report(&id(voice.node), generation, told, &list).await)?;
        let fence = self.fence(voice);
        same("report", real.as_ref().map(drop).map_err(|r| *r), fence)?;
        let Ok(real) = real else { return Ok(()) };
        let real: Vec<_> = real.iter().map(ToString::to_string).collect();
        self.look().await;
        self.world.told_state(voice.node, told.as_str());
        let mut model = Vec::new();
        for ((at, what), result) in ids.iter().zip(&real) {
            let node = result.split(' ').nth(1).map(str::to_owned);
            let rejoin = if rejoin { Rejoined::Auto(result) } else { Rejoined::Manual };
            let why = match outcome(what) {
                Outcome::Ended(why) | Outcome::Failed(why) | Outcome::TryNextNode(why) => why.to_string(),
                Outcome::Live => String::new(),
            };
            model.push(self.world.report(voice.node, *at, what, &why, (rejoin, Chosen::By(&|_| node.clone())))?);
            self.remember(result);
        }
        same("results", real, model)
    }

    /// A session that came back in place of a lost one is one like any other.
    fn remember(&mut self, result: &str) {
        if let Some(registry::Rejoined::Ringing { session, .. }) = registry::Rejoined::parse(result) {
            let at = id(&session);
            self.known.push(at);
            self.history.insert(at, self.world.sessions[&at].clone());
        }
    }

    async fn adopt(&mut self, voice: Voice, found: &[(usize, bool)]) -> Checked {
        let generation = self.generation(voice);
        let with = |(which, live): &(usize, bool)| {
            let at = self.which(*which);
            Some((at, self.history.get(&at)?.clone(), *live))
        };
        let found: Vec<_> = found.iter().filter_map(with).collect();
        let state = |live: bool| if live { Live::Yes } else { Live::NotYet };
        let list: Vec<_> = found.iter().map(|(at, s, live)| (as_login(*at, s), state(*live))).collect();
        let real = refusal(self.cluster.registry.adopt(&id(voice.node), generation, &list).await)?;
        same("adopt", real.as_ref().map(drop).map_err(|r| *r), self.fence(voice))?;
        let Ok(real) = real else { return Ok(()) };
        let mut model = Vec::new();
        for (at, s, live) in &found {
            model.push(match self.world.adopt(voice.node, *at, if *live { "live" } else { "ringing" }, s) {
                "kept" => Adopted::Kept,
                "restored" => Adopted::Restored,
                _ => Adopted::Stale,
            });
        }
        same("results", real, model)
    }

    async fn logout(&mut self, who: String) -> Checked {
        let real = match self.cluster.registry.logout(&id(&who)).await {
            Err(RegistryError::NotNow { .. }) => return same("logout", ("not-now", None), self.world.logout(&who)),
            real => real.map_err(|e| e.to_string())?,
        };
        let real = match real {
            LoggedOut::Nobody => ("none", None),
            LoggedOut::Ended(at, node) => ("ended", Some((at, node))),
            LoggedOut::Asked(at, node) => ("asked", Some((at, node))),
        };
        same("logout", real, self.world.logout(&who))
    }
}
