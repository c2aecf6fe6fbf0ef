//! The real daemon on a node, and the real command line in the hub.
//!
//! Owns their processes, config files and logs. Must never look into the program by any other door than its users have.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Output as Raw, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::{Node, Process, now, secrets, signal, tail, wait_exit, wait_for};

/// The program: `EVENRING_BIN` if that is set, or what cargo has built for this test; for the demo, the one beside it.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("EVENRING_BIN") {
        return path.into();
    }
    if let Some(path) = option_env!("CARGO_BIN_EXE_evenring") {
        return path.into();
    }
    let me = std::env::current_exe().expect("the path of this program");
    let found = me.ancestors().skip(1).map(|dir| dir.join("evenring")).find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("no evenring beside {}: build it, or name it in EVENRING_BIN", me.display()))
}

/// A daemon on its node.
#[derive(Debug)]
pub struct Daemon {
    node: String,
    config: PathBuf,
    log: PathBuf,
    runtime: PathBuf,
    process: Process,
}

/// Where a second daemon runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// On the same machine.
    Beside,
    /// As if on another machine.
    Apart,
}

/// How a daemon ended.
#[derive(Debug, Clone, Copy)]
pub struct Ended {
    /// Its exit status.
    pub status: ExitStatus,
    /// How long it took from SIGTERM.
    pub took: Duration,
}

impl Daemon {
    /// Starts `evenring run` in the node's namespace. `extra_toml` goes to the end of the config file; what it says in
    /// `[node]`, `[ami]`, `[redis]` or `[log]` must be left to this (a table may stand in a file once), except by
    /// dotted keys of new tables.
    pub fn start(node: &Node, redis_url: &str, extra_toml: &str) -> Self {
        let sections = Sections { rest: extra_toml, ..Sections::default() };
        Self::start_with(node, redis_url, &sections)
    }

    /// The same with lines for the usual tables.
    pub fn start_with(node: &Node, redis_url: &str, sections: &Sections<'_>) -> Self {
        let dir = node.dir().join("daemon");
        fs::create_dir_all(&dir).expect("make the daemon's directory");
        let secret = dir.join("ami-secret");
        let (user, password) = super::config::AMI_USER;
        write_private(&secret, password);
        let config = dir.join("evenring.toml");
        let Sections { address, node: in_node, ami, redis, rest } = sections;
        let address = if address.is_empty() { "127.0.0.1:5038" } else { address };
        let text = format!(
            "[node]\nname = \"{}\"\n{in_node}\n[ami]\naddress = \"{address}\"\nusername = \"{user}\"\n\
             secret_file = \"{}\"\n{ami}\n[redis]\nurl = \"{redis_url}\"\n{redis}\n[log]\nformat = \"text\"\n{rest}\n",
            node.name(),
            secret.display(),
        );
        write_private(&config, &text);
        secrets::keep(&text);
        let log = dir.join("log");
        let process = spawn(&node.namespace(), &config, &log, &dir);
        Self { node: node.name().to_owned(), config, log, runtime: dir, process }
    }

    /// Starts a new life with the same config and log, after an end of any kind.
    #[must_use]
    pub fn again(mut self) -> Self {
        self.process = spawn(&format!("ev-{}", self.node), &self.config, &self.log, &self.runtime);
        self
    }

    /// The same with these variables in its environment.
    #[must_use]
    pub fn again_with(mut self, environment: &[(&str, &str)]) -> Self {
        let namespace = format!("ev-{}", self.node);
        self.process = spawn_with(&namespace, &self.config, &self.log, &self.runtime, environment);
        self
    }

    /// The same with a standard error of its own instead of the log.
    #[must_use]
    pub fn again_saying_to(mut self, stderr: impl Into<Stdio>) -> Self {
        let mut command = command(&format!("ev-{}", self.node), &self.config, &self.runtime);
        self.process = Process(command.stdout(Stdio::null()).stderr(stderr).spawn().expect("start ip netns exec"));
        self
    }

