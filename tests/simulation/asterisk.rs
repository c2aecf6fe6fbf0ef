//! The simulated Asterisk of a host: channels, phones that ring, answer, refuse or stay silent, and its own end. Owns
//! what is true about calls (measured: docs/asterisk.md). Must never know of Redis or of a daemon's inside.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use evenring::ami::event::{ChannelState, ContactState, DeviceState, PeerState};
use evenring::ami::frame::Message;
use evenring::ami::outcome::Answer;
use evenring::ids::SessionId;

use super::Sim;
use super::agenda::{Conn, Event};
use super::model::world::Ms;
use super::wire::{What, Wire, error, success};

/// An event on the wire.
#[derive(Debug, Clone)]
pub enum Said {
    /// With the uptime in s.
    Booted(Ms),
    Shutdown,
    Reload,
    New(SessionId),
    State(SessionId, ChannelState),
    HangsUp(SessionId),
    /// By the answer to some action.
    ShuttingDown,
    HungUp(SessionId, ChannelState, u16),
    Response {
        id: SessionId,
        action_id: String,
        ok: bool,
        reason: u8,
    },
    Device(usize, DeviceState),
    Peer(usize, PeerState),
    Contact(usize, ContactState),
}

/// How a call goes on.
#[derive(Debug, Clone, Copy)]
pub enum Turn {
    Make,
    Alert,
    Answer,
    /// With the `Reason` of the OriginateResponse and the cause.
    Fail(u8, u16),
    HangUp(u16),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Asterisk has the order, there is no channel yet.
    Queued,
    Down,
    Ringing,
    Up,
}

#[derive(Debug)]
pub struct Channel {
    pub stage: Stage,
    pub phone: usize,
    pub since: Ms,
    pub attempt: u32,
    action_id: String,
    variables: String,
    timeout: Ms,
    number: u32,
}

#[derive(Debug, Default)]
pub struct Asterisk {
    /// It listens.
    pub up: bool,
    pub booted: bool,
    pub stopping: bool,
    /// So long it lets calls end in peace while it stops.
    peace_until: Ms,
    pub life: u32,
    pub started: Ms,
    /// An Asterisk 16 says no cause when nobody answers.
    pub old: bool,
    pub channels: BTreeMap<SessionId, Channel>,
    /// Per phone: has a contact that answers.
    pub registered: Vec<bool>,
    calls: u32,
}

fn number(stage: Stage) -> ChannelState {
    match stage {
        Stage::Queued | Stage::Down => ChannelState::Down,
        Stage::Ringing => ChannelState::Ringing,
        Stage::Up => ChannelState::Up,
    }
}

impl Asterisk {
    /// One that has been up since the beginning of time, with all phones registered.
    pub fn booted(phones: usize, old: bool) -> Self {
        Self { up: true, booted: true, old, registered: vec![true; phones], ..Self::default() }
    }

    /// The channels there are, with what `Status` shows of each.
    pub fn shown(&self) -> impl Iterator<Item = (SessionId, &Channel)> {
        self.channels.iter().filter(|(_, channel)| channel.stage != Stage::Queued).map(|(id, channel)| (*id, channel))
    }

    fn device(&self, phone: usize) -> DeviceState {
        let busiest = self.shown().filter(|(_, c)| c.phone == phone).map(|(_, c)| c.stage).max();
        match busiest {
            Some(Stage::Up) => DeviceState::InUse,
            Some(Stage::Ringing) => DeviceState::Ringing,
            Some(Stage::Queued | Stage::Down) | None if self.registered[phone] => DeviceState::NotInUse,
            Some(Stage::Queued | Stage::Down) | None => DeviceState::Unavailable,
        }
    }

    fn status(&self) -> Answer {
        let item = |(id, channel): (SessionId, &Channel)| {
            let mut text = String::with_capacity(300);
            let state = number(channel.stage).as_str();
            let _ = write!(
                text,
                "Event: Status\r\nChannel: PJSIP/e{}-00000001\r\nChannelState: {state}\r\nUniqueid: evenring-{id}\r\n{}",
                channel.phone, channel.variables
            );
            Message::new(text)
        };
        Answer::List { items: self.shown().map(item).collect() }
    }

