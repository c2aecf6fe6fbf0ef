//! The logins that wait because of pacing, and when their queue is reported to Redis. Owns the order and the rate of reports;
//! the queue is always reported as a whole, so that counts cannot go wrong. Must never know why a login waits.

use std::collections::VecDeque;
use std::time::Duration;

use crate::ids::{Now, SessionId};

/// Minimum interval between two reports.
const TELL_EVERY: Duration = Duration::from_millis(100);
/// Delay of the first report: most queues are over by then, or contain the whole burst.
const SETTLE: Duration = Duration::from_millis(20);

/// The queue.
#[derive(Debug, Default)]
pub(super) struct RingQueue {
    /// With the moment at which each was placed.
    waiting: VecDeque<(SessionId, Now)>,
    /// Redis may still have a queue recorded.
    told: bool,
    changed: bool,
    quiet_until: Now,
}

impl RingQueue {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn first(&self) -> Option<SessionId> {
        self.waiting.front().map(|(id, _)| *id)
    }

    pub(super) fn leave_first(&mut self) {
        self.changed |= self.waiting.pop_front().is_some();
    }

    /// To the end of it. `placed`: when it was placed.
    pub(super) fn join(&mut self, id: SessionId, placed: Now, now: Now) {
        self.begin(now);
        self.waiting.push_back((id, placed));
    }

    /// Back to the front: it was its turn already.
    pub(super) fn return_first(&mut self, id: SessionId, now: Now) {
        self.begin(now);
        self.waiting.push_front((id, now));
    }

    pub(super) fn leave(&mut self, id: SessionId) {
        let before = self.waiting.len();
        self.waiting.retain(|(waiting, _)| *waiting != id);
        self.changed |= self.waiting.len() != before;
    }

    /// Everybody leaves.
    pub(super) fn dissolve(&mut self) -> Vec<SessionId> {
        self.dissolve_older(Now(Duration::MAX))
    }

    /// Those leave who were placed before `then`.
    pub(super) fn dissolve_older(&mut self, then: Now) -> Vec<SessionId> {
        let (old, young): (VecDeque<_>, _) = self.waiting.drain(..).partition(|(_, placed)| *placed < then);
        self.waiting = young;
        self.changed |= !old.is_empty();
        old.into_iter().map(|(id, _)| id).collect()
    }

    /// Redis lost its data; the last report may have come before or after that.
    pub(super) fn tell_again(&mut self) {
        (self.told, self.changed) = (true, true);
    }

    /// When the next report is due.
    pub(super) fn due(&self) -> Option<Now> {
        let differs = self.changed && (self.told || !self.waiting.is_empty());
        differs.then_some(self.quiet_until)
    }

    /// The report that is due now, if any.
    pub(super) fn news(&mut self, now: Now) -> Option<Vec<SessionId>> {
        if self.due().is_none_or(|at| at > now) {
            return None;
        }
        (self.changed, self.told) = (false, !self.waiting.is_empty());
        self.quiet_until = now.after(TELL_EVERY);
        Some(self.waiting.iter().map(|(id, _)| *id).collect())
    }

    fn begin(&mut self, now: Now) {
        self.changed = true;
        if self.waiting.is_empty() {
            self.quiet_until = self.quiet_until.max(now.after(SETTLE));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Now {
        Now(Duration::from_millis(ms))
    }

    fn ids(range: std::ops::Range<u64>) -> Vec<SessionId> {
        range.map(SessionId::from_bits).collect()
    }

    #[test]
    fn a_line_is_told_whole_and_seldom_and_not_at_all_when_it_is_over_at_once() {
        let mut queue = RingQueue::default();
        assert_eq!(queue.due(), None, "Redis knows of nobody, and there is nobody");
        queue.tell_again();
        assert_eq!(queue.news(at(0)), Some(vec![]), "does it?");
        queue.quiet_until = at(0);
        for id in ids(0..3) {
            queue.join(id, at(1), at(5));
        }
        assert_eq!((queue.due(), queue.news(at(24))), (Some(at(25)), None));
        for _ in 0..3 {
            queue.leave_first();
        }
        assert_eq!(queue.due(), None, "over before it was told");

        for id in ids(0..4) {
            queue.join(id, at(30), at(30));
        }
        assert_eq!(queue.news(at(50)), Some(ids(0..4)));
        assert_eq!(queue.due(), None);
        queue.leave_first();
        queue.leave(SessionId::from_bits(2));
        queue.leave(SessionId::from_bits(77));
        assert_eq!((queue.due(), queue.news(at(149))), (Some(at(150)), None), "no more often than that");
        queue.return_first(SessionId::from_bits(0), at(149));
        assert_eq!(queue.news(at(150)), Some([ids(0..2), ids(3..4)].concat()));
        assert_eq!(queue.dissolve().len(), 3);
        assert_eq!(queue.news(at(300)), Some(vec![]), "that nobody waits is told as well");
        queue.leave(SessionId::from_bits(1));
        assert_eq!((queue.due(), queue.is_empty(), queue.first()), (None, true, None));
    }
}
