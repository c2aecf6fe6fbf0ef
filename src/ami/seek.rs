//! A search that goes on where it stopped.
//!
//! Owns how far a buffer was searched, so that bytes that come in small pieces are looked at once. Must never know what is
//! searched for.

use memchr::memmem;

/// How far ahead a rare needle is looked for.
const AHEAD_BYTES: usize = 2 << 10;

/// One needle, and how far it was looked for in a buffer that grows at its end and shrinks at its front.
#[derive(Debug)]
pub(super) struct Seek {
    finder: memmem::Finder<'static>,
    /// Where the needle is, or before which it is not.
    at: usize,
    hit: bool,
}

impl Seek {
    pub(super) fn new(needle: &'static [u8]) -> Self {
        Self { finder: memmem::Finder::new(needle), at: 0, hit: false }
    }

    /// Where the needle is, not before `from`. From one call to the next, `from` must not fall, and the buffer may only
    /// grow, but for what [`Seek::taken`] is told of.
    #[inline]
    pub(super) fn find(&mut self, buf: &[u8], from: usize) -> Option<usize> {
        if self.at < from {
            self.at = from;
            self.hit = false;
        }
        if !self.hit {
            self.search(buf);
        }
        self.hit.then_some(self.at)
    }

    /// As [`Seek::find`], for a needle that is rare: only before `to`, but it is looked for further on in the same go, so
    /// that most calls find out without a search. Not much further: those bytes are to be at hand when they are read.
    #[inline]
    pub(super) fn find_rare(&mut self, buf: &[u8], from: usize, to: usize) -> Option<usize> {
        if self.at < from {
            self.at = from;
            self.hit = false;
        }
        let length = self.finder.needle().len();
        if !self.hit && self.at + length <= to {
            self.search(buf.get(..to.max(self.at + AHEAD_BYTES)).unwrap_or(buf));
        }
        (self.hit && self.at + length <= to).then_some(self.at)
    }

    fn search(&mut self, buf: &[u8]) {
        let rest = buf.get(self.at..).unwrap_or_default();
        match self.finder.find(rest) {
            Some(offset) => {
                self.at += offset;
                self.hit = true;
            }
            None => self.at += (rest.len() + 1).saturating_sub(self.finder.needle().len()),
        }
    }

    /// `count` bytes are gone from the front of the buffer.
    #[inline]
    pub(super) fn taken(&mut self, count: usize) {
        self.hit &= self.at >= count;
        self.at = self.at.saturating_sub(count);
    }
}
