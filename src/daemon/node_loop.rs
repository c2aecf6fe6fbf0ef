//! The loop that owns the node: passes it inputs, carries out its effects, and logs both. Owns the order of priorities
//! and what waits for Redis. Must never decide anything about sessions or phones: `node` does.

mod pending;
mod stop;
mod tell;

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tracing::{debug, error, info, warn};

use self::pending::Pending;
use super::observability::metrics::Metrics;
use super::observability::reasons::{Reasons, reason};
use super::observability::status::{Away, DaemonStatus};
use super::order_fetcher::FetcherMessage;
use super::registry_writer::{HeartbeatReport, WriteBatch, WriteResult};
use super::systemd::{self, WriterWatchdog};
use crate::ami::action::Action;
use crate::ami::event::Event;
use crate::ami::outcome::{Answer, NotSent, Tag};
use crate::ami_client::{FromAmi, PeerStatus, ToAmi};
use crate::config::LiveSettings;
use crate::ids::{NodeName, Now, SessionId};
use crate::node::left_out::Group;
use crate::node::{AdminState, Effect, Input, Node, NodeState};
use crate::registry::events::NewEvent;
use crate::registry::{Order, RegistryError, Taken};
use crate::runtime::backoff::Backoff;
use crate::runtime::clock::Clock;
use crate::runtime::log_throttle::LogThrottle;
use crate::runtime::random::random_bits;

/// A held name is requested again this long after its lease should end, and at least this often while it is renewed.
const ASK_AFTER: Duration = Duration::from_millis(5);
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// A daemon without Asterisk or Redis reports ready after this, before systemd's start timeout.
const READY_ANYWAY: Now = Now(Duration::from_secs(25));

/// Why a node that is logged in is not in sync: what no event says.
const NOT_BOOTED: &str = "Asterisk has not said that it is booted: it is still loading, or the manager user lacks read = \
    system in manager.conf";
/// What makes the daemon try again after a person has repaired something. A reload brings no changed credential.
const TRY_AT_ONCE: &str = "; then systemctl restart evenring";

/// Messages from AMI that are handled in one step.
const NEWS_AT_ONCE: usize = 64;

/// Why the loop ended.
#[derive(Debug, thiserror::Error)]
pub enum LoopError {
    /// Another daemon has this node's name.
    #[error(
        "another daemon has taken the name of node {node}: this daemon exits. Give every node its own node.name, and \
            run one daemon per node"
    )]
    Fenced {
        /// The name.
        node: NodeName,
    },
    /// This process was suspended for longer than its lease: other nodes may have its sessions, and it starts a new generation.
    #[error("the daemon of node {node} was suspended for {stood_ms} ms, longer than its lease")]
    StoodStill {
        /// The name.
        node: NodeName,
        /// How long.
        stood_ms: u128,
    },
    /// A task ended unexpectedly.
    #[error("the {0} task ended unexpectedly; this is a bug")]
    TaskEnded(&'static str),
}

/// What ends together with the loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// The whole daemon.
    Process,
    /// Only this generation.
    Anew,
}

/// The channels that the loop reads.
#[derive(Debug)]
pub(super) struct Inputs {
    pub(super) ami: mpsc::Receiver<FromAmi>,
    pub(super) orders: mpsc::Receiver<FetcherMessage>,
    pub(super) done: mpsc::Receiver<WriteResult>,
    pub(super) settings: watch::Receiver<LiveSettings>,
    /// The signal by which the daemon was told to stop.
    pub(super) stop: watch::Receiver<Option<&'static str>>,
}

/// The channels that the loop writes.
#[derive(Debug)]
pub(super) struct Outputs {
    pub(super) ami: mpsc::Sender<ToAmi>,
    pub(super) batches: mpsc::Sender<WriteBatch>,
    /// Whether orders may be fetched.
    pub(super) open: watch::Sender<bool>,
    /// The daemon's status, for HTTP and metrics.
    pub(super) status: watch::Sender<DaemonStatus>,
}

