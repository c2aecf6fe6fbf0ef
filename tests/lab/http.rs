//! What a daemon says over HTTP on its own loopback, where nobody but its host can ask.
//!
//! Owns the one request and the reading of Prometheus's text. Must never need a setting of the daemon: it asks at the
//! default address.

use std::collections::BTreeMap;
use std::process::Command;

use super::Node;

/// The address that a daemon listens at if nothing else is said.
const DEFAULT: &str = "/dev/tcp/127.0.0.1/9816";

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// 200, 503, ...; 0 if nobody listens.
    pub status: u16,
    /// The head.
    pub head: String,
    /// What follows it.
    pub body: String,
}

/// Sends these bytes to the daemon of a node, from inside of its network, and reads to the end.
pub fn send(node: &Node, request: &str) -> Answer {
    let script = format!("exec 2>/dev/null 3<>{DEFAULT} || exit 0; printf %s \"$0\" >&3; cat <&3");
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &node.namespace(), "bash", "-c", &script, request]);
    let output = command.output().expect("run bash");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

/// `GET path`.
pub fn get(node: &Node, path: &str) -> Answer {
    send(node, &format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", node.name()))
}

/// Every sample of a page, by its name with labels.
pub fn samples(page: &str) -> BTreeMap<String, f64> {
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    let sample = |line: &str| {
        let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no sample: {line:?}"));
        (name.to_owned(), value.parse().unwrap_or_else(|error| panic!("{line:?}: {error}")))
    };
    lines.map(sample).collect()
}
