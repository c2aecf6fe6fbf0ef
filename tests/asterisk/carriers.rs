//! Who sends calls to the nodes by a list of them: a real Kamailio with the sample that is shipped, BIND's check of a zone, HAProxy and
//! nginx, and three daemons with their Asterisks.
//!
//! Must never know more of a node than the list says.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that fails says why")]
#![expect(clippy::disallowed_methods, reason = "how soon a proxy knows is what is tested")]

#[path = "../cluster/mod.rs"]
mod cluster;
#[path = "../lab/mod.rs"]
mod lab;

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cluster::{Cluster, SHORT, SOON};
use lab::evenring::{Cli, Daemon, Sections, binary};
use lab::redis::Redis;
use lab::{HUB, Lab, Node, at_this_load, free_port, three, wait_for};

const KAMAILIO: &str = include_str!("../../systemd/proxies/kamailio.cfg");
const NGINX: &str = include_str!("../../systemd/proxies/nginx.conf");

/// Ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // both fail only if it has ended before
        let _gone = self.0.kill();
        let _gone = self.0.wait();
    }
}

/// A text in which everything must be found that is replaced.
#[track_caller]
fn put(text: &str, pairs: &[(&str, &str)]) -> String {
    pairs.iter().fold(text.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "no {from} in\n{text}");
        text.replace(from, to)
    })
}

/// A running Kamailio.
struct Kamailio {
    process: Running,
    control: String,
    address: SocketAddr,
}

impl Drop for Kamailio {
    fn drop(&mut self) {
        // Its children end with it only if it may tell them.
        let _gone = Command::new("kill").arg(self.process.0.id().to_string()).status();
        let end = Instant::now() + Duration::from_secs(5);
        while self.process.0.try_wait().is_ok_and(|end| end.is_none()) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Kamailio {
    /// Where its control socket will be.
    fn control(dir: &Path) -> String {
        format!("unix:{}", dir.join("ctl").display())
    }

    /// The sample with the address and the files of this test.
    fn start(dir: &Path, list: &Path) -> Self {
        let address = SocketAddr::from((HUB, free_port(HUB)));
        let control = Self::control(dir);
        let text = put(
            KAMAILIO,
            &[
                ("10.0.0.10:5060", &address.to_string()),
                ("unix:/run/kamailio/kamailio_ctl", &control),
                ("/run/kamailio/kamailio_rpc.fifo", dir.join("fifo").to_str().unwrap()),
                ("\"/etc/kamailio/evenring.list\"", &format!("{:?}", list.to_str().unwrap())),
            ],
        );
        let config = dir.join("kamailio.cfg");
        fs::write(&config, text).unwrap();
        let log = fs::File::create(dir.join("kamailio.log")).unwrap();
        let mut command = Command::new("kamailio");
        command.args(["-DD", "-E", "-m", "32", "-M", "8", "-Y"]).arg(dir).arg("-f").arg(&config);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let process = Running(command.spawn().expect("start kamailio: run ./dev setup"));
        let kamailio = Self { process, control, address };
        wait_for(SOON, || {
            let listed = kamailio.command("dispatcher.list");
            if listed.contains("URI:") {
                return Ok(());
            }
            let log = fs::read_to_string(dir.join("kamailio.log")).unwrap_or_default();
            Err(format!("kamailio with a list: {listed}{log}"))
        });
        kamailio
    }

    /// What kamcmd prints.
    fn command(&self, name: &str) -> String {
        let output = Command::new("kamcmd").args(["-s", &self.control, name]).output().expect("run kamcmd");
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    }

    /// The nodes in its list, by `duid`.
    fn nodes(&self) -> BTreeSet<String> {
        let listed = self.command("dispatcher.list");
        listed.lines().filter_map(|line| line.trim().strip_prefix("DUID: ")).map(str::to_owned).collect()
    }

    /// Waits until its list has these nodes; how long that took.
    #[track_caller]
    fn wait(&self, nodes: &[&str], timeout: Duration, said: impl Fn() -> String) -> Duration {
        let (start, wanted) = (Instant::now(), nodes.iter().map(|node| (*node).to_owned()).collect());
        wait_for(timeout, || {
            let nodes = self.nodes();
            if nodes == wanted { Ok(()) } else { Err(format!("{wanted:?}, not {nodes:?}: {}", said())) }
        });
        start.elapsed()
    }

    /// Calls a number; the host and port to which it is sent.
    fn invite(&self, call: usize) -> String {
        let socket = UdpSocket::bind((HUB, 0)).unwrap();
        socket.set_read_timeout(Some(at_this_load(Duration::from_secs(5)))).unwrap();
        let (me, server) = (socket.local_addr().unwrap(), self.address);
        let message = format!(
            "INVITE sip:4930123@{server} SIP/2.0\r\nVia: SIP/2.0/UDP {me};branch=z9hG4bK{call}\r\nMax-Forwards: 70\r\n\
             From: <sip:carrier@{me}>;tag={call}\r\nTo: <sip:4930123@{server}>\r\nCall-ID: call-{call}@{me}\r\n\
             CSeq: 1 INVITE\r\nContact: <sip:carrier@{me}>\r\nContent-Length: 0\r\n\r\n"
        );
        socket.send_to(message.as_bytes(), server).unwrap();
        let mut answer = [0; 2048];
        let count = socket.recv(&mut answer).expect("an answer of Kamailio");
        let answer = String::from_utf8_lossy(&answer[..count]).into_owned();
        assert!(answer.starts_with("SIP/2.0 302 "), "{answer}");
        let contact = answer.lines().find_map(|line| line.strip_prefix("Contact: <sip:4930123@"));
        contact.and_then(|rest| rest.strip_suffix('>')).unwrap_or_else(|| panic!("no contact in {answer}")).to_owned()
    }

    /// Where so many calls go.
    fn invites(&self, count: usize) -> BTreeSet<String> {
        (0..count).map(|call| self.invite(call)).collect()
    }
}

/// `evenring export --watch`, and what it has said.
struct Export {
    _process: Running,
    said: PathBuf,
}

impl Export {
    fn start(cluster: &Cluster, dir: &Path, arguments: &[&str]) -> Self {
        let said = dir.join("export.log");
        let log = fs::File::create(&said).unwrap();
        let mut command = Command::new(binary());
        command.arg("--config").arg(cluster.cli.config()).arg("export").args(arguments).stdin(Stdio::null());
        // A machine that has no time is no Redis that is away.
        command.env("EVENRING__REDIS__RESPONSE_TIMEOUT", "5s").env("EVENRING__REDIS__CONNECT_TIMEOUT", "5s");
        command.stdout(Stdio::null()).stderr(log);
        Self { _process: Running(command.spawn().expect("run the evenring binary")), said }
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.said).unwrap()
    }

    /// How often a text is in what it has said.
    fn times(&self, text: &str) -> usize {
        self.said().matches(text).count()
    }

    #[track_caller]
    fn wait(&self, text: &str, timeout: Duration) {
        wait_for(timeout, || {
            let said = self.said();
            if said.contains(text) { Ok(()) } else { Err(format!("{text:?} in {said}")) }
        });
    }
}

/// A cluster whose nodes say where carriers reach them.
fn start(lab: &Lab) -> Cluster {
    let redis = Redis::start_with(HUB, &[]);
    let daemon = |(node, weight): (&Node, u32)| {
        let lines = format!("sip = \"sip:{}\"\naddress = \"{}\"\nweight = {weight}", node.sip(), node.address());
        let sections = Sections { node: &lines, rest: SHORT, ..Sections::default() };
        Daemon::start_with(node, &redis.url(), &sections)
    };
    let daemons = lab.nodes().iter().zip([1, 1, 2]).map(daemon).collect();
    let cluster = Cluster { daemons, cli: Cli::new(&redis.url()), redis };
    for node in lab.nodes() {
        cluster.wait_node(node.name(), "active");
    }
    cluster
}

fn sip_of<'a>(lab: &'a Lab, names: &'a [&str]) -> BTreeSet<String> {
    names.iter().map(|name| lab.node(name).sip().to_string()).collect()
}

