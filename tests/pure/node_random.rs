//! The node machine under random inputs at random times: what must hold whatever happens.
//!
//! P1: no try of a session is written to Asterisk twice in one life of the daemon, unless the first never left it.
//! P4: an order that was accepted is either still known, with a deadline or an answer to come, or was told how it
//! ended, once. P10: a node that drains rings nobody new. And an Originate is written only while Asterisk is in sync.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "the helpers of tests may fail loudly, too")]

#[path = "../node_support/mod.rs"]
mod node_support;

use std::collections::BTreeSet;

use node_support::Stand;
use proptest::prelude::*;

const SESSIONS: u32 = 4;
/// Phones that may ring at the same time.
const AT_ONCE: usize = 3;

/// What has been seen so far.
#[derive(Debug, Default)]
struct Seen {
    tracked: BTreeSet<String>,
    written: BTreeSet<String>,
}

impl Seen {
    /// Judges the effects of one line.
    fn judge(&mut self, stand: &Stand, line: &str, effects: &[String]) {
        let mut words = line.split(' ');
        let ordered = (words.next() == Some("order")).then(|| words.next().unwrap().to_owned());
        if let Some(id) = &ordered {
            self.tracked.insert(id.clone());
        }
        assert!(effects.len() < 60, "{line} has {} effects", effects.len());
        for effect in effects {
            let parts: Vec<&str> = effect.split(' ').collect();
            match parts[..] {
                [">", "Originate", what] => {
                    assert!(self.written.insert(what.to_owned()), "{line} writes {what} a second time");
                    assert!(self.tracked.contains(what.split('.').next().unwrap()), "{line} rings what nobody wants");
                }
                ["adopt", id, _] => {
                    self.tracked.insert(id.to_owned());
                }
                // Redis's own word that it is over, or was never known: nothing more to tell.
                ["drift", id] if !is_known(stand, id) => {
                    self.tracked.remove(id);
                }
                [id, "ended" | "failed" | "try-next-node", ..] => {
                    self.tracked.remove(id);
                }
                _ => {}
            }
        }
        let known: BTreeSet<String> = stand.node.sessions().map(|s| short(&s.login.session.to_string())).collect();
        assert_eq!(known, self.tracked, "after {line}, which gave {effects:?}: known here, and not told over");
    }
}

fn short(id: &str) -> String {
    format!("s{}", id.trim_start_matches('0'))
}

fn is_known(stand: &Stand, id: &str) -> bool {
    stand.node.sessions().any(|s| short(&s.login.session.to_string()) == id)
}

fn input() -> impl Strategy<Value = String> {
    let id = 1..=SESSIONS;
    prop_oneof![
        6 => (id.clone(), 1..=2u32).prop_map(|(id, attempt)| format!("order s{id} {attempt}")),
        2 => id.clone().prop_map(|id| format!("hangup s{id}")),
        4 => (id.clone(), prop::sample::select(vec!["new", "ringing", "up"])).prop_map(|(id, verb)| format!("{verb} s{id}")),
        3 => (id.clone(), prop::sample::select(vec![0, 16, 17, 19, 21, 34])).prop_map(|(id, cause)| format!("gone s{id} {cause}")),
        3 => (id.clone(), 1..=2u32, prop::sample::select(vec!["ok", "0", "3", "5"]))
            .prop_map(|(id, attempt, reason)| format!("response s{id}.{attempt} {reason}")),
        8 => (0..8usize, 0..6usize, 0..4u32).prop_map(|(which, how, mask)| format!("any {which} {how} {mask}")),
        1 => prop::sample::select(vec!["closed", "refused", "shutdown", "reload", "registered"]).prop_map(str::to_owned),
        3 => prop::sample::select(vec!["booted 0", "booted 5000"]).prop_map(str::to_owned),
        2 => prop::collection::vec((id.clone(), prop::sample::select(vec!["placed", "ringing", "live", "gone"])), 0..4)
            .prop_map(|rows| rows.iter().fold("recorded".to_owned(), |text, (id, state)| format!("{text} s{id}:{state}"))),
        1 => id.prop_map(|id| format!("stale s{id}")),
        1 => prop::sample::select(vec!["drain", "resume", "resume"]).prop_map(str::to_owned),
        5 => (0..5_000u32).prop_map(|ms| format!("wait {ms}")),
    ]
}

