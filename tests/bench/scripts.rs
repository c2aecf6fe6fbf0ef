//! How long each script holds Redis in a large cluster: 200 nodes, 20,000 sessions, 100,000 phones. The real scripts, called as
//! the daemons and the command line call them.
//!
//! Owns the rows and the work that each measures. A row shows the longest call of all that its work took, in Redis's time on its
//! core; beside it by the clock, in which the machine's other work is, too. The work is done in several rounds, and noise only
//! adds, so of each call the least of all rounds counts.

use std::time::Duration;

use evenring::ids::SessionId;
use evenring::node::roster::{PhoneChanges, PhoneState};
use evenring::node::session::{Outcome, Reason};
use evenring::node::{AdminState, Live};
use evenring::registry::events::NewEvent;
use evenring::registry::view::{Verdict, Which};
use evenring::registry::{
    ADOPT_MOST, Confirmed, Forgotten, Hold, LoginRequest, Registered, Require, Settled, ToldSettings,
};
use evenring::runtime::random::new_session;

use crate::harness::{Bench, Reach};
use crate::large::{FIRST, Large, NODES, ORDERS, SESSIONS, life, name, request};

const ROUNDS: usize = 7;
const REACH: Reach = Reach::AtMost(5_000.0);

/// The second word is the name of the script.
const ROWS: [&str; 31] = [
    "script place, 200 nodes",
    "script place, explaining, 200 nodes",
    "script receive, 64 logins",
    "script settle, 64 logins, 200 nodes",
    "script hold, 200 nodes",
    "script confirm",
    "script queue, 200 nodes",
    "script fetch_orders, 64 orders",
    "script report, 200 live",
    "script report, 200 that could not ring, 200 nodes",
    "script report, 200 lost with rejoin, 200 nodes",
    "script adopt, 200 sessions",
    "script heartbeat, 200 nodes",
    "script heartbeat, a lost node with 300 orders and 100 calls",
    "script drain, 300 orders, 200 nodes",
    "script leave, 300 orders, 200 nodes",
    "script ring_queue, 1,000 come and go",
    "script sessions, 20,000 open and 20,000 over",
    "script status, 200 nodes",
    "script phones, 20,000 of one node told again",
    "script contacts, 20,000 of one node told again",
    "script logout, 300 placed",
    "script register, 200 nodes",
    "script forget, a node with 20,000 phones",
    "script limits",
    "script append_events, 100 entries",
    "script keepalive",
    "script rights",
    "script try_login",
    "script settings",
    "script idempotency",
];

pub fn rows(bench: &mut Bench) {
    if !ROWS.iter().any(|row| bench.wants(row)) {
        return;
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut large = Large::new().await;
        for _ in 0..ROUNDS {
            large.round().await;
        }
        assert_eq!(large.measured.len(), ROWS.len(), "each is measured, and nothing else");
        for row in ROWS {
            let calls = large.measured.get(row).unwrap_or_else(|| panic!("{row} was not measured"));
            bench.add(row, "us", REACH, &[calls.longest()]);
        }
    });
}

impl Large {
    async fn round(&mut self) {
        self.places().await;
        self.settles().await;
        self.takes_and_reports().await;
        self.lost_calls().await;
        self.beats().await;
        self.goes().await;
        self.lines().await;
        self.shows().await;
        self.tables().await;
        self.words().await;
    }

    async fn places(&mut self) {
        self.watch().await;
        self.order(ORDERS).await;
        self.row("script place, 200 nodes").await;
        self.watch().await;
        for number in 0..20 {
            self.registry.explain(&request(ORDERS + number), new_session()).await.expect("Redis");
        }
        self.row("script place, explaining, 200 nodes").await;
        self.watch().await;
        self.call_off(ORDERS).await;
        self.row("script logout, 300 placed").await;
        self.holds().await;
    }

    async fn holds(&mut self) {
        self.watch().await;
        let mut held = Vec::new();
        for number in 0..64 {
            let hold = Hold { ttl: Hold::MOST, require: Require::Known };
            let (login, id) = (LoginRequest { hold: Some(hold), ..request(number) }, new_session());
            assert_eq!(self.registry.place(&login, id).await.expect("Redis").verdict, Verdict::Placed);
            held.push(id);
        }
        self.row("script hold, 200 nodes").await;
        self.watch().await;
        for id in held {
            assert_eq!(self.registry.confirm(id).await.expect("Redis"), Confirmed::Live);
        }
        self.row("script confirm").await;
        self.call_off(64).await;
        self.watch().await;
        assert!(self.registry.queues().await.expect("Redis").len() > 200);
        self.row("script queue, 200 nodes").await;
    }

