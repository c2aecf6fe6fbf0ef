//! One connection of the AMI task, from greeting to end. Owns its buffers and its flow control. Must never decide what a
//! message means: `ami::link` does.
//!
//! Reading never waits for writing: both are arms of one select, and outgoing bytes wait in a buffer. Messages that the
//! owner's channel cannot take wait here, and meanwhile nothing is read: TCP slows Asterisk down, and nothing is lost.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::Ordering::Relaxed;

use bytes::{Buf, BytesMut};
use futures_util::FutureExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio_util::codec::{Decoder, Encoder};
use tracing::{debug, info, warn};

use super::codec::{AmiCodec, CodecError};
use super::socket::Stream;
use super::{Ami, FromAmi, ToAmi};
use crate::ami::link::Link;
use crate::ami::outcome::{Answer, CloseReason, LinkEffect, NotSent};
use crate::ids::Now;

/// Bytes that may wait for the socket; with more, actions are refused. Asterisk reads at once, unless it hangs.
const UNSENT_MOST: usize = 1 << 20;
/// Room for what is read in one step, in bytes.
const READ_BYTES: usize = 64 << 10;
/// With less room than this, more is made, in bytes.
const READ_LEAST: usize = 16 << 10;
/// Actions taken in one step, so that they are written together.
const ORDERS_AT_ONCE: usize = 64;

/// Messages that may wait for the owner; with more, no action is taken from it.
const HELD_MOST: usize = 4096;

/// How a connection ended.
pub(super) enum End {
    Closed(CloseReason),
    /// Asked for by the owner, or the owner is gone.
    Stop,
}

/// The owner is gone.
struct Gone;

/// One connection.
pub(super) struct Connection<'a> {
    ami: &'a Ami,
    link: Link,
    codec: AmiCodec,
    /// What was read and is not cut into messages yet.
    read: BytesMut,
    /// The previous buffer, reused when no message refers to it any more.
    spare: BytesMut,
    /// The last read filled its room: more is waiting.
    backlog: bool,
    unsent: BytesMut,
    /// Something was written, but may still wait inside of TLS.
    unflushed: bool,
    /// Messages that the owner's channel could not take, the oldest first.
    held: VecDeque<FromAmi>,
    /// The owner asked for the end.
    stopping: bool,
    /// Since when Asterisk is known to be booted.
    up: Option<Now>,
    over: Option<CloseReason>,
    /// Of the events that were left out, those that are counted already.
    skipped: u64,
    reader: ReadHalf<Box<dyn Stream>>,
    writer: WriteHalf<Box<dyn Stream>>,
}

impl<'a> Connection<'a> {
    pub(super) fn new(ami: &'a Ami, stream: Box<dyn Stream>) -> Self {
        let (reader, writer) = tokio::io::split(stream);
        Self {
            ami,
            link: Link::new(ami.link.clone(), ami.clock.now()),
            codec: AmiCodec::new(ami.limits).only(ami.wanted),
            read: BytesMut::with_capacity(READ_BYTES),
            spare: BytesMut::new(),
            backlog: false,
            unsent: BytesMut::new(),
            unflushed: false,
            held: VecDeque::new(),
            stopping: false,
            up: None,
            over: None,
            skipped: 0,
            reader,
            writer,
        }
    }

    /// Talks to the end. Sets `up` to when Asterisk was booted.
    pub(super) async fn run(
        mut self,
        orders: &mut mpsc::Receiver<ToAmi>,
        told: &mpsc::Sender<FromAmi>,
        up: &mut Option<Now>,
    ) -> End {
        let end = self.connection(orders, told).await.unwrap_or(End::Stop);
        *up = self.up;
        end
    }

    async fn connection(
        &mut self,
        orders: &mut mpsc::Receiver<ToAmi>,
        told: &mpsc::Sender<FromAmi>,
    ) -> Result<End, Gone> {
        let clock = self.ami.clock;
        let mut alarm = clock.alarm();
        loop {
            self.work_off(told)?;
            if let Some(reason) = self.over.take() {
                return self.end(reason, told).await;
            }
            if std::mem::take(&mut self.backlog) {
                // The owner first: it finds its messages while they are fresh, and gives their buffer back.
                tokio::task::yield_now().await;
            }
            let deadline = self.link.next_deadline();
            let may_read = self.held.is_empty();
            self.make_room();
            tokio::select! {
                got = self.reader.read_buf(&mut self.read), if may_read => self.was_read(got),
                room = told.reserve(), if !may_read => {
                    let permit = room.map_err(|_| Gone)?;
                    if let Some(message) = self.held.pop_front() {
                        permit.send(message);
                    }
                }
                wrote = write(&mut self.writer, &self.unsent), if !self.unsent.is_empty() || self.unflushed => {
                    self.was_written(wrote);
                }
                order = orders.recv(), if !self.stopping && self.held.len() < HELD_MOST => self.take_orders(order, orders),
                () = alarm.ring(deadline) => {
                    let now = clock.now();
                    if !may_read {
                        self.link.kept_waiting(now);
                    }
                    self.link.timer(now);
                }
            }
        }
    }

