//! The task that writes to Redis: registration, phones, adopted sessions, outcomes, heartbeat, in that order, one
//! batch at a time. Owns its connection. Must never decide what to write: the node loop hands it a batch, and gets
//! back what could not be written.

use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tracing::{debug, info, warn};

use super::observability::metrics::Metrics;
use super::observability::status::RecordedCounts;
use crate::config::LiveSettings;
use crate::config::NodeSettings;
use crate::ids::{Generation, Now, SessionId};
use crate::node::left_out::Group;
use crate::node::roster::PhoneChanges;
use crate::node::session::{Login, Outcome, Reason};
use crate::node::{AdminState, Live, NodeState, RecordedState};
use crate::registry::events::NewEvent;
use crate::registry::{
    ADOPT_MOST, Adopted, HeartbeatSequence, PlacedAgain, ReapResult, Reaped, Registered, Registry, RegistryError,
    Rejoined, Reported, ToldSettings,
};
use crate::runtime::clock::{Clock, wall_ms};
use crate::runtime::log_throttle::LogThrottle;

/// Outcomes in one call: a script that settles more would block Redis for others.
const SESSIONS_AT_ONCE: usize = 200;

/// How often it is checked whether Redis would take a login.
const CHECK_LOGINS: Duration = Duration::from_secs(5);
/// How often the other nodes learn what time it is here.
const TELL_CLOCK: Duration = Duration::from_secs(60);

/// The most entries for the event stream that wait while Redis is away. More are in the log only.
pub(super) const NOTES_WAITING: usize = 100;

/// The node's state and counts, for a heartbeat.
#[derive(Debug, Clone, Copy)]
pub(super) struct HeartbeatReport {
    pub(super) state: NodeState,
    pub(super) channels: usize,
    pub(super) registrations: usize,
}

/// The changes to be written to Redis.
#[derive(Debug, Default)]
pub(super) struct WriteBatch {
    pub(super) phones: Option<PhoneChanges>,
    pub(super) adopt: Vec<(Login, Live)>,
    pub(super) outcomes: Vec<(SessionId, Outcome)>,
    /// The state of the node, reported with the outcomes.
    pub(super) state: NodeState,
    /// Who waits for their turn.
    pub(super) ring_queue: Option<Vec<SessionId>>,
    /// Which phones are left out.
    pub(super) left_out: Option<Vec<Group>>,
    /// Why the node is not in sync with its Asterisk; empty if it is.
    pub(super) reason: Option<String>,
    /// Entries for the event stream that only the daemon knows.
    pub(super) notes: Vec<NewEvent>,
    pub(super) heartbeat: Option<HeartbeatReport>,
    /// The last one: leave the rotation afterwards.
    pub(super) leave: bool,
}

/// The result of a batch.
#[derive(Debug, Default)]
pub(super) struct WriteResult {
    /// The node was registered (again): Redis knows nothing of it but its name.
    pub(super) registered: bool,
    /// The sessions that Redis has recorded for this node, after a heartbeat, and when that was sent.
    pub(super) recorded: Option<(Vec<(SessionId, RecordedState)>, Now)>,
    /// The counts that came with them.
    pub(super) counts: RecordedCounts,
    /// The state that Redis took with that heartbeat.
    pub(super) told: Option<NodeState>,
    /// Whether it takes logins, after a heartbeat.
    pub(super) admin_state: Option<AdminState>,
    /// Redis has lost the states of phones.
    pub(super) phones_lost: bool,
    /// Sessions whose agent has moved on.
    pub(super) stale: Vec<SessionId>,
    /// Whether Redis would take a login, if that was checked; else why not.
    pub(super) logins: Option<Result<(), String>>,
    /// What was not written.
    pub(super) rest: WriteBatch,
    /// Why not.
    pub(super) error: Option<RegistryError>,
    /// The other daemon that holds the node's name, and for how long.
    pub(super) held: Option<(String, Duration)>,
}

