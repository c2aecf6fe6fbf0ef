//! The connections to Redis of the API, and whether Redis can be asked at all. Owns that nobody waits for a Redis that is
//! away: one task asks it again and again, and until it answers, requests are refused at once. Must never know what is asked.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard, Semaphore, SemaphorePermit, watch};
use tracing::{info, warn};

use super::problem::{Kind, Problem};
use crate::config::{LiveSettings, Settings};
use crate::ids::NodeName;
use crate::registry::{Registry, RegistryError};
use crate::runtime::clock::Clock;
use crate::runtime::log_throttle::LogThrottle;

/// Connections. Each carries one call at a time.
const CONNECTIONS: usize = 8;
/// How long a request waits for one of them.
const WAIT_MOST: Duration = Duration::from_secs(2);
/// Interval at which Redis is asked whether it is there.
const CHECK: Duration = Duration::from_millis(250);

/// The connections.
#[derive(Debug)]
pub(super) struct Pool {
    node: NodeName,
    slots: Vec<Mutex<Registry>>,
    free: Semaphore,
    live: watch::Receiver<LiveSettings>,
    away: AtomicBool,
}

/// A connection, for as long as this is held.
#[derive(Debug)]
pub(super) struct Lease<'a> {
    registry: MutexGuard<'a, Registry>,
    _permit: SemaphorePermit<'a>,
}

impl Deref for Lease<'_> {
    type Target = Registry;

    fn deref(&self) -> &Registry {
        &self.registry
    }
}

impl DerefMut for Lease<'_> {
    fn deref_mut(&mut self) -> &mut Registry {
        &mut self.registry
    }
}

impl Pool {
    /// Prepares, and connects to nothing yet.
    ///
    /// # Errors
    /// The settings for Redis are unusable.
    pub(super) fn new(settings: &Settings, live: watch::Receiver<LiveSettings>) -> Result<Self, RegistryError> {
        let slots: Result<Vec<_>, _> = (0..CONNECTIONS).map(|_| Registry::new(settings).map(Mutex::new)).collect();
        let (free, away) = (Semaphore::new(CONNECTIONS), AtomicBool::new(false));
        Ok(Self { node: settings.node.name.clone(), slots: slots?, free, live, away })
    }

    /// A connection.
    ///
    /// # Errors
    /// Redis is away, or too many requests wait.
    pub(super) async fn get(&self) -> Result<Lease<'_>, Problem> {
        if self.away.load(Ordering::Relaxed) {
            return Err(Problem::new(Kind::RedisUnavailable, "Redis does not answer: ask again"));
        }
        let busy = || Problem::new(Kind::Busy, "too many requests wait for Redis: ask again");
        let permit = tokio::time::timeout(WAIT_MOST, self.free.acquire()).await;
        let permit = permit.ok().and_then(Result::ok).ok_or_else(busy)?;
        // As many permits as slots: one is free.
        let mut registry = self.slots.iter().find_map(|slot| slot.try_lock().ok()).ok_or_else(busy)?;
        registry.ring_for(self.live.borrow().ring.timeout);
        Ok(Lease { registry, _permit: permit })
    }

    /// What came of a call, as an answer: whoever asks next need not wait for a Redis that has not answered.
    ///
    /// # Errors
    /// The call failed.
    pub(super) fn checked<T>(&self, result: Result<T, RegistryError>) -> Result<T, Problem> {
        result.map_err(|error| {
            if matches!(error, RegistryError::Unreachable { .. }) {
                self.away.store(true, Ordering::Relaxed);
            }
            if !error.is_outage() {
                let (node, reason) = (&self.node, error.to_string());
                warn!(%node, reason, "a request to the API failed");
            }
            error.into()
        })
    }

    /// Asks Redis again and again whether it is there.
    pub(super) async fn watch(&self, mut registry: Registry, clock: Clock) {
        let (node, mut throttle, mut check) = (&self.node, LogThrottle::default(), clock.every(CHECK));
        loop {
            check.tick().await;
            match registry.now_ms().await {
                Ok(_) if self.away.swap(false, Ordering::Relaxed) => info!(%node, "the API has Redis again"),
                Ok(_) => {}
                Err(error) => {
                    self.away.store(true, Ordering::Relaxed);
                    let reason = error.to_string();
                    if let Some(suppressed) = throttle.allow(&reason, clock.now()) {
                        warn!(%node, reason, suppressed, "the API is without Redis");
                    }
                }
            }
        }
    }
}
