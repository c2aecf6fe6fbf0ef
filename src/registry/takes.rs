//! The numbers of a daemon's takes, by which an answer that was lost on its way is given again. Pure. Owns what they mean
//! on this side; `take.lua` owns the other. Must never ask Redis.

/// All takes of one daemon, in order. The next generation begins again.
#[derive(Debug, Clone, Default)]
pub struct Takes {
    last: u64,
    answered: u64,
}

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Take {
    /// Its number, from 1. Once Redis has seen a higher one, a lower one that comes late takes nothing.
    pub number: u64,
    /// The first one whose answer did not come, or this one: what was taken since then is handed out again.
    pub since: u64,
}

impl Takes {
    /// The next one. A take that fails may have been carried out, or may be so later.
    pub fn ask(&mut self) -> Take {
        self.last += 1;
        Take { number: self.last, since: self.answered + 1 }
    }

    /// The answer to the newest has come: whatever was taken until now is known.
    pub fn hear(&mut self) {
        self.answered = self.last;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_answered_is_asked_for_until_an_answer_comes() {
        let mut takes = Takes::default();
        assert_eq!(takes.ask(), Take { number: 1, since: 1 });
        takes.hear();
        assert_eq!(takes.ask(), Take { number: 2, since: 2 });
        assert_eq!(takes.ask(), Take { number: 3, since: 2 });
        takes.hear();
        assert_eq!(takes.ask(), Take { number: 4, since: 4 });
    }
}
