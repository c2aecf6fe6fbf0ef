//! What each call does, as the promises say it. Owns the life of a session in the model. Must never know Redis.

use std::collections::BTreeSet;

use evenring::ids::SessionId;

use super::judge::AWAIT;
use super::world::{Bug, Chosen, Fault, Hold, Kind, Meaning, Message, Ms, Node, Row, Session, World, limits::SUFFIX};

/// Why a call is refused as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    Fenced,
    Forgotten,
}

/// Whether the agents of a lost node are rung again; with what Redis said of this one.
#[derive(Debug, Clone, Copy)]
pub enum Rejoined<'a> {
    Manual,
    Auto(&'a str),
}

/// What a login asks for.
#[derive(Debug, Clone)]
pub struct Wish {
    pub alias: String,
    pub agent: Option<String>,
    pub campaign: String,
    pub remote: bool,
    pub moves: bool,
    pub hold: Option<Hold>,
}

/// The answer to a login.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    pub verdict: &'static str,
    pub session: Option<SessionId>,
    pub node: String,
    pub reason: String,
    /// The session that ends for it.
    pub moved_from: Option<SessionId>,
    pub rows: Vec<(String, String, f64)>,
}

fn rows_of(rows: &[Row]) -> Vec<(String, String, f64)> {
    rows.iter().map(|row| (row.node.clone(), row.why.clone(), row.load)).collect()
}

impl World {
    /// Whether this generation may speak for this node. What is refused is counted.
    pub fn fence(&mut self, node: &str, generation: &str) -> Result<(), Refused> {
        match self.nodes.get_mut(node) {
            None => Err(Refused::Forgotten),
            Some(known) if known.generation != generation => {
                known.refused += 1;
                Err(Refused::Fenced)
            }
            Some(_) => Ok(()),
        }
    }

    /// Whether a call with a higher number was carried out before.
    pub fn is_late(&mut self, node: &str, number: u64) -> bool {
        self.nodes.get_mut(node).is_some_and(|known| {
            let is_late = number <= known.writes;
            known.writes = known.writes.max(number);
            is_late
        })
    }

    /// `Err`: the host that holds the name. `returns`: this generation was registered before.
    pub fn register(&mut self, name: &str, new: Node, returns: bool) -> Result<Option<String>, String> {
        let empty = self.judge.tick == 0;
        self.hear(false);
        let old = self.nodes.get(name);
        if let Some(old) = old
            && old.generation != new.generation
            && old.host != new.host
            && old.state != "stopped"
            && !self.is_dead(old)
        {
            let both = (old.host.clone(), new.host);
            if self.rivals.get(name) != Some(&both) {
                self.say_node("name-conflict", name, &format!("held by {}, wanted by {}", both.0, both.1));
                self.rivals.insert(name.to_owned(), both.clone());
            }
            return Err(both.0);
        }
        let previous = old.map(|old| old.generation.clone());
        let again = old.is_some_and(|old| old.generation == new.generation && old.state == "starting");
        let (drain, refused) = old.map_or((false, 0), |old| (old.drain, old.refused));
        let same = old.filter(|old| old.generation == new.generation);
        let (take, beats, writes) = same.map_or((0, 0, 0), |old| (old.take, old.beats, old.writes));
        let (lease, beat, lease_until) = (self.limits.lease, self.judge.tick, self.now + self.limits.lease);
        if previous.is_none() && (empty || returns) && beat >= self.judge.hold {
            self.judge.hold = beat + lease * 2 / 3;
        }
        self.nodes
            .insert(name.to_owned(), Node { drain, refused, take, beats, writes, lease, beat, lease_until, ..new });
        if !again {
            self.say_node("node-starting", name, &format!("version {}", env!("CARGO_PKG_VERSION")));
        }
        Ok(previous)
    }

    /// The session that a wish would make, before it has a node.
    fn wished(&self, wish: &Wish, phone: &str, agent: &str) -> Session {
        Session {
            alias: wish.alias.clone(),
            extension: phone.to_owned(),
            agent: agent.to_owned(),
            campaign: wish.campaign.clone(),
            remote: wish.remote,
            node: String::new(),
            state: "placed",
            reason: String::new(),
            since: self.now,
            created: self.now,
            attempt: 0,
            unrung: 0,
            tried: BTreeSet::new(),
            give_up: Some(self.now + self.limits.give_up),
            hangup_requested: false,
            waits: false,
            taken: None,
            due: None,
            gone_at: None,
            rejoined_from: String::new(),
            moved_to: None,
            hold: wish.hold,
        }
    }

