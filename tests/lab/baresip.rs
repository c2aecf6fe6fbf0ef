//! Real softphones: one baresip with an account for each phone on each node, which answers every call by itself.
//!
//! Owns the process and what it tells on its control socket. For anything scripted (busy, silent, …) there is
//! [`super::phone`]; this one is for realism, with sound in both directions.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddrV4, TcpStream};
use std::ops::Range;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;

use super::{HUB, Process, config, free_port, tail, wait_for};

/// How long baresip may take to listen; it takes a tenth of a second on an idle machine.
const START: Duration = Duration::from_secs(20);

/// The softphones. They end with this handle.
#[derive(Debug)]
pub struct Baresip {
    seen: Arc<Mutex<Seen>>,
    accounts: usize,
    log: PathBuf,
    control: TcpStream,
    reader: Option<JoinHandle<()>>,
    process: Process,
    _dir: tempfile::TempDir,
}

/// What baresip has told so far, by account (`cc100@10.77.0.11`).
#[derive(Debug, Default)]
struct Seen {
    registered: BTreeMap<String, bool>,
    /// By Call-ID.
    calls: BTreeMap<String, Call>,
}

#[derive(Debug, Default)]
struct Call {
    account: String,
    established: bool,
    closed: bool,
}

impl Baresip {
    /// Starts `cc<range>` with an account on every node, and begins to register them. See [`Self::wait_registered`].
    pub fn start(phones: Range<u32>, nodes: &[SocketAddrV4]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory for baresip");
        let port = free_port(HUB);
        let mut accounts = String::new();
        for node in nodes {
            for name in phones.clone().map(|number| format!("cc{number}")) {
                let password = config::password(&name);
                writeln!(
                    accounts,
                    "<sip:{name}@{node}>;auth_pass={password};answermode=auto;regint=60;audio_codecs=PCMU"
                )
                .expect("a String takes all");
            }
        }
        let count = accounts.lines().count();
        fs::write(dir.path().join("accounts"), accounts).expect("write baresip's accounts");
        fs::write(dir.path().join("config"), settings(port, count)).expect("write baresip's config");
        let log = dir.path().join("log");
        let output = fs::File::create(&log).expect("make baresip's log");
        let child = Command::new("baresip")
            .arg("-f")
            .arg(dir.path())
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("the log twice"))
            .stderr(output)
            .spawn()
            .unwrap_or_else(|error| panic!("baresip cannot be started ({error}): run ./dev setup"));
        let process = Process(child);
        let control = wait_for(START, || {
            TcpStream::connect((HUB, port))
                .map_err(|error| format!("baresip's control socket ({error}); {}", tail(&log)))
        });
        let seen = Arc::new(Mutex::new(Seen::default()));
        let reader = std::thread::spawn({
            let (seen, stream) = (Arc::clone(&seen), control.try_clone().expect("the socket twice"));
            move || read_all(&seen, stream)
        });
        Self { seen, accounts: count, log, control, reader: Some(reader), process, _dir: dir }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// How many accounts are registered, as baresip sees it. What registered before this handle was connected is
    /// asked for.
    pub fn registered(&self) -> usize {
        self.seen().registered.values().filter(|registered| **registered).count()
    }

    /// Waits until all accounts are registered.
    pub fn wait_registered(&self, timeout: Duration) {
        wait_for(timeout, || {
            let registered = self.registered();
            if registered == self.accounts {
                return Ok(());
            }
            self.command("reginfo");
            Err(format!("{} registrations by baresip; there are {registered}; {}", self.accounts, tail(&self.log)))
        });
    }

    /// How many calls came in, by account (`cc100@10.77.0.11`). Each is answered at once.
    pub fn invites(&self) -> BTreeMap<String, usize> {
        self.count(|_| true)
    }

    /// How many of them were set up.
    pub fn established(&self) -> BTreeMap<String, usize> {
        self.count(|call| call.established)
    }

    /// How many of them have ended, for whatever reason.
    pub fn closed(&self) -> BTreeMap<String, usize> {
        self.count(|call| call.closed)
    }

