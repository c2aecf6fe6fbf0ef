//! The one place that reads a clock. Owns the process's monotonic time. Must never know what time is used for.

use std::pin::Pin;
use std::time::Duration;

use crate::ids::Now;

/// A monotonic clock that starts at zero.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: tokio::time::Instant,
}

impl Clock {
    /// Starts now.
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    pub fn start() -> Self {
        Self { start: tokio::time::Instant::now() }
    }

    /// The present moment.
    pub fn now(&self) -> Now {
        Now(self.start.elapsed())
    }

    /// A moment as seconds since 1970, on this machine's clock: only for people and their tools.
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    pub(crate) fn unix_seconds(&self, at: Now) -> f64 {
        let ago = self.now().since(at);
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        since.saturating_sub(ago).as_secs_f64()
    }

    /// Waits until `at`; for ever if there is no such moment.
    pub(crate) async fn sleep_until(&self, at: Option<Now>) {
        match at {
            Some(at) => tokio::time::sleep_until(self.start + at.0).await,
            None => std::future::pending().await,
        }
    }

    /// A timer that is set again and again, mostly to a later moment.
    pub(crate) fn alarm(&self) -> Alarm {
        Alarm { start: self.start, sleep: Box::pin(tokio::time::sleep_until(self.start)), set: None }
    }

    /// Ticks every `period`; ticks that were missed are left out.
    pub(crate) fn every(&self, period: Duration) -> tokio::time::Interval {
        let mut interval = tokio::time::interval(period);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        interval
    }
}

/// What this host believes the time to be, in ms since 1970. Only to be compared with other clocks.
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
pub fn wall_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// See [`Clock::alarm`].
#[derive(Debug)]
pub(crate) struct Alarm {
    start: tokio::time::Instant,
    sleep: Pin<Box<tokio::time::Sleep>>,
    /// When it will ring.
    set: Option<Now>,
}

impl Alarm {
    /// Waits until `at`, for ever if there is no such moment. May return too early once when `at` was moved to a later
    /// moment since the last call: setting a timer costs more than looking at the clock once more.
    pub(crate) async fn ring(&mut self, at: Option<Now>) {
        let Some(at) = at else { return std::future::pending().await };
        if self.set.is_none_or(|set| set > at) {
            self.sleep.as_mut().reset(self.start + at.0);
            self.set = Some(at);
        }
        self.sleep.as_mut().await;
        self.set = None;
    }
}
