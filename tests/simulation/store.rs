//! Redis: the plain model of the scripts behind a door that can be shut. Owns the world in Redis and its faults, and
//! how the model's rules make up a whole script (`src/registry/scripts/*.lua`, one call each). Must never know a daemon's
//! or an Asterisk's inside.

use evenring::ids::SessionId;
use evenring::node::roster::PhoneChanges;
use evenring::node::session::{Class, Login, Outcome};
use evenring::node::{Live, RecordedState};
use evenring::registry::{Adopted, Fetch, Order, PlacedAgain, RedisTime, Sent};

use super::model::fetch_sequence::{Taken, Taker};
use super::model::rules::{Refused, Rejoined};
use super::model::world::{Chosen, Limits, Ms, Node, Session, World};

/// How long the sessions of a daemon that stopped wait for the next one.
pub const GRACE: Ms = 9_000;
const TAKE_MOST: usize = 64;
const REAP_MOST: usize = 200;

/// One script call of a daemon.
#[derive(Debug, Clone)]
pub enum Call {
    Register {
        boot: u32,
        weight: u32,
        cap: Option<u32>,
        /// This generation was registered before.
        returns: bool,
    },
    /// With the number of this word.
    Phones(PhoneChanges, u64),
    /// With its number.
    Adopt(u64, Vec<(Login, Live)>),
    /// With its number and the node's state.
    Report(u64, &'static str, Vec<(SessionId, Outcome)>),
    Beat {
        state: &'static str,
        channels: usize,
        sent: Sent,
    },
    /// With a number that no heartbeat so far has reached.
    Leave(u64),
    Fetch(Fetch),
}

#[derive(Debug)]
pub enum Reply {
    Done,
    Held,
    Refused(Refused),
    Adopted(Vec<Adopted>),
    /// The sessions, the number of the last word on phones, and Redis's time.
    Recorded(Vec<(SessionId, RecordedState)>, Option<u64>, RedisTime),
    /// A heartbeat that comes late, or at a time that nobody expects; with Redis's time.
    Late(Ms),
    /// It is not known yet.
    NotNow,
    Taken(Vec<Order>),
}

#[derive(Debug)]
pub struct Store {
    pub world: World,
    pub up: bool,
    /// Requests that come before this wait for it.
    pub stalled_until: Ms,
    /// How far its wall clock is ahead of time.
    pub offset: Ms,
    pub was_set: bool,
    /// A replica that has stopped to follow.
    pub replica: Option<World>,
    /// Planted: whoever speaks is believed.
    pub unfenced: bool,
    next_gone: Ms,
}

fn outcome(outcome: &Outcome) -> (&'static str, String) {
    match outcome {
        Outcome::Live => ("live", String::new()),
        Outcome::Ended(why) => ("ended", why.to_string()),
        Outcome::Failed(why) => ("failed", why.to_string()),
        Outcome::TryNextNode(why) => ("try-next-node", why.to_string()),
    }
}

fn recorded(s: &Session) -> RecordedState {
    match s.state {
        _ if s.hangup_requested => RecordedState::HangupRequested,
        "placed" => RecordedState::Placed,
        "ringing" => RecordedState::Ringing,
        _ => RecordedState::Live,
    }
}

/// A session as a channel's variables tell it.
fn told(login: &Login) -> Session {
    Session {
        alias: login.alias.to_string(),
        extension: login.extension.to_string(),
        agent: login.agent.to_string(),
        campaign: String::new(),
        remote: login.class == Class::Remote,
        node: String::new(),
        state: "",
        reason: String::new(),
        since: 0,
        created: 0,
        attempt: login.attempt,
        unrung: 0,
        tried: std::collections::BTreeSet::new(),
        give_up: None,
        hangup_requested: false,
        waits: false,
        taken: None,
        due: None,
        gone_at: None,
        rejoined_from: String::new(),
        moved_to: None,
        hold: None,
    }
}

impl Store {
    pub fn new(limits: Limits) -> Self {
        let world = World { limits, ..World::default() };
        Self {
            world,
            up: true,
            stalled_until: 0,
            offset: 1_000_000_000,
            was_set: false,
            replica: None,
            unfenced: false,
            next_gone: 0,
        }
    }

    /// Time passes in Redis: what expires is gone.
    pub fn pass(&mut self, now: Ms) {
        self.world.now = now + self.offset + self.world.judge.shift;
        let now = self.world.now;
        if now >= self.next_gone {
            self.world.pass(0);
            let next = self.world.sessions.values().filter_map(|s| s.gone_at).min();
            self.next_gone = next.unwrap_or(now + self.world.limits.keep);
        }
    }

