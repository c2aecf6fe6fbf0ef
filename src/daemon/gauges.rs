//! The states that Prometheus sees, read at the moment somebody asks. Owns their names. Must never keep one: they are the
//! node loop's (`vitals`) and the AMI task's counts.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;
use tokio::sync::watch;

use super::ami::Counts;
use super::clock::Clock;
use super::reload::InForce;
use super::vitals::{Booked, Vitals};
use crate::node::left_out::Why;
use crate::node::roster::PhoneState;

/// Where the states are.
#[derive(Debug)]
pub(super) struct Gauges {
    pub(super) vitals: watch::Receiver<Vitals>,
    pub(super) ami: Arc<Counts>,
    pub(super) clock: Clock,
    pub(super) lease: Duration,
    pub(super) settings: watch::Receiver<InForce>,
    pub(super) log_dropped: Arc<AtomicU64>,
}

/// The words of `evenring status` for a node that runs.
const STATES: [&str; 4] = ["active", "starting", "down", "draining"];
const PHONES: [PhoneState; 3] = [PhoneState::Registered, PhoneState::Unreachable, PhoneState::Unregistered];

/// Writes one metric after the other.
struct Pen<'a>(DescriptorEncoder<'a>);

/// A value with its label; none of both is no line.
type Sample<'a> = (&'a [(&'static str, &'static str)], f64);

impl Pen<'_> {
    fn write(&mut self, kind: MetricType, name: &str, help: &str, samples: &[Sample<'_>]) -> fmt::Result {
        let help = format!("{help}.");
        let mut family = self.0.encode_descriptor(name, &help, None, kind)?;
        for (labels, value) in samples {
            match labels {
                [] => family.encode_gauge(value)?,
                labels => family.encode_family(labels)?.encode_gauge(value)?,
            }
        }
        Ok(())
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        self.write(MetricType::Gauge, name, help, &[(&[], value)])
    }

    fn total(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.write(MetricType::Counter, name, help, &[(&[], real(value))])
    }

    fn gauges<'s>(&mut self, name: &str, help: &str, samples: impl Iterator<Item = Sample<'s>>) -> fmt::Result {
        self.write(MetricType::Gauge, name, help, &samples.collect::<Vec<_>>())
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52, and Prometheus has no other numbers")]
fn real(count: u64) -> f64 {
    count as f64
}

fn size(count: usize) -> f64 {
    real(u64::try_from(count).unwrap_or(u64::MAX))
}

fn truth(flag: bool) -> f64 {
    f64::from(u8::from(flag))
}

impl Collector for Gauges {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let pen = &mut Pen(encoder);
        let vitals = self.vitals.borrow().clone();
        let version: &[_] = &[("version", env!("CARGO_PKG_VERSION"))];
        pen.gauges("build_info", "Which program this is; always 1", [(version, 1.0)].into_iter())?;
        let dropped = "Log lines that nobody took in time, or that could not be written: dropped";
        pen.total("log_lines_dropped_total", dropped, self.log_dropped.load(Relaxed))?;
        self.asterisk(pen, &vitals)?;
        self.node(pen, &vitals)?;
        people(pen, &vitals)?;
        books(pen, &vitals.booked)
    }
}

impl Gauges {
    fn asterisk(&self, pen: &mut Pen<'_>, vitals: &Vitals) -> fmt::Result {
        let count = |count: &AtomicU64| count.load(Relaxed);
        let ami = &self.ami;
        pen.gauge("ami_connected", "1 if AMI is logged in", truth(vitals.connected))?;
        let reconnects = count(&ami.logins).saturating_sub(1);
        pen.total("ami_reconnects_total", "Logins at AMI after the first one", reconnects)?;
        if let Some(heard) = vitals.heard {
            let at = self.clock.unix_seconds(heard);
            pen.gauge("ami_last_event_timestamp_seconds", "When AMI sent the last event that is wanted", at)?;
        }
        let trip = count(&ami.ping_us);
        if trip > 0 {
            let trip = Duration::from_micros(trip).as_secs_f64();
            pen.gauge("ami_ping_rtt_seconds", "How long the last ping of AMI took", trip)?;
        }
        pen.total("ami_received_bytes_total", "Bytes read from AMI", count(&ami.bytes))?;
        let skipped = "Events that nobody here wants, left out unread";
        pen.total("ami_events_skipped_total", skipped, count(&ami.skipped))?;
        let strays = "Messages of AMI that belonged to nobody: dropped";
        pen.total("ami_strays_total", strays, count(&ami.strays))?;
        let holds = "Times that AMI was not read because the node loop had no room";
        pen.total("ami_holds_total", holds, count(&ami.held))?;
        let lost: [Sample<'_>; 2] = [
            (&[("reason", "unreadable")], real(count(&ami.unreadable))),
            (&[("reason", "silent")], real(count(&ami.silent))),
        ];
        let help = "Connections given up because what came is no AMI, or a ping was not answered";
        pen.write(MetricType::Counter, "ami_connections_given_up_total", help, &lost)
    }

