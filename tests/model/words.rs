//! The program's types as the model's words, and back. Owns nothing but that translation.

use std::time::Duration;

use evenring::ids::SessionId;
use evenring::node::RecordedState;
use evenring::node::roster::PhoneState;
use evenring::node::session::{Class, Outcome, Reason};
use evenring::registry::view::{Placement, Verdict, reason_text};
use evenring::registry::{self, LoginRequest, Order, Require};

use super::fetch_sequence::Taken;
use super::op::Login;
use super::rules::{Answer, Wish};
use super::world::{Hold, Session};
use crate::redis_fixture::id;

pub fn phone_state(word: &str) -> PhoneState {
    match word {
        "registered" => PhoneState::Registered,
        "unreachable" => PhoneState::Unreachable,
        "unregistered" => PhoneState::Unregistered,
        _ => PhoneState::Unknown,
    }
}

/// Every order of a few things.
pub fn orders(all: &[SessionId]) -> Vec<Vec<SessionId>> {
    if all.len() <= 1 {
        return vec![all.to_vec()];
    }
    let mut found = Vec::new();
    for (at, first) in all.iter().enumerate() {
        let mut rest = all.to_vec();
        rest.remove(at);
        for mut order in orders(&rest) {
            order.insert(0, *first);
            found.push(order);
        }
    }
    found
}

pub fn recorded(state: RecordedState) -> &'static str {
    match state {
        RecordedState::Placed => "placed",
        RecordedState::Ringing => "ringing",
        RecordedState::Live => "live",
        RecordedState::HangupRequested => "hangup-requested",
        RecordedState::Gone => "gone",
    }
}

pub fn outcome(what: &str) -> Outcome {
    match what {
        "live" => Outcome::Live,
        "ended" => Outcome::Ended(Reason::HungUp),
        "logged-out" => Outcome::Ended(Reason::LoggedOut),
        "failed" => Outcome::Failed(Reason::Busy),
        "lost" => Outcome::Ended(Reason::NodeLost),
        "drained" => Outcome::TryNextNode(Reason::Draining),
        "stopped" => Outcome::TryNextNode(Reason::Stopping),
        _ => Outcome::TryNextNode(Reason::Congestion(34)),
    }
}

pub fn wish(login: &Login) -> Wish {
    let agent = login.agent.map(str::to_owned);
    let hold = login.hold.map(|(seconds, known)| Hold { ttl: seconds * 1000, known });
    let campaign = login.campaign.into();
    Wish { alias: login.alias.into(), agent, campaign, remote: login.remote, moves: login.moves, hold }
}

pub fn request(login: &Login) -> LoginRequest {
    LoginRequest {
        alias: id(login.alias),
        agent: login.agent.map(id),
        campaign: (!login.campaign.is_empty()).then(|| id(login.campaign)),
        class: if login.remote { Class::Remote } else { Class::Local },
        moves: login.moves,
        hold: login.hold.map(|(seconds, known)| registry::Hold {
            ttl: Duration::from_secs(seconds.unsigned_abs()),
            require: if known { Require::Known } else { Require::Registered },
        }),
    }
}

pub fn as_login(session: SessionId, s: &Session) -> evenring::node::session::Login {
    evenring::node::session::Login {
        session,
        attempt: s.attempt,
        alias: id(&s.alias),
        extension: id(&s.extension),
        agent: id(&s.agent),
        campaign: (!s.campaign.is_empty()).then(|| id(&s.campaign)),
        class: if s.remote { Class::Remote } else { Class::Local },
    }
}

pub fn answer(real: &Placement) -> Answer {
    let verdict = match real.verdict {
        Verdict::Placed => "placed",
        Verdict::Existing => "existing",
        Verdict::Refused => "refused",
        Verdict::WouldPlace => "would-place",
        Verdict::NotNow => "not-now",
    };
    let rows = real.nodes.iter().map(|row| (row.name.clone(), reason_text(row.reason.as_ref()), row.load)).collect();
    let (node, reason) = (real.node.clone(), reason_text(real.reason.as_ref()));
    let moved_from = real.moved_from.as_ref().map(|was| id(&was.session));
    comparable(Answer { verdict, session: real.session, node, reason, moved_from, rows })
}

/// Without the loads of lost nodes: whether their sessions are ended before or after the look is nobody's business.
pub fn comparable(mut answer: Answer) -> Answer {
    answer.rows.sort_by(|a, b| a.0.cmp(&b.0));
    for row in
        answer.rows.iter_mut().filter(|row| ["lease-expired", "stopped", "unknown-node"].contains(&row.1.as_str()))
    {
        row.2 = 0.0;
    }
    answer
}

pub fn taken(order: Order) -> Taken {
    match order {
        Order::Ring(login) => Taken::Ring(login.session, login.attempt, login.extension.to_string()),
        Order::HangUp(at) => Taken::HangUp(at),
        Order::Moved(at, result) => Taken::Moved(at, result.to_string()),
        Order::Expired(at) => Taken::Expired(at),
        Order::Stale(at) => Taken::Stale(id(&at)),
    }
}
