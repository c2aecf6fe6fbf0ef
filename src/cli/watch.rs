//! One session, seen by who waits for it. Owns that lost news do no harm, and that a Redis which is away, or has just
//! forgotten everything, is given the time to be told again. Must never know what is waited for.

use std::pin::Pin;
use std::time::Duration;

use futures_util::{Stream, StreamExt};

use crate::daemon::clock::Clock;
use crate::ids::{Now, SessionId};
use crate::registry::view::{SessionRow, Which};
use crate::registry::{Registry, RegistryError};

/// How often the session is looked at when no news came.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// What a look shows.
#[derive(Debug)]
pub(super) enum Seen {
    /// The session.
    There(Box<SessionRow>),
    /// Redis does not show it, but its node may still be about to say it again.
    Missing,
    /// Redis has lost it, and nobody has said it again in the time that takes.
    Forgotten,
}

/// A look at a session, again and again.
pub(super) struct Watch {
    session: SessionId,
    clock: Clock,
    repair: Duration,
    /// When it was there last.
    seen: Now,
    news: Option<Pin<Box<dyn Stream<Item = redis::Msg> + Send>>>,
}

impl Watch {
    /// Begins to listen for its news.
    pub(super) fn new(registry: &Registry, session: SessionId) -> Self {
        let clock = Clock::start();
        Self { session, clock, repair: registry.repair_time(), seen: clock.now(), news: None }
    }

    /// How long we have watched.
    pub(super) fn now(&self) -> Now {
        self.clock.now()
    }

    /// How it stands.
    ///
    /// # Errors
    /// Redis is out of use, for longer than a repair takes.
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

    /// Listens first, so that nothing is missed between the look and the news.
    async fn try_look(&mut self, registry: &mut Registry) -> Result<Option<SessionRow>, RegistryError> {
        if self.news.is_none() {
            self.news = Some(Box::pin(registry.subscribe_session(self.session).await?.into_on_message()));
        }
        Ok(registry.sessions(Which::One(self.session)).await?.pop())
    }

    /// Waits until there may be something new to see.
    pub(super) async fn wait(&mut self) {
        let Some(news) = &mut self.news else { return tokio::time::sleep(LOOK_AGAIN).await };
        match tokio::time::timeout(LOOK_AGAIN, news.next()).await {
            Ok(Some(_)) | Err(_) => {}
            // The server has gone: listen anew, but not in a hurry.
            Ok(None) => {
                self.news = None;
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        }
    }
}
