//! One round: agents are live, others log in, the fault strikes in the middle of that, it is repaired, all is looked at.
//!
//! Owns the order of these and the times. Must never know a certain fault, nor decide what is right.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use evenring::registry::view::{NodeRow, SessionRow, SessionState, ShownNodeState, reason_text};

use super::callers::{Door, Patience};
use super::ground::Ground;
use super::judge::{self, Answer, Asked, Calls, Evidence, Fate, Memory, Strike, judge};
use super::setup::{HEARTBEAT, Setup, TRIES, alias};
use crate::lab::phone::What;
use crate::lab::{at_this_load, now, wait_for, wait_until};

/// Who is live when the fault comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Live {
    /// So many, as evenring placed them.
    Spread(u32),
    /// So many on node a, and then some that evenring placed elsewhere.
    OnA(u32, u32),
}

/// The most that a time may be. None: it is not looked at.
#[derive(Debug, Clone, Copy, Default)]
pub struct Limits {
    /// From the fault until Redis has the node it struck out of the rotation.
    pub out: Option<Duration>,
    /// From the fault until logins are accepted again.
    pub again: Option<Duration>,
    /// The longest that anybody waits for an answer, whatever is broken.
    pub prompt: Option<Duration>,
    /// From the fault until the phones of 99 of 100 agents, who were live on the lost node, rang elsewhere.
    pub elsewhere: Option<Duration>,
}

/// What the fault may do to the rotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rotation {
    /// Nodes may leave it for a while.
    Changes,
    /// None leaves it, ever.
    Stays,
}

/// A fault.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    /// Its name on the command line.
    pub name: &'static str,
    /// The stage that it needs.
    pub ground: Ground,
    /// What happens, for people.
    pub what: &'static str,
    /// Who is live.
    pub live: Live,
    /// How many log in around it.
    pub logins: u32,
    /// Between two of them.
    pub every: Duration,
    /// Where they do.
    pub door: Door,
    /// The node that it strikes, if that must leave the rotation.
    pub victim: Option<&'static str>,
    /// Whether all nodes stay in the rotation.
    pub rotation: Rotation,
    /// What it may do to calls.
    pub calls: Calls,
    /// And to Redis.
    pub memory: Memory,
    /// Before anybody is live.
    pub prepare: fn(&mut Setup),
    /// It happens.
    pub strike: fn(&mut Setup),
    /// How long it stays.
    pub hold: Duration,
    /// It is repaired. What the others cannot see, it says.
    pub repair: fn(&mut Setup) -> Vec<String>,
    /// How fast all must be.
    pub limits: Limits,
}

/// What came of a round.
#[derive(Debug, Default)]
pub struct Outcome {
    pub name: &'static str,
    pub what: &'static str,
    pub live: usize,
    pub accepted: usize,
    pub refused: usize,
    pub errors: usize,
    pub became_live: usize,
    pub failed: usize,
    pub forgotten: usize,
    /// Agents who were live before, and are so in another session.
    pub moved: usize,
    pub invites: usize,
    /// Calls of a node that had not heard for a while, which came late and were taken back.
    pub late: usize,
    pub out: Option<Duration>,
    pub again: Option<Duration>,
    /// From the answer "accepted" to live or failed: the slowest login.
    pub settled: Option<Duration>,
    /// From the mending until nothing was wrong any more.
    pub back: Option<Duration>,
    pub elsewhere: Option<Duration>,
    /// Why logins were refused or failed, and how many each.
    pub whys: BTreeMap<String, usize>,
    pub violations: Vec<String>,
    pub took: Duration,
}

/// From the mending until nothing may be wrong any more.
const BACK: Duration = Duration::from_secs(25);

/// What is seen while it goes on.
struct Watch {
    struck: Instant,
    fault: Fault,
    /// Since when the victim was seen out of the rotation, and until when.
    out: Option<(Instant, Instant)>,
    /// Nodes that were seen out of it.
    left: BTreeSet<String>,
    over: BTreeMap<String, Instant>,
    /// Sessions of earlier rounds.
    old: BTreeSet<String>,
}

impl Watch {
    /// One look, which may fail while Redis is away.
    fn look(&mut self, stage: &mut Setup, asked: &[Asked]) -> Option<(Vec<NodeRow>, Vec<SessionRow>)> {
        let asked_at = now();
        let (nodes, mut rows) = stage.look().ok()?;
        rows.retain(|row| !self.old.contains(&row.session));
        for node in nodes.iter().filter(|node| node.state != ShownNodeState::Active) {
            self.left.insert(node.name.clone());
            if self.fault.victim == Some(node.name.as_str()) {
                self.out = Some((self.out.map_or(asked_at, |(first, _)| first), asked_at));
            }
        }
        for one in asked {
            match judge::fate(one, &rows) {
                Fate::Live(_) | Fate::Over(_) => {
                    self.over.entry(one.alias.clone()).or_insert_with(now);
                }
                Fate::Open(_) | Fate::Unknown => {}
            }
        }
        Some((nodes, rows))
    }
}

