//! The task that runs the operators' command for an Asterisk that stays unavailable. Owns when it runs, and how that is
//! reported. Must never run it while calls may be alive: if what the node loop saw last does not rule that out, nothing
//! runs.
//!
//! Two situations rule it out. Nothing listens at the AMI address: there is no Asterisk, and no call. Or Asterisk does
//! not respond, and had no channel when it was last in sync. An Asterisk that was frozen with calls resumes them when it
//! continues, so the command never runs then.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, ChildStderr, Command};
use tokio::sync::watch;
use tracing::{debug, info, warn};

use super::observability::metrics::Metrics;
use super::observability::status::{DaemonStatus, Name};
use crate::config::{KeepaliveSettings, span_text};
use crate::ids::{Generation, NodeName, Now};
use crate::node::AdminState;
use crate::registry::{Registry, RegistryError};
use crate::runtime::clock::Clock;

/// How much of the command's stderr is logged, in bytes.
const SAID_BYTES: usize = 1_000;
const SAID_LINES: usize = 5;
/// How long stderr is read after the command ends: its children may hold it open for ever.
const LAST_WORDS: Duration = Duration::from_millis(200);
/// Pause after Redis says that this daemon does not own the node.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// The task.
#[derive(Debug)]
pub(super) struct Keepalive {
    pub(super) settings: KeepaliveSettings,
    pub(super) registry: Registry,
    pub(super) node: NodeName,
    pub(super) generation: Generation,
    pub(super) clock: Clock,
    pub(super) metrics: Metrics,
}

/// Why AMI is unavailable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    /// Nothing listens there.
    Gone(Duration),
    /// Asterisk hangs, and had no channel.
    Hangs(Duration),
}

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let whole = |span: &Duration| span_text(Duration::from_secs(span.as_secs()));
        match self {
            Self::Gone(span) => write!(f, "nothing has listened at ami.address for {}", whole(span)),
            Self::Hangs(span) => {
                write!(f, "AMI has not responded for {}, and there were no channels before", whole(span))
            }
        }
    }
}

/// The decision.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// Nothing, until something changes.
    Nothing,
    /// The same, until then.
    Wait(Now),
    /// Run the command.
    Run(Why),
}

/// Decides; see the header of this file. The command never runs on a draining node: an operator is working on it.
fn verdict(status: &DaemonStatus, settings: &KeepaliveSettings, last: Option<Now>, now: Now) -> Verdict {
    let (Some(away), false) = (status.away, status.stopping) else { return Verdict::Nothing };
    match (status.name, status.admin_state) {
        (Name::Ours, AdminState::Ready) => {}
        (Name::Ours | Name::Unasked | Name::Held, _) => return Verdict::Nothing,
    }
    let (since, why): (Now, fn(Duration) -> Why) = match (away.refused, away.channels) {
        (Some(since), _) => (since, Why::Gone),
        (None, Some(0)) if away.silent => (away.since, Why::Hangs),
        (None, Some(_) | None) => return Verdict::Nothing,
    };
    let due = last.map_or(Duration::ZERO, |last| last.after(settings.every).0).max(since.after(settings.after).0);
    if now.0 < due { Verdict::Wait(Now(due)) } else { Verdict::Run(why(now.since(since))) }
}

/// How the command ended.
#[derive(Debug)]
enum End {
    Ended(ExitStatus),
    Killed(Duration),
    NotStarted(std::io::Error),
}

impl End {
    /// For the metric.
    fn label(&self) -> &'static str {
        match self {
            Self::Ended(status) if status.success() => "done",
            Self::Ended(_) => "failed",
            Self::Killed(_) => "killed",
            Self::NotStarted(_) => "not-started",
        }
    }
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ended(status) => write!(f, "{status}"),
            Self::Killed(after) => write!(f, "killed after {}", span_text(*after)),
            Self::NotStarted(error) => write!(f, "not started: {error}"),
        }
    }
}