    fn count(&self, wanted: impl Fn(&Call) -> bool) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for call in self.seen().calls.values().filter(|call| wanted(call)) {
            *counts.entry(call.account.clone()).or_default() += 1;
        }
        counts
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.process.0.id()
    }

    /// Gives baresip one of its commands; the answer is read like an event.
    fn command(&self, command: &str) {
        let text = format!("{{\"command\":\"{command}\",\"token\":\"{command}\"}}");
        let frame = format!("{}:{text},", text.len());
        (&self.control)
            .write_all(frame.as_bytes())
            .unwrap_or_else(|error| panic!("baresip is gone ({error}); {}", tail(&self.log)));
    }
}

impl Drop for Baresip {
    fn drop(&mut self) {
        let _gone = self.control.shutdown(std::net::Shutdown::Both);
        if let Some(reader) = self.reader.take() {
            assert!(reader.join().is_ok() || std::thread::panicking(), "the reader of baresip has panicked");
        }
    }
}

fn settings(port: u16, calls: usize) -> String {
    format!(
        "poll_method epoll\nsip_listen {HUB}:0\nnet_interface br0\ncall_max_calls {}\naudio_player aubridge,x\n\
         audio_source aubridge,x\naudio_alert aubridge,x\nmodule_path /usr/lib/baresip/modules\nmodule stdio.so\n\
         module g711.so\nmodule aubridge.so\nmodule_tmp uuid.so\nmodule_tmp account.so\nmodule_app menu.so\n\
         module_app ctrl_tcp.so\nctrl_tcp_listen {HUB}:{port}\n",
        calls.max(20)
    )
}

/// Reads netstrings (`LENGTH:TEXT,`) until the socket ends.
fn read_all(seen: &Mutex<Seen>, stream: TcpStream) {
    let mut reader = BufReader::new(stream);
    loop {
        let mut length = Vec::new();
        if reader.read_until(b':', &mut length).unwrap_or(0) == 0 {
            return;
        }
        let digits: String = length.iter().copied().filter(u8::is_ascii_digit).map(char::from).collect();
        let mut text = vec![0; digits.parse::<usize>().expect("a netstring begins with its length") + 1];
        if reader.read_exact(&mut text).is_err() {
            return;
        }
        text.pop();
        let value = serde_json::from_slice(&text).unwrap_or(Value::Null);
        note(&mut seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner), &value);
    }
}

fn note(seen: &mut Seen, message: &Value) {
    let text = |key: &str| message.get(key).and_then(Value::as_str).unwrap_or_default();
    if text("token") == "reginfo" {
        seen.registered.extend(registrations(text("data")));
    }
    let account = account(text("accountaor"));
    match text("type") {
        "REGISTER_OK" => {
            seen.registered.insert(account, true);
        }
        "REGISTER_FAIL" | "UNREGISTERING" => {
            seen.registered.insert(account, false);
        }
        // baresip tells CALL_INCOMING only of calls that it does not answer by itself; the first word is about sound
        kind if kind.starts_with("CALL_") && text("direction") == "incoming" => {
            let call = seen.calls.entry(text("id").to_owned()).or_default();
            call.account = account;
            call.established |= kind == "CALL_ESTABLISHED";
            call.closed |= kind == "CALL_CLOSED";
        }
        _ => {}
    }
}

/// `cc100@10.77.0.11` from `sip:cc100@10.77.0.11:5060`.
fn account(text: &str) -> String {
    let text = text.trim_start_matches("sip:").trim_end_matches('>');
    text.strip_suffix(":5060").unwrap_or(text).to_owned()
}

/// The lines of `reginfo`: an account, somewhere behind it `OK` in green.
fn registrations(text: &str) -> Vec<(String, bool)> {
    let lines = text.lines().filter_map(|line| line.split_once("sip:"));
    let accounts = lines.filter_map(|(_, rest)| Some((account(rest.split_whitespace().next()?), rest.contains("OK"))));
    accounts.collect()
}
