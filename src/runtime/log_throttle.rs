//! Log lines that repeat: the same one is let through once a minute, with a count of what was suppressed. Owns that rule. Must
//! never write a line itself.

use crate::ids::Now;
use std::time::Duration;

/// Allows the same message once a minute, with a count of the suppressed ones. Other messages in between do not change
/// that, nor does a success: a flapping fault counts as one message.
#[derive(Debug, Default)]
pub(crate) struct LogThrottle {
    /// The most recent one last.
    known: Vec<Known>,
    /// The minute in which lines are counted, and how many it had.
    minute: Option<(Now, u32)>,
    /// Held back because the minute had enough.
    suppressed: u32,
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
    suppressed: u32,
}

/// How long the same complaint is held back.
const AGAIN_AFTER: Duration = Duration::from_secs(60);
/// As often it is logged in this time if all was well in between.
const COMES_AND_GOES: u32 = 3;
/// Messages that are remembered; the least recent one is dropped first.
const KNOWN_MOST: usize = 32;
/// Maximum number of all messages per minute, for faults whose text changes each time.
const A_MINUTE_MOST: u32 = 20;

impl LogThrottle {
    /// Returns `Some(suppressed)` if this message is to be logged now, with the number suppressed since.
    pub(crate) fn allow(&mut self, complaint: &str, now: Now) -> Option<u32> {
        let known = self.known.iter().position(|known| known.text == complaint);
        let mut known = known.map_or_else(|| Known::new(complaint, now), |at| self.known.remove(at));
        if now.since(known.at) >= AGAIN_AFTER {
            known = Known { suppressed: known.suppressed, ..Known::new(complaint, now) };
        }
        let wanted = known.said == 0 || (known.over && known.said < COMES_AND_GOES);
        let said = wanted && self.minute_has_room(now);
        let suppressed = if said {
            (known.said, known.over) = (known.said + 1, false);
            std::mem::take(&mut known.suppressed) + std::mem::take(&mut self.suppressed)
        } else if wanted {
            self.suppressed += 1;
            0
        } else {
            known.suppressed += 1;
            0
        };
        // One that was never logged must not push out those that were.
        if known.said > 0 {
            if self.known.len() == KNOWN_MOST {
                self.known.remove(0);
            }
            self.known.push(known);
        }
        said.then_some(suppressed)
    }

    fn minute_has_room(&mut self, now: Now) -> bool {
        let (since, count) = self.minute.filter(|(since, _)| now.since(*since) < AGAIN_AFTER).unwrap_or((now, 0));
        let room = count < A_MINUTE_MOST;
        self.minute = Some((since, count + u32::from(room)));
        room
    }

    /// Reports a success: the next message counts as new, unless the fault is flapping.
    pub(crate) fn clear(&mut self) {
        for known in &mut self.known {
            known.over = true;
        }
    }
}

impl Known {
    fn new(text: &str, at: Now) -> Self {
        Self { text: text.to_owned(), at, over: false, said: 0, suppressed: 0 }
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
        let mut throttle = LogThrottle::default();
        assert_eq!(throttle.allow("down", at(0)), Some(0));
        assert_eq!(throttle.allow("down", at(1)), None);
        assert_eq!(throttle.allow("down", at(59)), None);
        assert_eq!(throttle.allow("down", at(60)), Some(2));
        assert_eq!(throttle.allow("refused", at(61)), Some(0));
        throttle.clear();
        assert_eq!(throttle.allow("refused", at(62)), Some(0));
    }

    /// How many of so many complaints a second are logged in ten minutes.
    fn logged(each_second: impl Fn(&mut LogThrottle, u64) -> Vec<Option<u32>>) -> (usize, u32) {
        let mut throttle = LogThrottle::default();
        let answers: Vec<_> = (0..600).flat_map(|s| each_second(&mut throttle, s)).collect();
        assert!(throttle.known.len() <= KNOWN_MOST);
        (answers.iter().flatten().count(), answers.iter().flatten().sum())
    }

    #[test]
    fn complaints_that_alternate_are_each_logged_once_a_minute() {
        let three = ["down", "refused", "no answer in time"];
        let (lines, suppressed) = logged(|throttle, s| three.map(|text| throttle.allow(text, at(s))).into());
        assert_eq!((lines, suppressed), (30, 3 * 9 * 59), "the last minute's are still held");
    }

    #[test]
    fn what_comes_and_goes_all_the_time_is_held_back_too() {
        let (lines, _) = logged(|throttle, s| {
            throttle.clear();
            vec![throttle.allow("down", at(s))]
        });
        assert_eq!(lines, 30);
    }

    #[test]
    fn texts_that_are_never_the_same_are_held_back_too() {
        let (lines, suppressed) =
            logged(|throttle, s| (0..5).map(|n| throttle.allow(&format!("{s}.{n}"), at(s))).collect());
        assert_eq!(lines, 200);
        assert!(suppressed > 2000, "{suppressed}");
    }
}
