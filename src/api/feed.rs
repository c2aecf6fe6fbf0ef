//! The event stream for all watchers: one reader of Redis a daemon, however many watch. Owns the recent events, and that a
//! watcher who joins gets each event once. Must never wait for a watcher.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tracing::warn;

use crate::ids::{NodeName, SessionId};
use crate::registry::events::{Cursor, Entry};
use crate::registry::{Registry, RegistryError};
use crate::runtime::backoff::Backoff;
use crate::runtime::clock::Clock;
use crate::runtime::log_throttle::LogThrottle;
use crate::runtime::random::random_bits;

/// How far a watcher may be behind, in events.
const BEHIND_MOST: usize = 4_096;
/// Recent events that are kept for those who come back.
const RECENT: usize = 2_048;
/// How long one read waits for new events; the registry shortens it if necessary.
const WAIT: Duration = Duration::from_secs(5);

/// An event as watchers get it.
#[derive(Debug)]
pub(super) struct Item {
    /// Its place.
    pub(super) key: (u64, u64),
    pub(super) entry: Entry,
    /// The same on the wire.
    pub(super) frame: Bytes,
}

impl Item {
    pub(super) fn of(entry: Entry) -> Self {
        // An entry is made of texts and a number: it always serialises, and no line end stays in it.
        let json = serde_json::to_string(&entry).unwrap_or_default();
        let key = key_of(&entry.id);
        let frame = format!("id: {}-{}\ndata: {json}\n\n", key.0, key.1).into();
        Self { key, entry, frame }
    }
}

/// The place of an id of Redis.
fn key_of(id: &str) -> (u64, u64) {
    id.parse().map_or((0, 0), |cursor: Cursor| cursor.key())
}

/// What is kept of the stream.
#[derive(Debug, Default)]
struct Recent {
    items: VecDeque<Arc<Item>>,
    /// Everything behind this place is in `items`; `None`: nothing was read yet.
    since: Option<(u64, u64)>,
}

/// The feed.
#[derive(Debug)]
pub(super) struct Feed {
    recent: Mutex<Recent>,
    sender: broadcast::Sender<Arc<Item>>,
}

/// One who listens.
#[derive(Debug)]
pub(super) struct Ear(broadcast::Receiver<Arc<Item>>);

/// The next event, or none any more.
#[derive(Debug)]
pub(super) enum Heard {
    Item(Arc<Item>),
    /// The listener was too slow: events are lost.
    Lost,
}

impl Ear {
    pub(super) async fn next(&mut self) -> Heard {
        match self.0.recv().await {
            Ok(item) => Heard::Item(item),
            Err(RecvError::Lagged(_) | RecvError::Closed) => Heard::Lost,
        }
    }

    /// Waits for an event of this session.
    pub(super) async fn changed(&mut self, session: SessionId) {
        let session = session.to_string();
        loop {
            match self.0.recv().await {
                Ok(item) if item.entry.session == session => return,
                Ok(_) => {}
                // Perhaps it was among those that were missed.
                Err(RecvError::Lagged(_)) => return,
                Err(RecvError::Closed) => std::future::pending().await,
            }
        }
    }
}

/// How a watcher goes on from a place.
#[derive(Debug)]
pub(super) enum Join {
    /// These, and then what is heard.
    Live(Vec<Arc<Item>>, Ear),
    /// It is too far behind: what comes next must be read from Redis.
    Behind,
}

impl Default for Feed {
    fn default() -> Self {
        Self { recent: Mutex::default(), sender: broadcast::channel(BEHIND_MOST).0 }
    }
}

impl Feed {
    /// Listens from now on.
    pub(super) fn listen(&self) -> Ear {
        Ear(self.sender.subscribe())
    }

    /// Joins behind a place.
    pub(super) fn join(&self, after: (u64, u64)) -> Join {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.since.is_none_or(|since| after < since) {
            return Join::Behind;
        }
        let items = recent.items.iter().filter(|item| item.key > after).map(Arc::clone).collect();
        // Under the lock, under which events are sent: none is missed, and none comes twice.
        Join::Live(items, self.listen())
    }

