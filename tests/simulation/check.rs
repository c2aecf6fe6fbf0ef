//! The promises, as statements about what is true at this moment. Owns what counts as broken. Must never change
//! anything in the world it looks at.

use evenring::ids::SessionId;
use evenring::registry::{Adopted, Order};

use super::agenda::Life;
use super::asterisk::Stage;
use super::daemon::Daemon;
use super::model::world::{Limits, Ms, Session, World};
use super::store::{Call, Reply};
use super::{Host, Sim};

fn name(what: &str, text: String) -> String {
    format!("{what}: {text}")
}

impl Sim {
    pub fn broken(&mut self, promise: &str, text: impl FnOnce() -> String) {
        if self.violation.is_none() {
            let text = name(promise, text());
            self.trace(|| format!("BROKEN {text}"));
            self.violation = Some(text);
        }
    }

    /// Runs a script of a daemon, and looks at what it did.
    pub fn run_script(&mut self, life: Life, call: Call) -> Reply {
        self.store.pass(self.now);
        let (host, generation) = self.voices(life);
        let node = self.hosts[host].name.clone();
        let alone = matches!(&call, Call::Report(_, _, outcomes) if outcomes.len() == 1);
        let registers = matches!(call, Call::Register { .. });
        let current = self.store.world.nodes.get(&node).map(|known| known.generation == generation);
        let adopted =
            if let Call::Adopt(_, found) = &call { found.iter().map(|(l, _)| l.session).collect() } else { Vec::new() };
        let shown = if self.trace.on { format!("{call:?}") } else { String::new() };
        if matches!(call, Call::Report(..) | Call::Adopt(..) | Call::Fetch(_) | Call::Register { .. }) {
            self.strike(host);
        }
        let (beats, leaves) = (matches!(call, Call::Beat { .. }), matches!(call, Call::Leave(_)));
        // One that has never been in sync knows no calls.
        if matches!(&call, Call::Beat { state: "active" | "stopping", .. }) {
            self.history.in_sync.insert(life);
        }
        let tells =
            matches!(&call, Call::Beat { state, .. } if *state != "starting" && self.history.in_sync.contains(&life));
        let knows = matches!(&call, Call::Beat { sent, .. }
            if sent.expected > 0 && sent.corrections == self.store.world.judge.corrections);
        let reply = self.store.run(&node, &generation, call);
        if registers {
            self.history.registering.insert(life);
        }
        // The heartbeat behind the registration comes before the calls.
        if tells && matches!(reply, Reply::Recorded(..)) && !self.history.registering.remove(&life) {
            self.history.told.insert(host, self.now);
        }
        if knows && matches!(reply, Reply::Recorded(..)) {
            self.time_is_known(life);
        }
        if beats && matches!(reply, Reply::Recorded(..)) && self.history.left.contains(&life) {
            self.broken("P6", || format!("{node} had left, and a heartbeat that came late brings it back"));
        }
        if leaves && matches!(reply, Reply::Done) {
            self.history.left.insert(life);
        }
        if let Reply::Taken(orders) = &reply {
            let now = self.now;
            let rings = orders.iter().filter_map(|order| match order {
                Order::Ring(login) => Some(((login.session, login.attempt), now)),
                Order::HangUp(_) | Order::Moved(..) | Order::Expired(_) | Order::Stale(_) => None,
            });
            self.history.taken.extend(rings);
        }
        let idle = matches!(&reply, Reply::Taken(orders) if orders.is_empty());
        self.trace(|| {
            if idle {
                return format!("redis: daemon {life} of {node}: no orders");
            }
            let text = format!("redis: daemon {life} of {node}: {shown} -> {reply:?}");
            text.chars().take(600).collect()
        });
        if !registers && current == Some(false) && !matches!(reply, Reply::Refused(_)) {
            self.broken("P6", || format!("the generation {generation} spoke for {node}, which has a newer one"));
        }
        if let Reply::Adopted(results) = &reply {
            for (id, result) in adopted.iter().zip(results) {
                match result {
                    Adopted::Stale => drop(self.history.stale.insert(*id)),
                    Adopted::Kept | Adopted::Restored => self.history.known_again(*id, self.now),
                }
            }
        }
        self.after_script(alone, Some(host));
        self.wake();
        reply
    }

