//! Any bytes, cut anywhere: the same items, and those that a slow and simple reader finds. Owns that reader.
#![no_main]

use bytes::BytesMut;
use evenring::ami::frame::{Item, Limits, LineEnd, Part, Splitter};
use libfuzzer_sys::fuzz_target;

type Lines = Vec<(Vec<u8>, Vec<u8>)>;

#[derive(Debug, PartialEq, Eq)]
struct Read {
    messages: Vec<Lines>,
    skipped: u64,
    error: Option<String>,
}

fn is_wanted(name: &[u8]) -> bool {
    name.first().is_none_or(|byte| byte % 2 == 0)
}

fn splitter(limits: Limits, ends: LineEnd, only: bool) -> Splitter {
    let splitter = Splitter::without_banner(limits, ends);
    if only { splitter.only(is_wanted) } else { splitter }
}

fn lines<'a>(headers: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Lines {
    headers.map(|(name, value)| (name.to_vec(), value.to_vec())).collect()
}

/// Owned messages out of a buffer that grows piece by piece.
fn owned<'a>(mut splitter: Splitter, pieces: impl Iterator<Item = &'a [u8]>) -> Read {
    let (mut buf, mut messages) = (BytesMut::new(), Vec::new());
    for piece in pieces {
        buf.extend_from_slice(piece);
        loop {
            match splitter.next(&mut buf) {
                Ok(Some(Item::Message(message))) => messages.push(lines(message.headers())),
                Ok(Some(Item::Banner(_))) => panic!("there is none"),
                Ok(None) => break,
                Err(error) => return Read { messages, skipped: 0, error: Some(error.to_string()) },
            }
        }
    }
    Read { messages, skipped: splitter.skipped(), error: None }
}

/// Borrowed frames out of the whole.
fn borrowed(mut splitter: Splitter, stream: &[u8]) -> Read {
    let (mut at, mut messages) = (0, Vec::new());
    loop {
        match splitter.part(&stream[at..]) {
            Ok((used, part)) => {
                at += used;
                match part {
                    Part::Message(frame) => messages.push(lines(frame.headers())),
                    Part::Banner(_) => panic!("there is none"),
                    Part::More => return Read { messages, skipped: splitter.skipped(), error: None },
                }
            }
            Err(error) => return Read { messages, skipped: 0, error: Some(error.to_string()) },
        }
    }
}

/// The complete lines, without their ends.
fn split_lines(stream: &[u8], ends: LineEnd) -> Vec<&[u8]> {
    let (mut lines, mut from) = (Vec::new(), 0);
    for at in 0..stream.len() {
        let cr = at > from && stream[at - 1] == b'\r';
        if stream[at] == b'\n' && (cr || ends == LineEnd::Lf) {
            lines.push(&stream[from..at - usize::from(cr)]);
            from = at + 1;
        }
    }
    lines
}

/// The second opinion: line by line, without limits.
fn plainly(stream: &[u8], ends: LineEnd, only: bool) -> Read {
    let (mut messages, mut raw, mut skipped) = (Vec::new(), Vec::<&[u8]>::new(), 0);
    for line in split_lines(stream, ends) {
        let line = if raw.is_empty() { without_stray(line) } else { line };
        let follows = raw.first() == Some(&&b"Response: Follows"[..]);
        if !line.is_empty() {
            raw.push(line);
        } else if raw.is_empty() {
        } else if follows && !raw.last().is_some_and(|last| last.ends_with(b"--END COMMAND--")) {
            raw.push(line);
        } else {
            let raw = std::mem::take(&mut raw);
            let name = raw.first().and_then(|first| first.strip_prefix(b"Event: "));
            if only && name.is_some_and(|name| !is_wanted(name)) {
                skipped += 1;
            } else {
                messages.push(if follows { old_answer(&raw) } else { raw.iter().map(|line| pair(line)).collect() });
            }
        }
    }
    Read { messages, skipped, error: None }
}

/// A stray LF before a line belongs to nothing.
fn without_stray(mut line: &[u8]) -> &[u8] {
    while let Some(rest) = line.strip_prefix(b"\n") {
        line = rest;
    }
    line
}

fn pair(line: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let line = without_stray(line);
    match line.iter().position(|byte| *byte == b':') {
        None => (Vec::new(), line.to_vec()),
        Some(colon) => {
            let value = &line[colon + 1..];
            (line[..colon].to_vec(), value.strip_prefix(b" ").unwrap_or(value).to_vec())
        }
    }
}

/// After the head, the lines of the output end with LF, whatever the others do.
fn old_answer(raw: &[&[u8]]) -> Lines {
    let is_head = |line: &&&[u8]| {
        let (name, value) = pair(line);
        let named = [&b"Response"[..], b"Privilege", b"ActionID", b"Message"].contains(&&name[..]);
        named && !value.contains(&b'\n')
    };
    let head = raw.iter().take_while(is_head).count();
    let mut found: Lines = raw[..head].iter().map(|line| pair(line)).collect();
    let output: Vec<u8> = raw[head..].iter().flat_map(|line| [line, &b"\r\n"[..]].concat()).collect();
    let output = split_lines(&output, LineEnd::Lf);
    for (number, line) in output.iter().enumerate() {
        let last = number + 1 == output.len();
        let line = if last { line.strip_suffix(b"--END COMMAND--").unwrap_or(line) } else { line };
        if !last || !line.is_empty() {
            found.push((b"Output".to_vec(), line.to_vec()));
        }
    }
    found
}

fuzz_target!(|data: &[u8]| {
    let Some(([choice, seed, ..], _)) = data.split_first_chunk::<2>() else { return };
    let (stream, only) = (&data[2..], choice & 1 == 1);
    let small = Limits { message_bytes: 48, headers: 6, ..Limits::DEFAULT };
    let limits = if choice & 2 == 2 { small } else { Limits::DEFAULT };
    let ends = if choice & 4 == 4 { LineEnd::Lf } else { LineEnd::CrLf };
    let whole = owned(splitter(limits, ends, only), std::iter::once(stream));
    assert_eq!(borrowed(splitter(limits, ends, only), stream), whole);
    assert_eq!(owned(splitter(limits, ends, only), stream.chunks(1)), whole, "byte by byte");
    assert_eq!(owned(splitter(limits, ends, only), stream.chunks(usize::from(*seed) + 1)), whole, "in pieces");
    if limits == Limits::DEFAULT {
        assert_eq!(plainly(stream, ends, only), whole, "the plain reader");
    }
});