impl Keepalive {
    /// Watches until the daemon ends.
    pub(super) async fn run(mut self, mut status: watch::Receiver<DaemonStatus>) {
        let mut last = None;
        loop {
            let now = self.clock.now();
            let seen = verdict(&status.borrow_and_update(), &self.settings, last, now);
            let until = match seen {
                Verdict::Nothing => None,
                Verdict::Wait(until) => Some(until),
                Verdict::Run(why) => match self.begin(why).await {
                    Ok(()) => {
                        last = Some(self.clock.now());
                        self.once(&status).await;
                        continue;
                    }
                    Err(left) => {
                        // An earlier life of this daemon ran it.
                        last = Some(Now((now.0 + left).saturating_sub(self.settings.every)));
                        Some(now.after(left))
                    }
                },
            };
            tokio::select! {
                changed = status.changed() => if changed.is_err() { return },
                () = self.clock.sleep_until(until) => {}
            }
        }
    }

    /// Records the run in Redis. `Err` is how long to wait before the next run. An outage of Redis does not prevent a run.
    async fn begin(&mut self, why: Why) -> Result<(), Duration> {
        let (node, generation, every) = (&self.node, self.generation, self.settings.every);
        let why = why.to_string();
        let begun = self.registry.keepalive_begins(node, generation, every, &why);
        match self.metrics.redis("keepalive", begun).await {
            Ok(None) => {}
            Ok(Some(left)) => return Err(left),
            Err(RegistryError::Fenced | RegistryError::Forgotten) => return Err(ASK_AGAIN),
            Err(error) => debug!(%node, reason = %error, "the run was not recorded"),
        }
        let program = self.settings.command.first().map_or("", String::as_str);
        warn!(%node, reason = why, program, "Asterisk still unavailable: running the keepalive command");
        Ok(())
    }

    /// Runs the command, unless Asterisk is back by now.
    async fn once(&mut self, status: &watch::Receiver<DaemonStatus>) {
        let back = status.borrow().away.is_none();
        let (end, stderr) = if back { (Err("not run: Asterisk is back"), String::new()) } else { self.spawn().await };
        let result = end.as_ref().map_or_else(|back| (*back).to_owned(), End::to_string);
        let node = &self.node;
        match &end {
            Ok(End::Ended(status)) if status.success() => {
                info!(%node, result, stderr, "keepalive command finished");
            }
            Ok(End::Ended(_) | End::Killed(_) | End::NotStarted(_)) => {
                warn!(%node, result, stderr, "keepalive command failed");
            }
            Err(_) => info!(%node, result, "keepalive command not needed"),
        }
        if let Ok(end) = &end {
            self.metrics.keepalive.inc(end.label());
        }
        let ended = self.registry.keepalive_ended(node, self.generation, &result);
        if let Err(error) = self.metrics.redis("keepalive", ended).await {
            debug!(%node, reason = %error, "the end of the run was not recorded");
        }
    }

    /// Runs the command; returns how it ended and the beginning of its stderr.
    async fn spawn(&self) -> (Result<End, &'static str>, String) {
        let Some((program, arguments)) = self.settings.command.split_first() else {
            return (Err("not run: there is no command"), String::new());
        };
        let mut command = Command::new(program);
        command.args(arguments).env_clear().current_dir("/").process_group(0).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => return (Ok(End::NotStarted(error)), String::new()),
        };
        let (mut stderr, mut said) = (child.stderr.take(), Vec::new());
        let end = match tokio::time::timeout(self.settings.timeout, wait(&mut child, &mut stderr, &mut said)).await {
            Ok(Ok(status)) => End::Ended(status),
            Ok(Err(error)) => End::NotStarted(error),
            Err(_) => {
                kill(&mut child).await;
                End::Killed(self.settings.timeout)
            }
        };
        // An error is a pipe that somebody still holds open.
        let _late = tokio::time::timeout(LAST_WORDS, async { while read(&mut stderr, &mut said).await {} }).await;
        (Ok(end), first_lines(&said))
    }
}

/// Waits for the end while reading stderr, so that the command never blocks on a full pipe.
async fn wait(
    child: &mut Child,
    stderr: &mut Option<ChildStderr>,
    said: &mut Vec<u8>,
) -> Result<ExitStatus, std::io::Error> {
    loop {
        tokio::select! {
            status = child.wait() => return status,
            _ = read(stderr, said), if stderr.is_some() => {}
        }
    }
}

