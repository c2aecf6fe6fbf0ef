//! Why a node is not ready, in all the places where somebody looks at 3 a.m.: the journal, `systemctl status`, `/readyz` and
//! `evenring status`. A real systemd, Asterisk and Redis, broken one after the other; each reason goes when it is over.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that fails says why")]

#[path = "../cluster/mod.rs"]
mod cluster;
#[path = "../lab/mod.rs"]
mod lab;
#[path = "../service/mod.rs"]
mod service;

use std::fs;

use cluster::{Cluster, SOON};
use lab::evenring::Daemon;
use lab::machine::Machine;
use lab::phone::{Behaviour, Phones};
use lab::{Lab, Node, Spec, Version, config, http, wait_for, wait_until};
use serde_json::Value;
use service::{AMI_SECRET, RUNNING, SETTINGS, UNIT, machine, no_daemons};

/// The service on node a.
struct Service<'a> {
    node: &'a Node,
    machine: Machine,
    cluster: Cluster,
}

impl Service<'_> {
    /// Waits until everybody who asks is told this. `word` is what `/readyz` says first.
    fn tells(&self, word: &str, reason: &str) {
        wait_for(SOON * 2, || {
            let (line, readyz) = (self.machine.property(UNIT, "StatusText"), http::get(self.node, "/readyz"));
            let first = readyz.body.lines().next().unwrap_or_default();
            let is_said = readyz.status == 503 && first.contains(word) && readyz.body.contains(reason);
            // A Redis that is away is told by the command itself.
            let status = self.cluster.run(&["status"]);
            let is_shown = word != "asterisk"
                || status.stdout.lines().any(|line| line.starts_with("a (") && line.contains(reason))
                    && self.cluster.node("a")["reason"].as_str().unwrap().contains(reason);
            let said = format!(
                "systemctl status: {line}\n/readyz:\n{}status: {}{}",
                readyz.body, status.stdout, status.stderr
            );
            if line.contains(reason) && is_said && is_shown {
                println!("\n{said}");
                Ok(())
            } else {
                Err(format!("{word}: {reason:?} to be said everywhere, not\n{said}\n{}", self.machine.last_lines()))
            }
        });
    }

    /// Waits until nobody is told a reason any more.
    fn is_well(&self) {
        self.cluster.wait_node("a", "active");
        wait_for(SOON, || {
            let line = self.machine.property(UNIT, "StatusText");
            let (readyz, row) = (http::get(self.node, "/readyz"), self.cluster.node("a"));
            let said = (readyz.status, readyz.body.as_str(), row["reason"].as_str());
            let is_over = said == (200, "ready\n", Some("")) && line.starts_with("active: ") && !line.contains(';');
            if is_over { Ok(()) } else { Err(format!("no reason to be left: {line:?}, {said:?}")) }
        });
        let status = self.cluster.run(&["status"]).stdout;
        assert!(!status.lines().any(|line| line.starts_with("a (")), "a line with a reason: {status}");
    }

    fn restart(&self) {
        self.machine.ok(&["systemctl", "restart", "--no-block", UNIT]);
    }

    /// Changes a file of the machine; returns what it was.
    fn change(&self, path: &str, from: &str, to: &str) -> String {
        let file = self.machine.root().join(path.trim_start_matches('/'));
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains(from), "no {from:?} in {text}");
        fs::write(file, text.replace(from, to)).unwrap();
        text
    }

    /// Changes manager.conf of the Asterisk.
    fn manager(&self, from: &str, to: &str) {
        let path = self.node.root().join("etc/asterisk/manager.conf");
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "no {from:?} in {text}");
        fs::write(path, text.replacen(from, to, 1)).unwrap();
        self.node.cli("manager reload");
    }

    /// The last line of the journal with this message: what `journalctl` shows has each of its fields.
    fn line(&self, message: &str, priority: &str, fields: &[(&str, &str)]) -> String {
        let filter = ["_SYSTEMD_UNIT=evenring.service".to_owned(), format!("EVENRING_MESSAGE={message}")];
        let filter = filter.each_ref().map(String::as_str);
        let line = wait_for(SOON, || {
            self.machine.journal(&filter).pop().ok_or(format!("{message:?}: {}", self.machine.last_lines()))
        });
        let of = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
        assert_eq!((of("PRIORITY"), of("_TRANSPORT")), (priority.to_owned(), "journal".to_owned()), "{line}");
        let text = of("MESSAGE");
        assert!(text.starts_with(message) && !text.contains(char::is_control), "{text:?}");
        for (name, value) in fields {
            let field = of(&format!("EVENRING_{}", name.to_uppercase()));
            let starts = [format!(" {name}={value}"), format!(" {name}=\"{value}")];
            assert!(field.starts_with(value) && starts.iter().any(|start| text.contains(start)), "{name}: {line}");
        }
        text
    }
}