    /// Starts a second daemon of the same name with a log of its own. Apart: it does not see the first one's lock, as on
    /// another machine.
    pub fn second(&self, place: Place) -> Self {
        let folder = |name: &str| self.runtime.join(name);
        let runtime = match place {
            Place::Beside => self.runtime.clone(),
            Place::Apart => folder("apart"),
        };
        let log = folder("second.log");
        let process = spawn(&format!("ev-{}", self.node), &self.config, &log, &runtime);
        Self { node: self.node.clone(), config: self.config.clone(), log, runtime, process }
    }

    /// Waits until it ends by itself; its exit code.
    pub fn wait_end(&mut self, timeout: Duration) -> Option<i32> {
        wait_exit(&mut self.process.0, timeout, &format!("daemon {}; {}", self.node, tail(&self.log))).code()
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.process.0.id()
    }

    /// Its config file.
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// The file with its log.
    pub fn log_file(&self) -> &Path {
        &self.log
    }

    /// All it has logged, over all its lives.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).expect("the daemon has a log")).into_owned()
    }

    /// Waits until its log has this text. Panics with the log's end if it does not come, or if the daemon ends before.
    pub fn wait_log(&mut self, text: &str, timeout: Duration) {
        let (node, log) = (self.node.clone(), self.log.clone());
        wait_for(timeout, || {
            // first the state, then the log: what it said before it ended counts
            let status = self.process.0.try_wait().expect("wait for the daemon");
            if self.log().contains(text) {
                return Ok(());
            }
            if let Some(status) = status {
                panic!("daemon {node} ended ({status}) before it logged {text:?}; {}", tail(&log));
            }
            Err(format!("{text:?} in the log of daemon {node}; {}", tail(&log)))
        });
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.process.0.try_wait().expect("wait for the daemon").is_none()
    }

    /// As if the power went.
    pub fn kill9(&mut self) {
        self.process.0.kill().expect("kill the daemon");
        self.process.0.wait().expect("wait for the daemon");
    }

    /// SIGTERM, and waits for the end.
    pub fn term(&mut self) -> Ended {
        let begin = now();
        signal(&self.process.0, "TERM");
        let what = format!("daemon {}; {}", self.node, self.log.display());
        let status = wait_exit(&mut self.process.0, Duration::from_secs(30), &what);
        Ended { status, took: begin.elapsed() }
    }

    /// Freezes the process.
    pub fn sigstop(&self) {
        signal(&self.process.0, "STOP");
    }

    /// The thaw.
    pub fn sigcont(&self) {
        signal(&self.process.0, "CONT");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.process.end();
        secrets::search_log(&self.log);
    }
}

/// More lines for the tables of the config file.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sections<'a> {
    /// Of AMI; empty for the usual one.
    pub address: &'a str,
    /// For `[node]`.
    pub node: &'a str,
    /// For `[ami]`.
    pub ami: &'a str,
    /// For `[redis]`.
    pub redis: &'a str,
    /// For `[log]`, and after it whole tables.
    pub rest: &'a str,
}

/// `runtime`: as systemd would make it; the lock on the node's name lies there.
fn spawn(namespace: &str, config: &Path, log: &Path, runtime: &Path) -> Process {
    spawn_with(namespace, config, log, runtime, &[])
}

fn spawn_with(namespace: &str, config: &Path, log: &Path, runtime: &Path, environment: &[(&str, &str)]) -> Process {
    let log = fs::OpenOptions::new().create(true).append(true).open(log).expect("open the daemon's log");
    let mut command = command(namespace, config, runtime);
    command.envs(environment.iter().copied()).stdout(log.try_clone().expect("the log twice")).stderr(log);
    Process(command.spawn().expect("start ip netns exec"))
}

fn command(namespace: &str, config: &Path, runtime: &Path) -> Command {
    // `ip` execs, so this one pid is the daemon's
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace]).arg(binary()).args(["run", "--config"]).arg(config);
    command.env("RUNTIME_DIRECTORY", runtime).stdin(Stdio::null());
    command
}

fn write_private(path: &Path, text: &str) {
    fs::write(path, text).expect("write a file of the daemon");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("make it private");
}

