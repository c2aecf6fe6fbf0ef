//! A real Redis to throw away.
//!
//! Owns the process, its port and its folder. Needs no root and no sandbox, but for Valkey: plain Redis tests use it alone.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::{Process, free_port, tail, wait_exit, wait_for};

/// Which server it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// The machine's redis-server.
    Redis,
    /// The valkey-server that stands in the root of Asterisk 22: Debian 12 has none.
    Valkey,
}

impl Program {
    /// The command, and what it must be told to keep its files in `dir` and its log in `log`.
    fn command(self, dir: &Path, log: &Path) -> Command {
        match self {
            Self::Redis => {
                let mut command = Command::new("redis-server");
                command.args(["--dir".as_ref(), dir.as_os_str(), "--logfile".as_ref(), log.as_os_str()]);
                command.stdout(Stdio::null());
                command
            }
            // Nothing is written in there.
            Self::Valkey => {
                let mut command = Command::new("chroot");
                command.arg(super::cache().join("asterisk-22")).args(["valkey-server", "--dir", "/", "--logfile", ""]);
                command.stdout(File::create(log).expect("a log for Valkey"));
                command
            }
        }
    }
}

/// A server without persistence: what it knew is gone when it ends, also by [`Redis::restart`].
#[derive(Debug)]
pub struct Redis {
    program: Program,
    address: SocketAddrV4,
    arguments: Vec<String>,
    /// `user:password@` or nothing.
    credentials: String,
    dir: tempfile::TempDir,
    process: Option<Process>,
}

/// How long Redis may take to answer; it takes 20 ms on an idle machine.
const START: Duration = Duration::from_secs(20);

impl Redis {
    /// One on 127.0.0.1 and a free port.
    pub fn start() -> Self {
        Self::start_with(Ipv4Addr::LOCALHOST, &[])
    }

    /// One with more arguments, e.g. `["--requirepass", "x"]` or `["--user", "evenring on >x ~* &* +@all"]`. The nodes
    /// of a lab reach it if the address is [`super::HUB`].
    pub fn start_with(address: Ipv4Addr, arguments: &[&str]) -> Self {
        Self::start_program(Program::Redis, address, arguments)
    }

    /// The same of either kind.
    pub fn start_program(program: Program, address: Ipv4Addr, arguments: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory for Redis");
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let address = SocketAddrV4::new(address, free_port(address));
        let mut redis = Self { program, address, arguments, credentials: String::new(), dir, process: None };
        // another process may take the port between our look and Redis's bind
        for _ in 0..5 {
            if redis.try_launch() {
                redis.has_been_used();
                return redis;
            }
            redis.address.set_port(free_port(*address.ip()));
        }
        panic!("redis-server did not start five times; {}", tail(&redis.dir.path().join("log")))
    }

    /// As if nodes had been there before: one that has never heard of any makes logins wait, for it may have lost everything.
    /// Not where a password is wanted.
    pub fn has_been_used(&self) {
        let mut stream = TcpStream::connect(self.address).expect("Redis answers");
        stream.write_all(b"HSET {evenring}:judge tick 1\r\n").expect("Redis reads");
        stream.read_exact(&mut [0; 1]).expect("Redis answers");
    }

    /// The same, and `url()` then carries these credentials (`user:password@`; without ACLs the user is `default`).
    #[must_use]
    pub fn with_credentials(mut self, credentials: &str) -> Self {
        credentials.clone_into(&mut self.credentials);
        self
    }

    /// False if it ended at once.
    fn try_launch(&mut self) -> bool {
        let log = self.dir.path().join("log");
        let mut command = self.program.command(self.dir.path(), &log);
        command
            .args(["--port", &self.address.port().to_string(), "--bind", &self.address.ip().to_string()])
            .args(["--save", "", "--appendonly", "no", "--daemonize", "no", "--protected-mode", "no"])
            .args(&self.arguments)
            .stdin(Stdio::null());
        let program = self.program;
        let child =
            command.spawn().unwrap_or_else(|error| panic!("{program:?} cannot be started ({error}): run ./dev setup"));
        let process = self.process.insert(Process(child));
        let address = self.address;
        let up = wait_for(START, || match process.0.try_wait().expect("wait for redis-server") {
            Some(_) => Ok(false),
            None if answers(address) => Ok(true),
            None => Err(format!("redis-server on {address}; {}", tail(&log))),
        });
        if !up {
            self.process = None;
        }
        up
    }

    /// `redis://…`, with the credentials if there are any.
    pub fn url(&self) -> String {
        format!("redis://{}{}", self.credentials, self.address)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddrV4 {
        self.address
    }

    /// The process id. Panics if it does not run.
    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("Redis does not run").0.id()
    }

    /// As if the power went.
    pub fn kill9(&mut self) {
        self.process = None;
    }

    /// SIGTERM, and waits for the end.
    pub fn stop(&mut self) {
        let Some(mut process) = self.process.take() else {
            return;
        };
        super::signal(&process.0, "TERM");
        wait_exit(&mut process.0, Duration::from_secs(10), "redis-server");
    }

    /// Starts it on the same port, empty, after an end of any kind.
    pub fn start_again(&mut self) {
        assert!(self.process.is_none(), "Redis runs already");
        let log = self.dir.path().join("log");
        wait_for(START, || {
            if self.try_launch() { Ok(()) } else { Err(format!("redis-server to start again; {}", tail(&log))) }
        });
    }

    /// Stop and start: everything is forgotten.
    pub fn restart(&mut self) {
        self.stop();
        self.start_again();
    }

    /// Freezes the process: its sockets stay open and say nothing.
    pub fn sigstop(&self) {
        super::signal(&self.process.as_ref().expect("Redis does not run").0, "STOP");
    }

    /// A fault of this length: frozen, and thawed after it. The time is the fault itself; there is nothing to wait for that
    /// would come earlier.
    pub fn freeze_for(&self, length: Duration) {
        self.sigstop();
        std::thread::sleep(length);
        self.sigcont();
    }

    /// The thaw.
    pub fn sigcont(&self) {
        super::signal(&self.process.as_ref().expect("Redis does not run").0, "CONT");
    }
}

/// Whether something there speaks Redis. With a password it says so, which is an answer too.
fn answers(address: SocketAddrV4) -> bool {
    let Ok(mut stream) = TcpStream::connect(address) else {
        return false;
    };
    let timeout = stream.set_read_timeout(Some(Duration::from_secs(1)));
    let mut answer = [0; 5];
    let read = timeout.and_then(|()| stream.write_all(b"PING\r\n")).and_then(|()| stream.read_exact(&mut answer));
    read.is_ok() && matches!(&answer, b"+PONG" | b"-NOAU")
}
