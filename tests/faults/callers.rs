//! People who log in, one after the other, whatever happens meanwhile.
//!
//! Owns their thread and what they were told. Must never know what becomes of a session.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use evenring::config::Settings;
use evenring::node::session::Class;
use evenring::registry::view::{Candidate, Verdict, reason_text};
use evenring::registry::{LoginRequest, Registry};
use evenring::runtime::random::new_session;

use super::judge::{Answer, Asked};
use crate::lab::evenring::binary;
use crate::lab::now;
use crate::lab::wires::DESK;

/// Where they ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// Beside Redis, each over a connection of their own.
    Here,
    /// On the desk, each by a process of the command line.
    Desk,
}

/// What somebody does who was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// They go away.
    Once,
    /// They ask again after a while, and give up when they have asked for so long.
    Until(Duration),
}

/// From an answer until whoever got it asks again.
const AGAIN: Duration = Duration::from_millis(400);

/// See above.
#[derive(Debug)]
pub struct Callers {
    told: Arc<Mutex<Vec<Asked>>>,
    thread: Option<JoinHandle<()>>,
}

fn lock(told: &Mutex<Vec<Asked>>) -> MutexGuard<'_, Vec<Asked>> {
    told.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Callers {
    /// The first asks now, each other one `every` after the one before.
    pub fn start(config: &Path, door: Door, aliases: Vec<String>, every: Duration, patience: Patience) -> Self {
        let (told, config) = (Arc::new(Mutex::new(Vec::new())), config.to_owned());
        let thread = std::thread::spawn({
            let told = Arc::clone(&told);
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
                runtime.block_on(all(&told, &config, door, aliases, (every, patience)));
            }
        });
        Self { told, thread: Some(thread) }
    }

    /// Whether each has their last answer.
    pub fn is_done(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// What they were told until now.
    pub fn asked(&self) -> Vec<Asked> {
        lock(&self.told).clone()
    }
}

impl Drop for Callers {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            assert!(thread.join().is_ok() || std::thread::panicking(), "the thread of the callers has panicked");
        }
    }
}

async fn all(
    told: &Arc<Mutex<Vec<Asked>>>,
    config: &Path,
    door: Door,
    aliases: Vec<String>,
    (every, patience): (Duration, Patience),
) {
    let settings = Settings::load(Some(config), std::iter::empty()).expect("the lab's settings are good");
    let mut tick = tokio::time::interval(every);
    let mut tasks = tokio::task::JoinSet::new();
    for alias in aliases {
        tick.tick().await;
        let (told, settings, config) = (Arc::clone(told), settings.clone(), config.to_owned());
        tasks.spawn(async move {
            let begin = now();
            loop {
                let at = now();
                let Answered { session, node, answer } = match door {
                    Door::Here => here(&settings, &alias).await,
                    Door::Desk => desk(&config, &alias).await,
                };
                let accepted = answer == Answer::Accepted;
                lock(&told).push(Asked { alias: alias.clone(), node, session, at, took: at.elapsed(), answer });
                match patience {
                    Patience::Until(most) if !accepted && begin.elapsed() < most => tokio::time::sleep(AGAIN).await,
                    Patience::Until(_) | Patience::Once => return,
                }
            }
        });
    }
    tasks.join_all().await;
}

struct Answered {
    session: Option<evenring::ids::SessionId>,
    node: String,
    answer: Answer,
}

impl Answered {
    fn no(answer: Answer) -> Self {
        Self { session: None, node: String::new(), answer }
    }
}

async fn here(settings: &Settings, alias: &str) -> Answered {
    let mut registry = Registry::new(settings).expect("the lab's Redis has a good address");
    let alias = alias.parse().expect("an alias");
    let (request, session) = (
        LoginRequest { alias, agent: None, campaign: None, class: Class::Local, moves: false, hold: None },
        new_session(),
    );
    match registry.place(&request, session).await {
        Ok(placement) => match placement.verdict {
            Verdict::Placed => Answered { session: placement.session, node: placement.node, answer: Answer::Accepted },
            Verdict::Existing => Answered { session: placement.session, node: String::new(), answer: Answer::Accepted },
            Verdict::NotNow => {
                Answered::no(Answer::Error(format!("not now: {}", reason_text(placement.reason.as_ref()))))
            }
            Verdict::Refused | Verdict::WouldPlace => {
                let why = |row: &Candidate| format!("{} {}", row.name, reason_text(row.reason.as_ref()));
                let whys: Vec<String> = placement.nodes.iter().map(why).collect();
                let reason = reason_text(placement.reason.as_ref());
                Answered::no(Answer::Refused(format!("{reason} ({})", whys.join(", "))))
            }
        },
        Err(error) => {
            Answered { session: Some(session), node: String::new(), answer: Answer::Error(error.to_string()) }
        }
    }
}

async fn desk(config: &Path, alias: &str) -> Answered {
    let mut command = tokio::process::Command::new("ip");
    command.args(["netns", "exec", DESK]).arg(binary()).args(["login", alias, "--json", "--config"]).arg(config);
    let output = command.output().await.expect("run the evenring binary");
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let session = said["session"].as_str().and_then(|id| id.parse().ok());
    let node = said["node"].as_str().unwrap_or_default().to_owned();
    match output.status.code() {
        Some(0) => Answered { session, node, answer: Answer::Accepted },
        Some(1) => Answered::no(Answer::Refused(said.to_string())),
        _ => {
            let error = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            Answered { session, node: String::new(), answer: Answer::Error(error) }
        }
    }
}