    /// Does everything that is possible without waiting.
    fn work_off(&mut self, told: &mpsc::Sender<FromAmi>) -> Result<(), Gone> {
        let was_held = !self.held.is_empty();
        while let Some(message) = self.held.pop_front() {
            if let Some(message) = offer(told, message)? {
                self.held.push_front(message);
                self.carry_out(told)?;
                return Ok(());
            }
        }
        if was_held {
            // What came meanwhile is still to be read: nobody is late yet.
            self.link.kept_waiting(self.ami.clock.now());
        }
        self.carry_out(told)?;
        let now = self.ami.clock.now();
        while self.held.is_empty() && self.over.is_none() {
            match self.codec.decode(&mut self.read) {
                Ok(Some(item)) => {
                    self.link.received(item, now);
                    self.carry_out(told)?;
                }
                Ok(None) => break,
                Err(CodecError::Frame(error)) => {
                    self.ami.counts.unreadable.fetch_add(1, Relaxed);
                    self.link.unreadable(error);
                    self.carry_out(told)?;
                }
                Err(CodecError::Io(error)) => self.lost(&error),
            }
        }
        if let Some(trip) = self.link.round_trip() {
            self.ami.counts.ping_us.store(u64::try_from(trip.as_micros()).unwrap_or(u64::MAX).max(1), Relaxed);
        }
        let skipped = self.codec.skipped();
        self.ami.counts.skipped.fetch_add(skipped - self.skipped, Relaxed);
        self.skipped = skipped;
        if !self.held.is_empty() {
            self.ami.counts.held.fetch_add(1, Relaxed);
        }
        Ok(())
    }

    /// Carries out the link's effects. Messages to the owner stay in order, behind the held ones.
    fn carry_out(&mut self, told: &mpsc::Sender<FromAmi>) -> Result<(), Gone> {
        while let Some(effect) = self.link.next_effect() {
            let Some(message) = self.effect(effect) else { continue };
            let refused = if self.held.is_empty() { offer(told, message)? } else { Some(message) };
            self.held.extend(refused);
        }
        Ok(())
    }

    /// Carries out one effect; returns the message for the owner, if any.
    fn effect(&mut self, effect: LinkEffect) -> Option<FromAmi> {
        let (node, user) = (&self.ami.node, self.ami.user);
        match effect {
            LinkEffect::ShuttingDown(is) => return Some(FromAmi::ShuttingDown(is)),
            LinkEffect::Event(message) => return Some(FromAmi::Event(message)),
            LinkEffect::Answer { tag, answer } => return Some(FromAmi::Answer(tag, answer)),
            LinkEffect::Write(bytes) => {
                if let Err(error) = self.codec.encode(bytes, &mut self.unsent) {
                    self.lost(&error);
                }
            }
            LinkEffect::LoggedIn { version } => {
                self.ami.counts.logins.fetch_add(1, Relaxed);
                info!(%node, user, address = %self.ami.settings.address, version, "AMI logged in");
                return Some(FromAmi::LoggedIn(version));
            }
            LinkEffect::Booted => {
                self.up = self.up.or(Some(self.ami.clock.now()));
                debug!(%node, user, "Asterisk is fully booted");
            }
            LinkEffect::Stalled => {
                warn!(%node, user, "logged in, but no FullyBooted event: Asterisk is still loading, or the user lacks \
                    read = system");
            }
            LinkEffect::Close(reason) => self.over = Some(reason),
        }
        None
    }

    /// Makes room for the next read. Messages share the buffer they came in, so a full one cannot be used again before they
    /// are dropped: two buffers take turns, and in the long run nothing is allocated.
    fn make_room(&mut self) {
        let length = self.read.len();
        if self.read.capacity() - length >= READ_LEAST
            || self.read.try_reclaim(READ_BYTES.saturating_sub(length).max(READ_LEAST))
        {
            return;
        }
        if length > READ_BYTES / 2 {
            return self.read.reserve(length);
        }
        if !self.spare.try_reclaim(READ_BYTES) {
            self.spare = BytesMut::with_capacity(READ_BYTES);
        }
        self.spare.extend_from_slice(&self.read);
        std::mem::swap(&mut self.read, &mut self.spare);
        self.spare.clear();
    }

