//! The soak: for minutes, people log in and out as dice say, and faults strike; agents stay logged in through all of it.
//!
//! Owns what is left to chance, and whether the daemons' memory stays flat. Must never judge anything else.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use evenring::registry::view::SessionRow;
use serde_json::json;

use super::ground::Ground;
use super::judge::session_of;
use super::round::{self, Fault, Limits, Outcome};
use super::setup::{Setup, alias};
use super::{report, table};
use crate::lab::phone::Record;
use crate::lab::{now, wait_for};

#[path = "../simulation/dice.rs"]
mod dice;
use dice::Dice;

/// After so long a daemon has all the memory that it needs for this.
const WARM: Duration = Duration::from_secs(45);
/// The most that one may grow after that, in kB and in descriptors.
const GROWS: (u64, usize) = (3_000, 6);
/// The longest that anybody waits for an answer.
const PROMPT: Duration = Duration::from_secs(15);
/// The most who are logged in when a round begins: the others are there to log in.
const LOGGED_IN: usize = 50;

/// What one daemon had, over its life.
#[derive(Debug)]
struct Life {
    begin: Instant,
    /// When it was warm, and now: kB and descriptors.
    warm: Option<(u64, usize)>,
    last: (u64, usize),
    warm_for: Duration,
}

/// What came of it.
#[derive(Debug)]
pub struct Soaked {
    minutes: f64,
    seed: u64,
    outcomes: Vec<Outcome>,
    logouts: usize,
    lives: Vec<Life>,
    restarts: usize,
}

/// Plays rounds for so long.
pub fn run(stage: &mut Setup, length: Duration, seed: u64) -> Soaked {
    let (begin, mut dice, faults) = (now(), Dice::new(seed), faults());
    let (mut outcomes, mut logouts, mut lives) = (Vec::new(), 0, BTreeMap::new());
    while begin.elapsed() < length {
        let old = round::ids(stage);
        logouts += some_log_out(stage, &mut dice);
        let here = round::live(stage);
        forget_rings(stage, &here);
        stage.forget_deaf();
        // Times are for the suite, where one fault does not follow upon another and nothing else runs; but nobody waits
        // for ever.
        let limits = Limits { prompt: Some(PROMPT), ..Limits::default() };
        let fault = Fault { limits, ..faults[dice.index(faults.len())] };
        (fault.prepare)(stage);
        let old = old.into_iter().filter(|id| here.iter().all(|row| row.session != *id)).collect();
        let aliases = who_logs_in(stage, &here, &mut dice);
        stage.forget_asked();
        let outcome = round::strike(stage, &fault, aliases, old);
        println!("{:5.0} s  {}", begin.elapsed().as_secs_f64(), report::progress(&outcome));
        for violation in &outcome.violations {
            eprintln!("  {violation}");
        }
        if !outcome.violations.is_empty() {
            stage.clear();
        }
        outcomes.push(outcome);
        stage.wait_whole();
        weigh(stage, &mut lives);
    }
    let minutes = begin.elapsed().as_secs_f64() / 60.0;
    stage.clear();
    Soaked { minutes, seed, outcomes, logouts, lives: lives.into_values().collect(), restarts: stage.restarts }
}

/// Those that need nothing but this stage, and that nobody asks for twice.
fn faults() -> Vec<Fault> {
    table::all().into_iter().filter(|fault| fault.ground == Ground::Sentinel).collect()
}

/// A part of those who are logged in log out, and more if there are too many. How many did.
fn some_log_out(stage: &mut Setup, dice: &mut Dice) -> usize {
    let mut here = round::live(stage);
    let mut leave: Vec<SessionRow> = Vec::new();
    let some = dice.index(here.len() / 2 + 1).max(here.len().saturating_sub(LOGGED_IN));
    for _ in 0..some {
        leave.push(here.swap_remove(dice.index(here.len())));
    }
    stage.log_out(&leave);
    wait_for(Duration::from_secs(20), || {
        let now_live = round::live(stage);
        let left = leave.iter().filter(|gone| now_live.iter().any(|row| row.session == gone.session)).count();
        if left == 0 { Ok(()) } else { Err(format!("{left} to be logged out; {}", stage.logs())) }
    });
    leave.len()
}