    pub fn place(&mut self, wish: &Wish, id: SessionId, dry: bool, chosen: Chosen<'_>) -> Result<Answer, Fault> {
        let meaning = self.meaning(&wish.alias);
        let phone = meaning.targets.first().map_or(wish.alias.clone(), |(_, extension)| extension.clone());
        let default = if meaning.explicit { wish.alias.clone() } else { phone.clone() };
        let agent = wish.agent.clone().unwrap_or(default);
        let mut new = self.wished(wish, &phone, &agent);
        let alone = meaning.explicit.then_some(id);
        if !dry && let Some(own) = self.sessions.get(&id) {
            // P1: the same request again finds its own session, whatever has become of it.
            if own.is_open() && self.is_lost(own) {
                self.end_lost(id);
            }
            self.renew(id, wish);
            return Ok(self.existing(id, &meaning.targets, &new, alone));
        }
        let old = match self.in_the_way(wish, &meaning, &new, alone, dry) {
            Ok(old) => old,
            Err(answer) => {
                if let (Some(id), "existing", false) = (answer.session, answer.verdict, dry) {
                    self.renew(id, wish);
                }
                return Ok(*answer);
            }
        };
        self.leaves = old;
        if meaning.explicit && !dry {
            self.end_lost_in_the_way(id, &meaning.targets, &new);
        }
        let rows = self.choose_node(&meaning.targets, &new, alone);
        self.leaves = None;
        let answer = |verdict, session, node, reason: &str| Answer {
            verdict,
            session,
            node,
            reason: reason.into(),
            moved_from: None,
            rows: rows_of(&rows),
        };
        if rows.is_empty() && !meaning.explicit {
            return Ok(answer("not-now", None, String::new(), "no-node"));
        }
        if !rows.is_empty() && (self.is_unsettled() || self.awaits(&meaning.targets)) {
            return Ok(answer("not-now", None, String::new(), "recovering"));
        }
        if !rows.iter().any(|row| row.why.is_empty()) {
            let reason = match () {
                () if rows.is_empty() => "empty-alias",
                () if !meaning.known => "unknown-alias",
                () => "no-eligible-node",
            };
            self.say_refused(&new, reason, dry);
            return Ok(answer("refused", None, String::new(), reason));
        }
        let best = Self::best(&rows, id, chosen)?.ok_or("nobody was chosen")?;
        let node = best.node.clone();
        if dry {
            return Ok(answer("would-place", None, node, ""));
        }
        new.node = node.clone();
        let why = old.map(|old| format!("moved from {old}")).unwrap_or_default();
        if let Some(old) = old {
            self.move_out(old, id);
        }
        match wish.hold {
            Some(hold) => self.assign_held(id, new, (&best, hold.ttl), &why),
            None => self.assign(id, new, &best, &why),
        }
        Ok(Answer { moved_from: old, ..answer("placed", Some(id), node, "") })
    }

    /// The session that is in the way of a login: the answer to it, or the one that its agent leaves for it.
    fn in_the_way(
        &mut self,
        wish: &Wish,
        meaning: &Meaning,
        new: &Session,
        alone: Option<SessionId>,
        dry: bool,
    ) -> Result<Option<SessionId>, Box<Answer>> {
        let is_agent = |s: &Session| s.is_of(&new.agent);
        let is_alias = |s: &Session| s.alias == wish.alias;
        let is_phone = |s: &Session| !meaning.explicit && s.extension == new.extension;
        let tests: [&dyn Fn(&Session) -> bool; 3] = [&is_agent, &is_alias, &is_phone];
        let mut old = None;
        for test in tests {
            let Some(found) = self.holder(test, dry) else { continue };
            let s = &self.sessions[&found];
            let elsewhere = s.alias != wish.alias && meaning.targets.iter().all(|(_, phone)| *phone != s.extension);
            if elsewhere && wish.moves {
                old = Some(found);
                continue;
            }
            let in_use = wish.agent.is_some() && s.agent != new.agent || s.moved_to.is_some();
            let mut answer = self.existing(found, &meaning.targets, new, alone);
            let refused = if elsewhere { Some("logged-in-elsewhere") } else { in_use.then_some("in-use") };
            if let Some(reason) = refused {
                (answer.verdict, answer.reason) = ("refused", reason.into());
                self.say_refused(new, reason, dry);
            }
            return Err(Box::new(answer));
        }
        Ok(old)
    }

    /// The agent of a session moves to another phone.
    fn move_out(&mut self, old: SessionId, to: SessionId) {
        let s = &self.sessions[&old];
        if s.state == "placed" || s.hold.is_some() {
            return self.finish(old, "ended", "moved");
        }
        self.sessions.get_mut(&old).expect("a session").moved_to = Some(to);
        self.request_hangup(old, "moved");
    }

    fn request_hangup(&mut self, id: SessionId, why: &str) {
        let s = self.sessions.get_mut(&id).expect("a session");
        let node = s.node.clone();
        let again = std::mem::replace(&mut s.hangup_requested, true);
        if !again {
            self.say(id, "logout", why);
        }
        self.send(&node, id, Kind::HangUp);
    }

