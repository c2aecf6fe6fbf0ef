//! Watches one session for a command that waits for it. Owns polling, so that a lost notification does no harm, and the
//! time that the nodes have to report to a Redis that was away or has lost its data. Must never know what is waited for.

use std::pin::Pin;
use std::time::Duration;

use futures_util::{Stream, StreamExt};

use crate::ids::{Now, SessionId};
use crate::registry::view::{SessionRow, Which};
use crate::registry::{Registry, RegistryError};
use crate::runtime::clock::Clock;

/// Interval at which the session is read if no notification comes.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// The result of one read.
#[derive(Debug)]
pub(super) enum Seen {
    /// The session.
    There(Box<SessionRow>),
    /// Redis does not have it, but its node may still report it.
    Missing,
    /// Redis has lost it, and no node has reported it in time.
    Forgotten,
}

/// Repeated reads of one session.
pub(super) struct Watch {
    session: SessionId,
    clock: Clock,
    repair: Duration,
    /// When Redis last had it.
    seen: Now,
    news: Option<Pin<Box<dyn Stream<Item = redis::Msg> + Send>>>,
}

impl Watch {
    /// Starts watching.
    pub(super) fn new(registry: &Registry, session: SessionId) -> Self {
        let clock = Clock::start();
        Self { session, clock, repair: registry.repair_time(), seen: clock.now(), news: None }
    }

    /// Time since the start of the watch.
    pub(super) fn now(&self) -> Now {
        self.clock.now()
    }

    /// Reads the session.
    ///
    /// # Errors
    /// Redis has been unavailable for longer than the nodes need to report again.
    pub(super) async fn look(&mut self, registry: &mut Registry) -> Result<Seen, RegistryError> {
        let row = self.try_look(registry).await;
        let over = self.clock.now().since(self.seen) > self.repair;
        match row {
            Ok(Some(row)) => {
                self.seen = self.clock.now();
                Ok(Seen::There(Box::new(row)))
            }
            Ok(None) if over => Ok(Seen::Forgotten),
            Ok(None) => Ok(Seen::Missing),
            Err(error) if error.is_outage() && !over => {
                self.news = None;
                Ok(Seen::Missing)
            }
            Err(error) => Err(error),
        }
    }

    /// Subscribes before reading, so that no change is missed in between.
    async fn try_look(&mut self, registry: &mut Registry) -> Result<Option<SessionRow>, RegistryError> {
        if self.news.is_none() {
            self.news = Some(Box::pin(registry.subscribe_session(self.session).await?.into_on_message()));
        }
        Ok(registry.sessions(Which::One(self.session)).await?.pop())
    }

    /// Waits for a notification, or for the next poll.
    pub(super) async fn wait(&mut self) {
        let Some(news) = &mut self.news else { return tokio::time::sleep(LOOK_AGAIN).await };
        match tokio::time::timeout(LOOK_AGAIN, news.next()).await {
            Ok(Some(_)) | Err(_) => {}
            // The connection is lost: subscribe again after a pause.
            Ok(None) => {
                self.news = None;
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        }
    }
}