    /// From where on everything is known here.
    pub(super) fn since(&self) -> Option<(u64, u64)> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner).since
    }

    fn add(&self, entries: Vec<Entry>) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        for entry in entries {
            let item = Arc::new(Item::of(entry));
            recent.items.push_back(Arc::clone(&item));
            if recent.items.len() > RECENT
                && let Some(oldest) = recent.items.pop_front()
            {
                recent.since = Some(oldest.key);
            }
            // Nobody listens: that is fine.
            let _ = self.sender.send(item);
        }
    }

    fn begin(&self, at: &Cursor) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.items.clear();
        recent.since = Some(at.key());
    }

    /// Reads the stream until the daemon ends. What happens while Redis is away is read when it is back.
    pub(super) async fn run(&self, mut registry: Registry, node: &NodeName, clock: Clock) {
        let (mut throttle, mut backoff, mut place) = (LogThrottle::default(), Backoff::REDIS, None);
        loop {
            let error = match self.read(&mut registry, &mut place).await {
                Ok(()) => {
                    throttle.clear();
                    backoff.reset();
                    continue;
                }
                Err(error) => error,
            };
            let reason = error.to_string();
            if let Some(suppressed) = throttle.allow(&reason, clock.now()) {
                warn!(%node, reason, suppressed, "cannot read the event stream for the API");
            }
            tokio::time::sleep(backoff.next_wait(random_bits())).await;
        }
    }

    async fn read(&self, registry: &mut Registry, place: &mut Option<Cursor>) -> Result<(), RegistryError> {
        let place = match place {
            Some(place) => place,
            None => {
                let start = Cursor::at(registry.now_ms().await?);
                self.begin(&start);
                place.insert(start)
            }
        };
        let entries = registry.events(place, Some(WAIT)).await?;
        self.add(entries);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(time: u64) -> Entry {
        let text = || "x\ny".to_owned();
        Entry {
            id: format!("{time}-0"),
            at: time,
            event: text(),
            node: text(),
            session: text(),
            alias: text(),
            agent: text(),
            extension: text(),
            reason: text(),
        }
    }

    #[test]
    fn who_joins_gets_each_event_once() {
        let feed = Feed::default();
        assert!(matches!(feed.join((5, 0)), Join::Behind), "nothing was read yet");
        feed.begin(&"3-0".parse().unwrap());
        feed.add(vec![entry(4), entry(5)]);
        let Join::Live(items, mut ear) = feed.join((4, 0)) else { panic!("it is not behind") };
        assert_eq!(items.iter().map(|item| item.key.0).collect::<Vec<_>>(), [5]);
        feed.add(vec![entry(6)]);
        assert_eq!(ear.0.try_recv().unwrap().key, (6, 0));
        assert!(ear.0.try_recv().is_err());
        assert!(matches!(feed.join((2, 9)), Join::Behind));
        feed.add((10..10 + RECENT as u64).map(entry).collect());
        assert!(matches!(feed.join((5, 0)), Join::Behind), "what was there has been dropped");
        assert!(matches!(feed.join((6, 0)), Join::Live(items, _) if items.len() == RECENT));
    }

    #[tokio::test]
    async fn who_is_too_slow_is_told_so_and_delays_nobody() {
        let feed = Feed::default();
        feed.begin(&Cursor::start());
        let mut slow = feed.listen();
        feed.add((1..=BEHIND_MOST as u64 + 1).map(entry).collect());
        assert!(matches!(slow.next().await, Heard::Lost));
    }

    #[test]
    fn an_event_is_one_frame_whatever_is_in_it() {
        let frame = String::from_utf8(Item::of(entry(7)).frame.to_vec()).unwrap();
        assert!(frame.starts_with("id: 7-0\ndata: {") && frame.ends_with("}\n\n"), "{frame}");
        assert_eq!(frame.lines().count(), 3, "{frame}");
    }
}