    fn devices(&self) -> Answer {
        let item = |phone: usize| {
            let state = self.device(phone).as_str();
            Message::new(format!("Event: DeviceStateChange\r\nDevice: PJSIP/e{phone}\r\nState: {state}\r\n"))
        };
        Answer::List { items: (0..self.registered.len()).map(item).collect() }
    }
}

impl Sim {
    /// Carries out an action.
    pub fn act(&mut self, host: usize, conn: Conn, wire: Wire) {
        let answer = match wire.what {
            What::Status => self.hosts[host].asterisk.status(),
            What::Devices => self.hosts[host].asterisk.devices(),
            What::Dialable(phone) => {
                let contact = if self.hosts[host].asterisk.registered[phone] { "PJSIP/e/sip:e@h" } else { "" };
                Answer::Success(Message::new(format!("Response: Success\r\nValue: {contact}\r\n")))
            }
            What::NotLoaded => error("Invalid/unknown command: it is not loaded"),
            What::Identity if self.hosts[host].asterisk.stopping => error("Asterisk is shutting down"),
            What::Identity => {
                let life = self.hosts[host].asterisk.life;
                let text = format!("Response: Success\r\nCoreStartupDate: 2026-11-27\r\nCoreStartupTime: {life}\r\n");
                Answer::Success(Message::new(text))
            }
            What::Ping if self.hosts[host].asterisk.stopping => error("Asterisk is shutting down"),
            What::Ping => success(),
            What::HangUp(id) => match self.hosts[host].asterisk.channels.get(&id).map(|channel| channel.stage) {
                None | Some(Stage::Queued) => error("No such channel"),
                Some(stage) => {
                    self.check_hang_up(host, id, stage);
                    self.answer(conn, wire.tag, success());
                    match stage {
                        Stage::Up => self.end(host, id, 16),
                        _ => self.fail(host, id, 0, 0),
                    }
                    return;
                }
            },
            What::Originate { id, attempt, action_id, dial, timeout, variables } => {
                self.answer(conn, wire.tag, success());
                let phone = dial.strip_prefix("PJSIP/e").and_then(|digits| digits.parse().ok());
                let phone: usize = phone.expect("a phone of the simulation");
                let asterisk = &mut self.hosts[host].asterisk;
                let can = asterisk.booted && !asterisk.stopping && asterisk.registered[phone];
                if !can || asterisk.channels.contains_key(&id) {
                    let said = Said::Response { id, action_id, ok: false, reason: 0 };
                    let (at, life) = (self.now + self.dice.span(1, 4), self.hosts[host].asterisk.life);
                    return self.agenda.put(at, Event::Say(host, life, said));
                }
                asterisk.calls += 1;
                let number = asterisk.calls;
                let since = self.now;
                let channel =
                    Channel { stage: Stage::Queued, phone, since, attempt, action_id, variables, timeout, number };
                asterisk.channels.insert(id, channel);
                let slow = if self.chaos() && self.dice.chance(100) { 400 } else { 4 };
                let at = self.now + self.dice.span(1, slow);
                return self.agenda.put(at, Event::Call(host, id, number, Turn::Make));
            }
        };
        self.answer(conn, wire.tag, answer);
    }

