//! An operation, and how sequences of them are made up. Owns the few names that a sequence is about: few, so that
//! they get into each other's way.

use proptest::prelude::*;
use proptest::sample::select;

pub const NODES: [&str; 3] = ["a", "b", "c"];
/// `e1x` ends with the suffix: it is a phone of its own, and the alias of `e1` where that is known.
pub const PHONES: [&str; 4] = ["e1", "e2", "e3", "e1x"];
pub const AGENTS: [&str; 4] = ["7", "8", "9", "e1"];
pub const CAMPAIGNS: [&str; 4] = ["", "", "red", "blue"];
pub const ALIASES: [&str; 8] = ["e1x", "e2x", "e3x", "e1", "e2", "e1xx", "desk", "nobodyx"];

#[derive(Debug, Clone)]
pub struct Login {
    pub alias: &'static str,
    pub agent: Option<&'static str>,
    pub campaign: &'static str,
    pub remote: bool,
    pub moves: bool,
    /// Seconds, and whether the phone need not be registered.
    pub hold: Option<(i64, bool)>,
}

/// Who speaks: `old` is a generation of before.
#[derive(Debug, Clone, Copy)]
pub struct Voice {
    pub node: &'static str,
    pub old: bool,
}

/// What becomes of a take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FetchOutcome {
    /// The daemon hears the answer.
    Heard,
    /// The answer is lost.
    Lost,
    /// It was given up long ago, and is carried out only now.
    Late,
}

/// How far a node gets with a login of the inbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    Received,
    Placed,
    Answered,
}

#[derive(Debug, Clone)]
pub enum Op {
    Register {
        node: &'static str,
        host: &'static str,
        same: bool,
        weight: u32,
        cap: Option<u32>,
        red: bool,
    },
    Beat {
        voice: Voice,
        state: &'static str,
        channels: usize,
        rejoin: bool,
        /// It was sent long ago, and is carried out only now.
        late: bool,
    },
    Phones {
        voice: Voice,
        replace: bool,
        phones: Vec<(&'static str, &'static str)>,
    },
    Contacts {
        voice: Voice,
        contacts: Vec<(&'static str, &'static str)>,
    },
    SetAlias {
        alias: &'static str,
        places: Vec<(&'static str, &'static str)>,
    },
    RemoveAlias {
        alias: &'static str,
    },
    /// `again`: with the id of a session that was there before.
    Place {
        login: Login,
        again: Option<usize>,
    },
    Explain {
        login: Login,
    },
    /// The agent of a hold is on the phone.
    Confirm {
        which: usize,
    },
    /// A login by the shared inbox; `None`: something that is none.
    Submit {
        login: Option<Login>,
        reply: bool,
    },
    /// A node receives some of the inbox, places and answers them, or dies before that is done.
    Serve {
        most: usize,
        until: Until,
    },
    /// An answer is sent again: the first one's own reply was lost.
    AnswerAgain {
        which: usize,
    },
    Fetch {
        voice: Voice,
        most: usize,
        outcome: FetchOutcome,
    },
    /// `home`: the node of the first session speaks.
    Report {
        voice: Voice,
        home: bool,
        outcomes: Vec<(usize, &'static str)>,
        rejoin: bool,
    },
    Adopt {
        voice: Voice,
        home: bool,
        found: Vec<(usize, bool)>,
    },
    Leave {
        voice: Voice,
    },
    Logout {
        who: &'static str,
    },
    LogoutSession {
        which: usize,
    },
    Drain {
        node: &'static str,
        drain: bool,
    },
    Line {
        voice: Voice,
        home: bool,
        waiting: Vec<(usize, ())>,
    },
    Forget {
        node: &'static str,
    },
    Pass {
        seconds: i64,
    },
    /// One host dies: its lease is long over, and nobody has noticed yet.
    Lapse {
        node: &'static str,
    },
    Flush,
}

fn node() -> impl Strategy<Value = &'static str> {
    select(&NODES[..])
}

fn voice() -> impl Strategy<Value = Voice> {
    (node(), prop::bool::weighted(0.05)).prop_map(|(node, old)| Voice { node, old })
}

fn login() -> impl Strategy<Value = Login> {
    let agent = prop::option::weighted(0.6, select(&AGENTS[..]));
    let campaign = select(&CAMPAIGNS[..]);
    let hold = prop::option::weighted(0.2, (select(&[30_i64, 50, 250][..]), any::<bool>()));
    (select(&ALIASES[..]), agent, campaign, prop::bool::weighted(0.2), prop::bool::weighted(0.3), hold)
        .prop_map(|(alias, agent, campaign, remote, moves, hold)| Login { alias, agent, campaign, remote, moves, hold })
}

fn register() -> impl Strategy<Value = Op> {
    let cap = prop::option::weighted(0.4, 1..3_u32);
    (node(), select(&["h", "h", "other"][..]), prop::bool::weighted(0.3), 1..3_u32, cap, prop::bool::weighted(0.2))
        .prop_map(|(node, host, same, weight, cap, red)| Op::Register { node, host, same, weight, cap, red })
}

