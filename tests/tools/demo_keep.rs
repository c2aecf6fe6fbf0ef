//! The demo that stays up, with a stand-in for the demo: it is started once, found again, and ended with all it started.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails says why")]

#[path = "../demo/keep.rs"]
mod keep;

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use keep::Keeper;

/// The pid does not change on the way to the shell, as it does not in a sandbox.
fn shell(script: &str) -> Vec<OsString> {
    ["sh", "-c", script].map(OsString::from).to_vec()
}

/// A sandbox like that of `./dev in-lab`, around a shell.
fn sandbox(script: &str) -> Vec<OsString> {
    let unshare = "unshare --net --mount --pid --fork --kill-child --mount-proc";
    unshare.split(' ').map(OsString::from).chain(shell(script)).collect()
}

fn keep(keeper: &Keeper, command: &[OsString]) -> (Result<(), String>, String) {
    let mut out = Vec::new();
    let done = keeper.keep(command, &mut out);
    (done, String::from_utf8(out).unwrap())
}

/// Keeps what is shown, and lets the script go on behind `two`.
struct Release {
    shown: Vec<u8>,
    go: PathBuf,
}

impl Write for Release {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.shown.extend(text);
        if text == b"two\n" {
            fs::write(&self.go, "go\n")?;
        }
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn stop(keeper: &Keeper) -> String {
    let mut out = Vec::new();
    keeper.stop(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn one_demo_stays_until_it_is_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let (keeper, pid_file) = (Keeper::new(dir.path()), dir.path().join("demo.pid"));
    // The last line is complete only after those before it have been shown.
    let go = dir.path().join("go");
    let made = Command::new("mkfifo").arg(&go).status().unwrap();
    assert!(made.success());
    let script = format!("echo one; printf 'two\\nrea'; read -r _ <{}; echo dy; exec sleep 30", go.display());
    let mut shown = Release { shown: Vec::new(), go };
    keeper.keep(&shell(&script), &mut shown).unwrap();
    let shown = String::from_utf8(shown.shown).unwrap();
    let pid = fs::read_to_string(&pid_file).unwrap().split_once(' ').unwrap().0.to_owned();
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines[..2], ["one", "two"]);
    assert!(lines.len() == 3 && lines[2].contains(&format!("process {pid}, log")), "{shown}");
    let session = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    assert_eq!(session.rsplit_once(") ").unwrap().1.split(' ').nth(3), Some(pid.as_str()), "a session of its own");

    let refused = keeper.absent().unwrap_err();
    assert!(refused.contains(&format!("already running (process {pid})")), "{refused}");
    let (again, shown) = keep(&keeper, &shell("echo ready; exec sleep 30"));
    assert_eq!((again.unwrap_err(), shown.as_str()), (refused, ""));

    assert_eq!(stop(&keeper), format!("==> ending the demo (process {pid})\n"));
    let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    assert!(state.is_empty() || state.contains(") Z "), "{state}");
    assert!(!pid_file.exists());
    assert_eq!(stop(&keeper), "==> no demo is running\n");
    keeper.absent().unwrap();
}

#[test]
fn a_command_runs_inside_and_nothing_is_left_after_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let keeper = Keeper::new(dir.path());
    assert!(keeper.exec(&shell("true")).unwrap_err().contains("no demo is running"));
    let inner = dir.path().join("inner");
    let script =
        format!("sleep 30 & mount -t tmpfs tmpfs {0}; echo inside >{0}/mark; echo ready; wait", inner.display());
    fs::create_dir(&inner).unwrap();
    keep(&keeper, &sandbox(&script)).0.unwrap();
    let look = format!("cat {}/mark; ps -o args= -p 1; exit 7", inner.display());
    let output = keeper.exec(&shell(&look)).unwrap().stderr(Stdio::inherit()).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.starts_with("inside\nsh -c sleep 30"), "{said}");
    assert_eq!(output.status.code(), Some(7));
    assert!(!inner.join("mark").exists(), "it has mounts of its own");

    let pid = fs::read_to_string(dir.path().join("demo.pid")).unwrap().split_once(' ').unwrap().0.to_owned();
    let first = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap().trim().to_owned();
    assert!(fs::exists(format!("/proc/{first}/exe")).unwrap(), "{first}");
    stop(&keeper);
    assert!(fs::read_link(format!("/proc/{first}/exe")).is_err(), "the first process of the sandbox still runs");
}

#[test]
fn a_demo_that_ends_too_early_leaves_its_last_words_and_no_pid_file() {
    let dir = tempfile::tempdir().unwrap();
    let (done, shown) = keep(&Keeper::new(dir.path()), &shell("echo no phones; printf because >&2; exit 3"));
    let why = done.unwrap_err();
    let log = dir.path().join("demo.log");
    assert!(why.contains("before it was ready") && why.contains(log.to_str().unwrap()), "{why}");
    assert_eq!(
        (shown.as_str(), fs::read_to_string(log).unwrap().as_str()),
        ("no phones\nbecause", "no phones\nbecause")
    );
    assert!(!dir.path().join("demo.pid").exists());
}

#[test]
fn a_pid_that_was_given_away_is_not_the_demo() {
    let dir = tempfile::tempdir().unwrap();
    let (keeper, pid_file) = (Keeper::new(dir.path()), dir.path().join("demo.pid"));
    let mut other = Command::new("sleep").arg("30").spawn().unwrap();
    for text in [format!("{} 1\n", other.id()), "17".to_owned(), String::new(), "0 0\n".to_owned()] {
        fs::write(&pid_file, &text).unwrap();
        keeper.absent().unwrap();
        assert_eq!(stop(&keeper), "==> no demo is running\n", "{text}");
        assert!(!pid_file.exists());
    }
    assert_eq!(other.try_wait().unwrap(), None);
    other.kill().unwrap();
    other.wait().unwrap();
}

#[test]
fn two_starts_at_once_make_one_demo() {
    let dir = tempfile::tempdir().unwrap();
    let lock = File::create(dir.path().join("demo.lock")).unwrap();
    lock.lock().unwrap();
    let (done, shown) = keep(&Keeper::new(dir.path()), &shell("echo ready; exec sleep 30"));
    assert!(done.unwrap_err().contains("another ./dev demo --keep"), "{shown}");
    assert!(!dir.path().join("demo.log").exists());
}