    /// The next turn of a call, if it is still that call.
    pub fn call(&mut self, host: usize, id: SessionId, call: u32, turn: Turn) -> bool {
        let now = self.now;
        let Some(channel) = self.hosts[host].asterisk.channels.get_mut(&id).filter(|c| c.number == call) else {
            return false;
        };
        match turn {
            Turn::Make => {
                (channel.stage, channel.since) = (Stage::Down, now);
                let (attempt, timeout, phone) = (channel.attempt, channel.timeout, channel.phone);
                self.check_invite(host, id, attempt);
                self.check_phone(host, id, attempt, phone);
                self.say(host, Said::New(id));
                self.plan(host, id, call, timeout);
            }
            Turn::Alert => {
                (channel.stage, channel.since) = (Stage::Ringing, now);
                let phone = channel.phone;
                self.say(host, Said::State(id, ChannelState::Ringing));
                self.tell_device(host, phone);
            }
            Turn::Answer => {
                (channel.stage, channel.since) = (Stage::Up, now);
                let (phone, action_id) = (channel.phone, channel.action_id.clone());
                self.say(host, Said::State(id, ChannelState::Up));
                self.say(host, Said::Response { id, action_id, ok: true, reason: 4 });
                self.tell_device(host, phone);
                self.plan_the_end(host, id, call);
            }
            Turn::Fail(reason, cause) => self.fail(host, id, reason, cause),
            Turn::HangUp(_) if !self.chaos() => self.plan_the_end(host, id, call),
            Turn::HangUp(cause) => {
                // An operator's command has no cause, and is no wish of the phone. The word may be filtered out.
                if cause != 0 && self.dice.chance(8_000) {
                    self.say(host, Said::HangsUp(id));
                }
                self.end(host, id, cause);
            }
        }
        true
    }

    /// What the agent and their phone do with this call.
    fn plan(&mut self, host: usize, id: SessionId, call: u32, timeout: Ms) {
        let alert = self.now + self.dice.span(5, 120);
        let soon = alert + self.dice.upto(timeout * 3 / 5);
        let old = self.hosts[host].asterisk.old;
        let unanswered = Turn::Fail(3, if old { 0 } else { 19 });
        let late = self.now + timeout;
        let (alerts, at, turn) = match self.dice.index(20) {
            0..=11 => (true, soon, Turn::Answer),
            12 => (false, alert, Turn::Fail(0, 17)),
            13 => (true, soon, Turn::Fail(0, 21)),
            14 => (true, late, unanswered),
            15 => (false, late, unanswered),
            16 => (false, alert, Turn::Fail(0, 34)),
            17 => (self.dice.chance(5_000), soon, Turn::Fail(0, 34)),
            18 => (false, alert, Turn::Fail(0, 1)),
            _ => (false, alert, Turn::Fail(0, 19)),
        };
        if alerts {
            self.agenda.put(alert, Event::Call(host, id, call, Turn::Alert));
        }
        self.agenda.put(at, Event::Call(host, id, call, turn));
    }

    fn plan_the_end(&mut self, host: usize, id: SessionId, call: u32) {
        let at = self.now + self.dice.span(20, self.setup.longest_call);
        let cause = if self.dice.chance(1_000) { 0 } else { 16 };
        self.agenda.put(at, Event::Call(host, id, call, Turn::HangUp(cause)));
    }

    /// A call that was not answered: its two events come in either order.
    pub fn fail(&mut self, host: usize, id: SessionId, reason: u8, cause: u16) {
        let Some(channel) = self.hosts[host].asterisk.channels.remove(&id) else { return };
        self.changed(id);
        let response = Said::Response { id, action_id: channel.action_id, ok: false, reason };
        if channel.stage == Stage::Queued {
            return self.say(host, response);
        }
        let hang_up = Said::HungUp(id, number(channel.stage), cause);
        let (first, second) = if self.dice.chance(1_500) { (hang_up, response) } else { (response, hang_up) };
        self.say(host, first);
        let gap = self.dice.delay(400);
        let life = self.hosts[host].asterisk.life;
        match gap {
            0 => self.say(host, second),
            _ => self.agenda.put(self.now + gap, Event::Say(host, life, second)),
        }
        self.tell_device(host, channel.phone);
    }

    /// A call that was up is over.
    fn end(&mut self, host: usize, id: SessionId, cause: u16) {
        let Some(channel) = self.hosts[host].asterisk.channels.remove(&id) else { return };
        self.changed(id);
        self.say(host, Said::HungUp(id, number(channel.stage), cause));
        self.tell_device(host, channel.phone);
    }

    fn tell_device(&mut self, host: usize, phone: usize) {
        let state = self.hosts[host].asterisk.device(phone);
        self.say(host, Said::Device(phone, state));
    }

