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

/// Lets the same complaint through once a minute, with a count of what was held back. Others in between change nothing
/// about that, nor does a success: what comes and goes all the time is one complaint, too.
#[derive(Debug, Default)]
pub(crate) struct Repeats {
    /// The most recent one last.
    known: Vec<Known>,
    /// The minute in which lines are counted, and how many it had.
    minute: Option<(Now, u32)>,
    /// Held back because the minute had enough.
    held: u32,
}

/// One complaint that was logged.
#[derive(Debug)]
struct Known {
    text: String,
    /// When it was new.
    at: Now,
    /// All was well since it was logged.
    over: bool,
    /// How often it was logged since `at`.
    said: u32,
    held: u32,
}

/// How long the same complaint is held back.
const AGAIN_AFTER: Duration = Duration::from_secs(60);
/// As often it is logged in this time if all was well in between.
const COMES_AND_GOES: u32 = 3;
/// Complaints that are known; the one that was not heard for longest makes room.
const KNOWN_MOST: usize = 32;
/// Complaints of all kinds in a minute: one that has another text each time is held back as well.
const A_MINUTE_MOST: u32 = 20;

impl Repeats {
    /// `Some(how many were held back since)` if this complaint is to be logged now.
    pub(crate) fn allow(&mut self, complaint: &str, now: Now) -> Option<u32> {
        let known = self.known.iter().position(|known| known.text == complaint);
        let mut known = known.map_or_else(|| Known::new(complaint, now), |at| self.known.remove(at));
        if now.since(known.at) >= AGAIN_AFTER {
            known = Known { held: known.held, ..Known::new(complaint, now) };
        }
        let wanted = known.said == 0 || (known.over && known.said < COMES_AND_GOES);
        let said = wanted && self.minute_has_room(now);
        let held = if said {
            (known.said, known.over) = (known.said + 1, false);
            std::mem::take(&mut known.held) + std::mem::take(&mut self.held)
        } else if wanted {
            self.held += 1;
            0
        } else {
            known.held += 1;
            0
        };
        // One that was never logged must not push out those that were.
        if known.said > 0 {
            if self.known.len() == KNOWN_MOST {
                self.known.remove(0);
            }
            self.known.push(known);
        }
        said.then_some(held)
    }

    fn minute_has_room(&mut self, now: Now) -> bool {
        let (since, count) = self.minute.filter(|(since, _)| now.since(*since) < AGAIN_AFTER).unwrap_or((now, 0));
        let room = count < A_MINUTE_MOST;
        self.minute = Some((since, count + u32::from(room)));
        room
    }

    /// All is well: the next complaint is a new one, unless that happens all the time.
    pub(crate) fn clear(&mut self) {
        for known in &mut self.known {
            known.over = true;
        }
    }
}

impl Known {
    fn new(text: &str, at: Now) -> Self {
        Self { text: text.to_owned(), at, over: false, said: 0, held: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: u64) -> Now {
        Now(Duration::from_secs(s))
    }

    #[test]
    fn the_same_complaint_is_logged_once_a_minute_with_a_count() {
        let mut repeats = Repeats::default();
        assert_eq!(repeats.allow("down", at(0)), Some(0));
        assert_eq!(repeats.allow("down", at(1)), None);
        assert_eq!(repeats.allow("down", at(59)), None);
        assert_eq!(repeats.allow("down", at(60)), Some(2));
        assert_eq!(repeats.allow("refused", at(61)), Some(0));
        repeats.clear();
        assert_eq!(repeats.allow("refused", at(62)), Some(0));
    }

    /// How many of so many complaints a second are logged in ten minutes.
    fn logged(each_second: impl Fn(&mut Repeats, u64) -> Vec<Option<u32>>) -> (usize, u32) {
        let mut repeats = Repeats::default();
        let answers: Vec<_> = (0..600).flat_map(|s| each_second(&mut repeats, s)).collect();
        assert!(repeats.known.len() <= KNOWN_MOST);
        (answers.iter().flatten().count(), answers.iter().flatten().sum())
    }

    #[test]
    fn complaints_that_alternate_are_each_logged_once_a_minute() {
        let three = ["down", "refused", "no answer in time"];
        let (lines, held) = logged(|repeats, s| three.map(|text| repeats.allow(text, at(s))).into());
        assert_eq!((lines, held), (30, 3 * 9 * 59), "the last minute's are still held");
    }

    #[test]
    fn what_comes_and_goes_all_the_time_is_held_back_too() {
        let (lines, _) = logged(|repeats, s| {
            repeats.clear();
            vec![repeats.allow("down", at(s))]
        });
        assert_eq!(lines, 30);
    }

    #[test]
    fn texts_that_are_never_the_same_are_held_back_too() {
        let (lines, held) = logged(|repeats, s| (0..5).map(|n| repeats.allow(&format!("{s}.{n}"), at(s))).collect());
        assert_eq!(lines, 200);
        assert!(held > 2000, "{held}");
    }
}