/// The loop.
#[derive(Debug)]
pub(super) struct NodeLoop {
    name: NodeName,
    node: Node,
    clock: Clock,
    outputs: Outputs,
    metrics: Metrics,
    /// When each session that has not been answered yet was placed here.
    chosen: BTreeMap<SessionId, Now>,
    /// When AMI sent the last event.
    heard_at: Option<Now>,
    /// When AMI was logged in, until it is in sync.
    logged_in: Option<Now>,
    pending: Pending,
    /// Whether a batch is with the writer.
    watchdog: WriterWatchdog,
    retry_at: Option<Now>,
    backoff: Backoff,
    registered: bool,
    /// Another daemon has this node's name.
    name_is_held: bool,
    redis_down: bool,
    /// Why Redis would take no login, although it takes heartbeats.
    no_logins: Option<String>,
    /// The outage has been logged.
    outage_said: bool,
    /// The last heartbeat that Redis took brought this node into the rotation.
    told_active: bool,
    lease: Duration,
    /// When the last iteration began.
    turned: Now,
    throttle: LogThrottle,
    name_throttle: LogThrottle,
    /// For a snapshot that fails every second.
    snapshot_throttle: LogThrottle,
    /// For all other repeating messages.
    other_throttle: LogThrottle,
    /// The phones left out when that was last logged.
    left_out_said: Vec<Group>,
    ready_told: bool,
    /// The last status line sent to systemd.
    status_told: String,
    /// Why the node is not ready, and what of it Redis was told.
    reasons: Reasons,
    reason_told: Option<String>,
}

impl NodeLoop {
    /// `longest_write`: a writer that has not answered by then never will.
    pub(super) fn new(
        name: NodeName,
        node: Node,
        clock: Clock,
        outputs: Outputs,
        metrics: Metrics,
        (longest_write, lease): (Duration, Duration),
    ) -> Self {
        Self {
            name,
            node,
            clock,
            outputs,
            metrics,
            chosen: BTreeMap::new(),
            heard_at: None,
            logged_in: None,
            pending: Pending { beat: true, ..Pending::default() },
            watchdog: WriterWatchdog::new(longest_write),
            retry_at: None,
            backoff: Backoff::REDIS,
            registered: false,
            name_is_held: false,
            redis_down: false,
            no_logins: None,
            outage_said: false,
            told_active: false,
            lease,
            turned: clock.now(),
            throttle: LogThrottle::default(),
            name_throttle: LogThrottle::default(),
            snapshot_throttle: LogThrottle::default(),
            other_throttle: LogThrottle::default(),
            left_out_said: Vec::new(),
            ready_told: false,
            status_told: String::new(),
            reasons: Reasons::default(),
            reason_told: None,
        }
    }

    /// Runs until told to stop, or until the node's name is lost.
    pub(super) async fn run(mut self, mut inputs: Inputs, heartbeat: Duration) -> Result<(), LoopError> {
        let mut beat = self.clock.every(heartbeat);
        let mut news = Vec::with_capacity(NEWS_AT_ONCE);
        loop {
            let now = self.clock.now();
            // Every heartbeat causes an iteration.
            let stood = now.since(std::mem::replace(&mut self.turned, now));
            if stood >= self.lease {
                let (node, stood_ms) = (self.name.clone(), stood.as_millis());
                self.stop(inputs, Ending::Anew).await?;
                return Err(LoopError::StoodStill { node, stood_ms });
            }
            self.carry_out();
            self.outputs.open.send_if_modified(|open| std::mem::replace(open, self.registered) != self.registered);
            self.hand_to_writer();
            let now = self.clock.now();
            let deadline = [self.node.next_deadline(now), self.retry_at].into_iter().flatten().min();
            tokio::select! {
                biased;
                _ = inputs.stop.changed() => {
                    info!(node = %self.name, signal = (*inputs.stop.borrow()).unwrap_or("none"), "stopping");
                    return self.stop(inputs, Ending::Process).await;
                }
                done = inputs.done.recv() => self.written(done.ok_or(LoopError::TaskEnded("registry"))?)?,
                count = inputs.ami.recv_many(&mut news, NEWS_AT_ONCE) => {
                    if count == 0 {
                        return Err(LoopError::TaskEnded("AMI"));
                    }
                    news.drain(..).for_each(|message| self.heard(message));
                }
                word = inputs.orders.recv() => self.ordered(word.ok_or(LoopError::TaskEnded("orders"))?),
                Ok(()) = inputs.settings.changed() => {
                    let ring = inputs.settings.borrow_and_update().ring.clone();
                    self.node.handle(Input::Settings(ring), self.clock.now());
                }
                _ = beat.tick() => {
                    self.pending.beat = true;
                    if self.watchdog.beats(self.clock.now()) {
                        systemd::alive();
                    }
                    self.tell_systemd();
                    self.tell_counts();
                }
                () = self.clock.sleep_until(deadline) => {
                    let now = self.clock.now();
                    self.retry_at = self.retry_at.filter(|at| *at > now);
                    self.node.handle(Input::Timer, now);
                }
            }
        }
    }