    fn say_refused(&mut self, s: &Session, reason: &str, dry: bool) {
        if !dry {
            let text = ["refused", "", &s.alias, &s.agent, &s.extension, reason].join(" ");
            self.events.push((String::new(), text));
        }
    }

    fn existing(&self, id: SessionId, targets: &[(String, String)], new: &Session, alone: Option<SessionId>) -> Answer {
        let rows = rows_of(&self.choose_node(targets, new, alone));
        let s = &self.sessions[&id];
        let (node, reason) = (s.node.clone(), s.reason.clone());
        Answer { verdict: "existing", session: Some(id), node, reason, moved_from: None, rows }
    }

    /// The open session that `test` finds. One whose node is long gone is over.
    fn holder(&mut self, test: &dyn Fn(&Session) -> bool, dry: bool) -> Option<SessionId> {
        let (id, s) = self.open().find(|(_, s)| test(s))?;
        if !self.is_lost(s) {
            return Some(id);
        }
        if !dry {
            self.end_lost(id);
        }
        None
    }

    pub fn end_lost(&mut self, id: SessionId) {
        let ends = ["live", "held"].contains(&self.sessions[&id].state);
        self.finish(id, if ends { "ended" } else { "failed" }, "node-lost");
    }

    /// A session of a lost node does not keep a phone from anybody who could have it.
    pub(super) fn end_lost_in_the_way(&mut self, id: SessionId, targets: &[(String, String)], new: &Session) {
        let free = self.choose_node(targets, new, None);
        for row in free.into_iter().filter(|row| row.why.is_empty()) {
            let holder = self.open().find(|(other, s)| *other != id && s.extension == row.extension);
            if let Some((other, _)) = holder.filter(|(_, s)| self.is_lost(s)) {
                self.end_lost(other);
            }
        }
    }

    pub(super) fn assign(&mut self, id: SessionId, mut s: Session, row: &Row, why: &str) {
        let expires = self.now + self.limits.expiry;
        s.attempt += 1;
        s.waits = false;
        (s.node, s.extension) = (row.node.clone(), row.extension.clone());
        (s.state, s.reason, s.since, s.due) = ("placed", String::new(), self.now, Some(expires));
        let kind = Kind::Ring { attempt: s.attempt, expires, extension: s.extension.clone() };
        self.send(&row.node, id, kind);
        self.sessions.insert(id, s);
        self.say(id, "placed", why);
    }

    fn send(&mut self, node: &str, session: SessionId, kind: Kind) {
        let message = Message { session, kind, visible_at: self.now, received: 0, step: self.step };
        self.woken.push(node.to_owned());
        self.queues.entry(node.to_owned()).or_default().push(message);
    }

    /// Takes the session's order out of its node's queue.
    pub(super) fn drop_order(&mut self, id: SessionId) {
        let node = self.sessions[&id].node.clone();
        let is_order = |m: &Message| m.session == id && m.kind != Kind::HangUp;
        self.queues.entry(node).or_default().retain(|m| !is_order(m));
    }

    pub fn finish(&mut self, id: SessionId, state: &'static str, reason: &str) {
        self.drop_order(id);
        let (now, keep) = (self.now, self.limits.keep);
        let s = self.sessions.get_mut(&id).expect("a session");
        (s.state, s.reason, s.since, s.due) = (state, reason.to_owned(), now, None);
        s.waits = false;
        s.gone_at = Some(now + keep);
        self.ended.insert(id, now);
        self.say(id, state, reason);
    }

    /// P4: another node, or the end. Says which.
    pub fn place_again(&mut self, id: SessionId, why: &str, chosen: Chosen<'_>) -> Result<String, Fault> {
        let mut s = self.sessions[&id].clone();
        // A node that drains may be asked again when it has resumed.
        if why != "draining" {
            s.tried.insert(s.node.clone());
        }
        if s.hangup_requested {
            self.finish(id, "ended", s.reason_of_hangup());
            return Ok("failed".into());
        }
        // A node that rang nobody is no try.
        s.unrung += u32::from(!s.waits && (s.state == "placed" || ["draining", "stopping"].contains(&why)));
        let impatient = self.bug == Some(Bug::Impatient) && why == "order-expired";
        if impatient || s.attempt >= self.limits.tries + s.unrung || s.give_up.is_none_or(|at| self.now > at) {
            self.finish(id, "failed", why);
            return Ok("failed".into());
        }
        let meaning = self.meaning(&s.alias);
        self.end_lost_in_the_way(id, &meaning.targets, &s);
        let rows = self.choose_node(&meaning.targets, &s, Some(id));
        let nobody = rows.iter().all(|row| !row.why.is_empty());
        if nobody && (self.is_silent() || self.awaits(&meaning.targets)) {
            self.drop_order(id);
            self.await_nodes(id, s, why);
            return Ok("waiting".into());
        }
        if nobody {
            self.finish(id, "failed", why);
            return Ok("failed".into());
        }
        let best = Self::best(&rows, id, chosen)?.ok_or("nobody was chosen")?;
        self.drop_order(id);
        let (result, why) = (format!("placed {}", best.node), format!("{why} on {}", s.node));
        self.assign(id, s, &best, &why);
        Ok(result)
    }