    fn node(&self, pen: &mut Pen<'_>, vitals: &Vitals) -> fmt::Result {
        let (now, limits) = (self.clock.now(), self.settings.borrow().node.clone());
        let ready = vitals.missing(now, self.lease).is_empty();
        pen.gauge("node_ready", "1 if /readyz says so", truth(ready))?;
        let state = vitals.state_word();
        let states = STATES.map(|word| ([("state", word)], truth(word == state)));
        let states = states.iter().map(|(label, value)| (&label[..], *value));
        pen.gauges("node_state", "1 for the state that the node is in", states)?;
        pen.gauge("node_weight", "The node's share of the logins", limits.weight.into())?;
        if let Some(most) = limits.max_agents {
            pen.gauge("node_capacity", "Local agents at most; absent without a cap", most.into())?;
        }
        let load = size(vitals.tally.local()) / f64::from(limits.weight.max(1));
        pen.gauge("node_load", "Local agents that ring or are live, divided by the weight", load)?;
        pen.gauge("redis_up", "1 if Redis took the last that was written", truth(!vitals.redis_down))?;
        if let Some(beat) = vitals.beat {
            let age = now.since(beat).as_secs_f64();
            pen.gauge("heartbeat_age_seconds", "Since Redis took a heartbeat", age)?;
        }
        Ok(())
    }
}

fn people(pen: &mut Pen<'_>, vitals: &Vitals) -> fmt::Result {
    let tally = &vitals.tally;
    let agents = tally.agents.map(|(class, state, count)| ([("class", class), ("state", state)], size(count)));
    let agents = agents.iter().map(|(labels, count)| (&labels[..], *count));
    pen.gauges("agents", "Agents that ring or are live here", agents)?;
    let phones =
        PHONES.map(|state| ([("state", state.as_str())], size(tally.phones.get(&state).copied().unwrap_or_default())));
    let phones = phones.iter().map(|(label, count)| (&label[..], *count));
    pen.gauges("registrations", "Phones of this Asterisk by what they can do", phones)?;
    let count = |why| tally.left_out.iter().find(|(is, _)| *is == why).map_or(0, |(_, count)| *count);
    let left_out = Why::ALL.map(|why| ([("reason", why.as_str())], size(count(why))));
    let left_out = left_out.iter().map(|(label, count)| (&label[..], *count));
    pen.gauges("phones_left_out", "Phones with which nobody can log in here, by the reason", left_out)?;
    pen.gauge("channels", "Channels in this Asterisk, ours or not", size(tally.channels))?;
    let help = "Sessions that Redis and this node know differently at this moment; 0 when all is well";
    pen.gauge("count_drift", help, size(tally.disputed))
}

fn books(pen: &mut Pen<'_>, booked: &Booked) -> fmt::Result {
    pen.gauge("seats_reserved", "Logins placed here that have not been taken yet", size(booked.reserved))?;
    let queues = [("ring", booked.ring), ("logins", booked.logins)];
    let depth = queues.map(|(queue, backlog)| ([("queue", queue)], f64::from(backlog.depth)));
    let depth = depth.iter().map(|(label, value)| (&label[..], *value));
    pen.gauges("queue_depth", "Messages that wait: orders of this node, logins of the inbox", depth)?;
    let oldest = queues.map(|(queue, backlog)| ([("queue", queue)], backlog.oldest.as_secs_f64()));
    let oldest = oldest.iter().map(|(label, value)| (&label[..], *value));
    pen.gauges("queue_oldest_age_seconds", "How long the oldest of them has waited", oldest)?;
    let help = "What older daemons of this node said and Redis refused";
    pen.total("refused_generations_total", help, booked.refused)
}
