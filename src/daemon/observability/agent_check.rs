//! The task that answers HAProxy's agent checks: one line from memory, and close. Owns the listener, its limits and the
//! words. Must never change anything or wait for another task: it reads the status that they publish.
//!
//! HAProxy takes back only what the agent takes back: after `drain` it wants to hear `ready`, after `down` `up` (its
//! configuration manual, `agent-check`). So a node that takes calls always says both. `NN%` is a share of the weight that
//! HAProxy has for the server; 0 % would drain it.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::status::{DaemonStatus, Name};
use crate::config::LiveSettings;
use crate::ids::{NodeName, Now};
use crate::node::{AdminState, NodeState};
use crate::runtime::clock::Clock;
use crate::runtime::listener;

/// What is served, for the log.
const SERVICE: &str = "agent checks of HAProxy";
/// Connections at once. One more ends the others: each is over within milliseconds, unless it is no HAProxy.
const CONNECTIONS_MOST: usize = 64;
/// How long a line is waited for. HAProxy sends one only if it is configured (`agent-send`).
const LINE_TIME: Duration = Duration::from_millis(30);
/// The longest line that is read, in bytes.
const LINE_BYTES: usize = 32;
/// Time limit for the answer.
const ANSWER_TIME: Duration = Duration::from_secs(1);

/// The task.
#[derive(Debug)]
pub(in crate::daemon) struct AgentCheck {
    pub(in crate::daemon) node: NodeName,
    pub(in crate::daemon) address: SocketAddr,
    pub(in crate::daemon) shown: Shown,
}

/// What is shown.
#[derive(Debug, Clone)]
pub(in crate::daemon) struct Shown {
    pub(in crate::daemon) status: watch::Receiver<DaemonStatus>,
    pub(in crate::daemon) settings: watch::Receiver<LiveSettings>,
    pub(in crate::daemon) clock: Clock,
    pub(in crate::daemon) lease: Duration,
}

/// What HAProxy asks about: calls go to a node, requests to any daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Subject {
    Node,
    Api,
}

impl AgentCheck {
    /// Answers until the daemon ends.
    pub(in crate::daemon) async fn run(self) {
        let listener = listener::listen(&self.node, SERVICE, self.address, self.shown.clock).await;
        let mut open = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                Some(_) = open.join_next(), if !open.is_empty() => {}
                (stream, _) = listener::accept(&self.node, SERVICE, &listener) => {
                    if open.len() == CONNECTIONS_MOST {
                        open.abort_all();
                    }
                    open.spawn(answer(stream, self.shown.clone()));
                }
            }
        }
    }
}

async fn answer(mut stream: TcpStream, shown: Shown) {
    let subject = asked(&mut stream).await;
    let most = shown.settings.borrow().node.max_agents;
    let line = words(subject, &shown.status.borrow(), shown.clock.now(), shown.lease, most);
    // Whoever has gone has no use for an answer.
    let _ = tokio::time::timeout(ANSWER_TIME, async {
        stream.write_all(format!("{line}\n").as_bytes()).await?;
        stream.shutdown().await
    })
    .await;
}

/// What the client asks about. Without a line, or with one that is not known, it is the node.
async fn asked(stream: &mut TcpStream) -> Subject {
    let (mut line, mut read) = ([0; LINE_BYTES], 0);
    let whole = async {
        while read < LINE_BYTES && !line[..read].contains(&b'\n') {
            match stream.read(&mut line[read..]).await {
                Ok(0) | Err(_) => return,
                Ok(count) => read += count,
            }
        }
    };
    // In time or not: what has come counts.
    let _ = tokio::time::timeout(LINE_TIME, whole).await;
    match line[..read].trim_ascii() {
        b"api" => Subject::Api,
        _ => Subject::Node,
    }
}

/// The answer. `most`: the node's cap of local agents.
fn words(subject: Subject, status: &DaemonStatus, now: Now, lease: Duration, most: Option<u32>) -> String {
    let lapsed = status.beat.is_none_or(|beat| now.since(beat) > lease);
    if subject == Subject::Api {
        let down = status.stopping || status.redis_down || lapsed;
        return if down { "down #redis".to_owned() } else { "up ready 100%".to_owned() };
    }
    let down = match (status.stopping, status.state, status.name) {
        (true, _, _) => Some("stopping"),
        (false, NodeState::Starting | NodeState::Down | NodeState::Stopping, _) => Some(status.state.as_str()),
        (false, NodeState::Active, Name::Held) => Some("name-held"),
        (false, NodeState::Active, Name::Unasked) => Some("starting"),
        // A node that cannot reach Redis for a moment still takes calls.
        (false, NodeState::Active, Name::Ours) => lapsed.then_some("lease-expired"),
    };
    if let Some(reason) = down {
        return format!("down #{reason}");
    }
    match status.admin_state {
        AdminState::Drain => "up drain".to_owned(),
        AdminState::Ready => format!("up ready {}%", most.map_or(100, |most| free_share(status, most))),
    }
}

/// The share of the cap that is free, in percent, 1 at least.
fn free_share(status: &DaemonStatus, most: u32) -> u64 {
    let taken = u64::try_from(status.counts.local() + status.counts_in_redis.reserved).unwrap_or(u64::MAX);
    let most = u64::from(most);
    (most.saturating_sub(taken) * 100).checked_div(most).unwrap_or(0).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(3);

    #[track_caller]
    fn check(change: impl FnOnce(&mut DaemonStatus), ms: u64, node: &str, api: &str) {
        let at = |ms| Now(Duration::from_millis(ms));
        let mut status = DaemonStatus::new();
        (status.state, status.connected, status.name, status.beat) =
            (NodeState::Active, true, Name::Ours, Some(at(1000)));
        change(&mut status);
        let words = [Subject::Node, Subject::Api].map(|subject| words(subject, &status, at(ms), LEASE, Some(8)));
        assert_eq!(words, [node, api]);
    }

    #[test]
    fn each_state_has_words_that_take_back_the_ones_before() {
        let up = "up ready 100%";
        check(|_| {}, 4000, up, up);
        check(|status| status.redis_down = true, 4000, up, "down #redis");
        check(|_| {}, 4001, "down #lease-expired", "down #redis");
        check(|status| status.name = Name::Held, 1000, "down #name-held", up);
        check(|status| status.state = NodeState::Down, 1000, "down #down", up);
        check(|status| status.state = NodeState::Starting, 1000, "down #starting", up);
        check(|status| status.state = NodeState::Stopping, 1000, "down #stopping", up);
        check(|status| status.stopping = true, 1000, "down #stopping", "down #redis");
        check(|status| status.admin_state = AdminState::Drain, 1000, "up drain", up);
        check(|status| *status = DaemonStatus::new(), 0, "down #starting", "down #redis");
    }

    #[test]
    fn the_share_is_what_is_free_and_never_none() {
        let live = |count| move |status: &mut DaemonStatus| status.counts.agents[0] = ("local", "live", count);
        for (count, percent) in [(0, 100), (1, 87), (4, 50), (7, 12), (8, 1), (9, 1)] {
            check(live(count), 1000, &format!("up ready {percent}%"), "up ready 100%");
        }
        check(|status| status.counts_in_redis.reserved = 2, 1000, "up ready 75%", "up ready 100%");
        let mut status = DaemonStatus::new();
        assert_eq!(free_share(&status, 0), 1);
        status.counts.agents[1] = ("remote", "live", 8);
        assert_eq!(free_share(&status, 8), 100, "remote agents take no seat");
    }
}