/// Plays it, from an empty cluster to an empty cluster.
pub fn play(stage: &mut Setup, fault: &Fault) -> Outcome {
    let begin = now();
    let old = ids(stage);
    (fault.prepare)(stage);
    let first = gather(stage, fault.live);
    let aliases = (first..first + fault.logins).map(alias).collect();
    let mut outcome = strike(stage, fault, aliases, old);
    stage.clear();
    stage.wait_whole();
    outcome.took = begin.elapsed();
    outcome
}

/// All sessions that Redis knows, also those that are over.
pub fn ids(stage: &mut Setup) -> BTreeSet<String> {
    let rows = stage.look().expect("Redis is well before the fault").1;
    rows.into_iter().map(|row| row.session).collect()
}

/// The fault itself, while these log in. Sessions that are `old` are not looked at.
pub fn strike(stage: &mut Setup, fault: &Fault, aliases: Vec<String>, old: BTreeSet<String>) -> Outcome {
    let (begin, before, ask_before) = (now(), live(stage), aliases.len() / 3);
    stage.ask(fault.door, aliases, fault.every, Patience::Once);
    wait_until(BACK, "a third to have asked", || stage.asked().len() >= ask_before);
    let struck = now();
    let mut watch = Watch { struck, fault: *fault, out: None, left: BTreeSet::new(), over: BTreeMap::new(), old };
    (fault.strike)(stage);
    while struck.elapsed() < fault.hold {
        stage.tend();
        let asked = stage.asked();
        watch.look(stage, &asked);
    }
    let unseen = (fault.repair)(stage);
    let repaired = now();
    stage.hear();
    let (evidence, back) = wait_calm(stage, &mut watch, &before, repaired);
    let mut outcome = measure(stage, fault, &evidence, &watch);
    outcome.back = back;
    outcome.late = judge::late(&evidence, repaired);
    outcome.violations.extend(judge(&evidence));
    outcome.violations.extend(unseen);
    if !outcome.violations.is_empty() {
        eprintln!("the daemons said last:\n{}", stage.logs());
    }
    outcome.took = begin.elapsed();
    outcome
}

/// Brings the agents in who are live before; the number of the first phone that is free.
fn gather(stage: &mut Setup, live: Live) -> u32 {
    let aliases = |from: u32, count: u32| (from..from + count).map(alias).collect::<Vec<_>>();
    match live {
        Live::Spread(count) => {
            stage.log_in(&aliases(0, count));
            count
        }
        Live::OnA(count, more) => {
            for node in ["b", "c"] {
                stage.set_admin_state("drain", node);
            }
            stage.log_in(&aliases(0, count));
            for node in ["b", "c"] {
                stage.set_admin_state("resume", node);
            }
            stage.wait_whole();
            stage.log_in(&aliases(count, more));
            count + more
        }
    }
}

/// The sessions that are live now.
pub fn live(stage: &mut Setup) -> Vec<SessionRow> {
    let rows = stage.look().expect("Redis is well before the fault").1;
    rows.into_iter().filter(|row| row.state == SessionState::Live).collect()
}

/// Looks until nothing is wrong, and for two heartbeats more; or until it has waited long enough. How long that took
/// from the mending, if it came.
fn wait_calm(
    stage: &mut Setup,
    watch: &mut Watch,
    before: &[SessionRow],
    repaired: Instant,
) -> (Evidence, Option<Duration>) {
    let mut calm: Option<Instant> = None;
    wait_for(BACK * 3, || {
        stage.tend();
        // first whether all are told, then what
        let (all_told, asked) = (stage.all_told(), stage.asked());
        let looked = watch.look(stage, &asked);
        let evidence = looked.and_then(|(nodes, rows)| evidence(stage, watch, asked, before, nodes, rows));
        let good = all_told && evidence.as_ref().is_some_and(|evidence| judge(evidence).is_empty());
        calm = good.then(|| calm.unwrap_or_else(now));
        // Only what this look has seen: on a busy machine the one before may be old, and is no evidence any more.
        match (calm, evidence) {
            (Some(since), Some(evidence)) if since.elapsed() >= HEARTBEAT * 2 => {
                return Ok((evidence, Some(since.duration_since(repaired))));
            }
            (None, Some(evidence)) if all_told && repaired.elapsed() > BACK => return Ok((evidence, None)),
            (_, _) => {}
        }
        Err(format!("a calm cluster, or Redis to be asked at all, after {}", watch.fault.name))
    })
}