    fn heard(&mut self, message: FromAmi) {
        let now = self.clock.now();
        match message {
            FromAmi::Event(message) => match Event::parse(&message) {
                Ok(event) => {
                    debug!(node = %self.name, ?event, "event");
                    self.metrics.event(&event);
                    self.heard_at = Some(now);
                    if matches!(event, Event::FullyBooted { .. }) {
                        self.reasons.asterisk = reason("reading phones and calls from Asterisk");
                    }
                    self.node.handle(Input::Event(event), now);
                }
                Err(error) => {
                    self.metrics.events_unreadable.inc();
                    let reason = error.to_string();
                    if let Some(suppressed) = self.other_throttle.allow(&reason, now) {
                        warn!(node = %self.name, reason, suppressed, "unreadable AMI event: asking Asterisk for the \
                            current state");
                    }
                    self.node.handle(Input::Gap, now);
                }
            },
            FromAmi::ShuttingDown(is) => self.node.handle(Input::ShuttingDown(is), now),
            FromAmi::LoggedIn(_) => {
                self.logged_in = Some(now);
                self.reasons.asterisk = reason(NOT_BOOTED);
                self.outputs.status.send_modify(|status| (status.connected, status.away) = (true, None));
            }
            FromAmi::Answer(tag, answer) => {
                debug!(node = %self.name, ?tag, ?answer, "answer");
                self.node.handle(Input::Answer(tag, answer), now);
            }
            FromAmi::Closed { peer, reason: why, needs_people } => {
                self.logged_in = None;
                let then = if needs_people { TRY_AT_ONCE } else { "" };
                self.reasons.asterisk = reason(&format!("{why}{then}"));
                let in_sync = matches!(self.node.state(), NodeState::Active | NodeState::Stopping);
                let channels = in_sync.then(|| self.node.channels());
                self.outputs.status.send_modify(|status| {
                    let away = Away::again(status.away, peer, channels, now);
                    (status.connected, status.away) = (false, Some(away));
                });
                self.node.handle(Input::Closed { gone: peer == PeerStatus::Refused }, now);
            }
        }
    }

    fn ordered(&mut self, word: FetcherMessage) {
        let now = self.clock.now();
        match word {
            FetcherMessage::Order(Taken { order: Order::Ring(login), waited }, asked) => {
                let placed = Now(asked.0.saturating_sub(waited));
                self.chosen.insert(login.session, placed);
                // A node that drains gets none, so it may have resumed.
                self.pending.beat |= self.node.admin_state() == AdminState::Drain;
                self.node.handle(Input::Ring(login, asked, placed), now);
            }
            FetcherMessage::Order(Taken { order: Order::HangUp(session), .. }, _) => {
                self.node.handle(Input::HangUp(session), now)
            }
            // Handled by the script already; logged where it was fetched.
            FetcherMessage::Order(Taken { order: Order::Moved(_, _) | Order::Expired(_) | Order::Stale(_), .. }, _) => {
            }
            FetcherMessage::AdminState => self.pending.beat = true,
        }
    }

    fn on_admin_state(&mut self, admin_state: AdminState, now: Now) {
        let node = &self.name;
        match (self.node.admin_state(), admin_state) {
            (AdminState::Ready, AdminState::Drain) => info!(%node, "draining: no new logins, active sessions stay"),
            (AdminState::Drain, AdminState::Ready) => info!(%node, "resumed: taking logins again"),
            (AdminState::Ready, AdminState::Ready) | (AdminState::Drain, AdminState::Drain) => {}
        }
        self.node.handle(Input::AdminState(admin_state), now);
    }

    fn written(&mut self, done: WriteResult) -> Result<(), LoopError> {
        let now = self.clock.now();
        self.watchdog.answered();
        if let Some((holder, left)) = &done.held {
            self.wait_for_name(holder, *left, now);
        }
        if done.registered {
            (self.registered, self.name_is_held, self.told_active) = (true, false, false);
            (self.reasons.name, self.reason_told) = (None, None);
            self.node.handle(Input::Registered, now);
        }
        if !done.stale.is_empty() {
            self.node.handle(Input::Stale(done.stale), now);
        }
        if let Some(admin_state) = done.admin_state {
            self.on_admin_state(admin_state, now);
        }
        if let Some(state) = done.told {
            self.told_active = state == NodeState::Active;
        }
        if let Some((recorded, asked)) = done.recorded {
            self.outputs.status.send_modify(|status| (status.beat, status.counts_in_redis) = (Some(now), done.counts));
            self.node.handle(Input::Recorded(recorded, asked), now);
        }
        if let Some(checked) = done.logins {
            self.logins_checked(checked.err(), now);
        }
        if done.phones_lost {
            let what = "Redis had lost phone states: reported again";
            self.metrics.drift_repaired.inc();
            if let Some(suppressed) = self.other_throttle.allow(what, now) {
                warn!(node = %self.name, what, suppressed, "drift repaired");
            }
            self.pending.note(NewEvent { event: "drift", session: None, reason: what.to_owned() });
        }
        // Phones that were not written, or are lost: all of them are told again, whatever has changed since.
        if done.rest.phones.is_some() || done.phones_lost {
            self.node.roster.tell_all();
        }
        self.pending.put_back(done.rest);
        match done.error {
            None if self.name_is_held => self.tell_systemd(),
            None => self.redis_answers(),
            Some(RegistryError::Fenced) => return Err(LoopError::Fenced { node: self.name.clone() }),
            Some(RegistryError::Forgotten) => {
                if let Some(suppressed) = self.other_throttle.allow("forgotten", now) {
                    warn!(node = %self.name, suppressed, "Redis no longer knows this node: registering again");
                }
                self.pending.beat = true;
            }
            Some(error) => {
                self.redis_down = true;
                // A lost heartbeat does not wait for the next one: the lease goes on.
                self.pending.beat = true;
                let random = random_bits();
                let wait = match error.needs_people() {
                    true => self.backoff.next_wait_for_people(random),
                    false => self.backoff.next_wait(random),
                };
                self.retry_at = Some(now.after(wait));
                self.reasons.redis = reason(&error.to_string());
                let reason = error.to_string();
                if let Some(suppressed) = self.throttle.allow(&reason, now) {
                    self.outage_said = true;
                    error!(node = %self.name, reason, suppressed, "Redis unavailable: logins suspended, active calls \
                        unaffected; retrying");
                }
                self.tell_systemd();
            }
        }
        self.tell_state();
        Ok(())
    }

