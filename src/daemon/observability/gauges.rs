//! The gauges for Prometheus, read at scrape time. Owns their names. Must never keep a state: the node loop (`status`) and
//! the AMI task do.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;
use tokio::sync::watch;

use super::doctor_report::DoctorReport;
use super::status::{DaemonStatus, RecordedCounts};
use crate::ami_client::Counts;
use crate::config::LiveSettings;
use crate::node::left_out::Why;
use crate::node::roster::PhoneState;
use crate::registry::view::ShownNodeState;
use crate::runtime::clock::Clock;

/// Sources of the gauges.
#[derive(Debug)]
pub(in crate::daemon) struct Gauges {
    pub(in crate::daemon) status: watch::Receiver<DaemonStatus>,
    pub(in crate::daemon) ami: Arc<Counts>,
    pub(in crate::daemon) clock: Clock,
    pub(in crate::daemon) lease: Duration,
    pub(in crate::daemon) settings: watch::Receiver<LiveSettings>,
    pub(in crate::daemon) log_dropped: Arc<AtomicU64>,
    /// Where `evenring doctor --report` leaves its report.
    pub(in crate::daemon) runtime_dir: PathBuf,
}

/// Writes one metric after the other.
struct Pen<'a>(DescriptorEncoder<'a>);

/// A value with its labels.
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
        let status = self.status.borrow().clone();
        let version: &[_] = &[("version", env!("CARGO_PKG_VERSION"))];
        pen.gauges("build_info", "Version of evenring; the value is always 1", [(version, 1.0)].into_iter())?;
        let dropped = "Log lines dropped because they were not read in time or could not be written";
        pen.total("log_lines_dropped_total", dropped, self.log_dropped.load(Relaxed))?;
        self.asterisk(pen, &status)?;
        self.node(pen, &status)?;
        people(pen, &status)?;
        in_redis(pen, &status.counts_in_redis)?;
        // A daemon that has not heard of them must not say 0: to Prometheus, the next number would be that many logins.
        if status.beat.is_some() {
            logins(pen, &status.counts_in_redis)?;
        }
        doctor(pen, DoctorReport::read(&self.runtime_dir))
    }
}

/// Every state that a daemon may be in, as `evenring status` shows it; 1 for the one that it is in.
fn states(now: ShownNodeState) -> Vec<([(&'static str, &'static str); 1], f64)> {
    let running = ShownNodeState::ALL.into_iter().filter(|state| state.is_running());
    running.map(|state| ([("state", state.as_str())], truth(state == now))).collect()
}

impl Gauges {
    fn asterisk(&self, pen: &mut Pen<'_>, status: &DaemonStatus) -> fmt::Result {
        let count = |count: &AtomicU64| count.load(Relaxed);
        let ami = &self.ami;
        pen.gauge("ami_connected", "1 if the daemon is logged in to AMI", truth(status.connected))?;
        let reconnects = count(&ami.logins).saturating_sub(1);
        pen.total("ami_reconnects_total", "Logins to AMI after the first one", reconnects)?;
        if let Some(heard) = status.heard {
            let at = self.clock.unix_seconds(heard);
            pen.gauge("ami_last_event_timestamp_seconds", "Time of the last AMI event that evenring uses", at)?;
        }
        let trip = count(&ami.ping_us);
        if trip > 0 {
            let trip = Duration::from_micros(trip).as_secs_f64();
            pen.gauge("ami_ping_rtt_seconds", "Round-trip time of the last AMI ping", trip)?;
        }
        pen.total("ami_received_bytes_total", "Bytes read from AMI", count(&ami.bytes))?;
        let skipped = "AMI events that evenring does not use, skipped without parsing";
        pen.total("ami_events_skipped_total", skipped, count(&ami.skipped))?;
        let strays = "AMI messages without a pending action, dropped";
        pen.total("ami_strays_total", strays, count(&ami.strays))?;
        let holds = "Times that reading from AMI paused because the node loop was busy";
        pen.total("ami_holds_total", holds, count(&ami.held))?;
        let lost: [Sample<'_>; 2] = [
            (&[("reason", "unreadable")], real(count(&ami.unreadable))),
            (&[("reason", "silent")], real(count(&ami.silent))),
        ];
        let help = "AMI connections closed because of unreadable data or an unanswered ping";
        pen.write(MetricType::Counter, "ami_connections_given_up_total", help, &lost)
    }

    fn node(&self, pen: &mut Pen<'_>, status: &DaemonStatus) -> fmt::Result {
        let (now, limits) = (self.clock.now(), self.settings.borrow().node.clone());
        let ready = status.missing(now, self.lease).is_empty();
        pen.gauge("node_ready", "1 if /readyz answers ready", truth(ready))?;
        let states = states(status.shown_state());
        let states = states.iter().map(|(label, value)| (&label[..], *value));
        pen.gauges("node_state", "1 for the current state of the node", states)?;
        pen.gauge("node_weight", "Weight of the node: its share of the logins", limits.weight.into())?;
        if let Some(most) = limits.max_agents {
            pen.gauge("node_capacity", "Maximum number of local agents; absent without a cap", most.into())?;
        }
        let load = size(status.counts.local()) / f64::from(limits.weight.max(1));
        pen.gauge("node_load", "Local agents that are ringing or live, divided by the weight", load)?;
        pen.gauge("redis_up", "1 if the last write to Redis succeeded", truth(!status.redis_down))?;
        if let Some(beat) = status.beat {
            let age = now.since(beat).as_secs_f64();
            pen.gauge("heartbeat_age_seconds", "Time since Redis accepted a heartbeat", age)?;
        }
        Ok(())
    }
}

