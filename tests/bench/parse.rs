//! The parser alone, from memory. Owns its rows and their floor. Must never open a socket.

use std::hint::black_box;

use bytes::BytesMut;
use evenring::ami::event::is_wanted;
use evenring::ami::frame::{Item, Limits, LineEnd, Part, Splitter};
use memchr::{memchr, memmem};

use crate::harness::{Bench, Reach, mb_per_s};
use crate::streams::{Stream, captured, mixed};

/// Bytes that a socket gives at a time.
const READ_BYTES: usize = 64 << 10;
/// Bytes of a packet on an Ethernet.
const PACKET_BYTES: usize = 1448;

const FIELDS: &str = "parse: every field of every message";
const MIXED_FIELDS: &str = "parse: every field, the mixed stream";
const SKIP: &str = "skip: the daemon's interest set, 28 % wanted";
const ALLOCATIONS: &str = "allocations per message, all messages";
const MIXED_ALLOCATIONS: &str = "allocations per message, 28 % wanted";
const CUT_PACKETS: &str = "cut: in pieces of 1,448 bytes";
const CUT_READS: &str = "cut: in pieces of 65,536 bytes";
const CUT_BYTES: &str = "cut: a 59 kB message byte by byte (floor: short ones)";
const NAMES: [&str; 8] =
    [FIELDS, MIXED_FIELDS, SKIP, ALLOCATIONS, MIXED_ALLOCATIONS, CUT_PACKETS, CUT_READS, CUT_BYTES];

type Pairs<'a> = Vec<(&'a [u8], &'a [u8])>;

/// The floor: the end of a message by memmem, line ends and colons by memchr, borrowed bytes into a Vec that is used
/// again. No limits, no other line ends, no interest.
fn floor(stream: &[u8]) -> usize {
    let end_of_message = memmem::Finder::new(b"\r\n\r\n");
    let (mut pairs, mut at, mut fields) = (Pairs::new(), 0, 0);
    while let Some(end) = end_of_message.find(&stream[at..]) {
        let message = &stream[at..at + end + 2];
        at += end + 4;
        pairs.clear();
        let mut rest = message;
        while let Some(end) = memchr(b'\n', rest) {
            let line = &rest[..end - 1];
            rest = &rest[end + 1..];
            if let Some(colon) = memchr(b':', line) {
                let value = &line[colon + 1..];
                pairs.push((&line[..colon], value.strip_prefix(b" ").unwrap_or(value)));
            }
        }
        fields += pairs.len();
        black_box(&pairs);
    }
    fields
}

/// What the crate does with the same bytes, and the same result.
fn fields(stream: &[u8], mut splitter: Splitter) -> usize {
    let (mut pairs, mut at, mut fields) = (Pairs::new(), 0, 0);
    loop {
        let (used, part) = splitter.part(&stream[at..]).expect("readable");
        at += used;
        match part {
            Part::Message(frame) => {
                pairs.clear();
                pairs.extend(frame.headers());
                fields += pairs.len();
                black_box(&pairs);
            }
            Part::Banner(_) => {}
            Part::More => return fields,
        }
    }
}

/// Only the messages: their headers are looked at by whoever wants one.
fn messages(stream: &[u8], mut splitter: Splitter) -> u64 {
    let (mut at, mut count) = (0, 0);
    loop {
        let (used, part) = splitter.part(&stream[at..]).expect("readable");
        at += used;
        match part {
            Part::Message(frame) => {
                black_box(frame);
                count += 1;
            }
            Part::Banner(_) => {}
            Part::More => return count,
        }
    }
}

/// As [`fields`], but the stream comes in pieces: each time, so much more of it can be seen.
fn in_pieces(stream: &[u8], piece: usize) -> usize {
    let mut splitter = Splitter::without_banner(Limits::DEFAULT, LineEnd::CrLf);
    let (mut pairs, mut at, mut seen, mut fields) = (Pairs::new(), 0, 0, 0);
    while seen < stream.len() {
        seen = (seen + piece).min(stream.len());
        loop {
            let (used, part) = splitter.part(&stream[at..seen]).expect("readable");
            at += used;
            match part {
                Part::Message(frame) => {
                    pairs.clear();
                    pairs.extend(frame.headers());
                    fields += pairs.len();
                    black_box(&pairs);
                }
                Part::Banner(_) => {}
                Part::More => break,
            }
        }
    }
    fields
}

/// As the daemon reads: pieces are copied into a buffer, messages are taken out of it, looked at and dropped.
fn through_buffer(stream: &[u8], splitter: &mut Splitter, buf: &mut BytesMut) -> u64 {
    let mut count = 0;
    for piece in stream.chunks(READ_BYTES / 2) {
        buf.reserve(READ_BYTES - buf.len());
        buf.extend_from_slice(piece);
        while let Some(item) = splitter.next(buf).expect("readable") {
            if let Item::Message(message) = item {
                black_box(message.headers().count());
                count += 1;
            }
        }
    }
    count
}

