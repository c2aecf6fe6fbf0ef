//! The demo: thirty real softphones, three real Asterisks, one real Redis, and what evenring does with them.
//!
//! Owns the order of the scenes. Must never wait for a fixed time, nor show or report a figure that was not measured
//! in this run.
#![allow(dead_code, unreachable_pub, reason = "the demo and its test each use their own part")]
#![allow(clippy::print_stdout, reason = "a demo prints")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a demo that cannot be set up ends, and says why"
)]

mod facts;
mod observer;
mod screen;
mod setup;
mod tools;

use std::process::ExitCode;

pub use facts::Facts;
use screen::Screen;
use setup::Setup;

/// Agents who count towards the load.
pub const LOCAL: u32 = 30;
/// Agents whose phone is elsewhere.
pub const REMOTE: u32 = 3;
/// The node whose Asterisk is killed.
const VICTIM: &str = "b";
/// How many of its agents log in again while it is dead; the others do when it is back.
const AT_ONCE_AGAIN: usize = 6;

/// All scenes, and what was measured.
pub fn run() -> Facts {
    let mut screen = Screen::new();
    let mut stage = Setup::set(&mut screen);
    let mut facts = Facts::default();
    shift_start(&mut stage, &mut screen, &mut facts);
    remote_agents(&mut stage, &mut screen, &mut facts);
    let lost = death(&mut stage, &mut screen, &mut facts);
    let waiting = again_elsewhere(&mut stage, &mut screen, &mut facts, &lost);
    comeback(&mut stage, &mut screen, &mut facts, &waiting);
    shift_end(&mut stage, &mut screen, &mut facts);
    screen.say("that is all; the figures:");
    facts
}

/// Sets the stage with all local agents logged in, says what can be played, and stays until it is killed.
pub fn keep() -> ExitCode {
    let mut screen = Screen::new();
    let mut stage = Setup::set(&mut screen);
    let mut facts = Facts::default();
    shift_start(&mut stage, &mut screen, &mut facts);
    tools::tools(&stage);
    tools::explain(&stage);
    println!("ready");
    loop {
        std::thread::park();
    }
}

/// Thirty agents log in at once: one process of the command line for each.
fn shift_start(stage: &mut Setup, screen: &mut Screen, facts: &mut Facts) {
    screen.say(&format!("{LOCAL} agents log in at once: {LOCAL} x `evenring login ALIAS --agent N`"));
    let orders: Vec<_> = (0..LOCAL).map(|n| setup::login(n, false)).collect();
    let done = stage.at_once(screen, &orders);
    facts.logins = done.iter().filter(|run| run.succeeded()).count();
    stage.show_until(screen, |view| view.live(false) == LOCAL as usize && view.is_counted());
    stage.wait_invites(LOCAL as usize);
    facts.live = stage.live();
    facts.per_node = stage.cluster.agents();
    facts.spread = facts::spread(&facts.per_node);
    let rings = stage.rings();
    facts.invites = rings.values().sum();
    facts.note(
        rings.iter().filter(|(_, count)| **count > 1).map(|(phone, count)| format!("{phone} rang {count} times")),
    );
    let nodes: Vec<String> = facts.per_node.values().map(u64::to_string).collect();
    screen.say(&format!(
        "{} live, {} agents, and {} calls in all rang at the phones",
        facts.live,
        nodes.join("/"),
        facts.invites
    ));
}

/// Remote agents are placed like the others, and are nobody's load.
fn remote_agents(stage: &mut Setup, screen: &mut Screen, facts: &mut Facts) {
    screen.say(&format!("{REMOTE} remote agents log in (--remote): they are no load"));
    let orders: Vec<_> = (LOCAL..LOCAL + REMOTE).map(|n| setup::login(n, true)).collect();
    let done = stage.at_once(screen, &orders);
    facts.note(setup::failures(&done));
    stage.show_until(screen, |view| view.live(true) == REMOTE as usize && view.is_counted());
    let agents = stage.cluster.agents();
    if agents != facts.per_node {
        facts.note([format!("remote agents changed the load from {:?} to {agents:?}", facts.per_node)]);
    }
}

