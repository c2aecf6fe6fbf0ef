//! How long to wait before the next connection, to AMI or to Redis.
//!
//! Owns the schedule. Must never sleep, read a clock or draw a random number: the caller brings 64 random bits.

use std::time::Duration;

/// Waits that double from the first to the longest. Each is cut by up to a half at random, so that the daemons of many
/// nodes do not come back in step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    tries: u32,
}

impl Backoff {
    /// For Asterisk: one that boots refuses for many seconds.
    pub const AMI: Self = Self::new(Duration::from_millis(250), Duration::from_secs(5));
    /// For Redis: it is back within a moment or after a failover, and logins wait for it. The cut at random keeps
    /// fifty nodes that all start at once from asking together again and again.
    pub const REDIS: Self = Self::new(Duration::from_millis(100), Duration::from_millis(500));

    /// A schedule at its beginning.
    const fn new(first: Duration, most: Duration) -> Self {
        Self { first, most, tries: 0 }
    }

    /// The wait before the next try, and one step further. `random` is any 64 bits.
    pub fn next_wait(&mut self, random: u64) -> Duration {
        let whole = self.first.saturating_mul(1_u32.checked_shl(self.tries.min(16)).unwrap_or(u32::MAX)).min(self.most);
        self.tries = self.tries.saturating_add(1);
        let half = whole / 2;
        let micros = u64::try_from(half.as_micros()).unwrap_or(u64::MAX);
        half + Duration::from_micros(random % micros.saturating_add(1))
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

    fn check(start: Backoff, shortest: &[u128], longest: &[u128]) {
        let (mut short, mut long) = (start, start);
        for (low, high) in shortest.iter().zip(longest) {
            assert_eq!(short.next_wait(0).as_millis(), *low, "{start:?}");
            let half = u64::try_from(*high).unwrap() * 1000 / 2;
            assert_eq!(long.next_wait(half).as_millis(), *high, "{start:?}");
        }
        for _ in 0..100_000 {
            assert!(long.next_wait(u64::MAX) <= start.most);
        }
        long.reset();
        assert_eq!(long, start);
    }

    #[test]
    fn waits_double_up_to_the_most_and_stay_there() {
        check(Backoff::AMI, &[125, 250, 500, 1000, 2000, 2500, 2500], &[250, 500, 1000, 2000, 4000, 5000, 5000]);
        check(Backoff::REDIS, &[50, 100, 200, 250, 250], &[100, 200, 400, 500, 500]);
    }
}
