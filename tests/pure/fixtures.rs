//! Every captured dialogue in `proto-fixtures/` reads the same, however it is cut, and means what is written down.
//!
//! The summaries under `tests/pure/snapshots/` are committed; a plain reader in this file is the second opinion.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "the helpers of tests may fail loudly, too")]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use bytes::BytesMut;
use evenring::ami::event::{Event, is_wanted};
use evenring::ami::frame::{FrameError, Item, Limits, Message, Splitter};
use evenring::ami::item::{ChannelItem, Contact, Peer};

/// How many there must be, so that a forgotten directory is noticed.
const FIXTURES_AT_LEAST: usize = 44;

fn fixtures(version: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto-fixtures").join(version);
    let mut paths: Vec<PathBuf> =
        fs::read_dir(&folder).expect("a folder").map(|entry| entry.expect("a file").path()).collect();
    paths.sort();
    let name = |path: &Path| path.file_stem().expect("a name").to_string_lossy().into_owned();
    paths.iter().map(|path| (name(path), fs::read(path).expect("readable"))).collect()
}

fn all() -> Vec<(String, Vec<u8>)> {
    let of = |version: &'static str| {
        fixtures(version).into_iter().map(move |(name, bytes)| (format!("{version}/{name}"), bytes))
    };
    of("v13").chain(of("v16")).chain(of("v18")).chain(of("v22")).collect()
}

/// Feeds the pieces one after the other.
fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<Item>, FrameError> {
    let (mut splitter, mut buf, mut items) = (Splitter::new(Limits::DEFAULT), BytesMut::new(), Vec::new());
    for piece in pieces {
        buf.extend_from_slice(piece);
        while let Some(item) = splitter.next(&mut buf)? {
            items.push(item);
        }
    }
    Ok(items)
}

type Lines = Vec<(Vec<u8>, Vec<u8>)>;

/// The second opinion: lines, then groups of lines. Slow and simple; unfinished messages are left out. An old answer to
/// `Command` ends at its mark only, and the lines of its output end with LF.
fn plainly(stream: &[u8]) -> Vec<Lines> {
    let (mut messages, mut lines) = (Vec::new(), Lines::new());
    let mut rest = after(stream, b"\r\n").expect("a greeting").1;
    while let Some((line, behind)) = after(rest, b"\r\n") {
        rest = behind;
        let pair = pair(line);
        if line.is_empty() {
            if !lines.is_empty() {
                messages.push(std::mem::take(&mut lines));
            }
        } else if lines.first().is_some_and(|first| first == &(b"Response".to_vec(), b"Follows".to_vec()))
            && ![&b"Privilege"[..], b"ActionID"].contains(&&pair.0[..])
        {
            let output = line.strip_suffix(b"--END COMMAND--").expect("the end of the output");
            lines.extend(output.split_inclusive(|byte| *byte == b'\n').map(|line| {
                let line = line.strip_suffix(b"\n").unwrap_or(line);
                (b"Output".to_vec(), line.to_vec())
            }));
        } else {
            lines.push(pair);
        }
    }
    messages
}

/// What stands before the first `end`, and what behind it.
fn after<'a>(text: &'a [u8], end: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let at = text.windows(end.len()).position(|window| window == end)?;
    Some((&text[..at], &text[at + end.len()..]))
}

fn pair(line: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let colon = line.iter().position(|byte| *byte == b':');
    let (name, value) = colon.map_or((&b""[..], line), |colon| (&line[..colon], &line[colon + 1..]));
    let value = if colon.is_some() { value.strip_prefix(b" ").unwrap_or(value) } else { value };
    (name.to_vec(), value.to_vec())
}

fn messages<'a>(items: &'a [Item]) -> Vec<&'a Message> {
    let message = |item: &'a Item| match item {
        Item::Message(message) => Some(message),
        Item::Banner(_) => None,
    };
    items.iter().filter_map(message).collect()
}

