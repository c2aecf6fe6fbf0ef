//! Secrets stay secret (P13): a real daemon with every kind of secret, with the loudest log there is, through good days and
//! bad ones; and whether the search that every test of the suite ends with sees a leak.
//!
//! Owns the secrets. Must never look into the program.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that fails says why")]

#[path = "../cluster/mod.rs"]
mod cluster;
#[path = "../lab/mod.rs"]
mod lab;

use std::fs;
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, Stdio};

use cluster::{Cluster, SHORT, SOON};
use lab::config::{AMI_USER, SNAP_USER};
use lab::evenring::{Cli, Daemon, Output, Sections, binary};
use lab::http::get;
use lab::phone::{Behaviour, Phones};
use lab::redis::Redis;
use lab::secrets::{NUMBER, keep, leaks, of_settings, search};
use lab::{HUB, Lab, Spec, Version, wait_for};

/// Redis's; the lab has those of the manager users.
const PASSWORD: &str = "redis-word-1f0a";
/// What somebody has mistyped.
const WRONG: &str = "mistyped-word-77";

/// A node whose daemon uses three secrets and says all that it can.
fn start(lab: &Lab) -> Cluster {
    let users = format!("--user evenring on >{PASSWORD} ~* &* +@all --user default off");
    let redis = Redis::start_with(HUB, &users.split(' ').collect::<Vec<_>>());
    let redis = redis.with_credentials(&format!("evenring:{PASSWORD}@"));
    let cli = Cli::new(&redis.url());
    let (contacts, secret) = SNAP_USER;
    let rest = format!(
        "filter = \"trace\"\n{SHORT}[ami.contacts]\nusername = \"{contacts}\"\nsecret = \"{secret}\"\ninterval = \"1s\"\n"
    );
    let url = redis.url().replace(&format!("evenring:{PASSWORD}@"), "");
    let login = format!("username = \"evenring\"\npassword = \"{PASSWORD}\"");
    let sections = Sections { redis: &login, rest: &rest, ..Sections::default() };
    let daemon = Daemon::start_with(lab.node("a"), &url, &sections);
    Cluster { daemons: vec![daemon], redis, cli }
}