    /// The wall clock is set, and what expires by it with it.
    pub fn step_clock(&mut self, by: Ms) {
        self.offset += by;
        self.was_set = true;
        self.next_gone = Ms::MIN;
    }

    pub fn flush(&mut self) {
        let old = std::mem::take(&mut self.world);
        self.world = World { now: old.now, step: old.step, limits: old.limits, bug: old.bug, ..World::default() };
    }

    /// The replica takes over: what was written since it stopped to follow is lost. Gives what there was.
    pub fn fail_over(&mut self) -> World {
        let replica = self.replica.take().unwrap_or_default();
        self.next_gone = Ms::MIN;
        let new = World { now: self.world.now, step: self.world.step, ..replica };
        std::mem::replace(&mut self.world, new)
    }

    /// Runs a script for this generation of this node.
    pub fn run(&mut self, node: &str, generation: &str, call: Call) -> Reply {
        self.world.step += 1;
        let before = self.world.judge.shift;
        let reply = self.script(node, generation, call);
        // What expires does so by the wall clock.
        let moved = self.world.judge.shift - before;
        if moved != 0 {
            for gone_at in self.world.sessions.values_mut().filter_map(|s| s.gone_at.as_mut()) {
                *gone_at += moved;
            }
            self.next_gone = Ms::MIN;
        }
        reply
    }

    fn script(&mut self, node: &str, generation: &str, call: Call) -> Reply {
        if let Call::Register { boot, weight, cap, returns } = call {
            return self.register(node, generation, (boot, weight, cap), returns);
        }
        match self.world.fence(node, generation) {
            Err(Refused::Fenced) if self.unfenced => {}
            Err(refused) => return Reply::Refused(refused),
            Ok(()) => {}
        }
        match call {
            Call::Register { .. } => Reply::Done,
            Call::Phones(changes, number) => self.phones(node, changes, number),
            Call::Adopt(number, _) | Call::Report(number, ..) if self.world.is_late(node, number) => Reply::Done,
            Call::Adopt(_, found) => self.adopt(node, &found),
            Call::Report(_, state, outcomes) => {
                self.world.told_state(node, state);
                self.report(node, &outcomes)
            }
            Call::Beat { state, channels, sent } => self.beat(node, state, channels, &sent),
            Call::Leave(number) => self.leave(node, number),
            Call::Fetch(asked) => self.take(node, generation, asked),
        }
    }

    fn register(
        &mut self,
        node: &str,
        generation: &str,
        (boot, weight, cap): (u32, u32, Option<u32>),
        returns: bool,
    ) -> Reply {
        let new = Node {
            generation: generation.to_owned(),
            host: format!("{node}/{boot}"),
            state: "starting".into(),
            weight,
            cap,
            ..Node::default()
        };
        if self.world.register(node, new, returns).is_ok() { Reply::Done } else { Reply::Held }
    }

    fn phones(&mut self, node: &str, changes: PhoneChanges, number: u64) -> Reply {
        if let Some(n) = self.world.nodes.get_mut(node) {
            let fits = changes.replace || n.told == Some(number - 1);
            n.told = fits.then_some(number);
        }
        let known = self.world.phones.entry(node.to_owned()).or_default();
        if changes.replace {
            known.clear();
        }
        for (extension, state) in changes.phones {
            match state.as_str() {
                "unknown" => drop(known.remove(extension.as_str())),
                word => drop(known.insert(extension.to_string(), word.to_owned())),
            }
        }
        Reply::Done
    }

    fn adopt(&mut self, node: &str, found: &[(Login, Live)]) -> Reply {
        let one = |(login, live): &(Login, Live)| {
            let state = if *live == Live::Yes { "live" } else { "ringing" };
            match self.world.adopt(node, login.session, state, &told(login)) {
                "kept" => Adopted::Kept,
                "restored" => Adopted::Restored,
                _ => Adopted::Stale,
            }
        };
        Reply::Adopted(found.iter().map(one).collect())
    }

    fn report(&mut self, node: &str, outcomes: &[(SessionId, Outcome)]) -> Reply {
        for (id, what) in outcomes {
            let (what, why) = outcome(what);
            self.world.report(node, *id, what, &why, (Rejoined::Manual, Chosen::Free)).expect("a free choice");
        }
        Reply::Done
    }

