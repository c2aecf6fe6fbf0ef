//! The operators' command for an Asterisk that stays away, beside a real one: it runs when nothing can live there, at most so
//! often, whatever becomes of the daemon; and never for an Asterisk that is frozen with calls, or on a node that drains.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails says why")]

#[path = "../cluster/mod.rs"]
mod cluster;
#[path = "../lab/mod.rs"]
mod lab;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cluster::{Cluster, SOON};
use lab::evenring::Sections;
use lab::phone::{Behaviour, Phones};
use lab::{Lab, Spec, Version, http, now, wait_for, wait_until};

const AFTER: Duration = Duration::from_secs(1);
const EVERY: Duration = Duration::from_secs(5);
const QUICK: &str =
    "ping_interval = \"300ms\"\nping_timeout = \"300ms\"\nlogin_timeout = \"500ms\"\nconnect_timeout = \"500ms\"\n";

/// What the command does, and what it leaves behind.
struct Script {
    path: PathBuf,
    runs: PathBuf,
}

impl Script {
    fn new(dir: &Path, body: &str) -> Self {
        let (path, runs) = (dir.join("keepalive.sh"), dir.join("runs"));
        fs::write(&path, format!("echo run >>{0}\nenv >>{0}\n{body}\n", runs.display())).unwrap();
        Self { path, runs }
    }

    fn settings(&self) -> String {
        format!(
            "[ring]\ntimeout = \"4s\"\n[keepalive]\ncommand = [\"/bin/sh\", {:?}, \"hunter2\"]\nafter = \"1s\"\nevery = \"5s\"\n\
             timeout = \"700ms\"\n",
            self.path
        )
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.runs).unwrap_or_default()
    }

    fn count(&self) -> usize {
        self.said().lines().filter(|line| *line == "run").count()
    }

    /// Waits for so many runs; when that was.
    fn wait(&self, count: usize, cluster: &Cluster) -> Instant {
        wait_for(SOON, || match self.count() {
            runs if runs >= count => Ok(()),
            runs => Err(format!("{count} runs, not {runs}; {}", cluster.logs())),
        });
        assert_eq!(self.count(), count, "{}", cluster.logs());
        now()
    }
}

fn one_node() -> Lab {
    Lab::start(&[Spec { name: "a", version: Version::V22, endpoints: 10 }])
}

fn reasons(cluster: &Cluster) -> Vec<String> {
    let text = cluster.run(&["events", "--event", "keepalive", "--json"]).ok();
    let read =
        |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["reason"].as_str().unwrap().to_owned();
    text.lines().map(read).collect()
}

#[test]
fn it_runs_for_an_asterisk_that_is_gone_at_most_so_often() {
    let lab = one_node();
    let node = lab.node("a");
    let script = Script::new(lab.dir(), "echo 'no such unit' >&2; exit 3");
    let rest = script.settings();
    let mut cluster = Cluster::with(&lab, &Sections { rest: &rest, ami: QUICK, ..Sections::default() });
    assert!(cluster.node("a")["keepalive"].is_null());

    // Who drains a node works there.
    cluster.json(&["drain", "a"]);
    node.kill9();
    cluster.wait_node("a", "down");
    cluster.wait_beats("a", 4);
    assert_eq!(script.count(), 0, "{}", cluster.logs());
    node.start();
    cluster.wait_node("a", "draining");
    cluster.json(&["resume", "a"]);
    cluster.wait_node("a", "active");

    let begin = now();
    node.kill9();
    let first = script.wait(1, &cluster);
    assert!(first - begin >= AFTER, "{:?}", first - begin);
    cluster.daemons[0].wait_log("keepalive command failed", SOON);
    let row = cluster.node("a")["keepalive"].clone();
    assert_eq!((&row["runs"], &row["result"]), (&1.into(), &"exit status: 3".into()), "{row}");
    assert_eq!(row["reason"], "nothing has listened at ami.address for 1s");
    let text = cluster.run(&["status"]).ok();
    assert!(text.contains("a: keepalive command ran once") && text.contains("exit status: 3"), "{text}");
    assert_eq!(reasons(&cluster), ["nothing has listened at ami.address for 1s", "exit status: 3"]);
    let metrics = http::get(node, "/metrics").body;
    assert!(metrics.contains("evenring_keepalive_runs_total{result=\"failed\"} 1"), "{metrics}");
    let log = cluster.daemons[0].log();
    assert!(log.contains("no such unit") && !log.contains("hunter2"), "the program, not its arguments: {log}");
    let ours =
        |line: &&str| *line != "run" && !["PWD=", "OLDPWD=", "SHLVL=", "_="].iter().any(|own| line.starts_with(own));
    assert_eq!(script.said().lines().filter(ours).collect::<Vec<_>>(), [""; 0], "an empty environment");

    // A new life of the daemon knows when it ran.
    let mut daemon = cluster.daemons.remove(0);
    daemon.kill9();
    cluster.daemons.push(daemon.again());
    let second = script.wait(2, &cluster);
    assert!(second - first >= EVERY - Duration::from_millis(100), "{:?}", second - first);
    wait_until(SOON, "the second run to be known", || cluster.node("a")["keepalive"]["runs"] == 2);

    // It is back, and stays alone.
    node.start();
    cluster.wait_node("a", "active");
    cluster.wait_beats("a", 6);
    assert_eq!(script.count(), 2, "{}", cluster.logs());
}

/// Whether a process runs; one that nobody has waited for does not.
fn runs(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.trim().is_empty() && !rest.trim_start().starts_with('Z'))
}

#[test]
fn a_frozen_asterisk_with_calls_is_left_alone_and_a_command_that_hangs_is_killed() {
    let lab = one_node();
    let node = lab.node("a");
    let pid = lab.dir().join("pid");
    let script = Script::new(lab.dir(), &format!("tail -f /dev/null & echo $! >{}; wait", pid.display()));
    let phones = Phones::register(100, 1, &lab.sip(), Behaviour::ANSWER);
    phones.wait_registered(SOON);
    let rest = script.settings();
    let cluster = Cluster::with(&lab, &Sections { rest: &rest, ami: QUICK, ..Sections::default() });
    cluster.wait_phones("a", 1);
    assert_eq!(cluster.json_and_code(&["login", "cc100x", "--agent", "7", "--wait"]).1, 0, "{}", cluster.logs());

    node.sigstop();
    cluster.wait_node("a", "down");
    cluster.wait_beats("a", 5);
    assert_eq!(script.count(), 0, "its calls come back with it: {}", cluster.logs());
    node.sigcont();
    cluster.wait_node("a", "active");
    phones.hang_up("cc100");
    node.wait_channels(0, SOON);
    wait_until(SOON, "the daemon to know of no channel", || cluster.node("a")["channels"] == 0);

    // Without a channel it has nothing to lose.
    node.sigstop();
    script.wait(1, &cluster);
    wait_until(SOON, "the end of the run", || cluster.node("a")["keepalive"]["result"] == "killed after 700ms");
    let reason = cluster.node("a")["keepalive"]["reason"].as_str().unwrap().to_owned();
    assert_eq!(reason, "AMI has not responded for 1s, and there were no channels before");
    let child = fs::read_to_string(&pid).unwrap().trim().to_owned();
    wait_until(SOON, "what the command has started to be killed with it", || !runs(&child));
    node.sigcont();
    cluster.wait_node("a", "active");
    assert_eq!(cluster.agents()["a"], 0);
}
