//! Many scripted SIP phones in one process, without sound.
//!
//! Owns what a test tells the phones and what they remember. The conversation itself is in [`line`]. Must never know
//! an Asterisk but by its address.

mod line;

use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::{HUB, wait_for, wait_until};

/// What a phone does when it is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    /// Rings, and is picked up after that time.
    Answer {
        /// Zero: at once.
        after: Duration,
    },
    /// Rings for ever.
    Ring,
    /// 486: in a call.
    Busy,
    /// 603: the agent said no.
    Decline,
    /// Says nothing to an INVITE; all else is answered.
    Silent,
    /// Any final code from 300 on.
    Code(u16),
    /// Rings for a second, then 486.
    RingThenBusy,
}

impl Behaviour {
    /// Picked up at once.
    pub const ANSWER: Self = Self::Answer { after: Duration::ZERO };
}

/// What happened to a phone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// A new call. One that is sent again counts once.
    Invite,
    /// The node took the call back while it rang.
    Cancel,
    /// The node ended an answered call.
    Bye,
    /// The phone gave a call its last answer: it rings no longer.
    Answer(u16),
}

/// One line of the phones' memory.
#[derive(Debug, Clone)]
pub struct Record {
    /// When, on the clock of [`super::now`].
    pub at: Instant,
    /// The phone, e.g. `cc100`.
    pub phone: String,
    /// The node that called.
    pub node: Ipv4Addr,
    /// The SIP Call-ID.
    pub call_id: String,
    /// Who calls: the header From.
    pub from: String,
    /// What happened.
    pub what: What,
}

/// How the phones are at the beginning.
#[derive(Debug, Clone)]
pub struct Options {
    /// The number of the first; 100 is `cc100`.
    pub first: u32,
    /// How many.
    pub count: u32,
    /// Where they register, all of them everywhere.
    pub nodes: Vec<SocketAddrV4>,
    /// What they do when called.
    pub behaviour: Behaviour,
    /// The expiry they ask for, in seconds.
    pub expires: u32,
    /// Whether they register again in time.
    pub renew: Renew,
    /// The address they have.
    pub from: Ipv4Addr,
}

/// Whether phones keep their registration alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renew {
    /// After 80 % of the expiry, and two seconds after a failure.
    Always,
    /// Only when told.
    Never,
}

/// The phones. They hang up on nobody and unregister nowhere when dropped: they are just gone.
#[derive(Debug)]
pub struct Phones {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// One bell a phone: it has an order.
    bells: BTreeMap<String, Notify>,
    stop: Notify,
}

#[derive(Debug, Default)]
struct State {
    phones: BTreeMap<String, Phone>,
    records: Vec<Record>,
}

/// What tests and the phone's own task both see.
#[derive(Debug)]
struct Phone {
    behaviour: Behaviour,
    on_node: BTreeMap<Ipv4Addr, Behaviour>,
    offline: bool,
    ignores_options: bool,
    /// What each node last said to REGISTER: 200, another code, 0 for nothing yet, or no entry after unregistering.
    registered: BTreeMap<SocketAddrV4, u16>,
    orders: VecDeque<Order>,
    repeated: usize,
    ringing: usize,
    live: usize,
    most_ringing: usize,
    most_calls: usize,
}

