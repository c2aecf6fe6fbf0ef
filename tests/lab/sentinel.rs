//! A real Redis with replicas, watched by real sentinels, to break.
//!
//! Owns three servers and three sentinels, and which of them is the primary now. Needs no root and no sandbox.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::redis::Redis;
use super::{Process, free_port, tail, wait_for};

/// The name under which the sentinels watch the primary.
pub const PRIMARY: &str = "mymaster";

/// How the servers and sentinels are to be.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rules<'a> {
    /// More arguments for each server, e.g. users.
    pub redis: &'a [&'a str],
    /// More lines for each sentinel.
    pub sentinel: &'a str,
    /// Certificate and key: then the servers also take TLS, and the sentinels name these ports.
    pub tls: Option<(&'a Path, &'a Path)>,
}

#[derive(Debug)]
struct Sentinel {
    plain: SocketAddrV4,
    tls: SocketAddrV4,
    _process: Process,
}

/// One primary, two replicas, three sentinels, quorum 2.
#[derive(Debug)]
pub struct Watched {
    /// The first one starts as the primary.
    pub servers: Vec<Redis>,
    sentinels: Vec<Sentinel>,
    /// Where each server is, as the sentinels say it.
    named: Vec<SocketAddrV4>,
    _dir: tempfile::TempDir,
}

impl Watched {
    /// Starts all and waits until each sentinel knows the others and both replicas.
    pub fn start(address: Ipv4Addr, rules: &Rules<'_>) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory for the sentinels");
        let (mut servers, mut named): (Vec<Redis>, Vec<SocketAddrV4>) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            let tls_port = free_port(address);
            let mut arguments = vec!["--min-replicas-to-write", "1", "--min-replicas-max-lag", "2"];
            arguments.extend(["--repl-diskless-sync-delay", "0"]);
            arguments.extend(rules.redis);
            let of_primary = named.first().map(|primary| (primary.ip().to_string(), primary.port().to_string()));
            if let Some((host, port)) = &of_primary {
                arguments.extend(["--replicaof", host, port]);
            }
            let files = rules.tls.map(|(cert, key)| [tls_port.to_string(), text(cert), text(key)]);
            if let Some([port, cert, key]) = &files {
                arguments.extend(["--tls-port", port, "--tls-cert-file", cert, "--tls-key-file", key]);
                arguments.extend(["--tls-ca-cert-file", cert, "--tls-auth-clients", "no", "--tls-replication", "yes"]);
            }
            let server = Redis::start_with(address, &arguments);
            let port = if rules.tls.is_some() { tls_port } else { server.address().port() };
            named.push(SocketAddrV4::new(address, port));
            servers.push(server);
        }
        let sentinels = (0..3).map(|number| sentinel(dir.path(), number, named[0], rules)).collect();
        let watched = Self { servers, sentinels, named, _dir: dir };
        watched.wait_whole();
        // Before that no primary takes a write.
        watched.servers[0].has_been_used();
        watched
    }

    /// Waits until each sentinel knows the others and sees a primary with two replicas, as after a fault that was repaired.
    pub fn wait_whole(&self) {
        for Sentinel { plain: at, .. } in &self.sentinels {
            wait_for(Duration::from_secs(20), || {
                let Ok(seen) = ask(*at, &["SENTINEL", "MASTERS"]) else { return Err(format!("sentinel {at}")) };
                let told = |key: &str| {
                    let mut words = seen.iter();
                    words.find(|word| *word == key).and_then(|_| words.next()).cloned().unwrap_or_default()
                };
                if told("num-slaves") == "2" && told("num-other-sentinels") == "2" && told("flags") == "master" {
                    return Ok(());
                }
                Err(format!("sentinel {at} to know all: {seen:?}"))
            });
        }
    }

    /// `redis+sentinel://…` with all sentinels; `scheme` may also be `rediss`, `login` is `user:password@` or nothing.
    pub fn url(&self, scheme: &str, login: &str) -> String {
        let at = |sentinel: &Sentinel| if scheme == "rediss" { sentinel.tls } else { sentinel.plain };
        let hosts: Vec<String> = self.sentinels.iter().map(|sentinel| at(sentinel).to_string()).collect();
        format!("{scheme}+sentinel://{login}{}/{PRIMARY}", hosts.join(","))
    }

    /// Which server the last sentinel names.
    pub fn primary(&self) -> usize {
        let last = self.sentinels.last().expect("sentinels");
        let named =
            ask(last.plain, &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", PRIMARY]).expect("an answer of a sentinel");
        let port: u16 = named[1].parse().expect("a port");
        self.named.iter().position(|server| server.port() == port).expect("one of ours")
    }

    /// Ends the first sentinel, as if the power went.
    pub fn kill_sentinel(&mut self) {
        self.sentinels.remove(0);
    }
}

fn text(path: &Path) -> String {
    path.to_str().expect("a path that is text").to_owned()
}

fn sentinel(dir: &Path, number: usize, primary: SocketAddrV4, rules: &Rules<'_>) -> Sentinel {
    let [at, tls] = [(); 2].map(|()| SocketAddrV4::new(*primary.ip(), free_port(*primary.ip())));
    let (config, log): (PathBuf, PathBuf) = (dir.join(format!("{number}.conf")), dir.join(format!("{number}.log")));
    let mut lines = format!("bind {}\nport {}\nprotected-mode no\ndir {}\n", at.ip(), at.port(), dir.display());
    if let Some((cert, key)) = rules.tls {
        let (cert, key, port) = (cert.display(), key.display(), tls.port());
        writeln!(
            lines,
            "tls-port {port}\ntls-cert-file {cert}\ntls-key-file {key}\ntls-ca-cert-file {cert}\n\
             tls-auth-clients no\ntls-replication yes"
        )
        .expect("a text grows");
    }
    write!(
        lines,
        "sentinel monitor {PRIMARY} {} {} 2\nsentinel down-after-milliseconds {PRIMARY} 1000\n\
         sentinel failover-timeout {PRIMARY} 5000\nsentinel parallel-syncs {PRIMARY} 2\n{}\n",
        primary.ip(),
        primary.port(),
        rules.sentinel,
    )
    .expect("a text grows");
    std::fs::write(&config, lines).expect("write the sentinel's settings");
    let mut command = Command::new("redis-server");
    command.arg(&config).arg("--sentinel").arg("--logfile").arg(&log).stdin(Stdio::null()).stdout(Stdio::null());
    let process = Process(command.spawn().expect("start a sentinel"));
    wait_for(Duration::from_secs(20), || {
        TcpStream::connect(at).map(drop).map_err(|error| format!("sentinel {at}: {error}; {}", tail(&log)))
    });
    Sentinel { plain: at, tls, _process: process }
}

/// The strings of an answer, whatever its shape.
fn ask(at: SocketAddrV4, words: &[&str]) -> redis::RedisResult<Vec<String>> {
    let mut connection =
        redis::Client::open(format!("redis://{at}"))?.get_connection_with_timeout(Duration::from_secs(1))?;
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]);
    let mut open = vec![command.query::<redis::Value>(&mut connection)?];
    let mut found = Vec::new();
    while let Some(value) = open.pop() {
        if let redis::Value::Array(values) = value {
            open.extend(values.into_iter().rev());
        } else {
            found.extend(redis::from_redis_value::<String>(value).ok());
        }
    }
    Ok(found)
}
