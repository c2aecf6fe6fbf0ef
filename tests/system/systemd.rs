//! The shipped unit, user, settings and program under a real systemd, beside a real Asterisk and a real Redis.
//!
//! Owns what systemd gives an operator: when the service is ready, what brings it back, what it may do, what it says.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that fails says why")]

#[path = "../cluster/mod.rs"]
mod cluster;
#[path = "../lab/mod.rs"]
mod lab;
#[path = "../service/mod.rs"]
mod service;

use std::fs;
use std::path::Path;
use std::time::Duration;

use cluster::{Cluster, SOON};
use lab::machine::Machine;
use lab::phone::{Behaviour, Phones};
use lab::{Lab, Node, Spec, Version, config, http, now, wait_until};
use service::{RUNNING, SETTINGS, UNIT, machine, no_daemons};

/// `RestartSec` of the unit.
const RESTART_DELAY: Duration = Duration::from_millis(500);
/// `TimeoutStartSec` of the unit: so long systemd waits for READY.
const START_LIMIT: Duration = Duration::from_secs(30);

/// Starts the unit while something is away. It says what, is ready all the same before systemd gives up waiting, and is
/// in the rotation when that is back: one life long.
fn starts_without(node: &Node, cluster: &mut Cluster, said: &str, lacks: &str, bring_back: impl FnOnce(&mut Cluster)) {
    let machine = machine(node, &cluster.redis.url());
    let begin = now();
    machine.ok(&["systemctl", "start", "--no-block", UNIT]);
    machine.wait_unit(UNIT, "activating/start", said, SOON);
    let pid = machine.property(UNIT, "MainPID");
    machine.wait_unit(UNIT, RUNNING, said, START_LIMIT);
    let took = begin.elapsed();
    println!("{said:?}: READY {took:.1?} after the start");
    assert!(took > START_LIMIT / 2 && took < START_LIMIT, "it had waited for {took:?}");
    let readyz = http::get(node, "/readyz");
    assert_eq!(readyz.status, 503);
    assert!(readyz.body.lines().next().unwrap().contains(lacks), "{}", readyz.body);
    bring_back(cluster);
    cluster.wait_node(node.name(), "active");
    machine.wait_unit(UNIT, RUNNING, "active: ", SOON);
    assert_eq!(http::get(node, "/readyz").status, 200);
    assert_eq!((machine.property(UNIT, "MainPID"), machine.property(UNIT, "NRestarts")), (pid, "0".to_owned()));
}

#[test]
fn what_is_away_at_the_start_is_waited_for_but_not_for_ever() {
    let lab = Lab::start(&["a", "b"].map(|name| Spec { name, version: Version::V22, endpoints: 4 }));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut cluster = no_daemons();
            cluster.redis.kill9();
            starts_without(lab.node("a"), &mut cluster, "Redis unavailable", "redis", |cluster| {
                cluster.redis.start_again();
            });
        });
        scope.spawn(|| {
            let node = lab.node("b");
            node.kill9();
            starts_without(node, &mut no_daemons(), "waiting for Asterisk", "asterisk", |_| node.start());
        });
    });
}

/// A service in the rotation with one live call.
struct Service<'a> {
    lab: &'a Lab,
    machine: Machine,
    cluster: Cluster,
    phones: Phones,
}

