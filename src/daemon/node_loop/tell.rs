//! What the loop says to people: log lines, the line of systemd, and how the daemon is for whoever asks over HTTP. Owns the
//! wording. Must never change what the loop does.

use tracing::{error, info, warn};

use super::super::notify;
use super::super::vitals::{Name, Tally};
use super::{NodeLoop, READY_ANYWAY};
use crate::ids::SessionId;
use crate::node::left_out::{Group, differs_much};
use crate::node::session::{Login, Outcome};
use crate::node::{Duty, NodeState, Note};
use crate::registry::story::Told;

impl NodeLoop {
    pub(super) fn tell_systemd(&mut self) {
        let active = self.node.state() == NodeState::Active && !self.redis_down && self.told_active;
        if !self.ready_told && (active || self.clock.now() >= READY_ANYWAY) {
            self.ready_told = true;
            notify::ready();
        }
        let status = match (self.redis_down, self.node.state()) {
            (true, _) => "Redis is out of use: no logins".to_owned(),
            (false, _) if self.name_is_held => "waiting: another daemon holds this node's name".to_owned(),
            (false, NodeState::Active) if self.node.duty() == Duty::Draining => {
                format!("draining: {} sessions left", self.node.sessions().count())
            }
            (false, NodeState::Active) => {
                format!("active: {} phones, {} channels", self.node.roster.registered(), self.node.channels())
            }
            (false, NodeState::Stopping) => {
                format!("Asterisk is shutting down: no logins, {} sessions left", self.node.sessions().count())
            }
            (false, NodeState::Starting) => "waiting for Asterisk".to_owned(),
            (false, NodeState::Down) => "Asterisk is away: not in the rotation".to_owned(),
        };
        if status != self.status_told {
            notify::status(&status);
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
            Outcome::Cannot(reason) => warn!(%node, %session, alias, agent, %reason, "cannot ring here"),
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
                // It may be said every second, by both lists in the same words: said once.
                let Some(held) = self.snapshot_repeats.allow(message, self.clock.now()) else { return };
                if message.eq_ignore_ascii_case("Permission denied") {
                    error!(%node, action, reason = message, held, "Asterisk refuses a part of the snapshot: not in the \
                        rotation; check the manager user's write classes (call, reporting), then reload manager.conf and evenring");
                } else if *action == "DeviceStateList" && message.starts_with("Invalid/unknown command") {
                    error!(%node, action, reason = message, held, "Asterisk knows no list of device states: not in the \
                        rotation; load its module res_manager_devicestate");
                } else {
                    error!(%node, action, reason = message, held, "a part of the snapshot is not to be had: not in the \
                        rotation, asking again every second");
                }
            }
            Note::Miscounted { action, found, counted } => {
                error!(%node, action, found, counted, "Asterisk counts a list otherwise than it came, twice in a row: going on \
                    with the items that could be read");
            }
            Note::PeersUnlisted { technology, message } => {
                let complaint = format!("{technology}: {message}");
                let Some(held) = self.snapshot_repeats.allow(&complaint, self.clock.now()) else { return };
                warn!(%node, %technology, reason = message, held, "Asterisk does not list the peers of this driver: a phone that \
                    registered before Asterisk started is unknown until it registers again");
            }
            Note::Unreadable(session) => warn!(%node, %session, "a channel of ours without its variables: left alone"),
            Note::GivenUp { sessions } => {
                warn!(%node, sessions, reason = "node-lost", "Asterisk is gone: giving up its sessions")
            }
            Note::Drift(session, what) => warn!(%node, %session, what, "drift mended"),
            Note::HangUpFailed(session, reason) => warn!(%node, %session, reason, "hang-up failed"),
            Note::Unbuildable(session, reason) => {
                error!(%node, %session, reason, "the Originate cannot be built: check [ring] in the configuration");
            }
        }
    }

    /// Says which phones are left out: to Redis always, to the log when it is much more or less than before.
    pub(super) fn tell_left_out(&mut self, groups: Vec<Group>) {
        if differs_much(&self.left_out_said, &groups) {
            let node = &self.name;
            if groups.is_empty() {
                info!(%node, "no phone is left out any more");
            } else {
                let shown = |group: &Group| {
                    let examples = group.examples.join(", ");
                    format!(
                        "{} {}{}{examples}",
                        group.count,
                        group.why.as_str(),
                        if examples.is_empty() { "" } else { ": " }
                    )
                };
                let left_out = groups.iter().map(shown).collect::<Vec<_>>().join("; ");
                warn!(%node, left_out, "phones are left out: nobody can log in with them; the verb doctor says what to do");
            }
            self.left_out_said.clone_from(&groups);
        }
        self.pending.left_out = Some(groups);
    }

    /// How it is, without the counts.
    pub(super) fn tell_state(&mut self) {
        let (state, duty) = (self.node.state(), self.node.duty());
        let name = match (self.name_is_held, self.registered) {
            (true, _) => Name::Held,
            (false, true) => Name::Ours,
            (false, false) => Name::Unasked,
        };
        let redis_down = self.redis_down;
        self.mouths.vitals.send_modify(|vitals| {
            (vitals.state, vitals.duty, vitals.name, vitals.redis_down) = (state, duty, name, redis_down);
        });
    }

    /// How it is, and how many of everything there are.
    pub(super) fn tell_counts(&mut self) {
        self.tell_state();
        let (tally, heard) = (Tally::of(&self.node), self.heard_at);
        self.mouths.vitals.send_modify(|vitals| (vitals.tally, vitals.heard) = (tally, heard));
        let sessions: std::collections::BTreeSet<SessionId> = self.node.sessions().map(|s| s.login.session).collect();
        self.chosen.retain(|session, _| sessions.contains(session));
    }

    /// Measures the way of a login that is rung, answered or over.
    pub(super) fn measure(&mut self, session: SessionId, outcome: &Outcome) {
        self.metrics.outcome(outcome);
        if let Some(chosen) = self.chosen.remove(&session)
            && *outcome == Outcome::Live
        {
            self.metrics.login_to_answer.observe(self.clock.now().since(chosen).as_secs_f64());
        }
    }

    /// What no script knows of.
    pub(super) fn note_for_story(&mut self, note: &Note) {
        match note {
            Note::Drift(session, what) => {
                self.pending.note(Told { event: "drift", session: Some(*session), reason: (*what).to_owned() });
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
            Note::Drift(_, _) => self.metrics.drift_mended.inc(),
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
