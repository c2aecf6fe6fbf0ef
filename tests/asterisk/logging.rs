//! A log that nobody reads costs its lines and nothing else: the real daemon beside a real Asterisk and a real Redis, with
//! a standard error that takes nothing. The journal's turn is in `systemd`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that fails says why")]

#[path = "../cluster/mod.rs"]
mod cluster;
#[path = "../lab/mod.rs"]
mod lab;

use std::fs;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::time::Duration;

use cluster::{Cluster, SOON};
use lab::evenring::Daemon;
use lab::http::{get, samples};
use lab::phone::{Behaviour, Phones};
use lab::{Lab, Spec, Version, run, wait_for};

/// Lines that one SIGHUP makes the daemon log.
const UNKNOWN_KEYS: usize = 1500;

/// Makes the daemon log until lines are dropped.
fn log_much(lab: &Lab, daemon: &Daemon) {
    let mut text = fs::read_to_string(daemon.config()).unwrap();
    (0..UNKNOWN_KEYS).for_each(|n| text.push_str(&format!("\n[unknown{n}]\nkey = 1\n")));
    fs::write(daemon.config(), text).unwrap();
    wait_for(SOON * 3, || {
        run(&format!("kill -HUP {}", daemon.pid()));
        match samples(&get(lab.node("a"), "/metrics").body)["evenring_log_lines_dropped_total"] {
            dropped if dropped > 0.0 => Ok(()),
            _ => Err("log lines to be dropped".to_owned()),
        }
    })
}

#[test]
fn a_pipe_that_nobody_reads_stops_nothing() {
    let lab = Lab::start(&[Spec { name: "a", version: Version::V22, endpoints: 4 }]);
    let phones = Phones::register(100, 3, &lab.sip(), Behaviour::ANSWER);
    phones.wait_registered(SOON);
    let mut cluster = Cluster::start(&lab);
    let mut daemon = cluster.daemons.remove(0);
    daemon.kill9();
    let (reader, mut writer) = io::pipe().unwrap();
    // As much as a pipe holds: not one byte more goes in.
    writer.write_all(&[b'\n'; 65536]).unwrap();
    let before = cluster.node("a")["generation"].clone();
    let mut daemon = daemon.again_saying_to(writer);
    wait_for(SOON, || match cluster.node("a") {
        node if node["state"] == "active" && node["generation"] != before => Ok(()),
        node => Err(format!("a next life in the rotation: {node}")),
    });
    cluster.wait_phones("a", 3);
    let login = |alias: &str| {
        let (login, code) = cluster.json_and_code(&["login", alias, "--wait"]);
        assert_eq!(code, 0, "{login}");
    };
    login("cc100x");
    log_much(&lab, &daemon);
    login("cc101x");
    cluster.wait_beats("a", 2);
    assert_eq!(get(lab.node("a"), "/readyz").status, 200);

    // Somebody reads: the gap is said once, with all that is missing.
    let (told, hear) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        BufReader::new(reader).lines().map_while(Result::ok).try_for_each(|line| told.send(line)).ok();
    });
    let mut lines = Vec::new();
    wait_for(SOON, || {
        lines.extend(hear.try_iter());
        let is_said = lines.iter().any(|line: &String| line.contains("log lines were dropped"));
        if is_said { Ok(()) } else { Err(format!("the gap to be said after {} lines", lines.len())) }
    });
    login("cc102x");
    let ended = daemon.term();
    assert!(ended.status.success() && ended.took < lab::at_this_load(Duration::from_secs(5)), "{ended:?}");
    // Until the pipe is closed.
    lines.extend(hear.iter());
    let said: Vec<_> = lines.iter().filter(|line| line.contains("log lines were dropped")).collect();
    assert!(!said.is_empty() && said[0].contains("they were not read in time"), "{said:?}");
    assert!(lines.last().unwrap().contains("stopped"), "the last lines are written before the end: {:?}", lines.last());
}

#[test]
fn an_end_does_not_wait_for_a_reader() {
    let lab = Lab::start(&[Spec { name: "a", version: Version::V22, endpoints: 2 }]);
    let mut cluster = Cluster::start(&lab);
    let mut daemon = cluster.daemons.remove(0);
    daemon.kill9();
    let (_reader, mut writer) = io::pipe().unwrap();
    writer.write_all(&[b'\n'; 65536]).unwrap();
    let mut daemon = daemon.again_saying_to(writer.try_clone().unwrap());
    wait_for(SOON, || match get_ready(&lab) {
        200 => Ok(()),
        status => Err(format!("the daemon to be ready, not {status}")),
    });
    let mut second = daemon.second(lab::evenring::Place::Beside);
    assert_eq!(second.wait_end(SOON), Some(4), "the name is taken");
    let ended = daemon.term();
    assert!(ended.status.success() && ended.took < lab::at_this_load(Duration::from_secs(5)), "{ended:?}");
    // One that cannot do its work has a complaint that nobody hears.
    fs::write(daemon.config(), "").unwrap();
    let mut daemon = daemon.again_saying_to(writer);
    assert_eq!(daemon.wait_end(SOON), Some(2));
}

fn get_ready(lab: &Lab) -> u16 {
    get(lab.node("a"), "/readyz").status
}