    /// A phone registers here, or goes away.
    pub fn turn_phone(&mut self, host: usize, phone: usize, registered: bool) {
        if std::mem::replace(&mut self.hosts[host].asterisk.registered[phone], registered) == registered {
            return;
        }
        if !self.hosts[host].asterisk.up {
            return;
        }
        if registered {
            self.say(host, Said::Contact(phone, ContactState::NonQualified));
            self.say(host, Said::Peer(phone, PeerState::Reachable));
        } else {
            let why = if self.dice.chance(5_000) { ContactState::Removed } else { ContactState::Unreachable };
            self.say(host, Said::Peer(phone, PeerState::Unreachable));
            self.say(host, Said::Contact(phone, why));
        }
        self.tell_device(host, phone);
    }

    /// All calls are gone at once, and nobody is told.
    pub fn die(&mut self, host: usize) {
        for conn in self.end_process(host) {
            self.hang(conn, false, true);
        }
    }

    /// The process ends, and all calls with it. Its connections are left, for whoever knows how they are closed.
    fn end_process(&mut self, host: usize) -> Vec<Conn> {
        let asterisk = &mut self.hosts[host].asterisk;
        (asterisk.up, asterisk.booted, asterisk.stopping) = (false, false, false);
        asterisk.peace_until = 0;
        asterisk.life += 1;
        let gone = std::mem::take(&mut asterisk.channels);
        gone.keys().for_each(|id| self.changed(*id));
        self.hosts[host].conns.clone()
    }

    /// `core restart gracefully`: no new calls, and the end with the last one, unless the operator has had enough.
    pub fn stop_in_peace(&mut self, host: usize) {
        let until = self.now + self.dice.span(500, 8_000);
        let asterisk = &mut self.hosts[host].asterisk;
        (asterisk.stopping, asterisk.peace_until) = (true, until);
        let life = asterisk.life;
        self.say(host, Said::ShuttingDown);
        self.agenda.put(self.now + 200, Event::AsteriskExits(host, life));
    }

    /// `core restart now`: calls end first, and it says so 1.1 s later.
    pub fn stop_asterisk(&mut self, host: usize) {
        if self.dice.chance(5_000) {
            self.say(host, Said::ShuttingDown);
        }
        let asterisk = &mut self.hosts[host].asterisk;
        (asterisk.stopping, asterisk.peace_until) = (true, 0);
        let life = asterisk.life;
        for id in asterisk.channels.keys().copied().collect::<Vec<_>>() {
            match self.hosts[host].asterisk.channels[&id].stage {
                // In a conference it looks as if the agent had hung up.
                Stage::Up => {
                    let cause = if self.dice.chance(5_000) { 16 } else { 0 };
                    self.end(host, id, cause);
                }
                Stage::Queued | Stage::Down | Stage::Ringing => self.fail(host, id, 0, 0),
            }
        }
        self.agenda.put(self.now + 1_100, Event::AsteriskExits(host, life));
    }

    pub fn exit_asterisk(&mut self, host: usize) {
        let Asterisk { peace_until, life, ref channels, .. } = self.hosts[host].asterisk;
        if peace_until > 0 && !channels.is_empty() {
            if self.now < peace_until {
                return self.agenda.put(self.now + 200, Event::AsteriskExits(host, life));
            }
            return self.stop_asterisk(host);
        }
        self.say(host, Said::Shutdown);
        for conn in self.end_process(host) {
            let cut = self.dice.chance(2_000);
            self.hang(conn, false, cut);
        }
        let life = self.hosts[host].asterisk.life;
        let at = self.now + self.dice.span(150, 2_000);
        self.agenda.put(at, Event::AsteriskStarts(host, life));
    }

    /// Its process is there again, and loads its modules.
    pub fn start_asterisk(&mut self, host: usize) {
        let now = self.now;
        let asterisk = &mut self.hosts[host].asterisk;
        if asterisk.up {
            return;
        }
        (asterisk.up, asterisk.started) = (true, now);
        asterisk.life += 1;
        let life = asterisk.life;
        let at = now + self.dice.span(100, 1_500);
        self.agenda.put(at, Event::AsteriskBooted(host, life));
    }

    pub fn boot(&mut self, host: usize) {
        self.hosts[host].asterisk.booted = true;
        for conn in self.hosts[host].conns.clone() {
            self.greet(conn);
        }
    }
}
