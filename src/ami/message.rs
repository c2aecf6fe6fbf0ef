//! One message: its header lines, found when asked for.
//!
//! Owns the grammar of a header line. Must never know where a message comes from or what a header means. A message is
//! one shared slice of what was received, or a borrowed one, so it costs no allocation of its own.

use std::borrow::Cow;
use std::fmt;
use std::sync::LazyLock;

use bytes::Bytes;
use memchr::{memchr, memmem};

/// Characters of a value that [`Message::shown`] shows.
const SHOWN_CHARS: usize = 200;
/// The first line of an old answer to `Command`.
const FOLLOWS: &[u8] = b"Response: Follows";
/// The last line of an old answer to `Command`.
pub(super) const END_OF_OUTPUT: &[u8] = b"--END COMMAND--";
/// The headers that an old answer to `Command` may have before its output.
const HEAD_OF_OUTPUT: [&[u8]; 4] = [b"Response", b"Privilege", b"ActionID", b"Message"];

static ACTION_ID: LazyLock<memmem::Finder<'static>> = LazyLock::new(|| memmem::Finder::new(b"\nActionID:"));

/// How a peer ends its lines: its greeting decides, for the whole connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LineEnd {
    /// CR LF and nothing else, as Asterisk does: a bare LF, also two of them, belongs to a value.
    #[default]
    CrLf,
    /// LF; one CR before it belongs to the line end.
    Lf,
}

/// One message: header lines in their order, names and values as the bytes that were sent. Cheap to clone. It keeps the
/// buffer alive in which it was received, so do not store one for long: take from it what is needed.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    bytes: Bytes,
    ends: LineEnd,
}

impl Message {
    /// The message that `bytes` hold: header lines, each with its CRLF, without the empty line at the end. For tests and tools;
    /// from a connection, messages come through [`super::frame::Splitter::next`].
    pub fn new(bytes: impl Into<Bytes>) -> Self {
        Self::with(bytes.into(), LineEnd::CrLf)
    }

    /// As [`Message::new`], with lines that end so.
    pub(super) fn with(bytes: Bytes, ends: LineEnd) -> Self {
        Self { bytes, ends }
    }

    /// The same message, borrowed.
    pub fn frame(&self) -> Frame<'_> {
        Frame { bytes: &self.bytes, ends: self.ends }
    }

    /// See [`Frame::as_bytes`].
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// See [`Frame::headers`].
    pub fn headers(&self) -> Headers<'_> {
        self.frame().headers()
    }

    /// See [`Frame::all`].
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.frame().all(name)
    }

    /// See [`Frame::get`].
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.frame().get(name)
    }

    /// As [`Message::get`], for showing to people: what is no UTF-8 becomes U+FFFD.
    pub fn text(&self, name: &str) -> Option<Cow<'_, str>> {
        self.get(name).map(String::from_utf8_lossy)
    }

    /// As [`Message::text`], safe for a log line: control characters escaped, cut after 200 characters. Empty if there is none.
    pub fn shown(&self, name: &str) -> String {
        let text = self.text(name).unwrap_or_default();
        text.chars()
            .take(SHOWN_CHARS)
            .map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() })
            .collect()
    }

    /// See [`Frame::action_id`].
    pub fn action_id(&self) -> Option<&[u8]> {
        self.frame().action_id()
    }

    /// See [`Frame::event_name`].
    pub fn event_name(&self) -> Option<&[u8]> {
        self.frame().event_name()
    }

    /// Whether it is an event.
    pub fn is_event(&self) -> bool {
        self.event_name().is_some()
    }

    /// See [`Frame::response`].
    pub fn response(&self) -> Option<&[u8]> {
        self.frame().response()
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.frame().fmt(f)
    }
}

/// A [`Message`] that borrows its bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    bytes: &'a [u8],
    ends: LineEnd,
}

impl<'a> Frame<'a> {
    /// The message that `bytes` hold: header lines that end so, without the empty line at the end.
    pub fn new(bytes: &'a [u8], ends: LineEnd) -> Self {
        Self { bytes, ends }
    }

