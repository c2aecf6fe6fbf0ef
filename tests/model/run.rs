//! Runs a sequence on the real scripts and on the model, side by side. Owns the pairing of the two. Must never decide
//! what is right: it only says where they differ.

use std::collections::BTreeMap;

use evenring::config::NodeSettings;
use evenring::ids::{Generation, SessionId};
use evenring::node::roster::PhoneChanges;
use evenring::node::session::Outcome;
use evenring::node::{Live, NodeState};
use evenring::registry::{Adopted, LoggedOut, Order, RegistryError};

use super::look::{Look, difference, facts_of};
use super::op::{Login, Op, Voice};
use super::rules::{Refused, Taken};
use super::words::{answer, as_login, booked, comparable, orders, outcome, phone_state, request, taken, wish};
use super::world::{Chosen, Fault, Node, Session, World};
use crate::ledger::{Cluster, id, session};

/// The settings that `world::limits` says.
pub const TOML: &str = "
placement.lease = '100s'
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
    cluster: &'a mut Cluster,
    world: World,
    look: Look,
    zero: i64,
    /// Every generation a node ever had, the last one last.
    generations: BTreeMap<&'static str, Vec<Generation>>,
    /// Every session there ever was.
    known: Vec<SessionId>,
    /// How each was last rung.
    history: BTreeMap<SessionId, Session>,
    numbers: u64,
}

type Checked = Result<(), Fault>;

fn same<T: PartialEq + std::fmt::Debug>(what: &str, real: T, model: T) -> Checked {
    if real == model { Ok(()) } else { Err(format!("{what}: Redis {real:?}, model {model:?}")) }
}