#[derive(Debug, Clone, Copy)]
enum Order {
    /// Expiry 0 unregisters.
    Register {
        node: SocketAddrV4,
        expires: u32,
    },
    HangUp,
    Forget {
        node: Ipv4Addr,
    },
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Phones {
    /// Makes `count` phones from `cc<first>` on and starts to register them on all nodes. See [`Self::wait_registered`].
    pub fn register(first: u32, count: u32, nodes: &[SocketAddrV4], behaviour: Behaviour) -> Self {
        let nodes = nodes.to_vec();
        Self::with(Options { first, count, nodes, behaviour, expires: 60, renew: Renew::Always, from: HUB })
    }

    /// The same with all that can be chosen.
    pub fn with(options: Options) -> Self {
        let mut shared = Shared { state: Mutex::default(), bells: BTreeMap::new(), stop: Notify::new() };
        let mut lines = Vec::new();
        let state = shared.state.get_mut().unwrap();
        for name in (options.first..options.first + options.count).map(|number| format!("cc{number}")) {
            let socket = UdpSocket::bind((options.from, 0)).unwrap_or_else(|error| panic!("phone {name}: {error}"));
            socket.set_nonblocking(true).expect("a socket can be non-blocking");
            lines.push((name.clone(), socket));
            shared.bells.insert(name.clone(), Notify::new());
            state.phones.insert(name, Phone::new(&options));
        }
        let shared = Arc::new(shared);
        let thread = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || line::serve(&shared, lines, options.renew)
        });
        Self { shared, thread: Some(thread) }
    }

    /// Waits until every phone is registered on every node it was told.
    pub fn wait_registered(&self, timeout: Duration) {
        wait_for(timeout, || {
            let state = self.shared.lock();
            let mut missing = Vec::new();
            for (name, phone) in &state.phones {
                let refused = phone.registered.iter().filter(|(_, code)| **code != 200);
                missing.extend(refused.map(|(node, code)| format!("{name} on {node} (last answer {code})")));
            }
            if missing.is_empty() {
                return Ok(());
            }
            let count = missing.len();
            missing.truncate(10);
            Err(format!("{count} registrations: {}", missing.join(", ")))
        });
    }

    /// How many registrations hold, over all phones and nodes, as the phones see it.
    pub fn registrations(&self) -> usize {
        self.shared
            .lock()
            .phones
            .values()
            .flat_map(|phone| phone.registered.values())
            .filter(|code| **code == 200)
            .count()
    }

    /// Registers again, with that expiry.
    pub fn register_again(&self, phone: &str, node: SocketAddrV4, expires: u32) {
        self.order(phone, Order::Register { node, expires });
    }

    /// Unregisters, and does not renew.
    pub fn unregister(&self, phone: &str, node: SocketAddrV4) {
        self.order(phone, Order::Register { node, expires: 0 });
    }

    /// Hangs up the answered calls of a phone.
    pub fn hang_up(&self, phone: &str) {
        self.order(phone, Order::HangUp);
    }

    /// Every phone hangs up.
    pub fn hang_up_all(&self) {
        for phone in self.names() {
            self.hang_up(&phone);
        }
    }

    /// All phones notice that this node is gone, and drop their calls with it. Returns when they have: what comes later is
    /// a new call.
    pub fn forget_calls(&self, node: Ipv4Addr) {
        for phone in self.names() {
            self.order(&phone, Order::Forget { node });
        }
        wait_until(Duration::from_secs(20), "all phones to drop their calls", || {
            self.shared.lock().phones.values().all(|phone| phone.orders.is_empty())
        });
    }

    fn order(&self, phone: &str, order: Order) {
        self.change(phone, |phone| {
            if let Order::Register { node, expires: 1.. } = order {
                phone.registered.insert(node, 0);
            }
            phone.orders.push_back(order);
        });
        self.shared.bells[phone].notify_one();
    }

    /// What this phone does from the next call on, wherever it comes from.
    pub fn behave(&self, phone: &str, behaviour: Behaviour) {
        self.change(phone, |phone| {
            phone.behaviour = behaviour;
            phone.on_node.clear();
        });
    }

    /// What this phone does with calls from one node.
    pub fn behave_on(&self, phone: &str, node: Ipv4Addr, behaviour: Behaviour) {
        self.change(phone, |phone| {
            phone.on_node.insert(node, behaviour);
        });
    }

    /// What all phones do from now on, wherever a call comes from.
    pub fn behave_all(&self, behaviour: Behaviour) {
        for phone in self.names() {
            self.behave(&phone, behaviour);
        }
    }

    /// What all phones do with calls from one node.
    pub fn behave_all_on(&self, node: Ipv4Addr, behaviour: Behaviour) {
        for phone in self.names() {
            self.behave_on(&phone, node, behaviour);
        }
    }

    /// An unplugged phone ignores everything, OPTIONS too, so that its contacts become unreachable.
    pub fn unplug(&self, phone: &str) {
        self.change(phone, |phone| phone.offline = true);
    }

    /// A phone that answers calls, but no OPTIONS, as some behind a strict router.
    pub fn ignore_options(&self, phone: &str, ignores: bool) {
        self.change(phone, |phone| phone.ignores_options = ignores);
    }

    /// Plugs it in again.
    pub fn plug_in(&self, phone: &str) {
        self.change(phone, |phone| phone.offline = false);
    }

    fn change(&self, phone: &str, change: impl FnOnce(&mut Phone)) {
        let mut state = self.shared.lock();
        change(state.phones.get_mut(phone).unwrap_or_else(|| panic!("there is no phone {phone:?}")));
    }

    fn look<T>(&self, phone: &str, look: impl FnOnce(&Phone) -> T) -> T {
        look(self.shared.lock().phones.get(phone).unwrap_or_else(|| panic!("there is no phone {phone:?}")))
    }

    /// All names, in order.
    pub fn names(&self) -> Vec<String> {
        self.shared.bells.keys().cloned().collect()
    }

    /// All that happened, oldest first.
    pub fn records(&self) -> Vec<Record> {
        self.shared.lock().records.clone()
    }

    /// All that happened of one kind, oldest first.
    pub fn of_kind(&self, what: What) -> Vec<Record> {
        self.shared.lock().records.iter().filter(|record| record.what == what).cloned().collect()
    }

    /// All calls that came in, oldest first.
    pub fn invites(&self) -> Vec<Record> {
        self.of_kind(What::Invite)
    }

    /// How often this phone was called.
    pub fn rings(&self, phone: &str) -> usize {
        let state = self.shared.lock();
        state.records.iter().filter(|record| record.what == What::Invite && record.phone == phone).count()
    }

    /// How often an INVITE that is already known came to this phone again.
    pub fn repeated(&self, phone: &str) -> usize {
        self.look(phone, |phone| phone.repeated)
    }

    /// Forgets all records and the most calls at once; calls and registrations stay.
    pub fn clear_records(&self) {
        let mut state = self.shared.lock();
        state.records.clear();
        for phone in state.phones.values_mut() {
            phone.most_ringing = phone.ringing;
            phone.most_calls = phone.ringing + phone.live;
        }
    }

    /// Forgets all records but these.
    pub fn retain_records(&self, keep: impl FnMut(&Record) -> bool) {
        self.shared.lock().records.retain(keep);
    }

    /// How many calls are answered now, over all phones.
    pub fn live(&self) -> usize {
        self.shared.lock().phones.values().map(|phone| phone.live).sum()
    }

    /// How many calls wait for this phone's answer now.
    pub fn ringing(&self, phone: &str) -> usize {
        self.look(phone, |phone| phone.ringing)
    }

    /// The most calls that ever waited for this phone's answer at once (silent ones count too). P1 wants 1.
    pub fn max_ringing_at_once(&self, phone: &str) -> usize {
        self.look(phone, |phone| phone.most_ringing)
    }

    /// The same, and those it was in.
    pub fn max_calls_at_once(&self, phone: &str) -> usize {
        self.look(phone, |phone| phone.most_calls)
    }
}

impl Phone {
    fn new(options: &Options) -> Self {
        let orders = options.nodes.iter().map(|node| Order::Register { node: *node, expires: options.expires });
        Self {
            behaviour: options.behaviour,
            on_node: BTreeMap::new(),
            offline: false,
            ignores_options: false,
            registered: options.nodes.iter().map(|node| (*node, 0)).collect(),
            orders: orders.collect(),
            repeated: 0,
            ringing: 0,
            live: 0,
            most_ringing: 0,
            most_calls: 0,
        }
    }
}

impl Drop for Phones {
    fn drop(&mut self) {
        self.shared.stop.notify_one();
        if let Some(thread) = self.thread.take() {
            assert!(thread.join().is_ok() || std::thread::panicking(), "the thread of the phones has panicked");
        }
    }
}
