//! A healthy cluster with one change at a time. Owns the findings that each change must give.

use super::super::finding::check;
use super::*;
use crate::ids::Case;

fn node(name: &str, state: &str) -> NodeRow {
    let lives = !["lease-expired", "stopped"].contains(&state);
    NodeRow {
        name: name.into(),
        state: state.into(),
        agents: 1,
        remote: 0,
        load: 1.0,
        weight: 1,
        queued: 0,
        max_agents: None,
        sip: None,
        address: None,
        registrations: Some(2),
        channels: 1,
        lease_ms: if lives { 2_500 } else { 0 },
        generation: "1".into(),
        refused: 0,
        version: "0.1.0".into(),
        case: "exact".into(),
        reason: String::new(),
        claimant: String::new(),
        left_out: Vec::new(),
        keepalive: None,
        restart_pending: Vec::new(),
        unsure: false,
        host: String::new(),
    }
}

fn phone(place: &str, state: &str) -> PhoneRow {
    let (extension, node) = place.split_once('@').expect("extension@node");
    PhoneRow { extension: extension.into(), node: node.into(), state: state.into(), contact: None }
}

fn session(state: &str, since: u64) -> SessionRow {
    SessionRow {
        session: format!("{since:016}"),
        alias: "cc1x".into(),
        extension: "cc1".into(),
        agent: "7".into(),
        campaign: String::new(),
        node: "a".into(),
        state: state.into(),
        queue_position: None,
        remote: false,
        reason: None,
        since,
        rejoined_from: String::new(),
        hold: false,
    }
}

fn good() -> Facts {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let settings = crate::config::Settings::load(Some(file.path()), std::iter::empty()).expect("defaults");
    Facts {
        own: Some("a".into()),
        nodes: vec![node("a", "active"), node("b", "active")],
        phones: ["cc1@a", "cc1@b", "cc2@a", "cc2@b"].map(|place| phone(place, "registered")).to_vec(),
        aliases: vec![AliasRow { alias: "desk".into(), phones: vec!["cc1@a".into(), "cc2@b".into()] }],
        sessions: vec![session("live", 0), session("ringing", 980_000), session("placed", 999_000)],
        waiting: vec![Waiting { queue: "ring-a".into(), oldest: Some(Duration::from_millis(900)) }],
        placement: settings.placement,
        ring_timeout: Duration::from_secs(20),
        now_ms: 1_000_000,
        redis_is_well: true,
    }
}

const NODES: (&str, &str, &str, &str) = ("nodes", "ok", "nodes in the rotation: 2", "");
const PHONES: (&str, &str, &str, &str) = ("phones", "ok", "all phones are registered: 2", "");
const ALIASES: (&str, &str, &str, &str) = ("aliases", "ok", "explicit aliases: 1", "");
const QUEUES: (&str, &str, &str, &str) = ("queues", "ok", "no orders or logins are overdue", "");
const SESSIONS: (&str, &str, &str, &str) = ("sessions", "ok", "open sessions: 3", "");

/// The findings on a good cluster after one change: in the place of the ones that the change spoils.
#[track_caller]
fn after(change: impl FnOnce(&mut Facts), expected: &[(&str, &str, &str, &str)]) {
    let mut facts = good();
    change(&mut facts);
    let mut all = Vec::new();
    for usual in [NODES, PHONES, ALIASES, QUEUES, SESSIONS] {
        let own: Vec<_> = expected.iter().filter(|(check, ..)| *check == usual.0).copied().collect();
        all.extend(if own.is_empty() { vec![usual] } else { own });
    }
    check(&judge(&facts), &all);
}

#[test]
fn a_good_cluster() {
    after(|_| {}, &[]);
    check(
        &judge(&Facts { nodes: Vec::new(), ..good() }),
        &[("nodes", "failure", "no node has ever registered", "evenring run")],
    );
}

