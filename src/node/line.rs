//! The line of those who wait for their turn to ring, and when Redis is to hear of it. Owns the order, and how seldom it is
//! told: as a whole, so that nothing can be counted wrongly. Must never know why somebody waits.

use std::collections::VecDeque;
use std::time::Duration;

use crate::ids::{Now, SessionId};

/// A line is told no more often than this.
const TELL_EVERY: Duration = Duration::from_millis(100);
/// A line that begins is told after this: most are over by then, or have all of a burst.
const SETTLE: Duration = Duration::from_millis(20);

/// The line.
#[derive(Debug, Default)]
pub(super) struct Line {
    waiting: VecDeque<SessionId>,
    /// Redis may believe that somebody waits.
    told: bool,
    changed: bool,
    quiet_until: Now,
}

impl Line {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn first(&self) -> Option<SessionId> {
        self.waiting.front().copied()
    }

    pub(super) fn leave_first(&mut self) {
        self.changed |= self.waiting.pop_front().is_some();
    }

    /// To the end of it.
    pub(super) fn join(&mut self, id: SessionId, now: Now) {
        self.begin(now);
        self.waiting.push_back(id);
    }

    /// Back to the front: it was its turn already.
    pub(super) fn return_first(&mut self, id: SessionId, now: Now) {
        self.begin(now);
        self.waiting.push_front(id);
    }

    pub(super) fn leave(&mut self, id: SessionId) {
        let before = self.waiting.len();
        self.waiting.retain(|waiting| *waiting != id);
        self.changed |= self.waiting.len() != before;
    }

    /// Everybody leaves.
    pub(super) fn dissolve(&mut self) -> VecDeque<SessionId> {
        self.changed |= !self.waiting.is_empty();
        std::mem::take(&mut self.waiting)
    }

    /// Redis has been emptied; what was told may have come before or after that.
    pub(super) fn tell_again(&mut self) {
        (self.told, self.changed) = (true, true);
    }

    /// When there is something to tell.
    pub(super) fn due(&self) -> Option<Now> {
        let differs = self.changed && (self.told || !self.waiting.is_empty());
        differs.then_some(self.quiet_until)
    }

    /// What is to be told now, if anything is.
    pub(super) fn news(&mut self, now: Now) -> Option<Vec<SessionId>> {
        if self.due().is_none_or(|at| at > now) {
            return None;
        }
        (self.changed, self.told) = (false, !self.waiting.is_empty());
        self.quiet_until = now.after(TELL_EVERY);
        Some(self.waiting.iter().copied().collect())
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
        let mut line = Line::default();
        assert_eq!(line.due(), None, "Redis knows of nobody, and there is nobody");
        line.tell_again();
        assert_eq!(line.news(at(0)), Some(vec![]), "does it?");
        line.quiet_until = at(0);
        for id in ids(0..3) {
            line.join(id, at(5));
        }
        assert_eq!((line.due(), line.news(at(24))), (Some(at(25)), None));
        for _ in 0..3 {
            line.leave_first();
        }
        assert_eq!(line.due(), None, "over before it was told");

        for id in ids(0..4) {
            line.join(id, at(30));
        }
        assert_eq!(line.news(at(50)), Some(ids(0..4)));
        assert_eq!(line.due(), None);
        line.leave_first();
        line.leave(SessionId::from_bits(2));
        line.leave(SessionId::from_bits(77));
        assert_eq!((line.due(), line.news(at(149))), (Some(at(150)), None), "no more often than that");
        line.return_first(SessionId::from_bits(0), at(149));
        assert_eq!(line.news(at(150)), Some([ids(0..2), ids(3..4)].concat()));
        assert_eq!(line.dissolve().len(), 3);
        assert_eq!(line.news(at(300)), Some(vec![]), "that nobody waits is told as well");
        line.leave(SessionId::from_bits(1));
        assert_eq!((line.due(), line.is_empty(), line.first()), (None, true, None));
    }
}