#[test]
fn there_are_enough_of_both_versions() {
    assert!(fixtures("v16").len() >= FIXTURES_AT_LEAST / 2 && fixtures("v22").len() >= FIXTURES_AT_LEAST / 2);
}

#[test]
fn every_fixture_reads_as_the_plain_reader_reads_it() {
    for (name, bytes) in all() {
        let items = read([&bytes[..]]).expect(&name);
        assert!(matches!(items.first(), Some(Item::Banner(_))), "{name}");
        let to_lines = |message: &&Message| {
            message.headers().map(|(key, value)| (key.to_vec(), value.to_vec())).collect::<Lines>()
        };
        let found: Vec<Lines> = messages(&items).iter().map(to_lines).collect();
        assert_eq!(found, plainly(&bytes), "{name}");
    }
}

#[test]
fn every_fixture_reads_the_same_byte_by_byte() {
    for (name, bytes) in all() {
        assert_eq!(read(bytes.chunks(1)), read([&bytes[..]]), "{name}");
    }
}

#[test]
fn every_fixture_reads_the_same_cut_anywhere() {
    for (name, bytes) in all() {
        let whole = read([&bytes[..]]).expect(&name);
        for at in 1..bytes.len() {
            let (front, back) = bytes.split_at(at);
            assert!(read([front, back]).as_ref() == Ok(&whole), "{name} cut at {at}");
        }
    }
}

#[test]
fn every_event_and_item_of_real_asterisk_is_understood() {
    let (mut events, mut items) = (0, 0);
    for (name, bytes) in all() {
        let read = read([&bytes[..]]).expect(&name);
        for message in messages(&read) {
            let event = Event::parse(message).unwrap_or_else(|error| panic!("{name}: {error}: {message:?}"));
            if event != Event::Other {
                events += 1;
                assert!(is_wanted(message.event_name().unwrap_or_default()), "{name}: {message:?} would be left out");
            }
            let channel = ChannelItem::parse(message).unwrap_or_else(|error| panic!("{name}: {error}"));
            let contact = Contact::parse(message).unwrap_or_else(|error| panic!("{name}: {error}"));
            let peer = Peer::parse(message).unwrap_or_else(|error| panic!("{name}: {error}"));
            items += usize::from(channel.is_some()) + usize::from(contact.is_some()) + usize::from(peer.is_some());
        }
    }
    assert!(events > 300 && items >= 4, "{events} events, {items} items");
}

fn summary(version: &str) -> String {
    let mut text = String::new();
    for (name, bytes) in fixtures(version) {
        let items = read([&bytes[..]]).expect(&name);
        let found = messages(&items);
        let headers: usize = found.iter().map(|message| message.headers().count()).sum();
        let greeting = match items.first() {
            Some(Item::Banner(banner)) => banner.version.clone(),
            Some(Item::Message(_)) | None => "no banner".into(),
        };
        writeln!(text, "{name}: {greeting}, {} messages, {headers} headers", found.len()).expect("memory");
        let kind = |message: &&Message| {
            let text = message.event_name().map(|name| name.to_vec());
            let text = text.or_else(|| message.response().map(|response| [b"= ", response].concat()));
            text.unwrap_or_default().escape_ascii().to_string()
        };
        let kinds: Vec<String> = found.iter().map(kind).collect();
        for run in kinds.chunk_by(|a, b| a == b) {
            let times = if run.len() > 1 { format!(" x{}", run.len()) } else { String::new() };
            writeln!(text, "    {}{times}", run[0]).expect("memory");
        }
    }
    text
}

#[test]
fn the_summary_of_version_13_is_as_committed() {
    insta::assert_snapshot!("v13", summary("v13"));
}

#[test]
fn the_summary_of_version_18_is_as_committed() {
    insta::assert_snapshot!("v18", summary("v18"));
}

#[test]
fn the_summary_of_version_16_is_as_committed() {
    insta::assert_snapshot!("v16", summary("v16"));
}

#[test]
fn the_summary_of_version_22_is_as_committed() {
    insta::assert_snapshot!("v22", summary("v22"));
}