    /// What must hold in Redis after each script, of a daemon of host `by`. `alone`: it changed one session at most.
    pub fn after_script(&mut self, alone: bool, by: Option<usize>) {
        self.judge_ends(by);
        let world = &self.store.world;
        let open: Vec<(SessionId, &Session)> = world.open().collect();
        let mut wrong = None;
        for (at, (id, s)) in open.iter().enumerate() {
            for (other, o) in &open[..at] {
                if s.extension == o.extension || s.is_of(&o.agent) && o.is_of(&s.agent) || s.alias == o.alias {
                    wrong = Some(("P1", format!("{id} and {other} are both open: {s:?} {o:?}")));
                }
            }
            if s.state == "live" {
                let excused = self.history.is_excused(id);
                let home = self.history.live.entry(*id).or_insert_with(|| s.node.clone());
                if *home != s.node && !excused {
                    wrong = Some(("P7", format!("{id} was live on {home} and is on {}", s.node)));
                }
            }
        }
        if self.setup.gentle {
            let unknown = world.sessions.iter().filter(|(_, s)| s.reason == "outcome-unknown");
            if let Some((id, s)) =
                unknown.into_iter().find(|(id, s)| !self.history.invites.contains_key(&(**id, s.attempt)))
            {
                wrong = Some(("P10", format!("the order for {id} was forgotten by a daemon that stopped: {s:?}")));
            }
        }
        let is_new = |(id, s): &&(SessionId, &Session)| {
            s.state == "placed" && !self.history.placed.contains_key(&(*id, s.attempt))
        };
        let new: Vec<(SessionId, u32)> = open.iter().filter(is_new).map(|(id, s)| (*id, s.attempt)).collect();
        if let [(id, _)] = new[..]
            && alone
        {
            wrong = wrong.or_else(|| unfair(world, id).map(|text| ("P2", text)));
        }
        let unfit = new.iter().find_map(|(id, _)| unfit(world, *id).map(|why| (*id, why)));
        if let Some((id, why)) = unfit {
            wrong = wrong.or(Some(("P3", format!("{id} was placed where it cannot ring: {why}"))));
        }
        let now = self.now;
        let unknown: Vec<_> = new.iter().flat_map(|(id, _)| self.unknown_calls(*id)).collect();
        self.history.unknown.extend(unknown);
        self.history.placed.extend(new.into_iter().map(|key| (key, now)));
        if let Some((promise, text)) = wrong {
            self.broken(promise, || text);
        }
    }

    /// Whether a daemon runs there that could beat for a lease and more, but for outages of Redis.
    fn is_able(&self, host: &Host) -> bool {
        let [life] = host.lives[..] else { return false };
        let Some(d) = &self.daemons[life] else { return false };
        let known = self.store.world.nodes.get(&host.name).is_some_and(|known| known.generation == d.generation);
        let runs = d.registered && !d.is_stopping() && d.frozen_until <= self.now;
        // Short outages one after the other may hit all heartbeats of one node and none of another.
        let flaky =
            host.refused_at > self.history.silence_ended.0 && self.now - host.refused_at <= self.setup.limits.lease;
        known && runs && !flaky && self.now - host.well_since > self.setup.limits.lease
    }

