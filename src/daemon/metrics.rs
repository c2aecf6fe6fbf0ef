//! What is counted and measured, by the names that Prometheus sees. Owns these names, their units and their labels: each
//! label has few values that are known here, and none names a person, a phone or a session. Must never decide anything.
//!
//! Counters and histograms are written where things happen; states are read when somebody asks (`gauges`). Nothing here
//! has a task or a timer of its own.

use std::fmt;
use std::time::Duration;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::{MetricType, TypedMetric};
use prometheus_client::registry::Registry as Page;

use super::clock::Clock;
use crate::ami::event::{EVENTS, Event};
use crate::node::session::{Outcome, Reason};
use crate::registry::view::{Placement, Verdict};
use crate::registry::{Comeback, Order, RegistryError};

/// What every name begins with.
const PREFIX: &str = "evenring";
/// Upper bounds in seconds: of an answer from Redis or Asterisk, of the way of a login, of ringing.
const ANSWER: [f64; 12] = [0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5];
const WAY: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];
const RINGING: [f64; 10] = [0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 120.0];

/// One label.
type Label = [(&'static str, &'static str); 1];
type Times = Family<Label, Histogram, fn() -> Histogram>;

/// A counter whose name is written as it stands. OpenMetrics would put `_total` behind it in the sample only, and then the
/// older text format, which every Prometheus reads, would know no type for it.
#[derive(Debug, Clone, Default)]
pub(super) struct Total(Counter);

impl Total {
    pub(super) fn inc(&self) {
        self.0.inc();
    }
}

impl TypedMetric for Total {
    const TYPE: MetricType = MetricType::Counter;
}

impl EncodeMetric for Total {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        encoder.encode_gauge(&self.0.get())
    }
    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

/// A counter with a label.
#[derive(Debug, Clone)]
pub(super) struct Totals {
    label: &'static str,
    family: Family<Label, Total>,
}

impl Totals {
    pub(super) fn inc(&self, value: &'static str) {
        self.family.get_or_create(&[(self.label, value)]).inc();
    }
}

/// The handles. A copy counts into the same place.
#[derive(Debug, Clone)]
pub(super) struct Metrics {
    clock: Clock,
    pub(super) events: Totals,
    pub(super) events_unreadable: Total,
    pub(super) actions_unsent: Total,
    pub(super) resync: Histogram,
    redis_time: Times,
    redis_errors: Totals,
    pub(super) drift_mended: Total,
    ghosts_reaped: Totals,
    pub(super) keepalive: Totals,
    picks: Family<[(&'static str, &'static str); 2], Total>,
    pick_time: Histogram,
    commands: Totals,
    commands_expired: Total,
    commands_deadletter: Total,
    pub(super) originates_sent: Total,
    originates: Totals,
    sessions_ended: Totals,
    pub(super) login_to_ring: Histogram,
    pub(super) login_to_answer: Histogram,
}

/// Puts metrics on the page, each with a sentence for people.
struct Printer<'a>(&'a mut Page);

impl Printer<'_> {
    fn total(&mut self, name: &str, help: &str) -> Total {
        let total = Total::default();
        self.0.register(name, help, total.clone());
        total
    }

    /// With all values that are known from the start, so that a rate is seen from the first one on.
    fn totals(&mut self, name: &str, help: &str, label: &'static str, values: &[&'static str]) -> Totals {
        let totals = Totals { label, family: Family::default() };
        for value in values {
            drop(totals.family.get_or_create(&[(label, *value)]));
        }
        self.0.register(name, help, totals.family.clone());
        totals
    }

    fn times(&mut self, name: &str, help: &str, bounds: &[f64]) -> Histogram {
        let histogram = Histogram::new(bounds.iter().copied());
        self.0.register(name, help, histogram.clone());
        histogram
    }
}

impl Metrics {
    /// All metrics that are counted, and the page that shows them.
    pub(super) fn new(clock: Clock) -> (Self, Page) {
        let mut page = Page::with_prefix(PREFIX);
        let print = &mut Printer(&mut page);
        let redis_time = Times::new_with_constructor(|| Histogram::new(ANSWER));
        let picks = Family::default();
        let metrics = Self {
            clock,
            events: print.totals(
                "ami_events_total",
                "Events of AMI that were handled",
                "event",
                &[&EVENTS[..], &[OTHER]].concat(),
            ),
            events_unreadable: print.total(
                "ami_events_unreadable_total",
                "Events of AMI that lacked something or said what is not understood: skipped",
            ),
            actions_unsent: print.total("ami_actions_unsent_total", "Actions that the AMI task had no room for"),
            resync: print.times("ami_resync_duration_seconds", "From the login at AMI to being in sync", &WAY),
            redis_errors: print.totals(
                "redis_errors_total",
                "Calls that failed; each is tried again",
                "command",
                &CALLS,
            ),
            drift_mended: print.total("drift_mended_total", "Disagreements of Redis and Asterisk that were mended"),
            ghosts_reaped: print.totals(
                "ghosts_reaped_total",
                "Sessions of lost nodes, and orders nobody took, that this node settled",
                "result",
                &["placed", "rejoined", "stranded", "ended"],
            ),
            keepalive: print.totals("keepalive_runs_total", "Runs of the keepalive command", "result", &KEPT),
            pick_time: print.times("pick_duration_seconds", "Placing a login of the inbox, one call of Redis", &ANSWER),
            commands: print.totals("commands_taken_total", "Orders taken from this node's queue", "kind", &COMMANDS),
            commands_expired: print.total("commands_expired_total", "Orders that were too old: they rang nobody"),
            commands_deadletter: print.total(
                "commands_deadletter_total",
                "Messages that could not be read, in the node's queue and in the inbox: dropped",
            ),
            originates_sent: print.total("originates_sent_total", "Originates that were given to AMI"),
            originates: print.totals("originate_total", "Logins rung here, by how it ended", "result", &RESULTS),
            sessions_ended: print.totals(
                "sessions_ended_total",
                "Sessions that ended after they were live or called off",
                "reason",
                &["hung-up", "logged-out", "node-lost"],
            ),
            login_to_ring: print.times(
                "login_ring_delay_seconds",
                "From the choice of this node to the Originate",
                &WAY,
            ),
            login_to_answer: print.times(
                "ring_duration_seconds",
                "From the choice of this node to the answer",
                &RINGING,
            ),
            redis_time,
            picks,
        };
        page.register(
            "redis_command_duration_seconds",
            "A call of Redis, also one that failed",
            metrics.redis_time.clone(),
        );
        page.register("picks_total", "Logins of the inbox that this node placed", metrics.picks.clone());
        (metrics, page)
    }

