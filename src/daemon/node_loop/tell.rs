//! What the loop shows: log lines, systemd's status line, and the daemon status for HTTP. Owns the texts. Must never change
//! what the loop does.

use tracing::{error, info, warn};

use super::super::observability::reasons::{reason, with_reason};
use super::super::observability::status::{Counts, Name};
use super::super::systemd;
use super::{NodeLoop, READY_ANYWAY};
use crate::ids::{Now, SessionId};
use crate::node::left_out::{Group, differs_much};
use crate::node::session::{Login, Outcome};
use crate::node::{AdminState, NodeState, Note};
use crate::registry::events::NewEvent;
use crate::registry::view::holder_text;
use crate::runtime::words::counted;

impl NodeLoop {
    pub(super) fn tell_systemd(&mut self) {
        let active = self.node.state() == NodeState::Active && !self.redis_down && self.told_active;
        if !self.ready_told && (active || self.clock.now() >= READY_ANYWAY) {
            self.ready_told = true;
            systemd::ready();
        }
        let status = self.status_line();
        if status != self.status_told {
            systemd::status(&status);
            self.status_told = status;
        }
    }

    /// What keeps logins away, each with its reason; or how the node is.
    fn status_line(&self) -> String {
        let (node, reasons) = (&self.node, &self.reasons);
        let mut lines = Vec::new();
        if self.redis_down {
            let what = "Redis unavailable: logins suspended, active calls unaffected";
            lines.push(with_reason(what, reasons.redis.as_ref()));
        } else if self.name_is_held {
            let what = "another daemon holds this node's name: waiting for its lease to expire";
            lines.push(with_reason(what, reasons.name.as_ref()));
        } else if let Some(why) = &self.no_logins {
            lines.push(format!("no logins: {why}"));
        }
        let sessions = || counted(node.sessions().count(), "session");
        match node.state() {
            NodeState::Active if !lines.is_empty() => {}
            NodeState::Active if node.admin_state() == AdminState::Drain => {
                lines.push(format!("draining: no new logins, {} left", sessions()));
            }
            NodeState::Active => {
                lines.push(format!(
                    "active: {}, {}",
                    counted(node.roster.registered(), "phone"),
                    counted(node.channels(), "channel")
                ));
            }
            NodeState::Stopping => {
                lines.push(format!("Asterisk is shutting down: no new logins, {} left", sessions()));
            }
            NodeState::Starting => lines.push(with_reason("waiting for Asterisk", reasons.asterisk.as_ref())),
            NodeState::Down => {
                lines.push(with_reason("Asterisk unavailable: not in the rotation", reasons.asterisk.as_ref()));
            }
        }
        lines.join("; ")
    }

    /// Says whether Redis would take a login, when that has changed.
    pub(super) fn logins_checked(&mut self, refused: Option<String>, now: Now) {
        let node = &self.name;
        match (&refused, &self.no_logins) {
            (Some(reason), _) => {
                if let Some(suppressed) = self.other_throttle.allow(reason, now) {
                    error!(%node, reason, suppressed, "Redis would refuse logins: this node is not ready, active calls \
                        unaffected");
                }
            }
            (None, Some(_)) => info!(%node, "Redis would take logins again"),
            (None, None) => {}
        }
        if refused != self.no_logins {
            self.no_logins = refused;
            self.tell_systemd();
        }
    }

    pub(super) fn log_outcome(&self, session: SessionId, login: Option<&Login>, outcome: &Outcome) {
        let node = &self.name;
        let alias = login.map_or("", |login| login.alias.as_str());
        let agent = login.map_or("", |login| login.agent.as_str());
        match outcome {
            Outcome::Live => info!(%node, %session, alias, agent, "live"),
            Outcome::Ended(reason) => info!(%node, %session, alias, agent, %reason, "ended"),
            Outcome::Failed(reason) => warn!(%node, %session, alias, agent, %reason, "failed"),
            Outcome::TryNextNode(reason) => warn!(%node, %session, alias, agent, %reason, "cannot ring here"),
        }
    }

