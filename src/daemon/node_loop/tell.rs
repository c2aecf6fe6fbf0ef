//! What the loop shows: log lines, systemd's status line, and the daemon status for HTTP. Owns the texts. Must never change
//! what the loop does.

use tracing::{error, info, warn};

use super::super::observability::status::{Counts, Name};
use super::super::systemd;
use super::{NodeLoop, READY_ANYWAY};
use crate::ids::SessionId;
use crate::node::left_out::{Group, differs_much};
use crate::node::session::{Login, Outcome};
use crate::node::{AdminState, NodeState, Note};
use crate::registry::events::NewEvent;

impl NodeLoop {
    pub(super) fn tell_systemd(&mut self) {
        let active = self.node.state() == NodeState::Active && !self.redis_down && self.told_active;
        if !self.ready_told && (active || self.clock.now() >= READY_ANYWAY) {
            self.ready_told = true;
            systemd::ready();
        }
        let status = match (self.redis_down, self.node.state()) {
            (true, _) => "Redis unavailable: logins suspended, active calls unaffected".to_owned(),
            (false, _) if self.name_is_held => {
                "another daemon holds this node's name: waiting for its lease to expire".to_owned()
            }
            (false, NodeState::Active) if self.node.admin_state() == AdminState::Drain => {
                format!("draining: no new logins, {} sessions left", self.node.sessions().count())
            }
            (false, NodeState::Active) => {
                format!("active: {} phones, {} channels", self.node.roster.registered(), self.node.channels())
            }
            (false, NodeState::Stopping) => {
                format!("Asterisk is shutting down: no new logins, {} sessions left", self.node.sessions().count())
            }
            (false, NodeState::Starting) => "waiting for Asterisk".to_owned(),
            (false, NodeState::Down) => "Asterisk unavailable: not in the rotation".to_owned(),
        };
        if status != self.status_told {
            systemd::status(&status);
            self.status_told = status;
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
                if message.eq_ignore_ascii_case("Permission denied") {
                    error!(%node, action, reason = message, suppressed, "Asterisk refuses part of the snapshot: node \
                        not in the rotation; check the manager user's write classes (call, reporting), then reload \
                        manager.conf and evenring");
                } else if *action == "DeviceStateList" && message.starts_with("Invalid/unknown command") {
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

    /// Updates the daemon status, without the counts.
    pub(super) fn tell_state(&mut self) {
        let (state, admin_state) = (self.node.state(), self.node.admin_state());
        let name = match (self.name_is_held, self.registered) {
            (true, _) => Name::Held,
            (false, true) => Name::Ours,
            (false, false) => Name::Unasked,
        };
        let redis_down = self.redis_down;
        self.outputs.status.send_modify(|status| {
            (status.state, status.admin_state, status.name, status.redis_down) = (state, admin_state, name, redis_down);
        });
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
