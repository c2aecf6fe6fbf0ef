//! Random bits from the system, and the ids made of them. Owns that source. Must never know what the ids are for.

use crate::ids::SessionId;

/// 64 random bits from the system. Should the system have none, the standard library's own seed has to do.
pub fn random_bits() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    getrandom::u64().unwrap_or_else(|_| RandomState::new().build_hasher().finish())
}

/// A new session id.
pub fn new_session() -> SessionId {
    SessionId::from_bits(random_bits())
}
