//! The part of the judge that looks for mistakes: somebody was taken for dead who was not, rung again, or cut off. Pure.
//!
//! Owns these rules. Must never ask anybody anything.

use std::collections::BTreeMap;
use std::time::Instant;

use evenring::node::session::Reason;
use evenring::registry::view::{EndReason, OwnReason, SessionRow, SessionState};

use super::judge::{Answer, Asked, Calls, Evidence, Fate, fate};
use crate::lab::phone::{Record, What};

/// All of these rules.
pub(super) fn all(seen: &Evidence) -> Vec<String> {
    let mut wrong = Vec::new();
    wrong.extend(cut(seen));
    wrong.extend(rung_again(seen));
    wrong.extend(judged(seen));
    wrong.extend(expired(seen));
    wrong.extend(turned_away(seen));
    wrong.extend(sent_to_the_victim(seen));
    wrong.extend(
        seen.left.iter().map(|node| format!("P6: node {node} left the rotation, and nothing was wrong with it")),
    );
    wrong
}

/// A fault that takes no node ends no call: P7. Only Asterisk's own stop may end one that was answered after it.
fn cut(seen: &Evidence) -> Vec<String> {
    if seen.calls == Calls::Move {
        return Vec::new();
    }
    let answered = |bye: &Record| {
        let answers = seen.rings.iter().filter(|record| record.what == What::Answer(200));
        answers
            .filter(|record| record.phone == bye.phone && record.call_id == bye.call_id)
            .map(|record| record.at)
            .min()
    };
    let stopped = |bye: &Record, answered: Instant| {
        answered > seen.strike.at && seen.strike.victim.as_ref().is_some_and(|(_, address)| *address == bye.node)
    };
    let byes = seen.rings.iter().filter(|record| record.what == What::Bye);
    let cut = byes.filter_map(|bye| Some((bye, answered(bye)?))).filter(|(bye, at)| !stopped(bye, *at));
    // Asterisk gave the ring up, and did not hear in time that it was answered: that was no live call.
    let unheard = |phone: &str| {
        let given_up = |row: &SessionRow| {
            row.state == SessionState::Failed
                && matches!(row.reason, Some(EndReason::Node(Reason::NoAnswer | Reason::Silent)))
        };
        seen.sessions.iter().any(|row| row.extension == phone && given_up(row))
    };
    let cut = cut.filter(|(bye, _)| !unheard(&bye.phone));
    cut.map(|(bye, at)| {
        let lived = bye.at.duration_since(at);
        format!("P7: {} was cut off by {}, {lived:?} after it had picked up", bye.phone, bye.node)
    })
    .collect()
}

/// Who asks again while no node is lost has one call: P1.
fn rung_again(seen: &Evidence) -> Vec<String> {
    if seen.calls == Calls::Move {
        return Vec::new();
    }
    let mut by_phone = BTreeMap::<&str, Vec<&Record>>::new();
    for ring in seen.rings.iter().filter(|record| record.what == What::Invite) {
        by_phone.entry(&ring.phone).or_default().push(ring);
    }
    let asked_again = |phone: &str| {
        let is_theirs = |alias: &String| alias.strip_suffix('x') == Some(phone);
        seen.persistent.iter().any(is_theirs)
    };
    let wrong = by_phone.into_iter().filter(|(phone, rings)| rings.len() > 1 && asked_again(phone));
    wrong
        .map(|(phone, rings)| {
            let words: Vec<String> = rings.iter().map(|ring| format!("{} for {}", ring.node, ring.from)).collect();
            format!("P1: {phone} rang {} times, and was never lost: {words:?}", rings.len())
        })
        .collect()
}

/// A node that lives is not judged dead: P14.
fn judged(seen: &Evidence) -> Vec<String> {
    if seen.calls == Calls::Move {
        return Vec::new();
    }
    let lost = seen.sessions.iter().filter(|row| row.reason == Some(EndReason::Node(Reason::NodeLost)));
    lost.map(|row| format!("P14: {} is {} as node-lost, and node {} was not lost", row.alias, row.state, row.node))
        .collect()
}

/// An order that nobody took is placed again until its login gives up, and no fault is as long as that: P4.
fn expired(seen: &Evidence) -> Vec<String> {
    let lost = seen.sessions.iter().filter(|row| row.reason == Some(EndReason::Own(OwnReason::OrderExpired)));
    lost.map(|row| format!("P4: {} on {} is order-expired", row.alias, row.node)).collect()
}

/// Who asks until the answer is yes, is live in the end: P8.
fn turned_away(seen: &Evidence) -> Vec<String> {
    let last = |alias: &String| seen.asked.iter().filter(|asked| asked.alias == *alias).max_by_key(|asked| asked.at);
    let good = |asked: &Asked| asked.answer == Answer::Accepted && matches!(fate(asked, &seen.sessions), Fate::Live(_));
    let wrong = seen.persistent.iter().filter_map(|alias| match last(alias) {
        Some(asked) if good(asked) => None,
        Some(asked) => Some(format!(
            "P8: {alias} asked until the end, was told {:?} at last, and is {:?}",
            asked.answer,
            fate(asked, &seen.sessions)
        )),
        None => Some(format!("P8: {alias} never asked")),
    });
    wrong.collect()
}

/// From the moment at which others ring the victim's agents, or at which Redis has it out of the rotation, nobody is sent
/// there while it is out: P6.
fn sent_to_the_victim(seen: &Evidence) -> Vec<String> {
    let (Some((victim, address)), Some((first, last))) = (&seen.strike.victim, seen.strike.out) else {
        return Vec::new();
    };
    let were_there = |phone: &str| seen.before.iter().any(|row| row.node == *victim && row.extension == phone);
    let elsewhere = seen.rings.iter().filter(|ring| {
        ring.what == What::Invite && ring.at > seen.strike.at && ring.node != *address && were_there(&ring.phone)
    });
    let known = elsewhere.map(|ring| ring.at).fold(first, Instant::min);
    let sent =
        seen.asked.iter().filter(|asked| asked.node == *victim && asked.at > known && asked.at + asked.took < last);
    sent.map(|asked| {
        let (after, since) = (asked.at.duration_since(seen.strike.at), asked.at.duration_since(known));
        format!("P6: {} was sent to {victim} {after:?} after the fault, {since:?} after that was known", asked.alias)
    })
    .collect()
}