/// The writer.
#[derive(Debug)]
pub(super) struct RegistryWriter {
    registry: Registry,
    node: NodeSettings,
    generation: Generation,
    host: String,
    clock: Clock,
    beats: HeartbeatSequence,
    registered: bool,
    /// The admin state of the last heartbeat, to restore it in a Redis that lost its data.
    admin_state: AdminState,
    /// Redis has forgotten that this node drains.
    owes_drain: bool,
    /// What was refused to older generations, by the last heartbeat.
    refused: Option<u64>,
    metrics: Metrics,
    settings: watch::Receiver<LiveSettings>,
    /// Redis does not know the newest share and caps.
    owes_limits: bool,
    /// When the settings and the clock of this node were last told.
    told_settings: Option<Now>,
    /// When it was last checked whether Redis would take a login.
    checked_logins: Option<Now>,
    notes: Notes,
    throttle: LogThrottle,
}

/// Entries for the event stream. A batch that was sent is repeated unchanged, so that each entry is written once.
#[derive(Debug, Default)]
struct Notes {
    number: u64,
    sent: Vec<NewEvent>,
    waiting: Vec<NewEvent>,
}

impl Notes {
    fn add(&mut self, more: &mut Vec<NewEvent>) {
        let room = NOTES_WAITING.saturating_sub(self.waiting.len());
        self.waiting.extend(more.drain(..).take(room));
    }

    /// The next to be sent, with its number; the same until [`Self::done`].
    fn next(&mut self) -> Option<(u64, &[NewEvent])> {
        if self.sent.is_empty() {
            self.sent = std::mem::take(&mut self.waiting);
            self.number += 1;
        }
        (!self.sent.is_empty()).then_some((self.number, &self.sent[..]))
    }

    fn done(&mut self) {
        self.sent.clear();
    }
}

impl RegistryWriter {
    pub(super) fn new(
        registry: Registry,
        settings: watch::Receiver<LiveSettings>,
        generation: Generation,
        host: String,
        metrics: Metrics,
        clock: Clock,
    ) -> Self {
        let (admin_state, owes_drain, owes_limits) = (AdminState::Ready, false, false);
        let node = settings.borrow().node.clone();
        Self {
            registry,
            node,
            generation,
            host,
            clock,
            beats: HeartbeatSequence::default(),
            registered: false,
            admin_state,
            owes_drain,
            refused: None,
            metrics,
            settings,
            owes_limits,
            told_settings: None,
            checked_logins: None,
            notes: Notes::default(),
            throttle: LogThrottle::default(),
        }
    }

    /// Writes batches until the node loop ends.
    pub(super) async fn run(mut self, mut batches: mpsc::Receiver<WriteBatch>, done: mpsc::Sender<WriteResult>) {
        while let Some(batch) = batches.recv().await {
            let result = self.write(batch).await;
            if done.send(result).await.is_err() {
                return;
            }
        }
    }

    async fn write(&mut self, mut batch: WriteBatch) -> WriteResult {
        let mut done = WriteResult::default();
        self.notes.add(&mut batch.notes);
        if self.settings.has_changed().unwrap_or(false) {
            let new = self.settings.borrow_and_update();
            self.registry.ring_for(new.ring.timeout);
            self.node = new.node.clone();
            self.owes_limits = true;
            self.told_settings = None;
        }
        if let Err(error) = self.try_write(&mut batch, &mut done).await {
            if matches!(error, RegistryError::Forgotten) {
                self.registered = false;
            }
            done.error = Some(error);
        }
        done.rest = batch;
        done
    }

    /// Registers the node's name, if it is not ours yet. Stores the result in `done`.
    async fn register(&mut self, done: &mut WriteResult) -> Result<(), RegistryError> {
        let register = self.registry.register(&self.node, self.generation, &self.host);
        match self.metrics.redis("register", register).await? {
            Registered::Taken { previous } => {
                self.owes_drain |= previous.is_none() && self.admin_state == AdminState::Drain;
                let previous = previous.map(|generation| generation.to_string()).unwrap_or_default();
                info!(node = %self.node.name, generation = %self.generation, previous, "registered");
                self.registered = true;
                (self.told_settings, self.checked_logins) = (None, None);
                done.registered = true;
                if let Some(reason) = self.registry.take_mute() {
                    warn!(node = %self.node.name, reason, "cannot write the event stream: events are not recorded");
                }
            }
            Registered::Held { by, left } => done.held = Some((by, left)),
        }
        Ok(())
    }