    /// P14 and P4: why sessions have ended just now.
    fn judge_ends(&mut self, by: Option<usize>) {
        let floor = self.store.world.judge.floor;
        if self.history.silence_ended.1 != floor {
            self.history.silence_ended = (self.now, floor);
        }
        let mut wrong = None;
        let world = &self.store.world;
        for (who, text) in &world.events {
            let over = text.starts_with("failed ") || text.starts_with("ended ");
            let (lost, expired) = (text.ends_with(" node-lost"), text.ends_with(" order-expired"));
            if !over || !lost && !expired {
                continue;
            }
            let Ok(id) = who.parse::<SessionId>() else { continue };
            let Some(s) = world.sessions.get(&id) else { continue };
            let home = self.hosts.iter().position(|host| host.name == s.node);
            let has_call = home.is_some_and(|home| self.hosts[home].asterisk.channels.contains_key(&id));
            if lost && by != home && has_call {
                let able = home.is_some_and(|home| self.is_able(&self.hosts[home]));
                let daemons = home.map(|home| &self.hosts[home].lives);
                if able && !self.history.is_excused(&id) {
                    wrong =
                        Some(("P14", format!("{id} counts as lost, but {daemons:?} of {} could beat: {s:?}", s.node)));
                }
                self.history.lost.insert(id);
                self.history.unknown_from(id, self.now);
            }
            let Limits { give_up, lease, .. } = world.limits;
            let young =
                self.history.asked.get(&id).is_some_and(|at| self.now - at < give_up - lease - self.slack_since(*at));
            let free =
                |host: &&Host| host.name != s.node && self.is_able(host) && cannot(world, &host.name, id).is_none();
            if expired
                && young
                && !world.aliases.contains_key(&s.alias)
                && let Some(other) = self.hosts.iter().find(free)
            {
                wrong =
                    Some(("P4", format!("nobody took the order for {id}, and {} was not asked: {s:?}", other.name)));
            }
        }
        if let Some((promise, text)) = wrong {
            self.broken(promise, || text);
        }
    }

    /// P6: a daemon asks its Asterisk to ring.
    pub fn check_ring(&mut self, d: &Daemon, id: SessionId, attempt: u32) {
        let known = self.store.world.nodes.get(&d.name);
        if known.is_some_and(|known| known.generation != d.generation) {
            self.history.superseded.insert((id, attempt));
        }
        let taken = self.history.taken.get(&(id, attempt)).copied();
        if taken.is_some_and(|at| at < d.woke_at) {
            let node = &d.name;
            self.broken("P6", || format!("{node} stood still, and rings {id}, which it had taken before"));
        }
    }

    /// The calls of this session's phone of which nobody could know when it was placed just now.
    fn unknown_calls(&self, id: SessionId) -> Vec<(SessionId, SessionId)> {
        let (world, hold) = (&self.store.world, self.setup.limits.lease * 2 / 3);
        let is_over = |emptied: &Ms| self.now - emptied >= hold - self.slack_since(*emptied);
        let Some(emptied) = self.history.emptied_at.filter(is_over) else { return Vec::new() };
        let is_silent = |host: &usize| self.history.told.get(host).is_none_or(|at| *at < emptied);
        let extension = &world.sessions[&id].extension;
        let hosts = self.hosts.iter().enumerate().filter(|(host, _)| is_silent(host));
        let calls = hosts.flat_map(|(_, host)| &host.asterisk.channels);
        let mine = calls.filter(|(its, c)| !world.sessions.contains_key(its) && format!("e{}", c.phone) == *extension);
        mine.map(|(its, _)| (id, *its)).collect()
    }

    /// P1: a phone is called that rings or talks already, for whatever session and on whatever host.
    pub fn check_phone(&mut self, host: usize, id: SessionId, attempt: u32, phone: usize) {
        let mut second = None;
        for (number, other) in self.hosts.iter().enumerate() {
            for (its, channel) in other.asterisk.shown().filter(|(its, c)| *its != id && c.phone == phone) {
                let history = &self.history;
                let excused = history.is_try_excused(id, attempt)
                    || history.is_try_excused(its, channel.attempt)
                    || history.is_placed_unknowing(id, attempt, its)
                    || history.is_placed_unknowing(its, channel.attempt, id)
                    || history.unknown.contains(&(id, its))
                    || history.unknown.contains(&(its, id));
                self.excused += u64::from(excused);
                if !excused {
                    let known = self.store.world.sessions.get(&its);
                    second = Some(format!(
                        "e{phone} is rung on n{host} for {id}, and has a call of {its} on n{number}: {channel:?}, {known:?}"
                    ));
                }
            }
        }
        if let Some(text) = second {
            self.broken("P1", || text);
        }
    }