/// One cause, one finding: nobody is told to forget a node because Redis is full.
#[test]
fn a_redis_that_takes_no_writes_is_not_blamed_on_nodes() {
    let mut facts = Facts { redis_is_well: false, ..good() };
    facts.nodes.extend([node("c", "lease-expired"), node("d", "starting")]);
    facts.waiting.push(Waiting { queue: "ring-c".into(), oldest: Some(Duration::from_secs(99)) });
    check(&judge(&facts), &[]);
}

#[test]
fn nodes_that_take_no_logins() {
    let forget = "`evenring forget c`";
    after(|f| f.nodes.push(node("c", "lease-expired")), &[("nodes", "warning", "c is lost", forget)]);
    after(|f| f.nodes.push(node("c", "stopped")), &[("nodes", "warning", "c is stopped", forget)]);
    after(|f| f.nodes.push(node("c", "draining")), &[("nodes", "note", "c is draining", "`evenring resume c`")]);
    after(|f| f.nodes.push(node("c", "down")), &[("nodes", "failure", "c is down", "start Asterisk")]);
    after(|f| f.nodes.push(node("c", "starting")), &[("nodes", "warning", "c is starting", "the daemon's log")]);
    after(
        |f| f.nodes.push(node("c", "stopping")),
        &[(
            "nodes",
            "warning",
            "c is stopping: its Asterisk was told to stop, and it takes no logins",
            "start Asterisk",
        )],
    );
    after(|f| f.nodes.push(node("c", "unknown")), &[("nodes", "warning", "c is unknown: Redis has no state", forget)]);
    after(|f| f.nodes.push(node("c", "paused")), &[("nodes", "warning", "c is paused: this version", "upgrade")]);
    after(|f| f.own = Some("x".into()), &[("nodes", "failure", "this node, x, has never", "systemctl start evenring")]);
    after(|f| f.nodes[1].max_agents = Some(1), &[("nodes", "warning", "full: b", "node.max_agents")]);
    after(
        |f| f.nodes.iter_mut().for_each(|node| node.state = "draining".into()),
        &[
            ("nodes", "note", "a is draining", ""),
            ("nodes", "note", "b is draining", ""),
            ("nodes", "failure", "all logins are refused", "findings above"),
        ],
    );
}

#[test]
fn phones_that_cannot_ring_everywhere() {
    after(
        |f| f.phones.push(phone("cc3@a", "unreachable")),
        &[("phones", "note", "registered on no node (1): cc3", "`evenring phones`")],
    );
    after(
        |f| f.phones[1].state = "unregistered".into(),
        &[("phones", "warning", "on one node only (1): cc1", "on all nodes")],
    );
    // What only one node knows is meant to be there alone.
    after(|f| f.phones.push(phone("cc3@a", "registered")), &[("phones", "ok", "all phones are registered: 3", "")]);
    // What a dead node had registered counts for nothing.
    after(
        |f| {
            f.nodes.push(node("c", "lease-expired"));
            f.phones.push(phone("cc3@c", "registered"));
        },
        &[("nodes", "warning", "c is lost", "")],
    );
    after(
        |f| f.phones.iter_mut().for_each(|phone| phone.state = "unregistered".into()),
        &[
            ("phones", "failure", "none of 2 phones is registered", "`evenring phones`"),
            ("aliases", "warning", "desk has no registered phone: cc1@a, cc2@b", "register one of them"),
        ],
    );
    after(
        |f| f.phones.clear(),
        &[
            ("phones", "failure", "no living node knows any phone", "read = system,call"),
            ("aliases", "warning", "", ""),
        ],
    );
}

#[test]
fn phones_that_are_left_out() {
    let row = |reason: &str, examples: &[&str]| LeftOutRow {
        reason: reason.into(),
        phones: 7,
        examples: examples.iter().map(|&example| example.to_owned()).collect(),
    };
    after(
        |f| {
            f.nodes[0].left_out = vec![row("name", &["PJSIP/cc500@t1", "SIP/a b"]), row("max-phones", &["cc9"])];
            f.nodes[1].left_out = vec![row("max-devices", &[])];
            f.nodes.push(NodeRow { left_out: vec![row("name", &[])], ..node("c", "lease-expired") });
        },
        &[
            ("nodes", "warning", "c is lost", ""),
            ("phones", "warning", "on a: 7 have names that are not valid ids: PJSIP/cc500@t1, SIP/a b", "rename"),
            ("phones", "warning", "on a: 7 are over ami.max_phones: cc9", "raise ami.max_phones"),
            ("phones", "warning", "on b: 7 are over ami.max_devices", "raise ami.max_devices"),
        ],
    );
}

