//! What becomes of a login that a program sent: it is placed, answered, counted and logged, in one place for every way in.
//! Owns the log lines and counts of such logins. Must never choose a node, which `registry/scripts/lib/placement.lua` does,
//! nor know how the login came.

use std::time::Duration;

use tracing::{debug, info, warn};

use super::observability::metrics::Metrics;
use crate::api::Observer;
use crate::ids::NodeName;
use crate::registry::view::{Placement, Verdict, reason_text};
use crate::registry::{InboxMessage, Registry, RegistryError, Settled};
use crate::runtime::clock::Clock;
use crate::runtime::log_throttle::LogThrottle;

/// The intake, with a connection of its own.
#[derive(Debug)]
pub(super) struct LoginIntake {
    pub(super) registry: Registry,
    pub(super) node: NodeName,
    pub(super) clock: Clock,
    pub(super) metrics: Metrics,
    pub(super) junk: LogThrottle,
}

impl LoginIntake {
    /// Places and answers each of these messages, which are logins or not; all but those that must wait leave the inbox.
    ///
    /// # Errors
    ///
    /// Redis is unavailable: what has not been settled comes back to the inbox.
    pub(super) async fn settle(&mut self, mut rest: &[InboxMessage]) -> Result<(), RegistryError> {
        while !rest.is_empty() {
            let before = self.clock.now();
            let settled = self.metrics.redis("settle", self.registry.settle_logins(rest)).await?;
            let took = self.clock.now().since(before);
            let count = settled.len().max(1);
            for (message, settled) in rest.iter().zip(settled) {
                self.tell(message, settled, took);
            }
            rest = rest.get(count..).unwrap_or_default();
        }
        Ok(())
    }

    fn tell(&mut self, message: &InboxMessage, settled: Settled, took: Duration) {
        let node = &self.node;
        match (&message.login, settled) {
            (Ok(_), Settled::Placed(placement)) => tell_placement(node, &self.metrics, "inbox", &placement, took),
            (Err(reason), Settled::NoLogin) => {
                if let Some(suppressed) = self.junk.allow(reason, self.clock.now()) {
                    warn!(%node, reason, suppressed, "invalid message in the inbox dropped");
                }
                self.metrics.unreadable_login();
            }
            (_, Settled::Gone | Settled::NoLogin | Settled::Placed(_)) => {
                debug!(%node, message = message.id, "another node has settled it");
            }
        }
    }
}

/// What became of a login of another program: counted and logged. `way`: how it came in.
pub(super) fn tell_placement(
    node: &NodeName,
    metrics: &Metrics,
    way: &'static str,
    placement: &Placement,
    took: Duration,
) {
    let alias = &placement.alias;
    metrics.placed(placement, took);
    match placement.verdict {
        // It comes back, or is asked for again: by then the nodes have reported.
        Verdict::NotNow => {
            debug!(%node, alias, way, reason = reason_text(placement.reason.as_ref()), "login not placed yet")
        }
        Verdict::Refused => warn!(%node, alias, way, reason = reason_text(placement.reason.as_ref()), "login refused"),
        Verdict::Placed | Verdict::Existing | Verdict::WouldPlace => {
            let session = placement.session.map(|id| id.to_string()).unwrap_or_default();
            info!(%node, session, alias, chosen = placement.node, way, "login of another program");
        }
    }
}

/// The same for logins that come in over HTTP, and the count of all requests there.
#[derive(Debug)]
pub(super) struct ApiObserver {
    pub(super) node: NodeName,
    pub(super) metrics: Metrics,
}

impl Observer for ApiObserver {
    fn placed(&self, placement: &Placement, took: Duration) {
        tell_placement(&self.node, &self.metrics, "api", placement, took);
    }

    fn answered(&self, route: &'static str, status: u16) {
        self.metrics.api_request(route, status);
    }
}