    /// Remembers why the node is not in sync, and forgets it when it is.
    pub(super) fn keep_reason(&mut self, note: &Note) {
        match note {
            Note::Synced { .. } => self.reasons.asterisk = None,
            Note::SnapshotFailed { action, message } => {
                self.reasons.asterisk = reason(&snapshot_reason(action, message));
            }
            Note::Ringing(_, _)
            | Note::Miscounted { .. }
            | Note::PeersUnlisted { .. }
            | Note::Unreadable(_)
            | Note::GivenUp { .. }
            | Note::Drift(_, _)
            | Note::HangUpFailed(_, _)
            | Note::Unbuildable(_, _) => {}
        }
    }

    pub(super) fn log_note(&mut self, note: &Note) {
        let node = &self.name;
        match note {
            Note::Ringing(session, action_id) => info!(%node, %session, action_id, "ringing"),
            Note::Synced { registered, channels, sessions } => {
                info!(%node, registered, channels, sessions, "in sync with Asterisk");
            }
            Note::SnapshotFailed { action, message } => {
                // It may repeat every second, for both lists with the same text: log it once.
                let Some(suppressed) = self.snapshot_throttle.allow(message, self.clock.now()) else { return };
                if is_denied(message) {
                    error!(%node, action, reason = message, suppressed, "Asterisk refuses part of the snapshot: node \
                        not in the rotation; check the manager user's write classes (call, reporting), then reload \
                        manager.conf and evenring");
                } else if lacks_module(action, message) {
                    error!(%node, action, reason = message, suppressed, "Asterisk cannot list device states: node not \
                        in the rotation; load its module res_manager_devicestate");
                } else {
                    error!(%node, action, reason = message, suppressed, "part of the snapshot failed: node not in the \
                        rotation; retrying every second");
                }
            }
            Note::Miscounted { action, found, counted } => {
                error!(%node, action, found, counted, "the item count of a list from Asterisk is wrong, twice in a \
                    row: continuing with the items that could be read");
            }
            Note::PeersUnlisted { technology, message } => {
                let complaint = format!("{technology}: {message}");
                let Some(suppressed) = self.snapshot_throttle.allow(&complaint, self.clock.now()) else { return };
                warn!(%node, %technology, reason = message, suppressed, "Asterisk refuses to list the peers of this \
                    driver: phones that registered before Asterisk started are unknown until they register again");
            }
            Note::Unreadable(session) => warn!(%node, %session, "channel of evenring without its variables: ignored"),
            Note::GivenUp { sessions } => {
                warn!(%node, sessions, reason = "node-lost", "Asterisk down: sessions given up, agents can log in on \
                    other nodes")
            }
            Note::Drift(session, what) => warn!(%node, %session, what, "drift repaired"),
            Note::HangUpFailed(session, reason) => warn!(%node, %session, reason, "hang-up failed"),
            Note::Unbuildable(session, reason) => {
                error!(%node, %session, reason, "cannot build the Originate: check [ring] in the configuration");
            }
        }
    }

    /// Reports which phones are left out: always to Redis, to the log when the number has changed much.
    pub(super) fn tell_left_out(&mut self, groups: Vec<Group>) {
        if differs_much(&self.left_out_said, &groups) {
            let node = &self.name;
            if groups.is_empty() {
                info!(%node, "no phones are left out any more");
            } else {
                let shown = |group: &Group| {
                    let examples = group.examples.join(", ");
                    format!(
                        "{} {}{}{examples}",
                        group.count,
                        group.reason.as_str(),
                        if examples.is_empty() { "" } else { ": " }
                    )
                };
                let left_out = groups.iter().map(shown).collect::<Vec<_>>().join("; ");
                warn!(%node, left_out, "phones left out: agents cannot log in with them; run evenring doctor");
            }
            self.left_out_said.clone_from(&groups);
        }
        self.pending.left_out = Some(groups);
    }

    /// Updates the daemon status, without the counts, and the reason in Redis.
    pub(super) fn tell_state(&mut self) {
        let (state, admin_state) = (self.node.state(), self.node.admin_state());
        let name = match (self.name_is_held, self.registered) {
            (true, _) => Name::Held,
            (false, true) => Name::Ours,
            (false, false) => Name::Unasked,
        };
        let (redis_down, no_logins, reasons) = (self.redis_down, self.no_logins.clone(), self.reasons.clone());
        self.outputs.status.send_modify(|status| {
            status.no_logins = no_logins;
            (status.state, status.admin_state, status.name, status.redis_down) = (state, admin_state, name, redis_down);
            status.reasons = reasons;
        });
        let why = self.outputs.status.borrow().lacks_asterisk().unwrap_or_default();
        if self.reason_told.as_ref() != Some(&why) {
            self.pending.reason = Some(why.clone());
            self.reason_told = Some(why);
        }
    }

