//! The stage: everything that runs, and what the scenes do with it.
//!
//! Owns lab, phones and cluster. Figures come from the users' own doors: the command line, the phones, Asterisk's
//! console; the one exception is the time until a node is out, for which a process is too slow. Must never panic because
//! a figure is wrong: it returns what it found after a time limit.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Barrier;
use std::time::Duration;

use super::observer::{Observer, View};
use super::screen::Screen;
use super::{LOCAL, REMOTE};
use crate::cluster::Cluster;
use crate::lab::baresip::Baresip;
use crate::lab::evenring::{Output, Sections};
use crate::lab::{Lab, Spec, Version, now, three};

/// The first phone is `cc100`.
const FIRST: u32 = 100;
/// After this a scene goes on with what it has.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks of the table.
const FRAME: Duration = Duration::from_millis(40);

/// See above. What uses Redis and Asterisk ends before they do.
pub(super) struct Setup {
    observer: Observer,
    phones: Baresip,
    pub(super) cluster: Cluster,
    pub(super) lab: Lab,
}

/// What one process of the command line did.
#[derive(Debug)]
pub(super) struct Run {
    words: String,
    output: Output,
}

impl Run {
    pub(super) fn succeeded(&self) -> bool {
        self.output.status.success()
    }
}

/// The runs that failed, in words.
pub(super) fn failures(runs: &[Run]) -> Vec<String> {
    let failed = runs.iter().filter(|run| !run.succeeded());
    failed.map(|run| format!("`evenring {}` failed: {}", run.words, run.output.stderr.trim())).collect()
}

/// The login of agent `n`, who sits at phone `n`.
pub(super) fn login(n: u32, remote: bool) -> String {
    let flag = if remote { " --remote" } else { "" };
    format!("login cc{}x --agent {}{flag}", FIRST + n, FIRST + n)
}

impl Setup {
    /// Brings everything up.
    pub(super) fn set(screen: &mut Screen) -> Self {
        let count = LOCAL + REMOTE;
        let (lab, which) = Self::asterisks(count);
        screen.say(&format!("three Asterisks start ({which}), each in a network namespace of its own"));
        screen.say(&format!(
            "they are booted; {count} softphones register at all three, Redis and three evenrings start"
        ));
        let phones = Baresip::start(FIRST..FIRST + count, &lab.sip());
        let cluster = Cluster::with(&lab, &Sections::default());
        phones.wait_registered(PATIENCE * 2);
        let observer = Observer::new(cluster.cli.config());
        let mut stage = Self { observer, phones, cluster, lab };
        stage.show_until(screen, |view| ["a", "b", "c"].iter().all(|node| view.is_ready(node, count)));
        stage
    }

    /// Two Asterisks 22 and one 16; or three of the root that `EVENRING_ASTERISK` names, `/` for this machine's own.
    fn asterisks(count: u32) -> (Lab, String) {
        let Some(root) = std::env::var_os("EVENRING_ASTERISK").map(PathBuf::from) else {
            return (Lab::start(&three(count)), "a and b: 22, c: 16".to_owned());
        };
        let version = match Version::of_root(&root) {
            Ok(version) => version,
            Err(why) => panic!("EVENRING_ASTERISK={}: {why}", root.display()),
        };
        let specs: Vec<_> = three(count).into_iter().map(|spec| Spec { version, ..spec }).collect();
        (Lab::start_on(Some(&root), &specs), format!("all three from {}", root.display()))
    }

    /// Shows the nodes until `enough`, or patience ends.
    pub(super) fn show_until(&mut self, screen: &mut Screen, enough: impl Fn(&View) -> bool) {
        let begin = now();
        loop {
            let view = self.observer.look();
            let last = enough(&view) || begin.elapsed() > PATIENCE;
            screen.show(&view, last);
            if last {
                return;
            }
            std::thread::sleep(FRAME);
        }
    }