impl Service<'_> {
    fn node(&self) -> &Node {
        &self.lab.nodes()[0]
    }

    fn pid(&self) -> String {
        self.machine.property(UNIT, "MainPID")
    }

    fn restarts(&self) -> u32 {
        self.machine.property(UNIT, "NRestarts").parse().unwrap()
    }

    /// Does something that ends this life of the daemon; how long it takes until the next one is in the rotation, with the
    /// call that was live.
    fn next_life(&self, end: impl FnOnce(&Self)) -> Duration {
        let (generation, restarts) = (self.cluster.node("a")["generation"].clone(), self.restarts());
        let begin = now();
        end(self);
        wait_until(SOON * 2, "a next life in the rotation", || {
            let node = self.cluster.node("a");
            node["state"] == "active" && node["generation"] != generation
        });
        let took = begin.elapsed();
        assert_eq!(self.restarts(), restarts + 1, "{}", self.machine.last_lines());
        wait_until(SOON, "the live call to be known again", || self.cluster.agents()["a"] == 1);
        assert_eq!((self.phones.live(), self.phones.rings("cc100")), (1, 1), "nobody is cut or rung again");
        took
    }

    /// `systemctl reload` with these settings; whether it did, and all that was said.
    fn reload(&self, from: &str, to: &str) -> (bool, String) {
        let path = self.machine.root().join(SETTINGS.trim_start_matches('/'));
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "no {from:?} in {text}");
        fs::write(&path, text.replace(from, to)).unwrap();
        let before = self.machine.journal(&["_SYSTEMD_UNIT=evenring.service"]).len();
        let done = self.machine.run(&["systemctl", "reload", UNIT]).status.success();
        if done {
            wait_until(SOON, "the daemon to have read its settings", || {
                self.said(before).contains("settings reloaded")
            });
        }
        fs::write(&path, text).unwrap();
        (done, self.said(before))
    }

    fn said(&self, before: usize) -> String {
        let lines = self.machine.journal(&["_SYSTEMD_UNIT=evenring.service"]);
        lines[before..].iter().map(|line| format!("{line}\n")).collect()
    }
}

#[test]
fn one_service_through_all_that_happens_to_it() {
    let lab = Lab::start(&[Spec { name: "a", version: Version::V22, endpoints: 4 }]);
    let phones = Phones::register(100, 2, &lab.sip(), Behaviour::ANSWER);
    phones.wait_registered(SOON);
    let cluster = no_daemons();
    let machine = machine(lab.node("a"), &cluster.redis.url());
    let service = Service { lab: &lab, machine, cluster, phones };
    starts(&service);
    is_confined(&service);
    is_restarted(&service);
    follows_its_asterisk(&service);
    takes_over_settings(&service);
    is_checked_regularly(&service);
    keeps_a_journal(&service);
    outlives_its_journal(&service);
    stops(&service);
}

fn starts(service: &Service<'_>) {
    let (machine, cluster) = (&service.machine, &service.cluster);
    let begin = now();
    machine.ok(&["systemctl", "start", UNIT]);
    println!("systemctl start, Redis and Asterisk up: {:.0?}", begin.elapsed());
    assert!(
        begin.elapsed() < lab::at_this_load(Duration::from_secs(5)),
        "it was not READY when it was in the rotation"
    );
    assert_eq!(cluster.node("a")["state"], "active", "in the rotation when systemctl returns");
    assert_eq!(machine.state(UNIT), RUNNING);
    assert_eq!(cluster.json_and_code(&["login", "cc100x", "--agent", "7", "--wait"]).1, 0);
    machine.wait_unit(UNIT, RUNNING, "active: 2 phones, 1 channel", SOON);
}

/// What the kernel and systemd say about the process; the secret, whose file it cannot read.
fn is_confined(service: &Service<'_>) {
    let machine = &service.machine;
    let status = machine.ok(&["cat", &format!("/proc/{}/status", service.pid())]);
    let of = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
        line.split_whitespace().next().unwrap().to_owned()
    };
    let user = machine.ok(&["id", "-u", "evenring"]);
    assert_eq!(of("Uid"), user.trim(), "the user that systemd-sysusers made");
    let nothing = "0000000000000000";
    assert_eq!([of("CapEff"), of("CapBnd"), of("NoNewPrivs"), of("Seccomp")], [nothing, nothing, "1", "2"]);
    let limit = |tree, names: [&str; 2]| {
        let group = machine.control_group(UNIT, tree);
        let read = names.iter().find_map(|name| fs::read_to_string(group.join(name)).ok());
        read.unwrap_or_else(|| panic!("none of {names:?} in {}", group.display())).trim().to_owned()
    };
    assert_eq!(limit("memory", ["memory.limit_in_bytes", "memory.max"]), (256 << 20).to_string());
    assert_eq!(limit("pids", ["pids.max", "pids.max"]), "64");
    let report = machine.run(&["systemd-analyze", "security", "--no-pager", "--threshold=12", UNIT]);
    assert!(report.status.success(), "{}{}", report.stdout, report.stderr);
    println!("systemd-analyze security: {}", report.stdout.lines().last().unwrap_or_default());
    // the settings name no secret, so it came as a credential; the sandbox does not let the daemon near the file
    assert_eq!(machine.ok(&["stat", "-c", "%U %a", "/etc/evenring/ami-secret"]).trim(), "root 600");
    let file = "secret_file = \"/etc/evenring/ami-secret\"";
    let (done, said) = service.reload("# secret_file = \"/run/secrets/ami\"", file);
    assert!(!done && said.contains("/etc/evenring/ami-secret") && said.contains("ermission denied"), "{said}");
}

