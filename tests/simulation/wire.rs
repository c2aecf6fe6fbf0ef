//! The AMI connections between daemons and Asterisks: each way in order, each may end at any moment with a part of what
//! was under way lost. Stands for `src/daemon/{ami,talk}.rs`, `src/ami/link.rs` and TCP. Owns what is lost, and which
//! answer an action gets then. Must never know what an action does: `asterisk` does.

use bytes::BytesMut;
use evenring::ami::action::Action;
use evenring::ami::frame::Message;
use evenring::ami::id::session_of_action_id;
use evenring::ami::outcome::{Answer, NotSent, Tag, Unknown};
use evenring::ids::SessionId;
use evenring::node::Input;

use super::Sim;
use super::agenda::{Conn, Ear, Event, Life};
use super::asterisk::Said;
use super::daemon::Daemon;
use super::model::world::Ms;

/// An action as Asterisk reads it.
#[derive(Debug, Clone)]
pub struct Wire {
    pub tag: Tag,
    pub what: What,
}

#[derive(Debug, Clone)]
pub enum What {
    Originate {
        id: SessionId,
        attempt: u32,
        action_id: String,
        dial: String,
        timeout: Ms,
        variables: String,
    },
    HangUp(SessionId),
    Status,
    Devices,
    /// The contacts of a phone that an Originate would ring.
    Dialable(usize),
    /// An action of a module that is not loaded.
    NotLoaded,
    /// Which Asterisk it is.
    Identity,
    Ping,
}

/// One connection.
#[derive(Debug)]
pub struct Link {
    pub host: usize,
    /// Which Asterisk of the host it is with.
    asterisk: u32,
    pub life: Life,
    pub alive: bool,
    /// Asterisk has said here that it is booted.
    pub booted: bool,
    /// Nothing gets through, and neither side has noticed.
    pub muted: bool,
    /// After the end: so many of the actions under way are still read.
    linger: usize,
    under_way: usize,
    in_at: Ms,
    out_at: Ms,
}

/// Ping interval and timeout of the daemon: a silent connection ends after one to two of these.
const PING: Ms = 2_500;

fn read(tag: Tag, action_id: Option<String>, action: &Action) -> Wire {
    let mut out = BytesMut::new();
    let action_id = action_id.unwrap_or_default();
    action.encode(if action_id.is_empty() { "x" } else { &action_id }, &mut out).expect("an action");
    let text = std::str::from_utf8(&out).expect("text");
    let value = |name: &str| {
        text.split("\r\n").find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).unwrap_or_default()
    };
    let session = |name: &str| -> SessionId {
        value(name).strip_prefix("evenring-").and_then(|id| id.parse().ok()).expect("a channel of ours")
    };
    let what = match action.name() {
        "Originate" => {
            let (_, id, attempt) = session_of_action_id(action_id.as_bytes()).expect("an Originate's own ActionID");
            assert_eq!(id, session("ChannelId"), "ActionID and ChannelId are of one session");
            let variables = text.split_inclusive("\r\n").filter(|line| line.starts_with("Variable: ")).collect();
            let timeout = value("Timeout").parse().expect("a timeout");
            What::Originate { id, attempt, dial: value("Channel").to_owned(), timeout, variables, action_id }
        }
        "Hangup" => What::HangUp(session("Channel")),
        "Status" => What::Status,
        "Ping" => What::Ping,
        "CoreStatus" => What::Identity,
        "DeviceStateList" => What::Devices,
        "Getvar" => {
            let phone = value("Variable").strip_prefix("PJSIP_DIAL_CONTACTS(e").and_then(|rest| rest.strip_suffix(')'));
            phone.map_or(What::NotLoaded, |digits| What::Dialable(digits.parse().expect("a phone of the simulation")))
        }
        "SIPpeers" | "IAXpeerlist" | "PJSIPQualify" => What::NotLoaded,
        other => panic!("the simulation's Asterisk knows no {other}"),
    };
    Wire { tag, what }
}

impl Sim {
    /// The daemon's AMI task is handed an action.
    pub fn send(&mut self, d: &mut Daemon, tag: Tag, action_id: Option<String>, action: &Action) {
        let clogged = self.chaos() && self.dice.chance(3);
        let Some(conn) = d.ami.conn.filter(|_| d.ami.up && !clogged) else {
            let at = self.now + self.dice.upto(1);
            return self.agenda.put(at, Event::Hears(d.life, Ear::NotSent(tag)));
        };
        let wire = read(tag, action_id, action);
        if let What::Originate { id, attempt, .. } = wire.what {
            self.check_ring(d, id, attempt);
            self.strike(d.host);
        }
        d.ami.open.push(tag);
        let most = self.setup.wire_delay;
        let delay = self.dice.delay(most);
        let link = &mut self.links[conn];
        link.under_way += 1;
        link.in_at = link.in_at.max(self.now + delay);
        self.agenda.put(link.in_at, Event::ToAsterisk(conn, wire));
    }

    /// An action comes to Asterisk's end.
    pub fn arrive(&mut self, conn: Conn, wire: Wire) -> bool {
        let link = &mut self.links[conn];
        link.under_way -= 1;
        if !link.alive {
            if link.linger == 0 {
                return false;
            }
            link.linger -= 1;
        }
        let host = link.host;
        let asterisk = &self.hosts[host].asterisk;
        if link.muted || !asterisk.up || asterisk.life != link.asterisk {
            return false;
        }
        self.act(host, conn, wire);
        true
    }

    pub fn answer(&mut self, conn: Conn, tag: Tag, answer: Answer) {
        let lost = self.chaos() && matches!(answer, Answer::List { .. }) && self.dice.chance(20);
        let answer = if lost { Answer::Unknown(Unknown::ListTooLong { limit: 0 }) } else { answer };
        let life = self.links[conn].life;
        if let Some(at) = self.out(conn) {
            self.agenda.put(at, Event::Hears(life, Ear::Answer(conn, tag, answer)));
        }
    }