    /// Runs these command lines at once: each in a thread that waits at one barrier, then starts its process. Shows
    /// the nodes meanwhile.
    pub(super) fn at_once(&mut self, screen: &mut Screen, orders: &[String]) -> Vec<Run> {
        let barrier = Barrier::new(orders.len());
        let (cluster, observer) = (&self.cluster, &mut self.observer);
        std::thread::scope(|scope| {
            let threads: Vec<_> = orders
                .iter()
                .map(|words| {
                    let barrier = &barrier;
                    scope.spawn(move || {
                        let arguments: Vec<&str> = words.split(' ').collect();
                        barrier.wait();
                        Run { words: words.clone(), output: cluster.run(&arguments) }
                    })
                })
                .collect();
            while !threads.iter().all(std::thread::ScopedJoinHandle::is_finished) {
                screen.show(&observer.look(), false);
                std::thread::sleep(FRAME);
            }
            threads.into_iter().map(|thread| thread.join().expect("a thread of the demo")).collect()
        })
    }

    /// The logouts of everybody who is logged in.
    pub(super) fn logouts(&self) -> Vec<String> {
        let sessions = self.cluster.json(&["sessions"]);
        let sessions = sessions["sessions"].as_array().expect("sessions").iter();
        sessions.map(|session| format!("logout {}", session["alias"].as_str().unwrap_or("?"))).collect()
    }

    /// Waits until a node's Asterisk has its phones on disk, which it does once a second. What it has not is forgotten
    /// by a kill, until the phones register again by themselves.
    pub(super) fn wait_saved(&self, name: &str) {
        let (node, begin) = (self.lab.node(name), now());
        while node.saved() < (LOCAL + REMOTE) as usize && begin.elapsed() < PATIENCE {
            std::thread::sleep(FRAME);
        }
    }

    /// `kill -9` of a node's Asterisk. Returns how long it took from before the signal until the first answer of Redis
    /// in which the node is not active (what `evenring status` reads; asked every millisecond on an open connection),
    /// and the state in that answer.
    pub(super) fn kill(&mut self, name: &str) -> (Option<Duration>, String) {
        let (node, observer) = (self.lab.node(name), &mut self.observer);
        let begin = now();
        std::thread::scope(|scope| {
            scope.spawn(|| node.kill9());
            loop {
                let state = observer.state(name);
                let took = begin.elapsed();
                if state != "active" {
                    return (Some(took), state);
                }
                if took > PATIENCE {
                    return (None, state);
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        })
    }

    /// Live sessions of local agents.
    pub(super) fn live(&self) -> usize {
        let sessions = self.cluster.json(&["sessions"]);
        let sessions = sessions["sessions"].as_array().expect("sessions").iter();
        sessions.filter(|session| session["state"] == "live" && session["remote"] == false).count()
    }

    /// The local agents whose sessions ended because their node was lost.
    pub(super) fn lost(&self, node: &str) -> Vec<u32> {
        let sessions = self.cluster.sessions();
        let lost = sessions.iter().filter(|session| {
            session["node"] == node && session["reason"] == "node-lost" && session["remote"] == false
        });
        let agents = lost.filter_map(|session| session["agent"].as_str()?.parse::<u32>().ok()?.checked_sub(FIRST));
        let mut agents: Vec<u32> = agents.collect();
        agents.sort_unstable();
        agents
    }

    /// Waits until the phones have told of so many calls: they tell a moment after the fact.
    pub(super) fn wait_invites(&self, count: usize) {
        let begin = now();
        while self.rings().values().sum::<usize>() < count && begin.elapsed() < PATIENCE {
            std::thread::sleep(FRAME);
        }
    }

    /// How often each phone rang, over all nodes.
    pub(super) fn rings(&self) -> BTreeMap<String, usize> {
        let mut rings = BTreeMap::new();
        for (account, count) in self.phones.invites() {
            let phone = account.split('@').next().unwrap_or_default().to_owned();
            *rings.entry(phone).or_default() += count;
        }
        rings
    }

    /// Channels in all Asterisks. A conference is taken down a moment after its last caller, so a few looks are allowed.
    pub(super) fn channels_left(&self) -> usize {
        let begin = now();
        loop {
            let left = self.lab.nodes().iter().map(crate::lab::Node::channels).sum();
            if left == 0 || begin.elapsed() > PATIENCE / 3 {
                return left;
            }
            std::thread::sleep(FRAME);
        }
    }
}
