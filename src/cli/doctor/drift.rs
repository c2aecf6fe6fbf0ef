//! What disagrees between Redis and what Asterisk really has. Owns the comparison. Must never mend anything: the daemon's
//! heartbeat does, within two beats, so what lasts longer is worth a person's time.

use std::collections::{BTreeMap, BTreeSet};

use super::finding::{Finding, some};

/// One side: this node's sessions (`live`, or `ringing`), and the phones that can ring here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Side {
    pub(super) sessions: BTreeMap<String, String>,
    pub(super) registered: BTreeSet<String>,
}

/// What differs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Drift {
    /// In Redis, and no channel.
    ghosts: BTreeSet<String>,
    /// A channel of ours that Redis does not know.
    unknown: BTreeSet<String>,
    /// Live on one side only.
    differ: BTreeSet<String>,
    /// Can ring, but Redis says no.
    hidden: BTreeSet<String>,
    /// Cannot ring, but Redis says yes.
    dead: BTreeSet<String>,
}

impl Drift {
    pub(super) fn between(redis: &Side, asterisk: &Side) -> Self {
        let missing = |from: &Side, to: &Side| {
            from.sessions.keys().filter(|id| !to.sessions.contains_key(*id)).cloned().collect::<BTreeSet<_>>()
        };
        let differs =
            |(id, state): &(&String, &String)| asterisk.sessions.get(*id).is_some_and(|other| other != *state);
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

    /// What both looks have seen.
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
        let daemon =
            format!("the daemon of {node} mends this within two heartbeats: look whether it runs, and at its log");
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
        say("drift.sessions", &self.ghosts, "sessions in Redis that Asterisk has no channel of");
        say("drift.sessions", &self.unknown, "channels of ours in Asterisk that Redis has no session of");
        say("drift.sessions", &self.differ, "sessions that are live on one side only");
        say("drift.phones", &self.hidden, "phones that are registered here, but not in Redis");
        say("drift.phones", &self.dead, "phones that are registered in Redis, but not here");
        if findings.is_empty() {
            let (sessions, phones) = (agreed.sessions.len(), agreed.registered.len());
            let text =
                format!("Redis and the Asterisk of {node} agree: {sessions} sessions, {phones} registered phones");
            findings.push(Finding::ok("drift", text));
        }
        findings
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::check;
    use super::*;

    fn side(sessions: &[(&str, &str)], phones: &[&str]) -> Side {
        let own = |text: &&str| (*text).to_owned();
        Side {
            sessions: sessions.iter().map(|(id, state)| (own(id), own(state))).collect(),
            registered: phones.iter().map(own).collect(),
        }
    }

    #[test]
    fn what_differs_and_lasts_is_said() {
        let redis = side(&[("s1", "live"), ("s2", "live"), ("s3", "ringing")], &["cc1", "cc2"]);
        check(
            &Drift::between(&redis, &redis).findings("a", &redis),
            &[("drift", "ok", "3 sessions, 2 registered phones", "")],
        );
        let asterisk = side(&[("s2", "live"), ("s3", "live"), ("s4", "ringing")], &["cc2", "cc3"]);
        let drift = Drift::between(&redis, &asterisk);
        let fix = "the daemon of a mends this";
        check(
            &drift.findings("a", &redis),
            &[
                ("drift.sessions", "failure", "no channel of (1): s1", fix),
                ("drift.sessions", "failure", "no session of (1): s4", fix),
                ("drift.sessions", "failure", "one side only (1): s3", fix),
                ("drift.phones", "failure", "not in Redis (1): cc3", fix),
                ("drift.phones", "failure", "but not here (1): cc1", fix),
            ],
        );
        let later = Drift::between(&redis, &side(&[("s2", "live"), ("s3", "ringing")], &["cc1", "cc2"]));
        check(&drift.lasting(&later).findings("a", &redis), &[("drift.sessions", "failure", "(1): s1", fix)]);
        assert!(!drift.is_empty() && drift.lasting(&Drift::default()).is_empty());
    }
}