/// Reads a part of stderr, and keeps its beginning. Returns false at the end.
async fn read(stderr: &mut Option<ChildStderr>, said: &mut Vec<u8>) -> bool {
    let Some(pipe) = stderr else { return false };
    let mut part = [0; 1024];
    match pipe.read(&mut part).await {
        Ok(count) if count > 0 => {
            let room = SAID_BYTES.saturating_sub(said.len());
            said.extend(part.iter().take(count.min(room)));
            true
        }
        Ok(_) | Err(_) => {
            *stderr = None;
            false
        }
    }
}

/// Ends the command and all that it started in its process group.
async fn kill(child: &mut Child) {
    let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    if let Some(group) = group {
        // Gone already: that is what is wanted.
        let _ = kill_process_group(group, Signal::KILL);
    }
    let _ = child.kill().await;
}

fn first_lines(said: &[u8]) -> String {
    let text = String::from_utf8_lossy(said);
    let lines: Vec<String> =
        text.lines().take(SAID_LINES).map(|line| line.chars().filter(|c| !c.is_control()).collect()).collect();
    lines.join(" | ")
}

#[cfg(test)]
mod tests {
    use super::super::observability::status::Away;
    use super::*;

    fn at(s: u64) -> Now {
        Now(Duration::from_secs(s))
    }

    fn settings(command: &[&str], timeout: Duration) -> KeepaliveSettings {
        let command = command.iter().map(|word| (*word).to_owned()).collect();
        KeepaliveSettings { command, after: Duration::from_secs(60), every: Duration::from_secs(600), timeout }
    }

    /// Asterisk is away since second 100; the last run was at `last`, and it is `now`.
    #[track_caller]
    fn check(change: impl FnOnce(&mut DaemonStatus, &mut Away), last: Option<u64>, now: u64, expected: Verdict) {
        let mut away = Away { since: at(100), refused: None, silent: false, channels: Some(3) };
        let mut status = DaemonStatus::new();
        status.name = Name::Ours;
        change(&mut status, &mut away);
        status.away = status.away.or(Some(away));
        let settings = settings(&["/bin/true"], Duration::from_secs(1));
        assert_eq!(verdict(&status, &settings, last.map(at), at(now)), expected, "{status:?}");
    }

    #[test]
    fn it_runs_only_where_no_call_can_live() {
        let run = |why: fn(Duration) -> Why, s| Verdict::Run(why(Duration::from_secs(s)));
        // Nothing listens, whatever there was before.
        check(|_, away| away.refused = Some(at(110)), None, 169, Verdict::Wait(at(170)));
        check(|_, away| away.refused = Some(at(110)), None, 170, run(Why::Gone, 60));
        check(|_, away| (away.refused, away.channels) = (Some(at(110)), None), None, 170, run(Why::Gone, 60));
        // Silent: only without a channel.
        let silent =
            |channels| move |_: &mut DaemonStatus, away: &mut Away| (away.silent, away.channels) = (true, channels);
        check(silent(Some(0)), None, 160, run(Why::Hangs, 60));
        check(silent(Some(1)), None, 9_999, Verdict::Nothing);
        check(silent(None), None, 9_999, Verdict::Nothing);
        // It speaks, but lets nobody in.
        check(|_, away| away.channels = Some(0), None, 9_999, Verdict::Nothing);
        // At most so often.
        check(|_, away| away.refused = Some(at(110)), Some(200), 799, Verdict::Wait(at(800)));
        check(|_, away| away.refused = Some(at(110)), Some(200), 800, run(Why::Gone, 690));
        // Somebody works there, or it is not ours, or we end.
        check(
            |v, away| (away.refused, v.admin_state) = (Some(at(110)), AdminState::Drain),
            None,
            9_999,
            Verdict::Nothing,
        );
        check(|v, away| (away.refused, v.name) = (Some(at(110)), Name::Held), None, 9_999, Verdict::Nothing);
        check(|v, away| (away.refused, v.name) = (Some(at(110)), Name::Unasked), None, 9_999, Verdict::Nothing);
        check(|v, away| (away.refused, v.stopping) = (Some(at(110)), true), None, 9_999, Verdict::Nothing);
    }

    #[test]
    fn of_what_it_says_the_first_lines_are_kept() {
        assert_eq!(first_lines(b"one\ntwo\x1b[31m\r\nthree\n4\n5\n6\n"), "one | two[31m | three | 4 | 5");
        assert_eq!(first_lines(b""), "");
    }
}
