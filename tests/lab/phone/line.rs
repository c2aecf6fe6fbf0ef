//! The conversation of one scripted phone: registering, being called, hanging up.
//!
//! Owns the phone's socket, calls and timers. Must never decide a behaviour: that is looked up for each call.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::UdpSocket;
use tokio::task::JoinSet;

use super::super::sip::{Identity, Message, Register, Sdp};
use super::super::{config, now, token};
use super::{Behaviour, Order, Phone, Record, Renew, Shared, What};

/// SIP's T1: what is not answered is sent again after this time, then after twice that, and so on.
const AGAIN: Duration = Duration::from_millis(500);
/// How often something is sent at most.
const SENDS: u32 = 5;
/// After a registration that nobody answered, or that was refused.
const RETRY: Duration = Duration::from_secs(2);

/// Runs all phones until told to stop, on the thread it is called on.
pub(super) fn serve(shared: &Arc<Shared>, lines: Vec<(String, std::net::UdpSocket)>, renew: Renew) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime for the phones");
    runtime.block_on(async {
        let mut tasks = JoinSet::new();
        for (name, socket) in lines {
            let line = Line::new(Arc::clone(shared), name, socket, renew);
            tasks.spawn(line.run());
        }
        tokio::select! {
            () = shared.stop.notified() => {}
            Some(ended) = tasks.join_next() => ended.expect("a phone's task does not panic"),
        }
    });
}

struct Line {
    shared: Arc<Shared>,
    socket: UdpSocket,
    me: Identity,
    renew: Renew,
    registrations: BTreeMap<SocketAddrV4, Registration>,
    calls: BTreeMap<String, Call>,
    /// Calls of the past: what is sent again of them is no new call.
    seen: BTreeSet<String>,
    timers: Vec<(Instant, Timer)>,
}

#[derive(Debug, Clone)]
enum Timer {
    /// The agent does what the behaviour says: a final code.
    Act {
        call_id: String,
        code: u16,
    },
    /// Nobody has confirmed what was sent in this call.
    ConfirmCall {
        call_id: String,
        sends: u32,
    },
    /// Nobody has answered this REGISTER.
    ConfirmRegister {
        node: SocketAddrV4,
        branch: String,
        sends: u32,
    },
    Renew {
        node: SocketAddrV4,
        branch: String,
    },
}

struct Registration {
    call_id: String,
    cseq: u32,
    expires: u32,
    /// The request under way, or the last one.
    branch: String,
    request: String,
    challenged: bool,
}

struct Call {
    node: SocketAddrV4,
    invite: Message,
    tag: String,
    stage: Stage,
    /// The message that needs a confirmation (ACK, or an answer to BYE); none if all is confirmed.
    unconfirmed: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Offered { rings: bool },
    Live,
    Over,
}

impl Line {
    fn new(shared: Arc<Shared>, name: String, socket: std::net::UdpSocket, renew: Renew) -> Self {
        let socket = UdpSocket::from_std(socket).expect("the runtime takes a socket");
        let SocketAddr::V4(address) = socket.local_addr().expect("a bound socket has an address") else {
            unreachable!("phones are bound to IPv4 addresses")
        };
        let me = Identity { password: config::password(&name), name, address };
        Self {
            shared,
            socket,
            me,
            renew,
            registrations: BTreeMap::new(),
            calls: BTreeMap::new(),
            seen: BTreeSet::new(),
            timers: Vec::new(),
        }
    }

    async fn run(mut self) {
        let mut buffer = [0; 4096];
        self.on_orders();
        loop {
            let next = self.timers.iter().map(|(due, _)| *due).min();
            let wait = next.map_or(Duration::from_secs(3600), |due| due.saturating_duration_since(now()));
            let shared = Arc::clone(&self.shared);
            tokio::select! {
                received = self.socket.recv_from(&mut buffer) => {
                    // an error is an ICMP answer to something sent earlier: the node is gone, and timers deal with that
                    if let Ok((length, SocketAddr::V4(node))) = received {
                        self.on_datagram(&buffer[..length], node);
                    }
                }
                () = shared.bells[&self.me.name].notified() => self.on_orders(),
                () = tokio::time::sleep(wait) => self.on_timers(),
            }
        }
    }

