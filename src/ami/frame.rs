//! Bytes to messages: where a message ends.
//!
//! Owns boundaries, limits and the greeting. Must never know what a header means, and never guesses: a stream that breaks
//! a limit gives an error and no further message.
//!
//! The rules, all of which real servers need. The greeting decides about line ends. If it ends with CRLF, as Asterisk's does, then
//! only CRLF ends a line and only an empty line so ended ends a message: a bare LF, also two of them, is part of a value,
//! and values hold what callers send. If it ends with a bare LF, a line ends at LF, and one CR before it belongs to the line end.
//! Either way: empty lines before a message are skipped (some events have one too many); values are bytes, not text, and may hold
//! a bare CR; an old answer to `Command` (`Response: Follows`, Asterisk 13 and before) ends at its end mark and nowhere else.

use bytes::{Buf, BytesMut};
use memchr::{memchr, memchr_iter, memmem};
use nom::bytes::complete::{tag, take_while1};
use nom::combinator::all_consuming;
use nom::sequence::preceded;
use nom::{IResult, Parser};

pub use super::limits::{FrameError, Limits};
use super::message::{END_OF_OUTPUT, first_line, is_follows, without_cr};
pub use super::message::{Frame, Headers, LineEnd, Message};
use super::seek::Seek;

/// Bytes of a first line that are shown when it is not a banner.
const SHOWN_BYTES: usize = 48;

/// What a stream consists of: one banner, then messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// The first line.
    Banner(Banner),
    /// All that follows.
    Message(Message),
}

/// As [`Item`], borrowed from the buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part<'a> {
    /// The first line: the version in it.
    Banner(&'a [u8]),
    /// All that follows.
    Message(Frame<'a>),
    /// More bytes are needed.
    More,
}

/// The line with which Asterisk greets, e.g. `Asterisk Call Manager/11.0.0`. It is the version of the interface:
/// Asterisk 16 says 5.0.4, Asterisk 22 says 11.0.0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Banner {
    /// What stands behind the slash: digits and dots.
    pub version: String,
}

/// Where in a buffer something was found.
struct Found {
    from: usize,
    to: usize,
}

/// Cuts a stream into items. One for each connection. It remembers how far it looked, so no byte is searched twice
/// however small the pieces are in which it arrives.
#[derive(Debug)]
pub struct Splitter {
    limits: Limits,
    greeted: bool,
    ends: LineEnd,
    failed: Option<FrameError>,
    /// The end of a message where lines end with CRLF.
    empty_line: Seek,
    /// The ends of a message where lines end with LF.
    crlf: Seek,
    lf: Seek,
    /// The end of an old answer to `Command`.
    mark: Seek,
    wanted: Option<fn(&[u8]) -> bool>,
    /// In the middle of an event that is left out, of which the beginning is gone.
    dropping: bool,
    skipped: u64,
}

