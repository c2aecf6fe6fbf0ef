//! Logins that were refused or have failed, by reason, as Redis counts them for the whole cluster. Owns the reading of those
//! counts. Must never count anything itself: the script does that writes the event.

use std::collections::BTreeMap;

use super::reasons::{OwnReason, RefusalReason};
use crate::node::session::Reason;

/// Reasons that this version does not know.
const OTHER: &str = "other";

/// How many, by reason. Every reason that may be counted is there, also with 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginCounts {
    /// Logins that got no session.
    pub refused: BTreeMap<&'static str, u64>,
    /// Sessions that never became live.
    pub failed: BTreeMap<&'static str, u64>,
}

impl Default for LoginCounts {
    fn default() -> Self {
        let refused = RefusalReason::ALL.into_iter().filter(|reason| reason.is_final()).map(RefusalReason::as_str);
        let all = Reason::ALL;
        let node = all.iter().filter(|reason| !matches!(reason, Reason::HungUp | Reason::LoggedOut)).map(Reason::class);
        let own = OwnReason::ALL.into_iter().filter(|reason| match reason {
            OwnReason::OrderExpired | OwnReason::Stopped | OwnReason::Starting | OwnReason::Down => true,
            // Such a session has ended, not failed.
            OwnReason::Moved | OwnReason::HoldExpired => false,
            // Of commands.
            OwnReason::Forgotten | OwnReason::ForgottenByRedis | OwnReason::NotLoggedIn => false,
        });
        let failed = node.chain(own.map(OwnReason::as_str));
        Self { refused: zeros(refused), failed: zeros(failed) }
    }
}

/// None of these and none of others.
fn zeros(reasons: impl Iterator<Item = &'static str>) -> BTreeMap<&'static str, u64> {
    reasons.chain([OTHER]).map(|reason| (reason, 0)).collect()
}

impl LoginCounts {
    /// Reads the fields of the hash and their values.
    pub(super) fn read(fields: &[(String, u64)]) -> Self {
        let mut counts = Self::default();
        for (field, count) in fields {
            let Some((event, reason)) = field.split_once(' ') else { continue };
            let table = match event {
                "refused" => &mut counts.refused,
                "failed" => &mut counts.failed,
                _ => continue,
            };
            let known = if table.contains_key(reason) { reason } else { OTHER };
            if let Some(sum) = table.get_mut(known) {
                *sum += count;
            }
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_there_and_unknown_ones_are_summed() {
        let none = LoginCounts::default();
        assert_eq!(
            none.refused.keys().copied().collect::<Vec<_>>(),
            ["empty-alias", "in-use", "logged-in-elsewhere", "no-eligible-node", "other", "unknown-alias"]
        );
        assert_eq!(none.failed.len(), 13 + 4 + 1, "{none:?}");
        let fields = [("refused in-use", 2), ("refused later", 1), ("failed congestion", 3), ("failed x", 4), ("x", 5)];
        let read = LoginCounts::read(&fields.map(|(field, count)| (field.to_owned(), count)));
        assert_eq!((read.refused["in-use"], read.refused["other"], read.refused["unknown-alias"]), (2, 1, 0));
        assert_eq!((read.failed["congestion"], read.failed["other"], read.failed["busy"]), (3, 4, 0));
    }
}