    /// Works on the part of this phone that tests see.
    fn phone<T>(&self, work: impl FnOnce(&mut Phone) -> T) -> T {
        work(self.shared.lock().phones.get_mut(&self.me.name).expect("phones are never removed"))
    }

    fn send(&self, node: SocketAddrV4, text: &str) {
        // lost datagrams are part of the game: what matters is sent again
        let _lost = self.socket.try_send_to(text.as_bytes(), node.into());
    }

    fn arm(&mut self, wait: Duration, timer: Timer) {
        self.timers.push((now() + wait, timer));
    }

    fn on_orders(&mut self) {
        while let Some(order) = self.phone(|phone| phone.orders.pop_front()) {
            match order {
                Order::Register { node, expires } => self.register(node, expires),
                Order::HangUp => self.hang_up(),
                Order::Forget { node } => self.calls.retain(|_, call| *call.node.ip() != node),
            }
        }
        self.count();
    }

    fn on_datagram(&mut self, datagram: &[u8], node: SocketAddrV4) {
        if self.phone(|phone| phone.offline) {
            return;
        }
        let Some(message) = Message::parse(datagram) else {
            return;
        };
        match message.code() {
            Some(code) => match message.answers() {
                "REGISTER" => self.on_register_answer(node, code, &message),
                "BYE" => self.confirmed(message.header("call-id")),
                _ => {}
            },
            None => self.on_request(node, &message),
        }
        self.count();
    }

    fn on_timers(&mut self) {
        let now = now();
        let (due, later) = std::mem::take(&mut self.timers).into_iter().partition(|(due, _)| *due <= now);
        self.timers = later;
        let due: Vec<(Instant, Timer)> = due;
        for (_, timer) in due {
            if self.phone(|phone| phone.offline) {
                self.arm(AGAIN, timer);
                continue;
            }
            match timer {
                Timer::Act { call_id, code } => self.finish(&call_id, code),
                Timer::ConfirmCall { call_id, sends } => self.confirm_call(call_id, sends),
                Timer::ConfirmRegister { node, branch, sends } => self.confirm_register(node, branch, sends),
                Timer::Renew { node, branch } => {
                    let current = self.registrations.get(&node).filter(|entry| entry.branch == branch);
                    if let Some(expires) = current.map(|entry| entry.expires) {
                        self.register(node, expires);
                    }
                }
            }
        }
        self.count();
    }

    // ------------------------------------------------------------ registering

    fn register(&mut self, node: SocketAddrV4, expires: u32) {
        let fresh = || Registration {
            call_id: token(),
            cseq: 0,
            expires,
            branch: String::new(),
            request: String::new(),
            challenged: false,
        };
        let entry = self.registrations.entry(node).or_insert_with(fresh);
        entry.expires = expires;
        entry.challenged = false;
        self.send_register(node, "");
    }

    fn send_register(&mut self, node: SocketAddrV4, authorization: &str) {
        let entry = self.registrations.get_mut(&node).expect("it was entered before");
        entry.cseq += 1;
        entry.branch = format!("z9hG4bK{}", token());
        let Registration { call_id, cseq, expires, branch, .. } = entry;
        let what = Register { node, call_id, cseq: *cseq, branch, expires: *expires, authorization };
        entry.request = self.me.register(&what);
        let (request, branch) = (entry.request.clone(), entry.branch.clone());
        self.send(node, &request);
        self.arm(AGAIN, Timer::ConfirmRegister { node, branch, sends: 1 });
    }

