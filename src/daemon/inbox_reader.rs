//! The task that reads the shared inbox: logins from any RSMQ client, in batches. Owns the subscription that wakes it if
//! this node listens, and the poll for messages without a wake-up. Must never take an order: it works for the whole cluster,
//! and this node's own orders must not wait for it; nor decide what becomes of a login: `login_intake.rs` does.

use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use tokio::sync::watch;
use tracing::{debug, warn};

use super::login_intake::LoginIntake;
use crate::config::LiveSettings;
use crate::ids::{NodeName, Now};
use crate::registry::RegistryError;
use crate::runtime::backoff::Backoff;
use crate::runtime::clock::Clock;
use crate::runtime::log_throttle::LogThrottle;
use crate::runtime::random::random_bits;

/// Logins in one batch: two round trips.
const BATCH_MOST: usize = 64;
/// Maximum time without an answer from Redis: a frozen server does not end a subscription.
const CHECK: Duration = Duration::from_secs(1);
/// Polls that a node may miss before another node becomes listener in its place.
const SEAT_POLLS: u32 = 3;
/// Minimum interval between renewals of a subscription that seems to receive nothing: it may also be a client without
/// wake-ups.
const DEAF_AGAIN: Duration = Duration::from_secs(60);

/// The reader. It shares the connection of its intake.
#[derive(Debug)]
pub(super) struct InboxReader {
    pub(super) intake: LoginIntake,
    pub(super) node: NodeName,
    pub(super) poll: Duration,
    pub(super) clock: Clock,
    pub(super) settings: watch::Receiver<LiveSettings>,
}

/// The wake-ups, while this node listens for them.
#[derive(Default)]
struct Ear {
    subscription: Option<redis::aio::PubSubStream>,
    /// When it was last renewed because it seemed to receive nothing.
    renewed: Option<Now>,
}

impl Ear {
    /// The next wake-up; never, if this node does not listen. False: the subscription is over.
    async fn next(&mut self) -> bool {
        match &mut self.subscription {
            Some(subscription) => subscription.next().await.is_some(),
            None => std::future::pending().await,
        }
    }

    /// Whether a wake-up is there; all that are, are taken as one.
    fn called(&mut self) -> bool {
        let mut called = false;
        while let Some(Some(Some(_))) =
            self.subscription.as_mut().map(|subscription| subscription.next().now_or_never())
        {
            called = true;
        }
        called
    }

    fn may_renew(&mut self, now: Now) -> bool {
        let again = self.renewed.is_none_or(|at| now.since(at) >= DEAF_AGAIN);
        if again {
            self.renewed = Some(now);
        }
        again
    }
}

impl InboxReader {
    /// Reads the inbox until the daemon stops. `open` says whether this node has been registered.
    pub(super) async fn run(mut self, mut open: watch::Receiver<bool>) {
        let (mut throttle, mut backoff) = (LogThrottle::default(), Backoff::REDIS);
        loop {
            if open.wait_for(|open| *open).await.is_err() {
                return std::future::pending().await;
            }
            let error = tokio::select! {
                biased;
                // An error is a node loop that has ended: that is a stop as well. What is in hand comes back to the inbox.
                _ = open.wait_for(|open| !*open) => continue,
                error = self.work(&mut throttle, &mut backoff) => error,
            };
            let reason = error.to_string();
            if let Some(suppressed) = throttle.allow(&reason, self.clock.now()) {
                warn!(node = %self.node, reason, suppressed, "cannot read the inbox");
            }
            let random = random_bits();
            tokio::time::sleep(match error.needs_people() {
                true => backoff.next_wait_for_people(random),
                false => backoff.next_wait(random),
            })
            .await;
        }
    }

    /// Reads the inbox until Redis is unavailable; returns why.
    async fn work(&mut self, throttle: &mut LogThrottle, backoff: &mut Backoff) -> RegistryError {
        let (mut ear, mut poll, mut check) = (Ear::default(), self.clock.every(self.poll), self.clock.every(CHECK));
        loop {
            let called = tokio::select! {
                biased;
                listens = ear.next() => {
                    if !listens {
                        ear.subscription = None;
                    }
                    true
                }
                _ = poll.tick() => false,
                // A primary that was frozen while another took over must not be asked to place anybody.
                _ = check.tick(), if self.poll > CHECK => match self.intake.registry.now_ms().await {
                    Ok(_) => continue,
                    Err(error) => return error,
                },
            };
            // A burst of wake-ups is one: what they announce is fetched together.
            let called = ear.called() || called;
            if let Err(error) = self.drain(&mut ear, called).await {
                return error;
            }
            throttle.clear();
            backoff.reset();
        }
    }

    /// Settles all that is there. Only a poll asks for a seat, so that a wake-up costs no more than what it is about.
    async fn drain(&mut self, ear: &mut Ear, called: bool) -> Result<(), RegistryError> {
        if self.settings.has_changed().unwrap_or(false) {
            self.intake.registry.ring_for(self.settings.borrow_and_update().ring.timeout);
        }
        let mut asks = !called;
        loop {
            let seat = asks.then_some((&self.node, self.poll * SEAT_POLLS));
            let receive = self.intake.registry.receive_logins(BATCH_MOST, seat);
            let received = self.intake.metrics.redis("receive", receive).await?;
            let count = received.messages.len();
            if std::mem::take(&mut asks) {
                let deaf = count > 0 && ear.subscription.is_some() && !ear.called() && ear.may_renew(self.clock.now());
                self.listen(ear, received.listens, deaf).await?;
            }
            self.intake.settle(&received.messages).await?;
            if count < BATCH_MOST {
                return Ok(());
            }
        }
    }

    /// Begins to listen, or ends it.
    async fn listen(&mut self, ear: &mut Ear, listens: bool, anew: bool) -> Result<(), RegistryError> {
        if listens && (anew || ear.subscription.is_none()) {
            ear.subscription = Some(self.intake.registry.subscribe_logins().await?.into_on_message());
            debug!(node = %self.node, anew, "listening for logins");
        } else if !listens && ear.subscription.take().is_some() {
            debug!(node = %self.node, "others listen for logins");
        }
        Ok(())
    }
}
