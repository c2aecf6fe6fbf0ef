//! The daemon's status: a copy of the node loop's state for HTTP and metrics. Owns what makes a node ready, and the texts
//! for what is missing. Must never change anything.

use std::collections::BTreeMap;
use std::time::Duration;

use super::reasons::{Reasons, with_reason};
use crate::ami_client::PeerStatus;
use crate::config::span_text;
use crate::ids::Now;
use crate::node::left_out::Why;
use crate::node::roster::PhoneState;
use crate::node::session::Class;
use crate::node::{AdminState, Node, NodeState};
use crate::registry::view::ShownNodeState;
use crate::registry::{Backlog, LoginCounts};

/// Whether this daemon has the node's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::daemon) enum Name {
    /// Redis has not answered yet.
    Unasked,
    /// It is ours.
    Ours,
    /// Another daemon holds it.
    Held,
}

/// What Redis returned for the last heartbeat that it accepted.
#[derive(Debug, Clone, Default)]
pub(in crate::daemon) struct RecordedCounts {
    /// Sessions of this node whose orders have not been fetched yet.
    pub(in crate::daemon) reserved: usize,
    /// How often older generations were refused.
    pub(in crate::daemon) refused: u64,
    pub(in crate::daemon) ring: Backlog,
    pub(in crate::daemon) logins: Backlog,
    /// Logins of the whole cluster that were refused or have failed.
    pub(in crate::daemon) over: LoginCounts,
}

/// An AMI outage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::daemon) struct Away {
    pub(in crate::daemon) since: Now,
    /// Since when every connection attempt has been refused.
    pub(in crate::daemon) refused: Option<Now>,
    /// The last attempt got no response.
    pub(in crate::daemon) silent: bool,
    /// The channels when it was last in sync; `None` if that is not known, or was another Asterisk.
    pub(in crate::daemon) channels: Option<usize>,
}

impl Away {
    /// After one more attempt, or the loss of a connection.
    pub(in crate::daemon) fn again(before: Option<Self>, peer: PeerStatus, channels: Option<usize>, now: Now) -> Self {
        let mut away = before.unwrap_or(Self { since: now, refused: None, silent: false, channels });
        away.silent = peer == PeerStatus::Unresponsive;
        match peer {
            PeerStatus::Refused => {
                away.refused = away.refused.or(Some(now));
                away.channels = None;
            }
            PeerStatus::Unresponsive | PeerStatus::Responding => away.refused = None,
        }
        away
    }
}

/// The status; see the header of this file.
#[derive(Debug, Clone)]
pub(in crate::daemon) struct DaemonStatus {
    pub(in crate::daemon) state: NodeState,
    pub(in crate::daemon) admin_state: AdminState,
    pub(in crate::daemon) name: Name,
    /// AMI is logged in.
    pub(in crate::daemon) connected: bool,
    /// The AMI outage, if there is one.
    pub(in crate::daemon) away: Option<Away>,
    pub(in crate::daemon) redis_down: bool,
    /// Why what is missing is missing.
    pub(in crate::daemon) reasons: Reasons,
    /// Why Redis would take no login, although it takes heartbeats.
    pub(in crate::daemon) no_logins: Option<String>,
    pub(in crate::daemon) stopping: bool,
    /// When Redis took the last heartbeat.
    pub(in crate::daemon) beat: Option<Now>,
    /// When AMI sent the last event that the daemon uses.
    pub(in crate::daemon) heard: Option<Now>,
    pub(in crate::daemon) counts_in_redis: RecordedCounts,
    pub(in crate::daemon) counts: Counts,
}

/// Numbers of sessions, phones and channels on the node.
#[derive(Debug, Clone, Default)]
pub(in crate::daemon) struct Counts {
    /// Sessions: class, state, how many.
    pub(in crate::daemon) agents: [(&'static str, &'static str, usize); 4],
    pub(in crate::daemon) phones: BTreeMap<PhoneState, usize>,
    /// Phones that are left out: why, how many.
    pub(in crate::daemon) left_out: Vec<(Why, usize)>,
    pub(in crate::daemon) channels: usize,
    pub(in crate::daemon) disputed: usize,
}

impl Counts {
    pub(in crate::daemon) fn of(node: &Node) -> Self {
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
        let (phones, left_out) = (roster.counts(), roster.left_out.counts().to_vec());
        Self { agents, phones, left_out, channels: node.channels(), disputed: node.disputed() }
    }

    /// Local agents that ring or are live.
    pub(in crate::daemon) fn local(&self) -> usize {
        self.agents.iter().filter(|(class, _, _)| *class == "local").map(|(_, _, count)| count).sum()
    }
}

impl DaemonStatus {
    pub(in crate::daemon) fn new() -> Self {
        Self {
            state: NodeState::Starting,
            admin_state: AdminState::Ready,
            name: Name::Unasked,
            connected: false,
            away: None,
            redis_down: false,
            reasons: Reasons::default(),
            no_logins: None,
            stopping: false,
            beat: None,
            heard: None,
            counts_in_redis: RecordedCounts::default(),
            counts: Counts::default(),
        }
    }

