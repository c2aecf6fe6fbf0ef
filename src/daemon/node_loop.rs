//! The one loop that owns the node: hands it what happens, carries its effects out, and logs both. Owns the order of
//! priorities and what waits for Redis. Must never decide anything about sessions or phones: `node` does.

mod pending;
mod tell;

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tracing::{debug, error, info, warn};

use self::pending::Pending;
use super::ami::{FromAmi, Silence, ToAmi};
use super::books::{Batch, Done, Pulse};
use super::clock::{Clock, Repeats};
use super::metrics::Metrics;
use super::notify::{self, Heart};
use super::order_fetcher::Word;
use super::reload::InForce;
use super::vitals::{Away, Vitals};
use crate::ami::action::Action;
use crate::ami::backoff::Backoff;
use crate::ami::event::Event;
use crate::ami::outcome::{Answer, NotSent, Tag};
use crate::ids::{NodeName, Now, SessionId};
use crate::node::left_out::Group;
use crate::node::{Duty, Effect, Input, Node, NodeState};
use crate::registry::story::Told;
use crate::registry::{Order, RegistryError, Taken};

/// A name is asked for again so long after the end of its lease, and at least so often while it is renewed.
const ASK_AFTER: Duration = Duration::from_millis(5);
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// A daemon whose Asterisk or Redis is away is started all the same, before systemd gives up waiting and starts it again.
const READY_ANYWAY: Now = Now(Duration::from_secs(25));
/// How long a stopping daemon waits for its last orders: as long as Redis is waited for.
const LAST_ORDERS: Duration = Duration::from_millis(600);
/// How long a stopping daemon waits for Redis to take its last words, orders included.
const LAST_WORDS: Duration = Duration::from_millis(1_200);

/// Messages from AMI that are handled in one step.
const NEWS_AT_ONCE: usize = 64;

/// Why the loop ended.
#[derive(Debug, thiserror::Error)]
pub enum LoopError {
    /// Another daemon speaks for this node.
    #[error(
        "another daemon has taken the name of node {node}; this one ends. Give every node its own [node] name, and run \
         one evenring per node"
    )]
    Fenced {
        /// The name.
        node: NodeName,
    },
    /// This process stood still for longer than its lease: others may have its sessions, and it begins anew.
    #[error("the daemon of node {node} stood still for {stood_ms} ms, longer than its lease")]
    StoodStill {
        /// The name.
        node: NodeName,
        /// How long.
        stood_ms: u128,
    },
    /// A task ended that must not.
    #[error("the {0} task ended unexpectedly; this is a bug")]
    TaskEnded(&'static str),
}

/// What ends with the loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// The whole daemon.
    Process,
    /// Only this life of it.
    Anew,
}

/// What the loop listens to.
#[derive(Debug)]
pub(super) struct Ears {
    pub(super) ami: mpsc::Receiver<FromAmi>,
    pub(super) orders: mpsc::Receiver<Word>,
    pub(super) done: mpsc::Receiver<Done>,
    pub(super) settings: watch::Receiver<InForce>,
    /// The signal by which the daemon was told to stop.
    pub(super) stop: watch::Receiver<Option<&'static str>>,
}

/// What the loop speaks to.
#[derive(Debug)]
pub(super) struct Mouths {
    pub(super) ami: mpsc::Sender<ToAmi>,
    pub(super) batches: mpsc::Sender<Batch>,
    /// Whether orders may be fetched.
    pub(super) open: watch::Sender<bool>,
    /// How the daemon is, for whoever asks.
    pub(super) vitals: watch::Sender<Vitals>,
}

/// The loop.
#[derive(Debug)]
pub(super) struct NodeLoop {
    name: NodeName,
    node: Node,
    clock: Clock,
    mouths: Mouths,
    metrics: Metrics,
    /// When the sessions were placed here that have not been answered yet.
    chosen: BTreeMap<SessionId, Now>,
    /// When AMI sent the last event.
    heard_at: Option<Now>,
    /// When AMI was logged in, until it is in sync.
    logged_in: Option<Now>,
    pending: Pending,
    /// Whether a batch is with the writer.
    heart: Heart,
    retry_at: Option<Now>,
    backoff: Backoff,
    registered: bool,
    /// Somebody else has this node's name.
    name_is_held: bool,
    redis_down: bool,
    /// That it is down stands in the log.
    outage_said: bool,
    /// The last heartbeat that Redis took brought this node into the rotation.
    told_active: bool,
    lease: Duration,
    /// When the loop went round last.
    turned: Now,
    repeats: Repeats,
    name_repeats: Repeats,
    /// Of a snapshot that is refused every second.
    snapshot_repeats: Repeats,
    /// Of all else that a fault can say again and again.
    other_repeats: Repeats,
    /// Who was left out when it was logged last.
    left_out_said: Vec<Group>,
    ready_told: bool,
    /// The last line that systemd got.
    status_told: String,
}

