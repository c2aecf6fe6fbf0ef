//! The task that writes to Redis: registration, phones, adopted sessions, outcomes, heartbeat, in that order, one
//! batch at a time. Owns its connection. Must never decide what to write: the node loop hands it a batch, and gets
//! back what could not be written.

use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tracing::{debug, info, warn};

use super::clock::{Clock, Repeats};
use super::metrics::Metrics;
use super::reload::InForce;
use super::vitals::Booked;
use crate::config::NodeSettings;
use crate::ids::{Generation, Now, SessionId};
use crate::node::left_out::Group;
use crate::node::roster::PhoneChanges;
use crate::node::session::{Login, Outcome};
use crate::node::{BookedState, Duty, Live, NodeState};
use crate::registry::story::Told;
use crate::registry::{ADOPT_MOST, Adopted, Beats, Comeback, Registry, RegistryError};

/// Outcomes in one call: a script that settles many keeps Redis from everybody else.
const SESSIONS_AT_ONCE: usize = 200;

/// The most entries for the story that wait while Redis is away. More are in the log only.
pub(super) const NOTES_WAITING: usize = 100;

/// How the node is, for a heartbeat.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pulse {
    pub(super) state: NodeState,
    pub(super) channels: usize,
    pub(super) registrations: usize,
}

/// What is to be written.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) phones: Option<PhoneChanges>,
    pub(super) adopt: Vec<(Login, Live)>,
    pub(super) outcomes: Vec<(SessionId, Outcome)>,
    /// How the node is: told with the outcomes.
    pub(super) state: NodeState,
    /// Who waits for his turn.
    pub(super) line: Option<Vec<SessionId>>,
    /// Which phones are left out.
    pub(super) left_out: Option<Vec<Group>>,
    /// What the story would not know otherwise.
    pub(super) notes: Vec<Told>,
    pub(super) pulse: Option<Pulse>,
    /// The last one: leave the rotation afterwards.
    pub(super) leave: bool,
}

/// What came of a batch.
#[derive(Debug, Default)]
pub(super) struct Done {
    /// The node was registered (again): Redis knows nothing of it but its name.
    pub(super) registered: bool,
    /// What Redis believes of this node, after a heartbeat, and when that was sent.
    pub(super) books: Option<(Vec<(SessionId, BookedState)>, Now)>,
    /// And more of it, for people.
    pub(super) booked: Booked,
    /// The state that Redis took with that heartbeat.
    pub(super) told: Option<NodeState>,
    /// Whether it takes logins, after a heartbeat.
    pub(super) duty: Option<Duty>,
    /// Redis has lost what it was told of phones.
    pub(super) phones_lost: bool,
    /// Sessions whose agent has moved on.
    pub(super) stale: Vec<SessionId>,
    /// What was not written.
    pub(super) rest: Batch,
    /// Why not.
    pub(super) error: Option<RegistryError>,
    /// Who holds the node's name, if it is somebody else, and for how long.
    pub(super) held: Option<(String, Duration)>,
}

/// The writer.
#[derive(Debug)]
pub(super) struct Books {
    registry: Registry,
    node: NodeSettings,
    generation: Generation,
    host: String,
    clock: Clock,
    beats: Beats,
    registered: bool,
    /// What the last heartbeat said: a Redis that forgets everything is told again.
    duty: Duty,
    /// Redis has forgotten that this node drains.
    owes_drain: bool,
    /// What was refused to older generations, by the last heartbeat.
    refused: Option<u64>,
    metrics: Metrics,
    settings: watch::Receiver<InForce>,
    /// Redis does not know the newest share and caps.
    owes_limits: bool,
    notes: Notes,
    repeats: Repeats,
}

/// What goes into the story. What was sent once is sent again as it was, so that it stands there once.
#[derive(Debug, Default)]
struct Notes {
    number: u64,
    sent: Vec<Told>,
    waiting: Vec<Told>,
}

impl Notes {
    fn add(&mut self, more: &mut Vec<Told>) {
        let room = NOTES_WAITING.saturating_sub(self.waiting.len());
        self.waiting.extend(more.drain(..).take(room));
    }