/// What the phones saw is judged with its round. Only the calls that go on are needed by the next one: a call of the same
/// session from another node was over in a round whose judge still knew which node did not hear.
fn forget_rings(stage: &Setup, here: &[SessionRow]) {
    let goes_on = |row: &SessionRow, ring: &Record| {
        session_of(&ring.from) == Some(row.session.as_str()) && stage.lab.node(&row.node).address() == ring.node
    };
    stage.phones.retain_records(|ring| here.iter().any(|row| goes_on(row, ring)));
}

/// From 12 to 30 of those who are not logged in, in any order.
fn who_logs_in(stage: &Setup, here: &[SessionRow], dice: &mut Dice) -> Vec<String> {
    let mut away: Vec<String> =
        (0..stage.ground.phones()).map(alias).filter(|alias| here.iter().all(|row| row.alias != *alias)).collect();
    let count = (12 + dice.index(19)).min(away.len());
    (0..count).map(|_| away.swap_remove(dice.index(away.len()))).collect()
}

/// Memory and descriptors of each daemon that runs now.
fn weigh(stage: &Setup, lives: &mut BTreeMap<u32, Life>) {
    for pid in stage.pids() {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let kb = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse().ok());
        let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).map(Iterator::count);
        let (Some(kb), Ok(descriptors)) = (kb, descriptors) else { continue };
        let weight = (kb, descriptors);
        let life = lives.entry(pid).or_insert_with(|| Life {
            begin: now(),
            warm: None,
            last: weight,
            warm_for: Duration::ZERO,
        });
        life.last = weight;
        if let Some(for_long) = life.begin.elapsed().checked_sub(WARM) {
            life.warm.get_or_insert(weight);
            life.warm_for = for_long;
        }
    }
}

impl Soaked {
    /// Everything that was not as promised, in words.
    pub fn wrong(&self) -> Vec<String> {
        let mut wrong: Vec<String> =
            self.outcomes.iter().flat_map(|outcome| outcome.violations.iter().cloned()).collect();
        for life in &self.lives {
            if let Some(warm) = life.warm
                && (life.last.0 > warm.0 + GROWS.0 || life.last.1 > warm.1 + GROWS.1)
            {
                wrong.push(format!(
                    "a daemon grew from {warm:?} to {:?} kB and descriptors in {:?}",
                    life.last, life.warm_for
                ));
            }
        }
        if self.lives.iter().all(|life| life.warm.is_none()) {
            wrong.push("no daemon lived long enough to see whether its memory stays flat".to_owned());
        }
        wrong
    }

    /// One JSON object.
    pub fn line(&self) -> String {
        let longest = self.lives.iter().max_by_key(|life| life.warm_for);
        let (warm, last, seconds) =
            longest.map_or((None, (0, 0), 0), |life| (life.warm, life.last, life.warm_for.as_secs()));
        let sum = |count: fn(&Outcome) -> usize| self.outcomes.iter().map(count).sum::<usize>();
        json!({
            "minutes": (self.minutes * 10.0).round() / 10.0,
            "logins": sum(|outcome| outcome.accepted),
            "faults": self.outcomes.len(),
            "violations": self.wrong().len(),
            "logouts": self.logouts,
            "invites": sum(|outcome| outcome.invites),
            "seed": self.seed,
            "daemon_restarts": self.restarts,
            "rss_kb": [warm.map(|(kb, _)| kb), Some(last.0)],
            "descriptors": [warm.map(|(_, count)| count), Some(last.1)],
            "watched_s": seconds,
        })
        .to_string()
    }
}