    /// Another daemon holds the name: what this one has to write waits until its lease expires.
    fn wait_for_name(&mut self, holder: &str, left: Duration, now: Now) {
        self.name_is_held = true;
        self.reasons.name = reason(&tell::held_by(holder));
        self.pending.beat = true;
        self.retry_at = Some(now.after((left + ASK_AFTER).min(ASK_AGAIN)));
        if let Some(suppressed) = self.name_throttle.allow(holder, now) {
            warn!(node = %self.name, holder, lease = ?left, suppressed, "another daemon holds this node's name: \
                waiting for its lease to expire");
        }
    }

    fn redis_answers(&mut self) {
        self.backoff.reset();
        self.redis_down = false;
        self.reasons.redis = None;
        // A flapping outage is not logged each time, so neither is its end.
        if std::mem::take(&mut self.outage_said) {
            info!(node = %self.name, "Redis is back");
            self.throttle.clear();
        }
        self.tell_systemd();
    }

    fn carry_out(&mut self) {
        while let Some(effect) = self.node.next_effect() {
            match effect {
                Effect::Ami { tag, action_id, action } => self.send(tag, action_id, action),
                Effect::Report(session, login, outcome) => {
                    self.log_outcome(session, login.as_ref(), &outcome);
                    self.measure(session, &outcome);
                    self.pending.report(session, outcome);
                }
                Effect::Adopt(login, live) => {
                    self.pending.adopt(login, live);
                }
                Effect::RingQueue(waiting) => self.pending.ring_queue = Some(waiting),
                Effect::Beat => {
                    info!(node = %self.name, state = self.node.state().as_str(), "node state");
                    self.pending.beat = true;
                    self.tell_counts();
                }
                Effect::Note(note) => {
                    self.keep_reason(&note);
                    self.log_note(&note);
                    self.measure_note(&note);
                    self.note_for_story(&note);
                }
            }
        }
        if let Some(changes) = self.node.roster.take_changes() {
            self.pending.add_phones(changes);
        }
        if let Some(groups) = self.node.roster.left_out.take_news() {
            self.tell_left_out(groups);
        }
    }

    fn send(&mut self, tag: Tag, action_id: Option<String>, action: Action) {
        let now = self.clock.now();
        debug!(node = %self.name, action = action.name(), action_id, "action");
        if let Err(refused) = self.outputs.ami.try_send(ToAmi::Send(tag, action_id, action)) {
            self.metrics.actions_unsent.inc();
            let reason = refused.to_string();
            if let Some(suppressed) = self.other_throttle.allow(&reason, now) {
                warn!(node = %self.name, reason, suppressed, "action not sent");
            }
            self.node.handle(Input::Answer(tag, Answer::NotSent(NotSent::Closed)), now);
        }
    }

    /// Hands what waits to the writer, one batch at a time.
    fn hand_to_writer(&mut self) {
        if self.watchdog.is_busy() || self.retry_at.is_some() || self.pending.is_empty() {
            return;
        }
        self.write(false);
    }

    fn write(&mut self, leave: bool) {
        let heartbeat = HeartbeatReport {
            state: self.node.state(),
            channels: self.node.channels(),
            registrations: self.node.roster.registered(),
        };
        let batch = std::mem::take(&mut self.pending).into_batch(heartbeat, leave);
        if self.outputs.batches.try_send(batch).is_ok() {
            self.watchdog.asked(self.clock.now());
        }
    }
}