impl Splitter {
    /// A splitter for a stream that begins with its banner.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            greeted: false,
            ends: LineEnd::CrLf,
            failed: None,
            empty_line: Seek::new(b"\r\n\r\n"),
            crlf: Seek::new(b"\n\r\n"),
            lf: Seek::new(b"\n\n"),
            mark: Seek::new(END_OF_OUTPUT),
            wanted: None,
            dropping: false,
            skipped: 0,
        }
    }

    /// A splitter for a stream that begins after its banner, which ended so.
    pub fn without_banner(limits: Limits, ends: LineEnd) -> Self {
        Self { greeted: true, ends, ..Self::new(limits) }
    }

    /// Leaves out events whose name `wanted` refuses, without making a message of them. Only messages that begin with
    /// `Event:` are asked about, so answers always pass; names of list items must be accepted by `wanted`.
    #[must_use]
    pub fn only(mut self, wanted: fn(&[u8]) -> bool) -> Self {
        self.wanted = Some(wanted);
        self
    }

    /// How many events [`Splitter::only`] has left out so far.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Takes the next item from the front of `buf`; `None` when more bytes are needed. Between calls the caller may only append
    /// to `buf`. After an error, every call gives that error. A message shares the memory of `buf`: nothing is copied.
    pub fn next(&mut self, buf: &mut BytesMut) -> Result<Option<Item>, FrameError> {
        let greeted = self.greeted;
        let (used, found) = self.find(buf)?;
        let Some(Found { from, to }) = found else {
            buf.advance(used);
            return Ok(None);
        };
        if !greeted {
            let version = String::from_utf8_lossy(&buf[from..to]).into_owned();
            buf.advance(used);
            return Ok(Some(Item::Banner(Banner { version })));
        }
        buf.advance(from);
        let bytes = buf.split_to(to - from).freeze();
        buf.advance(used - to);
        Ok(Some(Item::Message(Message::with(bytes, self.ends))))
    }

    /// As [`Splitter::next`], without taking anything: gives what was found, and how many bytes at the front of `buf` are
    /// done with. The next call must be with what follows them.
    pub fn part<'a>(&mut self, buf: &'a [u8]) -> Result<(usize, Part<'a>), FrameError> {
        let greeted = self.greeted;
        let (used, found) = self.find(buf)?;
        let part = match found {
            None => Part::More,
            Some(Found { from, to }) if greeted => Part::Message(Frame::new(&buf[from..to], self.ends)),
            Some(Found { from, to }) => Part::Banner(&buf[from..to]),
        };
        Ok((used, part))
    }

    /// The next thing, and how many bytes are done with.
    fn find(&mut self, buf: &[u8]) -> Result<(usize, Option<Found>), FrameError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let found = if self.greeted { self.message(buf) } else { self.banner(buf) };
        match found {
            Ok((used, found)) => {
                self.empty_line.taken(used);
                self.crlf.taken(used);
                self.lf.taken(used);
                self.mark.taken(used);
                Ok((used, found))
            }
            Err(error) => {
                self.failed = Some(error.clone());
                Err(error)
            }
        }
    }

    fn banner(&mut self, buf: &[u8]) -> Result<(usize, Option<Found>), FrameError> {
        let seen = buf.get(..self.limits.banner_bytes).unwrap_or(buf);
        let Some(end) = memchr(b'\n', seen) else {
            return if seen.len() < self.limits.banner_bytes { Ok((0, None)) } else { Err(not_ami(seen)) };
        };
        let line = without_cr(&seen[..end]);
        let Ok((_, version)) = banner_line(line) else { return Err(not_ami(line)) };
        self.greeted = true;
        self.ends = if line.len() < end { LineEnd::CrLf } else { LineEnd::Lf };
        let (from, to) = (line.len() - version.len(), line.len());
        Ok((end + 1, Some(Found { from, to })))
    }

    fn message(&mut self, buf: &[u8]) -> Result<(usize, Option<Found>), FrameError> {
        let mut at = 0;
        loop {
            if !self.dropping {
                at = after_empty_lines(buf, at);
            }
            let Some((to, used)) = self.end(buf, at) else { return self.unfinished(buf, at).map(|at| (at, None)) };
            let message = &buf[at..to];
            if std::mem::take(&mut self.dropping) || self.is_hangup_requested(message) {
                self.skipped += 1;
                at = used;
                continue;
            }
            self.check(message)?;
            return Ok((used, Some(Found { from: at, to })));
        }
    }

    /// Where the message that begins at `at` ends, and where the next may begin.
    fn end(&mut self, buf: &[u8], at: usize) -> Option<(usize, usize)> {
        let (to, used) = match self.ends {
            LineEnd::CrLf => self.empty_line.find(buf, at).map(|end| (end + 2, end + 4)),
            LineEnd::Lf => self.empty_line_by_lf(buf, at),
        }?;
        if !self.dropping && buf.get(at) == Some(&b'R') && is_follows(&buf[at..to], self.ends) {
            return self.end_of_output(buf, at);
        }
        Some((to, used))
    }

    fn empty_line_by_lf(&mut self, buf: &[u8], at: usize) -> Option<(usize, usize)> {
        let crlf = self.crlf.find(buf, at);
        let before = crlf.map_or(buf.len(), |crlf| crlf + 1);
        match (crlf, self.lf.find_rare(buf, at, before)) {
            (Some(_) | None, Some(lf)) => Some((lf + 1, lf + 2)),
            (Some(crlf), None) => Some((crlf + 1, crlf + 3)),
            (None, None) => None,
        }
    }

    /// The end of an old answer to `Command`: its mark, then an empty line. Whatever the output holds besides is output.
    fn end_of_output(&mut self, buf: &[u8], at: usize) -> Option<(usize, usize)> {
        let mut from = at;
        loop {
            let end = self.mark.find(buf, from)? + END_OF_OUTPUT.len();
            let to = self.line_end(buf, end)?;
            match to.map(|to| self.line_end(buf, to)) {
                Some(Some(Some(used))) => return to.map(|to| (to, used)),
                Some(None) => return None,
                Some(Some(None)) | None => from = end,
            }
        }
    }

    /// What follows the line end at `at`: `None` if that is not known yet, `Some(None)` if there is no line end.
    fn line_end(&self, buf: &[u8], at: usize) -> Option<Option<usize>> {
        let cr = *buf.get(at)? == b'\r';
        if !cr && self.ends == LineEnd::CrLf {
            return Some(None);
        }
        let at = at + usize::from(cr);
        Some((*buf.get(at)? == b'\n').then_some(at + 1))
    }

    /// A message of which the end has not come: fine as long as it could still keep within the limit. Its last bytes
    /// may be the beginning of the end (`\r\n\r`), so one byte less than what is there is sure to belong to it. Gives what
    /// is done with: of an event that is left out, all but those last bytes.
    fn unfinished(&mut self, buf: &[u8], at: usize) -> Result<usize, FrameError> {
        let rest = buf.get(at..).unwrap_or_default();
        if self.dropping || self.is_hangup_requested(rest) {
            self.dropping = true;
            return Ok(at.max(buf.len().saturating_sub(3)));
        }
        let limit_bytes = self.limits.message_bytes;
        if rest.len() > limit_bytes.saturating_add(1) {
            return Err(FrameError::MessageTooLong { limit_bytes });
        }
        Ok(at)
    }

    fn check(&self, message: &[u8]) -> Result<(), FrameError> {
        let limit_bytes = self.limits.message_bytes;
        if message.len() > limit_bytes {
            return Err(FrameError::MessageTooLong { limit_bytes });
        }
        // A line has a byte or more, so that a message of ordinary length need not be counted.
        if message.len() > self.limits.headers {
            let count = match self.ends {
                LineEnd::CrLf => memmem::find_iter(message, b"\r\n").count(),
                LineEnd::Lf => memchr_iter(b'\n', message).count(),
            };
            if count > self.limits.headers {
                return Err(FrameError::TooManyHeaders { count, limit: self.limits.headers });
            }
        }
        Ok(())
    }

    /// Asks about a message, or about the beginning of one. A name that ends beyond the limit is never looked at, whole or in
    /// pieces: see [`Splitter::unfinished`].
    fn is_hangup_requested(&self, message: &[u8]) -> bool {
        let (Some(wanted), Some(name)) = (self.wanted, message.strip_prefix(b"Event: ")) else { return false };
        let most = self.limits.message_bytes.saturating_add(2).saturating_sub(b"Event: ".len());
        let name = name.get(..most).unwrap_or(name);
        first_line(name, self.ends).is_some_and(|(line, _)| !wanted(line))
    }
}

