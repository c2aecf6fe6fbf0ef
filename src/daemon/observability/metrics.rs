//! The counters and histograms for Prometheus. Owns their names, units and labels: each label has a few known values, and
//! none names a person, a phone or a session. Must never decide anything.
//!
//! Counters and histograms are updated where things happen; gauges are read at scrape time (`gauges`). Nothing here has a
//! task or timer of its own.

use std::fmt;
use std::time::Duration;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::{MetricType, TypedMetric};
use prometheus_client::registry::Registry as Page;

use crate::ami::event::{EVENTS, Event};
use crate::api::ROUTES;
use crate::node::session::{Outcome, Reason};
use crate::registry::view::{Parsed, Placement, PlacementReason, RefusalReason, Verdict};
use crate::registry::{Order, ReapResult, RegistryError, Rejoined};
use crate::runtime::clock::Clock;

/// Prefix of every name.
const PREFIX: &str = "evenring";
/// Upper bounds in seconds: of an answer from Redis or Asterisk, of the way of a login, of ringing.
const ANSWER: [f64; 12] = [0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5];
const WAY: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];
const RINGING: [f64; 10] = [0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 120.0];

/// One label.
type Label = [(&'static str, &'static str); 1];
type Times = Family<Label, Histogram, fn() -> Histogram>;

/// A counter whose name is written unchanged. OpenMetrics appends `_total` only to the sample, and then the older text
/// format, which every Prometheus reads, has no type for it.
#[derive(Debug, Clone, Default)]
pub(in crate::daemon) struct Total(Counter);

impl Total {
    pub(in crate::daemon) fn inc(&self) {
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
pub(in crate::daemon) struct Totals {
    label: &'static str,
    family: Family<Label, Total>,
}

impl Totals {
    pub(in crate::daemon) fn inc(&self, value: &'static str) {
        self.family.get_or_create(&[(self.label, value)]).inc();
    }
}

/// The handles. A copy counts into the same place.
#[derive(Debug, Clone)]
pub(in crate::daemon) struct Metrics {
    clock: Clock,
    pub(in crate::daemon) events: Totals,
    pub(in crate::daemon) events_unreadable: Total,
    pub(in crate::daemon) actions_unsent: Total,
    pub(in crate::daemon) resync: Histogram,
    redis_time: Times,
    redis_errors: Totals,
    pub(in crate::daemon) drift_repaired: Total,
    sessions_reaped: Totals,
    pub(in crate::daemon) keepalive: Totals,
    placements: Family<[(&'static str, &'static str); 2], Total>,
    placement_time: Histogram,
    api_requests: Family<[(&'static str, &'static str); 2], Total>,
    orders: Totals,
    orders_expired: Total,
    orders_deadletter: Total,
    pub(in crate::daemon) originates_sent: Total,
    originates: Totals,
    sessions_ended: Totals,
    pub(in crate::daemon) login_to_ring: Histogram,
    pub(in crate::daemon) login_to_answer: Histogram,
}

/// How live sessions end.
const ENDED: [&str; 3] = ["hung-up", "logged-out", "node-lost"];
/// How sessions of lost nodes are settled.
const REAPED: [&str; 4] = ["placed", "rejoined", "stranded", "ended"];

/// Registers metrics, each with a help text.
struct Printer<'a>(&'a mut Page);

impl Printer<'_> {
    fn total(&mut self, name: &str, help: &str) -> Total {
        let total = Total::default();
        self.0.register(name, help, total.clone());
        total
    }