    /// When what Asterisk writes now is read; `None` if it never is.
    fn out(&mut self, conn: Conn) -> Option<Ms> {
        let most = self.setup.wire_delay;
        let delay = self.dice.delay(most);
        let link = &mut self.links[conn];
        if !link.alive || link.muted {
            return None;
        }
        link.out_at = link.out_at.max(self.now + delay);
        Some(link.out_at)
    }

    /// Asterisk says something to everybody who listens.
    pub fn say(&mut self, host: usize, said: Said) {
        let listening: Vec<Conn> = self.hosts[host].conns.clone();
        for conn in listening {
            if self.links[conn].booted
                && let Some(at) = self.out(conn)
            {
                let life = self.links[conn].life;
                self.agenda.put(at, Event::Hears(life, Ear::Said(conn, said.clone())));
            }
        }
    }

    /// Asterisk says that it is booted, to one connection.
    pub fn greet(&mut self, conn: Conn) {
        let (life, host) = (self.links[conn].life, self.links[conn].host);
        self.links[conn].booted = true;
        // A difference of wall times: with a clock that steps it may be anything, and 13 says nothing of it.
        let up = (self.now - self.hosts[host].asterisk.started) / 1000;
        let uptime = if self.chaos() { self.dice.span(-1, 1_000) } else { up };
        if let Some(at) = self.out(conn) {
            self.agenda.put(at, Event::Hears(life, Ear::Said(conn, Said::Booted(uptime))));
        }
    }

    /// The daemon tries to connect.
    pub fn connect(&mut self, d: &mut Daemon) {
        let host = d.host;
        if self.hosts[host].unreachable_until > self.now {
            let at = self.now + 2_000;
            return self.agenda.put(at, Event::Hears(d.life, Ear::NoConnection { gone: false }));
        }
        if !self.hosts[host].asterisk.up {
            return self.agenda.put(self.now, Event::Hears(d.life, Ear::NoConnection { gone: true }));
        }
        if self.hosts[host].asterisk.stopping {
            d.tell(Input::ShuttingDown(true), self.now);
            return self.agenda.put(self.now, Event::Hears(d.life, Ear::NoConnection { gone: false }));
        }
        let conn = self.links.len();
        let (in_at, out_at) = (self.now, self.now + self.dice.span(1, 6));
        let fresh = Link {
            host,
            asterisk: self.hosts[host].asterisk.life,
            life: d.life,
            alive: true,
            booted: false,
            muted: false,
            linger: 0,
            under_way: 0,
            in_at,
            out_at,
        };
        self.links.push(fresh);
        self.hosts[host].conns.push(conn);
        (d.ami.conn, d.ami.up) = (Some(conn), false);
        if self.hosts[host].asterisk.booted {
            self.greet(conn);
        }
    }

    /// A connection ends. `cut`: also what Asterisk had written already may be lost.
    pub fn hang(&mut self, conn: Conn, gone: bool, cut: bool) {
        if !self.links[conn].alive {
            return;
        }
        let linger = self.dice.index(self.links[conn].under_way + 1);
        let link = &mut self.links[conn];
        (link.alive, link.linger) = (false, linger);
        let (life, host) = (link.life, link.host);
        let at = if cut { self.now + self.dice.upto(1) } else { link.out_at.max(self.now) };
        self.hosts[host].conns.retain(|other| *other != conn);
        self.agenda.put(at, Event::Hears(life, Ear::Dropped(conn, gone)));
    }

    /// Nothing gets through any more; the daemon notices by its pings.
    pub fn mute(&mut self, conn: Conn) {
        self.links[conn].muted = true;
        let (life, at) = (self.links[conn].life, self.now + PING + self.dice.upto(PING));
        self.agenda.put(at, Event::Hears(life, Ear::Dropped(conn, false)));
    }

    /// How the actions end that had no answer when the connection was lost, in the order in which they were sent.
    pub fn last_answers(&mut self, d: &mut Daemon, conn: Conn) -> Vec<(Tag, Answer)> {
        let link = &mut self.links[conn];
        if link.alive {
            // The daemon gives up first; nothing that is under way is read any more.
            (link.alive, link.linger) = (false, 0);
            let host = link.host;
            self.hosts[host].conns.retain(|other| *other != conn);
        }
        let link = &self.links[conn];
        let lost = link.under_way - link.linger;
        let unsent = self.dice.index(lost + 1).min(d.ami.open.len());
        let first_unsent = d.ami.open.len() - unsent;
        let answer = |(at, tag)| match at < first_unsent {
            true => (tag, Answer::Unknown(Unknown::Closed)),
            false => (tag, Answer::NotSent(NotSent::Closed)),
        };
        std::mem::take(&mut d.ami.open).into_iter().enumerate().map(answer).collect()
    }

    /// The daemon is gone; what it had written may still be read, and all of it if it said goodbye.
    pub fn abandon(&mut self, conn: Conn, goodbye: bool) {
        let under_way = self.links[conn].under_way;
        let linger = if goodbye { under_way } else { self.dice.index(under_way + 1) };
        let link = &mut self.links[conn];
        if link.alive {
            (link.alive, link.linger) = (false, linger);
            let host = link.host;
            self.hosts[host].conns.retain(|other| *other != conn);
        }
    }
}

pub fn success() -> Answer {
    Answer::Success(Message::new("Response: Success\r\n"))
}

pub fn error(message: &str) -> Answer {
    Answer::Error { message: message.to_owned(), raw: Message::new("Response: Error\r\n") }
}