    /// A phone is called.
    pub fn check_invite(&mut self, host: usize, id: SessionId, attempt: u32) {
        self.invites += 1;
        self.changed(id);
        self.trace(|| format!("n{host}: INVITE for {id}.{attempt}"));
        self.strike(host);
        let count = self.history.invites.entry((id, attempt)).or_insert(0);
        *count += 1;
        let count = *count;
        let excused = self.history.is_try_excused(id, attempt);
        if count > 1 && excused {
            self.excused += 1;
        } else if count > 1 {
            self.broken("P1", || format!("{id} is rung {count} times for its try {attempt}, now on n{host}"));
        }
        let rings = |other: &usize| {
            let channel = self.hosts[*other].asterisk.channels.get(&id);
            *other != host && channel.is_some_and(|channel| channel.stage != Stage::Queued)
        };
        // An Asterisk that its daemon cannot reach for 3 s counts as gone (P4 prefers to ring elsewhere).
        let rings = (0..self.hosts.len()).find(rings);
        if rings.is_some() && excused {
            self.excused += 1;
        } else if let Some(other) = rings {
            self.broken("P1", || format!("{id} rings on n{host} while it has a call on n{other}"));
        }
        let limits = self.store.world.limits;
        let late = self
            .history
            .placed
            .get(&(id, attempt))
            .is_some_and(|at| self.now - at > limits.expiry + limits.lease + self.slack_since(*at));
        if late {
            self.broken("P8", || format!("the order for {id}.{attempt} is too old, and n{host} rings it"));
        }
    }

    /// A daemon hangs up a call.
    pub fn check_hang_up(&mut self, host: usize, id: SessionId, stage: Stage) {
        let wanted = self.history.logged_out.contains(&id) || self.history.stale.contains(&id);
        if stage == Stage::Up && !wanted {
            self.broken("P7", || format!("n{host} hangs up the live call of {id}, which nobody wanted"));
        }
    }

    pub fn changed(&mut self, id: SessionId) {
        self.history.changed.insert(id, self.now);
    }

    /// A daemon counts its Asterisk as gone.
    pub fn given_up(&mut self, host: usize, id: SessionId) {
        if self.hosts[host].asterisk.channels.contains_key(&id) {
            self.history.given_up.insert(id);
            self.history.unknown_from(id, self.now);
        }
    }

    /// P5: what Redis believes is what Asterisk has, but for what changed in the last `grace` ms.
    pub fn compare(&mut self, grace: Ms) {
        let (now, mut wrong) = (self.now, None);
        let fresh = |id: &SessionId| self.history.changed.get(id).is_some_and(|at| now - at < grace);
        for (number, host) in self.hosts.iter().enumerate() {
            for (id, channel) in host.asterisk.shown().filter(|(id, c)| !fresh(id) && now - c.since >= grace) {
                let known = self.store.world.sessions.get(&id).filter(|s| s.is_open() && s.node == host.name);
                let live = channel.stage == Stage::Up;
                if known.is_none_or(|s| (s.state == "live") != live) {
                    wrong = Some(format!("n{number} has a call of {id}, live {live}, but Redis has {known:?}"));
                }
            }
        }
        let then = self.store.world.now - grace;
        for (id, s) in self.store.world.open().filter(|(id, s)| !fresh(id) && s.since <= then) {
            let host = self.hosts.iter().find(|host| host.name == s.node);
            let there = host.is_some_and(|host| host.asterisk.channels.contains_key(&id) || self.waits(host, id));
            if s.state != "placed" && !there {
                wrong = Some(format!("Redis has {id} as {s:?}, but there is no such call"));
            }
        }
        let phones = self.hosts.iter().find_map(|host| self.phones_differ(host));
        if let Some(text) = wrong.or(phones) {
            self.broken("P5", || text);
        }
    }

    /// Whether it waits for its turn there: logins are rung at a pace.
    fn waits(&self, host: &Host, id: SessionId) -> bool {
        let daemons = host.lives.iter().filter_map(|life| self.daemons[*life].as_ref());
        let mut sessions = daemons.flat_map(|daemon| daemon.node.sessions());
        sessions.any(|session| session.login.session == id && session.is_waiting())
    }

