//! A real node seen over HTTP: what a proxy, a probe and Prometheus learn of it while it works, and while Asterisk, Redis
//! and the daemon itself go away.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that fails says why")]

#[path = "../cluster/mod.rs"]
mod cluster;
#[path = "../lab/mod.rs"]
mod lab;
#[path = "../monitoring/mod.rs"]
mod monitoring;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use cluster::{Cluster, SOON};
use lab::http::{get, samples, send};
use lab::phone::{Behaviour, Phones};
use lab::{Lab, Node, Spec, Version, run, wait_for};

fn one_node() -> Lab {
    Lab::start(&[Spec { name: "a", version: Version::V22, endpoints: 6 }])
}

/// Waits until `/readyz` says this in its first line. It is alive all the time.
#[track_caller]
fn wait_ready(node: &Node, cluster: &Cluster, line: &str) {
    let status = if line == "ready" { 200 } else { 503 };
    wait_for(SOON * 2, || {
        let health = get(node, "/healthz");
        assert_eq!((health.status, health.body.as_str()), (200, "ok\n"), "{}", cluster.logs());
        let ready = get(node, "/readyz");
        let first = ready.body.lines().next().unwrap_or_default();
        if (ready.status, first) == (status, line) { Ok(()) } else { Err(format!("{line:?}: {ready:?}")) }
    });
}

/// The samples of a node, as soon as they are as `right` wants them.
#[track_caller]
fn wait_samples(node: &Node, what: &str, right: impl Fn(&BTreeMap<String, f64>) -> bool) -> BTreeMap<String, f64> {
    wait_for(SOON, || {
        let found = samples(&get(node, "/metrics").body);
        if right(&found) { Ok(found) } else { Err(format!("{what}: {found:#?}")) }
    })
}

#[track_caller]
fn every_reason_is_there_from_the_start(node: &Node) {
    let found = samples(&get(node, "/metrics").body);
    let zeros = |metric: &str| found.iter().filter(|(name, value)| name.starts_with(metric) && **value == 0.0).count();
    let series = ["evenring_logins_refused_total{", "evenring_logins_failed_total{", "evenring_placements_total{"];
    assert_eq!(series.map(zeros), [6, 18, 9], "{found:#?}");
}

#[test]
fn metrics_say_what_status_says_and_what_happened() {
    let lab = one_node();
    let node = lab.node("a");
    let phones = Phones::register(100, 4, &lab.sip(), Behaviour::ANSWER);
    phones.wait_registered(SOON);
    let sections = lab::evenring::Sections { node: "weight = 2\nmax_agents = 9", ..Default::default() };
    let cluster = Cluster::with(&lab, &sections);
    cluster.wait_phones("a", 4);
    wait_ready(node, &cluster, "ready");

    every_reason_is_there_from_the_start(node);
    assert_eq!(cluster.json_and_code(&["login", "nobodyx"]).1, 1, "no daemon has placed this one");
    phones.behave("cc101", Behaviour::Decline);
    assert_eq!(cluster.json_and_code(&["login", "cc100x", "--wait"]).1, 0, "{}", cluster.logs());
    assert_eq!(cluster.json_and_code(&["login", "cc101x", "--wait"]).1, 1, "{}", cluster.logs());
    assert_eq!(cluster.json_and_code(&["login", "cc102x", "--wait", "--remote"]).1, 0, "{}", cluster.logs());
    phones.hang_up("cc102");
    let found = wait_samples(node, "one local agent live, the remote one gone, a ping answered", |found| {
        found["evenring_agents{class=\"local\",state=\"live\"}"] == 1.0
            && found["evenring_agents{class=\"remote\",state=\"live\"}"] == 0.0
            && found["evenring_sessions_ended_total{reason=\"hung-up\"}"] == 1.0
            && found.contains_key("evenring_ami_ping_rtt_seconds")
    });
    let status = cluster.node("a");
    for (metric, key) in [
        ("evenring_node_load", "load"),
        ("evenring_node_weight", "weight"),
        ("evenring_node_capacity", "max_agents"),
        ("evenring_registrations{state=\"registered\"}", "registrations"),
        ("evenring_channels", "channels"),
        ("evenring_refused_generations_total", "refused"),
    ] {
        assert_eq!(Some(found[metric]), status[key].as_f64(), "{metric} and {key}: {status}");
    }
    for (metric, value) in [
        ("evenring_registrations{state=\"unregistered\"}", 5.0),
        ("evenring_orders_taken_total{kind=\"ring\"}", 3.0),
        ("evenring_originates_sent_total", 3.0),
        ("evenring_originate_total{result=\"live\"}", 2.0),
        ("evenring_originate_total{result=\"declined\"}", 1.0),
        ("evenring_login_ring_delay_seconds_count", 3.0),
        ("evenring_login_ring_delay_seconds_bucket{le=\"1.0\"}", 3.0),
        ("evenring_ring_duration_seconds_count", 2.0),
        ("evenring_node_state{state=\"active\"}", 1.0),
        ("evenring_node_state{state=\"down\"}", 0.0),
        ("evenring_node_ready", 1.0),
        ("evenring_ami_connected", 1.0),
        ("evenring_ami_resync_duration_seconds_count", 1.0),
        ("evenring_ami_reconnects_total", 0.0),
        ("evenring_redis_up", 1.0),
        ("evenring_session_drift", 0.0),
        ("evenring_queue_depth{queue=\"ring\"}", 0.0),
    ] {
        assert_eq!(found.get(metric), Some(&value), "{metric}");
    }
    assert!(found["evenring_ami_events_total{event=\"Newchannel\"}"] >= 3.0, "{found:#?}");
    assert!(
        found["evenring_ami_ping_rtt_seconds"] < 1.0 && found["evenring_heartbeat_age_seconds"] < 3.0,
        "{found:#?}"
    );
    assert!(found["evenring_redis_command_duration_seconds_count{command=\"heartbeat\"}"] >= 2.0, "{found:#?}");

    inbox(&cluster, node);
    let answer = get(node, "/metrics");
    assert!(answer.head.contains("text/plain; version=0.0.4"), "{}", answer.head);
    monitoring::is_well_formed(&answer.body);
    monitoring::has_all_that_is_asked_for(&answer.body);
    let (served, listed) = (families(&answer.body), listed());
    assert!(served.len() > 30, "{served:?}");
    assert_eq!(listed, served, "left: docs/metrics.md, right: /metrics");
    for secret in ["cc100", "cc101", "evenring-7", lab::config::AMI_USER.1] {
        assert!(!answer.body.contains(secret), "{secret} in the metrics");
    }
}