/// Runs a program that judges a file; what it says.
#[track_caller]
fn takes(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
    said
}

#[test]
fn kamailio_sends_calls_to_nodes_that_take_them_and_keeps_the_last_good_list() {
    let lab = Lab::start(&three(2));
    let mut cluster = start(&lab);
    let dir = tempfile::tempdir().unwrap();
    let list = dir.path().join("evenring.list");
    let control = Kamailio::control(dir.path());
    let file = list.to_str().unwrap();
    let arguments =
        ["--format", "dispatcher", "--watch", file, "--exec", "kamcmd", "-s", &control, "dispatcher.reload"];
    let export = Export::start(&cluster, dir.path(), &arguments);
    // Kamailio is not there yet: the file is, and the command is tried again.
    export.wait("kamcmd failed", SOON);
    let line = |name: &str, weight: u32| format!("1 sip:{} 0 0 duid={name};rweight={weight}\n", lab.node(name).sip());
    assert_eq!(fs::read_to_string(&list).unwrap(), line("a", 50) + &line("b", 50) + &line("c", 100));
    let kamailio = Kamailio::start(dir.path(), &list);
    let said = || export.said();
    export.wait("is up to date again", at_this_load(SOON));
    assert_eq!(kamailio.nodes(), ["a", "b", "c"].map(str::to_owned).into());
    assert_eq!(kamailio.invites(40), sip_of(&lab, &["a", "b", "c"]));

    // A node that is killed.
    let node = lab.node("c");
    node.kill9();
    let limit = at_this_load(Duration::from_secs(7));
    let out = kamailio.wait(&["a", "b"], limit, said);
    println!("out of Kamailio {} ms after kill -9 of its Asterisk", out.as_millis());
    assert_eq!(kamailio.invites(20), sip_of(&lab, &["a", "b"]));

    // Somebody else has it reloaded just before the next change: it refuses, and is asked again.
    wait_for(SOON, || match kamailio.command("dispatcher.reload") {
        done if done.starts_with("Ok") => Ok(()),
        other => Err(other),
    });
    assert_eq!(cluster.json_and_code(&["drain", "b"]).1, 0);
    export.wait("Ongoing reload", at_this_load(SOON));
    kamailio.wait(&["a"], at_this_load(SOON * 2), said);
    assert_eq!(export.times("Ongoing reload"), 1, "{}", export.said());
    assert_eq!(kamailio.invites(5), sip_of(&lab, &["a"]));

    // None is left: the last list stays, and that is said once.
    let last = fs::read_to_string(&list).unwrap();
    assert_eq!(last, line("a", 50));
    lab.node("a").kill9();
    export.wait("stays as it is: no node takes calls", SOON);
    // Nor without Redis.
    cluster.redis.kill9();
    export.wait("stays as it is: Redis at", SOON);
    // Rounds in which nothing may happen: there is nothing to wait for.
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(fs::read_to_string(&list).unwrap(), last);
    assert_eq!(export.times("no node takes calls"), 1, "{}", export.said());
    assert_eq!(export.times("stays as it is: Redis at"), 1, "{}", export.said());
    assert_eq!(kamailio.invites(5), sip_of(&lab, &["a"]));
}

