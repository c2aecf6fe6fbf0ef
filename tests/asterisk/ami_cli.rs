//! `evenring ami`: captures as exact JSON, and a live connection to real Asterisks.
//!
//! Must never use a fake: captures are those of `proto-fixtures/`, the manager that is followed is real. The lab's part
//! runs under `./dev test --test ami_cli`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that fails says why")]

#[path = "../lab/mod.rs"]
mod lab;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddrV4;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use lab::config::AMI_USER;
use lab::evenring::binary;
use lab::{Lab, Spec, Version, wait_until};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(15);

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("proto-fixtures").join(name)
}

fn decode(stdin: &[u8], file: &Path) -> Output {
    let mut child = Command::new(binary())
        .args(["ami", "decode"])
        .arg(file)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut to, bytes) = (child.stdin.take().unwrap(), stdin.to_vec());
    let writer = thread::spawn(move || to.write_all(&bytes));
    let output = child.wait_with_output().unwrap();
    let _gone = writer.join().unwrap();
    output
}

#[test]
fn a_capture_is_decoded_to_exactly_this() {
    let output = decode(b"", &fixture("v22/02-badlogin-wrong-md5.ami"));
    let text = String::from_utf8(output.stdout).unwrap();
    insta::assert_snapshot!("decode-badlogin", text);
    assert_eq!(output.status.code(), Some(0));
    let bytes = fs::read(fixture("v22/02-badlogin-wrong-md5.ami")).unwrap();
    assert_eq!(String::from_utf8(decode(&bytes, Path::new("-")).stdout).unwrap(), text, "the same from a pipe");
}

#[test]
fn every_capture_is_decoded_without_loss() {
    for version in ["v16", "v22"] {
        for entry in fs::read_dir(fixture(version)).unwrap() {
            let path = entry.unwrap().path();
            let output = decode(b"", &path);
            let bytes = fs::read(&path).unwrap();
            let lines: Vec<Value> = String::from_utf8(output.stdout)
                .unwrap()
                .lines()
                .map(|line| serde_json::from_str(line).unwrap())
                .collect();
            assert_eq!(lines[0]["kind"], "banner", "{}", path.display());
            let headers: usize = lines.iter().map(|line| line["headers"].as_array().unwrap().len()).sum();
            let expected = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty() && *line != b"\r");
            assert_eq!(headers + 1, expected.count(), "{}", path.display());
        }
    }
}

#[test]
fn what_cannot_be_read_is_said_and_the_rest_goes_on() {
    let capture = b"tus: x\r\n\r\nEvent: A\r\nB: \xff\r\n\r\n";
    let output = decode(capture, Path::new("-"));
    let expected = "{\"kind\":\"error\",\"name\":\"\",\"headers\":[[\"tus\",\"x\"]],\"message\":\"neither an event nor a response\"}\n\
        {\"kind\":\"event\",\"name\":\"A\",\"headers\":[[\"Event\",\"A\"],[\"B\",\"\u{fffd}\"]],\"raw\":\"RXZlbnQ6IEENCkI6IP8NCg==\"}\n";
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
    assert_eq!(output.status.code(), Some(1));
    let output = decode(b"", Path::new("no such file"));
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
    assert!(String::from_utf8(output.stderr).unwrap().starts_with("error: no such file: "));
}

/// `evenring ami tail` on its way.
struct Tail {
    child: Child,
    out: Option<BufReader<ChildStdout>>,
    err: BufReader<ChildStderr>,
    _dir: tempfile::TempDir,
}

impl Tail {
    fn start(address: SocketAddrV4, secret: &str, arguments: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("evenring.toml");
        let (user, _) = AMI_USER;
        let ami = format!("[ami]\naddress = \"{address}\"\nusername = \"{user}\"\nsecret = \"{secret}\"\n");
        fs::write(&config, ami).unwrap();
        fs::set_permissions(&config, fs::Permissions::from_mode(0o600)).unwrap();
        let mut command = Command::new(binary());
        command.args(["ami", "tail"]).args(arguments).arg("--config").arg(&config);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        Self { child, out: Some(BufReader::new(out)), err: BufReader::new(err), _dir: dir }
    }

    fn wait_logged_in(&mut self) {
        let mut line = String::new();
        while !line.contains("logged in, manager") {
            line.clear();
            assert_ne!(self.err.read_line(&mut line).unwrap(), 0, "ended before it was logged in");
        }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.as_mut().unwrap().read_line(&mut line).unwrap();
        line
    }

    fn code(&mut self) -> Option<i32> {
        wait_until(SOON, "tail to end", || self.child.try_wait().unwrap().is_some());
        self.child.wait().unwrap().code()
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

#[test]
fn a_live_connection_is_followed_through_a_restart() {
    let specs = [("a", Version::V22), ("c", Version::V16)].map(|(name, version)| Spec { name, version, endpoints: 1 });
    let lab = Lab::start(&specs);
    for node in lab.nodes() {
        let mut tail = Tail::start(node.ami(), AMI_USER.1, &["--json", "--event", "Reload", "--event", "Shutdown"]);
        tail.wait_logged_in();
        node.cli("core reload");
        let line: Value = serde_json::from_str(&tail.line()).unwrap();
        assert_eq!((&line["kind"], &line["name"]), (&"event".into(), &"Reload".into()), "{line}");
        assert!(line["headers"].as_array().unwrap().iter().any(|pair| pair[0] == "Module"), "{line}");
        node.restart();
        tail.wait_logged_in();
        lab::run(&format!("kill -TERM {}", tail.child.id()));
        assert_eq!(tail.code(), Some(0));

        let mut tail = Tail::start(node.ami(), AMI_USER.1, &["--event", "Reload"]);
        tail.wait_logged_in();
        node.cli("core reload");
        assert_eq!(tail.line(), "Event: Reload\n");
        drop(tail.out.take());
        assert_eq!(tail.code(), Some(0), "nobody reads");

        let mut tail = Tail::start(node.ami(), "wrong", &[]);
        assert_eq!(tail.code(), Some(1));
        let mut said = String::new();
        tail.err.read_to_string(&mut said).unwrap();
        assert!(said.contains("Asterisk refused the login of ") && said.contains(": Authentication failed"), "{said}");
    }
}