#[test]
fn aliases_that_name_nothing() {
    let alias =
        |phones: &[&str]| AliasRow { alias: "x".into(), phones: phones.iter().map(|&p| p.to_owned()).collect() };
    let fix = "`evenring alias set x";
    after(|f| f.aliases.push(alias(&["cc9@a"])), &[("aliases", "warning", "x has no registered phone: cc9@a", fix)]);
    after(|f| f.aliases.push(alias(&["cc1@a", "cc1@z"])), &[("aliases", "warning", "x names unknown nodes: z", fix)]);
    after(|f| f.aliases.push(alias(&["cc1@a", "cc9@b"])), &[("aliases", "warning", "unknown phones: cc9@b", fix)]);
}

#[test]
fn names_that_are_compared_differently() {
    let fix = "on all nodes";
    after(
        |f| f.nodes[1].case = "fold".into(),
        &[("nodes", "failure", "exact on a; fold on b; exact in this configuration", fix)],
    );
    after(|f| f.placement.case = Case::Fold, &[("nodes", "failure", "exact on a, b; fold in this", fix)]);
    // A dead node compares nothing, and is made again with the settings of that day.
    after(
        |f| f.nodes.push(NodeRow { case: "fold".into(), ..node("c", "lease-expired") }),
        &[("nodes", "warning", "c is lost", "")],
    );
    let fold = |f: &mut Facts| {
        f.placement.case = Case::Fold;
        f.nodes.iter_mut().for_each(|node| node.case = "fold".into());
    };
    after(fold, &[]);
    let with = |alias: &str, phone: &str| AliasRow { alias: alias.into(), phones: vec![phone.into()] };
    after(
        |f| {
            fold(f);
            f.aliases.extend([with("Desk7", "cc1@a"), with("desk8", "CC1@a"), with("desk9", "cc1@a")]);
        },
        &[(
            "aliases",
            "warning",
            "created before placement.case was fold (2): Desk7, desk8",
            "import aliases.txt \
            --replace",
        )],
    );
}

#[test]
fn orders_and_sessions_that_wait_too_long() {
    let waits = |queue: &str, s| Waiting { queue: queue.into(), oldest: Some(Duration::from_secs(s)) };
    let drain = "`evenring drain b`";
    after(|f| f.waiting.push(waits("ring-b", 4)), &[("queues", "warning", "for b has been waiting for 4s", drain)]);
    after(|f| f.waiting.push(waits("ring-b", 11)), &[("queues", "failure", "for b has been waiting for 11s", drain)]);
    after(
        |f| f.waiting.push(waits("logins", 60)),
        &[("queues", "failure", "queue logins has been waiting for 1m", "start a daemon")],
    );
    after(
        |f| f.sessions.extend([session("ringing", 963_000), session("placed", 983_000), session("queued", 0)]),
        &[(
            "sessions",
            "warning",
            "0000000000963000 (ringing on a), 0000000000983000 (placed on a)",
            "evenring logout",
        )],
    );
}

/// Each but `active` gives a finding, and only one that is starting is not in sync yet.
#[test]
fn every_state_of_a_node_has_a_text() {
    for shown in ShownNodeState::ALL {
        let finding = state(&node("c", shown.as_str()));
        assert_eq!(finding.is_none(), shown == ShownNodeState::Active, "{shown:?}");
        let not_in_sync = finding.is_some_and(|finding| finding.finding.contains("not in sync"));
        assert_eq!(not_in_sync, shown == ShownNodeState::Starting, "{shown:?}");
    }
}
