//! `evenring doctor` on real Asterisks (22 and 16) and a real Redis: a good cluster is well, and each planted defect gives
//! its finding, with a fix that names the thing to do.
//!
//! Owns the defects. Must never look into the program: it reads the report as a person's script would.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that fails says why")]

#[path = "../cluster/mod.rs"]
mod cluster;
#[path = "../lab/mod.rs"]
mod lab;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use cluster::{Cluster, SOON};
use lab::config::{AMI_USER, LAB_USER, SNAP_USER};
use lab::evenring::{Output, Sections, binary};
use lab::phone::{Behaviour, Phones};
use lab::redis::Redis;
use lab::{HUB, Lab, Node, Spec, Version, now, wait_until};
use serde_json::Value;

/// The Redis user of docs/SECURITY.md, as an argument of redis-server, and its password.
fn redis_user() -> (String, String) {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/SECURITY.md")).unwrap();
    let line = readme.lines().find(|line| line.starts_with("user evenring on >")).expect("the line of the page");
    let password = line.split(' ').find_map(|word| word.strip_prefix('>')).expect("a password");
    (line["user ".len()..].to_owned(), password.to_owned())
}

fn private(path: &Path, text: &str, mode: u32) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// A cluster of two, and a doctor for one of its nodes.
struct Ward {
    cluster: Cluster,
    lab: Lab,
    _phones: Phones,
    dir: tempfile::TempDir,
    config: String,
}

/// What the doctor said.
struct Report {
    findings: Vec<Value>,
    code: i32,
}

impl Report {
    /// Warnings and failures: what was looked at, and how bad it is.
    fn bad(&self) -> Vec<(&str, &str)> {
        let rows = self.findings.iter().map(|row| (row["check"].as_str().unwrap(), row["level"].as_str().unwrap()));
        let mut bad: Vec<_> = rows.filter(|(_, level)| ["warning", "failure"].contains(level)).collect();
        bad.dedup();
        bad
    }

    /// These and no others are bad; the exit code fits; and one of this kind says `finding` and advises `fix`.
    #[track_caller]
    fn says(&self, bad: &[(&str, &str)], finding: &str, fix: &str) {
        assert_eq!(self.bad(), bad, "{:#?}", self.findings);
        let worst = bad.iter().map(|(_, level)| if *level == "failure" { 2 } else { 1 }).max().unwrap_or(0);
        assert_eq!(self.code, worst, "{:#?}", self.findings);
        self.has(finding, fix);
    }

    #[track_caller]
    fn has(&self, finding: &str, fix: &str) {
        let fits = |row: &&Value| {
            row["finding"].as_str().unwrap().contains(finding) && row["fix"].as_str().unwrap().contains(fix)
        };
        assert!(self.findings.iter().any(|row| fits(&row)), "{finding:?} -> {fix:?} is not in {:#?}", self.findings);
    }
}

impl Ward {
    fn open() -> Self {
        let spec = |name, version| Spec { name, version, endpoints: 4 };
        let lab = Lab::start(&[spec("a", Version::V22), spec("c", Version::V16)]);
        let phones = Phones::register(100, 4, &lab.sip(), Behaviour::ANSWER);
        phones.wait_registered(SOON);
        let (dir, (user, password)) = (tempfile::tempdir().unwrap(), redis_user());
        let socket = dir.path().join("redis.sock").display().to_string();
        // A socket on this host: nothing travels in clear. `default` is the administrator.
        let mut arguments = vec!["--unixsocket", &socket, "--unixsocketperm", "777", "--user"];
        arguments.extend(user.split(' '));
        let redis = Redis::start_with(HUB, &arguments);
        let url = format!("unix://{socket}");
        let login = format!("username = \"evenring\"\npassword = \"{password}\"");
        // The lab's Redis lets everybody in, so that this test can break it.
        let rest = format!("{}[doctor]\naccept = [\"redis.bind\"]\n", cluster::SHORT);
        let sections = Sections { redis: &login, rest: &rest, ..Sections::default() };
        let start = |node| lab::evenring::Daemon::start_with(node, &url, &sections);
        let daemons: Vec<_> = lab.nodes().iter().map(start).collect();
        let config = fs::read_to_string(daemons[0].config()).unwrap();
        let cluster = Cluster { daemons, cli: lab::evenring::Cli::new(&redis.url()), redis };
        for node in lab.nodes() {
            cluster.wait_phones(node.name(), 4);
            cluster.wait_node(node.name(), "active");
            let conf = node.root().join("etc/asterisk/manager.conf");
            fs::set_permissions(conf, fs::Permissions::from_mode(0o640)).unwrap();
        }
        Self { cluster, lab, _phones: phones, dir, config }
    }