    fn was_read(&mut self, got: io::Result<usize>) {
        match got {
            Ok(count) if count > 0 => {
                self.ami.counts.bytes.fetch_add(u64::try_from(count).unwrap_or(u64::MAX), Relaxed);
                self.backlog = self.read.len() == self.read.capacity();
                if self.backlog {
                    // The answer to a ping may be behind it.
                    self.link.kept_waiting(self.ami.clock.now());
                }
            }
            Ok(_) => self.link.closed(self.ami.clock.now()),
            Err(error) => self.lost(&error),
        }
    }

    fn was_written(&mut self, wrote: io::Result<Wrote>) {
        match wrote {
            Ok(Wrote { count, flushed }) if count > 0 || flushed => {
                self.unsent.advance(count);
                self.unflushed = !flushed;
                self.link.written(count);
            }
            Ok(Wrote { .. }) => self.link.closed(self.ami.clock.now()),
            Err(error) => self.lost(&error),
        }
    }

    fn lost(&mut self, error: &io::Error) {
        debug!(node = %self.ami.node, %error, "the AMI socket failed");
        self.link.closed(self.ami.clock.now());
    }

    /// Takes the order that came and those queued behind it, so that they are written together.
    fn take_orders(&mut self, first: Option<ToAmi>, orders: &mut mpsc::Receiver<ToAmi>) {
        self.take_order(first);
        for _ in 1..ORDERS_AT_ONCE {
            if self.stopping {
                return;
            }
            match orders.try_recv() {
                Ok(order) => self.take_order(Some(order)),
                Err(_) => return,
            }
        }
    }

    fn take_order(&mut self, order: Option<ToAmi>) {
        let now = self.ami.clock.now();
        match order {
            Some(ToAmi::Send(tag, _, _)) if self.unsent.len() > UNSENT_MOST => {
                let answer = Answer::NotSent(NotSent::Clogged { waiting_bytes: self.unsent.len() });
                self.held.push_back(FromAmi::Answer(tag, answer));
            }
            Some(ToAmi::Send(tag, None, action)) => self.link.send(tag, action, now),
            Some(ToAmi::Send(tag, Some(id), action)) => self.link.send_with_id(tag, &id, action, now),
            Some(ToAmi::Logoff) | None => {
                self.stopping = true;
                self.link.logoff(now);
            }
        }
        while let Some(effect) = self.link.next_effect() {
            let message = self.effect(effect);
            self.held.extend(message);
        }
    }

    /// Tells the owner what is left: each action has its answer, and then the end.
    async fn end(&mut self, reason: CloseReason, told: &mpsc::Sender<FromAmi>) -> Result<End, Gone> {
        while let Some(message) = self.held.pop_front() {
            told.send(message).await.map_err(|_| Gone)?;
        }
        let counts = &self.ami.counts;
        let strays = self.link.strays();
        counts.strays.fetch_add(strays.unaddressed + strays.foreign + strays.late + strays.unreadable, Relaxed);
        if matches!(reason, CloseReason::PingTimeout { .. }) {
            counts.silent.fetch_add(1, Relaxed);
        }
        Ok(if self.stopping { End::Stop } else { End::Closed(reason) })
    }
}

/// What a write did.
struct Wrote {
    count: usize,
    /// Nothing of it waits inside of TLS.
    flushed: bool,
}

/// Writes what there is, or flushes when there is nothing left. Never waits after something was written: that would be
/// forgotten if the wait was given up.
async fn write(writer: &mut WriteHalf<Box<dyn Stream>>, unsent: &[u8]) -> io::Result<Wrote> {
    if unsent.is_empty() {
        writer.flush().await?;
        return Ok(Wrote { count: 0, flushed: true });
    }
    let count = writer.write(unsent).await?;
    let flushed = count == unsent.len() && matches!(writer.flush().now_or_never(), Some(Ok(())));
    Ok(Wrote { count, flushed })
}

/// Hands a message to the owner; gives it back if there is no room.
fn offer(told: &mpsc::Sender<FromAmi>, message: FromAmi) -> Result<Option<FromAmi>, Gone> {
    match told.try_send(message) {
        Ok(()) => Ok(None),
        Err(TrySendError::Full(message)) => Ok(Some(message)),
        Err(TrySendError::Closed(_)) => Err(Gone),
    }
}