fn people(pen: &mut Pen<'_>, status: &DaemonStatus) -> fmt::Result {
    let counts = &status.counts;
    let agents = counts.agents.map(|(class, state, count)| ([("class", class), ("state", state)], size(count)));
    let agents = agents.iter().map(|(labels, count)| (&labels[..], *count));
    pen.gauges("agents", "Agents that are ringing or live on this node", agents)?;
    let phones = PhoneState::ALL.into_iter().filter(|state| match state {
        PhoneState::Registered | PhoneState::Unreachable | PhoneState::Unregistered => true,
        // Asterisk has it no more.
        PhoneState::Unknown => false,
    });
    let phones = phones
        .map(|state| ([("state", state.as_str())], size(counts.phones.get(&state).copied().unwrap_or_default())))
        .collect::<Vec<_>>();
    let phones = phones.iter().map(|(label, count)| (&label[..], *count));
    pen.gauges("registrations", "Phones of this Asterisk by state", phones)?;
    let count = |why| counts.left_out.iter().find(|(is, _)| *is == why).map_or(0, |(_, count)| *count);
    let left_out = Why::ALL.map(|why| ([("reason", why.as_str())], size(count(why))));
    let left_out = left_out.iter().map(|(label, count)| (&label[..], *count));
    pen.gauges("phones_left_out", "Phones left out, with which agents cannot log in, by reason", left_out)?;
    pen.gauge("channels", "All channels in this Asterisk", size(counts.channels))?;
    let help = "Sessions about which Redis and this node disagree now; normally 0";
    pen.gauge("session_drift", help, size(counts.disputed))
}

fn in_redis(pen: &mut Pen<'_>, recorded: &RecordedCounts) -> fmt::Result {
    pen.gauge(
        "sessions_reserved",
        "Logins placed here whose orders have not been fetched yet",
        size(recorded.reserved),
    )?;
    let queues = [("ring", recorded.ring), ("logins", recorded.logins)];
    let depth = queues.map(|(queue, backlog)| ([("queue", queue)], f64::from(backlog.depth)));
    let depth = depth.iter().map(|(label, value)| (&label[..], *value));
    pen.gauges("queue_depth", "Waiting messages: orders of this node, logins in the inbox", depth)?;
    let oldest = queues.map(|(queue, backlog)| ([("queue", queue)], backlog.oldest.as_secs_f64()));
    let oldest = oldest.iter().map(|(label, value)| (&label[..], *value));
    pen.gauges("queue_oldest_age_seconds", "Age of the oldest waiting message", oldest)?;
    let help = "Writes of older daemons of this node that Redis refused";
    pen.total("refused_generations_total", help, recorded.refused)
}

fn logins(pen: &mut Pen<'_>, recorded: &RecordedCounts) -> fmt::Result {
    let over = &recorded.over;
    let mut write = |name, help, counts: &BTreeMap<&'static str, u64>| {
        let samples: Vec<_> = counts.iter().map(|(reason, count)| ([("reason", *reason)], real(*count))).collect();
        let samples: Vec<Sample<'_>> = samples.iter().map(|(labels, value)| (&labels[..], *value)).collect();
        pen.write(MetricType::Counter, name, help, &samples)
    };
    let help = "Logins of the whole cluster that were refused, by reason; every node shows the same number";
    write("logins_refused_total", help, &over.refused)?;
    let help = "Logins of the whole cluster that failed after placement, by reason; every node shows the same number";
    write("logins_failed_total", help, &over.failed)
}

/// Without samples until the doctor has reported.
fn doctor(pen: &mut Pen<'_>, report: Option<DoctorReport>) -> fmt::Result {
    let levels = |report: DoctorReport| [("failure", report.failures), ("warning", report.warnings)];
    let findings: Vec<_> = report.into_iter().flat_map(levels).collect();
    let findings: Vec<_> = findings.into_iter().map(|(level, count)| ([("level", level)], real(count))).collect();
    let findings = findings.iter().map(|(labels, value)| (&labels[..], *value));
    pen.gauges("doctor_findings", "Findings of the last run of evenring doctor --report on this host", findings)?;
    let at = report.iter().map(|report| (&[][..], report.at));
    pen.gauges("doctor_last_run_timestamp_seconds", "Time of that run", at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::{AdminState, NodeState};

    #[test]
    fn every_state_of_a_daemon_has_its_series() {
        for state in NodeState::ALL {
            for admin_state in [AdminState::Ready, AdminState::Drain] {
                let shown = ShownNodeState::of(state, admin_state);
                let ones = states(shown).into_iter().filter(|(_, value)| *value == 1.0);
                let ones: Vec<_> = ones.map(|([(label, word)], _)| (label, word)).collect();
                assert_eq!(ones, [("state", shown.as_str())], "{state:?}, {admin_state:?}");
            }
        }
    }
}
