//! The task that keeps a connection to Asterisk: connects, lets it run, waits, connects again. Owns that wait, and the log
//! lines about it. Must never read or write the socket: the connection does.

use std::io;
use std::time::Duration;

use tokio::sync::mpsc;
use tracing::warn;

use super::connection::{Connection, End};
use super::socket::connect;
use super::{Ami, FromAmi, PeerStatus, Renewed, ToAmi};
use crate::ami::outcome::{Answer, NotSent};
use crate::ids::Now;
use crate::runtime::backoff::{Ended, Retry};
use crate::runtime::log_throttle::LogThrottle;
use crate::runtime::random::random_bits;

impl Renewed {
    /// Waits until the settings were read again; for ever if they never are.
    async fn changed(renewed: Option<&mut Self>) {
        let heard = match renewed {
            Some(renewed) => renewed.live_settings.changed().await.is_ok(),
            None => false,
        };
        if !heard {
            std::future::pending().await
        }
    }
}

/// What a wait between two connections ended with.
#[derive(Debug, PartialEq, Eq)]
enum Pause {
    Over,
    Renewed,
    Stop,
}

impl Ami {
    /// Keeps a connection until told to stop.
    pub async fn run(mut self, mut orders: mpsc::Receiver<ToAmi>, told: mpsc::Sender<FromAmi>) {
        let mut retry = Retry::START;
        let mut throttle = LogThrottle::default();
        loop {
            self.take_over();
            let mut up = None;
            let closed = match connect(&self.settings).await {
                Ok(stream) => match Connection::new(&self, stream).run(&mut orders, &told, &mut up).await {
                    End::Stop => return,
                    End::Closed(reason) => FromAmi::Closed {
                        peer: PeerStatus::of(&reason),
                        reason: reason.to_string(),
                        needs_people: reason.needs_people(),
                    },
                },
                Err(error) => no_connection(&error),
            };
            let ended = self.ended(up, &closed);
            let wait = retry.next_wait(ended, random_bits());
            if up.is_some() {
                throttle.clear();
            }
            self.complain(&closed, retry.waits_for_people(), &mut throttle);
            if told.send(closed).await.is_err() {
                return;
            }
            self.link.connection = self.link.connection.wrapping_add(1);
            match self.pause(wait, &mut orders, &told).await {
                Pause::Over => {}
                Pause::Renewed => retry = Retry::START,
                Pause::Stop => return,
            }
        }
    }

    /// How it ended: when Asterisk was booted, and what was found at the end.
    fn ended(&self, up: Option<Now>, closed: &FromAmi) -> Ended {
        match (up, closed) {
            (Some(since), _) => Ended::Up(self.clock.now().since(since)),
            (None, FromAmi::Closed { needs_people: true, .. }) => Ended::NeedsPeople,
            (None, _) => Ended::Failed,
        }
    }

    fn complain(&self, closed: &FromAmi, waits: bool, throttle: &mut LogThrottle) {
        let (node, user, address) = (&self.node, self.user, &self.settings.address);
        let FromAmi::Closed { reason, .. } = closed else { return };
        let key = if waits { format!("{reason}, waiting") } else { reason.clone() };
        let Some(suppressed) = throttle.allow(&key, self.clock.now()) else { return };
        if waits {
            warn!(%node, user, %address, reason, suppressed, "AMI unavailable, needs attention: retrying every five \
                minutes, and at once after a reload");
        } else {
            warn!(%node, user, %address, reason, suppressed, "AMI unavailable: reconnecting");
        }
    }

    /// Applies the settings in effect to the next connection.
    fn take_over(&mut self) {
        let Some(renewed) = &mut self.renewed else { return };
        let live_settings = renewed.live_settings.borrow_and_update();
        self.settings = live_settings.ami.clone();
        if let Some(login) = (renewed.login)(&live_settings) {
            (self.link.username, self.link.secret) = (login.username, login.secret);
        }
        let (link, ami) = (&mut self.link, &self.settings);
        (link.ping_interval, link.ping_timeout) = (ami.ping_interval, ami.ping_timeout);
        (link.login_timeout, link.action_timeout) = (ami.login_timeout, ami.action_timeout);
    }

    /// Waits; meanwhile answers every action with `NotSent`.
    async fn pause(
        &mut self,
        wait: Duration,
        orders: &mut mpsc::Receiver<ToAmi>,
        told: &mpsc::Sender<FromAmi>,
    ) -> Pause {
        let until = self.clock.now().after(wait);
        loop {
            tokio::select! {
                () = self.clock.sleep_until(Some(until)) => return Pause::Over,
                () = Renewed::changed(self.renewed.as_mut()) => return Pause::Renewed,
                order = orders.recv() => match order {
                    Some(ToAmi::Send(tag, _, _)) => {
                        if told.send(FromAmi::Answer(tag, Answer::NotSent(NotSent::Closed))).await.is_err() {
                            return Pause::Stop;
                        }
                    }
                    Some(ToAmi::Logoff) | None => return Pause::Stop,
                },
            }
        }
    }
}

fn no_connection(error: &io::Error) -> FromAmi {
    let peer = if error.kind() == io::ErrorKind::ConnectionRefused {
        PeerStatus::Refused
    } else if error.kind() == io::ErrorKind::TimedOut {
        PeerStatus::Unresponsive
    } else {
        PeerStatus::Responding
    };
    let hint = match peer {
        PeerStatus::Refused => "check that Asterisk is running, with enabled = yes in manager.conf",
        PeerStatus::Unresponsive | PeerStatus::Responding => "check ami.address, ca_file and server_name",
    };
    let reason = format!("cannot connect to Asterisk: {error}; {hint}");
    // A certificate that does not match or cannot be read, or an invalid host name.
    let needs_people = matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::Other);
    FromAmi::Closed { peer, reason, needs_people }
}