    /// Registers a counter with all known label values, so that rates work from the first increment on.
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
    pub(in crate::daemon) fn new(clock: Clock) -> (Self, Page) {
        let mut page = Page::with_prefix(PREFIX);
        let print = &mut Printer(&mut page);
        let redis_time = Times::new_with_constructor(|| Histogram::new(ANSWER));
        let placements = Family::default();
        let metrics = Self {
            clock,
            events: print.totals("ami_events_total", "AMI events handled", "event", &[&EVENTS[..], &[OTHER]].concat()),
            events_unreadable: print
                .total("ami_events_unreadable_total", "AMI events skipped because of a missing or unknown header"),
            actions_unsent: print.total("ami_actions_unsent_total", "Actions that the AMI task could not take"),
            resync: print.times("ami_resync_duration_seconds", "Time from AMI login to in sync", &WAY),
            redis_errors: print.totals("redis_errors_total", "Failed Redis calls; each is retried", "command", &CALLS),
            drift_repaired: print
                .total("drift_repaired_total", "Differences between Redis and Asterisk that were repaired"),
            sessions_reaped: print.totals(
                "sessions_reaped_total",
                "Sessions of lost nodes and expired orders settled here",
                "result",
                &REAPED,
            ),
            keepalive: print.totals("keepalive_runs_total", "Runs of the keepalive command", "result", &KEPT),
            placement_time: print.times(
                "placement_duration_seconds",
                "Time to place a login of another program",
                &ANSWER,
            ),
            orders: print.totals("orders_taken_total", "Orders fetched from this node's queue", "kind", &ORDERS),
            orders_expired: print.total("orders_expired_total", "Orders that expired and were not rung"),
            orders_deadletter: print
                .total("orders_deadletter_total", "Unreadable messages dropped from the node's queue and the inbox"),
            originates_sent: print.total("originates_sent_total", "Originates sent to AMI"),
            originates: print.totals("originate_total", "Logins rung here, by result", "result", &fates()),
            sessions_ended: print.totals(
                "sessions_ended_total",
                "Sessions that ended live or were cancelled",
                "reason",
                &ENDED,
            ),
            login_to_ring: print.times("login_ring_delay_seconds", "Time from placement to Originate", &WAY),
            login_to_answer: print.times("ring_duration_seconds", "Time from placement to answer", &RINGING),
            redis_time,
            placements,
            api_requests: Family::default(),
        };
        // Series that are there from the start.
        for result in placement_results() {
            drop(metrics.placements.get_or_create(&result));
        }
        for route in ROUTES {
            drop(metrics.api_requests.get_or_create(&[("route", route), ("status", "200")]));
        }
        metrics.register_families(&mut page);
        (metrics, page)
    }

    fn register_families(&self, page: &mut Page) {
        page.register(
            "redis_command_duration_seconds",
            "Duration of a call to Redis, including failed ones",
            self.redis_time.clone(),
        );
        page.register("placements_total", "Logins of other programs that this node placed", self.placements.clone());
        page.register(
            "api_requests_total",
            "Requests of the HTTP API that this node answered",
            self.api_requests.clone(),
        );
    }