    async fn beat(&mut self, heartbeat: HeartbeatReport, done: &mut WriteResult) -> Result<(), RegistryError> {
        let name = &self.node.name;
        let HeartbeatReport { state, channels, registrations } = heartbeat;
        let (how, now) = ((state, channels, registrations), self.clock.now());
        let beat = self.registry.heartbeat(name, self.generation, how, (&mut self.beats, now));
        let beat = self.metrics.redis("heartbeat", beat).await?;
        for Reaped { session, node: lost, result } in &beat.reaped {
            self.metrics.reaped(result);
            let reason = match result {
                ReapResult::Waiting => {
                    debug!(node = %name, session, lost, "a login waits until the nodes have reported");
                    continue;
                }
                ReapResult::Rejoined(rejoined) => {
                    self.log_rejoin(session, rejoined);
                    Reason::NodeLost.to_string()
                }
                ReapResult::Ended(_) | ReapResult::Placed(_) => result.to_string(),
            };
            warn!(node = %name, session, lost, reason, "settled for a lost node");
        }
        self.admin_state = beat.admin_state;
        done.admin_state = Some(beat.admin_state);
        if let Some(before) = self.refused.replace(beat.refused)
            && beat.refused > before
        {
            let refused = beat.refused - before;
            if let Some(suppressed) = self.throttle.allow("refused", self.clock.now()) {
                warn!(node = %name, refused, suppressed, "an older daemon of this node is still writing: refused");
            }
        }
        let reserved = beat.recorded.iter().filter(|(_, state)| *state == RecordedState::Placed).count();
        done.counts =
            RecordedCounts { reserved, refused: beat.refused, ring: beat.ring, logins: beat.logins, over: beat.counts };
        done.recorded = Some((beat.recorded, now));
        done.told = Some(state);
        done.phones_lost = beat.phones_lost;
        Ok(())
    }

    /// Logs what happened to the agent of a lost session.
    fn log_rejoin(&self, lost: &str, result: &Rejoined) {
        let node = &self.node.name;
        match result {
            Rejoined::Ringing { node: chosen, session, alias, agent } => {
                info!(%node, session, alias, agent, chosen, lost, "rejoin");
            }
            Rejoined::Stranded { alias, agent } => {
                warn!(%node, session = lost, alias, agent, "no rejoin: no other node can ring this phone");
            }
        }
    }

    /// Writes the batch, and removes from it what has been written.
    async fn try_write(&mut self, batch: &mut WriteBatch, done: &mut WriteResult) -> Result<(), RegistryError> {
        if !self.registered {
            self.register(done).await?;
            if !self.registered {
                return Ok(());
            }
        }
        let (name, generation) = (&self.node.name, self.generation);
        // Before the heartbeat that makes it active: it gets no login in between.
        if self.owes_drain {
            self.registry.set_admin_state(name, AdminState::Drain).await?;
            self.owes_drain = false;
        }
        if self.owes_limits {
            self.registry.limits(&self.node, generation).await?;
            self.owes_limits = false;
        }
        if let Some(changes) = &batch.phones {
            self.metrics.redis("phones", self.registry.phones(name, generation, changes)).await?;
            debug!(node = %name, changed = changes.phones.len(), replace = changes.replace, "phones reported");
            batch.phones = None;
        }
        self.adopt(batch, done).await?;
        self.report(batch).await?;
        if let Some(waiting) = &batch.ring_queue {
            let told = self.registry.report_ring_queue(&self.node.name, self.generation, waiting);
            self.metrics.redis("ring_queue", told).await?;
            debug!(node = %self.node.name, waiting = waiting.len(), "ring queue reported");
            batch.ring_queue = None;
        }
        if let Some(groups) = &batch.left_out {
            let told = self.registry.left_out(&self.node.name, self.generation, groups);
            self.metrics.redis("left-out", told).await?;
            batch.left_out = None;
        }
        if let Some(reason) = &batch.reason {
            let told = self.registry.report_reason(&self.node.name, self.generation, reason);
            self.metrics.redis("reason", told).await?;
            batch.reason = None;
        }
        while let Some((number, notes)) = self.notes.next() {
            let told = self.registry.append_events(&self.node.name, self.generation, number, notes);
            self.metrics.redis("append_events", told).await?;
            self.notes.done();
        }
        if let Some(heartbeat) = batch.heartbeat {
            self.beat(heartbeat, done).await?;
            batch.heartbeat = None;
            self.tell_settings().await?;
            self.check_logins(done).await?;
        }
        if batch.leave {
            let name = &self.node.name;
            let moved = self.registry.leave(name, generation, &mut self.beats).await?;
            info!(node = %name, moved, "left the rotation");
            batch.leave = false;
        }
        Ok(())
    }