    fn confirm_register(&mut self, node: SocketAddrV4, branch: String, sends: u32) {
        let Some(entry) = self.registrations.get(&node).filter(|entry| entry.branch == branch) else {
            return;
        };
        if entry.request.is_empty() {
            return;
        }
        if sends < SENDS {
            self.send(node, &entry.request);
            self.arm(AGAIN * 2_u32.pow(sends), Timer::ConfirmRegister { node, branch, sends: sends + 1 });
        } else {
            self.phone(|phone| phone.registered.insert(node, 0));
            self.renew_after(node, branch, RETRY);
        }
    }

    fn renew_after(&mut self, node: SocketAddrV4, branch: String, wait: Duration) {
        if self.renew == Renew::Always {
            self.arm(wait, Timer::Renew { node, branch });
        }
    }

    fn on_register_answer(&mut self, node: SocketAddrV4, code: u16, answer: &Message) {
        let Some(entry) = self.registrations.get_mut(&node) else {
            return;
        };
        if code < 200 || entry.branch != answer.branch() || entry.request.is_empty() {
            return;
        }
        entry.request.clear();
        if code == 401 && !entry.challenged {
            entry.challenged = true;
            let authorization = self.me.authorize(node, answer, &token());
            self.send_register(node, &authorization);
            return;
        }
        let (expires, branch) = (entry.expires, entry.branch.clone());
        if expires == 0 {
            self.phone(|phone| phone.registered.remove(&node));
            return;
        }
        self.phone(|phone| phone.registered.insert(node, code));
        let wait = if code == 200 { Duration::from_secs(expires.into()).mul_f64(0.8) } else { RETRY };
        self.renew_after(node, branch, wait);
    }

    // ------------------------------------------------------------ calls

    fn on_request(&mut self, node: SocketAddrV4, request: &Message) {
        let call_id = request.header("call-id").to_owned();
        match request.method() {
            "INVITE" => self.on_invite(node, request, call_id),
            "ACK" => self.confirmed(&call_id),
            "CANCEL" => {
                self.send(node, &self.me.answer(request, 200, &token(), Sdp::None));
                if matches!(self.calls.get(&call_id), Some(Call { stage: Stage::Offered { .. }, .. })) {
                    self.record(node, &call_id, request.header("from"), What::Cancel);
                    self.finish(&call_id, 487);
                }
            }
            "BYE" => {
                self.send(node, &self.me.answer(request, 200, "", Sdp::None));
                if self.calls.remove(&call_id).is_some() {
                    self.record(node, &call_id, request.header("from"), What::Bye);
                }
            }
            "OPTIONS" if self.phone(|phone| phone.ignores_options) => {}
            _ => self.send(node, &self.me.answer(request, 200, &token(), Sdp::None)),
        }
    }

    fn on_invite(&mut self, node: SocketAddrV4, invite: &Message, call_id: String) {
        if let Some(call) = self.calls.get(&call_id) {
            // sent again, or an INVITE inside of a call
            self.phone(|phone| phone.repeated += 1);
            let answer = match (call.stage, &call.unconfirmed) {
                (Stage::Offered { rings: false }, _) => return,
                (Stage::Offered { rings: true }, _) => self.me.answer(invite, 180, &call.tag, Sdp::None),
                (Stage::Live, _) => self.me.answer(invite, 200, &call.tag, Sdp::Sound),
                (Stage::Over, Some(last)) => last.clone(),
                (Stage::Over, None) => return,
            };
            return self.send(node, &answer);
        }
        if !self.seen.insert(call_id.clone()) {
            return;
        }
        self.record(node, &call_id, invite.header("from"), What::Invite);
        let behaviour = self.phone(|phone| phone.on_node.get(node.ip()).copied().unwrap_or(phone.behaviour));
        let rings = matches!(behaviour, Behaviour::Answer { .. } | Behaviour::Ring | Behaviour::RingThenBusy);
        let call =
            Call { node, invite: invite.clone(), tag: token(), stage: Stage::Offered { rings }, unconfirmed: None };
        if rings {
            self.send(node, &self.me.answer(invite, 180, &call.tag, Sdp::None));
        }
        self.calls.insert(call_id.clone(), call);
        self.count();
        match behaviour {
            Behaviour::Ring | Behaviour::Silent => {}
            Behaviour::Busy => self.finish(&call_id, 486),
            Behaviour::Decline => self.finish(&call_id, 603),
            Behaviour::Code(code) => self.finish(&call_id, code),
            Behaviour::Answer { after } if after.is_zero() => self.finish(&call_id, 200),
            Behaviour::Answer { after } => self.arm(after, Timer::Act { call_id, code: 200 }),
            Behaviour::RingThenBusy => self.arm(Duration::from_secs(1), Timer::Act { call_id, code: 486 }),
        }
    }