    /// Makes a call of Redis, and measures it.
    pub(in crate::daemon) async fn redis<T>(
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

    pub(in crate::daemon) fn event(&self, event: &Event<'_>) {
        self.events.inc(event.name().unwrap_or(OTHER));
    }

    pub(in crate::daemon) fn taken(&self, order: &Order) {
        match order {
            Order::Ring(_) => self.orders.inc("ring"),
            Order::HangUp(_) => self.orders.inc("hangup"),
            Order::Moved(_, _) => self.orders.inc("moved"),
            Order::Expired(_) => self.orders_expired.inc(),
            Order::Stale(session) if session.parse::<crate::ids::SessionId>().is_ok() => self.orders.inc("stale"),
            Order::Stale(_) => self.orders_deadletter.inc(),
        }
    }

    /// Counts an invalid message in the inbox.
    pub(in crate::daemon) fn unreadable_login(&self) {
        self.orders_deadletter.inc();
    }

    pub(in crate::daemon) fn placed(&self, placement: &Placement, took: Duration) {
        let result = match placement.verdict {
            Verdict::Placed => "placed",
            Verdict::Existing => "existing",
            Verdict::Refused => "refused",
            Verdict::WouldPlace => "explained",
            Verdict::NotNow => "not-now",
        };
        let reason = match &placement.reason {
            None => "",
            Some(PlacementReason::Refusal(Parsed::Known(reason))) => reason.as_str(),
            Some(PlacementReason::Refusal(Parsed::Other(_)) | PlacementReason::Session(_)) => OTHER,
        };
        self.placements.get_or_create(&[("result", result), ("reason", reason)]).inc();
        self.placement_time.observe(took.as_secs_f64());
    }

    /// Counts a request of the HTTP API.
    pub(in crate::daemon) fn api_request(&self, route: &'static str, status: u16) {
        let status = STATUSES.into_iter().find(|(code, _)| *code == status).map_or(OTHER, |(_, text)| text);
        self.api_requests.get_or_create(&[("route", route), ("status", status)]).inc();
    }

    pub(in crate::daemon) fn outcome(&self, outcome: &Outcome) {
        match outcome {
            Outcome::Live => self.originates.inc("live"),
            Outcome::Failed(reason) | Outcome::TryNextNode(reason) => self.originates.inc(reason.class()),
            Outcome::Ended(reason) => self.sessions_ended.inc(reason.class()),
        }
    }

    /// What a heartbeat settled.
    pub(in crate::daemon) fn reaped(&self, result: &ReapResult) {
        self.sessions_reaped.inc(match result {
            ReapResult::Rejoined(Rejoined::Ringing { .. }) => "rejoined",
            ReapResult::Rejoined(Rejoined::Stranded { .. }) => "stranded",
            ReapResult::Placed(_) => "placed",
            ReapResult::Ended(_) => "ended",
            // Not settled yet.
            ReapResult::Waiting => return,
        });
    }
}

/// How the keepalive command ended.
const KEPT: [&str; 4] = ["done", "failed", "killed", "not-started"];
/// Events and reasons that are not told apart.
const OTHER: &str = "other";
/// What the HTTP API answers with.
const STATUSES: [(u16, &str); 16] = [
    (200, "200"),
    (201, "201"),
    (202, "202"),
    (400, "400"),
    (401, "401"),
    (403, "403"),
    (404, "404"),
    (405, "405"),
    (408, "408"),
    (409, "409"),
    (413, "413"),
    (415, "415"),
    (422, "422"),
    (429, "429"),
    (500, "500"),
    (503, "503"),
];
const CALLS: [&str; 14] = [
    "register",
    "phones",
    "adopt",
    "report",
    "ring_queue",
    "left-out",
    "reason",
    "append_events",
    "keepalive",
    "heartbeat",
    "fetch_orders",
    "receive",
    "place",
    "answer",
];
const ORDERS: [&str; 4] = ["ring", "hangup", "moved", "stale"];

/// What may come of a login from the inbox, and why.
fn placement_results() -> Vec<[(&'static str, &'static str); 2]> {
    let results = ["placed", "existing"].map(|result| (result, ""));
    let refusals = RefusalReason::ALL.iter().map(|reason| match reason.is_final() {
        true => ("refused", reason.as_str()),
        false => ("not-now", reason.as_str()),
    });
    results.into_iter().chain(refusals).map(|(result, reason)| [("result", result), ("reason", reason)]).collect()
}

/// How a login that is rung may end here.
fn fates() -> Vec<&'static str> {
    // The others are of sessions that were live, or called off.
    let is_result = |reason: &&Reason| !matches!(reason, Reason::HungUp | Reason::LoggedOut);
    std::iter::once("live").chain(Reason::ALL.iter().filter(is_result).map(Reason::class)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_series_from_the_start() {
        let (_, page) = Metrics::new(Clock::start());
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &page).unwrap();
        for reason in Reason::ALL {
            let label = reason.class();
            let series = [
                format!("evenring_originate_total{{result=\"{label}\"}} 0"),
                format!("evenring_sessions_ended_total{{reason=\"{label}\"}} 0"),
            ];
            assert!(series.iter().any(|line| text.contains(line)), "{label}: {text}");
            assert!(reason.to_string().starts_with(label), "{reason} is counted as {label}");
        }
        for refusal in RefusalReason::ALL {
            let series = format!("reason=\"{}\"}} 0", refusal.as_str());
            let placements = || text.lines().filter(|line| line.starts_with("evenring_placements_total{"));
            assert!(placements().any(|line| line.ends_with(&series)), "{series}: {text}");
        }
    }
}