/// Every line of the journal says when once: the journal's own time.
fn has_one_time(lines: &[Value]) {
    let digit = |c: Option<&u8>| c.is_some_and(u8::is_ascii_digit);
    let is_time = |text: &[u8]| text.len() > 4 && text[2] == b':' && text[5] == b':' && digit(text.first());
    for line in lines {
        let text = line["MESSAGE"].as_str().expect("text");
        assert!(!text.as_bytes().windows(8).any(is_time), "a second time in {text:?}");
    }
    assert!(is_time(b"12:34:56Z"), "this test would not see one");
}

#[test]
fn whoever_looks_is_told_the_reason_until_it_is_over() {
    let lab = Lab::start(&["a", "b"].map(|name| Spec { name, version: Version::V22, endpoints: 4 }));
    let phones = Phones::register(100, 2, &lab.sip(), Behaviour::ANSWER);
    let node = lab.node("a");
    let cluster = no_daemons();
    let machine = machine(node, &cluster.redis.url());
    let mut service = Service { node, machine, cluster };
    a_wrong_secret(&service);
    too_few_rights(&service);
    a_module_that_is_missing(&service);
    an_asterisk_that_is_away(&service);
    phones.wait_registered(SOON * 3);
    logins(&service, &phones);
    redis_is_away(&mut service);
    redis_refuses(&service);
    a_name_that_is_taken(&service, &lab);
    a_name_that_is_taken_on_this_host(&service);
    plain_text_in_the_journal(&service);
}

fn a_wrong_secret(service: &Service<'_>) {
    let machine = &service.machine;
    machine.install(AMI_SECRET, "not-the-secret\n", 0o600);
    machine.ok(&["systemctl", "start", "--no-block", UNIT]);
    let refused = "Asterisk refused the login of evenring: Authentication failed; check user, secret, permit and deny in \
                   manager.conf; then systemctl restart evenring";
    machine.wait_unit(UNIT, "activating/start", &format!("waiting for Asterisk: {refused}"), SOON);
    service.tells("asterisk", refused);
    let text = service.line(
        "AMI unavailable: reconnecting",
        "4",
        &[
            ("node", "a"),
            ("user", "main"),
            ("address", "127.0.0.1:5038"),
            ("reason", "Asterisk refused the login of evenring: Authentication failed"),
        ],
    );
    assert!(!text.contains("suppressed"), "{text}");
    println!("{}", machine.ok(&["journalctl", "--no-pager", "-u", "evenring", "-n", "4"]));
    println!("{}", machine.run(&["systemctl", "status", "--no-pager", "-n", "3", "evenring"]).stdout);
    machine.install(AMI_SECRET, format!("{}\n", config::AMI_USER.1), 0o600);
    service.restart();
    service.is_well();
    service.line("in sync with Asterisk", "6", &[("node", "a"), ("channels", "0")]);
}

