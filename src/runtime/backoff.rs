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

    /// The same after an error that an operator must repair: after a few attempts, retries become rare.
    pub fn next_wait_for_people(&mut self, random: u64) -> Duration {
        let wait = self.next_wait(random);
        if self.tries > SOON_MOST { wait.max(RARELY) } else { wait }
    }

    /// Starts again at the first wait. Call it when a session has been up for a while, not when a connection is made, because a server that
    /// accepts and then refuses would be asked without pause.
    pub fn reset(&mut self) {
        self.tries = 0;
    }
}

/// Number of quick retries after an error that may pass by itself.
const SOON_MOST: u32 = 10;
/// The wait after those retries: short for whoever repairs the error, and long enough not to fill the server's log.
const RARELY: Duration = Duration::from_secs(5);

/// How a try to have a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It was up (booted) for this long.
    Up(Duration),
    /// It did not come up.
    Failed,
    /// It did not come up, and will not before a person has changed something.
    NeedsPeople,
}

/// The wait after a session that was in use: the first attempt shows whether Asterisk restarted or died.
const FIRST_LOOK: Duration = Duration::from_millis(20);
/// A session that was up for this long counts as stable.
const STEADY: Duration = Duration::from_secs(30);
/// Sessions in a row that were up for less and are looked after at once all the same: Asterisk may be restarted twice.
const SHORT_MOST: u32 = 3;
/// Tries in a row that end with the need of a person and are repeated soon: Asterisk may have been about to load its users.
const REFUSED_MOST: u32 = 2;
/// The wait after more of them. With these a usual ban list (five failures in ten minutes) keeps the port open.
const UNTIL_MENDED: Duration = Duration::from_secs(5 * 60);

/// When to try to have a session at AMI again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    backoff: Backoff,
    short: u32,
    refused: u32,
}

impl Retry {
    /// Nothing has been tried.
    pub const START: Self = Self { backoff: Backoff::AMI, short: 0, refused: 0 };

    /// The wait before the next try. `random` is any 64 bits.
    pub fn next_wait(&mut self, ended: Ended, random: u64) -> Duration {
        self.refused = if ended == Ended::NeedsPeople { self.refused.saturating_add(1) } else { 0 };
        match ended {
            Ended::Up(time) => {
                self.short = if time >= STEADY { 0 } else { self.short.saturating_add(1) };
                if self.short > SHORT_MOST {
                    return self.backoff.next_wait(random);
                }
                self.backoff.reset();
                FIRST_LOOK
            }
            Ended::NeedsPeople if self.refused > REFUSED_MOST => UNTIL_MENDED,
            Ended::Failed | Ended::NeedsPeople => self.backoff.next_wait(random),
        }
    }

    /// Whether the last try was one too many for anything but a person.
    pub fn waits_for_people(&self) -> bool {
        self.refused > REFUSED_MOST
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

    #[test]
    fn what_a_person_must_mend_is_tried_rarely() {
        let mut backoff = Backoff::REDIS;
        let waits: Vec<_> = (0..20).map(|_| backoff.next_wait_for_people(0)).collect();
        assert!(waits[..10].iter().all(|wait| *wait <= Duration::from_millis(250)), "{waits:?}");
        assert!(waits[10..].iter().all(|wait| *wait == RARELY), "{waits:?}");
        backoff.reset();
        assert!(backoff.next_wait_for_people(0) < RARELY);
    }

    fn seconds(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    #[test]
    fn a_restart_is_looked_at_at_once_and_what_boots_and_drops_is_not() {
        let mut retry = Retry::START;
        for _ in 0..100 {
            assert_eq!(retry.next_wait(Ended::Up(STEADY), 0), FIRST_LOOK);
            assert_eq!(retry.next_wait(Ended::Failed, 0), Duration::from_millis(125), "the schedule begins anew");
        }
        let waits: Vec<_> = (0..20).map(|_| retry.next_wait(Ended::Up(seconds(1)), 0).as_millis()).collect();
        assert_eq!(waits[..9], [20, 20, 20, 125, 250, 500, 1000, 2000, 2500]);
        assert!(waits[9..].iter().all(|wait| *wait == 2500), "{waits:?}");
        assert_eq!(retry.next_wait(Ended::Up(STEADY), 0), FIRST_LOOK);
    }

    #[test]
    fn a_wrong_secret_closes_no_port() {
        let mut retry = Retry::START;
        let waits: Vec<_> = (0..10).map(|_| retry.next_wait(Ended::NeedsPeople, u64::MAX)).collect();
        let (mut at, mut tries) = (Duration::ZERO, vec![Duration::ZERO]);
        for wait in waits {
            at += wait;
            tries.push(at);
        }
        let most =
            tries.iter().map(|end| tries.iter().filter(|at| **at <= *end && **at + seconds(600) > *end).count()).max();
        assert_eq!(most, Some(4), "in ten minutes: {tries:?}");
        assert!(retry.waits_for_people());
        assert!(retry.next_wait(Ended::Failed, 0) < seconds(6) && !retry.waits_for_people());
    }
}
