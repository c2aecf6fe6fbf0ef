//! The heartbeats of one daemon: their numbers, and the time that Redis should have. Pure. Owns the meaning of both on this
//! side; `heartbeat.lua` and `judge.lua` own the other. Must never read a clock or ask Redis.

use crate::ids::Now;

/// All heartbeats of one daemon, in order.
#[derive(Debug, Clone, Default)]
pub struct HeartbeatSequence {
    last: u64,
    /// The last answer, and our time when that was asked for.
    known: Option<(RedisTime, Now)>,
}

/// What time Redis has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RedisTime {
    /// In ms since 1970.
    pub ms: u64,
    /// How often daemons have put its clock right. Who has not heard of the last correction may know a wrong time.
    pub corrections: u64,
}

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// Its number, from 1. Once Redis has seen a higher one, a lower one that comes late changes nothing.
    pub number: u64,
    /// What time Redis should have, in ms; 0 if that is not known.
    pub expected: u64,
    /// By how many ms Redis's clock has gone wrong since the last answer.
    pub step: i64,
    /// How many corrections the expected time knows of.
    pub corrections: u64,
}

impl HeartbeatSequence {
    /// The next one.
    pub fn next(&mut self, now: Now) -> Sent {
        self.last += 1;
        let later = |then: Now| u64::try_from(now.since(then).as_millis()).unwrap_or(u64::MAX);
        let expected = self.known.map_or(0, |(redis, then)| redis.ms.saturating_add(later(then)));
        let corrections = self.known.map_or(0, |(redis, _)| redis.corrections);
        Sent { number: self.last, expected, step: 0, corrections }
    }

    /// The same once more, after Redis has said that it comes at the wrong time: `redis` is what time it has. `None`: it has
    /// said so twice.
    pub fn again(&mut self, sent: &Sent, redis: u64) -> Option<Sent> {
        if sent.step != 0 {
            return None;
        }
        self.last += 1;
        let step = i64::try_from(redis).unwrap_or(0).saturating_sub_unsigned(sent.expected);
        // Not late after all: a heartbeat with a higher number was there before it.
        let step = if sent.expected == 0 || step == 0 { 1 } else { step };
        // Who has only just heard the time is no witness of it.
        let corrections = if sent.expected == 0 { u64::MAX } else { sent.corrections };
        Some(Sent { number: self.last, expected: redis, step, corrections })
    }

    /// It was carried out at this time of Redis.
    pub fn answered(&mut self, redis: RedisTime, now: Now) {
        self.known = Some((redis, now));
    }

    /// The number of a message that all heartbeats so far must not come after.
    pub fn last_one(&mut self) -> u64 {
        self.last += 1;
        self.last
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(ms: u64) -> Now {
        Now(Duration::from_millis(ms))
    }

    #[test]
    fn the_time_of_redis_is_expected_by_the_last_answer() {
        let mut beats = HeartbeatSequence::default();
        assert_eq!(beats.next(at(5)), Sent { number: 1, expected: 0, step: 0, corrections: 0 });
        beats.answered(RedisTime { ms: 70_000, corrections: 4 }, at(5));
        let late = beats.next(at(1_005));
        assert_eq!(late, Sent { number: 2, expected: 71_000, step: 0, corrections: 4 });
        let again = beats.again(&late, 11_000).expect("once more");
        assert_eq!(again, Sent { number: 3, expected: 11_000, step: -60_000, corrections: 4 });
        assert_eq!(beats.again(&again, 11_000), None, "twice is enough");
        assert_eq!(beats.last_one(), 4);
    }
}
