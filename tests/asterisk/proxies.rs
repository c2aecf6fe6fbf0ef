//! What stands in front of the nodes: a real HAProxy with the sample that is shipped, three daemons and their Asterisks.
//!
//! Must never know more of a node than HAProxy does.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that fails says why")]
#![expect(clippy::disallowed_methods, reason = "how soon a proxy knows is what is tested")]

#[path = "../cluster/mod.rs"]
mod cluster;
#[path = "../lab/mod.rs"]
mod lab;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cluster::{Cluster, SOON};
use lab::evenring::Sections;
use lab::phone::{Behaviour, Phones};
use lab::{Lab, Node, at_this_load, free_port, three, wait_for};

const SAMPLE: &str = include_str!("../../systemd/proxies/haproxy.cfg");

/// What the daemons of this test are asked by others than their own host.
const OPEN: Sections<'static> = Sections {
    node: "max_agents = 8",
    rest: "[http]\nlisten = \"0.0.0.0:9816\"\n[agent_check]\nlisten = \"0.0.0.0:9818\"",
    address: "",
    ami: "",
    redis: "",
};

/// A running HAProxy.
struct Proxy {
    process: Child,
    socket: PathBuf,
    port: u16,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // both fail only if it has ended before
        let _gone = self.process.kill();
        let _gone = self.process.wait();
    }
}

impl Proxy {
    /// The sample with the addresses of this lab; what is behind it is each Asterisk's manager interface, which is TCP.
    fn start(dir: &Path, lab: &Lab) -> Self {
        let (socket, port) = (dir.join("admin.sock"), free_port(Ipv4Addr::LOCALHOST));
        let mut text = SAMPLE.replace("/run/haproxy/admin.sock", socket.to_str().unwrap());
        text = text.replace("bind :8089", &format!("bind 127.0.0.1:{port}"));
        for (node, address) in lab.nodes().iter().zip(["10.0.0.11", "10.0.0.12", "10.0.0.13"]) {
            let here = node.ami();
            text = text
                .replace(&format!("server {} {address}:8089", node.name()), &format!("server {} {here}", node.name()));
        }
        assert!(!text.contains("server a 10.0.0.11:8089"), "{text}");
        let config = dir.join("haproxy.cfg");
        fs::write(&config, text).unwrap();
        let log = fs::File::create(dir.join("haproxy.log")).unwrap();
        let mut command = Command::new("haproxy");
        command.args(["-db", "-f"]).arg(&config).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let process = command.spawn().expect("start haproxy: run ./dev setup");
        let proxy = Self { process, socket, port };
        wait_for(SOON, || {
            UnixStream::connect(&proxy.socket).map_err(|error| {
                format!("haproxy: {error}: {}", fs::read_to_string(dir.join("haproxy.log")).unwrap_or_default())
            })
        });
        proxy
    }

    /// The servers by name: status, weight in percent, and what the agent said last.
    fn servers(&self) -> BTreeMap<String, (String, u32, String)> {
        let mut stream = UnixStream::connect(&self.socket).unwrap();
        stream.write_all(b"show stat nodes 4 -1\n").unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).unwrap();
        let mut lines = page.trim_start_matches("# ").lines().filter(|line| !line.is_empty());
        let names: Vec<&str> = lines.next().unwrap().split(',').collect();
        let at = |name: &str| names.iter().position(|known| *known == name).expect(name);
        let (name, status, weight, said) = (at("svname"), at("status"), at("weight"), at("last_agt"));
        lines
            .map(|line| line.split(',').collect::<Vec<_>>())
            .map(|row| {
                (row[name].to_owned(), (row[status].to_owned(), row[weight].parse().unwrap(), row[said].to_owned()))
            })
            .collect()
    }

    /// Waits until a server is so; how long that took.
    #[track_caller]
    fn wait(&self, server: &str, what: &str, is: impl Fn(&(String, u32, String)) -> bool) -> Duration {
        let start = Instant::now();
        wait_for(SOON, || {
            let servers = self.servers();
            if is(&servers[server]) { Ok(()) } else { Err(format!("{server} is not {what}: {servers:?}")) }
        });
        start.elapsed()
    }

    /// A connection through it, and the greeting of the Asterisk behind.
    fn connect(&self) -> TcpStream {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).unwrap();
        stream.set_read_timeout(Some(at_this_load(Duration::from_secs(5)))).unwrap();
        let mut greeting = [0; 64];
        let count = stream.read(&mut greeting).unwrap();
        assert!(
            greeting[..count].starts_with(b"Asterisk Call Manager"),
            "{:?}",
            greeting[..count].escape_ascii().to_string()
        );
        stream
    }
}

