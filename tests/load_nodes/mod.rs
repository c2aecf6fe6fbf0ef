//! Simulated telephony nodes for load: hundreds of them in one process, on loopback. Each speaks AMI by replaying the
//! bytes that a real Asterisk 22 sent (`proto-fixtures/v22`), with names, ids and times filled in.
//!
//! Owns phones, channels, ringing, answers, refusals, delays and Asterisk's own limits, as far as a daemon can see
//! them. Must never be used where the real thing can make the case: it knows only what was captured.
#![allow(dead_code, unreachable_pub, reason = "each test binary and bench uses its own part")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that fails says why")]

pub mod daemons;
mod script;
#[allow(clippy::duplicate_mod, reason = "most who use this room do without the lab, which has the same file")]
#[path = "../lab/secrets.rs"]
mod secrets;
mod session;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use script::Scripts;
use tokio::net::TcpListener;
use tokio::sync::broadcast;

/// What a simulated phone does when it is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    /// Rings, and is picked up after that time.
    Answer {
        /// Zero: at once.
        after: Duration,
    },
    /// 486.
    Busy,
    /// 503.
    Congestion,
    /// Rings until the Originate's timeout.
    Ring,
    /// The endpoint has no contact although its device state says so.
    Unreachable,
}

/// What a simulated node is like.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Phones `cc100`, `cc101`, …, all registered.
    pub phones: u32,
    /// What they do.
    pub behaviour: Behaviour,
    /// From Originate to the channel's first event: real Asterisk takes 1 to 5 ms.
    pub lag: Duration,
    /// Originates that it carries out in a second; more wait their turn, as real Asterisk's do.
    pub rate: u32,
}

impl Default for Settings {
    fn default() -> Self {
        let behaviour = Behaviour::Answer { after: Duration::ZERO };
        Self { phones: 0, behaviour, lag: Duration::from_millis(2), rate: 400 }
    }
}

/// The manager user of every simulated node.
pub const USER: (&str, &str) = ("evenring", "sim-secret");

/// An Originate as it came off the wire.
#[derive(Debug, Clone)]
pub struct Ring {
    /// When its last byte was read.
    pub at: Instant,
    /// The dial string.
    pub channel: String,
    /// Its ChannelId.
    pub unique: String,
}

#[derive(Debug)]
struct Channel {
    phone: String,
    name: String,
    live: bool,
    variables: Vec<(String, String)>,
    /// Counts up; a step of an older life of the same id does nothing.
    life: u64,
}

#[derive(Debug)]
struct State {
    settings: Settings,
    channels: BTreeMap<String, Channel>,
    rings: Vec<Ring>,
    lives: u64,
    /// When the next Originate may start.
    free_at: Instant,
}

/// One node. It ends with its runtime.
#[derive(Debug, Clone)]
pub struct SimNode {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    scripts: Arc<Scripts>,
    /// What all sessions are told.
    events: broadcast::Sender<Arc<str>>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics while holding it")
    }
}

/// Many nodes that share one set of captured messages.
#[derive(Debug)]
pub struct Sim {
    scripts: Arc<Scripts>,
}

/// Events that a session may lag behind before the node drops it, as Asterisk drops slow readers.
const EVENTS_WAITING: usize = 65_536;

impl Sim {
    /// Reads the captures.
    pub fn new() -> Self {
        Self { scripts: Arc::new(Scripts::load()) }
    }

    /// Starts a node on a free port. To be called inside a runtime.
    pub async fn node(&self, settings: Settings) -> SimNode {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let address = listener.local_addr().expect("the address of a bound socket");
        let state = State { settings, channels: BTreeMap::new(), rings: Vec::new(), lives: 0, free_at: now() };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            scripts: self.scripts.clone(),
            events: broadcast::Sender::new(EVENTS_WAITING),
        });
        let node = SimNode { address, shared: shared.clone() };
        spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                spawn(session::serve(stream, shared.clone()));
            }
        });
        node
    }
}

impl SimNode {
    /// Where its AMI listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Every Originate so far.
    pub fn rings(&self) -> Vec<Ring> {
        self.shared.state().rings.clone()
    }

    /// Channels that exist.
    pub fn channels(&self) -> usize {
        self.shared.state().channels.len()
    }

    /// Calls that are up.
    pub fn live(&self) -> usize {
        self.shared.state().channels.values().filter(|channel| channel.live).count()
    }

    /// What the phones do from now on.
    pub fn behave(&self, behaviour: Behaviour) {
        self.shared.state().settings.behaviour = behaviour;
    }

    /// Forgets the Originates so far.
    pub fn clear_rings(&self) {
        self.shared.state().rings.clear();
    }

    /// Sends an event to every session, byte for byte.
    pub fn say(&self, event: &str) {
        // Nobody may be listening.
        let _ = self.shared.events.send(event.into());
    }
}

/// The clock of the simulation.
#[expect(clippy::disallowed_methods, reason = "real time is simulated in real time")]
fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "a simulated node is many tasks that end with the runtime")]
fn spawn(future: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(future);
}
