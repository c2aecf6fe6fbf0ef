//! A manager interface of our own on loopback, for what no real Asterisk does, and the daemon's real AMI task against it.
//!
//! Owns the other side of the socket: what it says is the test's own. Must never know what is to be proven.
#![allow(dead_code, unreachable_pub, missing_docs, reason = "each program uses its own part")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a peer that fails ends the test")]

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use evenring::ami::action::EventMask;
use evenring::ami::link::{Boot, LinkSettings};
use evenring::ami_client::{Ami, Counts, FromAmi, ToAmi};
use evenring::config::{AmiSettings, Settings};
use evenring::ids::Generation;
use evenring::runtime::clock::Clock;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

pub const BANNER: &str = "Asterisk Call Manager/11.0.0\r\n";
pub const BOOTED: &str = "Event: FullyBooted\r\nPrivilege: system,all\r\nStatus: Fully Booted\r\nUptime: 5\r\n\r\n";

/// A listening manager. Its thread ends with the test program.
#[derive(Debug)]
pub struct Peer {
    pub address: SocketAddr,
}

impl Peer {
    /// Gives each connection to `script`, one after the other, with its number from 0.
    pub fn start(mut script: impl FnMut(usize, Conn) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let address = listener.local_addr().expect("an address");
        thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let stream = stream.expect("a connection");
                stream.set_nodelay(true).expect("an option");
                script(number, Conn { stream, inbox: Vec::new() });
            }
        });
        Self { address }
    }
}

/// The manager's end of a connection. What fails because the client has gone is no error here.
#[derive(Debug)]
pub struct Conn {
    pub stream: TcpStream,
    inbox: Vec<u8>,
}

/// An action as it was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    pub text: String,
}

impl Said {
    pub fn get(&self, name: &str) -> &str {
        self.text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).unwrap_or_default()
    }

    pub fn id(&self) -> &str {
        self.get("ActionID")
    }

    pub fn name(&self) -> &str {
        self.get("Action")
    }
}

impl Conn {
    /// False: the client has gone.
    pub fn say(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).is_ok()
    }

    /// `Success`, with more lines if any.
    pub fn answer(&mut self, said: &Said, more: &str) -> bool {
        self.say(format!("Response: Success\r\nActionID: {}\r\n{more}\r\n", said.id()))
    }

    /// The next action; `None` when the client has gone.
    pub fn hear(&mut self) -> Option<Said> {
        loop {
            if let Some(end) = self.inbox.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                let text = self.inbox.drain(..end + 4).collect();
                return Some(Said { text: String::from_utf8(text).expect("our own words are UTF-8") });
            }
            let mut bytes = [0; 65536];
            match self.stream.read(&mut bytes) {
                Ok(0) => return None,
                Ok(count) => self.inbox.extend_from_slice(&bytes[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return None,
            }
        }
    }

    /// As [`Conn::hear`], with pings answered and not shown.
    pub fn hear_more_than_pings(&mut self) -> Option<Said> {
        loop {
            let said = self.hear()?;
            if said.name() != "Ping" {
                return Some(said);
            }
            self.answer(&said, "Ping: Pong\r\n");
        }
    }

    /// Greets, lets the client log in, and says that it is booted.
    pub fn login(&mut self) -> bool {
        self.login_only() && self.say(BOOTED)
    }

    pub fn login_only(&mut self) -> bool {
        if !self.say(BANNER) {
            return false;
        }
        let Some(challenge) = self.hear() else { return false };
        self.answer(&challenge, "Challenge: 385620988\r\n");
        let Some(login) = self.hear() else { return false };
        assert_eq!(login.name(), "Login");
        self.answer(&login, "Message: Authentication accepted\r\n")
    }

    /// Answers pings, and everything else with `Success`, until the client has gone.
    pub fn answer_all(&mut self) {
        while let Some(said) = self.hear() {
            self.answer(&said, "");
        }
    }
}

/// The real task, and the two channels that the node loop would hold.
#[derive(Debug)]
pub struct Client {
    pub to: mpsc::Sender<ToAmi>,
    pub from: mpsc::Receiver<FromAmi>,
    pub counts: Arc<Counts>,
    tasks: JoinSet<()>,
}

pub fn ami_settings(address: SocketAddr) -> AmiSettings {
    use std::os::unix::fs::PermissionsExt;
    let file = tempfile::NamedTempFile::with_suffix(".toml").expect("a file");
    std::fs::write(&file, format!("[ami]\naddress = \"{address}\"\n")).expect("a file");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("a mode");
    Settings::load(Some(file.path()), std::iter::empty()).expect("settings").ami
}

pub fn link_settings() -> LinkSettings {
    LinkSettings {
        username: "lab".into(),
        secret: "labsecret".into(),
        events: EventMask::DAEMON,
        ping_interval: Duration::from_millis(2_500),
        ping_timeout: Duration::from_millis(2_500),
        login_timeout: Duration::from_secs(5),
        action_timeout: Duration::from_secs(5),
        devices_most: 100_000,
        boot: Boot::Awaited,
        generation: Generation::from_bits(0xfeed),
        connection: 0,
    }
}

impl Client {
    /// A task with the usual settings that takes every event, but for what `change` changes. Needs a runtime.
    pub fn start(peer: &Peer, change: impl FnOnce(&mut Ami)) -> Self {
        let node = "n1".parse().expect("a name");
        let mut ami = Ami::new(node, ami_settings(peer.address), link_settings(), Clock::start(), "test");
        ami.wanted = |_| true;
        change(&mut ami);
        let counts = Arc::clone(&ami.counts);
        let (to, orders) = mpsc::channel(1024);
        let (told, from) = mpsc::channel(1024);
        let mut tasks = JoinSet::new();
        tasks.spawn(ami.run(orders, told));
        Self { to, from, counts, tasks }
    }

    /// The next thing the node loop would hear.
    pub async fn next(&mut self) -> FromAmi {
        tokio::time::timeout(Duration::from_secs(60), self.from.recv()).await.expect("in time").expect("a task")
    }

    /// Waits until a connection is booted.
    pub async fn booted(&mut self) {
        while !matches!(self.next().await, FromAmi::Event(message) if message.event_name() == Some(b"FullyBooted")) {}
    }
}
