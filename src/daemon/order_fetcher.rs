//! The task that fetches this node's orders and nothing else, because they are urgent. Owns its connection, the subscription
//! that wakes it and the safety poll for lost wake-ups. Must never ring a phone: orders go to the node loop.

use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use tokio::sync::{mpsc, watch};
use tracing::{debug, info, warn};

use super::observability::metrics::Metrics;
use crate::config::LiveSettings;
use crate::ids::{Generation, NodeName, Now, SessionId};
use crate::registry::view::OwnReason;
use crate::registry::{FetchSequence, Order, PlacedAgain, Registry, RegistryError, Taken};
use crate::runtime::backoff::Backoff;
use crate::runtime::clock::Clock;
use crate::runtime::log_throttle::LogThrottle;
use crate::runtime::random::random_bits;

/// Orders fetched in one step.
const FETCH_MOST: usize = 64;
/// Maximum time without an answer from Redis: a frozen server does not end a subscription.
const CHECK: Duration = Duration::from_secs(1);

/// A subscription that lasts this long is stable.
const STEADY: Duration = Duration::from_secs(30);

/// The fetcher.
#[derive(Debug)]
pub(super) struct OrderFetcher {
    pub(super) registry: Registry,
    pub(super) node: NodeName,
    pub(super) generation: Generation,
    pub(super) fetches: FetchSequence,
    pub(super) poll: Duration,
    pub(super) clock: Clock,
    pub(super) metrics: Metrics,
    pub(super) settings: watch::Receiver<LiveSettings>,
    /// Messages that cannot be read.
    pub(super) junk: LogThrottle,
}

/// A message to the node loop.
#[derive(Debug)]
pub(super) enum FetcherMessage {
    /// An order was taken; with the moment at which Redis was asked for it.
    Order(Taken, Now),
    /// The node was drained or resumed: the next heartbeat tells which.
    AdminState,
}

/// What woke it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wake {
    /// A message on the subscription.
    Called,
    /// The safety poll.
    Poll,
    /// The subscription is over.
    Broken,
}

impl OrderFetcher {
    /// Fetches until the node loop is gone. `open` says whether this node has been registered.
    pub(super) async fn run(mut self, orders: mpsc::Sender<FetcherMessage>, mut open: watch::Receiver<bool>) {
        let (mut throttle, mut backoff) = (LogThrottle::default(), Backoff::REDIS);
        loop {
            if open.wait_for(|open| *open).await.is_err() {
                return;
            }
            let mut needs_people = false;
            match self.listen(&orders, &mut open, &mut throttle, &mut backoff).await {
                Ok(()) => return,
                Err(RegistryError::Forgotten | RegistryError::Fenced) => {
                    debug!(node = %self.node, "not registered: no orders are taken");
                }
                Err(error) => {
                    needs_people = error.needs_people();
                    let reason = error.to_string();
                    if let Some(suppressed) = throttle.allow(&reason, self.clock.now()) {
                        warn!(node = %self.node, reason, suppressed, "cannot fetch orders");
                    }
                }
            }
            // Closed again: the daemon stops.
            if !*open.borrow() {
                return;
            }
            let random = random_bits();
            tokio::time::sleep(match needs_people {
                true => backoff.next_wait_for_people(random),
                false => backoff.next_wait(random),
            })
            .await;
        }
    }