    async fn settles(&mut self) {
        for number in 0..64 {
            let (id, body) = (format!("{number:032}"), format!(r#"{{"alias":"cc{}x","reply":"web-1"}}"#, 100 + number));
            self.ask(&["ZADD", "{evenring}:logins", "1", &id]).await;
            self.ask(&["HSET", "{evenring}:logins:Q", &id, &body]).await;
        }
        self.watch().await;
        let messages = self.registry.receive_logins(64, None).await.expect("Redis").messages;
        self.row("script receive, 64 logins").await;
        self.watch().await;
        let mut rest = &messages[..];
        while !rest.is_empty() {
            let settled = self.registry.settle_logins(rest).await.expect("Redis");
            assert!(settled.iter().all(|settled| matches!(settled, Settled::Placed(_))), "{settled:?}");
            rest = &rest[settled.len()..];
        }
        self.row("script settle, 64 logins, 200 nodes").await;
        self.call_off(64).await;
    }

    async fn takes_and_reports(&mut self) {
        let sessions = self.order(200).await;
        self.watch().await;
        while self.take(64).await > 0 {}
        self.row("script fetch_orders, 64 orders").await;
        self.watch().await;
        self.report(FIRST, sessions.iter().map(|id| (*id, Outcome::Live)).collect()).await;
        self.row("script report, 200 live").await;
        self.call_off(200).await;
        let sessions = self.order(200).await;
        while self.take(64).await > 0 {}
        self.watch().await;
        self.report(FIRST, sessions.iter().map(|id| (*id, Outcome::TryNextNode(Reason::NotReachable))).collect()).await;
        self.row("script report, 200 that could not ring, 200 nodes").await;
        self.call_off(200).await;
    }

    async fn lost_calls(&mut self) {
        let sessions = self.order(200).await;
        while self.take(64).await > 0 {}
        self.report(FIRST, sessions.iter().map(|id| (*id, Outcome::Live)).collect()).await;
        self.watch().await;
        self.report(FIRST, sessions.iter().map(|id| (*id, Outcome::Ended(Reason::NodeLost))).collect()).await;
        self.row("script report, 200 lost with rejoin, 200 nodes").await;
        self.call_off(200).await;
        let found = self.found(200, Live::Yes);
        self.watch().await;
        for part in found.chunks(ADOPT_MOST) {
            self.registry.adopt(&name(FIRST), life(FIRST), part).await.expect("Redis");
        }
        self.row("script adopt, 200 sessions").await;
        let over = found.iter().map(|(login, _)| (login.session, Outcome::Ended(Reason::HungUp))).collect();
        self.report(FIRST, over).await;
    }

    async fn beats(&mut self) {
        self.watch().await;
        for number in 0..NODES {
            self.beat(number).await;
        }
        self.row("script heartbeat, 200 nodes").await;
        self.order(ORDERS).await;
        self.ask(&["HSET", "{evenring}:node:n000", "lease_until", "1000", "expired", "1"]).await;
        self.watch().await;
        let mut reaped = 0;
        while reaped < ORDERS as usize + SESSIONS as usize {
            reaped += self.beat(1).await;
        }
        self.row("script heartbeat, a lost node with 300 orders and 100 calls").await;
        self.join(FIRST).await;
        self.fill(FIRST).await;
        self.call_off(ORDERS).await;
    }

    async fn goes(&mut self) {
        self.order(ORDERS).await;
        self.watch().await;
        let turned =
            self.registry.set_admin_state(&name(FIRST), AdminState::Drain).await.expect("Redis").expect("a node");
        self.row("script drain, 300 orders, 200 nodes").await;
        assert_eq!(turned.moved.len(), ORDERS as usize);
        self.registry.set_admin_state(&name(FIRST), AdminState::Ready).await.expect("Redis");
        self.call_off(ORDERS).await;
        self.order(ORDERS).await;
        self.watch().await;
        assert_eq!(
            self.registry.leave(&name(FIRST), life(FIRST), &mut self.beats).await.expect("Redis"),
            ORDERS as usize
        );
        self.row("script leave, 300 orders, 200 nodes").await;
        self.join(FIRST).await;
        self.call_off(ORDERS).await;
    }

    async fn lines(&mut self) {
        let found = self.found(1_000, Live::NotYet);
        for part in found.chunks(ADOPT_MOST) {
            self.registry.adopt(&name(FIRST), life(FIRST), part).await.expect("Redis");
        }
        let waiting: Vec<_> = found.iter().map(|(login, _)| login.session).collect();
        self.watch().await;
        for line in [&waiting[..], &waiting[500..], &[]] {
            self.registry.report_ring_queue(&name(FIRST), life(FIRST), line).await.expect("Redis");
        }
        self.row("script ring_queue, 1,000 come and go").await;
        let over = waiting.iter().map(|id| (*id, Outcome::Failed(Reason::NoAnswer))).collect();
        self.report(FIRST, over).await;
    }

    async fn shows(&mut self) {
        while self.over().await < 20_000 {
            let found = self.found(100, Live::Yes);
            self.registry.adopt(&name(FIRST), life(FIRST), &found).await.expect("Redis");
            let ended = found.iter().map(|(login, _)| (login.session, Outcome::Ended(Reason::HungUp))).collect();
            self.report(FIRST, ended).await;
        }
        self.watch().await;
        let rows = self.registry.sessions(Which::All).await.expect("Redis");
        self.row("script sessions, 20,000 open and 20,000 over").await;
        assert!(rows.len() > 35_000, "{}", rows.len());
        self.watch().await;
        assert_eq!(self.registry.nodes().await.expect("Redis").len(), NODES as usize);
        self.row("script status, 200 nodes").await;
    }

    async fn over(&mut self) -> u64 {
        let count = self.ask(&["ZCARD", "{evenring}:index:ended"]).await;
        redis::from_redis_value(count).expect("a number")
    }

    /// A node with as many phones as one may have tells them three times, and goes for good.
    async fn tables(&mut self) {
        let node = NODES;
        self.join(node).await;
        let extension = |n: u32| format!("big{n}").parse().expect("an extension");
        let phones: Vec<_> = (0..20_000).map(|n| (extension(n), PhoneState::Registered)).collect();
        self.watch().await;
        for _ in 0..3 {
            let changes = PhoneChanges { replace: true, phones: phones.clone() };
            self.registry.phones(&name(node), life(node), &changes).await.expect("Redis");
        }
        self.row("script phones, 20,000 of one node told again").await;
        let details = r#"{"address":"192.0.2.1:5060","rtt_us":1234}"#;
        let contacts: Vec<_> = (0..20_000).map(|n| (format!("big{n}"), details.to_owned())).collect();
        self.watch().await;
        for _ in 0..3 {
            self.registry.contacts(&name(node), life(node), &contacts).await.expect("Redis");
        }
        self.row("script contacts, 20,000 of one node told again").await;
        self.registry.leave(&name(node), life(node), &mut self.beats).await.expect("Redis");
        self.watch().await;
        assert_eq!(self.registry.forget(&name(node)).await.expect("Redis"), Forgotten::Yes);
        self.row("script forget, a node with 20,000 phones").await;
    }

    /// What is about one node, and writes a few fields.
    async fn words(&mut self) {
        self.watch().await;
        for number in 0..NODES {
            let node = self.settings_of(number);
            let registered = self.registry.register(&node, life(number), "bench").await.expect("Redis");
            assert!(matches!(registered, Registered::Taken { .. }), "{registered:?}");
        }
        self.row("script register, 200 nodes").await;
        for number in 0..NODES {
            self.beat(number).await;
        }
        self.watch().await;
        for number in 0..NODES {
            let node = self.settings_of(number);
            self.registry.limits(&node, life(number)).await.expect("Redis");
        }
        self.row("script limits").await;
        let told =
            |k| NewEvent { event: "drift", session: Some(SessionId::from_bits(1 << 16 | k)), reason: "bench".into() };
        let told: Vec<_> = (0..SESSIONS).map(told).collect();
        self.watch().await;
        for number in 0..20 {
            self.registry.append_events(&name(FIRST), life(FIRST), number, &told).await.expect("Redis");
        }
        self.row("script append_events, 100 entries").await;
        self.watch().await;
        for _ in 0..20 {
            let node = name(FIRST);
            let begin = self.registry.keepalive_begins(&node, life(FIRST), Duration::ZERO, "bench");
            assert_eq!(begin.await.expect("Redis"), None);
            self.registry.keepalive_ended(&node, life(FIRST), "bench").await.expect("Redis");
        }
        self.row("script keepalive").await;
        self.watch().await;
        self.registry.rights().await.expect("Redis");
        self.row("script rights").await;
        self.watch().await;
        for _ in 0..20 {
            self.registry.try_login().await.expect("Redis");
        }
        self.row("script try_login").await;
        let told =
            ToldSettings { shared: [("placement.tries".to_owned(), "3".to_owned())].into(), restart: Vec::new() };
        self.watch().await;
        for _ in 0..20 {
            self.registry.tell_settings(&name(FIRST), life(FIRST), &told, 0).await.expect("Redis");
        }
        self.row("script settings").await;
        self.watch().await;
        for _ in 0..20 {
            assert!(self.registry.belongs_to(new_session(), &request(0)).await.expect("Redis"));
        }
        self.row("script idempotency").await;
    }
}
