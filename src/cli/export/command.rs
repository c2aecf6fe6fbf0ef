//! The command that tells a proxy of a new list. Owns how it runs and when it has failed. Must never know what it does.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};

use crate::config::span_text;

/// How long it may run.
const TIME_MOST: Duration = Duration::from_secs(30);
/// How long its last words are waited for.
const LAST_WORDS: Duration = Duration::from_millis(100);
/// What is kept of each of its two outputs, in bytes.
const SAID_BYTES: usize = 4096;
/// kamcmd exits with 0 when Kamailio has refused, and prints this (measured, 5.6.3).
const REFUSED: &str = "error:";

/// The command's two outputs, and their beginnings.
struct Said {
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    text: (Vec<u8>, Vec<u8>),
}

impl Said {
    /// Reads a part of either; waits for ever after the end of both.
    async fn more(&mut self) {
        tokio::select! {
            () = read(&mut self.stdout, &mut self.text.0), if self.stdout.is_some() => {}
            () = read(&mut self.stderr, &mut self.text.1), if self.stderr.is_some() => {}
            else => std::future::pending().await,
        }
    }

    fn is_open(&self) -> bool {
        self.stdout.is_some() || self.stderr.is_some()
    }

    fn text(&self) -> String {
        [&self.text.1[..], &self.text.0[..]].map(|said| String::from_utf8_lossy(said).into_owned()).join("\n")
    }
}

/// Runs a command, and its reason if it failed. No command succeeds.
pub(super) async fn run(words: &[String]) -> Result<(), String> {
    let Some((program, arguments)) = words.split_first() else { return Ok(()) };
    let mut command = Command::new(program);
    command.args(arguments).process_group(0).kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("{program} could not be started: {error}"))?;
    let mut said = Said { stdout: child.stdout.take(), stderr: child.stderr.take(), text: Default::default() };
    let Ok(end) = tokio::time::timeout(TIME_MOST, wait(&mut child, &mut said)).await else {
        kill(&mut child).await;
        return Err(format!("{program} did not end within {} and was killed", span_text(TIME_MOST)));
    };
    // Somebody may hold a pipe open who is not waited for.
    let _late = tokio::time::timeout(LAST_WORDS, async {
        while said.is_open() {
            said.more().await;
        }
    })
    .await;
    let status = end.map_err(|error| format!("{program} could not be waited for: {error}"))?;
    judge(program, status, &said.text())
}

/// Whether it has done its work.
fn judge(program: &str, status: ExitStatus, said: &str) -> Result<(), String> {
    let refused = said.lines().find(|line| line.starts_with(REFUSED));
    if status.success() && refused.is_none() {
        return Ok(());
    }
    let first = refused.or_else(|| said.lines().find(|line| !line.trim().is_empty()));
    let first = first.map(|line| format!(": {line}")).unwrap_or_default();
    Err(format!("{program} failed ({status}){first}"))
}

/// Waits for the end while reading, so that the command never blocks on a full pipe.
async fn wait(child: &mut Child, said: &mut Said) -> std::io::Result<ExitStatus> {
    loop {
        tokio::select! {
            status = child.wait() => return status,
            () = said.more() => {}
        }
    }
}

async fn read(pipe: &mut Option<impl AsyncRead + Unpin>, said: &mut Vec<u8>) {
    let Some(open) = pipe else { return };
    let mut part = [0; 1024];
    match open.read(&mut part).await {
        Ok(count) if count > 0 => {
            let room = SAID_BYTES.saturating_sub(said.len());
            said.extend(part.iter().take(count.min(room)));
        }
        Ok(_) | Err(_) => *pipe = None,
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

#[cfg(test)]
mod tests {
    use super::*;

    async fn shell(line: &str) -> Result<(), String> {
        run(&["/bin/sh", "-c", line].map(str::to_owned)).await
    }

    #[tokio::test]
    async fn a_command_has_failed_if_it_says_so_in_either_way() {
        assert_eq!(run(&[]).await, Ok(()));
        assert_eq!(shell("echo fine; echo also >&2").await, Ok(()));
        assert_eq!(shell("head -c 300000 /dev/zero").await, Ok(()), "no pipe is full");
        let error = shell("echo; echo one; echo two; exit 3").await.unwrap_err();
        assert_eq!(error, "/bin/sh failed (exit status: 3): one");
        let error = shell("echo fine; echo 'error: 500 - Ongoing reload'").await.unwrap_err();
        assert_eq!(error, "/bin/sh failed (exit status: 0): error: 500 - Ongoing reload");
        let error = run(&["/no/such".to_owned()]).await.unwrap_err();
        assert!(error.starts_with("/no/such could not be started: No such file"), "{error}");
        // Who is left behind with the pipe is not waited for.
        assert_eq!(shell("sleep 20 & echo fine").await, Ok(()));
    }
}
