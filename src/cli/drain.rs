//! `evenring drain` and `evenring resume`: take a node out of the rotation and back into it; `drain --wait` waits until
//! it is empty. Owns the waiting and the texts. Must never move an order itself: the script does.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::time::Duration;

use clap::Args;

use super::{CliError, DONE, FAILED, USAGE, escape, known, output};
use crate::config::{span, span_text};
use crate::ids::{NodeName, Now};
use crate::node::AdminState;
use crate::registry::answers::DrainAnswer;
use crate::registry::view::NodeRow;
use crate::registry::{Registry, RegistryError, Turned};
use crate::runtime::clock::Clock;

#[derive(Debug, Args)]
#[command(after_help = "\
Agents who are logged in stay until they log out; no call is dropped. Logins that the node has not
rung yet are placed on other nodes. The node keeps draining until `evenring resume`, even if its
daemon restarts.

Exit codes: 0 done (with --wait: the node is empty), 1 the deadline passed, 2 no such node,
3 Redis unavailable.

Examples:
  evenring drain tel-1                            no new logins on tel-1
  evenring drain tel-1 --wait --deadline 30m && systemctl stop asterisk
  evenring resume tel-1")]
pub(super) struct DrainArgs {
    /// Name of the node.
    node: NodeName,
    /// Wait until no agent is left on the node, local or remote.
    #[arg(long)]
    wait: bool,
    /// Wait at most this long, e.g. 90s or 30m. The node keeps draining.
    #[arg(long, value_name = "TIME", requires = "wait", value_parser = span)]
    deadline: Option<Duration>,
    /// Print one JSON document instead of text.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  evenring resume tel-1")]
pub(super) struct ResumeArgs {
    /// Name of the node.
    node: NodeName,
    /// Print one JSON document instead of text.
    #[arg(long)]
    json: bool,
}

/// Interval at which a draining node is checked.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// How long Redis, or its record of the node, may be missing during the wait: a failover, a restart.
const AWAY_MOST: Duration = Duration::from_secs(15);

pub(super) async fn drain(registry: &mut Registry, args: &DrainArgs) -> Result<u8, CliError> {
    let Some(turned) = request(registry, &args.node, AdminState::Drain).await? else { return Ok(USAGE) };
    if !args.json {
        say_drained(&args.node, &turned);
    }
    if turned.others == 0 {
        let node = &args.node;
        output::warn(&format!(
            "no other node is in the rotation: all logins are refused until one is, or until `evenring resume {node}`"
        ));
    }
    let (left, over) = if args.wait {
        wait(registry, &args.node, args.deadline).await?
    } else {
        (look(registry, &args.node).await?.unwrap_or_default(), true)
    };
    if args.json {
        say_json(&args.node, AdminState::Drain, &turned, left);
    } else if over {
        let hint = if left.is_empty() || args.wait { "" } else { "; they stay until they log out" };
        output::line_out(&format!("{}: {}{hint}", args.node, left.text()));
    }
    if !over {
        output::complain(&format!(
            "{}: {} after {}; the node keeps draining: wait again, log them out (`evenring sessions`, `evenring \
                logout`), or cancel with `evenring resume {}`",
            args.node,
            left.text(),
            span_text(args.deadline.unwrap_or_default()),
            args.node,
        ));
    }
    Ok(if over { DONE } else { FAILED })
}

pub(super) async fn resume(registry: &mut Registry, args: &ResumeArgs) -> Result<u8, CliError> {
    let Some(turned) = request(registry, &args.node, AdminState::Ready).await? else { return Ok(USAGE) };
    if args.json {
        let left = look(registry, &args.node).await?.unwrap_or_default();
        say_json(&args.node, AdminState::Ready, &turned, left);
    } else {
        let words = match turned.before {
            AdminState::Drain => "takes logins again",
            AdminState::Ready => "was not draining",
        };
        output::line_out(&format!("{}: {words}", args.node));
    }
    Ok(DONE)
}

/// `None`, with a complaint: there is no such node.
async fn request(registry: &mut Registry, node: &NodeName, to: AdminState) -> Result<Option<Turned>, RegistryError> {
    let turned = registry.set_admin_state(node, to).await?;
    if turned.is_none() {
        known::no_such_node(registry, node).await?;
    }
    Ok(turned)
}

fn say_drained(node: &NodeName, turned: &Turned) {
    let mut text = match turned.before {
        AdminState::Ready => format!("{node}: draining: no new logins, active sessions stay"),
        AdminState::Drain => format!("{node}: already draining"),
    };
    let failed = turned.moved.iter().filter(|moved| moved.node.is_none()).count();
    let elsewhere = turned.moved.len() - failed;
    for (count, what) in [(elsewhere, "placed on other nodes"), (failed, "failed, no other node can ring them")] {
        if count > 0 {
            // Writing to a String cannot fail.
            let _ = write!(text, "; queued logins {what}: {count}");
        }
    }
    output::line_out(&text);
}

fn say_json(node: &NodeName, now: AdminState, turned: &Turned, left: Left) {
    output::json(&DrainAnswer::of(node, now, turned, (left.agents, left.remote)));
}

/// How many agents are still logged in on a node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Left {
    agents: u64,
    remote: u64,
}

