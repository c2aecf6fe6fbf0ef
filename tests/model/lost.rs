//! What becomes of sessions that a fault has taken from a node or from Redis: adopted, ended, or rung again elsewhere. Must
//! never know Redis.

use std::collections::BTreeSet;

use evenring::ids::SessionId;

use super::rules::Rejoined;
use super::world::{Chosen, Fault, Session, World};

impl World {
    pub fn adopt(&mut self, node: &str, id: SessionId, state: &'static str, found: &Session) -> &'static str {
        let now = self.now;
        if let Some(s) = self.sessions.get(&id).filter(|s| s.is_open()) {
            if s.node != node {
                return "stale";
            }
            if s.hold.is_some() {
                return "kept";
            }
            let hangup_requested = s.hangup_requested;
            if s.state != state && s.state != "live" {
                self.drop_order(id);
                let s = self.sessions.get_mut(&id).expect("a session");
                (s.state, s.since, s.due, s.reason) = (state, now, None, String::new());
                s.waits = false;
                self.say(id, state, "found in Asterisk");
            }
            self.sessions.get_mut(&id).expect("a session").taken = None;
            return if hangup_requested { "stale" } else { "kept" };
        }
        let old = self.sessions.get(&id).cloned();
        if old.as_ref().is_some_and(|old| old.reason != "node-lost" || old.hangup_requested || old.hold.is_some()) {
            return "stale";
        }
        let shares = |s: &Session| s.is_of(&found.agent) || s.alias == found.alias || s.extension == found.extension;
        if self.open().any(|(_, s)| shares(s)) {
            return "stale";
        }
        let restored = Session {
            node: node.to_owned(),
            state,
            reason: String::new(),
            since: now,
            created: old.as_ref().map_or(now, |old| old.created),
            rejoined_from: old.as_ref().map(|old| old.rejoined_from.clone()).unwrap_or_default(),
            tried: old.map(|old| old.tried).unwrap_or_default(),
            give_up: None,
            hangup_requested: false,
            moved_to: None,
            waits: false,
            taken: None,
            due: None,
            gone_at: None,
            hold: None,
            ..found.clone()
        };
        self.sessions.insert(id, restored);
        self.ended.remove(&id);
        self.say(id, state, "found in Asterisk");
        "restored"
    }

    /// A session of a lost node: an order that nobody took goes elsewhere (P4), anything else is over, and its agent may
    /// come back (P9).
    pub fn reap_one(&mut self, id: SessionId, rejoin: Rejoined<'_>, chosen: Chosen<'_>) -> Result<String, Fault> {
        let s = self.sessions[&id].clone();
        if s.state == "placed" {
            let result = self.place_again(id, "node-lost", chosen)?;
            return Ok(if result == "failed" { "node-lost".into() } else { result });
        }
        self.end_lost(id);
        let stopped = self.nodes.get(&s.node).is_some_and(|node| node.state == "stopped");
        let result = if s.state == "live" && !stopped { self.rejoin(id, &s, rejoin, chosen)? } else { None };
        Ok(result.unwrap_or_else(|| "node-lost".into()))
    }

    /// P9: the agent of a session that was lost is rung from another node, if nobody has brought them back yet.
    pub fn rejoin(
        &mut self,
        id: SessionId,
        lost: &Session,
        rejoin: Rejoined<'_>,
        chosen: Chosen<'_>,
    ) -> Result<Option<String>, Fault> {
        let Rejoined::Auto(real) = rejoin else { return Ok(None) };
        let is_back = self.open().any(|(_, s)| s.is_of(&lost.agent) || s.alias == lost.alias);
        if lost.hangup_requested || lost.hold.is_some() || is_back {
            return Ok(None);
        }
        let new = Session {
            node: String::new(),
            created: self.now,
            attempt: 0,
            unrung: 0,
            tried: BTreeSet::from([lost.node.clone()]),
            give_up: Some(self.now + self.limits.give_up),
            gone_at: None,
            rejoined_from: id.to_string(),
            ..lost.clone()
        };
        // Its id is Redis's own business, as long as nobody has it.
        let fresh = real.split(' ').nth(2).and_then(|word| word.parse().ok()).unwrap_or(id);
        let meaning = self.meaning(&new.alias);
        self.end_lost_in_the_way(fresh, &meaning.targets, &new);
        let rows = self.choose_node(&meaning.targets, &new, Some(fresh));
        let nobody = rows.iter().all(|row| !row.why.is_empty());
        if nobody && (self.is_silent() || self.awaits(&meaning.targets)) {
            self.say(id, "rejoin", &format!("as {fresh}, when the other nodes have reported"));
            let (node, result) =
                (lost.node.clone(), format!("rejoined {} {fresh} {} {}", lost.node, new.alias, new.agent));
            self.await_nodes(fresh, Session { node, waits: false, ..new }, "node-lost");
            return Ok(Some(result));
        }
        if nobody {
            self.say(id, "stranded", "no other node can ring the phone");
            return Ok(Some(format!("stranded {} {}", new.alias, new.agent)));
        }
        if self.sessions.contains_key(&fresh) {
            return Err(format!("{real:?} is no new session"));
        }
        let best = Self::best(&rows, fresh, chosen)?.ok_or("nobody was chosen")?;
        let result = format!("rejoined {} {fresh} {} {}", best.node, new.alias, new.agent);
        self.say(id, "rejoin", &format!("as {fresh} on {}", best.node));
        self.assign(fresh, new, &best, &format!("rejoins {id}"));
        Ok(Some(result))
    }
}