    fn a(&self) -> &Node {
        self.lab.node("a")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `evenring doctor ARGUMENTS` on node a, with this configuration.
    fn run(&self, config: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
        let path = self.file("doctor.toml");
        private(&path, config, 0o600);
        lab::secrets::keep(config);
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.a().namespace()]).arg(binary()).arg("doctor").args(arguments);
        command.arg("--config").arg(path).envs(environment.iter().copied()).output().unwrap().into()
    }

    fn report(&self, config: &str, manager_conf: &Path, environment: &[(&str, &str)]) -> Report {
        let output = self.run(config, &["--json", "--manager-conf", &manager_conf.display().to_string()], environment);
        let findings = serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
        Report { findings, code: output.status.code().unwrap() }
    }

    fn manager_conf(&self) -> PathBuf {
        self.a().root().join("etc/asterisk/manager.conf")
    }

    /// As an administrator of Redis would.
    fn as_admin(&self, config: &str) -> Report {
        let url = self.cluster.redis.url();
        self.report(config, &self.manager_conf(), &[("EVENRING_REDIS_ADMIN_URL", &url)])
    }

    /// The usual look.
    fn look(&self) -> Report {
        self.as_admin(&self.config)
    }

    /// The configuration with another manager user.
    fn with_user(&self, (user, secret): (&str, &str)) -> String {
        let own = self.config.find("secret_file = ").unwrap();
        let end = own + self.config[own..].find('\n').unwrap();
        let text = format!("{}secret = \"{secret}\"{}", &self.config[..own], &self.config[end..]);
        text.replacen(&format!("username = \"{}\"", AMI_USER.0), &format!("username = \"{user}\""), 1)
    }

    fn admin(&self, words: &[&str]) {
        let mut connection = redis::Client::open(self.cluster.redis.url()).unwrap().get_connection().unwrap();
        redis::cmd(words[0]).arg(&words[1..]).query::<redis::Value>(&mut connection).unwrap();
    }
}

#[test]
fn a_good_cluster_is_well_and_each_defect_is_named_with_what_to_do() {
    let mut ward = Ward::open();
    let begin = now();
    let good = ward.look();
    println!("a whole look at a good cluster: {:?}", begin.elapsed());
    good.says(&[], "Redis and the Asterisk of a agree: sessions: 0, registered phones: 4", "");
    good.has("manager user evenring has write = agent,call,originate,reporting", "");
    good.has("Asterisk 22 (22.", "");
    good.has("manager user evenring receives FullyBooted and OriginateResponse", "");
    good.has("the Redis user has exactly the rights that evenring needs", "");
    for daemon in &ward.cluster.daemons {
        assert!(!daemon.log().contains("WARN"), "the doctor has disturbed a daemon: {}", daemon.log());
    }
    assert_eq!(ward.a().channels(), 0, "its probe makes no channel");

    the_manager_user(&ward);
    manager_conf(&ward);
    redis(&ward);
    the_cluster(&ward);
    files_and_settings(&ward);
    for_people(&ward);
    ward.look().says(&[], "", "");
    what_is_dead(&mut ward);
}

fn the_manager_user(ward: &Ward) {
    let user = |login| ward.report(&ward.with_user(login), Path::new("/nonexistent"), &[]);
    let all = user(LAB_USER);
    let write = ("ami.write", "failure");
    assert_eq!(all.code, 2);
    assert!(all.bad().contains(&write), "{:#?}", all.findings);
    let line = "write = originate,call,reporting,agent; then `asterisk -rx 'manager reload'`";
    all.has("manager user lab has write = system: `originate` and `system` together allow shell commands", line);
    all.has("manager user lab has write = command: it gives access to Asterisk's whole CLI", line);
    let few = user(SNAP_USER);
    few.has("manager user evenring-snap lacks write = originate,call", line);
    assert_eq!(few.code, 2);
    user((AMI_USER.0, "wrong")).says(
        &[("ami", "failure")],
        "cannot log in as evenring: Asterisk refused the login",
        "[evenring] with the right secret and permit, without allowmultiplelogin = no",
    );
    // Both users, each as it should be; then the second one with the rights of the first.
    let both = |(name, secret): (&str, &str)| {
        let section = format!("[ami.contacts]\nusername = \"{name}\"\nsecret = \"{secret}\"\n[redis]\n");
        ward.as_admin(&ward.config.replace("[redis]\n", &section))
    };
    both(SNAP_USER).says(&[], "manager user evenring-snap has write = reporting,system", "");
    both(LAB_USER).has("manager user lab has write = originate: `system`", "write = system,reporting");
    classes_that_are_missing(ward);
    ward.a().cli("module unload res_manager_devicestate.so");
    ward.look().says(
        &[("ami.module", "failure")],
        "Asterisk has no action DeviceStateList: its module res_manager_devicestate is not loaded",
        "asterisk -rx 'module load res_manager_devicestate.so'",
    );
    ward.a().cli("module load res_manager_devicestate.so");
}

