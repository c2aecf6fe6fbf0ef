//! A demo that stays up in the background: one at a time, and every later `./dev demo` finds it.
//!
//! Owns `demo.pid` (process and start time), `demo.log` and `demo.lock` in the cache folder. Must never know what a demo
//! shows, nor how a sandbox is made: the command that does both is an argument.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// Between two looks at the log.
const LOG_POLL: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
/// A process that was killed has ended within this.
const END_WITHIN: Timespec = Timespec { tv_sec: 30, tv_nsec: 0 };

/// The demo whose files lie in one cache folder.
pub(crate) struct Keeper {
    dir: PathBuf,
}

/// A process, which its start time tells apart from a later one with the same pid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Process {
    pid: Pid,
    start: u64,
}

impl Keeper {
    pub(crate) fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// Fails if a demo is running.
    pub(crate) fn absent(&self) -> Result<(), String> {
        self.running().map_or(Ok(()), |process| {
            Err(format!("a demo is already running (process {}); end it with ./dev demo --stop", process.pid))
        })
    }

    /// Starts the command in a session of its own and writes what it prints to `out`, until it prints `ready`. The
    /// command must keep its pid: its steps are execs.
    pub(crate) fn keep(&self, command: &[OsString], out: &mut impl Write) -> Result<(), String> {
        let lock = self.open("demo.lock")?;
        lock.try_lock().map_err(|_| "another ./dev demo --keep is starting a demo".to_owned())?;
        self.absent()?;
        let path = self.dir.join("demo.log");
        let log = File::create(&path).map_err(failed("write", &path))?;
        let errors = log.try_clone().map_err(failed("write", &path))?;
        let mut setsid = Command::new("setsid");
        let mut child = setsid.args(command).stdin(Stdio::null()).stdout(log).stderr(errors).spawn();
        let child = child.as_mut().map_err(|error| format!("setsid cannot be started: {error}"))?;
        let pid = Pid::from_child(child);
        if let Some(process) = Process::of(pid) {
            let file = self.pid_file();
            fs::write(&file, format!("{pid} {}\n", process.start)).map_err(failed("write", &file))?;
        }
        if show_until_ready(child, &path, out).map_err(failed("show", &path))? {
            let end = "look inside with ./dev demo --exec CMD, end it with ./dev demo --stop";
            return say(out, &format!("the demo stays up (process {pid}, log {}); {end}", path.display()));
        }
        self.forget()?;
        Err(format!("the demo ended before it was ready; its log is {}", path.display()))
    }

    /// What runs a command inside the demo that is running.
    pub(crate) fn exec(&self, command: &[OsString]) -> Result<Command, String> {
        let process = self.running().ok_or("no demo is running: start one with ./dev demo --keep")?;
        let first = process.first_child().ok_or("the demo is just ending")?;
        let mut nsenter = Command::new("nsenter");
        nsenter.args(["-t", &first.pid.to_string(), "--net", "--mount", "--pid", "--"]).args(command);
        Ok(nsenter)
    }

    /// Kills the demo that is running, and returns when nothing of it is left.
    pub(crate) fn stop(&self, out: &mut impl Write) -> Result<(), String> {
        match self.running() {
            Some(process) => {
                say(out, &format!("ending the demo (process {})", process.pid))?;
                process.end()?;
            }
            None => say(out, "no demo is running")?,
        }
        self.forget()
    }

    fn pid_file(&self) -> PathBuf {
        self.dir.join("demo.pid")
    }

    fn open(&self, name: &str) -> Result<File, String> {
        let path = self.dir.join(name);
        File::options().create(true).append(true).open(&path).map_err(failed("open", &path))
    }

    fn forget(&self) -> Result<(), String> {
        match fs::remove_file(self.pid_file()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", &self.pid_file())(error)),
            _ => Ok(()),
        }
    }

    fn running(&self) -> Option<Process> {
        let text = fs::read_to_string(self.pid_file()).ok()?;
        let (pid, start) = text.trim_end().split_once(' ')?;
        let process = Process { pid: Pid::from_raw(pid.parse().ok()?)?, start: start.parse().ok()? };
        process.lives().then_some(process)
    }
}

impl Process {
    /// The process that has this pid now; none if it is dead, even if its parent has not noticed yet.
    fn of(pid: Pid) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (_, fields) = stat.rsplit_once(") ")?;
        let fields: Vec<&str> = fields.split(' ').collect();
        let is_dead = matches!(*fields.first()?, "Z" | "X");
        let start = fields.get(19)?.parse().ok()?;
        (!is_dead).then_some(Self { pid, start })
    }

    fn lives(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// The first process of the sandbox, which is the child of the one that made the sandbox.
    fn first_child(self) -> Option<Self> {
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.pid)).ok()?;
        Self::of(Pid::from_raw(children.split_whitespace().next()?.parse().ok()?)?)
    }

    fn end(self) -> Result<(), String> {
        let gone = |process: Self| pidfd_open(process.pid, PidfdFlags::empty()).ok().filter(|_| process.lives());
        // a signal to the pidfd cannot reach a later process with the same pid
        let (own, first) = (gone(self), self.first_child().and_then(gone));
        if let Some(handle) = &own {
            pidfd_send_signal(handle, Signal::KILL).map_err(|error| format!("cannot kill {}: {error}", self.pid))?;
        }
        for handle in [own, first].into_iter().flatten() {
            let ended = poll(&mut [PollFd::new(&handle, PollFlags::IN)], Some(&END_WITHIN));
            if ended.map_err(|error| format!("cannot wait for process {}: {error}", self.pid))? == 0 {
                return Err(format!("process {} was killed, but has not ended yet", self.pid));
            }
        }
        Ok(())
    }
}

/// Whether the process printed `ready` before it ended.
fn show_until_ready(child: &mut Child, log: &Path, out: &mut impl Write) -> io::Result<bool> {
    let (mut log, mut line) = (BufReader::new(File::open(log)?), Vec::new());
    let ended = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    loop {
        // asked before reading, so that its last words are shown
        let has_ended = child.try_wait()?.is_some();
        while log.read_until(b'\n', &mut line)? > 0 && (line.ends_with(b"\n") || has_ended) {
            if line == b"ready\n" {
                return Ok(true);
            }
            out.write_all(&line)?;
            line.clear();
        }
        if has_ended {
            return Ok(false);
        }
        // a log that grows wakes nobody; the end of the process does
        poll(&mut [PollFd::new(&ended, PollFlags::IN)], Some(&LOG_POLL))?;
    }
}

fn say(out: &mut impl Write, text: &str) -> Result<(), String> {
    writeln!(out, "==> {text}").map_err(|error| format!("cannot print: {error}"))
}

fn failed(action: &str, path: &Path) -> impl Fn(io::Error) -> String {
    move |error| format!("cannot {action} {}: {error}", path.display())
}
