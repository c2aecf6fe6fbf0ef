//! The lab: real Asterisks, real and scripted phones, a throwaway Redis, the real daemon and a machine
//! with a systemd of its own, for the tests and the demo.
//!
//! Owns everything that is started for a test, and ends it when its handle is dropped. Must never know what a test
//! wants to prove, and uses nothing of the program but its binary. It is meant to run in a sandbox of its own
//! (`./dev in-lab`, which `./dev test` puts in front of each test binary); only [`redis`] and [`far`] work outside of one.
//!
//! All of it blocks: in an async test use `#[tokio::test(flavor = "multi_thread")]`. Phones live on threads of their own.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part of the lab")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a lab that fails ends the test, and says why"
)]

pub mod asterisk;
pub mod baresip;
pub mod config;
pub mod distance;
pub mod door;
pub mod evenring;
pub mod far;
pub mod http;
pub mod log_pipe;
pub mod machine;
pub mod phone;
pub mod redis;
pub mod secrets;
pub mod sentinel;
mod sip;
pub mod wires;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

pub use asterisk::{Node, Version};

/// Where phones, Redis, the command line and the test itself are: the bridge that all nodes hang on.
pub const HUB: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

/// What a node is to be.
#[derive(Debug, Clone)]
pub struct Spec {
    /// `a`, `b`, `c`: also the name of its network namespace, `ev-a`.
    pub name: &'static str,
    /// Which Asterisk.
    pub version: Version,
    /// How many PJSIP endpoints it knows: `cc100`, `cc101`, …
    pub endpoints: u32,
}

/// The usual three: a and b with Asterisk 22, c with 16.
pub fn three(endpoints: u32) -> Vec<Spec> {
    [("a", Version::V22), ("b", Version::V22), ("c", Version::V16)]
        .map(|(name, version)| Spec { name, version, endpoints })
        .into()
}

/// A running cluster. There is one at a time in a test binary: `start` waits for the one before it to be dropped.
#[derive(Debug)]
pub struct Lab {
    nodes: Vec<Node>,
    dir: tempfile::TempDir,
    took: Duration,
    _turn: MutexGuard<'static, ()>,
}

static TURN: Mutex<()> = Mutex::new(());

impl Lab {
    /// Brings up the network and all nodes, side by side; returns when each is fully booted.
    pub fn start(specs: &[Spec]) -> Self {
        Self::start_on(None, specs)
    }

    /// The same, with another root for all nodes (which must fit to their version) than those that setup made.
    pub fn start_on(own: Option<&Path>, specs: &[Spec]) -> Self {
        let roots = cache();
        let turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let begin = now();
        let dir = tempfile::tempdir().expect("a temporary directory for the lab");
        run("ip link add br0 type bridge forward_delay 0");
        run(&format!("ip addr add {HUB}/24 dev br0"));
        run("ip link set br0 up");
        let certificate = config::certificate(dir.path());
        let addresses: Vec<Ipv4Addr> = (0..specs.len()).map(node_address).collect();
        // from here on a panic drops what was started so far
        let mut lab = Self { nodes: Vec::new(), dir, took: Duration::ZERO, _turn: turn };
        for (spec, address) in specs.iter().zip(&addresses) {
            let (roots, certificate) = (&roots, &certificate);
            let ground = asterisk::Ground { roots, own, lab: lab.dir.path(), nodes: &addresses, certificate };
            lab.nodes.push(Node::prepare(spec, *address, &ground));
        }
        std::thread::scope(|scope| {
            for node in &lab.nodes {
                scope.spawn(|| node.start());
            }
        });
        lab.took = begin.elapsed();
        lab
    }

    /// How long the start took, without the wait for the lab before it.
    pub fn took(&self) -> Duration {
        self.took
    }

    /// The node of that name.
    pub fn node(&self, name: &str) -> &Node {
        self.nodes.iter().find(|node| node.name() == name).unwrap_or_else(|| panic!("the lab has no node {name:?}"))
    }

    /// All nodes, in the order of their specs.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Where phones register: chan_pjsip of every node.
    pub fn sip(&self) -> Vec<SocketAddrV4> {
        self.nodes.iter().map(Node::sip).collect()
    }

    /// The name of the node with this address.
    pub fn name_of(&self, address: Ipv4Addr) -> &str {
        self.nodes.iter().find(|node| node.address() == address).map_or("?", Node::name)
    }

    /// A folder for the test's own files; it goes with the lab.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The certificate of every node's AMI over TLS (port 5039); it is its own authority. Names: the addresses, `lab`.
    pub fn certificate(&self) -> PathBuf {
        self.dir.path().join("certificate.pem")
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.nodes.clear();
        try_run("ip link del br0");
    }
}

fn node_address(index: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, 11 + u8::try_from(index).expect("fewer than 200 nodes"))
}