#[test]
fn a_zone_a_backend_and_the_samples_are_taken_by_their_programs() {
    let lab = Lab::start(&three(2));
    let cluster = start(&lab);
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();

    // What the nodes have told.
    let address = lab.node("b").address().to_string();
    let row = cluster.node("b");
    assert_eq!(row["sip"], format!("sip:{}", lab.node("b").sip()), "{row}");
    assert_eq!(row["address"], address, "{row}");
    let rows: serde_json::Value = serde_json::from_str(&cluster.run(&["export", "--format", "json"]).ok()).unwrap();
    let names: Vec<_> = rows.as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["a", "b", "c"], "{rows}");

    // A zone.
    let srv = cluster.run(&["export", "--format", "dns-srv", "--ttl", "7"]).ok();
    assert_eq!(srv.matches("_sip._udp 7 IN SRV 0 ").count(), 3, "{srv}");
    fs::write(path("evenring.zone"), srv).unwrap();
    let zone = "$TTL 60\n@ IN SOA ns hostmaster 1 60 60 60 60\n@ IN NS ns\nns IN A 10.77.0.1\n";
    fs::write(path("zone"), format!("{zone}$INCLUDE {}\n", path("evenring.zone"))).unwrap();
    let said = takes("named-checkzone", &["-D", "example.net", &path("zone")]);
    let found = said.lines().filter(|line| line.starts_with("_sip._udp.example.net.") && line.contains("SRV"));
    assert_eq!(found.count(), 3, "{said}");
    assert!(!said.contains("no address"), "each target has its address: {said}");

    // A backend.
    assert_eq!(cluster.json_and_code(&["drain", "b"]).1, 0);
    let servers = cluster.run(&["export", "--format", "haproxy", "--port", "8089", "--draining", "disabled"]).ok();
    assert!(servers.contains(&format!("server b {address}:8089 weight 50 disabled\n")), "{servers}");
    let proxy =
        "defaults\n mode tcp\n timeout connect 2s\n timeout client 2s\n timeout server 2s\nlisten nodes\n bind :8089\n";
    fs::write(path("haproxy.cfg"), format!("{proxy}{servers}")).unwrap();
    takes("haproxy", &["-c", "-f", &path("haproxy.cfg")]);
    assert_eq!(cluster.run(&["export", "--format", "dispatcher"]).ok().lines().count(), 2, "b drains");
    let refused = cluster.run(&["export", "--format", "dns-srv", "--draining", "disabled"]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");

    // nginx in front of the API.
    let certificate = lab.certificate();
    let port = free_port(Ipv4Addr::LOCALHOST);
    let text = put(
        NGINX,
        &[
            ("/etc/nginx/evenring.pem", certificate.to_str().unwrap()),
            ("/etc/nginx/evenring.key", lab.dir().join("key.pem").to_str().unwrap()),
            ("/etc/nginx/evenring-ca.pem", certificate.to_str().unwrap()),
            ("listen 443 ssl", &format!("listen 127.0.0.1:{port} ssl")),
        ],
    );
    fs::write(path("nginx.conf"), &text).unwrap();
    let main = format!("pid {};", path("nginx.pid"));
    let arguments = ["-t", "-e", "stderr", "-g", &main, "-c"];
    takes("nginx", &[&arguments[..], &[&path("nginx.conf")]].concat());
    let stream = text.split("location /v1/events").nth(1).unwrap();
    assert!(stream.contains("proxy_buffering off;"), "{stream}");

    // No node is left: nothing is listed, and it says why.
    for node in lab.nodes() {
        node.kill9();
        cluster.wait_node(node.name(), "down");
    }
    let none = cluster.run(&["export", "--format", "dispatcher"]);
    assert_eq!((none.status.code(), none.stdout.as_str()), (Some(1), ""), "{none:?}");
    assert!(none.stderr.contains("no node takes calls that can be listed (a is down"), "{none:?}");
}