fn evidence(
    stage: &Setup,
    watch: &Watch,
    asked: Vec<Asked>,
    before: &[SessionRow],
    nodes: Vec<NodeRow>,
    sessions: Vec<SessionRow>,
) -> Option<Evidence> {
    let fault = &watch.fault;
    let victim = fault.victim.map(|name| (name.to_owned(), stage.lab.node(name).address()));
    let left = match fault.rotation {
        Rotation::Changes => BTreeSet::new(),
        Rotation::Stays => watch.left.clone(),
    };
    Some(Evidence {
        strike: Strike { victim, at: watch.struck, out: watch.out },
        persistent: stage.persistent.clone(),
        left,
        asked,
        before: before.to_vec(),
        calls: fault.calls,
        memory: fault.memory,
        sessions,
        nodes,
        phones: stage.registered().ok()?,
        channels: stage.channels().ok()?,
        rings: stage.phones.records(),
        deaf: stage.deaf.clone(),
        tries: TRIES,
    })
}

fn measure(stage: &Setup, fault: &Fault, seen: &Evidence, watch: &Watch) -> Outcome {
    let mut outcome = Outcome { name: fault.name, what: fault.what, live: seen.before.len(), ..Outcome::default() };
    let mut counted: BTreeSet<&String> = seen.before.iter().map(|row| &row.session).collect();
    for asked in &seen.asked {
        match &asked.answer {
            Answer::Accepted => outcome.accepted += 1,
            Answer::Refused(_) => outcome.refused += 1,
            Answer::Error(_) => outcome.errors += 1,
        }
        match (judge::fate(asked, &seen.sessions), &asked.answer) {
            // who asks again has it already
            (Fate::Live(row) | Fate::Over(row), _) if !counted.insert(&row.session) => {}
            (Fate::Live(_), _) => outcome.became_live += 1,
            (Fate::Over(row), _) => {
                outcome.failed += 1;
                *outcome.whys.entry(reason_text(row.reason.as_ref())).or_default() += 1;
            }
            (Fate::Unknown, Answer::Accepted) => outcome.forgotten += 1,
            (Fate::Unknown | Fate::Open(_), _) => {}
        }
        if asked.answer == Answer::Accepted
            && let Some(over) = watch.over.get(&asked.alias)
        {
            let took = over.saturating_duration_since(asked.at + asked.took);
            outcome.settled = outcome.settled.max(Some(took));
        }
        if fault.limits.prompt.is_some_and(|most| asked.took > at_this_load(most)) {
            outcome
                .violations
                .push(format!("P8: {} was told {:?} only after {:?}", asked.alias, asked.answer, asked.took));
        }
    }
    let stays = |was: &&SessionRow| {
        seen.sessions.iter().any(|row| row.session == was.session && row.state == SessionState::Live)
    };
    outcome.moved = seen.before.iter().filter(|was| !stays(was)).count();
    outcome.invites = seen.rings.iter().filter(|record| record.what == What::Invite).count();
    outcome.out = watch.out.map(|(first, _)| first.duration_since(watch.struck));
    outcome.again = again(&seen.asked, watch.struck);
    outcome.elsewhere = elsewhere(stage, fault, seen, watch.struck);
    let Limits { out, again, elsewhere, prompt: _ } = fault.limits;
    for (what, found, most) in [
        ("until the node was out of the rotation", outcome.out, out),
        ("until logins were accepted", outcome.again, again),
        ("until 99 of 100 agents rang elsewhere", outcome.elsewhere, elsewhere),
    ] {
        if let Some(most) = most
            && found.is_none_or(|found| found > at_this_load(most))
        {
            outcome.violations.push(format!("time: {found:?} {what}, and not at most {most:?}"));
        }
    }
    outcome
}

/// From the fault to the first login that was accepted after the last that was not. Nothing if each was accepted.
fn again(asked: &[Asked], struck: Instant) -> Option<Duration> {
    let last = asked.iter().filter(|one| one.at >= struck && one.answer != Answer::Accepted).map(|one| one.at).max()?;
    let after = asked.iter().filter(|one| one.answer == Answer::Accepted && one.at > last);
    after.map(|one| (one.at + one.took).duration_since(struck)).min()
}

/// When the phones of those rang elsewhere who were live on the node that was lost: the 99th of 100.
fn elsewhere(stage: &Setup, fault: &Fault, seen: &Evidence, struck: Instant) -> Option<Duration> {
    let victim = stage.lab.node(fault.victim?);
    let were_there = seen.before.iter().filter(|row| row.node == victim.name());
    let rang = |row: &SessionRow| {
        let mut rings = seen.rings.iter().filter(|ring| ring.what == What::Invite && ring.at > struck);
        let ring = rings.find(|ring| ring.phone == row.extension && ring.node != victim.address());
        ring.map(|ring| ring.at.duration_since(struck))
    };
    let mut times: Vec<Duration> = were_there.map(rang).collect::<Option<_>>()?;
    times.sort_unstable();
    let last = (times.len() * 99).div_ceil(100).checked_sub(1)?;
    times.get(last).copied()
}