/// Rights that only Asterisk itself can show.
fn classes_that_are_missing(ward: &Ward) {
    let (path, before) = (ward.manager_conf(), fs::read_to_string(ward.manager_conf()).unwrap());
    for (name, secret, read, seen) in [
        ("deaf", "x", "call", "no FullyBooted event for manager user deaf: it lacks read = system"),
        ("blind", "x", "system", "no OriginateResponse event for manager user blind: it lacks read = call"),
    ] {
        let user = format!(
            "[{name}]\nsecret = {secret}\nread = {read}\nwrite = originate,call,reporting\nwritetimeout=5000\n"
        );
        fs::write(&path, format!("{before}\n{user}")).unwrap();
        ward.a().cli("manager reload");
        let report = ward.report(&ward.with_user((name, secret)), Path::new("/nonexistent"), &[]);
        report.says(
            &[("ami.read", "failure")],
            seen,
            &format!("in manager.conf under [{name}]: read = system,call,agent"),
        );
    }
    fs::write(&path, &before).unwrap();
    ward.a().cli("manager reload");
}

fn manager_conf(ward: &Ward) {
    let text = fs::read_to_string(ward.manager_conf()).unwrap();
    let path = ward.file("manager.conf");
    let with = |from: &str, to: &str| {
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text, "{from:?} stands in the lab's manager.conf");
        private(&path, &changed, 0o640);
        ward.report(&ward.config, &path, &[])
    };
    with("writetimeout = 5000\n", "").says(
        &[("ami.writetimeout", "warning")],
        "[evenring] has no writetimeout: Asterisk drops it if it does not read for 100 ms",
        "writetimeout = 5000",
    );
    with("eventfilter = ^Event: (FullyBooted|", "eventfilter = ^Event: (").says(
        &[("ami.eventfilter", "failure")],
        "hides FullyBooted",
        "from docs/SECURITY.md",
    );
    with("write = originate,call,reporting,agent", "write = originate,call,reporting").says(
        &[("ami.manager-conf", "warning")],
        "has write = call,originate,reporting, but Asterisk allows agent,call",
        "manager reload",
    );
    with("deny = 0.0.0.0/0.0.0.0\n", "").says(&[("ami.permit", "warning")], "from any address", "permit = 127.0.0.1");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let open = ward.report(&ward.config, &path, &[]);
    assert!(open.bad().contains(&("files", "failure")), "{:#?}", open.findings);
    open.has("is world-readable (mode 644)", "chmod 0640");
}