    /// Gives a call that is still offered its final answer.
    fn finish(&mut self, call_id: &str, code: u16) {
        let Some(call) = self.calls.get_mut(call_id) else {
            return;
        };
        if !matches!(call.stage, Stage::Offered { .. }) {
            return;
        }
        let (stage, sdp) = if code == 200 { (Stage::Live, Sdp::Sound) } else { (Stage::Over, Sdp::None) };
        call.stage = stage;
        let answer = self.me.answer(&call.invite, code, &call.tag, sdp);
        let (node, from) = (call.node, call.invite.header("from").to_owned());
        self.record(node, call_id, &from, What::Answer(code));
        self.send_confirmed(call_id, answer);
    }

    fn send_confirmed(&mut self, call_id: &str, text: String) {
        let Some(call) = self.calls.get_mut(call_id) else {
            return;
        };
        let node = call.node;
        call.unconfirmed = Some(text.clone());
        self.send(node, &text);
        self.arm(AGAIN, Timer::ConfirmCall { call_id: call_id.to_owned(), sends: 1 });
    }

    fn confirm_call(&mut self, call_id: String, sends: u32) {
        let Some(Call { node, unconfirmed: Some(text), .. }) = self.calls.get(&call_id) else {
            return;
        };
        if sends < SENDS {
            self.send(*node, text);
            self.arm(AGAIN * 2_u32.pow(sends), Timer::ConfirmCall { call_id, sends: sends + 1 });
        } else {
            self.calls.remove(&call_id);
        }
    }

    fn confirmed(&mut self, call_id: &str) {
        let Some(call) = self.calls.get_mut(call_id) else {
            return;
        };
        call.unconfirmed = None;
        if call.stage == Stage::Over {
            self.calls.remove(call_id);
        }
    }

    fn hang_up(&mut self) {
        let live = self.calls.iter_mut().filter(|(_, call)| call.stage == Stage::Live);
        let mut byes = Vec::new();
        for (call_id, call) in live {
            call.stage = Stage::Over;
            let branch = format!("z9hG4bK{}", token());
            byes.push((call_id.clone(), self.me.bye(&call.invite, &call.tag, &branch)));
        }
        for (call_id, bye) in byes {
            self.send_confirmed(&call_id, bye);
        }
    }

    /// Tells the tests how many calls there are.
    fn count(&self) {
        let ringing = self.calls.values().filter(|call| matches!(call.stage, Stage::Offered { .. })).count();
        let live = self.calls.values().filter(|call| call.stage == Stage::Live).count();
        self.phone(|phone| {
            phone.ringing = ringing;
            phone.live = live;
            phone.most_ringing = phone.most_ringing.max(ringing);
            phone.most_calls = phone.most_calls.max(ringing + live);
        });
    }

    fn record(&self, node: SocketAddrV4, call_id: &str, from: &str, what: What) {
        let (node, phone, call_id, from) = (*node.ip(), self.me.name.clone(), call_id.to_owned(), from.to_owned());
        self.shared.lock().records.push(Record { at: now(), phone, node, call_id, from, what });
    }
}
