//! What a daemon hears from AMI: events, answers, and the end of a connection. Stands for the words between
//! `src/ami_client/reconnect.rs` and the loop, and for the waits between connections. Must never know what they mean: `Node` does.

use std::time::Duration;

use evenring::ami::event::{Channel, ChannelState, Event as AmiEvent};
use evenring::ami::outcome::{Answer, NotSent, Tag, Unknown};
use evenring::ids::{ChannelId, Extension, Phone, Technology};
use evenring::node::Input;

use super::Sim;
use super::agenda::{Conn, Ear, Event};
use super::asterisk::Said;
use super::daemon::Daemon;
use super::model::world::Ms;

/// Waits of the AMI task: after a connection that was in use, and at most between others.
const FIRST_LOOK: Ms = 20;
const MOST: Ms = 5_000;
/// What could not be read is known after this: a question every 5 s, and another one 2 s later.
const REPAIRED_WITHIN: Ms = 9_000;

fn phone(number: usize) -> Phone {
    let extension: Extension = format!("e{number}").parse().expect("an extension");
    Phone { technology: Technology::Pjsip, extension }
}

impl Sim {
    pub fn heard_event(&mut self, d: &mut Daemon, conn: Conn, said: &Said) -> bool {
        if d.ami.conn != Some(conn) {
            return false;
        }
        if self.chaos()
            && matches!(said, Said::HungUp(_, ChannelState::Up, _) | Said::Device(..))
            && self.dice.chance(300)
        {
            // The daemon asks, and what it sees twice it repairs.
            self.late_until = self.late_until.max(self.now + REPAIRED_WITHIN);
            self.trace(|| format!("ami: daemon {} cannot read {said:?}", d.life));
            d.tell(Input::Gap, self.now);
            return true;
        }
        let unique = match said {
            Said::New(id)
            | Said::State(id, _)
            | Said::HangsUp(id)
            | Said::HungUp(id, ..)
            | Said::Response { id, .. } => ChannelId(*id).to_string(),
            _ => String::new(),
        };
        let channel = |state| Channel { unique: unique.as_bytes(), name: b"PJSIP/x-00000001", state };
        let event = match said {
            Said::Booted(uptime) => {
                d.ami.up = true;
                d.ami.backoff.reset();
                AmiEvent::FullyBooted { uptime: u64::try_from(*uptime).ok().map(Duration::from_secs) }
            }
            Said::ShuttingDown => {
                d.tell(Input::ShuttingDown(true), self.now);
                return true;
            }
            Said::Shutdown => AmiEvent::Shutdown { restart: false },
            Said::Reload => AmiEvent::Reload { module: b"All" },
            Said::New(_) => AmiEvent::Newchannel(channel(ChannelState::Down)),
            Said::State(_, state) => AmiEvent::Newstate(channel(*state)),
            Said::HangsUp(_) => AmiEvent::HangupRequest { unique: unique.as_bytes() },
            Said::HungUp(_, state, cause) => AmiEvent::Hangup { channel: channel(*state), cause: *cause },
            Said::Response { action_id, ok, reason, .. } => AmiEvent::OriginateResponse {
                action_id: Some(action_id.as_bytes()),
                ok: *ok,
                reason: *reason,
                unique: unique.as_bytes(),
            },
            Said::Device(number, state) => AmiEvent::DeviceState { phone: phone(*number), state: *state },
            Said::Peer(number, status) => AmiEvent::PeerStatus { phone: phone(*number), status: *status },
            Said::Contact(number, status) => {
                AmiEvent::ContactStatus { phone: phone(*number), status: *status, uri: b"sip:x" }
            }
        };
        d.tell(Input::Event(event), self.now);
        true
    }

    pub fn answered(&mut self, d: &mut Daemon, conn: Conn, tag: Tag, answer: Answer) -> bool {
        let place = d.ami.open.iter().position(|open| *open == tag);
        let Some(at) = place.filter(|_| d.ami.conn == Some(conn)) else { return false };
        d.ami.open.remove(at);
        let answer = self.planted(answer);
        d.tell(Input::Answer(tag, answer), self.now);
        true
    }

    /// Planted: what may have been carried out counts as not sent, so that it is sent again.
    fn planted(&self, answer: Answer) -> Answer {
        match answer {
            Answer::Unknown(Unknown::Closed | Unknown::Deadline { .. }) if self.setup.resend => {
                Answer::NotSent(NotSent::Closed)
            }
            other => other,
        }
    }

    pub fn dropped(&mut self, d: &mut Daemon, conn: Conn, gone: bool) -> bool {
        if d.ami.conn != Some(conn) {
            return false;
        }
        for (tag, answer) in self.last_answers(d, conn) {
            let answer = self.planted(answer);
            d.tell(Input::Answer(tag, answer), self.now);
            self.carry_out(d);
        }
        let was_up = d.ami.up;
        (d.ami.conn, d.ami.up) = (None, false);
        d.tell(Input::Closed { gone }, self.now);
        let wait = if was_up { FIRST_LOOK } else { self.backoff(d) };
        self.agenda.put(self.now + wait, Event::Hears(d.life, Ear::Connect));
        true
    }

    pub fn closed(&mut self, d: &mut Daemon, gone: bool) {
        d.tell(Input::Closed { gone }, self.now);
        let wait = self.backoff(d);
        self.agenda.put(self.now + wait, Event::Hears(d.life, Ear::Connect));
    }

    fn backoff(&mut self, d: &mut Daemon) -> Ms {
        let wait = d.ami.backoff.next_wait(self.dice.next());
        i64::try_from(wait.as_millis()).unwrap_or(MOST)
    }
}