impl NodeLoop {
    /// `longest_write`: a writer that has not answered by then never will.
    pub(super) fn new(
        name: NodeName,
        node: Node,
        clock: Clock,
        mouths: Mouths,
        metrics: Metrics,
        (longest_write, lease): (Duration, Duration),
    ) -> Self {
        Self {
            name,
            node,
            clock,
            mouths,
            metrics,
            chosen: BTreeMap::new(),
            heard_at: None,
            logged_in: None,
            pending: Pending { beat: true, ..Pending::default() },
            heart: Heart::new(longest_write),
            retry_at: None,
            backoff: Backoff::REDIS,
            registered: false,
            name_is_held: false,
            redis_down: false,
            outage_said: false,
            told_active: false,
            lease,
            turned: clock.now(),
            repeats: Repeats::default(),
            name_repeats: Repeats::default(),
            snapshot_repeats: Repeats::default(),
            other_repeats: Repeats::default(),
            left_out_said: Vec::new(),
            ready_told: false,
            status_told: String::new(),
        }
    }

    /// Runs until told to stop, or until the node's name is lost.
    pub(super) async fn run(mut self, mut ears: Ears, heartbeat: Duration) -> Result<(), LoopError> {
        let mut beat = self.clock.every(heartbeat);
        let mut news = Vec::with_capacity(NEWS_AT_ONCE);
        loop {
            let now = self.clock.now();
            // Every heartbeat turns it.
            let stood = now.since(std::mem::replace(&mut self.turned, now));
            if stood >= self.lease {
                let (node, stood_ms) = (self.name.clone(), stood.as_millis());
                self.stop(ears, Ending::Anew).await?;
                return Err(LoopError::StoodStill { node, stood_ms });
            }
            self.carry_out();
            self.mouths.open.send_if_modified(|open| std::mem::replace(open, self.registered) != self.registered);
            self.hand_to_writer();
            let now = self.clock.now();
            let deadline = [self.node.next_deadline(now), self.retry_at].into_iter().flatten().min();
            tokio::select! {
                biased;
                _ = ears.stop.changed() => {
                    info!(node = %self.name, signal = (*ears.stop.borrow()).unwrap_or("none"), "stopping");
                    return self.stop(ears, Ending::Process).await;
                }
                done = ears.done.recv() => self.written(done.ok_or(LoopError::TaskEnded("registry"))?)?,
                count = ears.ami.recv_many(&mut news, NEWS_AT_ONCE) => {
                    if count == 0 {
                        return Err(LoopError::TaskEnded("AMI"));
                    }
                    news.drain(..).for_each(|message| self.heard(message));
                }
                word = ears.orders.recv() => self.ordered(word.ok_or(LoopError::TaskEnded("orders"))?),
                Ok(()) = ears.settings.changed() => {
                    let ring = ears.settings.borrow_and_update().ring.clone();
                    self.node.handle(Input::Settings(ring), self.clock.now());
                }
                _ = beat.tick() => {
                    self.pending.beat = true;
                    if self.heart.beats(self.clock.now()) {
                        notify::alive();
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
                    self.node.handle(Input::Event(event), now);
                }
                Err(error) => {
                    self.metrics.events_unreadable.inc();
                    let reason = error.to_string();
                    if let Some(held) = self.other_repeats.allow(&reason, now) {
                        warn!(node = %self.name, reason, held, "an event that cannot be read: asking Asterisk how it is");
                    }
                    self.node.handle(Input::Gap, now);
                }
            },
            FromAmi::ShuttingDown(is) => self.node.handle(Input::ShuttingDown(is), now),
            FromAmi::LoggedIn(_) => {
                self.logged_in = Some(now);
                self.mouths.vitals.send_modify(|vitals| (vitals.connected, vitals.away) = (true, None));
            }
            FromAmi::Answer(tag, answer) => {
                debug!(node = %self.name, ?tag, ?answer, "answer");
                self.node.handle(Input::Answer(tag, answer), now);
            }
            FromAmi::Closed { silence, .. } => {
                self.logged_in = None;
                let in_sync = matches!(self.node.state(), NodeState::Active | NodeState::Stopping);
                let channels = in_sync.then(|| self.node.channels());
                self.mouths.vitals.send_modify(|vitals| {
                    let away = Away::again(vitals.away, silence, channels, now);
                    (vitals.connected, vitals.away) = (false, Some(away));
                });
                self.node.handle(Input::Closed { gone: silence == Silence::Nobody }, now);
            }
        }
    }

    fn ordered(&mut self, word: Word) {
        let now = self.clock.now();
        match word {
            Word::Order(Taken { order: Order::Ring(login), waited }, asked) => {
                self.chosen.insert(login.session, Now(asked.0.saturating_sub(waited)));
                // A node that drains gets none, so it may have resumed.
                self.pending.beat |= self.node.duty() == Duty::Draining;
                self.node.handle(Input::Ring(login, asked), now);
            }
            Word::Order(Taken { order: Order::HangUp(session), .. }, _) => {
                self.node.handle(Input::HangUp(session), now)
            }
            // Done by the script already; logged where it was fetched.
            Word::Order(Taken { order: Order::Moved(_, _) | Order::Expired(_) | Order::Stale(_), .. }, _) => {}
            Word::Duty => self.pending.beat = true,
        }
    }

    fn on_duty(&mut self, duty: Duty, now: Now) {
        let node = &self.name;
        match (self.node.duty(), duty) {
            (Duty::Serving, Duty::Draining) => info!(%node, "draining: no logins come here, calls stay"),
            (Duty::Draining, Duty::Serving) => info!(%node, "resumed: logins come here again"),
            (Duty::Serving, Duty::Serving) | (Duty::Draining, Duty::Draining) => {}
        }
        self.node.handle(Input::Duty(duty), now);
    }

    fn written(&mut self, done: Done) -> Result<(), LoopError> {
        let now = self.clock.now();
        self.heart.answered();
        let done = match done.held {
            None => done,
            Some((ref holder, left)) => {
                self.wait_for_name(holder, left, now);
                Done { held: None, ..done }
            }
        };
        if done.registered {
            (self.registered, self.name_is_held, self.told_active) = (true, false, false);
            self.node.handle(Input::Registered, now);
        }
        if !done.stale.is_empty() {
            self.node.handle(Input::Stale(done.stale), now);
        }
        if let Some(duty) = done.duty {
            self.on_duty(duty, now);
        }
        if let Some(state) = done.told {
            self.told_active = state == NodeState::Active;
        }
        if let Some((books, asked)) = done.books {
            self.mouths.vitals.send_modify(|vitals| (vitals.beat, vitals.booked) = (Some(now), done.booked));
            self.node.handle(Input::Books(books, asked), now);
        }
        if done.phones_lost {
            let what = "Redis had lost what it was told of phones: told again";
            self.metrics.drift_mended.inc();
            if let Some(held) = self.other_repeats.allow(what, now) {
                warn!(node = %self.name, what, held, "drift mended");
            }
            self.pending.note(Told { event: "drift", session: None, reason: what.to_owned() });
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
                if let Some(held) = self.other_repeats.allow("forgotten", now) {
                    warn!(node = %self.name, held, "Redis does not know this node any more: registering again");
                }
                self.pending.beat = true;
            }
            Some(error) => {
                self.redis_down = true;
                // A lost heartbeat does not wait for the next one: the lease goes on.
                self.pending.beat = true;
                let random = super::random_bits();
                let wait = match error.needs_people() {
                    true => self.backoff.next_wait_for_people(random),
                    false => self.backoff.next_wait(random),
                };
                self.retry_at = Some(now.after(wait));
                let reason = error.to_string();
                if let Some(held) = self.repeats.allow(&reason, now) {
                    self.outage_said = true;
                    error!(node = %self.name, reason, held, "Redis is out of use: no logins here, calls go on");
                }
                self.tell_systemd();
            }
        }
        self.tell_state();
        Ok(())
    }