    /// It stays where it is, without an order, until the nodes have reported.
    pub(super) fn await_nodes(&mut self, id: SessionId, mut s: Session, why: &str) {
        let again = std::mem::replace(&mut s.waits, true);
        (s.state, s.reason, s.since, s.due) = ("placed", why.to_owned(), self.now, Some(self.now + AWAIT));
        self.sessions.insert(id, s);
        if !again {
            self.say(id, "placed", &format!("{why}: waiting for the nodes to report"));
        }
    }

    /// An order that nobody took in time, or a session that waited: placed again. Says with what result.
    pub fn overdue(&mut self, id: SessionId, chosen: Chosen<'_>) -> Result<String, Fault> {
        let s = &self.sessions[&id];
        if s.state == "held" {
            self.finish(id, "ended", "hold-expired");
            return Ok("hold-expired".into());
        }
        let why = if s.waits { s.reason.clone() } else { "order-expired".to_owned() };
        let result = self.place_again(id, &why, chosen)?;
        Ok(if result == "failed" { why } else { result })
    }

    /// A node that is not active any more says so with what became of its sessions, and is out before they are settled.
    pub fn told_state(&mut self, node: &str, state: &str) {
        let Some(known) = self.nodes.get_mut(node) else { return };
        if known.state == "active" && state != "active" {
            known.state = state.to_owned();
            self.say_node("node-down", node, "");
        }
    }

    pub fn report(
        &mut self,
        node: &str,
        id: SessionId,
        what: &str,
        why: &str,
        (rejoin, chosen): (Rejoined<'_>, Chosen<'_>),
    ) -> Result<String, Fault> {
        let state = match self.sessions.get(&id) {
            Some(s) if s.is_open() && s.node == node && s.hold.is_none() => s.state,
            Some(_) | None => "gone",
        };
        match (state, what) {
            ("gone" | "placed", _) => return Ok("gone".into()),
            ("ringing", "live") => {
                self.drop_order(id);
                let now = self.now;
                let s = self.sessions.get_mut(&id).expect("a session");
                (s.state, s.since, s.reason) = ("live", now, String::new());
                self.say(id, "live", "");
            }
            (_, "live") => {}
            ("ringing", "try-next-node" | "drained" | "stopped") => return self.place_again(id, why, chosen),
            (_, "ended" | "logged-out") => {
                let why = if why == "logged-out" { self.sessions[&id].reason_of_hangup() } else { why };
                self.finish(id, "ended", why);
            }
            (_, "lost") => {
                let lost = self.sessions[&id].clone();
                self.finish(id, "ended", why);
                return Ok(self.rejoin(id, &lost, rejoin, chosen)?.unwrap_or_else(|| "done".into()));
            }
            (_, _) => self.finish(id, "failed", why),
        }
        Ok("done".into())
    }

    pub fn forget_ended(&mut self) {
        let oldest = self.now - self.limits.keep;
        self.ended.retain(|_, at| *at > oldest);
    }

    /// (what, session, node). `not-now`: nobody knows.
    pub fn logout(&mut self, who: &str) -> (&'static str, Option<(SessionId, String)>) {
        let stem = who.strip_suffix(SUFFIX).filter(|stem| !stem.is_empty()).unwrap_or(who);
        let tests: [&dyn Fn(&Session) -> bool; 4] =
            [&|s| s.alias == who, &|s| s.extension == who, &|s| s.is_of(who), &|s| s.extension == stem];
        let mut found = tests.iter().find_map(|test| self.holder(test, false));
        if found.is_none() {
            found = self.open().map(|(id, _)| id).find(|id| id.to_string() == who);
        }
        let Some(id) = found else { return (if self.is_unsettled() { "not-now" } else { "none" }, None) };
        let s = &self.sessions[&id];
        let node = s.node.clone();
        if s.state == "placed" || s.hold.is_some() {
            self.finish(id, "ended", "logged-out");
            return ("ended", Some((id, node)));
        }
        self.request_hangup(id, "requested");
        ("asked", Some((id, node)))
    }

    pub fn pass(&mut self, time: Ms) {
        self.now += time;
        let now = self.now;
        self.sessions.retain(|_, s| s.gone_at.is_none_or(|at| at > now));
    }
}