fn redis(ward: &Ward) {
    ward.report(&ward.config, &ward.manager_conf(), &[]).says(
        &[],
        "eviction, persistence and replicas were not checked",
        "EVENRING_REDIS_ADMIN_URL=",
    );
    ward.report(&ward.config, &ward.manager_conf(), &[("EVENRING_REDIS_ADMIN_URL", "redis://x:hunter2@127.0.0.1:1")])
        .says(
            &[("redis.server", "failure")],
            "EVENRING_REDIS_ADMIN_URL: Redis at redis://127.0.0.1:1",
            "correct EVENRING_REDIS_ADMIN_URL",
        );
    for (words, back, finding, fix) in [
        (
            &["CONFIG", "SET", "maxmemory-policy", "allkeys-lru", "maxmemory", "1gb"][..],
            &["CONFIG", "SET", "maxmemory-policy", "noeviction", "maxmemory", "0"][..],
            "maxmemory-policy allkeys-lru: Redis evicts keys",
            "set maxmemory-policy noeviction",
        ),
        (
            &["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"][..],
            &["CONFIG", "SET", "maxmemory-policy", "noeviction"][..],
            "no effect while maxmemory is 0",
            "set maxmemory-policy noeviction",
        ),
    ] {
        ward.admin(words);
        let level = if words.contains(&"maxmemory") { "failure" } else { "warning" };
        ward.look().says(&[("redis.eviction", level)], finding, fix);
        ward.admin(back);
    }
    // A user with too little and too much; the daemons' own one stays.
    let (user, _) = redis_user();
    let rules: Vec<String> = user
        .split(' ')
        .skip(1)
        .map(|rule| if rule.starts_with('>') { ">x".to_owned() } else { rule.to_owned() })
        .collect();
    let other = |extra: &[&str]| {
        let words: Vec<&str> =
            ["ACL", "SETUSER", "other", "reset"].into_iter().chain(rules.iter().map(String::as_str)).collect();
        ward.admin(&[&words[..], extra].concat());
        let text = ward
            .config
            .replace("username = \"evenring\"\npassword = \"CHANGE-ME\"", "username = \"other\"\npassword = \"x\"");
        assert_ne!(text, ward.config);
        ward.as_admin(&text)
    };
    let fix = "ACL line in docs/SECURITY.md";
    other(&["-hset"]).says(&[("redis.acl", "failure")], "the Redis user lacks rights: HSET", fix);
    other(&["+flushall", "~other"]).says(
        &[("redis.acl", "warning")],
        "has more rights than evenring needs: FLUSHALL, reading the keys of others",
        fix,
    );
    other(&["-script|load", "-evalsha"]).says(&[("redis", "failure")], "denied access", fix);
    let replica = ["--replicaof", &HUB.to_string(), &ward.cluster.redis.address().port().to_string()].join(" ");
    let arguments: Vec<&str> = replica.split(' ').collect();
    let replica = Redis::start_with(HUB, &arguments);
    wait_until(SOON, "the replica to be counted", || ward.look().bad() == [("redis.replicas", "warning")]);
    ward.look().has("replicas: 1, but min-replicas-to-write is 0", "min-replicas-to-write 1");
    drop(replica);
    wait_until(SOON, "the replica to be gone", || ward.look().bad().is_empty());
}

fn the_cluster(ward: &Ward) {
    let evenring = |arguments: &[&str]| ward.cluster.run(arguments).ok();
    evenring(&["alias", "set", "desk7", "cc100@nowhere"]);
    let report = ward.look();
    report.says(
        &[("redis.persistence", "warning"), ("aliases", "warning")],
        "alias desk7 has no registered phone: cc100@nowhere",
        "`evenring alias remove desk7`",
    );
    report.has("no persistence: explicit aliases would be lost with Redis (1)", "appendonly yes");
    evenring(&["alias", "remove", "desk7"]);

    // A live call: both sides have it. Then Redis loses a phone behind everybody's back.
    ward.cluster.json_and_code(&["drain", "c"]);
    assert_eq!(ward.cluster.json_and_code(&["login", "cc100x", "--wait"]).1, 0, "{}", ward.cluster.logs());
    ward.cluster.json_and_code(&["resume", "c"]);
    ward.look().says(&[], "agree: sessions: 1, registered phones: 4", "");
    ward.admin(&["HSET", "{evenring}:phones:a", "cc101", "unregistered"]);
    let report = ward.look();
    report.says(
        &[("drift.phones", "failure"), ("phones", "warning")],
        "phones registered here, but not in Redis (1): cc101",
        "the daemon of a should have repaired this within two heartbeats",
    );
    report.has("registered on one node only (1): cc101", "register them on all nodes");
    ward.admin(&["HSET", "{evenring}:phones:a", "cc101", "registered"]);
    evenring(&["logout", "cc100x"]);
    ward.cluster.wait_empty(&ward.lab);
}