    /// Updates the daemon status and its counts.
    pub(super) fn tell_counts(&mut self) {
        self.tell_state();
        let (counts, heard) = (Counts::of(&self.node), self.heard_at);
        self.outputs.status.send_modify(|status| (status.counts, status.heard) = (counts, heard));
        let sessions: std::collections::BTreeSet<SessionId> = self.node.sessions().map(|s| s.login.session).collect();
        self.chosen.retain(|session, _| sessions.contains(session));
    }

    /// Measures a login that is rung, answered or over.
    pub(super) fn measure(&mut self, session: SessionId, outcome: &Outcome) {
        self.metrics.outcome(outcome);
        if let Some(chosen) = self.chosen.remove(&session)
            && *outcome == Outcome::Live
        {
            self.metrics.login_to_answer.observe(self.clock.now().since(chosen).as_secs_f64());
        }
    }

    /// Records what no script knows in the event stream.
    pub(super) fn note_for_story(&mut self, note: &Note) {
        match note {
            Note::Drift(session, what) => {
                self.pending.note(NewEvent { event: "drift", session: Some(*session), reason: (*what).to_owned() });
            }
            Note::Ringing(_, _)
            | Note::Synced { .. }
            | Note::SnapshotFailed { .. }
            | Note::Miscounted { .. }
            | Note::PeersUnlisted { .. }
            | Note::Unreadable(_)
            | Note::GivenUp { .. }
            | Note::HangUpFailed(_, _)
            | Note::Unbuildable(_, _) => {}
        }
    }

    pub(super) fn measure_note(&mut self, note: &Note) {
        let now = self.clock.now();
        match note {
            Note::Ringing(session, _) => {
                self.metrics.originates_sent.inc();
                if let Some(chosen) = self.chosen.get(session) {
                    self.metrics.login_to_ring.observe(now.since(*chosen).as_secs_f64());
                }
            }
            Note::Synced { .. } => {
                if let Some(since) = self.logged_in.take() {
                    self.metrics.resync.observe(now.since(since).as_secs_f64());
                }
            }
            Note::Drift(_, _) => self.metrics.drift_repaired.inc(),
            Note::SnapshotFailed { .. }
            | Note::Miscounted { .. }
            | Note::PeersUnlisted { .. }
            | Note::Unreadable(_)
            | Note::GivenUp { .. }
            | Note::HangUpFailed(_, _)
            | Note::Unbuildable(_, _) => {}
        }
    }
}

fn is_denied(message: &str) -> bool {
    message.eq_ignore_ascii_case("Permission denied")
}

fn lacks_module(action: &str, message: &str) -> bool {
    action == "DeviceStateList" && message.starts_with("Invalid/unknown command")
}

/// What Asterisk refused to list, and what to do.
fn snapshot_reason(action: &str, message: &str) -> String {
    if is_denied(message) {
        format!(
            "Asterisk refuses {action} to the manager user ({message}); add call and reporting to its write classes \
                in manager.conf, then reload manager.conf and evenring"
        )
    } else if lacks_module(action, message) {
        "Asterisk cannot list device states; load its module res_manager_devicestate".to_owned()
    } else {
        format!("Asterisk failed {action}: {message}; retrying every second")
    }
}

/// Who has this node's name.
pub(super) fn held_by(holder: &str) -> String {
    format!("it runs on host {}; give every node its own node.name", holder_text(holder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_says_what_to_do() {
        assert_eq!(held_by("tel-2/0a1b/1:2 pid 7"), "it runs on host tel-2 (pid 7); give every node its own node.name");
        for (action, message, advice) in [
            ("Status", "Permission denied", "add call and reporting"),
            ("DeviceStateList", "Invalid/unknown command: DeviceStateList.", "load its module res_manager_devicestate"),
            ("Status", "Invalid/unknown command: Status.", "retrying every second"),
        ] {
            assert!(snapshot_reason(action, message).contains(advice), "{action} {message}");
        }
    }
}