/// What a node says to an agent check that sends this, and how long that took.
fn ask(node: &Node, line: &str) -> (String, Duration) {
    let start = Instant::now();
    let mut stream = TcpStream::connect((*node.ami().ip(), 9818)).unwrap();
    stream.write_all(line.as_bytes()).unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).unwrap();
    (said, start.elapsed())
}

#[test]
fn haproxy_knows_which_nodes_take_calls_and_cuts_nobody_off() {
    let lab = Lab::start(&three(16));
    let phones = Phones::register(100, 12, &lab.sip(), Behaviour::ANSWER);
    phones.wait_registered(SOON);
    let cluster = Cluster::with(&lab, &OPEN);
    let dir = tempfile::tempdir().unwrap();
    let proxy = Proxy::start(dir.path(), &lab);
    for node in lab.nodes() {
        cluster.wait_phones(node.name(), 12);
        proxy.wait(node.name(), "up with its whole weight", |(status, weight, _)| status == "UP" && *weight == 100);
    }

    // Twelve agents on three nodes of eight seats: half of each is free.
    for number in 100..112 {
        assert_eq!(cluster.json_and_code(&["login", &format!("cc{number}x"), "--wait"]).1, 0, "{}", cluster.logs());
    }
    for node in lab.nodes() {
        proxy.wait(node.name(), "at half of its weight", |(status, weight, _)| status == "UP" && *weight == 50);
    }

    // A node that drains keeps what it has, and takes it back.
    let mut open: Vec<TcpStream> = (0..3).map(|_| proxy.connect()).collect();
    assert_eq!(cluster.json_and_code(&["drain", "b"]).1, 0);
    proxy.wait("b", "draining", |(status, _, _)| status.starts_with("DRAIN"));
    for stream in &mut open {
        stream.set_nonblocking(true).unwrap();
        let more = stream.read(&mut [0; 64]);
        assert!(more.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock), "{more:?}");
    }
    assert_eq!(cluster.json_and_code(&["resume", "b"]).1, 0);
    proxy.wait("b", "up again", |(status, weight, _)| status == "UP" && *weight == 50);

    // Its Asterisk dies, and is back.
    let node = lab.node("c");
    node.kill9();
    let out = proxy.wait("c", "down", |(status, _, said)| status.starts_with("DOWN") && said.contains("down"));
    println!("out of HAProxy {} ms after kill -9 of its Asterisk", out.as_millis());
    assert!(out <= at_this_load(Duration::from_millis(1500)), "{out:?}");
    for _ in 0..6 {
        drop(proxy.connect());
    }
    node.start();
    proxy.wait("c", "up again", |(status, weight, _)| status == "UP" && *weight == 100);
}

#[test]
fn agent_checks_are_answered_at_once_whoever_else_connects() {
    let lab = Lab::start(&three(2)[..1]);
    let cluster = Cluster::with(&lab, &OPEN);
    let node = lab.node("a");
    cluster.wait_node("a", "active");
    assert_eq!(ask(node, "node\n").0, "up ready 100%\n");
    assert_eq!(ask(node, "api\n").0, "up ready 100%\n");
    // Without a line, or with one that nobody knows, it is the node that is asked for.
    for line in ["", "\n", "what\r\n", "api", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"] {
        assert_eq!(ask(node, line).0, "up ready 100%\n", "{line:?}");
    }
    // Idle connections, many more than it keeps, do not delay it.
    let idle: Vec<TcpStream> = (0..300).map(|_| TcpStream::connect((*node.ami().ip(), 9818)).unwrap()).collect();
    let mut times: Vec<Duration> = (0..200).map(|_| ask(node, "node\n").1).collect();
    times.sort_unstable();
    println!("an answer took {:?} in the middle, {:?} at most", times[100], times[199]);
    assert!(times[190] <= at_this_load(Duration::from_millis(5)), "{times:?}");
    for stream in idle {
        // They got their answer long ago, and the end.
        let _gone = stream.shutdown(Shutdown::Both);
    }

    // Redis goes: the API is down at once, calls still go to the node, until its lease is over.
    drop(cluster.redis);
    wait_for(SOON, || match ask(node, "api\n").0.as_str() {
        "down #redis\n" => Ok(()),
        other => Err(format!("the API is {other:?} without Redis")),
    });
    wait_for(SOON, || match ask(node, "node\n").0.as_str() {
        "down #lease-expired\n" => Ok(()),
        other => Err(format!("the node is {other:?} without Redis")),
    });
}