/// One Asterisk is killed. Returns the agents whose sessions it took along.
fn death(stage: &mut Setup, screen: &mut Screen, facts: &mut Facts) -> Vec<u32> {
    stage.wait_saved(VICTIM);
    screen.say(&format!("kill -9 of Asterisk {VICTIM}"));
    let (took, state) = stage.kill(VICTIM);
    facts.left_rotation_ms = took.and_then(|took| u64::try_from(took.as_micros().div_ceil(1000)).ok());
    match facts.left_rotation_ms {
        Some(ms) => screen.say(&format!("{VICTIM} is {state} and out of the rotation {ms} ms after the kill")),
        None => screen.say(&format!("{VICTIM} is still {state}")),
    }
    let expected = usize::try_from(facts.per_node.get(VICTIM).copied().unwrap_or(0)).unwrap_or(0);
    stage.show_until(screen, |view| view.open_on(VICTIM) == 0);
    let lost = stage.lost(VICTIM);
    if lost.len() != expected {
        facts.note([format!("{} sessions ended as node-lost, not {expected}", lost.len())]);
    }
    screen.say(&format!("the sessions of its {} agents have ended: node-lost", lost.len()));
    lost
}

/// Some of the lost agents log in again: on the survivors. Returns those that wait.
fn again_elsewhere(stage: &mut Setup, screen: &mut Screen, facts: &mut Facts, lost: &[u32]) -> Vec<u32> {
    let (now, later) = lost.split_at(AT_ONCE_AGAIN.min(lost.len()));
    screen.say(&format!("{} of them log in again", now.len()));
    let orders: Vec<_> = now.iter().map(|n| setup::login(*n, false)).collect();
    let done = stage.at_once(screen, &orders);
    facts.note(setup::failures(&done));
    let expected = LOCAL as usize - later.len();
    stage.show_until(screen, |view| view.live(false) == expected);
    let agents = stage.cluster.agents();
    let survivors = agents.iter().filter(|(node, _)| *node != VICTIM).map(|(node, count)| (node.clone(), *count));
    let survivors = survivors.collect();
    if agents.get(VICTIM) != Some(&0) || facts::spread(&survivors) > 1 {
        facts.note([format!("after the death of {VICTIM} the agents are {agents:?}")]);
    }
    let words: Vec<String> = survivors.iter().map(|(node, count)| format!("{node} has {count}")).collect();
    screen.say(&format!("they are on the survivors: {}; {VICTIM} got none", words.join(", ")));
    later.to_vec()
}

/// The Asterisk starts again: clean, and first in line.
fn comeback(stage: &mut Setup, screen: &mut Screen, facts: &mut Facts, waiting: &[u32]) {
    screen.say(&format!("Asterisk {VICTIM} starts again"));
    stage.lab.node(VICTIM).start();
    screen.say("it has booted, and looks which of the phones that it remembers are there");
    stage.show_until(screen, |view| view.is_ready(VICTIM, LOCAL + REMOTE));
    let node = stage.cluster.node(VICTIM);
    if node["state"] != "active" || node["agents"] != 0 {
        facts.note([format!("{VICTIM} came back as {node}")]);
    }
    screen.say(&format!(
        "{VICTIM} is {} with {} agents; the other {} log in again",
        node["state"].as_str().unwrap_or("?"),
        node["agents"],
        waiting.len()
    ));
    let orders: Vec<_> = waiting.iter().map(|n| setup::login(*n, false)).collect();
    let done = stage.at_once(screen, &orders);
    facts.note(setup::failures(&done));
    stage.show_until(screen, |view| view.live(false) == LOCAL as usize);
    let agents = stage.cluster.agents();
    if agents.get(VICTIM) != Some(&(waiting.len() as u64)) {
        facts.note([format!("{VICTIM} was the emptiest node, but the agents are {agents:?}")]);
    }
    screen.say(&format!("{VICTIM} got {} of {} new logins", agents.get(VICTIM).unwrap_or(&0), waiting.len()));
}

/// Everybody logs out.
fn shift_end(stage: &mut Setup, screen: &mut Screen, facts: &mut Facts) {
    screen.say("everybody logs out");
    let orders = stage.logouts();
    let done = stage.at_once(screen, &orders);
    facts.note(setup::failures(&done));
    stage.show_until(screen, |view| view.open() == 0 && view.is_counted());
    facts.channels_left = Some(stage.channels_left());
    let agents = stage.cluster.agents();
    if agents.values().any(|count| *count != 0) {
        facts.note([format!("nobody is logged in, but the agents are {agents:?}")]);
    }
    let words: Vec<String> = agents.values().map(u64::to_string).collect();
    let channels = facts.channels_left.unwrap_or_default();
    screen.say(&format!("{} agents, and Asterisk has {channels} channels left", words.join("/")));
}