fn too_few_rights(service: &Service<'_>) {
    let (all, few) = ("write = originate,call,reporting,agent", "write = originate");
    service.manager(all, few);
    service.restart();
    service.tells("asterisk", "to the manager user (Permission denied); add call and reporting to its write classes");
    service.line(
        "Asterisk refuses part of the snapshot: node not in the rotation; check the manager user's write \
        classes (call, reporting), then reload manager.conf and evenring",
        "3",
        &[("reason", "Permission denied")],
    );
    service.manager(few, all);
    service.machine.ok(&["systemctl", "reload", UNIT]);
    service.is_well();
    // Without this class it is never told that Asterisk is booted.
    service.manager("read = system,call,agent", "read = call,agent");
    service.restart();
    service.tells("asterisk", "it is still loading, or the manager user lacks read = system in manager.conf");
    service.manager("read = call,agent", "read = system,call,agent");
    service.restart();
    service.is_well();
}

fn a_module_that_is_missing(service: &Service<'_>) {
    service.node.cli("module unload res_manager_devicestate.so");
    service.restart();
    service.tells("asterisk", "Asterisk cannot list device states; load its module res_manager_devicestate");
    service.node.cli("module load res_manager_devicestate.so");
    service.is_well();
}

fn an_asterisk_that_is_away(service: &Service<'_>) {
    service.node.kill9();
    service.tells("asterisk", "Connection refused (os error 111); check that Asterisk is running");
    assert_eq!(service.cluster.node("a")["state"], "down");
    service.node.start();
    service.is_well();
}

/// A login that is refused, one that fails and one that is live; a program sends the first.
fn logins(service: &Service<'_>, phones: &Phones) {
    let (cluster, address) = (&service.cluster, service.cluster.redis.address());
    let script = "import sys, rsmq; rsmq.RedisSMQ(host=sys.argv[1], port=int(sys.argv[2]), ns='{evenring}').\
                  sendMessage(qname='logins', message='{\"alias\": \"nobodyx\"}').execute()";
    let mut python = std::process::Command::new(lab::python());
    let sent = python.args(["-c", script, &address.ip().to_string(), &address.port().to_string()]).output().unwrap();
    assert!(sent.status.success(), "{sent:?}");
    let fields = [("node", "a"), ("alias", "nobodyx"), ("reason", "unknown-alias")];
    assert_eq!(
        service.line("login refused", "4", &fields),
        "login refused node=a alias=nobodyx way=inbox reason=unknown-alias"
    );
    phones.behave("cc101", Behaviour::Decline);
    assert_eq!(cluster.json_and_code(&["login", "cc101x", "--agent", "8", "--wait"]).1, 1);
    service.line("failed", "4", &[("node", "a"), ("alias", "cc101x"), ("agent", "8"), ("reason", "declined")]);
    assert_eq!(cluster.json_and_code(&["login", "cc100x", "--agent", "7", "--wait"]).1, 0);
    service.line("live", "6", &[("node", "a"), ("alias", "cc100x"), ("agent", "7")]);
    println!("{}", service.machine.ok(&["journalctl", "--no-pager", "-u", "evenring", "-p", "warning", "-n", "3"]));
}

fn redis_is_away(service: &mut Service<'_>) {
    service.cluster.redis.stop();
    let away = format!("Redis at {} is not reachable: ", service.cluster.redis.url());
    service.tells("redis", &away);
    let output = service.cluster.run(&["status"]);
    assert_eq!(output.status.code(), Some(3), "{}", output.stderr);
    assert!(output.stderr.contains(&away) && output.stderr.contains("check that it is running"), "{}", output.stderr);
    let message = "Redis unavailable: logins suspended, active calls unaffected; retrying";
    service.line(message, "3", &[("node", "a"), ("reason", &away)]);
    println!("{}", service.machine.ok(&["journalctl", "--no-pager", "-u", "evenring", "-n", "4"]));
    println!("{}", service.machine.run(&["systemctl", "status", "--no-pager", "-n", "3", "evenring"]).stdout);
    service.cluster.redis.start_again();
    service.is_well();
}

fn redis_refuses(service: &Service<'_>) {
    let url = service.cluster.redis.url();
    let before = service.change(SETTINGS, &url, &url.replace("redis://", "redis://nobody:no-such-password@"));
    service.restart();
    service.tells("redis", "denied access: ");
    service.tells("redis", "check redis.username, the password and the ACL");
    service.machine.install(SETTINGS, before, 0o644);
    service.restart();
    service.is_well();
}