fn is_restarted(service: &Service<'_>) {
    let killed = service.next_life(|service| {
        service.machine.ok(&["kill", "-KILL", &service.pid()]);
    });
    let after_delay = killed.saturating_sub(RESTART_DELAY);
    println!("kill -9: in the rotation again {after_delay:.0?} after the restart delay of {RESTART_DELAY:?}");
    // Nobody waits for its lease, which is 3 s.
    assert!(after_delay < lab::at_this_load(Duration::from_secs(3)), "{after_delay:?}");
    let frozen = service.next_life(|service| {
        service.machine.ok(&["kill", "-STOP", &service.pid()]);
    });
    println!("frozen: killed by the watchdog and in the rotation again after {frozen:.1?}");
    let said = service.said(0);
    let journal = service.machine.journal(&["UNIT=evenring.service"]);
    let by_watchdog =
        journal.iter().any(|line| line["MESSAGE"].as_str().is_some_and(|text| text.contains("atchdog timeout")));
    assert!(by_watchdog, "{said}");
}

fn follows_its_asterisk(service: &Service<'_>) {
    let (machine, cluster, pid) = (&service.machine, &service.cluster, service.pid());
    let begin = now();
    service.node().kill9();
    cluster.wait_node("a", "down");
    println!("Asterisk killed: seen out of the rotation after {:.0?}", begin.elapsed());
    machine.wait_unit(UNIT, RUNNING, "Asterisk unavailable", SOON);
    service.phones.hang_up_all();
    service.node().start();
    cluster.wait_node("a", "active");
    machine.wait_unit(UNIT, RUNNING, "active: ", SOON);
    assert_eq!(service.pid(), pid, "the same life");
}

fn takes_over_settings(service: &Service<'_>) {
    let weight = || service.cluster.node("a")["weight"].clone();
    let pid = service.pid();
    let (done, said) = service.reload("#weight = 1", "weight = 3");
    assert!(done, "{said}");
    assert!(said.contains("\"EVENRING_KEY\":\"node.weight\"") && said.contains("\"EVENRING_TO\":\"3\""), "{said}");
    wait_until(SOON, "Redis to know the new weight", || weight() == 3);
    let (done, said) = service.reload("#weight = 1", "wieght = 5");
    assert!(!done && said.contains("unknown key node.wieght") && !said.contains("settings reloaded"), "{said}");
    service.cluster.wait_beats("a", 2);
    assert_eq!((weight(), service.pid()), (3.into(), pid), "the old settings stay");
    assert_eq!(service.machine.state(UNIT), RUNNING);
}