    /// Another machine's daemon, or one that can no more show that it is dead: what this one knows waits for its turn.
    fn wait_for_name(&mut self, holder: &str, left: Duration, now: Now) {
        self.name_is_held = true;
        self.pending.beat = true;
        self.retry_at = Some(now.after((left + ASK_AFTER).min(ASK_AGAIN)));
        if let Some(held) = self.name_repeats.allow(holder, now) {
            warn!(node = %self.name, holder, lease = ?left, held, "another daemon holds this node's name: waiting for the \
                end of its lease");
        }
    }

    fn redis_answers(&mut self) {
        self.backoff.reset();
        self.redis_down = false;
        // What comes and goes all the time is not said each time, and so not that it is over.
        if std::mem::take(&mut self.outage_said) {
            info!(node = %self.name, "Redis is back");
            self.repeats.clear();
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
                Effect::Line(waiting) => self.pending.line = Some(waiting),
                Effect::Beat => {
                    info!(node = %self.name, state = self.node.state().as_str(), "node state");
                    self.pending.beat = true;
                    self.tell_counts();
                }
                Effect::Note(note) => {
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
        if let Err(refused) = self.mouths.ami.try_send(ToAmi::Send(tag, action_id, action)) {
            self.metrics.actions_unsent.inc();
            let reason = refused.to_string();
            if let Some(held) = self.other_repeats.allow(&reason, now) {
                warn!(node = %self.name, reason, held, "action not sent");
            }
            self.node.handle(Input::Answer(tag, Answer::NotSent(NotSent::Closed)), now);
        }
    }

    /// Hands what waits to the writer, one batch at a time.
    fn hand_to_writer(&mut self) {
        if self.heart.is_busy() || self.retry_at.is_some() || self.pending.is_empty() {
            return;
        }
        self.write(false);
    }

    fn write(&mut self, leave: bool) {
        let pulse = Pulse {
            state: self.node.state(),
            channels: self.node.channels(),
            registrations: self.node.roster.registered(),
        };
        let batch = std::mem::take(&mut self.pending).into_batch(pulse, leave);
        if self.mouths.batches.try_send(batch).is_ok() {
            self.heart.asked(self.clock.now());
        }
    }

    /// Leaves the rotation, says the last words to Redis and goodbye to Asterisk. Calls are not touched.
    async fn stop(mut self, mut ears: Ears, ending: Ending) -> Result<(), LoopError> {
        if ending == Ending::Process {
            notify::stopping();
        }
        self.mouths.open.send_replace(false);
        self.mouths.vitals.send_modify(|vitals| vitals.stopping = true);
        let give_up = self.clock.now().after(LAST_WORDS);
        self.node.handle(Input::Stopping, self.clock.now());
        if self.registered {
            self.last_orders(&mut ears.orders).await;
        }
        let mut last = false;
        while self.heart.is_busy() || !last {
            if !self.heart.is_busy() {
                self.carry_out();
                self.write(true);
                last = true;
            }
            tokio::select! {
                done = ears.done.recv() => match done {
                    Some(done) => {
                        // A Redis that has just forgotten this node is told of its calls, which nobody else knows; if not
                        // by its next life.
                        let forgotten = done.registered || matches!(done.error, Some(RegistryError::Forgotten));
                        last &= ending == Ending::Anew || !forgotten;
                        self.written(done)?;
                    }
                    None => break,
                },
                () = self.clock.sleep_until(Some(give_up)) => {
                    warn!(node = %self.name, "Redis did not take the last words in time; the lease will end by itself");
                    break;
                }
            }
        }
        if self.mouths.ami.try_send(ToAmi::Logoff).is_ok() {
            // Ends when the goodbye is said; the task drops its side.
            let goodbye = async { while ears.ami.recv().await.is_some() {} };
            tokio::select! {
                () = goodbye => {}
                () = self.clock.sleep_until(Some(self.clock.now().after(Duration::from_millis(300)))) => {}
            }
        }
        Ok(())
    }

    /// Orders that were fetched are given back, also those of a fetch that is under way: after it the fetcher ends.
    async fn last_orders(&mut self, orders: &mut mpsc::Receiver<Word>) {
        let until = Some(self.clock.now().after(LAST_ORDERS));
        loop {
            tokio::select! {
                word = orders.recv() => match word {
                    Some(word) => self.ordered(word),
                    None => return,
                },
                () = self.clock.sleep_until(until) => return,
            }
        }
    }
}