/// The name and type of each metric that is served.
fn families(page: &str) -> BTreeSet<String> {
    page.lines().filter_map(|line| line.strip_prefix("# TYPE ")).map(str::to_owned).collect()
}

/// The same as docs/metrics.md lists them.
fn listed() -> BTreeSet<String> {
    let page = include_str!("../../docs/metrics.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `evenring_"));
    let row = |row: &str| {
        let (name, rest) = row.split_once("` | ").expect("a name and a type");
        let kind = rest.split([',', ' ']).next().expect("a type");
        format!("evenring_{name} {kind}")
    };
    rows.map(row).collect()
}

/// What an RSMQ client asks for is seen, too, also if it is nonsense.
fn inbox(cluster: &Cluster, node: &Node) {
    let send = |text: &str| {
        let script = "import sys, rsmq; rsmq.RedisSMQ(host=sys.argv[1], port=int(sys.argv[2]), ns='{evenring}').\
                      sendMessage(qname='logins', message=sys.argv[3]).execute()";
        let address = cluster.redis.address();
        let mut python = std::process::Command::new(lab::python());
        python.args(["-c", script, &address.ip().to_string(), &address.port().to_string(), text]);
        let output = python.output().expect("run Python");
        assert!(output.status.success(), "{output:?}");
    };
    send("{\"alias\": \"cc103x\"}");
    send("{\"alias\": \"nobody-x\"}");
    send("nonsense");
    wait_samples(node, "three messages of the inbox", |found| {
        found.get("evenring_placements_total{result=\"placed\",reason=\"\"}") == Some(&1.0)
            && found.get("evenring_placements_total{result=\"refused\",reason=\"unknown-alias\"}") == Some(&1.0)
            && found["evenring_orders_deadletter_total"] == 1.0
            && found["evenring_placement_duration_seconds_count"] == 2.0
            && found["evenring_logins_refused_total{reason=\"unknown-alias\"}"] == 2.0
            && found["evenring_logins_failed_total{reason=\"declined\"}"] == 1.0
    });
}

