//! How the daemon is at this moment: what the node loop tells whoever is asked for it over HTTP. Owns what makes a node
//! ready, and the words for what it lacks. Must never change anything: it is a copy.

use std::collections::BTreeMap;
use std::time::Duration;

use super::ami::Silence;
use crate::config::span_text;
use crate::ids::Now;
use crate::node::left_out::Why;
use crate::node::roster::PhoneState;
use crate::node::session::Class;
use crate::node::{Duty, Node, NodeState};
use crate::registry::Backlog;

/// Who may ring here, or why nobody may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Name {
    /// Redis has not answered yet.
    Unasked,
    /// It is ours.
    Ours,
    /// Another daemon holds it.
    Held,
}

/// What Redis said with the last heartbeat that it took.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Booked {
    /// Sessions of this node that have not been taken yet.
    pub(super) reserved: usize,
    /// How often older generations were refused.
    pub(super) refused: u64,
    pub(super) ring: Backlog,
    pub(super) logins: Backlog,
}

/// AMI is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Away {
    pub(super) since: Now,
    /// Since when every attempt finds that nothing listens there.
    pub(super) refused: Option<Now>,
    /// The last attempt found nobody who speaks.
    pub(super) silent: bool,
    /// The channels when it was last in sync; `None` if that is not known, or was another Asterisk.
    pub(super) channels: Option<usize>,
}

impl Away {
    /// After one more attempt, or the loss of a connection.
    pub(super) fn again(before: Option<Self>, silence: Silence, channels: Option<usize>, now: Now) -> Self {
        let mut away = before.unwrap_or(Self { since: now, refused: None, silent: false, channels });
        away.silent = silence == Silence::Mute;
        match silence {
            Silence::Nobody => {
                away.refused = away.refused.or(Some(now));
                away.channels = None;
            }
            Silence::Mute | Silence::Speaks => away.refused = None,
        }
        away
    }
}

/// See above.
#[derive(Debug, Clone)]
pub(super) struct Vitals {
    pub(super) state: NodeState,
    pub(super) duty: Duty,
    pub(super) name: Name,
    /// AMI is logged in.
    pub(super) connected: bool,
    /// How it is away, from the first time that it was found so.
    pub(super) away: Option<Away>,
    pub(super) redis_down: bool,
    pub(super) stopping: bool,
    /// When Redis took the last heartbeat.
    pub(super) beat: Option<Now>,
    /// When AMI sent the last message that was not left out.
    pub(super) heard: Option<Now>,
    pub(super) booked: Booked,
    pub(super) tally: Tally,
}

/// What there is on the node.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    /// Sessions: class, state, how many.
    pub(super) agents: [(&'static str, &'static str, usize); 4],
    pub(super) phones: BTreeMap<PhoneState, usize>,
    /// Phones that are left out: why, how many.
    pub(super) left_out: Vec<(Why, usize)>,
    pub(super) channels: usize,
    pub(super) disputed: usize,
}

impl Tally {
    pub(super) fn of(node: &Node) -> Self {
        let count = |class, live| {
            node.sessions().filter(|session| session.login.class == class && session.is_live() == live).count()
        };
        let agents = [
            ("local", "ringing", count(Class::Local, false)),
            ("local", "live", count(Class::Local, true)),
            ("remote", "ringing", count(Class::Remote, false)),
            ("remote", "live", count(Class::Remote, true)),
        ];
        let roster = &node.roster;
        let (phones, left_out) = (roster.tally(), roster.left_out.counts().to_vec());
        Self { agents, phones, left_out, channels: node.channels(), disputed: node.disputed() }
    }

    /// Local agents that ring or are live.
    pub(super) fn local(&self) -> usize {
        self.agents.iter().filter(|(class, _, _)| *class == "local").map(|(_, _, count)| count).sum()
    }
}

impl Vitals {
    pub(super) fn new() -> Self {
        Self {
            state: NodeState::Starting,
            duty: Duty::Serving,
            name: Name::Unasked,
            connected: false,
            away: None,
            redis_down: false,
            stopping: false,
            beat: None,
            heard: None,
            booked: Booked::default(),
            tally: Tally::default(),
        }
    }

    /// The state that `evenring status` would show.
    pub(super) fn state_word(&self) -> &'static str {
        match (self.state, self.duty) {
            (NodeState::Active, Duty::Draining) => "draining",
            (state, Duty::Serving | Duty::Draining) => state.as_str(),
        }
    }

    /// What a login here would want and does not find: a stable word, and more of it for people. Empty: ready.
    pub(super) fn missing(&self, now: Now, lease: Duration) -> Vec<(&'static str, String)> {
        let mut missing = Vec::new();
        let mut lacks = |word, why: &str| missing.push((word, why.to_owned()));
        if self.stopping {
            lacks("stopping", "the daemon ends");
        }
        match (self.state, self.connected) {
            (NodeState::Active, _) => {}
            (NodeState::Stopping, _) => lacks("asterisk", "Asterisk is shutting down"),
            (NodeState::Starting | NodeState::Down, true) => lacks("asterisk", "AMI is logged in, but not in sync yet"),
            (NodeState::Starting, false) => lacks("asterisk", "AMI has not been logged in yet"),
            (NodeState::Down, false) => lacks("asterisk", "AMI is away"),
        }
        let age = self.beat.map(|beat| now.since(beat));
        match (self.name, age) {
            (Name::Held, _) => lacks("name", "another daemon holds this node's name"),
            _ if self.redis_down => lacks("redis", "it is out of use"),
            (Name::Unasked, _) | (Name::Ours, None) => lacks("redis", "it has not taken a heartbeat yet"),
            (Name::Ours, Some(age)) if age > lease => {
                let age = span_text(Duration::from_secs(age.as_secs()));
                lacks("redis", &format!("it took the last heartbeat {age} ago"));
            }
            (Name::Ours, Some(_)) => {}
        }
        match self.duty {
            Duty::Draining => lacks("draining", "somebody used `evenring drain`"),
            Duty::Serving => {}
        }
        missing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The words that are missing `ms` after the start.
    #[track_caller]
    fn check(change: impl FnOnce(&mut Vitals), ms: u64, words: &[&str]) {
        let at = |ms| Now(Duration::from_millis(ms));
        let mut vitals = Vitals::new();
        (vitals.state, vitals.connected, vitals.name, vitals.beat) =
            (NodeState::Active, true, Name::Ours, Some(at(1000)));
        change(&mut vitals);
        let missing = vitals.missing(at(ms), Duration::from_secs(3));
        assert_eq!(missing.iter().map(|(word, _)| *word).collect::<Vec<_>>(), words, "{missing:?}");
    }

    #[test]
    fn a_node_is_ready_when_nothing_is_missing() {
        check(|_| {}, 4000, &[]);
        check(|_| {}, 4001, &["redis"]);
        check(|vitals| vitals.redis_down = true, 1000, &["redis"]);
        check(|vitals| vitals.beat = None, 1000, &["redis"]);
        check(|vitals| (vitals.name, vitals.redis_down) = (Name::Held, true), 1000, &["name"]);
        check(|vitals| vitals.state = NodeState::Starting, 1000, &["asterisk"]);
        check(|vitals| vitals.duty = Duty::Draining, 1000, &["draining"]);
        let worst = |vitals: &mut Vitals| *vitals = Vitals { stopping: true, duty: Duty::Draining, ..Vitals::new() };
        check(worst, 0, &["stopping", "asterisk", "redis", "draining"]);
    }
}
