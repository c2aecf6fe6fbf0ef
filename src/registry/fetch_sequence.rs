//! The numbers of a daemon's fetches: a fetch whose reply was lost is answered again. Pure. Owns their meaning on this side;
//! `fetch_orders.lua` owns the other. Must never ask Redis.

/// All fetches of one daemon, in order. The next generation starts again at 1.
#[derive(Debug, Clone, Default)]
pub struct FetchSequence {
    last: u64,
    answered: u64,
}

/// One fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fetch {
    /// Its number, from 1. Once Redis has seen a higher one, a lower one that comes late takes nothing.
    pub number: u64,
    /// The first fetch without a reply, or this one: orders taken since then are delivered again.
    pub since: u64,
}

impl FetchSequence {
    /// The next fetch. A fetch that fails may still have been, or may still be, carried out.
    pub fn ask(&mut self) -> Fetch {
        self.last += 1;
        Fetch { number: self.last, since: self.answered + 1 }
    }

    /// The reply to the newest fetch has come: all orders taken until now are known.
    pub fn hear(&mut self) {
        self.answered = self.last;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_answered_is_asked_for_until_an_answer_comes() {
        let mut fetches = FetchSequence::default();
        assert_eq!(fetches.ask(), Fetch { number: 1, since: 1 });
        fetches.hear();
        assert_eq!(fetches.ask(), Fetch { number: 2, since: 2 });
        assert_eq!(fetches.ask(), Fetch { number: 3, since: 2 });
        fetches.hear();
        assert_eq!(fetches.ask(), Fetch { number: 4, since: 4 });
    }
}