#[test]
fn readiness_names_what_is_missing_and_health_stays() {
    let lab = one_node();
    let node = lab.node("a");
    let mut cluster = Cluster::start(&lab);
    wait_ready(node, &cluster, "ready");

    assert_eq!(cluster.json_and_code(&["drain", "a"]).1, 0);
    wait_ready(node, &cluster, "not ready: draining");
    assert_eq!(samples(&get(node, "/metrics").body)["evenring_node_state{state=\"draining\"}"], 1.0);
    assert_eq!(cluster.json_and_code(&["resume", "a"]).1, 0);
    wait_ready(node, &cluster, "ready");

    cluster.redis.stop();
    wait_ready(node, &cluster, "not ready: redis");
    let found = samples(&get(node, "/metrics").body);
    assert_eq!((found["evenring_redis_up"], found["evenring_node_ready"]), (0.0, 0.0));
    assert!(found.keys().any(|name| name.starts_with("evenring_redis_errors_total{")), "{found:#?}");
    cluster.redis.start_again();
    wait_ready(node, &cluster, "ready");

    node.kill9();
    wait_ready(node, &cluster, "not ready: asterisk");
    assert_eq!(samples(&get(node, "/metrics").body)["evenring_ami_connected"], 0.0);
    node.start();
    wait_ready(node, &cluster, "ready");
    assert!(samples(&get(node, "/metrics").body)["evenring_ami_reconnects_total"] >= 1.0);

    // A frozen Redis takes no last words, so the end lasts long enough to be seen.
    cluster.redis.sigstop();
    run(&format!("kill -TERM {}", cluster.daemons[0].pid()));
    wait_for(SOON, || match get(node, "/readyz") {
        answer if answer.status == 503 && answer.body.contains("stopping") => Ok(()),
        answer => Err(format!("a daemon that says that it stops: {answer:?}")),
    });
    assert_eq!(cluster.daemons[0].wait_end(SOON), Some(0));
    cluster.redis.sigcont();
    assert_eq!(get(node, "/healthz").status, 0, "nobody listens any more");
}

#[test]
fn nonsense_and_idlers_do_no_harm() {
    let lab = one_node();
    let node = lab.node("a");
    let cluster = Cluster::start(&lab);
    assert_eq!(get(node, "/nothing").status, 404);
    assert_eq!(send(node, "POST /readyz HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").status, 405);
    assert_eq!(send(node, "HEAD /readyz HTTP/1.0\r\n\r\n").status, 200);
    assert_eq!(send(node, "\u{16}\u{3}\u{1} nonsense\r\n\r\n").status, 400);
    let endless = format!("GET /healthz HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(100_000));
    assert_ne!(send(node, &endless).status, 200, "431, or a connection that is cut before this is read");
    // More than it talks to at once, and none of them says anything.
    let idle = "for n in $(seq 20); do exec {fd}<>/dev/tcp/127.0.0.1/9816; done; echo open; sleep 60";
    let mut idlers = std::process::Command::new("ip");
    idlers.args(["netns", "exec", &node.namespace(), "bash", "-c", idle]).stdout(std::process::Stdio::piped());
    let mut idlers = idlers.spawn().expect("start bash");
    let mut line = [0; 5];
    std::io::Read::read_exact(idlers.stdout.as_mut().expect("its output"), &mut line).expect("it opens them");
    let begin = lab::now();
    assert_eq!(get(node, "/healthz").status, 200, "{}", cluster.logs());
    println!("behind 20 idle connections: answered after {:?}", begin.elapsed());
    assert_eq!(cluster.node("a")["state"], "active");
    idlers.kill().and_then(|()| idlers.wait()).expect("it ends");
}

/// Opens so many connections to the daemon of a node and sends a part of a request on every other; they end with the handle.
fn idlers(node: &Node, count: usize) -> Idlers {
    let script = format!(
        "import socket, sys\nheld = []\nfor n in range({count}):\n  s = socket.create_connection(('127.0.0.1', 9816))\n  \
         if n % 2: s.sendall(b'GET /healthz HTTP/1.1\\r\\nHo')\n  held.append(s)\nprint('open', flush=True)\nsys.stdin.read()"
    );
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &node.namespace(), "python3", "-c", &script]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("run Python");
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().expect("a pipe")).read_line(&mut line).expect("it says when they are open");
    assert_eq!(line, "open\n");
    Idlers(child)
}

struct Idlers(Child);

impl Drop for Idlers {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn whoever_connects_and_says_nothing_keeps_no_health_check_waiting() {
    let lab = one_node();
    let node = lab.node("a");
    let cluster = Cluster::start(&lab);
    wait_ready(node, &cluster, "ready");
    let took = || {
        let begin = lab::now();
        assert_eq!(get(node, "/healthz").status, 200);
        begin.elapsed()
    };
    let quiet = (0..5).map(|_| took()).max().expect("five");
    for count in [16, 200] {
        let _idlers = idlers(node, count);
        let slowest = (0..5).map(|_| took()).max().expect("five");
        println!("{count} idle connections: /healthz in {slowest:.0?} at most, {quiet:.0?} without them");
        assert!(slowest < lab::at_this_load(Duration::from_secs(1)), "{count}: {slowest:?}");
        assert_eq!(get(node, "/metrics").status, 200);
    }
}