fn plain() -> Splitter {
    Splitter::without_banner(Limits::DEFAULT, LineEnd::CrLf)
}

fn throughput(bench: &mut Bench, stream: &Stream, mixed: &Stream) {
    let all = stream.bytes.len();
    assert_eq!(fields(&stream.bytes, plain()), fields_by_hand(&stream.bytes), "the parser and a plain count differ");
    bench.row(
        FIELDS,
        "MB/s",
        Reach::RatioAtLeast(0.9),
        || mb_per_s(all, || assert!(fields(&stream.bytes, plain()) > 0)),
        || mb_per_s(all, || assert!(floor(&stream.bytes) > 0)),
    );
    let all = mixed.bytes.len();
    bench.row(
        MIXED_FIELDS,
        "MB/s",
        Reach::RatioAtLeast(0.9),
        || mb_per_s(all, || assert!(fields(&mixed.bytes, plain()) > 0)),
        || mb_per_s(all, || assert!(floor(&mixed.bytes) > 0)),
    );
    bench.row(
        SKIP,
        "MB/s",
        Reach::RatioAtLeast(2.5),
        || mb_per_s(all, || assert_eq!(messages(&mixed.bytes, plain().only(is_wanted)), mixed.wanted)),
        || mb_per_s(all, || assert!(floor(&mixed.bytes) > 0)),
    );
}

fn fields_by_hand(stream: &[u8]) -> usize {
    stream.split(|byte| *byte == b'\n').filter(|line| !line.is_empty() && *line != b"\r").count()
}

fn cuts(bench: &mut Bench, stream: &Stream) {
    let bytes = &stream.bytes[..stream.bytes.len() / 2];
    let of = |piece: usize| 1e9 / 1e6 / mb_per_s(bytes.len(), || assert!(in_pieces(bytes, piece) > 0));
    bench.row(CUT_PACKETS, "ns/byte", Reach::RatioAtMost(1.2), || of(PACKET_BYTES), || of(bytes.len()));
    bench.row(CUT_READS, "ns/byte", Reach::RatioAtMost(1.2), || of(65_536), || of(bytes.len()));
}

/// One long message in tiny pieces costs what the same bytes in one message of any length cost: no byte is searched twice.
fn tiny_cuts(bench: &mut Bench) {
    let long = |lines: usize| {
        let lines: String = (0..lines).map(|n| format!("Output: line {n:>8} of many\r\n")).collect();
        format!("Response: Success\r\n{lines}\r\n").into_bytes()
    };
    let (short, long) = (long(20).repeat(2000), long(2000).repeat(20));
    let of = |bytes: &[u8]| 1e9 / 1e6 / mb_per_s(bytes.len(), || assert!(in_pieces(bytes, 1) > 0));
    bench.row(CUT_BYTES, "ns/byte", Reach::RatioAtMost(1.2), || of(&long), || of(&short));
}

fn allocations(bench: &mut Bench, stream: &Stream, mixed: &Stream) {
    let mut of = |name: &'static str, stream: &Stream, mut splitter: Splitter| {
        if !bench.wants(name) {
            return;
        }
        let mut buf = BytesMut::with_capacity(READ_BYTES);
        let bytes = &stream.bytes[..stream.bytes.len() / 4];
        through_buffer(bytes, &mut splitter, &mut buf);
        let mut count = 0;
        let info = allocation_counter::measure(|| count = through_buffer(bytes, &mut splitter, &mut buf));
        bench.add(name, "allocs", Reach::AtMost(0.0), &[(info.count_total as f64 / count as f64, 0.0)]);
    };
    of(ALLOCATIONS, stream, plain());
    of(MIXED_ALLOCATIONS, mixed, plain().only(is_wanted));
}

pub fn rows(bench: &mut Bench) {
    if !NAMES.iter().any(|name| bench.wants(name)) {
        return;
    }
    let (stream, mixed) = (captured(), mixed());
    eprintln!(
        "streams: captured {} messages of {} bytes; mixed {} of {}, {:.1} % wanted",
        stream.messages,
        stream.bytes.len() as u64 / stream.messages,
        mixed.messages,
        mixed.bytes.len() as u64 / mixed.messages,
        mixed.wanted as f64 * 100.0 / mixed.messages as f64
    );
    throughput(bench, &stream, &mixed);
    allocations(bench, &stream, &mixed);
    cuts(bench, &stream);
    tiny_cuts(bench);
}