/// The timer's check, in a sandbox as tight as the daemon's: what it finds is in the daemon's metrics, and fails the unit.
fn is_checked_regularly(service: &Service<'_>) {
    const DOCTOR: &str = "evenring-doctor.service";
    let machine = &service.machine;
    let found = |level: &str| {
        let found = http::samples(&http::get(service.node(), "/metrics").body);
        found.get(&format!("evenring_doctor_findings{{level=\"{level}\"}}")).copied()
    };
    let runs = || machine.journal(&["UNIT=evenring-doctor.service", "JOB_TYPE=start", "JOB_RESULT=done"]).len();
    let result = || machine.property(DOCTOR, "Result");
    assert_eq!(found("failure"), None, "it has not run");
    machine.ok(&["systemctl", "start", DOCTOR]);
    assert_eq!((found("failure"), result().as_str(), runs()), (Some(0.0), "success", 1), "{}", machine.last_lines());
    let samples = http::samples(&http::get(service.node(), "/metrics").body);
    let at = samples["evenring_doctor_last_run_timestamp_seconds"];
    let report = machine.run(&["systemd-analyze", "security", "--no-pager", "--threshold=12", DOCTOR]);
    assert!(report.status.success(), "{}{}", report.stdout, report.stderr);

    let conf = service.node().root().join("etc/asterisk/manager.conf");
    let text = fs::read_to_string(&conf).unwrap();
    fs::write(&conf, text.replace("write = originate,call,reporting,agent", "write = originate")).unwrap();
    service.node().cli("manager reload");
    let timer = fs::read_to_string(machine.root().join("usr/lib/systemd/system/evenring-doctor.timer")).unwrap();
    assert!(timer.contains("OnActiveSec=2min\n") && timer.contains("RandomizedDelaySec=1min\n"), "{timer}");
    let timer = timer.replace("OnActiveSec=2min\n", "OnActiveSec=1s\n").replace("RandomizedDelaySec=1min\n", "");
    machine.install("/etc/systemd/system/evenring-doctor.timer", timer, 0o644);
    machine.ok(&["systemctl", "daemon-reload"]);
    machine.ok(&["systemctl", "enable", "--now", "evenring-doctor.timer"]);
    wait_until(SOON * 3, "the timer's check to have failed", || found("failure").is_some_and(|count| count > 0.0));
    wait_until(SOON, "the unit to have failed", || result() == "exit-code");
    assert_eq!(machine.property(DOCTOR, "ExecMainStatus"), "2", "{}", machine.last_lines());
    let samples = http::samples(&http::get(service.node(), "/metrics").body);
    assert!(samples["evenring_doctor_last_run_timestamp_seconds"] > at, "{samples:?}");
    let said = machine.ok(&["journalctl", "--no-pager", "-u", "evenring-doctor", "-n", "40"]);
    assert!(said.contains("failure") && said.contains("write"), "{said}");
    machine.ok(&["systemctl", "disable", "--now", "evenring-doctor.timer"]);
    fs::write(&conf, text).unwrap();
    service.node().cli("manager reload");
    machine.ok(&["systemctl", "start", DOCTOR]);
    assert_eq!((found("failure"), result().as_str()), (Some(0.0), "success"), "{}", machine.last_lines());
}

/// Every line is the daemon's own, with its fields.
fn keeps_a_journal(service: &Service<'_>) {
    let live = service.machine.journal(&["_SYSTEMD_UNIT=evenring.service", "EVENRING_MESSAGE=live"]);
    let [line] = &live[..] else { panic!("one call was live: {live:?}") };
    let fields = ["EVENRING_NODE", "EVENRING_ALIAS", "EVENRING_AGENT", "PRIORITY", "SYSLOG_IDENTIFIER", "_TRANSPORT"];
    assert_eq!(fields.map(|field| line[field].as_str().unwrap()), ["a", "cc100x", "7", "6", "evenring", "journal"]);
    let session = line["EVENRING_SESSION"].as_str().unwrap();
    let events = service.machine.journal(&[&format!("EVENRING_SESSION={session}")]);
    let events: Vec<_> = events.iter().map(|line| line["EVENRING_MESSAGE"].as_str().unwrap()).collect();
    assert_eq!(events[..3], ["order taken", "ringing", "live"]);
    assert!(!service.said(0).contains(config::AMI_USER.1), "the secret in the journal");
}

/// A journald that stands still takes no lines, and costs nothing else: no agent, no heartbeat, no watchdog.
fn outlives_its_journal(service: &Service<'_>) {
    let (machine, cluster, pid) = (&service.machine, &service.cluster, service.pid());
    let path = machine.root().join(SETTINGS.trim_start_matches('/'));
    let text = fs::read_to_string(&path).unwrap();
    let unknown: String = (0..1500).map(|n| format!("\n[unknown{n}]\nkey = 1\n")).collect();
    let journald = machine.property("systemd-journald.service", "MainPID");
    machine.ok(&["kill", "-STOP", &journald]);
    fs::write(&path, format!("{text}{unknown}")).unwrap();
    let dropped = || {
        let found = http::samples(&http::get(service.node(), "/metrics").body);
        found.get("evenring_log_lines_dropped_total").copied().unwrap_or_default()
    };
    wait_until(SOON * 3, "log lines to be dropped", || {
        machine.ok(&["kill", "-HUP", &pid]);
        dropped() > 0.0
    });
    fs::write(&path, &text).unwrap();
    let (login, code) = cluster.json_and_code(&["login", "cc101x", "--wait"]);
    assert_eq!(code, 0, "{login}");
    cluster.wait_beats("a", 2);
    assert_eq!(cluster.node("a")["state"], "active");
    machine.ok(&["kill", "-CONT", &journald]);
    wait_until(SOON * 2, "the gap to be said", || {
        !machine.journal(&["_SYSTEMD_UNIT=evenring.service", "EVENRING_MESSAGE=log lines were dropped"]).is_empty()
    });
    assert_eq!((service.pid(), machine.state(UNIT)), (pid, RUNNING.to_owned()), "the same life");
}

