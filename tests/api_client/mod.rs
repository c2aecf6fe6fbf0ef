//! A client of the HTTP API that sends exactly the bytes that a test wants.
//!
//! Owns the requests and the reading of answers. Must never retry anything.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a helper that fails ends the test")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// 200, ...; 0 if the connection was closed without one.
    pub status: u16,
    /// The head.
    pub head: String,
    /// What follows it.
    pub body: String,
}

impl Answer {
    fn read(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        Self { status, head: head.to_owned(), body: body.to_owned() }
    }

    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The name of the problem, and that it is one by all rules.
    #[track_caller]
    pub fn problem(&self) -> String {
        assert!(self.head.contains("content-type: application/problem+json"), "{self:?}");
        let body = self.json();
        assert_eq!(body["status"], self.status, "{self:?}");
        assert!(body["detail"].as_str().is_some_and(|text| !text.is_empty() && !text.contains(char::is_control)));
        let name = body["type"].as_str().and_then(|uri| uri.strip_prefix("https://evenring.invalid/problems/"));
        name.unwrap_or_else(|| panic!("{self:?}")).to_owned()
    }

    /// A line of the head.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")))
    }
}

/// A free port of this host.
pub fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A client with a token.
#[derive(Debug, Clone)]
pub struct Client {
    pub address: SocketAddr,
    pub token: String,
}

impl Client {
    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("the API listens");
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream
    }

    /// Sends these bytes, and reads to the end.
    pub fn raw(&self, bytes: &[u8]) -> Answer {
        let mut stream = self.connect();
        // The other side may close before it has read all.
        let _ = stream.write_all(bytes);
        let mut text = Vec::new();
        let _ = stream.read_to_end(&mut text);
        Answer::read(&String::from_utf8_lossy(&text))
    }

    /// One request with these header lines, each with a line end.
    pub fn send(&self, method: &str, path: &str, lines: &str, body: &str) -> Answer {
        let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        self.raw(format!("{}{length}{lines}\r\n{body}", self.head(method, path)).as_bytes())
    }

    fn head(&self, method: &str, path: &str) -> String {
        let token = &self.token;
        format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n")
    }

    pub fn get(&self, path: &str) -> Answer {
        self.send("GET", path, "", "")
    }

    pub fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path, "", "")
    }

    pub fn post(&self, path: &str, body: &str) -> Answer {
        self.send("POST", path, "Content-Type: application/json\r\n", body)
    }

    /// Opens an event stream; its frames, each without the blank line at its end.
    pub fn watch(&self, path: &str, lines: &str) -> Frames {
        let mut stream = self.connect();
        stream.write_all(format!("{}{lines}\r\n", self.head("GET", path)).as_bytes()).unwrap();
        let mut frames = Frames(BufReader::new(stream));
        let head = frames.next_block();
        assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("content-type: text/event-stream"), "{head}");
        frames
    }
}

/// The frames of a stream.
#[derive(Debug)]
pub struct Frames(BufReader<TcpStream>);

impl Frames {
    fn next_block(&mut self) -> String {
        let mut block = String::new();
        loop {
            let before = block.len();
            if self.0.read_line(&mut block).expect("the stream goes on") == 0 || block[before..].trim().is_empty() {
                return block;
            }
        }
    }

    /// The next frame that is no comment and no chunk's length. `None`: the stream has ended.
    pub fn next_frame(&mut self) -> Option<String> {
        let mut frame = String::new();
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line).expect("the stream goes on") == 0 {
                return None;
            }
            let line = line.trim_end();
            match line.split_once(": ") {
                Some(("id" | "data" | "event", _)) => frame.push_str(&format!("{line}\n")),
                _ if line.is_empty() && !frame.is_empty() => return Some(frame),
                _ => {}
            }
        }
    }

    /// The next event: its id, and itself.
    pub fn next_event(&mut self) -> (String, Value) {
        let frame = self.next_frame().expect("an event");
        let line = |name: &str| frame.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        (
            line("id: ").to_owned(),
            serde_json::from_str(line("data: ")).unwrap_or_else(|error| panic!("{error}: {frame}")),
        )
    }
}
