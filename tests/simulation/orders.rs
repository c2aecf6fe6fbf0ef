//! The task that fetches a node's orders: wake-ups, the safety poll for those that were lost, one `take` after the other.
//! Stands for `src/daemon/order_fetcher.rs`, without the shared inbox. Must never ring anybody: orders go to the loop.

use evenring::registry::{FetchSequence, Order};

use super::Sim;
use super::agenda::{Ear, Event, Mouth};
use super::daemon::Daemon;
use super::model::world::Ms;
use super::store::{Call, Reply};

const RETRY: Ms = 250;
const POLL: Ms = 1_000;
const TAKE_MOST: usize = 64;

#[derive(Debug, Default)]
pub struct Fetcher {
    /// Told that the node is registered.
    open: bool,
    listening: bool,
    /// The daemon stops: after the `take` that is under way it ends.
    closed: bool,
    /// Which subscription it is.
    subscription: u32,
    fetching: bool,
    /// Called while it was fetching.
    called: bool,
    number: u32,
    fetches: FetchSequence,
    /// When the `take` that is under way was asked for.
    asked: Ms,
    /// When the last order reaches the loop: they stay in order.
    pub told_at: Ms,
}

impl Sim {
    /// The daemon stops. True: no `take` is under way, and nothing more comes.
    pub fn close_orders(&mut self, d: &mut Daemon) -> bool {
        d.fetcher.listening = false;
        d.fetcher.closed = true;
        !d.fetcher.fetching
    }

    /// The node is registered: orders may be fetched.
    pub fn open_orders(&mut self, d: &mut Daemon) {
        if !std::mem::replace(&mut d.fetcher.open, true) {
            self.agenda.put(self.now, Event::Hears(d.life, Ear::Listen));
        }
    }

    pub fn fetcher_hears(&mut self, d: &mut Daemon, ear: &Ear) -> bool {
        match ear {
            Ear::Listen if self.store.up => {
                d.fetcher.listening = true;
                d.fetcher.subscription += 1;
                let at = self.now + self.dice.upto(3);
                self.agenda.put(at, Event::Hears(d.life, Ear::Poll(d.fetcher.subscription)));
            }
            Ear::Listen => self.agenda.put(self.now + RETRY, Event::Hears(d.life, Ear::Listen)),
            Ear::Poll(subscription) => {
                if *subscription != d.fetcher.subscription || !d.fetcher.listening {
                    return false;
                }
                self.agenda.put(self.now + POLL, Event::Hears(d.life, Ear::Poll(*subscription)));
                self.fetch(d);
            }
            Ear::Deaf if d.fetcher.listening => {
                d.fetcher.listening = false;
                self.agenda.put(self.now + RETRY, Event::Hears(d.life, Ear::Listen));
            }
            Ear::Wake if d.fetcher.listening => self.fetch(d),
            _ => return false,
        }
        true
    }

    fn fetch(&mut self, d: &mut Daemon) {
        if std::mem::replace(&mut d.fetcher.fetching, true) {
            d.fetcher.called = true;
            return;
        }
        d.fetcher.number += 1;
        let number = d.fetcher.number;
        d.fetcher.asked = self.now;
        let asked = d.fetcher.fetches.ask();
        self.ask(d, Mouth::Fetcher, number, Call::Fetch(asked));
    }

    /// The answer to a `take`.
    pub fn fetched(&mut self, d: &mut Daemon, number: u32, reply: Option<Reply>) -> bool {
        if number != d.fetcher.number {
            return false;
        }
        d.fetcher.fetching = false;
        // The heartbeat comes first; the poll looks again.
        if matches!(reply, Some(Reply::NotNow)) && !d.fetcher.closed {
            return true;
        }
        let Some(Reply::Taken(orders)) = reply else {
            d.fetcher.listening = false;
            if d.fetcher.closed {
                self.agenda.put(self.now, Event::Hears(d.life, Ear::LastOrderCame));
            } else {
                self.agenda.put(self.now + RETRY, Event::Hears(d.life, Ear::Listen));
            }
            return true;
        };
        d.fetcher.fetches.hear();
        if !orders.is_empty() {
            self.strike(d.host);
        }
        let again = orders.len() >= TAKE_MOST || std::mem::take(&mut d.fetcher.called);
        for order in orders.into_iter().filter(|order| matches!(order, Order::Ring(_) | Order::HangUp(_))) {
            d.fetcher.told_at = d.fetcher.told_at.max(self.now + self.dice.upto(1));
            self.agenda.put(d.fetcher.told_at, Event::Hears(d.life, Ear::Order(order, d.fetcher.asked)));
        }
        if d.fetcher.closed {
            let at = d.fetcher.told_at.max(self.now);
            self.agenda.put(at, Event::Hears(d.life, Ear::LastOrderCame));
        } else if again {
            self.fetch(d);
        }
        true
    }

    /// Redis publishes that these nodes have orders.
    pub fn wake(&mut self) {
        self.store.world.events.clear();
        for name in std::mem::take(&mut self.store.world.woken) {
            let Some(host) = self.hosts.iter().position(|host| host.name == name) else { continue };
            for life in self.hosts[host].lives.clone() {
                let lost = self.chaos() && self.dice.chance(self.setup.lost_wakeups);
                if !lost {
                    let at = self.now + self.dice.upto(2);
                    self.agenda.put(at, Event::Hears(life, Ear::Wake));
                }
            }
        }
    }
}