/// A refusal of the whole call; any other error ends the run.
fn refusal<T>(result: Result<T, RegistryError>) -> Result<Result<T, Refused>, Fault> {
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
        let look = Look::at(&mut cluster.raw).await;
        let zero = look.clock - 50;
        let (generations, known, history) = (BTreeMap::new(), Vec::new(), BTreeMap::new());
        Self { cluster, world: World::default(), look, zero, generations, known, history, numbers: 0 }
    }

    async fn all(&mut self, ops: &[Op]) -> Checked {
        for (at, op) in ops.iter().enumerate() {
            self.world.step = at;
            self.one(op).await.map_err(|fault| format!("step {at}, {op:?}: {fault}"))?;
            self.look().await;
            let mut faults = self.look.broken();
            faults.extend(difference(&self.look.facts(self.zero - self.world.now), &facts_of(&self.world)));
            if !faults.is_empty() {
                return Err(format!("step {at}, {op:?}:\n  {}", faults.join("\n  ")));
            }
        }
        Ok(())
    }

    async fn look(&mut self) {
        self.look = Look::at(&mut self.cluster.raw).await;
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn generation(&self, voice: Voice) -> Generation {
        let all = self.generations.get(voice.node).map_or(&[][..], Vec::as_slice);
        let found = if voice.old { all.len().checked_sub(2).map(|at| all[at]) } else { all.last().copied() };
        found.unwrap_or(Generation::from_bits(u64::MAX))
    }

    fn fence(&self, voice: Voice) -> Result<(), Refused> {
        self.world.fence(voice.node, &self.generation(voice).to_string())
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
            Op::Beat { voice, state, channels } => self.beat(*voice, state, *channels).await,
            Op::Phones { voice, replace, phones } => self.phones(*voice, *replace, phones).await,
            Op::SetAlias { alias, places } => self.set_alias(alias, places).await,
            Op::RemoveAlias { alias } => self.remove_alias(alias).await,
            Op::Place { login, again } => self.place(login, *again).await,
            Op::Explain { login } => self.explain(login).await,
            Op::Take { voice, most } => self.take(*voice, *most).await,
            Op::Report { voice, home, outcomes } => self.report(self.home(*voice, *home, outcomes), outcomes).await,
            Op::Adopt { voice, home, found } => self.adopt(self.home(*voice, *home, found), found).await,
            Op::Leave { voice } => self.leave(*voice).await,
            Op::Logout { who } => self.logout((*who).to_owned()).await,
            Op::LogoutSession { which } => self.logout(self.which(*which).to_string()).await,
            Op::Drain { node, drain } => {
                if let Some(known) = self.world.nodes.get_mut(*node) {
                    known.drain = *drain;
                    self.cluster.drain(node, *drain).await;
                }
                Ok(())
            }
            Op::Pass { seconds } => {
                Look::age(&mut self.cluster.raw, seconds * 1000).await;
                self.world.pass(seconds * 1000);
                Ok(())
            }
            Op::Lapse { node } => {
                if let Some(known) = self.world.nodes.get_mut(*node) {
                    (known.lease_until, known.reap_at) = (LONG_AGO, LONG_AGO);
                    let (key, at) =
                        (format!("NS:node:{node}"), (self.zero - self.world.now + LONG_AGO + 50).to_string());
                    let _: u64 = self.cluster.run(&["HSET", &key, "lease_until", &at, "reap_at", &at]).await;
                }
                Ok(())
            }
            Op::Flush => {
                let _: () = self.cluster.run(&["FLUSHALL"]).await;
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
        };
        let real = self.cluster.registry.register(&settings, generation, host).await.map_err(|e| e.to_string())?;
        let new = Node {
            generation: generation.to_string(),
            host: (*host).to_owned(),
            state: "starting".into(),
            drain: false,
            weight: *weight,
            cap: *cap,
            campaigns: campaigns.into_iter().map(str::to_owned).collect(),
            channels: 0,
            lease_until: 0,
            reap_at: 0,
            told: None,
        };
        let model = self.world.register(node, new);
        if model.is_ok() && last != Some(generation) {
            self.generations.entry(node).or_default().push(generation);
        }
        let real = real.map(|previous| previous.map(|g| g.to_string())).map_err(|(holder, _)| holder);
        same("register", real, model)
    }

    async fn beat(&mut self, voice: Voice, state: &str, channels: usize) -> Checked {
        let generation = self.generation(voice);
        let as_node = match state {
            "active" => NodeState::Active,
            "down" => NodeState::Down,
            _ => NodeState::Starting,
        };
        let beat = self.cluster.registry.heartbeat(&id(voice.node), generation, as_node, channels, 0).await;
        let beat = refusal(beat)?;
        let fence = self.fence(voice);
        same("heartbeat", beat.as_ref().map(drop).map_err(|r| *r), fence)?;
        let Ok(beat) = beat else { return Ok(()) };
        self.look().await;
        let until = self.world.now + super::world::limits::LEASE;
        let node = self.world.nodes.get_mut(voice.node).expect("a node");
        (node.state, node.channels) = (state.to_owned(), channels);
        (node.lease_until, node.reap_at) = (until, until);
        let chosen = |id: SessionId| self.look.node_of(&id.to_string());
        for (session, node, reason) in &beat.reaped {
            let at: SessionId = id(session);
            let s = self.world.sessions.get(&at).filter(|s| s.is_open() && s.node == *node);
            let s =
                s.ok_or_else(|| format!("{session} was ended, but the model has no such open session on {node}"))?;
            if reason == "order-expired" {
                let late = s.due.is_some_and(|due| due <= self.world.now);
                same("an expired order", true, late)?;
                self.world.finish(at, "failed", reason);
            } else {
                same("a lost node", true, self.world.is_lost(s) && node != voice.node)?;
                same("reaped", reason.clone(), self.world.reap_one(at, Chosen::Told(&chosen))?)?;
            }
        }
        let left = self.world.open().find(|(_, s)| {
            (s.node != voice.node && self.world.is_lost(s)) || s.due.is_some_and(|due| due <= self.world.now)
        });
        same("left behind by a heartbeat", None, left.map(|(id, _)| id))?;
        self.world.forget_ended();
        let mut books: Vec<_> = beat.books.into_iter().map(|(id, state)| (id, booked(state))).collect();
        books.sort_unstable();
        let model = self
            .world
            .open()
            .filter(|(_, s)| s.node == voice.node)
            .map(|(id, s)| (id, if s.wanted { "unwanted" } else { s.state }))
            .collect();
        same("books", books, model)
    }

    async fn phones(&mut self, voice: Voice, replace: bool, phones: &[(&str, &str)]) -> Checked {
        let list = phones.iter().map(|(extension, word)| (id(extension), phone_state(word))).collect();
        let changes = PhoneChanges { replace, phones: list };
        let generation = self.generation(voice);
        let real = refusal(self.cluster.registry.phones(&id(voice.node), generation, &changes).await)?;
        let fence = self.fence(voice);
        if fence.is_ok() {
            let known = self.world.phones.entry(voice.node.to_owned()).or_default();
            if replace {
                known.clear();
            }
            for (extension, word) in phones {
                known.insert((*extension).to_owned(), (*word).to_owned());
                known.retain(|_, word| word != "unknown");
            }
        }
        same("phones", real, fence)
    }

    async fn set_alias(&mut self, alias: &str, places: &[(&str, &str)]) -> Checked {
        let list: Vec<_> = places.iter().map(|(extension, node)| (id(extension), id(node))).collect();
        self.cluster.registry.set_alias(&id(alias), &list).await.map_err(|e| e.to_string())?;
        let list = places.iter().map(|(extension, node)| ((*extension).to_owned(), (*node).to_owned()));
        self.world.aliases.insert(alias.to_owned(), list.collect());
        Ok(())
    }

    async fn remove_alias(&mut self, alias: &str) -> Checked {
        let real = self.cluster.registry.remove_alias(&id(alias)).await.map_err(|e| e.to_string())?;
        same("remove alias", real, self.world.aliases.remove(alias).is_some())
    }

    async fn place(&mut self, login: &Login, again: Option<usize>) -> Checked {
        let number = self.number();
        // an id whose record has expired means nothing to anybody
        let old = again.map(|which| self.which(which)).filter(|id| self.world.sessions.contains_key(id));
        let at = old.unwrap_or(session(number << 8));
        let real = self.cluster.registry.place(&request(login), at).await.map_err(|e| e.to_string())?;
        self.look().await;
        let chosen = |id: SessionId| self.look.node_of(&id.to_string());
        let model = self.world.place(&wish(login), at, false, Chosen::Told(&chosen))?;
        if model.verdict == "placed" {
            self.known.push(at);
            self.history.insert(at, self.world.sessions[&at].clone());
        }
        same("place", answer(&real), comparable(model))
    }

    async fn explain(&mut self, login: &Login) -> Checked {
        let at = session(u64::MAX - 1);
        let real = self.cluster.registry.explain(&request(login), at).await.map_err(|e| e.to_string())?;
        let node = real.node.clone();
        let model = self.world.place(&wish(login), at, true, Chosen::Told(&|_| Some(node.clone())))?;
        same("explain", answer(&real), comparable(model))
    }

    async fn take(&mut self, voice: Voice, most: usize) -> Checked {
        let generation = self.generation(voice);
        let real = refusal(self.cluster.registry.take(&id(voice.node), generation, most).await)?;
        same("take", real.as_ref().map(drop).map_err(|r| *r), self.fence(voice))?;
        let Ok(real) = real else { return Ok(()) };
        self.look().await;
        let (now, node) = (self.world.now, voice.node);
        let queue = |world: &World| world.queues.get(node).cloned().unwrap_or_default();
        let visible = queue(&self.world).iter().filter(|m| m.visible_at <= now).count();
        same("the number of orders", real.len(), visible.min(most))?;
        let mut last = 0;
        for order in real {
            let (at, hangs_up) = match &order {
                Order::HangUp(at) => (*at, true),
                Order::Ring(login) => (login.session, false),
                Order::Moved(at, _) | Order::Expired(at) => (*at, false),
                Order::Stale(at) => (id(at), false),
            };
            let is_it = |m: &&super::world::Message| {
                m.session == at && (m.kind == super::world::Kind::HangUp) == hangs_up && m.visible_at <= now
            };
            let found = queue(&self.world).iter().filter(is_it).map(|m| m.step).min();
            let step = found.ok_or_else(|| format!("{order:?} was not in the queue of {node}"))?;
            let position = queue(&self.world).iter().position(|m| is_it(&m) && m.step == step).unwrap_or_default();
            let visible_at = queue(&self.world)[position].visible_at;
            same("oldest first", true, visible_at >= last)?;
            last = visible_at;
            let chosen = |id: SessionId| self.look.node_of(&id.to_string());
            let model = self.world.take_one(node, position, Chosen::Told(&chosen))?;
            if let Taken::Ring(at, ..) = &model {
                self.history.insert(*at, self.world.sessions[at].clone());
            }
            same("an order", taken(order), model)?;
        }
        Ok(())
    }

    async fn report(&mut self, voice: Voice, outcomes: &[(usize, &'static str)]) -> Checked {
        let generation = self.generation(voice);
        let ids: Vec<_> = outcomes.iter().map(|(which, what)| (self.which(*which), *what)).collect();
        let list: Vec<_> = ids.iter().map(|(id, what)| (*id, outcome(what))).collect();
        let real = refusal(self.cluster.registry.report(&id(voice.node), generation, &list).await)?;
        let fence = self.fence(voice);
        same("report", real.as_ref().map(drop).map_err(|r| *r), fence)?;
        let Ok(real) = real else { return Ok(()) };
        self.look().await;
        let mut model = Vec::new();
        for ((at, what), result) in ids.iter().zip(&real) {
            let node = result.strip_prefix("placed ").map(str::to_owned);
            let why = match outcome(what) {
                Outcome::Ended(why) | Outcome::Failed(why) | Outcome::Cannot(why) => why.to_string(),
                Outcome::Live => String::new(),
            };
            model.push(self.world.report(voice.node, *at, what, &why, Chosen::Told(&|_| node.clone()))?);
        }
        same("results", real, model)
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

    async fn leave(&mut self, voice: Voice) -> Checked {
        let generation = self.generation(voice);
        let real = refusal(self.cluster.registry.leave(&id(voice.node), generation).await)?;
        same("leave", real.as_ref().map(drop).map_err(|r| *r), self.fence(voice))?;
        let Ok(real) = real else { return Ok(()) };
        self.look().await;
        let now = self.world.now;
        let node = self.world.nodes.get_mut(voice.node).expect("a node");
        node.state = "stopped".into();
        (node.lease_until, node.reap_at) = (now, now + super::world::limits::GRACE);
        // To the scripts the lease ends 1 ms before: over at once.
        node.lease_until -= 1;
        let placed = self.world.open().filter(|(_, s)| s.node == voice.node && s.state == "placed");
        let placed: Vec<SessionId> = placed.map(|(id, _)| id).collect();
        same("moved", real, placed.len())?;
        let facts = self.look.facts(self.zero - self.world.now);
        let mut best: Result<World, Fault> = Err("nothing was moved".into());
        // In which order they are moved is nobody's business, but there must be one that leads to what is there.
        for order in orders(&placed) {
            let mut world = self.world.clone();
            let chosen = |id: SessionId| self.look.node_of(&id.to_string());
            let moved =
                order.iter().try_for_each(|at| world.leave_one(*at, "stopped", Chosen::Told(&chosen)).map(drop));
            best = moved.map(|()| world);
            if best.as_ref().is_ok_and(|world| difference(&facts, &facts_of(world)).is_empty()) {
                break;
            }
        }
        self.world = best?;
        Ok(())
    }

    async fn logout(&mut self, who: String) -> Checked {
        let real = self.cluster.registry.logout(&id(&who)).await.map_err(|e| e.to_string())?;
        let real = match real {
            LoggedOut::Nobody => ("none", None),
            LoggedOut::Ended(at, node) => ("ended", Some((at, node))),
            LoggedOut::Asked(at, node) => ("asked", Some((at, node))),
        };
        same("logout", real, self.world.logout(&who))
    }
}
