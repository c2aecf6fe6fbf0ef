//! Connections of clients that have shown no token yet. Owns that they make room for others. Must never end a connection of a
//! client that is known.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use tokio::task::AbortHandle;

/// Connections that have shown no valid token yet, the oldest first: when there is no room, they go.
#[derive(Debug, Default)]
pub(super) struct Strangers(Mutex<BTreeMap<u64, AbortHandle>>);

impl Strangers {
    fn with<T>(&self, act: impl FnOnce(&mut BTreeMap<u64, AbortHandle>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A new one.
    pub(super) fn add(&self, number: u64, handle: AbortHandle) {
        self.with(|all| all.insert(number, handle));
    }

    /// It is one no more: it has ended, or has shown a token.
    pub(super) fn remove(&self, number: u64) {
        self.with(|all| all.remove(&number));
    }

    /// Ends the oldest; false: there is none.
    pub(super) fn end_one(&self) -> bool {
        self.with(BTreeMap::pop_first).is_some_and(|(_, handle)| {
            handle.abort();
            true
        })
    }
}