    /// The header lines as they were sent.
    pub fn as_bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// The header lines in their order, as name and value. One blank after the colon belongs to neither. A line without colon has an empty
    /// name. The lines of output of an old answer to `Command` (`Response: Follows`) are called `Output`, as newer
    /// Asterisks call them, and its end mark is left out.
    #[inline]
    pub fn headers(self) -> Headers<'a> {
        let lines = if is_follows(self.bytes, self.ends) { Lines::BeforeOutput } else { Lines::Headers };
        Headers { rest: self.bytes, lines, ends: self.ends }
    }

    /// The values of all header lines called `name` (in any case), in their order.
    pub fn all<'n>(self, name: &'n str) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        self.headers().filter(move |(key, _)| key.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| value)
    }

    /// The value of the first header line called `name` (in any case).
    #[inline]
    pub fn get(self, name: &str) -> Option<&'a [u8]> {
        self.headers().find(|(key, _)| key.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| value)
    }

    /// The `ActionID`: of an answer, of an item of a list, and of an event that reports on an action. Asterisk always
    /// spells it so; asked of every event, it is found without looking at the lines one by one.
    pub fn action_id(self) -> Option<&'a [u8]> {
        if is_follows(self.bytes, self.ends) {
            return self.get("ActionID");
        }
        let mut from = 0;
        loop {
            let at = from + ACTION_ID.find(self.bytes.get(from..)?)?;
            from = at + 1;
            // Behind a bare LF it may be part of a value.
            if self.ends == LineEnd::Lf || self.bytes.get(..at)?.ends_with(b"\r") {
                return Some(header_line(self.bytes.get(from..)?, self.ends).0.1);
            }
        }
    }

    /// The name of the event, if it is one: a message with an `Event` header is, whatever else it holds
    /// (`OriginateResponse` has a `Response` header, too).
    #[inline]
    pub fn event_name(self) -> Option<&'a [u8]> {
        match self.bytes.strip_prefix(b"Event: ") {
            Some(rest) => Some(split_line(rest, self.ends).0),
            None => self.get("Event"),
        }
    }

    /// What an answer says: `Success`, `Error`, `Goodbye`, `Follows`. `None` for events.
    pub fn response(self) -> Option<&'a [u8]> {
        if self.event_name().is_some() { None } else { self.get("Response") }
    }
}

impl fmt::Debug for Frame<'_> {
    /// Shows the first line and the length only: what follows may hold names and numbers of callers.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, value) = self.headers().next().unwrap_or_default();
        write!(f, "Message({}: {}, {} bytes)", name.escape_ascii(), value.escape_ascii(), self.bytes.len())
    }
}

/// Name and value.
type Pair<'a> = (&'a [u8], &'a [u8]);

/// The header lines of a [`Message`].
#[derive(Debug, Clone)]
pub struct Headers<'a> {
    rest: &'a [u8],
    lines: Lines,
    ends: LineEnd,
}

/// What the next line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lines {
    Headers,
    BeforeOutput,
    Output,
}

impl<'a> Iterator for Headers<'a> {
    type Item = Pair<'a>;

    // Not inlined, a tenth of all goes into handing pairs over.
    #[inline(always)]
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        if self.lines != Lines::Headers {
            return self.output();
        }
        let (pair, rest) = header_line(self.rest, self.ends);
        self.rest = rest;
        Some(pair)
    }
}

impl<'a> Headers<'a> {
    /// A line of an old answer to `Command`. Once the output has begun, everything is output, and its lines end with LF whatever
    /// the greeting did.
    #[cold]
    fn output(&mut self) -> Option<Pair<'a>> {
        if self.lines == Lines::BeforeOutput {
            let (pair, rest) = header_line(self.rest, self.ends);
            if HEAD_OF_OUTPUT.contains(&pair.0) && !pair.1.contains(&b'\n') {
                self.rest = rest;
                return Some(pair);
            }
        }
        self.lines = Lines::Output;
        let (line, rest) = split_line(self.rest, LineEnd::Lf);
        self.rest = rest;
        // The mark stands in a line of its own, or behind output that does not end its last line.
        let last = if rest.is_empty() { line.strip_suffix(END_OF_OUTPUT) } else { None };
        match last {
            Some([]) => None,
            Some(text) => Some((b"Output", text)),
            None => Some((b"Output", line)),
        }
    }
}

/// Whether this is an old answer to `Command`.
#[inline]
pub(super) fn is_follows(message: &[u8], ends: LineEnd) -> bool {
    message.strip_prefix(FOLLOWS).is_some_and(|rest| match ends {
        LineEnd::CrLf => rest.starts_with(b"\r\n"),
        LineEnd::Lf => rest.starts_with(b"\r\n") || rest.starts_with(b"\n"),
    })
}

/// The first line of `text` as `name ":" [" "] value`, and what follows it; a line without colon has an empty name. By
/// hand: it is asked of every line of every message, and combinators cost a tenth of all. Each byte is looked at once: up
/// to the colon, and from there to the end of the line.
#[inline(always)]
fn header_line(text: &[u8], ends: LineEnd) -> (Pair<'_>, &[u8]) {
    let (name, rest) = text.split_at(first_of(text, b':', b'\n').unwrap_or(text.len()));
    let Some(rest) = rest.strip_prefix(b":") else { return odd_line(text, ends) };
    let (value, rest) = split_line(rest, ends);
    ((name, value.strip_prefix(b" ").unwrap_or(value)), rest)
}

