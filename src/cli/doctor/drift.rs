//! Compares Redis with what Asterisk really has. Owns the comparison. Must never repair anything: the daemon does so
//! within two heartbeats, so only a longer difference is reported.

use std::collections::{BTreeMap, BTreeSet};

use super::finding::{Finding, some};
use crate::node::Live;

/// One side: this node's sessions, whether they are live, and the phones that can ring here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Side {
    pub(super) sessions: BTreeMap<String, Live>,
    pub(super) registered: BTreeSet<String>,
}

/// What differs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Drift {
    /// Sessions in Redis without a channel.
    ghosts: BTreeSet<String>,
    /// Our channels that Redis does not know.
    unknown: BTreeSet<String>,
    /// Sessions that are live on one side only.
    differ: BTreeSet<String>,
    /// Phones that can ring, but not according to Redis.
    hidden: BTreeSet<String>,
    /// Phones that cannot ring, but can according to Redis.
    dead: BTreeSet<String>,
}

impl Drift {
    pub(super) fn between(redis: &Side, asterisk: &Side) -> Self {
        let missing = |from: &Side, to: &Side| {
            from.sessions.keys().filter(|id| !to.sessions.contains_key(*id)).cloned().collect::<BTreeSet<_>>()
        };
        let differs = |(id, state): &(&String, &Live)| asterisk.sessions.get(*id).is_some_and(|other| other != *state);
        Self {
            ghosts: missing(redis, asterisk),
            unknown: missing(asterisk, redis),
            differ: redis.sessions.iter().filter(differs).map(|(id, _)| id.clone()).collect(),
            hidden: asterisk.registered.difference(&redis.registered).cloned().collect(),
            dead: redis.registered.difference(&asterisk.registered).cloned().collect(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Keeps what differs in both comparisons.
    pub(super) fn lasting(&self, later: &Self) -> Self {
        let both = |a: &BTreeSet<String>, b: &BTreeSet<String>| a.intersection(b).cloned().collect();
        Self {
            ghosts: both(&self.ghosts, &later.ghosts),
            unknown: both(&self.unknown, &later.unknown),
            differ: both(&self.differ, &later.differ),
            hidden: both(&self.hidden, &later.hidden),
            dead: both(&self.dead, &later.dead),
        }
    }

    pub(super) fn findings(&self, node: &str, agreed: &Side) -> Vec<Finding> {
        let daemon = format!(
            "the daemon of {node} should have repaired this within two heartbeats: check that it runs, and \
                look at its log"
        );
        let mut findings = Vec::new();
        let mut say = |check, which: &BTreeSet<String>, what: &str| {
            if !which.is_empty() {
                let all: Vec<String> = which.iter().cloned().collect();
                findings.push(Finding::failure(
                    check,
                    format!("{what} ({}): {}", all.len(), some(&all)),
                    daemon.clone(),
                ));
            }
        };
        say("drift.sessions", &self.ghosts, "sessions in Redis without a channel in Asterisk");
        say("drift.sessions", &self.unknown, "evenring channels in Asterisk without a session in Redis");
        say("drift.sessions", &self.differ, "sessions that are live on one side only");
        say("drift.phones", &self.hidden, "phones registered here, but not in Redis");
        say("drift.phones", &self.dead, "phones registered in Redis, but not here");
        if findings.is_empty() {
            let (sessions, phones) = (agreed.sessions.len(), agreed.registered.len());
            let text =
                format!("Redis and the Asterisk of {node} agree: sessions: {sessions}, registered phones: {phones}");
            findings.push(Finding::ok("drift", text));
        }
        findings
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::check;
    use super::*;

    fn side(sessions: &[(&str, Live)], phones: &[&str]) -> Side {
        let own = |text: &&str| (*text).to_owned();
        Side {
            sessions: sessions.iter().map(|(id, live)| (own(id), *live)).collect(),
            registered: phones.iter().map(own).collect(),
        }
    }

    #[test]
    fn what_differs_and_lasts_is_said() {
        let redis = side(&[("s1", Live::Yes), ("s2", Live::Yes), ("s3", Live::NotYet)], &["cc1", "cc2"]);
        check(
            &Drift::between(&redis, &redis).findings("a", &redis),
            &[("drift", "ok", "sessions: 3, registered phones: 2", "")],
        );
        let asterisk = side(&[("s2", Live::Yes), ("s3", Live::Yes), ("s4", Live::NotYet)], &["cc2", "cc3"]);
        let drift = Drift::between(&redis, &asterisk);
        let fix = "the daemon of a should have repaired this";
        check(
            &drift.findings("a", &redis),
            &[
                ("drift.sessions", "failure", "without a channel in Asterisk (1): s1", fix),
                ("drift.sessions", "failure", "without a session in Redis (1): s4", fix),
                ("drift.sessions", "failure", "one side only (1): s3", fix),
                ("drift.phones", "failure", "not in Redis (1): cc3", fix),
                ("drift.phones", "failure", "but not here (1): cc1", fix),
            ],
        );
        let later = Drift::between(&redis, &side(&[("s2", Live::Yes), ("s3", Live::NotYet)], &["cc1", "cc2"]));
        check(&drift.lasting(&later).findings("a", &redis), &[("drift.sessions", "failure", "(1): s1", fix)]);
        assert!(!drift.is_empty() && drift.lasting(&Drift::default()).is_empty());
    }
}