fn a_name_that_is_taken(service: &Service<'_>, lab: &Lab) {
    let _holder = Daemon::start_with(lab.node("b"), &service.cluster.redis.url(), &lab::evenring::Sections::default());
    service.cluster.wait_node("b", "active");
    let before = service.change(SETTINGS, "# name = \"tel-1\"", "name = \"b\"");
    service.restart();
    service.tells("name", "another daemon holds this node's name");
    service.tells("name", "give every node its own node.name");
    let row = service.cluster.node("b");
    assert_eq!((&row["state"], &row["reason"]), (&"active".into(), &"".into()), "the one that has it works");
    assert!(row["claimant"].as_str().unwrap().starts_with("a (pid "), "{row}");
    let status = service.cluster.run(&["status"]).stdout;
    let line = status.lines().find(|line| line.starts_with("b: a daemon on host a (pid "));
    assert!(line.is_some_and(|line| line.ends_with("give every node its own node.name")), "{status}");
    service.machine.install(SETTINGS, before, 0o644);
    service.restart();
    service.is_well();
    wait_until(SOON, "the claim to be over", || service.cluster.node("b")["claimant"] == "");
}

/// Somebody has started a daemon by hand: the service ends again and again, and says why.
fn a_name_that_is_taken_on_this_host(service: &Service<'_>) {
    let machine = &service.machine;
    machine.ok(&["systemctl", "stop", UNIT]);
    let secret = format!("EVENRING__AMI__SECRET_FILE={AMI_SECRET}");
    machine.ok(&["systemd-run", "--unit=by-hand", "--setenv", &secret, "/usr/bin/evenring", "run"]);
    service.cluster.wait_node("a", "active");
    let pid = machine.property("by-hand.service", "MainPID");
    service.restart();
    let taken = format!("ended: the name of node a is taken: another daemon (pid {pid}, ");
    wait_until(SOON, "systemctl status to say who has the name", || {
        machine.property(UNIT, "StatusText").starts_with(&taken)
    });
    service.line("ended", "4", &[("node", "a"), ("reason", "the name of node a is taken: another daemon (pid ")]);
    machine.ok(&["systemctl", "stop", "by-hand"]);
    service.is_well();
}

/// Whoever wants plain lines in the journal gets them with priorities, and without a second time.
fn plain_text_in_the_journal(service: &Service<'_>) {
    has_one_time(&service.machine.journal(&["_SYSTEMD_UNIT=evenring.service"]));
    for (format, said) in [("text", "node state node=a state=\"active\""), ("json", "\"message\":\"node state\"")] {
        let before = service.change(SETTINGS, "#format = \"auto\"", &format!("format = \"{format}\""));
        service.machine.ok(&["systemctl", "restart", UNIT]);
        service.machine.install(SETTINGS, before, 0o644);
        service.cluster.wait_node("a", "active");
        let pid = format!("_PID={}", service.machine.property(UNIT, "MainPID"));
        let lines = wait_for(SOON, || match service.machine.journal(&[&pid, "_TRANSPORT=stdout"]) {
            lines if lines.iter().any(|line| line["MESSAGE"].as_str().unwrap().contains(said)) => Ok(lines),
            lines => Err(format!("{said}: {lines:?}")),
        });
        has_one_time(&lines);
        service.node.kill9();
        wait_until(SOON, "a warning", || {
            !service.machine.journal(&[&pid, "_TRANSPORT=stdout", "PRIORITY=4"]).is_empty()
        });
        let info = service.machine.journal(&[&pid, "_TRANSPORT=stdout", "PRIORITY=6"]);
        assert!(info.iter().any(|line| line["MESSAGE"].as_str().unwrap().contains(said)), "{info:?}");
        service.node.start();
        service.cluster.wait_node("a", "active");
    }
    assert_eq!(service.machine.state(UNIT), RUNNING);
}
