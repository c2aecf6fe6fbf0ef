//! One message: its header lines, found when asked for.
//!
//! Owns the grammar of a header line. Must never know where a message comes from or what a header means. A message is
//! one shared slice of what was received, so it costs no allocation of its own.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use memchr::{memchr, memmem};
use nom::bytes::complete::{tag, take_till};
use nom::combinator::opt;
use nom::{IResult, Parser};

/// Characters of a value that [`Message::shown`] shows.
const SHOWN_CHARS: usize = 200;

/// One message: header lines in their order, names and values as the bytes that were sent. Cheap to clone. It keeps the
/// buffer alive in which it was received, so do not store one for long: take from it what is needed.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    bytes: Bytes,
}

impl Message {
    /// The message that `bytes` hold: header lines without the empty line at the end. For tests and tools; from a
    /// connection, messages come through [`super::frame::Splitter::next`].
    pub fn new(bytes: impl Into<Bytes>) -> Self {
        Self { bytes: bytes.into() }
    }

    /// The header lines as they were sent.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The header lines in their order, as name and value. One blank after the colon belongs to neither. A line without colon has an empty
    /// name.
    pub fn headers(&self) -> Headers<'_> {
        Headers { rest: &self.bytes }
    }

    /// The values of all header lines called `name` (in any case), in their order.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.headers().filter(move |(key, _)| key.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| value)
    }

    /// The value of the first header line called `name` (in any case).
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.headers().find(|(key, _)| key.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| value)
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

    /// The `ActionID`: of an answer, of an item of a list, and of an event that reports on an action. Asterisk always
    /// spells it so; asked of every event, it is found without looking at the lines one by one.
    pub fn action_id(&self) -> Option<&[u8]> {
        let at = memmem::find(&self.bytes, b"\nActionID:")?;
        header_line(first_line(self.bytes.get(at + 1..)?)).ok().map(|(value, _)| value)
    }

    /// The name of the event, if it is one: a message with an `Event` header is, whatever else it holds
    /// (`OriginateResponse` has a `Response` header, too).
    pub fn event_name(&self) -> Option<&[u8]> {
        self.get("Event")
    }

    /// Whether it is an event.
    pub fn is_event(&self) -> bool {
        self.event_name().is_some()
    }

    /// What an answer says: `Success`, `Error`, `Goodbye`. `None` for events.
    pub fn response(&self) -> Option<&[u8]> {
        if self.is_event() { None } else { self.get("Response") }
    }
}

impl fmt::Debug for Message {
    /// Shows the first line and the length only: what follows may hold names and numbers of callers.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, value) = self.headers().next().unwrap_or_default();
        write!(f, "Message({}: {}, {} bytes)", name.escape_ascii(), value.escape_ascii(), self.bytes.len())
    }
}

/// The header lines of a [`Message`].
#[derive(Debug, Clone)]
pub struct Headers<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let end = memchr(b'\n', self.rest).unwrap_or(self.rest.len());
        let line = without_cr(&self.rest[..end]);
        self.rest = self.rest.get(end + 1..).unwrap_or_default();
        Some(match header_line(line) {
            Ok((value, name)) => (name, value),
            Err(_) => (&[], line),
        })
    }
}

/// `name ":" [" "] value`; the value is what is left. Names are short: looking at each byte is faster than a search
/// that has to be set up.
fn header_line(line: &[u8]) -> IResult<&[u8], &[u8]> {
    let (value, (name, _, _)) = (take_till(|byte| byte == b':'), tag(":"), opt(tag(" "))).parse(line)?;
    Ok((value, name))
}

fn first_line(text: &[u8]) -> &[u8] {
    without_cr(&text[..memchr(b'\n', text).unwrap_or(text.len())])
}

/// A line without the CR that belongs to its end.
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
}
