//! Asks the daemon of this node whether it is ready (`/readyz`), because it may see what a shell does not. Owns that question
//! and the judgement of the answer. Must never ask another host.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::finding::Finding;
use crate::config::Settings;

/// For the whole question.
const LIMIT: Duration = Duration::from_secs(3);
/// Bytes of an answer.
const ANSWER_BYTES: u64 = 16 << 10;

/// What is found already, and is therefore no second finding.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Known {
    /// Redis refuses logins.
    pub(super) redis: bool,
    /// Asterisk does not let the manager user in.
    pub(super) asterisk: bool,
}

pub(super) async fn ask(settings: &Settings, known: Known) -> Vec<Finding> {
    let Some(address) = settings.http.listen else {
        let fix = "set http.listen, or look at `systemctl status evenring`";
        let text = "http.listen is off: the daemon was not asked whether it is ready";
        return vec![Finding::note("daemon", text, fix).code("daemon.unchecked")];
    };
    // Where it listens on all addresses, it listens on this host's own.
    let mut own = address;
    if own.ip().is_unspecified() {
        own.set_ip(if own.is_ipv4() { [127, 0, 0, 1].into() } else { std::net::Ipv6Addr::LOCALHOST.into() });
    }
    match tokio::time::timeout(LIMIT, get(own)).await {
        Ok(Ok(answer)) => judge(&answer, known),
        Ok(Err(error)) => vec![silent(own, &error.to_string())],
        Err(_) => vec![silent(own, "no answer in time")],
    }
}

/// One request, as `curl` would make it.
async fn get(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(format!("GET /readyz HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn silent(address: SocketAddr, why: &str) -> Finding {
    let fix = "see `systemctl status evenring` and `journalctl -u evenring`; start it with `systemctl start evenring`";
    Finding::failure("daemon", format!("no daemon answers at http://{address}/readyz: {why}"), fix)
        .code("daemon.silent")
}

/// The first line of the body has the words, a line for each of them the reason.
fn judge(answer: &str, known: Known) -> Vec<Finding> {
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    if body.trim() == "ready" {
        return vec![Finding::ok("daemon", "it is ready: a login would work here")];
    }
    if !body.starts_with("not ready") {
        let text = "what answers at http.listen is no daemon of evenring";
        return vec![Finding::failure("daemon", text, "give each program its own port").code("daemon.silent")];
    }
    let mut findings = Vec::new();
    for line in body.lines().skip(1) {
        let (word, why) = line.split_once(": ").unwrap_or((line, ""));
        let text = format!("the daemon of this node is not ready: {word}: {why}");
        findings.extend(match word {
            "redis" if known.redis => None,
            "asterisk" if known.asterisk => None,
            // An operator's own wish.
            "draining" => Some(Finding::note("daemon", text, "`evenring resume NODE`, when it may take logins again")),
            "stopping" => Some(Finding::warning("daemon", text, "start it again: `systemctl start evenring`")),
            _ => {
                Some(Finding::failure("daemon", text, "see its log: `journalctl -u evenring -p warning --since -10m`"))
            }
        });
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::finding::check;
    use super::*;

    fn of(body: &str, known: Known) -> Vec<Finding> {
        judge(&format!("HTTP/1.0 503 Service Unavailable\r\ncontent-length: 1\r\n\r\n{body}"), known)
    }

    #[test]
    fn each_missing_thing_is_a_finding_unless_its_cause_is_known() {
        check(&of("ready\n", Known::default()), &[("daemon", "ok", "ready", "")]);
        let body =
            "not ready: asterisk, redis, draining\nasterisk: AMI unavailable\nredis: no ZADD\ndraining: drained\n";
        let draining = ("daemon", "note", "draining: drained", "evenring resume");
        check(
            &of(body, Known::default()),
            &[
                ("daemon", "failure", "asterisk: AMI unavailable", "journalctl"),
                ("daemon", "failure", "redis: no ZADD", "journalctl"),
                draining,
            ],
        );
        check(&of(body, Known { redis: true, asterisk: true }), &[draining]);
        check(&of("<html>", Known::default()), &[("daemon", "failure", "no daemon of evenring", "port")]);
    }
}