/// What a verb of the command line did.
#[derive(Debug)]
pub struct Output {
    /// Its exit status.
    pub status: ExitStatus,
    /// What it printed.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
}

impl Output {
    /// What it printed, if it succeeded. Panics with its complaint otherwise.
    pub fn ok(self) -> String {
        assert!(self.status.success(), "evenring failed ({}): {}{}", self.status, self.stdout, self.stderr);
        self.stdout
    }
}

/// A verb that goes on.
#[derive(Debug)]
pub struct Started {
    child: Child,
    stderr: BufReader<ChildStderr>,
    first: String,
}

impl Started {
    /// Waits for its end.
    pub fn finish(mut self) -> Output {
        let mut stderr = self.first;
        self.stderr.read_to_string(&mut stderr).expect("read its stderr");
        Output { stderr, ..self.child.wait_with_output().expect("wait for its end").into() }
    }
}

/// A verb that goes on and prints lines, until this is dropped.
#[derive(Debug)]
pub struct Following {
    _process: Process,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Following {
    /// What it has printed on stdout so far.
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until it has printed a line with this text.
    pub fn wait_line(&self, text: &str, timeout: Duration) {
        wait_for(timeout, || {
            let lines = self.lines();
            let found = lines.iter().any(|line| line.contains(text));
            if found { Ok(()) } else { Err(format!("a line with {text:?} in {lines:#?}")) }
        });
    }
}

impl From<Raw> for Output {
    fn from(raw: Raw) -> Self {
        let [stdout, stderr] = [raw.stdout, raw.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        secrets::search("what a verb printed", &stdout);
        secrets::search("what a verb complained about", &stderr);
        Self { status: raw.status, stdout, stderr }
    }
}

/// The command line in the hub, where it has Redis and no Asterisk.
#[derive(Debug)]
pub struct Cli {
    config: PathBuf,
    _dir: tempfile::TempDir,
}

impl Cli {
    /// Writes its config file.
    pub fn new(redis_url: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory for the command line");
        let config = dir.path().join("evenring.toml");
        let text = format!("[redis]\nurl = \"{redis_url}\"\n");
        write_private(&config, &text);
        secrets::keep(&text);
        Self { config, _dir: dir }
    }

    /// Its config file.
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// Runs `evenring ARGUMENTS --config FILE` and waits for its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("run the evenring binary").into()
    }

    /// Runs it on a terminal of this kind (`TERM`); what the terminal got.
    pub fn on_terminal(&self, term: &str, arguments: &[&str]) -> String {
        let line = format!("{} {} --config {}", binary().display(), arguments.join(" "), self.config.display());
        let mut script = Command::new("script");
        script.args(["-qec", &line, "/dev/null"]).env("TERM", term).env_remove("NO_COLOR").stdin(Stdio::null());
        let output: Output = script.output().expect("run script, which is in every Debian").into();
        assert!(output.stderr.is_empty(), "{output:?}");
        output.stdout
    }

    /// Starts it, and waits until it has said a first line on stderr.
    pub fn start(&self, arguments: &[&str]) -> Started {
        let mut started = self.begin(arguments);
        started.stderr.read_line(&mut started.first).expect("read its stderr");
        started
    }

    /// Starts it, and waits for nothing.
    pub fn begin(&self, arguments: &[&str]) -> Started {
        let mut command = self.command(arguments);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("run the evenring binary");
        let stderr = BufReader::new(child.stderr.take().expect("a pipe"));
        Started { child, first: String::new(), stderr }
    }

    /// Starts it, and reads its lines from then on.
    pub fn follow(&self, arguments: &[&str]) -> Following {
        let mut child = self.command(arguments).stdout(Stdio::piped()).spawn().expect("run the evenring binary");
        let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let lines = Arc::<Mutex<Vec<String>>>::default();
        let all = Arc::clone(&lines);
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                all.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        });
        Following { _process: Process(child), lines }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.args(arguments).arg("--config").arg(&self.config).stdin(Stdio::null());
        command
    }
}