/// The cache folder with the Asterisk roots. Panics outside of a sandbox, where the lab would touch the host.
pub fn cache() -> PathBuf {
    match std::env::var_os("EVENRING_LAB") {
        Some(path) => path.into(),
        None => panic!("this test needs the lab (EVENRING_LAB is not set): run it with ./dev test"),
    }
}

/// A Python with the foreign queue client (`import rsmq`), for the tests of the queue format.
pub fn python() -> PathBuf {
    cache().join("python/bin/python")
}

/// A folder in which Node.js finds the other one (`require("rsmq")`).
pub fn node_clients() -> PathBuf {
    cache().join("clients")
}

/// The clock of the lab.
#[expect(clippy::disallowed_methods, reason = "the lab waits for real processes, so it reads the real clock")]
pub fn now() -> Instant {
    Instant::now()
}

/// A time limit as it is on this machine now: what is promised for a machine that has time takes longer on one that has none.
/// Without more to do than it has cores, it is the limit itself.
pub fn at_this_load(limit: Duration) -> Duration {
    let text = std::fs::read_to_string("/proc/loadavg").expect("the load of the machine");
    let load: f64 = text.split_whitespace().next().and_then(|word| word.parse().ok()).expect("the load of a minute");
    let cores =
        std::thread::available_parallelism().map_or(1.0, |count| f64::from(u32::try_from(count.get()).unwrap_or(1)));
    limit.mul_f64((load / cores).max(1.0))
}

/// Asks `ready` again and again until it says yes. After `timeout` it panics with `what`.
pub fn wait_until(timeout: Duration, what: &str, mut ready: impl FnMut() -> bool) {
    wait_for(timeout, || if ready() { Ok(()) } else { Err(what.to_owned()) });
}

/// The same for a value. `ask` says what it still misses, and the last such word is in the panic.
pub fn wait_for<T>(timeout: Duration, ask: impl FnMut() -> Result<T, String>) -> T {
    try_wait_for(timeout, ask).unwrap_or_else(|missing| panic!("waited {timeout:?} for: {missing}"))
}

/// The same for clean-up, where a panic would hide the one of the test.
fn try_wait_for<T>(timeout: Duration, mut ask: impl FnMut() -> Result<T, String>) -> Result<T, String> {
    let begin = now();
    loop {
        match ask() {
            Ok(value) => return Ok(value),
            Err(missing) if begin.elapsed() >= timeout && begin.elapsed() >= at_this_load(timeout) => {
                return Err(missing);
            }
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// Runs a command line (split at blanks) and returns what it printed. Panics if it fails.
pub fn run(line: &str) -> String {
    let (ok, text) = run_quietly(line);
    assert!(ok, "`{line}` failed: {text}");
    text
}

/// The same for clean-up, where what is to go may be gone.
fn try_run(line: &str) {
    run_quietly(line);
}

fn run_quietly(line: &str) -> (bool, String) {
    let mut words = line.split_whitespace();
    let program = words.next().expect("a command line is not empty");
    match Command::new(program).args(words).output() {
        Ok(output) => {
            let text = [output.stdout, output.stderr].concat();
            (output.status.success(), String::from_utf8_lossy(&text).into_owned())
        }
        Err(error) => (false, error.to_string()),
    }
}

/// Sends a signal (`KILL`, `STOP`, …). Not to be called for a child that was already waited for.
fn signal(child: &Child, name: &str) {
    run(&format!("kill -{name} {}", child.id()));
}

/// Waits for a child to end, at most so long.
fn wait_exit(child: &mut Child, timeout: Duration, what: &str) -> std::process::ExitStatus {
    wait_for(timeout, || child.try_wait().expect("wait for a child").ok_or_else(|| format!("the end of {what}")))
}

/// A process that dies with its handle.
#[derive(Debug)]
struct Process(Child);

impl Process {
    fn end(&mut self) {
        // both fail only if it has ended before
        let _gone = self.0.kill();
        let _gone = self.0.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// The last lines of a log file, for a panic.
fn tail(path: &Path) -> String {
    let text =
        std::fs::read(path).map_or_else(|error| error.to_string(), |text| String::from_utf8_lossy(&text).into_owned());
    let lines: Vec<&str> = text.lines().collect();
    format!("the end of {}:\n{}", path.display(), lines[lines.len().saturating_sub(30)..].join("\n"))
}

/// A TCP port that is free at this moment.
pub fn free_port(address: Ipv4Addr) -> u16 {
    let listener = std::net::TcpListener::bind((address, 0)).unwrap_or_else(|error| panic!("bind {address}: {error}"));
    listener.local_addr().expect("the address of a bound socket").port()
}

/// 16 hexadecimal digits that nobody had before.
fn token() -> String {
    use std::hash::{BuildHasher, Hasher};
    format!("{:016x}", std::hash::RandomState::new().build_hasher().finish())
}