    /// Fetches until the daemon stops.
    async fn listen(
        &mut self,
        orders: &mpsc::Sender<FetcherMessage>,
        open: &mut watch::Receiver<bool>,
        throttle: &mut LogThrottle,
        backoff: &mut Backoff,
    ) -> Result<(), RegistryError> {
        let mut subscription = self.registry.subscribe_orders(&self.node).await?.into_on_message();
        debug!(node = %self.node, "listening for orders");
        let since = self.clock.now();
        let mut poll = self.clock.every(self.poll);
        let mut check = self.clock.every(CHECK);
        loop {
            let (wake, mut admin_state) = tokio::select! {
                biased;
                // What is taken now would have nobody to ring it.
                () = closed(open) => return Ok(()),
                message = subscription.next() => match message {
                    Some(message) => (Wake::Called, Registry::is_about_admin_state(&message)),
                    None => (Wake::Broken, false),
                },
                _ = poll.tick() => (Wake::Poll, false),
                _ = check.tick(), if self.poll > CHECK => {
                    self.registry.now_ms().await?;
                    continue;
                }
                () = orders.closed() => return Ok(()),
            };
            // A burst of wake-ups is one: what they announce is fetched together.
            while let Some(Some(message)) = subscription.next().now_or_never() {
                admin_state |= Registry::is_about_admin_state(&message);
            }
            if admin_state && orders.send(FetcherMessage::AdminState).await.is_err() {
                return Ok(());
            }
            if self.settings.has_changed().unwrap_or(false) {
                self.registry.ring_for(self.settings.borrow_and_update().ring.timeout);
            }
            let fetched = self.fetch(orders).await?;
            throttle.clear();
            if self.clock.now().since(since) >= STEADY {
                backoff.reset();
            }
            match wake {
                Wake::Called => {}
                Wake::Broken => return Err(RegistryError::Forgotten),
                // A wake-up was lost: a subscription that is deaf is made anew.
                Wake::Poll if fetched > 0 && subscription.next().now_or_never().is_none() => {
                    debug!(node = %self.node, fetched, "the safety poll found what no wake-up announced");
                    subscription = self.registry.subscribe_orders(&self.node).await?.into_on_message();
                }
                Wake::Poll => {}
            }
        }
    }

    async fn fetch(&mut self, orders: &mpsc::Sender<FetcherMessage>) -> Result<usize, RegistryError> {
        let mut fetched = 0;
        loop {
            let asked = self.clock.now();
            let fetch = self.registry.fetch_orders(&self.node, self.generation, self.fetches.ask(), FETCH_MOST);
            let taken = match self.metrics.redis("fetch_orders", fetch).await {
                Ok(taken) => taken,
                // The heartbeat comes first; the poll looks again.
                Err(RegistryError::NotNow { .. }) => return Ok(fetched),
                Err(error) => return Err(error),
            };
            self.fetches.hear();
            let count = taken.len();
            let is_rest = taken.iter().any(|taken| matches!(taken.order, Order::Moved(..) | Order::Expired(_)));
            fetched += count;
            for order in taken {
                self.metrics.taken(&order.order);
                self.log(&order.order);
                if orders.send(FetcherMessage::Order(order, asked)).await.is_err() {
                    return Ok(fetched);
                }
            }
            if count < FETCH_MOST && !is_rest {
                return Ok(fetched);
            }
        }
    }

    fn log(&mut self, order: &Order) {
        let node = &self.node;
        match order {
            Order::Ring(login) => {
                info!(%node, session = %login.session, alias = %login.alias, agent = %login.agent,
                    attempt = login.attempt, "order taken");
            }
            Order::HangUp(session) => info!(%node, %session, "hang-up order taken"),
            Order::Moved(session, PlacedAgain::Failed) => {
                info!(%node, %session, "order returned, not placed again: no nodes or attempts left");
            }
            Order::Moved(session, PlacedAgain::Waiting) => {
                info!(%node, %session, "order returned: to be placed again when the nodes have reported");
            }
            Order::Moved(session, result @ PlacedAgain::On(_)) => {
                info!(%node, %session, result = result.to_string(), "order returned: placed again");
            }
            Order::Expired(session) => {
                warn!(%node, %session, reason = OwnReason::OrderExpired.as_str(), "order expired: not rung")
            }
            Order::Stale(session) if session.parse::<SessionId>().is_ok() => {
                debug!(%node, session, "order was done already");
            }
            // Not ours, or broken: its words are shown escaped.
            Order::Stale(session) => {
                if let Some(suppressed) = self.junk.allow("order", self.clock.now()) {
                    warn!(%node, ?session, suppressed, "unreadable order dropped");
                }
            }
        }
    }
}

/// Waits until the daemon stops.
async fn closed(open: &mut watch::Receiver<bool>) {
    // An error is a node loop that has ended: that is a stop as well.
    let _ = open.wait_for(|open| !*open).await;
}
