//! How long to wait before the next connection.
//!
//! Owns the schedule. Must never sleep, read a clock or draw a random number: the caller brings 64 random bits.

use std::time::Duration;

/// The longest first wait.
pub const FIRST: Duration = Duration::from_millis(250);
/// The longest wait of all.
pub const MOST: Duration = Duration::from_secs(5);

/// Waits that double from [`FIRST`] to [`MOST`]. Each is cut by up to a half at random, so that the daemons of many nodes
/// do not come back in step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Backoff {
    tries: u32,
}

impl Backoff {
    /// A schedule at its beginning.
    pub const fn new() -> Self {
        Self { tries: 0 }
    }

    /// The wait before the next try, and one step further. `random` is any 64 bits.
    pub fn next_wait(&mut self, random: u64) -> Duration {
        let whole = FIRST.saturating_mul(1_u32.checked_shl(self.tries.min(16)).unwrap_or(u32::MAX)).min(MOST);
        self.tries = self.tries.saturating_add(1);
        let half = whole / 2;
        let micros = u64::try_from(half.as_micros()).unwrap_or(u64::MAX);
        half + Duration::from_micros(random % micros.saturating_add(1))
    }

    /// How many waits were given since the beginning.
    pub fn tries(&self) -> u32 {
        self.tries
    }

    /// Begins anew: call it when a session is up (booted), not when a connection is, because a server that accepts
    /// and then refuses would be asked without pause.
    pub fn reset(&mut self) {
        self.tries = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_most_and_stay_there() {
        let (mut short, mut long) = (Backoff::new(), Backoff::new());
        let millis = |wait: Duration| wait.as_millis();
        let shortest: Vec<_> = (0..8).map(|_| millis(short.next_wait(0))).collect();
        assert_eq!(shortest, [125, 250, 500, 1000, 2000, 2500, 2500, 2500]);
        for (step, expected) in [250, 500, 1000, 2000, 4000, 5000, 5000].into_iter().enumerate() {
            let whole = FIRST.saturating_mul(1 << step).min(MOST);
            let random = u64::try_from((whole / 2).as_micros()).unwrap();
            assert_eq!(millis(long.next_wait(random)), expected);
        }
        for _ in 0..100_000 {
            assert!(long.next_wait(u64::MAX) <= MOST);
        }
        long.reset();
        assert!(long.next_wait(u64::MAX) <= FIRST);
        assert_eq!(long.tries(), 1);
    }
}