fn stops(service: &Service<'_>) {
    let machine = &service.machine;
    let begin = now();
    machine.ok(&["systemctl", "stop", UNIT]);
    println!("systemctl stop: {:.0?}", begin.elapsed());
    assert_eq!(machine.state(UNIT), "inactive/dead");
    let result = ["Result", "ExecMainStatus", "ExecMainCode"].map(|name| machine.property(UNIT, name));
    assert_eq!(result, ["success", "0", "1"], "exited, with 0: {}", machine.last_lines());
    assert_eq!(service.cluster.node("a")["state"], "stopped");
    // without the secret's file it does not start, and is not tried for ever
    machine.ok(&["rm", "/etc/evenring/ami-secret"]);
    assert!(!machine.run(&["systemctl", "start", UNIT]).status.success());
    let result = ["ActiveState", "ExecMainStatus", "NRestarts"].map(|name| machine.property(UNIT, name));
    assert_eq!(result, ["failed", "243", "0"], "{}", machine.last_lines());
}

/// What docs/operations.md tells operators to write for the keepalive: the settings, and path and text of each unit.
fn keepalive_of_the_page() -> (String, Vec<(String, String)>) {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations.md")).unwrap();
    let section = page.split("\n## Keepalive").nth(1).expect("a section");
    let block = |language: &str| {
        let block = section.split(&format!("```{language}\n")).nth(1).expect("a block");
        block.split("```").next().unwrap().to_owned()
    };
    let units = block("ini");
    let files = units.split("# /").skip(1).map(|file| {
        let (path, text) = file.split_once('\n').unwrap();
        (format!("/{path}"), text.to_owned())
    });
    (block("toml"), files.collect())
}

#[test]
fn the_keepalive_of_the_pages_starts_asterisk_from_inside_of_the_sandbox() {
    let lab = Lab::start(&[Spec { name: "a", version: Version::V22, endpoints: 4 }]);
    let (node, cluster) = (lab.node("a"), no_daemons());
    let machine = machine(node, &cluster.redis.url());
    let (settings, files) = keepalive_of_the_page();
    let sample = fs::read_to_string(machine.root().join(SETTINGS.trim_start_matches('/'))).unwrap();
    assert!(sample.contains("[keepalive]\n") && files.len() == 3, "{files:?}");
    machine.install(SETTINGS, sample.replacen("[keepalive]\n", &format!("{settings}after = \"1s\"\n"), 1), 0o644);
    for (path, text) in &files {
        machine.install(path, text, 0o644);
    }
    // Asterisk runs beside this machine: something of its name stands in for it.
    let asterisk = "[Service]\nType=oneshot\nExecStart=/usr/bin/touch /run/asterisk-was-started\n";
    machine.install("/etc/systemd/system/asterisk.service", asterisk, 0o644);
    machine.ok(&["systemctl", "daemon-reload"]);
    machine.ok(&["systemctl", "enable", "--now", "asterisk-keepalive.path"]);
    machine.ok(&["systemctl", "start", UNIT]);
    cluster.wait_node("a", "active");
    node.kill9();
    wait_until(SOON, "the command to have ended", || {
        let row = cluster.node("a")["keepalive"].clone();
        assert!(row["result"].as_str().unwrap_or_default().trim_start_matches("exit status: 0").is_empty(), "{row}");
        row["result"] == "exit status: 0"
    });
    let there = |path: &str| machine.run(&["test", "-e", path]).status.success();
    wait_until(SOON, "Asterisk to be started", || there("/run/asterisk-was-started"));
    assert!(!there("/run/evenring/asterisk-is-away"), "{}", machine.last_lines());
}