/// What the manager tells of a login, and of its end.
fn wire(lab: &Lab, cluster: &Cluster) -> String {
    let mut tail = Command::new("ip");
    tail.args(["netns", "exec", &lab.node("a").namespace()]).arg(binary()).args(["ami", "tail", "--json", "--config"]);
    let mut tail = tail.arg(cluster.daemons[0].config()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = std::io::BufReader::new(tail.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("logged in") {
        line.clear();
        assert_ne!(std::io::BufRead::read_line(&mut said, &mut line).unwrap(), 0, "it ended before it was logged in");
    }
    assert_eq!(cluster.json_and_code(&["login", "cc100x", "--agent", "7", "--wait"]).1, 0, "{}", cluster.logs());
    cluster.run(&["logout", "cc100x"]).ok();
    cluster.wait_empty(lab);
    lab::run(&format!("kill {}", tail.id()));
    String::from_utf8(tail.wait_with_output().unwrap().stdout).unwrap()
}

/// All that others can see of the daemon, but for its log.
fn faces(lab: &Lab, cluster: &Cluster) -> Vec<(&'static str, String)> {
    let (node, daemon) = (lab.node("a"), &cluster.daemons[0]);
    let dump = Command::new(binary()).args(["config", "dump", "--config"]).arg(daemon.config()).output().unwrap();
    vec![
        ("argv", fs::read_to_string(format!("/proc/{}/cmdline", daemon.pid())).unwrap()),
        ("/metrics", get(node, "/metrics").body),
        ("/readyz", get(node, "/readyz").body),
        ("config dump", Output::from(dump).ok()),
        ("status", cluster.run(&["status", "--json"]).ok()),
        ("sessions", cluster.run(&["sessions", "--all", "--json"]).ok()),
    ]
}

#[test]
fn no_output_of_a_daemon_or_a_verb_holds_a_secret_or_a_callers_number() {
    let lab = Lab::start(&[Spec { name: "a", version: Version::V22, endpoints: 3 }]);
    let phones = Phones::register(100, 2, &lab.sip(), Behaviour::ANSWER);
    phones.wait_registered(SOON);
    let mut cluster = start(&lab);
    cluster.wait_node("a", "active");
    cluster.wait_phones("a", 2);

    let wire = wire(&lab, &cluster);
    assert!(wire.contains(&format!("{NUMBER}100")), "no caller's number was there to be seen: {wire}");
    phones.behave("cc101", Behaviour::Busy);
    assert_eq!(cluster.json_and_code(&["login", "cc101x", "--wait"]).1, 1);
    for (what, text) in faces(&lab, &cluster) {
        assert!(text.len() > 4, "{what}: {text}");
        search(what, &text);
    }
    cluster.redis.restart();
    cluster.daemons[0].wait_log("Redis is back", SOON);
    cluster.wait_node("a", "active");

    // Neither are those told that are wrong, or are tried where they are refused.
    let config = cluster.daemons[0].config().to_owned();
    let good = fs::read_to_string(&config).unwrap();
    let secret = config.with_file_name("ami-secret");
    fs::write(&secret, WRONG).unwrap();
    let bad = good.replace(PASSWORD, WRONG).replace(SNAP_USER.1, WRONG);
    fs::write(&config, &bad).unwrap();
    keep(&bad);
    cluster.daemons[0].term();
    let daemon = cluster.daemons.remove(0).again();
    wait_for(SOON, || match daemon.log() {
        log if log.contains("Authentication failed") && log.contains("Password authentication failed") => Ok(()),
        log => Err(format!("both refusals: {log}")),
    });
    let doctor = Command::new("ip")
        .args(["netns", "exec", &lab.node("a").namespace()])
        .arg(binary())
        .args(["doctor", "--config"])
        .arg(&config)
        .output()
        .unwrap();
    assert!(Output::from(doctor).stdout.contains("failure"));

    let log = daemon.log();
    for level in [" INFO ", " DEBUG "] {
        assert!(log.matches(level).count() > 10, "the log was not loud: {level}");
    }
    assert_eq!(leaks(&log), [""; 0]);

    // The hook that all tests end with.
    let path = config.with_file_name("log");
    let mut file = fs::OpenOptions::new().append(true).open(path).unwrap();
    writeln!(file, "INFO the secret is {}", AMI_USER.1).unwrap();
    let caught = catch_unwind(AssertUnwindSafe(|| drop(daemon))).expect_err("the end of a daemon does not see a leak");
    let said = caught.downcast_ref::<String>().unwrap();
    assert!(said.contains("P13") && said.contains(AMI_USER.1), "{said}");
}

#[test]
fn the_search_sees_what_is_planted() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("word");
    fs::write(&file, "word-in-file\n").unwrap();
    let settings = format!(
        "[ami]\nsecret = \"word-as-value\"\n[ami.contacts]\nsecret_file = \"{}\"\n[redis]\nurl = \"redis://me:word-in-url@h:1\"\n\
         password = \"word-of-redis\"\nsentinel_password = \"word-of-sentinel\"\nusername = \"nobody\"\npassword = \"x\"\n",
        file.display()
    );
    let words = ["word-as-value", "word-in-file", "word-in-url", "word-of-redis", "word-of-sentinel"];
    assert_eq!(of_settings(&settings).iter().map(String::as_str).collect::<Vec<_>>(), words);
    assert_eq!(leaks("word-in-url"), [""; 0]);
    keep(&settings);
    for word in words {
        assert_eq!(leaks(&format!("a\nb {word} c\n")), [format!("b {word} c")]);
        assert_eq!(leaks(&format!("x={:?}", format!("<{word}>").as_bytes())).len(), 1, "as bytes");
    }
    assert_eq!(leaks(&format!("1  INFO x: {NUMBER}100\n2 DEBUG x: {NUMBER}100")), [format!("1  INFO x: {NUMBER}100")]);
    let echo = Command::new("echo").arg("word-of-redis").output().unwrap();
    assert!(catch_unwind(|| Output::from(echo)).is_err(), "what a verb prints is not searched");
}