fn phone_changes() -> impl Strategy<Value = Op> {
    let state = select(&["registered", "registered", "unreachable", "unregistered", "unknown"][..]);
    (voice(), prop::bool::weighted(0.3), prop::collection::vec((select(&PHONES[..]), state), 0..5))
        .prop_map(|(voice, replace, phones)| Op::Phones { voice, replace, phones })
}

fn contacts() -> impl Strategy<Value = Op> {
    let details = select(&[r#"{"address":"192.0.2.1:5060"}"#, r#"{"rtt_us":1234}"#][..]);
    (voice(), prop::collection::vec((select(&PHONES[..]), details), 0..4))
        .prop_map(|(voice, contacts)| Op::Contacts { voice, contacts })
}

fn inbox() -> impl Strategy<Value = Op> {
    let until = select(&[Until::Answered, Until::Answered, Until::Answered, Until::Placed, Until::Received][..]);
    prop_oneof![
        5 => (prop::option::weighted(0.9, login()), any::<bool>())
            .prop_map(|(login, reply)| Op::Submit { login, reply }),
        6 => (1..4_usize, until).prop_map(|(most, until)| Op::Serve { most, until }),
        1 => (0..64_usize).prop_map(|which| Op::AnswerAgain { which }),
    ]
}

fn set_alias() -> impl Strategy<Value = Op> {
    let place = (select(&PHONES[..]), select(&["a", "b", "c", "nowhere"][..]));
    (select(&["desk", "desk", "e2x", "e1xx"][..]), prop::collection::vec(place, 1..4))
        .prop_map(|(alias, places)| Op::SetAlias { alias, places })
}

fn report() -> impl Strategy<Value = Op> {
    let what = select(
        &[
            "live",
            "live",
            "live",
            "ended",
            "logged-out",
            "failed",
            "lost",
            "try-next-node",
            "try-next-node",
            "drained",
            "stopped",
        ][..],
    );
    (voice(), prop::bool::weighted(0.8), prop::collection::vec((0..64_usize, what), 1..6), any::<bool>())
        .prop_map(|(voice, home, outcomes, rejoin)| Op::Report { voice, home, outcomes, rejoin })
}

/// One operation.
pub fn op() -> impl Strategy<Value = Op> {
    let state = select(&["active", "active", "active", "active", "starting", "down"][..]);
    let who = select(&["e1x", "e2x", "e1", "e2", "e3", "desk", "7", "8", "9"][..]);
    let again = prop::option::weighted(0.1, 0..64_usize);
    prop_oneof![
        2 => register(),
        10 => (voice(), state, 0..3_usize, any::<bool>(), prop::bool::weighted(0.1))
            .prop_map(|(voice, state, channels, rejoin, late)| Op::Beat { voice, state, channels, rejoin, late }),
        4 => phone_changes(),
        1 => contacts(),
        8 => inbox(),
        2 => set_alias(),
        1 => select(&["desk", "e2x", "e1xx"][..]).prop_map(|alias| Op::RemoveAlias { alias }),
        14 => (login(), again).prop_map(|(login, again)| Op::Place { login, again }),
        2 => login().prop_map(|login| Op::Explain { login }),
        2 => (0..64_usize).prop_map(|which| Op::Confirm { which }),
        10 => (voice(), select(&[64_usize, 64, 1, 2][..]), select(&[FetchOutcome::Heard, FetchOutcome::Heard, FetchOutcome::Lost, FetchOutcome::Late][..]))
            .prop_map(|(voice, most, outcome)| Op::Fetch { voice, most, outcome }),
        10 => report(),
        4 => (voice(), any::<bool>(), prop::collection::vec((0..64_usize, any::<bool>()), 1..4))
            .prop_map(|(voice, home, found)| Op::Adopt { voice, home, found }),
        2 => node().prop_map(|node| Op::Lapse { node }),
        1 => voice().prop_map(|voice| Op::Leave { voice }),
        3 => who.prop_map(|who| Op::Logout { who }),
        1 => (0..64_usize).prop_map(|which| Op::LogoutSession { which }),
        2 => (node(), any::<bool>()).prop_map(|(node, drain)| Op::Drain { node, drain }),
        4 => (voice(), any::<bool>(), prop::collection::vec((0..64_usize, Just(())), 0..4))
            .prop_map(|(voice, home, waiting)| Op::Line { voice, home, waiting }),
        2 => node().prop_map(|node| Op::Forget { node }),
        2 => select(&[21_i64, 41, 61, 101, 201][..]).prop_map(|seconds| Op::Pass { seconds }),
        1 => prop::bool::weighted(0.15).prop_map(|flush| if flush { Op::Flush } else { Op::Pass { seconds: 21 } }),
    ]
}

/// A cluster that works: from here most operations do something.
pub fn beginning() -> Vec<Op> {
    let mut ops = Vec::new();
    for node in NODES {
        let voice = Voice { node, old: false };
        ops.push(Op::Register { node, host: "h", same: false, weight: 1, cap: None, red: false });
        ops.push(Op::Phones { voice, replace: true, phones: PHONES[..3].iter().map(|e| (*e, "registered")).collect() });
        ops.push(Op::Beat { voice, state: "active", channels: 0, rejoin: false, late: false });
    }
    ops.push(Op::SetAlias { alias: "desk", places: vec![("e1", "a"), ("e2", "b"), ("e3", "c")] });
    ops
}