    /// In which phone Redis and Asterisk differ. All are registered by now; what a call hides says nothing.
    fn phones_differ(&self, host: &Host) -> Option<String> {
        let known = self.store.world.phones.get(&host.name);
        let is_known = |phone: &usize| known.and_then(|known| known.get(&format!("e{phone}"))).map(String::as_str);
        let differs = |phone: &usize| host.asterisk.registered[*phone] != (is_known(phone) == Some("registered"));
        let which = (0..self.setup.phones).find(differs)?;
        Some(format!("the phone e{which} is {:?} in Redis on {}, which is not true", is_known(&which), host.name))
    }

    /// P4: nobody waits any more.
    pub fn all_decided(&mut self) {
        let waits = self.store.world.open().find(|(_, s)| s.state != "live");
        if let Some(text) = waits.map(|(id, s)| format!("{id} is still {s:?}")) {
            self.broken("P4", || text);
        }
        let rings = self.hosts.iter().flat_map(|host| host.asterisk.shown()).find(|(_, c)| c.stage != Stage::Up);
        if let Some(text) = rings.map(|(id, c)| format!("{id} still rings: {c:?}")) {
            self.broken("P4", || text);
        }
    }

    /// P2: after a burst on nodes that could all take everybody, loads differ by no more than 1, unless they did before.
    pub fn even(&mut self, spread_before: u32) {
        let spread = self.spread();
        if self.setup.is_equal() && spread > spread_before.max(1) {
            self.broken("P2", || format!("after a burst the loads differ by {spread}"));
        }
    }

    /// By how much the loads of the nodes differ.
    pub fn spread(&self) -> u32 {
        let loads = || self.hosts.iter().map(|host| local(&self.store.world, &host.name));
        loads().max().unwrap_or(0) - loads().min().unwrap_or(0)
    }
}

/// Local sessions, counted here and not by the model's own count.
fn local(world: &World, node: &str) -> u32 {
    let here = world.sessions.values().filter(|s| s.node == node && !s.remote && s.gone_at.is_none());
    u32::try_from(here.count()).unwrap_or(u32::MAX)
}

/// The session itself and, for its first node, one that its agent has left for it, if they are load there.
fn own_load(world: &World, node: &str, id: SessionId) -> u32 {
    let first = world.sessions.get(&id).is_some_and(|s| s.attempt == 1);
    let own = world.open().filter(|(other, o)| *other == id || first && o.moved_to == Some(id));
    u32::try_from(own.filter(|(_, o)| o.node == node && !o.remote).count()).unwrap_or(u32::MAX)
}

/// Why a node may not take this session; the session itself does not count.
fn cannot(world: &World, node: &str, id: SessionId) -> Option<&'static str> {
    let (known, s) = (world.nodes.get(node)?, world.sessions.get(&id)?);
    let phone = world.phones.get(node).and_then(|phones| phones.get(&s.extension)).map(String::as_str);
    let own = own_load(world, node, id);
    match () {
        () if known.lease_until < world.now || known.lease_until > world.now + known.lease => Some("its lease is over"),
        () if known.state != "active" => Some("it is not active"),
        () if known.drain => Some("it drains"),
        () if phone != Some("registered") => Some("the phone is not registered there"),
        () if s.tried.contains(node) => Some("it was tried"),
        () if !s.remote && known.cap.is_some_and(|cap| local(world, node) - own >= cap) => Some("it is full"),
        () => None,
    }
}

fn unfit(world: &World, id: SessionId) -> Option<&'static str> {
    let s = world.sessions.get(&id)?;
    if !world.nodes.contains_key(&s.node) {
        return Some("there is no such node");
    }
    cannot(world, &s.node, id)
}

/// Whether this session, the last that was placed, was placed where the load was not the least.
fn unfair(world: &World, id: SessionId) -> Option<String> {
    let s = &world.sessions[&id];
    if world.aliases.contains_key(&s.alias) {
        return None;
    }
    let before = |node: &str| {
        f64::from(local(world, node) - own_load(world, node, id))
            / f64::from(world.nodes.get(node).map_or(1, |known| known.weight))
    };
    let mine = before(&s.node);
    let fit = world.nodes.keys().filter(|node| **node != s.node && cannot(world, node, id).is_none());
    let better = fit.map(|node| (node, before(node))).find(|(_, load)| *load < mine);
    better.map(|(node, load)| format!("{id} was placed on {} with load {mine}, but {node} had {load}", s.node))
}