impl Left {
    fn is_empty(self) -> bool {
        self == Self::default()
    }

    fn text(self) -> String {
        let Self { agents, remote } = self;
        match (agents, remote) {
            (0, 0) => "no agents are left".to_owned(),
            (1, 0) => "1 agent is left".to_owned(),
            (0, 1) => "1 agent is left (remote)".to_owned(),
            (_, 0) => format!("{agents} agents are left"),
            (_, _) => format!("{} agents are left ({remote} remote)", agents + remote),
        }
    }
}

/// `None`: Redis does not know the node (any more).
async fn look(registry: &mut Registry, node: &NodeName) -> Result<Option<Left>, RegistryError> {
    let left = |row: NodeRow| Left { agents: row.agents, remote: row.remote };
    Ok(registry.nodes().await?.into_iter().find(|row| row.name == node.as_str()).map(left))
}

/// Waits until no agent is left. Returns who is left at the end, and whether the node is empty.
async fn wait(
    registry: &mut Registry,
    node: &NodeName,
    deadline: Option<Duration>,
) -> Result<(Left, bool), RegistryError> {
    let clock = Clock::start();
    let mut progress = Progress::default();
    let (mut left, mut empty_before, mut seen) = (Left::default(), false, clock.now());
    // Until then, a node that has just registered again may not have reported its sessions.
    let (repair, mut untold_until) = (registry.repair_time(), clock.now());
    loop {
        let now = clock.now();
        match look(registry, node).await {
            Ok(Some(found)) => {
                progress.show(node, found);
                // A Redis that has just lost its data shows no sessions until the daemon has reported them again.
                if found.is_empty() && empty_before && now >= untold_until {
                    progress.end();
                    return Ok((found, true));
                }
                (left, empty_before, seen) = (found, found.is_empty(), now);
            }
            // The daemon registers again at its next heartbeat.
            Ok(None) if now.since(seen) < AWAY_MOST => {
                (empty_before, untold_until) = (false, now.after(repair));
            }
            Ok(None) => {
                progress.end();
                return Err(RegistryError::Forgotten);
            }
            Err(error) if error.is_outage() && now.since(seen) < AWAY_MOST => {
                (empty_before, untold_until) = (false, now.after(repair));
            }
            Err(error) => {
                progress.end();
                return Err(error);
            }
        }
        if deadline.is_some_and(|most| now >= Now(most)) {
            progress.end();
            return Ok((left, left.is_empty()));
        }
        let pause = deadline.map_or(LOOK_AGAIN, |most| LOOK_AGAIN.min(Now(most).since(clock.now())));
        tokio::time::sleep(pause).await;
    }
}

/// Progress of the wait: one changing line on a terminal, otherwise a line for every change.
#[derive(Debug, Default)]
struct Progress {
    shown: Option<Left>,
    open: bool,
}

impl Progress {
    fn show(&mut self, node: &NodeName, left: Left) {
        if self.shown.replace(left) == Some(left) {
            return;
        }
        let mut out = std::io::stderr();
        let text = escape::line(&format!("{node}: {}", left.text())).into_owned();
        // A closed stderr is not an error.
        if out.is_terminal() && !output::is_dumb() {
            self.open = true;
            let _ = write!(out, "\r\x1b[K{text}");
            let _ = out.flush();
        } else {
            let _ = writeln!(out, "{text}");
        }
    }

    fn end(&mut self) {
        if std::mem::take(&mut self.open) {
            let _ = writeln!(std::io::stderr());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_left_in_words() {
        let text = |agents, remote| Left { agents, remote }.text();
        assert_eq!(text(0, 0), "no agents are left");
        assert_eq!(text(1, 0), "1 agent is left");
        assert_eq!(text(12, 0), "12 agents are left");
        assert_eq!(text(2, 1), "3 agents are left (1 remote)");
        assert_eq!(text(0, 1), "1 agent is left (remote)");
    }
}