    /// Makes a call of Redis, and measures it.
    pub(super) async fn redis<T>(
        &self,
        command: &'static str,
        call: impl Future<Output = Result<T, RegistryError>>,
    ) -> Result<T, RegistryError> {
        let before = self.clock.now();
        let result = call.await;
        self.redis_time.get_or_create(&[("command", command)]).observe(self.clock.now().since(before).as_secs_f64());
        if result.as_ref().is_err_and(RegistryError::is_outage) {
            self.redis_errors.inc(command);
        }
        result
    }

    pub(super) fn event(&self, event: &Event<'_>) {
        self.events.inc(event.name().unwrap_or(OTHER));
    }

    pub(super) fn taken(&self, order: &Order) {
        match order {
            Order::Ring(_) => self.commands.inc("ring"),
            Order::HangUp(_) => self.commands.inc("hangup"),
            Order::Moved(_, _) => self.commands.inc("moved"),
            Order::Expired(_) => self.commands_expired.inc(),
            Order::Stale(session) if session.parse::<crate::ids::SessionId>().is_ok() => self.commands.inc("stale"),
            Order::Stale(_) => self.commands_deadletter.inc(),
        }
    }

    /// A message in the inbox that is no login.
    pub(super) fn unreadable_login(&self) {
        self.commands_deadletter.inc();
    }

    pub(super) fn placed(&self, placement: &Placement, took: Duration) {
        let result = match placement.verdict {
            Verdict::Placed => "placed",
            Verdict::Existing => "existing",
            Verdict::Refused => "refused",
            Verdict::WouldPlace => "explained",
            Verdict::NotNow => "not-now",
        };
        let known = REFUSALS.into_iter().find(|word| *word == placement.reason);
        let reason = if placement.reason.is_empty() { "" } else { known.unwrap_or("other") };
        self.picks.get_or_create(&[("result", result), ("reason", reason)]).inc();
        self.pick_time.observe(took.as_secs_f64());
    }

    pub(super) fn outcome(&self, outcome: &Outcome) {
        match outcome {
            Outcome::Live => self.originates.inc("live"),
            Outcome::Failed(reason) | Outcome::Cannot(reason) => self.originates.inc(class(reason)),
            Outcome::Ended(reason) => self.sessions_ended.inc(class(reason)),
        }
    }

    /// What a heartbeat settled; `result` as the script says it.
    pub(super) fn reaped(&self, result: &str) {
        self.ghosts_reaped.inc(match Comeback::parse(result) {
            Some(Comeback::Ringing { .. }) => "rejoined",
            Some(Comeback::Stranded { .. }) => "stranded",
            None if result.starts_with("placed ") => "placed",
            None => "ended",
        });
    }
}

/// How the keepalive command ended.
const KEPT: [&str; 4] = ["done", "failed", "killed", "not-started"];
/// Events that are not told apart.
const OTHER: &str = "other";
const CALLS: [&str; 13] = [
    "register",
    "phones",
    "adopt",
    "report",
    "line",
    "left-out",
    "note",
    "keepalive",
    "heartbeat",
    "take",
    "receive",
    "place",
    "answer",
];
const COMMANDS: [&str; 4] = ["ring", "hangup", "moved", "stale"];
const REFUSALS: [&str; 5] = ["no-eligible-node", "unknown-alias", "empty-alias", "no-node", "in-use"];
const RESULTS: [&str; 8] =
    ["live", "busy", "declined", "no-answer", "not-reachable", "congestion", "refused", "outcome-unknown"];

/// A reason without what differs from case to case.
fn class(reason: &Reason) -> &'static str {
    match reason {
        Reason::HungUp => "hung-up",
        Reason::LoggedOut => "logged-out",
        Reason::Busy => "busy",
        Reason::Declined => "declined",
        Reason::NoAnswer => "no-answer",
        Reason::PhoneUnavailable => "phone-unavailable",
        Reason::NotReachable => "not-reachable",
        Reason::Silent => "silent",
        Reason::NotFound => "not-found",
        Reason::Congestion(_) => "congestion",
        Reason::Refused(_) => "refused",
        Reason::NodeLost => "node-lost",
        Reason::Stopping => "stopping",
        Reason::Draining => "draining",
        Reason::OutcomeUnknown => "outcome-unknown",
    }
}