/// Answers one of the open actions, in one of the ways it can be answered.
fn answer_line(stand: &Stand, line: &str) -> Option<String> {
    let numbers: Vec<usize> = line.split(' ').skip(1).map(|word| word.parse().unwrap()).collect();
    let (name, _, about) = stand.open.get(numbers[0] % stand.open.len().max(1))?;
    let which = if about.is_empty() { name.clone() } else { format!("{name}:{about}") };
    let how = match (name.as_str(), numbers[1]) {
        (_, 0) => "notsent".to_owned(),
        (_, 1) => "unknown".to_owned(),
        (_, 2) => "error No such channel".to_owned(),
        ("Status", _) if numbers[2] > 0 => (1..=numbers[2])
            .map(|id| format!("s{id}:{}", ["Down", "Ringing", "Up"][id % 3]))
            .collect::<Vec<_>>()
            .join(" "),
        ("Status", _) => String::new(),
        ("DeviceStateList", _) => "PJSIP/cc1:NOT_INUSE".to_owned(),
        (_, _) => "ok".to_owned(),
    };
    Some(format!("answer {which} {how}").trim_end().to_owned())
}

fn step(stand: &mut Stand, seen: &mut Seen, line: &str) {
    let line = if line.starts_with("any ") {
        let Some(line) = answer_line(stand, line) else { return };
        line
    } else {
        line.to_owned()
    };
    // Never left the daemon, so it may be written again.
    if let Some(what) = line.strip_prefix("answer Originate:").and_then(|rest| rest.strip_suffix(" notsent")) {
        seen.written.remove(what);
    }
    let active = stand.node.state() == evenring::node::NodeState::Active;
    let text = stand.say(&line);
    let effects: Vec<String> = text.split("; ").filter(|effect| !effect.is_empty()).map(str::to_owned).collect();
    let now_active = stand.node.state() == evenring::node::NodeState::Active;
    if effects.iter().any(|effect| effect.starts_with("> Originate")) {
        assert!(active || now_active, "{line} rings while Asterisk is away: {effects:?}");
        assert_eq!(
            stand.node.admin_state(),
            evenring::node::AdminState::Ready,
            "{line} rings while the node drains: {effects:?}"
        );
    }
    if effects.iter().any(|effect| effect.starts_with("> Originate")) {
        let ringing = stand.node.sessions().filter(|session| session.is_ringing()).count();
        assert!(ringing <= AT_ONCE, "{line}: {ringing} ring at once");
    }
    seen.judge(stand, &line, &effects);
}

fn waiting(stand: &Stand) -> BTreeSet<String> {
    let waits = stand.node.sessions().filter(|session| session.is_waiting());
    waits.map(|session| short(&session.login.session.to_string())).collect()
}

fn told(stand: &Stand) -> BTreeSet<String> {
    stand.line.split(' ').filter(|id| !id.is_empty()).map(str::to_owned).collect()
}

/// Everything that is open is answered at last, as `ami` promises, and time passes.
fn settle(stand: &mut Stand, seen: &mut Seen) {
    for _ in 0..40 {
        while let Some((name, _, about)) = stand.open.first() {
            let which = if about.is_empty() { name.clone() } else { format!("{name}:{about}") };
            step(stand, seen, &format!("answer {which} unknown"));
        }
        let known = stand.node.sessions().map(|session| {
            let state = if session.is_live() { "live" } else { "ringing" };
            format!(" {}:{state}", short(&session.login.session.to_string()))
        });
        let recorded: String = known.collect();
        step(stand, seen, &format!("recorded{recorded}"));
        step(stand, seen, "wait 5000");
        assert_eq!(waiting(stand), told(stand), "Redis knows who waits");
    }
    let left: Vec<_> = stand.node.sessions().filter(|session| !session.is_live()).collect();
    assert!(left.is_empty(), "forgotten: {left:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_rung_twice_and_nothing_is_forgotten(lines in prop::collection::vec(input(), 1..60), tight in any::<bool>()) {
        let mut stand = Stand::ready_with(&format!("[ring]\nat_once = {AT_ONCE}\n{}", if tight { "rate = 1\nburst = 1\n" } else { "" }));
        let mut seen = Seen::default();
        for line in &lines {
            step(&mut stand, &mut seen, line);
        }
        settle(&mut stand, &mut seen);
    }
}
