//! `evenring export --watch`: keeps a file up to date, and tells whoever reads it. Owns when the file is rewritten, when it must stay
//! as it is, and what is said of that. Must never write a list in which no node takes calls.

use std::path::PathBuf;
use std::time::Duration;

use tokio::time::sleep;

use super::format::{self, List, Options};
use super::{UNSURE, command, file, nothing};
use crate::cli::{CliError, USAGE, output};
use crate::config::span_text;
use crate::ids::Now;
use crate::registry::Registry;
use crate::runtime::clock::Clock;

/// Wait between two looks at the nodes: how late a change is known.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// What is kept up to date, and how.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) file: PathBuf,
    pub(super) options: Options,
    /// The least time between two rewrites, and between two runs of the command.
    pub(super) every: Duration,
    /// Empty for none.
    pub(super) command: Vec<String>,
}

/// How things are. Each is said once, when it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The file has the list, and whoever reads it knows.
    Good,
    NoRedis,
    Unsure,
    NoNode,
    NotWritten,
    CommandFailed,
}

/// One that runs.
#[derive(Debug)]
struct Watch {
    watched: Watched,
    clock: Clock,
    state: State,
    /// What was said of nodes that are left out.
    left_out: Vec<String>,
    /// When the file may be rewritten, or the command be run again.
    next: Now,
    /// The command has not succeeded since the file was written. At the start nobody knows.
    owes_command: bool,
}

/// Runs until it is interrupted.
pub(super) async fn run(registry: &mut Registry, watched: Watched) -> Result<u8, CliError> {
    let folder = file::folder(&watched.file);
    if !folder.is_dir() || watched.file.is_dir() {
        let (file, folder) = (watched.file.display(), folder.display());
        output::complain(&format!("{file} cannot be a file: {folder} must be a folder, and {file} none"));
        return Ok(USAGE);
    }
    let clock = Clock::start();
    let owes_command = !watched.command.is_empty();
    let mut watch = Watch { watched, clock, state: State::Good, left_out: Vec::new(), next: clock.now(), owes_command };
    loop {
        watch.round(registry).await;
        sleep(LOOK_AGAIN).await;
    }
}

impl Watch {
    async fn round(&mut self, registry: &mut Registry) {
        let nodes = match registry.nodes().await {
            Ok(nodes) => nodes,
            Err(error) => return self.stays(State::NoRedis, &error.to_string()),
        };
        let list = format::list(&nodes, &self.watched.options);
        self.say_left_out(&list);
        if list.entries == 0 {
            return self.stays(State::NoNode, &nothing(&nodes));
        }
        if nodes.iter().any(|node| node.unsure) {
            return self.stays(State::Unsure, UNSURE);
        }
        let path = self.watched.file.clone();
        let is_written = match file::has(&path, &list.text) {
            Ok(same) => same,
            Err(error) => return self.stays(State::NotWritten, &format!("it cannot be read: {error}")),
        };
        if is_written && !self.owes_command {
            return self.becomes_good();
        }
        if self.clock.now() < self.next {
            return;
        }
        self.next = self.clock.now().after(self.watched.every);
        if !is_written {
            if let Err(error) = file::replace(&path, &list.text) {
                return self.stays(State::NotWritten, &format!("it cannot be written: {error}"));
            }
            self.owes_command = !self.watched.command.is_empty();
            output::line_out(&format!("{}: written, {}", path.display(), count(list.entries)));
        }
        self.tell().await;
    }

    /// Runs the command, if it must.
    async fn tell(&mut self) {
        if self.owes_command
            && let Err(why) = command::run(&self.watched.command).await
        {
            let (file, every) = (self.watched.file.display(), span_text(self.watched.every));
            self.say(
                State::CommandFailed,
                format!("{why}; {file} is up to date, and the command is run again in {every}"),
            );
            return;
        }
        self.owes_command = false;
        self.becomes_good();
    }

    fn becomes_good(&mut self) {
        if std::mem::replace(&mut self.state, State::Good) != State::Good {
            output::warn(&format!("{} is up to date again", self.watched.file.display()));
        }
    }

    fn stays(&mut self, state: State, why: &str) {
        let file = self.watched.file.display();
        self.say(state, format!("{file} stays as it is: {why}"));
    }

    fn say(&mut self, state: State, text: String) {
        if std::mem::replace(&mut self.state, state) != state {
            output::warn(&text);
        }
    }

    /// Says of each node once that it is left out.
    fn say_left_out(&mut self, list: &List) {
        for why in list.left_out.iter().filter(|why| !self.left_out.contains(why)) {
            output::warn(why);
        }
        self.left_out.clone_from(&list.left_out);
    }
}

fn count(nodes: usize) -> String {
    if nodes == 1 { "1 node takes calls".to_owned() } else { format!("{nodes} nodes take calls") }
}
