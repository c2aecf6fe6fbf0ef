//! The bytes of a connection, below HTTP. Owns three rules that the library for HTTP does not have: a client that does not
//! read is given up; a request whose length can be read in two ways is noticed; and what the library itself refuses gets a
//! problem as its body, like any other. Must never change what a handler answers.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use memchr::memchr;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::problem::{Kind, Problem};
use super::strangers::Strangers;

/// How long a client may not read while there is something to write.
const STALL: Duration = Duration::from_secs(10);

/// What a request knows of its connection.
#[derive(Debug, Clone)]
pub(super) struct Connection {
    /// Whoever is at the other end.
    pub(super) peer: IpAddr,
    /// The length of a request could be read in two ways.
    pub(super) ambiguous: Arc<AtomicBool>,
    /// Among those who have shown no token yet, and as which of them.
    pub(super) strangers: Arc<Strangers>,
    pub(super) number: u64,
}

/// Looks for heads with both ways to say how long a body is. Of a body it sees lines, too, which does no harm: no JSON has
/// such lines.
#[derive(Debug, Default)]
struct Heads {
    /// The start of the line, in small letters.
    start: Vec<u8>,
    length: bool,
    encoding: bool,
}

impl Heads {
    const ENCODING: &[u8] = b"transfer-encoding";
    const LENGTH: &[u8] = b"content-length";

    /// Reads on; true after a head with both.
    fn read(&mut self, mut bytes: &[u8]) -> bool {
        let mut ambiguous = false;
        while let Some(end) = memchr(b'\n', bytes) {
            self.add(&bytes[..end]);
            bytes = &bytes[end + 1..];
            match self.start.trim_ascii_end() {
                b"" => (self.length, self.encoding) = (false, false),
                line if line.starts_with(Self::ENCODING) => self.encoding = true,
                line if line.starts_with(Self::LENGTH) => self.length = true,
                _ => {}
            }
            ambiguous |= self.length && self.encoding;
            self.start.clear();
        }
        self.add(bytes);
        ambiguous
    }

    fn add(&mut self, bytes: &[u8]) {
        let room = Self::ENCODING.len() - self.start.len().min(Self::ENCODING.len());
        self.start.extend(bytes.iter().take(room).map(u8::to_ascii_lowercase));
    }
}

/// An answer that is written in the place of another one.
#[derive(Debug)]
struct Instead {
    bytes: Vec<u8>,
    written: usize,
    /// Bytes of the other one.
    replaced: usize,
}

/// A stream under these rules.
#[derive(Debug)]
pub(super) struct Guarded<IO> {
    io: IO,
    heads: Heads,
    ambiguous: Arc<AtomicBool>,
    instead: Option<Instead>,
    stall: Option<Pin<Box<Sleep>>>,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Guarded<IO> {
    /// `ambiguous` is set when a request is.
    pub(super) fn new(io: IO, ambiguous: Arc<AtomicBool>) -> Self {
        Self { io, heads: Heads::default(), ambiguous, instead: None, stall: None }
    }

    /// Ends a wait that takes too long.
    fn timed<T>(&mut self, cx: &mut Context<'_>, poll: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if poll.is_ready() {
            self.stall = None;
            return poll;
        }
        let stall = self.stall.get_or_insert_with(|| Box::pin(tokio::time::sleep(STALL)));
        ready!(stall.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read")))
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for Guarded<IO> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        if self.heads.read(&buf.filled()[before..]) {
            self.ambiguous.store(true, Ordering::Relaxed);
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Guarded<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.instead.is_none() {
            self.instead =
                refusal(bytes).map(|problem| Instead { bytes: problem.raw(), written: 0, replaced: bytes.len() });
        }
        let this = &mut *self;
        loop {
            let Some(instead) = &mut this.instead else {
                let poll = Pin::new(&mut this.io).poll_write(cx, bytes);
                return this.timed(cx, poll);
            };
            let rest = &instead.bytes[instead.written..];
            if rest.is_empty() {
                let replaced = instead.replaced;
                this.instead = None;
                return Poll::Ready(Ok(replaced));
            }
            let poll = Pin::new(&mut this.io).poll_write(cx, rest);
            if let Poll::Ready(Ok(count)) = poll {
                instead.written += count;
            }
            let count = ready!(this.timed(cx, poll))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.io).poll_flush(cx);
        self.timed(cx, poll)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.io).poll_shutdown(cx);
        self.timed(cx, poll)
    }
}

/// What the library refuses before any handler sees it has no body; whatever a handler refuses has one.
fn refusal(bytes: &[u8]) -> Option<Problem> {
    let status = bytes.strip_prefix(b"HTTP/1.1 ").or_else(|| bytes.strip_prefix(b"HTTP/1.0 "))?.get(..4)?;
    let empty = memchr::memmem::find(bytes, b"\r\ncontent-length: 0\r\n").is_some();
    let (kind, detail) = match status {
        b"400 " => (Kind::Malformed, "the head of the request is no HTTP/1.1"),
        b"414 " => (Kind::UriTooLong, "the path of the request is too long"),
        b"431 " => (Kind::HeadTooLarge, "the head of the request has more than 8192 bytes"),
        _ => return None,
    };
    (empty && bytes.ends_with(b"\r\n\r\n")).then(|| Problem::new(kind, detail))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[test]
    fn a_head_with_two_lengths_is_seen_wherever_it_is_cut() {
        let both = b"POST / HTTP/1.1\r\nContent-Length: 3\r\nHost: x\r\nTRANSFER-Encoding: chunked\r\n\r\n";
        for cut in 0..both.len() {
            let mut heads = Heads::default();
            let (a, b) = both.split_at(cut);
            assert!(heads.read(a) | heads.read(b), "{cut}");
        }
        let one =
            b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\n{ }GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        for cut in 0..one.len() {
            let mut heads = Heads::default();
            let (a, b) = one.split_at(cut);
            assert!(!(heads.read(a) | heads.read(b)), "{cut}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_read_is_given_up() {
        let (client, server) = tokio::io::duplex(64);
        let mut guarded = Guarded::new(server, Arc::default());
        let error = guarded.write_all(&[0; 200]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(client);
    }

    #[tokio::test]
    async fn a_bare_refusal_gets_a_body_and_an_answer_is_left_alone() {
        for (written, expected) in [
            ("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\ndate: x\r\n\r\n", "problems/malformed"),
            ("HTTP/1.1 431 X\r\nconnection: close\r\ncontent-length: 0\r\n\r\n", "problems/head-too-large"),
            ("HTTP/1.1 400 Bad Request\r\ncontent-length: 2\r\n\r\n{}", "\r\n\r\n{}"),
            ("HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n", "202 Accepted"),
        ] {
            let (mut client, server) = tokio::io::duplex(16);
            let mut guarded = Guarded::new(server, Arc::default());
            let write = async move {
                guarded.write_all(written.as_bytes()).await.unwrap();
                guarded.shutdown().await.unwrap();
            };
            let mut read = String::new();
            let (_, count) = tokio::join!(write, client.read_to_string(&mut read));
            assert!(count.unwrap() > 0 && read.contains(expected), "{read}");
            assert!(!read.contains("content-length: 0") || written.contains("202"), "{read}");
        }
    }
}