/// Nothing but empty lines may be passed over here: `\r` alone may still become a line with something in it.
fn after_empty_lines(buf: &[u8], mut at: usize) -> usize {
    loop {
        at += match buf.get(at) {
            Some(b'\n') => 1,
            Some(b'\r') if buf.get(at + 1) == Some(&b'\n') => 2,
            Some(_) | None => return at,
        };
    }
}

/// `"Asterisk Call Manager/" version`, and nothing after it.
fn banner_line(line: &[u8]) -> IResult<&[u8], &[u8]> {
    let version = take_while1(|byte: u8| byte.is_ascii_digit() || byte == b'.');
    all_consuming(preceded(tag("Asterisk Call Manager/"), version)).parse(line)
}

fn not_ami(line: &[u8]) -> FrameError {
    let mut shown = line.iter().take(SHOWN_BYTES).copied().collect::<Vec<u8>>().escape_ascii().to_string();
    if line.len() > SHOWN_BYTES {
        shown.push('…');
    }
    FrameError::NotAmi { shown }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BANNER: &str = "Asterisk Call Manager/11.0.0\r\n";
    const BANNER_LF: &str = "Asterisk Call Manager/11.0.0\n";

    type Pairs = Vec<(String, String)>;

    fn pairs(message: &Message) -> Pairs {
        let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
        message.headers().map(|(name, value)| (text(name), text(value))).collect()
    }

    /// Whole and byte by byte; both must agree.
    fn split(limits: Limits, stream: &[u8]) -> Result<Vec<Pairs>, FrameError> {
        let run = |step: usize| {
            let mut splitter = Splitter::new(limits);
            let (mut buf, mut found) = (BytesMut::new(), Vec::new());
            for piece in stream.chunks(step) {
                buf.extend_from_slice(piece);
                while let Some(item) = splitter.next(&mut buf)? {
                    match item {
                        Item::Banner(banner) => assert_eq!(banner.version, "11.0.0"),
                        Item::Message(message) => found.push(pairs(&message)),
                    }
                }
            }
            Ok(found)
        };
        let whole = run(stream.len());
        assert_eq!(whole, run(1), "{:?}", stream.escape_ascii().to_string());
        whole
    }

    #[track_caller]
    fn check(stream: &[u8], expected: &[&[(&str, &str)]]) {
        check_after(BANNER, stream, expected);
    }

    /// Of a peer that greets with a bare LF.
    #[track_caller]
    fn check_lf(stream: &[u8], expected: &[&[(&str, &str)]]) {
        check_after(BANNER_LF, stream, expected);
    }

    #[track_caller]
    fn check_after(banner: &str, stream: &[u8], expected: &[&[(&str, &str)]]) {
        let stream = [banner.as_bytes(), stream].concat();
        let expected: Vec<Pairs> = expected
            .iter()
            .map(|message| message.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect())
            .collect();
        assert_eq!(split(Limits::DEFAULT, &stream), Ok(expected));
    }

    #[test]
    fn line_ends_of_every_kind_keep_messages_apart() {
        let two: &[&[(&str, &str)]] = &[&[("A", "1"), ("B", "2")], &[("C", "3")]];
        check_lf(b"A: 1\r\nB: 2\r\n\r\nC: 3\r\n\r\n", two);
        check_lf(b"A: 1\r\nB: 2\r\n\nC: 3\r\n\r\n", two);
        check_lf(b"A: 1\nB: 2\n\nC: 3\n\n", two);
        check_lf(b"A: 1\nB: 2\n\r\nC: 3\n\n", two);
        check_lf(b"\r\n\n\r\nA: 1\r\nB: 2\r\n\r\n\r\n\n\r\nC: 3\r\n\r\n\r\n", two);
        check(b"A: 1\r\nB: 2\r\n\r\nC: 3\r\n\r\n", two);
        check(b"\r\n\n\r\nA: 1\r\nB: 2\r\n\r\n\r\n\n\r\nC: 3\r\n\r\n\r\n", two);
        check(b"A: 1\r\n\nB: 2\r\n\r\n\nC: 3\r\n\r\n", two);
    }

    #[test]
    fn after_a_greeting_with_crlf_a_bare_lf_belongs_to_its_value() {
        check(b"A: 1\nB: 2\r\nC: 3\n\r\n\r\nD: 4\r\n\r\n", &[&[("A", "1\\nB: 2"), ("C", "3\\n")], &[("D", "4")]]);
        let forged = b"Event: Status\r\nData: x\n\nEvent: Shutdown\n\n\r\nUniqueid: 1\r\n\r\n";
        let data = "x\\n\\nEvent: Shutdown\\n\\n";
        check(forged, &[&[("Event", "Status"), ("Data", data), ("Uniqueid", "1")]]);
        check(b"A: 1\n\n", &[]);
        check(b"A: 1\n\r\nB: \n\r\n\r\n", &[&[("A", "1\\n"), ("B", "\\n")]]);
        check(b"no\ncolon\r\na\nb: c\r\n\r\n", &[&[("", "no\\ncolon"), ("a\\nb", "c")]]);
    }

    #[test]
    fn values_are_kept_as_they_are() {
        check(b"K:x\r\nK:\r\nK: \r\nK:  x \r\n\r\n", &[&[("K", "x"), ("K", ""), ("K", ""), ("K", " x ")]]);
        check(b"K: a: b\r\nno colon\r\n: v\r\n\r\n", &[&[("K", "a: b"), ("", "no colon"), ("", "v")]]);
        check(b"K: a\rb\r\r\n\xff\xe9: \x01\t\x00\r\n\r\n", &[&[("K", "a\\rb\\r"), ("\\xff\\xe9", "\\x01\\t\\x00")]]);
        check(b"\rA: 1\r\n\r\r\nB: 2\r\n\r\n", &[&[("\\rA", "1"), ("", "\\r"), ("B", "2")]]);
    }

    #[test]
    fn what_is_not_finished_is_not_shown() {
        check(b"A: 1\r\n\r\nB: 2\r\n", &[&[("A", "1")]]);
        check(b"A: 1\r\n\r", &[]);
    }

    #[test]
    fn another_service_is_named_and_stays_refused() {
        let mut splitter = Splitter::new(Limits::DEFAULT);
        let mut buf = BytesMut::from("SSH-2.0-OpenSSH_9.6\x1b[2J\r\nAsterisk Call Manager/11.0.0\r\n");
        let error = splitter.next(&mut buf).expect_err("not AMI");
        assert_eq!(error, FrameError::NotAmi { shown: "SSH-2.0-OpenSSH_9.6\\x1b[2J".into() });
        assert_eq!(splitter.next(&mut buf), Err(error));
        for line in ["", "Asterisk Call Manager/\r\n", "Asterisk Call Manager/1.x\r\n", "HTTP/1.1 400 Bad Request\r\n"]
        {
            let line = if line.is_empty() { "x".repeat(256) } else { line.to_owned() };
            assert!(matches!(split(Limits::DEFAULT, line.as_bytes()), Err(FrameError::NotAmi { .. })), "{line}");
        }
    }

    #[test]
    fn limits_end_the_stream_wherever_it_is_cut() {
        let limits = Limits { message_bytes: 20, headers: 4, ..Limits::DEFAULT };
        let of = |message: &str| split(limits, format!("{BANNER}{message}").as_bytes());
        assert_eq!(of("K: 6789012345678X\n\r\n\r\n").map(|found| found.len()), Ok(1));
        assert_eq!(of("K: 67890123456789X\n\r\n\r\n"), Err(FrameError::MessageTooLong { limit_bytes: 20 }));
        assert_eq!(of("a\r\nb\nc\nd\ne\nf\r\n\r\n").map(|found| found.len()), Ok(1));
        assert_eq!(of("a\r\nb\r\nc\r\nd\r\ne\r\n\r\n"), Err(FrameError::TooManyHeaders { count: 5, limit: 4 }));
        assert_eq!(of(&"x".repeat(22)), Err(FrameError::MessageTooLong { limit_bytes: 20 }));
        let of = |message: &str| split(limits, format!("{BANNER_LF}{message}").as_bytes());
        assert_eq!(of("K: 6789012345678\r\nX\n\r\n").map(|found| found.len()), Ok(1));
        assert_eq!(of("K: 67890123456789\r\nX\n\r\n"), Err(FrameError::MessageTooLong { limit_bytes: 20 }));
        assert_eq!(of(&"x".repeat(22)), Err(FrameError::MessageTooLong { limit_bytes: 20 }));
        assert_eq!(of("a\nb\nc\nd\n\n").map(|found| found.len()), Ok(1));
        assert_eq!(of("a\nb\nc\nd\ne\n\n"), Err(FrameError::TooManyHeaders { count: 5, limit: 4 }));
    }

    #[test]
    fn an_old_answer_to_a_command_ends_at_its_mark_only() {
        let head: &[(&str, &str)] = &[("Response", "Follows"), ("Privilege", "Command"), ("ActionID", "7")];
        let expected =
            |output: &[&'static str]| [head, &output.iter().map(|line| ("Output", *line)).collect::<Vec<_>>()].concat();
        let text = "Response: Follows\r\nPrivilege: Command\r\nActionID: 7\r\n";
        let lf = format!("{text}a: 1\n\nActionID: 8\n--END COMMAND--\r\n\r\nB: 2\r\n\r\n");
        check(lf.as_bytes(), &[&expected(&["a: 1", "", "ActionID: 8"]), &[("B", "2")]]);
        let crlf = format!("{text}x\r\n\r\nEvent: Fake\r\n\r\n--END COMMAND--\r\nlast--END COMMAND--\r\n\r\n");
        check(crlf.as_bytes(), &[&expected(&["x", "", "Event: Fake", "", "--END COMMAND--", "last"])]);
        check_lf(format!("{text}--END COMMAND--\n\n").as_bytes(), &[&expected(&[])]);
        let marked = format!("{text}Message: a\n--END COMMAND--\n\nx\n--END COMMAND--\r\n\r\n");
        check(marked.as_bytes(), &[&expected(&["Message: a", "--END COMMAND--", "", "x"])]);
        check(b"Response: Follows\r\n\r\nEvent: A\r\n\r\n", &[]);
        check(b"Response: Followsx\r\n\r\n", &[&[("Response", "Followsx")]]);
    }

    #[test]
    fn without_a_banner_the_caller_says_how_lines_end() {
        let first = |ends| {
            let mut buf = BytesMut::from("Event: A\nK: v\n\nEvent: B\r\n\r\n");
            Splitter::without_banner(Limits::DEFAULT, ends).next(&mut buf).expect("fine").expect("a message")
        };
        let Item::Message(message) = first(LineEnd::Lf) else { panic!("a banner") };
        assert_eq!((message.event_name(), message.headers().count()), (Some(&b"A"[..]), 2));
        let Item::Message(message) = first(LineEnd::CrLf) else { panic!("a banner") };
        assert_eq!(message.headers().count(), 1, "bare line feeds are content");
    }

    #[test]
    fn unwanted_events_may_be_of_any_size() {
        let limits = Limits { message_bytes: 20, headers: 4, ..Limits::DEFAULT };
        let stream = format!("Event: X\r\nK: {}\r\n\r\nEvent: Y\r\n\r\n", "x\n".repeat(50));
        for step in [1, 7, 200] {
            let mut splitter = Splitter::without_banner(limits, LineEnd::CrLf).only(|name| name == b"Y");
            let (mut buf, mut found) = (BytesMut::new(), Vec::new());
            for piece in stream.as_bytes().chunks(step) {
                buf.extend_from_slice(piece);
                while let Some(item) = splitter.next(&mut buf).expect("fine") {
                    found.push(item);
                }
                assert!(step == 200 || buf.len() < 20, "kept: {buf:?}");
            }
            assert_eq!(found, [Item::Message(Message::new("Event: Y\r\n"))]);
            assert_eq!(splitter.skipped(), 1);
        }
    }

    #[test]
    fn unwanted_events_are_left_out_and_counted() {
        let mut splitter = Splitter::new(Limits::DEFAULT).only(|name| name == b"Hangup");
        let text = "Event: RTCPSent\r\nX: 1\r\n\r\n\r\nEvent: Hangup\r\n\r\nEvent: HangupRequest\r\n\r\n\nResponse: \
            Success\r\n\r\n";
        let mut buf = BytesMut::from(format!("{BANNER}{text}").as_str());
        let mut found = Vec::new();
        while let Some(item) = splitter.next(&mut buf).expect("fine") {
            if let Item::Message(message) = item {
                found.push(format!("{message:?}"));
            }
        }
        assert_eq!(found, ["Message(Event: Hangup, 15 bytes)", "Message(Response: Success, 19 bytes)"]);
        assert_eq!((splitter.skipped(), buf.len()), (2, 0));
    }
}
