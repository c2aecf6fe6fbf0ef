//! What is going to happen, by time. Owns the order of things: the earlier first, and of two at the same moment the one
//! that was put in first. Must never know what an event does.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use evenring::ami::outcome::{Answer, Tag};
use evenring::ids::SessionId;
use evenring::registry::Order;

use super::asterisk::{Said, Turn};
use super::faults::Fault;
use super::model::rules::Wish;
use super::model::world::Ms;
use super::store::{Call, Reply};
use super::wire::Wire;

/// A daemon's life, from its start to its end: an index that is never used again.
pub type Life = usize;
/// An AMI connection: an index that is never used again.
pub type Conn = usize;

/// The two tasks of a daemon that talk to Redis, each on a connection of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mouth {
    Writer,
    Fetcher,
}

/// What a daemon is told.
#[derive(Debug)]
pub enum Ear {
    Timer,
    Beat,
    Retry,
    /// The fetcher subscribes (again).
    Listen,
    /// The safety poll of this subscription.
    Poll(u32),
    Wake,
    /// The subscription is over.
    Deaf,
    Connect,
    Said(Conn, Said),
    Answer(Conn, Tag, Answer),
    /// An action that never left the daemon.
    NotSent(Tag),
    /// The connection is over; `gone`: Asterisk said why.
    Dropped(Conn, bool),
    /// A connection could not be made.
    NoConnection {
        gone: bool,
    },
    /// With the moment at which Redis was asked.
    Order(Order, Ms),
    /// The answer of Redis, or none.
    Reply(Mouth, u32, Option<Reply>),
    Terminate,
    /// A stopping daemon has had its last order, or has waited long enough for it.
    LastOrderCame,
    LastWordsOver,
}

/// A request on its way to Redis.
#[derive(Debug)]
pub struct Ask {
    pub life: Life,
    pub mouth: Mouth,
    pub number: u32,
    pub asked_at: Ms,
    /// The asker has given up: whatever Redis answers is lost.
    pub orphan: bool,
    pub call: Call,
}

#[derive(Debug)]
pub enum Event {
    Ask(Box<Ask>),
    Hears(Life, Ear),
    ToAsterisk(Conn, Wire),
    /// A call goes on: host, session, number of the call.
    Call(usize, SessionId, u32, Turn),
    /// Asterisk says something later: host and its life.
    Say(usize, u32, Said),
    AsteriskStarts(usize, u32),
    AsteriskBooted(usize, u32),
    AsteriskExits(usize, u32),
    DaemonStarts(usize),
    Thaws(Life),
    Login,
    Again(Box<Wish>, SessionId),
    /// Everybody logs in again.
    Callers,
    Logout,
    Register(usize, usize),
    Fault,
    /// At a moment when it hurts.
    Strike(Fault, usize),
    Over(Fault, usize),
    Phase,
}

#[derive(Debug)]
struct Entry {
    at: Ms,
    number: u64,
    event: Event,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

#[derive(Debug, Default)]
pub struct Agenda {
    heap: BinaryHeap<Entry>,
    number: u64,
}

impl Agenda {
    pub fn put(&mut self, at: Ms, event: Event) {
        self.number += 1;
        self.heap.push(Entry { at, number: self.number, event });
    }

    pub fn take(&mut self) -> Option<(Ms, Event)> {
        self.heap.pop().map(|entry| (entry.at, entry.event))
    }
}
