//! How fast this node rings: a token bucket. Owns the arithmetic only. Must never know what it paces.

use std::time::Duration;

use crate::ids::Now;

/// Sums of fractions come out a little short of a whole token; without this, a timer for it would stay due.
const WHOLE: f64 = 1.0 - 1e-5;

/// A token bucket: `rate` a second on average, at most `burst` at once.
#[derive(Debug)]
pub struct Bucket {
    rate: f64,
    burst: f64,
    tokens: f64,
    filled: Now,
}

impl Bucket {
    /// A full bucket. `rate` and `burst` below 1 count as 1.
    pub fn new(rate: u32, burst: u32, now: Now) -> Self {
        let burst = f64::from(burst.max(1));
        Self { rate: f64::from(rate.max(1)), burst, tokens: burst, filled: now }
    }

    /// Another rate and burst; what was gained so far stays, as far as it fits.
    pub fn change(&mut self, rate: u32, burst: u32, now: Now) {
        self.fill(now);
        (self.rate, self.burst) = (f64::from(rate.max(1)), f64::from(burst.max(1)));
        self.tokens = self.tokens.min(self.burst);
    }

    /// Takes one token, if there is one.
    pub fn take(&mut self, now: Now) -> bool {
        self.fill(now);
        if self.tokens < WHOLE {
            return false;
        }
        self.tokens = (self.tokens - 1.0).max(0.0);
        true
    }

    /// When the next token will be there (now, if one is).
    pub fn next(&mut self, now: Now) -> Now {
        self.fill(now);
        let missing = if self.tokens < WHOLE { 1.0 - self.tokens } else { 0.0 };
        now.after(Duration::from_secs_f64(missing / self.rate))
    }

    fn fill(&mut self, now: Now) {
        let gained = now.since(self.filled).as_secs_f64() * self.rate;
        self.tokens = (self.tokens + gained).min(self.burst);
        self.filled = self.filled.max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_goes_at_once_and_the_rest_at_the_rate() {
        let at = |ms| Now(Duration::from_millis(ms));
        let mut bucket = Bucket::new(50, 100, at(0));
        assert_eq!((0..150).filter(|_| bucket.take(at(0))).count(), 100);
        assert_eq!(bucket.next(at(0)), at(20));
        assert!(!bucket.take(at(19)));
        assert!(bucket.take(at(20)));
        let taken = (20..=1020).filter(|ms| bucket.take(at(*ms))).count();
        assert!((49..=51).contains(&taken), "{taken} in a second at 50 a second");
    }

    #[test]
    fn a_change_gives_no_burst_of_its_own() {
        let at = |ms| Now(Duration::from_millis(ms));
        let mut bucket = Bucket::new(50, 100, at(0));
        assert_eq!((0..200).filter(|_| bucket.take(at(0))).count(), 100);
        bucket.change(1, 500, at(0));
        assert!(!bucket.take(at(999)));
        assert!(bucket.take(at(1000)) && !bucket.take(at(1000)), "one a second now");
        bucket.change(1000, 2, at(2000));
        assert_eq!((0..200).filter(|_| bucket.take(at(9000))).count(), 2);
    }

    #[test]
    fn a_clock_that_steps_back_gives_nothing() {
        let mut bucket = Bucket::new(1, 1, Now(Duration::from_secs(10)));
        assert!(bucket.take(Now(Duration::from_secs(10))));
        assert!(!bucket.take(Now(Duration::from_secs(5))));
        assert!(!bucket.take(Now(Duration::from_secs(10))));
    }
}