    /// The state as `evenring status` shows it.
    pub(in crate::daemon) fn shown_state(&self) -> ShownNodeState {
        ShownNodeState::of(self.state, self.admin_state)
    }

    /// Why the node is not in sync with its Asterisk, if it is not.
    pub(in crate::daemon) fn lacks_asterisk(&self) -> Option<String> {
        let what = match (self.state, self.connected) {
            (NodeState::Active, _) => return None,
            (NodeState::Stopping, _) => return Some("Asterisk is shutting down".to_owned()),
            (NodeState::Starting | NodeState::Down, true) => "logged in to AMI, but not in sync yet",
            (NodeState::Starting, false) => "not logged in to AMI yet",
            (NodeState::Down, false) => "AMI unavailable",
        };
        Some(with_reason(what, self.reasons.asterisk.as_ref()))
    }

    /// What is missing for logins on this node: a stable word and a text each. Empty if the node is ready.
    pub(in crate::daemon) fn missing(&self, now: Now, lease: Duration) -> Vec<(&'static str, String)> {
        let mut missing = Vec::new();
        let mut lacks = |word, why: &str| missing.push((word, why.to_owned()));
        if self.stopping {
            lacks("stopping", "the daemon is stopping");
        }
        if let Some(why) = self.lacks_asterisk() {
            lacks("asterisk", &why);
        }
        let age = self.beat.map(|beat| now.since(beat));
        match (self.name, age) {
            (Name::Held, _) => {
                lacks("name", &with_reason("another daemon holds this node's name", self.reasons.name.as_ref()));
            }
            _ if self.redis_down => lacks("redis", &with_reason("unavailable", self.reasons.redis.as_ref())),
            (Name::Unasked, _) | (Name::Ours, None) => lacks("redis", "no heartbeat accepted yet"),
            (Name::Ours, Some(age)) if age > lease => {
                let age = span_text(Duration::from_secs(age.as_secs()));
                lacks("redis", &format!("last heartbeat accepted {age} ago"));
            }
            (Name::Ours, Some(_)) => {
                if let Some(why) = &self.no_logins {
                    lacks("redis", why);
                }
            }
        }
        match self.admin_state {
            AdminState::Drain => lacks("draining", "drained with `evenring drain`"),
            AdminState::Ready => {}
        }
        missing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The words that are missing `ms` after the start.
    #[track_caller]
    fn check(change: impl FnOnce(&mut DaemonStatus), ms: u64, words: &[&str]) {
        let at = |ms| Now(Duration::from_millis(ms));
        let mut status = DaemonStatus::new();
        (status.state, status.connected, status.name, status.beat) =
            (NodeState::Active, true, Name::Ours, Some(at(1000)));
        change(&mut status);
        let missing = status.missing(at(ms), Duration::from_secs(3));
        assert_eq!(missing.iter().map(|(word, _)| *word).collect::<Vec<_>>(), words, "{missing:?}");
    }

    #[test]
    fn a_node_is_ready_when_nothing_is_missing() {
        check(|_| {}, 4000, &[]);
        check(|_| {}, 4001, &["redis"]);
        check(|status| status.redis_down = true, 1000, &["redis"]);
        check(|status| status.beat = None, 1000, &["redis"]);
        check(|status| status.no_logins = Some("the user may not ZADD".to_owned()), 1000, &["redis"]);
        check(|status| (status.name, status.redis_down) = (Name::Held, true), 1000, &["name"]);
        check(|status| status.state = NodeState::Starting, 1000, &["asterisk"]);
        check(|status| status.admin_state = AdminState::Drain, 1000, &["draining"]);
        let worst = |status: &mut DaemonStatus| {
            *status = DaemonStatus { stopping: true, admin_state: AdminState::Drain, ..DaemonStatus::new() }
        };
        check(worst, 0, &["stopping", "asterisk", "redis", "draining"]);
    }

    #[test]
    fn what_is_missing_comes_with_the_last_reason() {
        let said = |text: &str| Some(text.to_owned());
        let mut status = DaemonStatus::new();
        status.reasons =
            Reasons { asterisk: said("login refused"), redis: said("no route"), name: said("host b has it") };
        (status.redis_down, status.name) = (true, Name::Unasked);
        let missing = |status: &DaemonStatus| status.missing(Now(Duration::ZERO), Duration::from_secs(3));
        let texts = ["not logged in to AMI yet: login refused", "unavailable: no route"];
        assert_eq!(missing(&status), [("asterisk", texts[0].to_owned()), ("redis", texts[1].to_owned())]);
        (status.state, status.connected, status.name) = (NodeState::Active, true, Name::Held);
        let text = "another daemon holds this node's name: host b has it";
        assert_eq!(missing(&status), [("name", text.to_owned())]);
    }
}