    fn beat(&mut self, node: &str, state: &str, channels: usize, sent: &Sent) -> Reply {
        let expected = i64::try_from(sent.expected).expect("a time");
        let differs = |time: Ms| (self.world.now - time).abs() > self.world.limits.lease / 3;
        let knows = sent.corrections == self.world.judge.corrections;
        if expected > 0 && differs(expected - sent.step) {
            if sent.step == 0 || differs(expected) {
                return Reply::Late(self.world.now);
            }
            if knows {
                self.world.correct(node, sent.step);
            }
        }
        if self.world.beat(node, sent.number, (state, channels), expected > 0 && knows).is_none() {
            return Reply::Late(self.world.now);
        }
        let now = self.world.now;
        let world = &self.world;
        let lost = world.open().filter(|(_, s)| s.node != node && !s.waits && world.is_lost(s)).map(|(id, _)| id);
        for id in lost.take(REAP_MOST).collect::<Vec<_>>() {
            // Placed again by an earlier one of this beat.
            if self.world.sessions.get(&id).is_some_and(|s| s.is_open() && self.world.is_lost(s)) {
                self.world.reap_one(id, Rejoined::Manual, Chosen::Free).expect("a free choice");
            }
        }
        let settled = !self.world.awaits_anybody();
        let due = self.world.open().filter(|(_, s)| settled && s.due.is_some_and(|due| due <= now)).map(|(id, _)| id);
        for id in due.take(REAP_MOST).collect::<Vec<_>>() {
            if self.world.sessions.get(&id).is_some_and(Session::is_open) {
                self.world.overdue(id, Chosen::Free).expect("a free choice");
            }
        }
        self.world.forget_ended();
        let mine = self.world.open().filter(|(_, s)| s.node == node);
        let told = self.world.nodes.get(node).and_then(|n| n.told);
        let time = RedisTime { ms: u64::try_from(now).expect("a time"), corrections: self.world.judge.corrections };
        Reply::Recorded(mine.map(|(id, s)| (id, recorded(s))).collect(), told, time)
    }

    fn leave(&mut self, node: &str, number: u64) -> Reply {
        self.world.stop(node, number, GRACE);
        let placed = self.world.open().filter(|(_, s)| s.node == node && s.state == "placed" && !s.waits);
        for id in placed.map(|(id, _)| id).collect::<Vec<_>>() {
            self.world.place_again(id, "stopped", Chosen::Free).expect("a free choice");
        }
        Reply::Done
    }

    fn take(&mut self, node: &str, generation: &str, asked: Fetch) -> Reply {
        if self.world.is_timeless() {
            return Reply::NotNow;
        }
        let (mut orders, now) = (Vec::new(), self.world.now);
        if !self.world.may_take(node, asked.number) {
            return Reply::Taken(orders);
        }
        let taker = Taker { node, generation, number: asked.number };
        if asked.since < asked.number {
            for id in self.world.unheard(node, generation, asked.since) {
                let taken = self.world.take_again(&taker, id, Chosen::Free).expect("a free choice");
                orders.push(self.order(taken));
            }
        }
        let most = orders.len() + TAKE_MOST;
        while orders.len() < most {
            let queue = self.world.queues.get(node).map_or(&[][..], Vec::as_slice);
            let visible = queue.iter().enumerate().filter(|(_, m)| m.visible_at <= now);
            let Some((at, _)) = visible.min_by_key(|(_, m)| (m.visible_at, m.step)) else { break };
            let taken = self.world.take_one(&taker, at, Chosen::Free).expect("a free choice");
            orders.push(self.order(taken));
        }
        Reply::Taken(orders)
    }

    fn order(&self, taken: Taken) -> Order {
        match taken {
            Taken::Ring(id, attempt, extension) => {
                let s = &self.world.sessions[&id];
                let class = if s.remote { Class::Remote } else { Class::Local };
                let (alias, agent) = (s.alias.parse().expect("an alias"), s.agent.parse().expect("an agent"));
                let extension = extension.parse().expect("an extension");
                Order::Ring(Login { session: id, attempt, alias, extension, agent, campaign: None, class })
            }
            Taken::HangUp(id) => Order::HangUp(id),
            Taken::Moved(id, result) => Order::Moved(id, PlacedAgain::parse(&result).expect("a result")),
            Taken::Expired(id) => Order::Expired(id),
            Taken::Stale(id) => Order::Stale(id.to_string()),
        }
    }
}