/// A line that has no colon, or an LF before it: stray ones before a name belong to nothing.
#[cold]
fn odd_line(text: &[u8], ends: LineEnd) -> (Pair<'_>, &[u8]) {
    let (mut line, rest) = split_line(text, ends);
    while let Some(stripped) = line.strip_prefix(b"\n") {
        line = stripped;
    }
    let Some(colon) = memchr(b':', line) else { return ((&[], line), rest) };
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    ((name, value.strip_prefix(b" ").unwrap_or(value)), rest)
}

/// The first line of `text` without its end, and what follows.
#[inline(always)]
fn split_line(text: &[u8], ends: LineEnd) -> (&[u8], &[u8]) {
    first_line(text, ends).unwrap_or_else(|| (without_cr(text), &[]))
}

/// The first line of `text` without its end, and what follows; `None` if it has no end.
#[inline(always)]
pub(super) fn first_line(text: &[u8], ends: LineEnd) -> Option<(&[u8], &[u8])> {
    let mut from = 0;
    loop {
        let at = from + first_of(&text[from..], b'\n', b'\n')?;
        let (line, rest) = (&text[..at], &text[at + 1..]);
        match (line.strip_suffix(b"\r"), ends) {
            (Some(line), LineEnd::CrLf | LineEnd::Lf) => return Some((line, rest)),
            (None, LineEnd::Lf) => return Some((line, rest)),
            (None, LineEnd::CrLf) => from = at + 1,
        }
    }
}

/// The first of two bytes. Lines are short, so that a search that is set up for long texts would cost more than it finds:
/// this one looks at eight bytes at a time, as one number.
#[inline]
fn first_of(text: &[u8], one: u8, other: u8) -> Option<usize> {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const TOPS: u64 = u64::from_ne_bytes([0x80; 8]);
    let (all_one, all_other) = (u64::from_ne_bytes([one; 8]), u64::from_ne_bytes([other; 8]));
    let (blocks, rest) = text.as_chunks::<8>();
    for (number, block) in blocks.iter().enumerate() {
        let word = u64::from_le_bytes(*block);
        // A byte becomes 0 where one of them is; the lowest 0 byte is found exactly.
        let (a, b) = (word ^ all_one, word ^ all_other);
        let hits = ((a.wrapping_sub(ONES) & !a) | (b.wrapping_sub(ONES) & !b)) & TOPS;
        if hits != 0 {
            return Some(number * 8 + hits.trailing_zeros() as usize / 8);
        }
    }
    rest.iter().position(|byte| *byte == one || *byte == other).map(|at| blocks.len() * 8 + at)
}

/// A line without the CR that belongs to its end.
#[inline]
pub(super) fn without_cr(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_found_in_any_case_and_repeated_ones_kept() {
        let message = Message::new("Event: Status\r\nVariable: A=1\r\nvariable: B=é\r\nResponse: x\r\n");
        assert_eq!(message.get("EVENT"), Some(&b"Status"[..]));
        assert_eq!(message.all("Variable").collect::<Vec<_>>(), [&b"A=1"[..], "B=é".as_bytes()]);
        assert_eq!(message.text("variable").as_deref(), Some("A=1"));
        assert_eq!((message.is_event(), message.response(), message.get("Va")), (true, None, None));
    }

    #[test]
    fn what_stands_behind_a_bare_lf_is_no_header() {
        let message =
            Message::new("Event: Status\r\nData: x\nActionID: 1\nUniqueid: 2\n\r\nUniqueid: 3\r\nActionID: 4\r\n");
        assert_eq!(message.get("Data"), Some(&b"x\nActionID: 1\nUniqueid: 2\n"[..]));
        assert_eq!((message.get("Uniqueid"), message.action_id()), (Some(&b"3"[..]), Some(&b"4"[..])));
        assert_eq!(message.headers().count(), 4);
        let message = Message::with("Event: Status\nData: x\nActionID: 1\r\n".into(), LineEnd::Lf);
        assert_eq!((message.get("Data"), message.action_id()), (Some(&b"x"[..]), Some(&b"1"[..])));
    }

    #[test]
    fn either_byte_is_found_wherever_it_stands() {
        for length in 0..=20 {
            // Most of them differ in one bit from a byte that is looked for.
            for filler in [b'x', b':' + 1, b'\n' + 1, b':' | 0x80, b'\n' | 0x80] {
                let text = vec![filler; length];
                assert_eq!(first_of(&text, b':', b'\n'), None, "{text:?}");
                for at in 0..length {
                    for found in [b':', b'\n'] {
                        let mut text = text.clone();
                        text[at] = found;
                        assert_eq!(first_of(&text, b':', b'\n'), Some(at), "{text:?}");
                        text[length - 1] = b':';
                        assert_eq!(first_of(&text, b':', b'\n'), Some(at), "{text:?}");
                    }
                }
            }
        }
    }
}