fn files_and_settings(ward: &Ward) {
    let secret = ward.cluster.daemons[0].config().with_file_name("ami-secret");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o644)).unwrap();
    ward.look().says(&[("files", "failure")], "ami-secret (a secret) is world-readable", "chmod 0600");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();

    // `run` makes its own copy private; this one is read as it lies.
    let open = ward.file("open.toml");
    private(&open, &ward.config, 0o644);
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &ward.a().namespace()]).arg(binary()).args(["doctor", "--config"]).arg(&open);
    let output: Output = command.output().unwrap().into();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(output.stdout.contains("open.toml (settings with a secret) is world-readable"), "{output:?}");

    let smell = ward.config.replace("[ring]\n", "[ring]\ndial = \"PJSIP/1\"\n");
    ward.as_admin(&smell).says(&[("config", "warning")], "rings the same phone for every agent", "doctor.toml");
    let unknown = ward.run("node.weigth = 1\n", &[], &[]);
    assert_eq!((unknown.status.code(), unknown.stderr.contains("node.weigth")), (Some(2), true), "{unknown:?}");
}

fn for_people(ward: &Ward) {
    let output = ward.run(&ward.config, &["--manager-conf", "/nonexistent"], &[]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let lines: Vec<&str> = output.stdout.lines().collect();
    assert!(!lines.iter().any(|line| line.starts_with("ok")), "{output:?}");
    let note =
        |line: &&str| line.starts_with("note     ami.manager-conf ") && line.ends_with(" [ami.manager-conf.unchecked]");
    assert!(lines.iter().any(note), "{output:?}");
    assert!(
        lines.iter().any(|line| line.trim_start().starts_with("-> run doctor as a user who may read")),
        "{output:?}"
    );
    let last = "all is well, as far as it was checked; not checked: redis.server, ami.manager-conf";
    assert_eq!(lines.last(), Some(&last), "{output:?}");
    let verbose = ward.run(&ward.config, &["--verbose"], &[("EVENRING_REDIS_ADMIN_URL", &ward.cluster.redis.url())]);
    assert!(verbose.stdout.lines().any(|line| line.starts_with("ok       config")), "{verbose:?}");
    assert!(verbose.stdout.contains("accepted redis.bind"), "{verbose:?}");
    // Where only the command line is, Asterisk is not asked, and no node is missed.
    let output = ward.cluster.run(&["doctor", "--json"]);
    let findings: Vec<Value> = serde_json::from_str(&output.stdout).unwrap();
    let words: Vec<_> =
        findings.iter().map(|row| (row["check"].as_str().unwrap(), row["level"].as_str().unwrap())).collect();
    assert!(words.contains(&("ami", "note")) && words.contains(&("nodes", "ok")), "{output:?}");
    let all = format!("{}{}", output.stdout, ward.run(&ward.config, &[], &[]).stdout);
    for secret in [AMI_USER.1, "CHANGE-ME"] {
        assert!(!all.contains(secret), "P13: {all}");
    }
}

fn what_is_dead(ward: &mut Ward) {
    // The daemon of c, with an order in its queue that nobody fetches.
    ward.cluster.daemons[1].kill9();
    ward.cluster.wait_node("c", "lease-expired");
    ward.admin(&["HSET", "{evenring}:ring-c:Q", "x", "{}"]);
    ward.admin(&["ZADD", "{evenring}:ring-c", "1000", "x"]);
    let report = ward.look();
    report.says(
        &[("queues", "failure"), ("nodes", "warning")],
        "c is lost: its lease has expired",
        "if it will not come back: `evenring forget c`",
    );
    report.has("an order for c has been waiting for", "check the log of the daemon on c");
    let alive = ward.cluster.run(&["forget", "a"]);
    assert_eq!(alive.status.code(), Some(1), "{alive:?}");
    assert!(alive.stderr.contains("a is alive, its lease runs for another"), "{alive:?}");
    let (forgotten, code) = ward.cluster.json_and_code(&["forget", "c"]);
    assert_eq!((code, &forgotten["forgotten"]), (0, &true.into()), "{forgotten}");
    assert_eq!(ward.cluster.run(&["forget", "c"]).status.code(), Some(2));
    assert_eq!(ward.cluster.node("c"), Value::Null);
    ward.look().says(&[], "nodes in the rotation: 1", "");

    ward.a().kill9();
    ward.cluster.wait_node("a", "down");
    let report = ward.look();
    report.says(
        &[("ami", "failure"), ("nodes", "failure")],
        "a is down: its Asterisk is unavailable",
        "start Asterisk there",
    );
    report.has("cannot connect to Asterisk", "check that Asterisk is running");
    report.has("all logins are refused", "see the findings above");

    ward.cluster.redis.kill9();
    let report = ward.as_admin(&ward.config);
    report.says(&[("redis", "failure"), ("ami", "failure")], "is not reachable", "start Redis");
}