    /// What the nodes are compared by: after a change, and once a minute, for the clock.
    async fn tell_settings(&mut self) -> Result<(), RegistryError> {
        let now = self.clock.now();
        if self.told_settings.is_some_and(|at| now.since(at) < TELL_CLOCK) {
            return Ok(());
        }
        let told = {
            let settings = self.settings.borrow();
            ToldSettings { shared: settings.shared.clone(), restart: settings.restart.clone() }
        };
        let call = self.registry.tell_settings(&self.node.name, self.generation, &told, wall_ms());
        self.metrics.redis("settings", call).await?;
        self.told_settings = Some(now);
        Ok(())
    }

    /// A heartbeat may be taken where a login is not. Then the heartbeats go on: calls must not suffer.
    async fn check_logins(&mut self, done: &mut WriteResult) -> Result<(), RegistryError> {
        let now = self.clock.now();
        if self.checked_logins.is_some_and(|at| now.since(at) < CHECK_LOGINS) {
            return Ok(());
        }
        done.logins = match self.metrics.redis("try_login", self.registry.try_login()).await {
            Ok(()) => Some(Ok(())),
            Err(error @ (RegistryError::Lacks { .. } | RegistryError::Denied { .. })) => Some(Err(error.to_string())),
            Err(error) => return Err(error),
        };
        self.checked_logins = Some(now);
        Ok(())
    }

    async fn adopt(&mut self, batch: &mut WriteBatch, done: &mut WriteResult) -> Result<(), RegistryError> {
        let name = &self.node.name;
        while !batch.adopt.is_empty() {
            let part = batch.adopt.len().min(ADOPT_MOST);
            let adopt = self.registry.adopt(name, self.generation, &batch.adopt[..part]);
            let results = self.metrics.redis("adopt", adopt).await?;
            for ((login, live), result) in batch.adopt.drain(..part).zip(results) {
                info!(node = %name, session = %login.session, alias = %login.alias, agent = %login.agent, live = ?live,
                    result = ?result, "session found in Asterisk");
                if result == Adopted::Stale {
                    done.stale.push(login.session);
                }
            }
        }
        Ok(())
    }

    async fn report(&mut self, batch: &mut WriteBatch) -> Result<(), RegistryError> {
        let name = &self.node.name;
        while !batch.outcomes.is_empty() {
            let part = batch.outcomes.len().min(SESSIONS_AT_ONCE);
            let report = self.registry.report(name, self.generation, batch.state, &batch.outcomes[..part]);
            let results = self.metrics.redis("report", report).await?;
            let settled = results.len().clamp(1, part);
            for ((session, outcome), result) in batch.outcomes.drain(..settled).zip(results) {
                match result {
                    Reported::Done => {}
                    Reported::Gone => debug!(node = %name, %session, ?outcome, "Redis has no such open session here"),
                    Reported::Rejoined(rejoined) => self.log_rejoin(&session.to_string(), &rejoined),
                    Reported::PlacedAgain(PlacedAgain::Failed) => {
                        info!(node = %name, %session, "not placed again: no nodes or attempts left");
                    }
                    Reported::PlacedAgain(PlacedAgain::Waiting) => {
                        info!(node = %name, %session, "to be placed again when the nodes have reported");
                    }
                    Reported::PlacedAgain(result @ PlacedAgain::On(_)) => {
                        info!(node = %name, %session, result = result.to_string(), "placed again");
                    }
                }
            }
        }
        Ok(())
    }
}
