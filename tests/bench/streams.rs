//! Streams made of what real Asterisk said. Owns their making. Must never know what they are read for.

use std::fs;
use std::path::Path;

use evenring::ami::event::is_wanted;
use evenring::ami::frame::{Limits, Part, Splitter};

/// Bytes of a stream.
pub const BYTES: usize = 100_000_000;
/// Of 100 messages, how many the daemon wants.
pub const WANTED_PERCENT: u64 = 28;

/// A stream without its banner, and what it holds.
#[derive(Debug)]
pub struct Stream {
    pub bytes: Vec<u8>,
    pub messages: u64,
    pub wanted: u64,
}

/// Every message of every fixture, each with its empty line.
fn messages() -> Vec<Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto-fixtures");
    let mut found = Vec::new();
    for version in ["v16", "v22"] {
        let folder = fs::read_dir(root.join(version)).expect("fixtures");
        let mut paths: Vec<_> = folder.map(|entry| entry.expect("a file").path()).collect();
        paths.sort();
        for path in paths {
            let bytes = fs::read(&path).expect("a fixture");
            let (mut splitter, mut at) = (Splitter::new(Limits::DEFAULT), 0);
            loop {
                let (used, part) = splitter.part(&bytes[at..]).expect("readable");
                at += used;
                match part {
                    Part::Message(frame) => found.push([frame.as_bytes(), b"\r\n"].concat()),
                    Part::Banner(_) => {}
                    Part::More => break,
                }
            }
        }
    }
    found
}

fn wanted(message: &[u8]) -> bool {
    let name = message.strip_prefix(b"Event: ").map(|rest| &rest[..rest.iter().position(|b| *b == b'\r').unwrap_or(0)]);
    name.is_none_or(is_wanted)
}

/// All that was captured, in its order, again and again.
pub fn captured() -> Stream {
    let (all, mut stream) = (messages(), Stream { bytes: Vec::with_capacity(BYTES + 65536), messages: 0, wanted: 0 });
    for message in all.iter().cycle() {
        if stream.bytes.len() >= BYTES {
            break;
        }
        stream.push(message);
    }
    stream
}

/// Captured events, drawn so that [`WANTED_PERCENT`] of them are wanted.
pub fn mixed() -> Stream {
    let is_event = |message: &&Vec<u8>| message.starts_with(b"Event: ");
    let events = messages();
    let (yes, no): (Vec<_>, Vec<_>) = events.iter().filter(is_event).partition(|message| wanted(message));
    let mut stream = Stream { bytes: Vec::with_capacity(BYTES + 65536), messages: 0, wanted: 0 };
    let mut seed = 1_u64;
    let mut draw = move |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    while stream.bytes.len() < BYTES {
        let from = if draw(100) < WANTED_PERCENT { &yes } else { &no };
        let message = from[usize::try_from(draw(from.len() as u64)).expect("an index")];
        stream.push(message);
    }
    stream
}

impl Stream {
    fn push(&mut self, message: &[u8]) {
        self.bytes.extend_from_slice(message);
        self.messages += 1;
        self.wanted += u64::from(wanted(message));
    }
}