    /// The next to be sent, with its number; the same until [`Self::done`].
    fn next(&mut self) -> Option<(u64, &[Told])> {
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

impl Books {
    pub(super) fn new(
        registry: Registry,
        settings: watch::Receiver<InForce>,
        generation: Generation,
        host: String,
        metrics: Metrics,
        clock: Clock,
    ) -> Self {
        let (duty, owes_drain, owes_limits) = (Duty::Serving, false, false);
        let node = settings.borrow().node.clone();
        Self {
            registry,
            node,
            generation,
            host,
            clock,
            beats: Beats::default(),
            registered: false,
            duty,
            owes_drain,
            refused: None,
            metrics,
            settings,
            owes_limits,
            notes: Notes::default(),
            repeats: Repeats::default(),
        }
    }

    /// Writes batches until nobody hands out any more.
    pub(super) async fn run(mut self, mut batches: mpsc::Receiver<Batch>, done: mpsc::Sender<Done>) {
        while let Some(batch) = batches.recv().await {
            let result = self.write(batch).await;
            if done.send(result).await.is_err() {
                return;
            }
        }
    }

    async fn write(&mut self, mut batch: Batch) -> Done {
        let mut done = Done::default();
        self.notes.add(&mut batch.notes);
        if self.settings.has_changed().unwrap_or(false) {
            let new = self.settings.borrow_and_update();
            self.registry.ring_for(new.ring.timeout);
            self.node = new.node.clone();
            self.owes_limits = true;
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

    /// Takes the node's name, if it is not ours yet. What came of it stands in `done`.
    async fn register(&mut self, done: &mut Done) -> Result<(), RegistryError> {
        let register = self.registry.register(&self.node, self.generation, &self.host);
        match self.metrics.redis("register", register).await? {
            Ok(previous) => {
                self.owes_drain |= previous.is_none() && self.duty == Duty::Draining;
                let previous = previous.map(|generation| generation.to_string()).unwrap_or_default();
                info!(node = %self.node.name, generation = %self.generation, previous, "registered");
                self.registered = true;
                done.registered = true;
                if let Some(reason) = self.registry.take_mute() {
                    warn!(node = %self.node.name, reason, "the story cannot be written: there will be no events");
                }
            }
            Err(held) => done.held = Some(held),
        }
        Ok(())
    }

    async fn beat(&mut self, pulse: Pulse, done: &mut Done) -> Result<(), RegistryError> {
        let name = &self.node.name;
        let Pulse { state, channels, registrations } = pulse;
        let (how, now) = ((state, channels, registrations), self.clock.now());
        let beat = self.registry.heartbeat(name, self.generation, how, (&mut self.beats, now));
        let beat = self.metrics.redis("heartbeat", beat).await?;
        for (session, lost, reason) in &beat.reaped {
            if reason == "waiting" {
                debug!(node = %name, session, lost, "a login waits until the nodes have reported");
                continue;
            }
            self.metrics.reaped(reason);
            let reason = if self.log_comeback(session, reason) { "node-lost" } else { reason };
            warn!(node = %name, session, lost, reason, "settled for a node that is gone");
        }
        self.duty = beat.duty;
        done.duty = Some(beat.duty);
        if let Some(before) = self.refused.replace(beat.refused)
            && beat.refused > before
        {
            let refused = beat.refused - before;
            if let Some(held) = self.repeats.allow("refused", self.clock.now()) {
                warn!(node = %name, refused, held, "an older daemon of this node still speaks: refused");
            }
        }
        let reserved = beat.books.iter().filter(|(_, state)| *state == BookedState::Placed).count();
        done.booked = Booked { reserved, refused: beat.refused, ring: beat.ring, logins: beat.logins };
        done.books = Some((beat.books, now));
        done.told = Some(state);
        done.phones_lost = beat.phones_lost;
        Ok(())
    }

    /// Says what became of the agent of a lost session; false if this is about something else.
    fn log_comeback(&self, lost: &str, result: &str) -> bool {
        let node = &self.node.name;
        match Comeback::parse(result) {
            Some(Comeback::Ringing { node: chosen, session, alias, agent }) => {
                info!(%node, session, alias, agent, chosen, lost, "rejoin");
            }
            Some(Comeback::Stranded { alias, agent }) => {
                warn!(%node, session = lost, alias, agent, "no rejoin: no other node can ring this phone");
            }
            None => return false,
        }
        true
    }

    /// Takes out of the batch what has been written.
    async fn try_write(&mut self, batch: &mut Batch, done: &mut Done) -> Result<(), RegistryError> {
        if !self.registered {
            self.register(done).await?;
            if !self.registered {
                return Ok(());
            }
        }
        let (name, generation) = (&self.node.name, self.generation);
        // Before the heartbeat that makes it active: it gets no login in between.
        if self.owes_drain {
            self.registry.turn(name, Duty::Draining).await?;
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
        if let Some(waiting) = &batch.line {
            let told = self.registry.line(&self.node.name, self.generation, waiting);
            self.metrics.redis("line", told).await?;
            debug!(node = %self.node.name, waiting = waiting.len(), "line reported");
            batch.line = None;
        }
        if let Some(groups) = &batch.left_out {
            let told = self.registry.left_out(&self.node.name, self.generation, groups);
            self.metrics.redis("left-out", told).await?;
            batch.left_out = None;
        }
        while let Some((number, notes)) = self.notes.next() {
            let told = self.registry.note(&self.node.name, self.generation, number, notes);
            self.metrics.redis("note", told).await?;
            self.notes.done();
        }
        if let Some(pulse) = batch.pulse {
            self.beat(pulse, done).await?;
            batch.pulse = None;
        }
        if batch.leave {
            let name = &self.node.name;
            let moved = self.registry.leave(name, generation, &mut self.beats).await?;
            info!(node = %name, moved, "left the rotation");
            batch.leave = false;
        }
        Ok(())
    }

    async fn adopt(&mut self, batch: &mut Batch, done: &mut Done) -> Result<(), RegistryError> {
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

    async fn report(&mut self, batch: &mut Batch) -> Result<(), RegistryError> {
        let name = &self.node.name;
        while !batch.outcomes.is_empty() {
            let part = batch.outcomes.len().min(SESSIONS_AT_ONCE);
            let report = self.registry.report(name, self.generation, batch.state, &batch.outcomes[..part]);
            let results = self.metrics.redis("report", report).await?;
            let settled = results.len().clamp(1, part);
            for ((session, outcome), result) in batch.outcomes.drain(..settled).zip(results) {
                match result.as_str() {
                    "done" => {}
                    "gone" => debug!(node = %name, %session, ?outcome, "Redis has no such open session here"),
                    _ if self.log_comeback(&session.to_string(), &result) => {}
                    "failed" => info!(node = %name, %session, "not placed again: no node or no try is left"),
                    "waiting" => info!(node = %name, %session, "placed again when the nodes have reported"),
                    _ => info!(node = %name, %session, result, "placed again"),
                }
            }
        }
        Ok(())
    }
}
