//! ActionIDs: how an answer finds its action, and how the outcome of a ring finds its session.
//!
//! Owns the two shapes of id. Must never know what an action does. Asterisk sends the ActionID of an Originate to every
//! manager session (measured), and that of a UserEvent, so an id says which life of which daemon it belongs to.

use crate::ids::{Generation, SessionId};

/// The prefix of every ActionID.
const PREFIX: &str = "er-";

/// The ActionID of an Originate: `er-<generation>-o-<session>-<try>`. Its `OriginateResponse` comes long after the
/// answer, perhaps on another connection, so the id itself says what it is about.
pub fn originate_action_id(generation: Generation, session: SessionId, r#try: u32) -> String {
    format!("{PREFIX}{generation}-o-{session}-{}", r#try)
}

/// The parts of an [`originate_action_id`]; `None` for any other id.
pub fn session_of_action_id(id: &[u8]) -> Option<(Generation, SessionId, u32)> {
    let text = std::str::from_utf8(id).ok()?.strip_prefix(PREFIX)?;
    let (generation, text) = text.split_once("-o-")?;
    let (session, number) = text.split_once('-')?;
    Some((generation.parse().ok()?, session.parse().ok()?, plain_number(number)?.try_into().ok()?))
}

/// The ActionID of everything else: `er-<generation>-<seq>`.
pub(super) fn plain_action_id(generation: Generation, seq: u64) -> String {
    format!("{PREFIX}{generation}-{seq}")
}

/// Whether `id` is a [`plain_action_id`] of this generation: if no action waits for it, it comes too late.
pub(super) fn is_plain_of(id: &[u8], generation: Generation) -> bool {
    std::str::from_utf8(id)
        .ok()
        .and_then(|text| text.strip_prefix(PREFIX)?.split_once('-'))
        .is_some_and(|(life, seq)| life.parse() == Ok(generation) && plain_number(seq).is_some())
}

/// Digits only: `u64::from_str` would take a plus sign, too.
fn plain_number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_of_a_ring_reads_back_and_nothing_else_does() {
        let (generation, session) = (Generation::from_bits(0xfeed), SessionId::from_bits(7));
        let id = originate_action_id(generation, session, 3);
        assert_eq!(id, "er-000000000000feed-o-0000000000000007-3");
        assert_eq!(session_of_action_id(id.as_bytes()), Some((generation, session, 3)));
        for other in ["er-000000000000feed-12", "er-000000000000feed-o-0000000000000007", "a3", "", "\u{e9}"] {
            assert_eq!(session_of_action_id(other.as_bytes()), None, "{other}");
        }
        for cut in 0..id.len() {
            assert_eq!(session_of_action_id(&id.as_bytes()[..cut]), None, "{cut}");
        }
        assert_eq!(session_of_action_id(format!("{id}x").as_bytes()), None);
        assert_eq!(session_of_action_id(id.replace("-3", "-+3").as_bytes()), None);
    }

    #[test]
    fn plain_ids_belong_to_one_life() {
        let (ours, theirs) = (Generation::from_bits(1), Generation::from_bits(2));
        let id = plain_action_id(ours, 12);
        assert!(is_plain_of(id.as_bytes(), ours));
        assert!(!is_plain_of(id.as_bytes(), theirs));
        assert!(!is_plain_of(originate_action_id(ours, SessionId::from_bits(1), 0).as_bytes(), ours));
    }
}
