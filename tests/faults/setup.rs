//! The stage: three real Asterisks with their daemons, Redis on a network of its own, and the phones.
//!
//! Owns what runs, how it is looked at, and how it is made whole again. Must never judge what it sees.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use evenring::config::Settings;
use evenring::node::session::Class;
use evenring::registry::view::{NodeRow, SessionRow, SessionState, ShownNodeState, Which};
use evenring::registry::{LoginRequest, Registry, RegistryError};
use evenring::runtime::random::new_session;

use super::callers::{Callers, Door, Patience};
use super::ground::{Ground, Store};
use super::judge::{Asked, Channel, Deaf, Who};
use crate::lab::evenring::{Cli, Daemon, Sections};
use crate::lab::log_pipe::LogPipe;
use crate::lab::phone::{Behaviour, Options, Phones, Renew};
use crate::lab::wires::Wires;
use crate::lab::{HUB, Lab, now, three, wait_for, wait_until};

/// The number of the first phone; 100 is `cc100`.
pub const FIRST: u32 = 100;
/// How often one login may be tried: `placement.tries`.
pub const TRIES: usize = 3;
/// `placement.lease` and `placement.heartbeat`.
pub const LEASE: Duration = Duration::from_secs(3);
pub const HEARTBEAT: Duration = Duration::from_secs(1);
/// systemd starts a daemon again after this time: `RestartSec` in the unit.
const RESTART: Duration = Duration::from_millis(500);
/// How long a phone rings until its agent answers.
pub const ANSWERS_AFTER: Duration = Duration::from_millis(300);
/// After this, whatever has not come will not come.
pub const PATIENCE: Duration = Duration::from_secs(40);

/// One daemon, which systemd would look after.
#[derive(Debug)]
struct Kept {
    /// None only while it is started again.
    daemon: Option<Daemon>,
    ended: Option<Instant>,
    /// Its host is away, and systemd with it.
    held_back: bool,
}

/// See above. What uses Redis and Asterisk ends before they do.
#[derive(Debug)]
pub struct Setup {
    runtime: tokio::runtime::Runtime,
    registry: Registry,
    pub cli: Cli,
    pub phones: Phones,
    daemons: Vec<Kept>,
    /// The logs of daemons that write them into a pipe.
    pub pipes: BTreeMap<String, LogPipe>,
    pub redis: Store,
    pub wires: Wires,
    pub lab: Lab,
    pub ground: Ground,
    crowds: Vec<Callers>,
    /// Who did not hear something since the round began.
    pub deaf: Vec<Deaf>,
    /// Daemons that were started again.
    pub restarts: usize,
    /// Who asks until they are accepted, since the round began.
    pub persistent: BTreeSet<String>,
}

/// The alias of phone `n`, from 0.
pub fn alias(n: u32) -> String {
    format!("cc{}x", FIRST + n)
}

impl Setup {
    /// All of its phones are on every node.
    pub fn set(ground: Ground) -> Self {
        let (count, settings) = (ground.phones(), ground.settings());
        let lab = Lab::start(&three(count));
        let wires = Wires::lay(&lab);
        let redis = Store::start(ground);
        let url = redis.url();
        let behaviour = Behaviour::Answer { after: ANSWERS_AFTER };
        let options =
            Options { first: FIRST, count, nodes: lab.sip(), behaviour, expires: 60, renew: Renew::Always, from: HUB };
        let phones = Phones::with(options);
        let start = |node| Daemon::start_with(node, &url, &Sections { rest: &settings, ..Sections::default() });
        let daemons =
            lab.nodes().iter().map(|node| Kept { daemon: Some(start(node)), ended: None, held_back: false }).collect();
        let cli = Cli::new(&url);
        let loaded = Settings::load(Some(cli.config()), std::iter::empty()).expect("the lab's settings are good");
        let registry = Registry::new(&loaded).expect("the lab's Redis has a good address");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        phones.wait_registered(PATIENCE);
        let mut stage = Self {
            runtime,
            registry,
            cli,
            phones,
            daemons,
            pipes: BTreeMap::new(),
            redis,
            wires,
            lab,
            ground,
            crowds: Vec::new(),
            deaf: Vec::new(),
            restarts: 0,
            persistent: BTreeSet::new(),
        };
        stage.wait_whole();
        stage
    }

    /// How many phones there are.
    pub fn phones_count(&self) -> u64 {
        self.ground.phones().into()
    }

    fn at(&self, name: &str) -> usize {
        self.lab.nodes().iter().position(|node| node.name() == name).expect("a node of the lab")
    }

    /// The daemon of that node.
    pub fn daemon(&mut self, name: &str) -> &mut Daemon {
        let at = self.at(name);
        self.daemons[at].daemon.as_mut().expect("a daemon is only away while it is replaced")
    }

    /// All daemons, by node.
    pub fn pids(&self) -> Vec<u32> {
        self.daemons.iter().filter_map(|kept| Some(kept.daemon.as_ref()?.pid())).collect()
    }

    /// What all daemons have logged last.
    pub fn logs(&self) -> String {
        let daemons = self.daemons.iter().filter_map(|kept| kept.daemon.as_ref());
        let last = |daemon: &Daemon| {
            let log = daemon.log();
            let lines: Vec<&str> = log.lines().collect();
            lines[lines.len().saturating_sub(60)..].join("\n")
        };
        daemons.map(last).collect::<Vec<_>>().join("\n----\n")
    }

    /// Replaces a daemon by one with these variables in its environment.
    pub fn restart_daemon(&mut self, name: &str, environment: &[(&str, &str)]) {
        let at = self.at(name);
        let mut daemon = self.daemons[at].daemon.take().expect("a daemon is only away while it is replaced");
        daemon.term();
        self.daemons[at].daemon = Some(daemon.again_with(environment));
    }

    /// Replaces a daemon by one that logs into a pipe.
    pub fn restart_daemon_into_a_pipe(&mut self, name: &str) {
        let at = self.at(name);
        let mut daemon = self.daemons[at].daemon.take().expect("a daemon is only away while it is replaced");
        daemon.term();
        // before there is another one of that name
        self.pipes.remove(name);
        let (daemon, pipe) = LogPipe::put_behind(daemon);
        self.daemons[at].daemon = Some(daemon);
        self.pipes.insert(name.to_owned(), pipe);
    }

    /// People begin to log in with these aliases, where Redis is, each `every` after the one before.
    pub fn ask(&mut self, door: Door, aliases: Vec<String>, every: Duration, patience: Patience) {
        if patience != Patience::Once {
            self.persistent.extend(aliases.iter().cloned());
        }
        self.crowds.push(Callers::start(self.cli.config(), door, aliases, every, patience));
    }

    /// What all of them were told since the round began.
    pub fn asked(&self) -> Vec<Asked> {
        self.crowds.iter().flat_map(Callers::asked).collect()
    }

    /// Whether all of them have their last answer.
    pub fn all_told(&self) -> bool {
        self.crowds.iter().all(Callers::is_done)
    }

    /// Those who asked are forgotten.
    pub fn forget_asked(&mut self) {
        self.crowds.clear();
        self.persistent.clear();
    }

    /// As systemd does: starts daemons again that have ended, after a while.
    pub fn tend(&mut self) {
        for kept in &mut self.daemons {
            let ended = kept.daemon.as_mut().is_some_and(|daemon| !daemon.is_running());
            match kept.ended {
                None if ended => kept.ended = Some(now()),
                Some(at) if at.elapsed() >= RESTART && !kept.held_back => {
                    kept.daemon = kept.daemon.take().map(Daemon::again);
                    kept.ended = None;
                    self.restarts += 1;
                }
                Some(_) | None => {}
            }
        }
    }

    /// A fault goes on for so long: there is nothing to wait for that would come earlier.
    pub fn wait(&mut self, length: Duration) {
        let begin = now();
        wait_until(length * 2, "time to go by", || {
            self.tend();
            begin.elapsed() >= length
        });
    }

    /// Nobody starts this daemon again when it ends, until [`Self::let_go`].
    pub fn hold_back(&mut self, name: &str) {
        let at = self.at(name);
        self.daemons[at].held_back = true;
    }

    /// See above.
    pub fn let_go(&mut self, name: &str) {
        let at = self.at(name);
        self.daemons[at].held_back = false;
    }

    /// Nodes and all sessions as Redis has them now.
    pub fn look(&mut self) -> Result<(Vec<NodeRow>, Vec<SessionRow>), RegistryError> {
        let registry = &mut self.registry;
        self.runtime.block_on(async { Ok((registry.nodes().await?, registry.sessions(Which::All).await?)) })
    }

    /// The nodes alone.
    pub fn nodes(&mut self) -> Result<Vec<NodeRow>, RegistryError> {
        self.runtime.block_on(self.registry.nodes())
    }

    /// The agents' channels in each Asterisk that answers. Asterisk names a channel of an originated call by the
    /// session; its conference has channels of its own, which are nobody's.
    ///
    /// # Errors
    /// What an Asterisk said that cannot tell now.
    pub fn channels(&self) -> Result<BTreeMap<String, Vec<Channel>>, String> {
        let list = |node: &crate::lab::Node| {
            let text = node.try_cli("core show channels concise")?;
            let channel = |line: &str| {
                let mut cells = line.split('!');
                let (phone, state) = (cells.next()?, cells.nth(3)?);
                let session = line.rsplit('!').next()?.strip_prefix("evenring-")?;
                let phone = phone.strip_prefix("PJSIP/")?.split('-').next()?;
                Some(Channel { session: session.to_owned(), phone: phone.to_owned(), state: state.to_owned() })
            };
            Ok((node.name().to_owned(), text.lines().filter_map(channel).collect()))
        };
        self.lab.nodes().iter().map(list).collect()
    }

    /// How many PJSIP phones can be rung by each node's Asterisk, by its own word. One that was killed has lost what it had not
    /// written yet: the registrations of its last second, until these phones renew them.
    ///
    /// # Errors
    /// What an Asterisk said that cannot tell now.
    pub fn registered(&self) -> Result<BTreeMap<String, u64>, String> {
        let count = |node: &crate::lab::Node| Ok((node.name().to_owned(), node.try_registered()? as u64));
        self.lab.nodes().iter().map(count).collect()
    }

    /// Turns a node out of the rotation, or back into it.
    pub fn set_admin_state(&self, verb: &str, node: &str) {
        self.cli.run(&[verb, node]).ok();
    }

    /// Logs these in, all of them at once, and waits until they are live.
    pub fn log_in(&mut self, aliases: &[String]) {
        let registry = &mut self.registry;
        for text in aliases {
            let alias = text.parse().expect("an alias");
            let request =
                LoginRequest { alias, agent: None, campaign: None, class: Class::Local, moves: false, hold: None };
            let placed = self.runtime.block_on(registry.place(&request, new_session()));
            placed.unwrap_or_else(|error| panic!("{text}: {error}"));
        }
        wait_for(PATIENCE, || {
            self.tend();
            let rows = self.look().map_err(|error| error.to_string())?.1;
            let is_live =
                |alias: &&String| rows.iter().any(|row| row.alias == **alias && row.state == SessionState::Live);
            let missing: Vec<&String> = aliases.iter().filter(|alias| !is_live(alias)).collect();
            if missing.is_empty() { Ok(()) } else { Err(format!("{missing:?} to be live; {}", self.logs())) }
        });
    }

    /// Logs these sessions out. Whether it has worked is seen later.
    pub fn log_out(&mut self, rows: &[SessionRow]) {
        let registry = &mut self.registry;
        for row in rows.iter().filter(|row| !row.is_over()) {
            let alias = row.alias.parse().expect("an alias");
            self.runtime.block_on(registry.logout(&alias)).unwrap_or_else(|error| panic!("{}: {error}", row.alias));
        }
    }

    /// Waits until all nodes are in the rotation with all their phones, and Redis has its replicas.
    pub fn wait_whole(&mut self) {
        self.redis.wait_whole();
        let phones = self.phones_count();
        wait_for(PATIENCE, || {
            self.tend();
            let nodes = self.nodes().map_err(|error| error.to_string())?;
            let good = |row: &NodeRow| row.state == ShownNodeState::Active && row.registrations >= Some(phones);
            if nodes.len() == self.lab.nodes().len() && nodes.iter().all(good) {
                return Ok(());
            }
            Err(format!("all nodes to be whole: {nodes:?}; {}", self.logs()))
        });
    }

    /// Everybody is logged out; waits until no call is left anywhere.
    pub fn clear(&mut self) {
        wait_for(PATIENCE, || {
            self.tend();
            let (nodes, rows) = self.look().map_err(|error| error.to_string())?;
            let open: Vec<SessionRow> = rows.into_iter().filter(|row| !row.is_over()).collect();
            self.log_out(&open);
            let channels: usize = self.channels()?.values().map(Vec::len).sum();
            if open.is_empty() && channels == 0 && nodes.iter().all(|node| node.channels == 0) {
                return Ok(());
            }
            Err(format!(
                "nobody to be logged in: {} sessions, {channels} channels, {nodes:?}; {}",
                open.len(),
                self.logs()
            ))
        });
        for node in self.lab.nodes() {
            self.phones.forget_calls(node.address());
        }
        self.phones.clear_records();
        self.phones.behave_all(Behaviour::Answer { after: ANSWERS_AFTER });
        self.forget_asked();
        self.forget_deaf();
    }

    /// From now on this node does not hear, or is not heard.
    pub fn deafen(&mut self, name: &str) {
        let who = Who::Node(self.lab.node(name).address());
        self.deaf.push(Deaf { who, from: now(), until: None });
    }

    /// All is repaired: everybody hears again.
    pub fn hear(&mut self) {
        for deaf in &mut self.deaf {
            deaf.until.get_or_insert_with(now);
        }
    }

    /// Who hears again for so long that nothing may be excused by it any more.
    pub fn forget_deaf(&mut self) {
        self.deaf.retain(|deaf| !deaf.is_past(now()));
    }

    /// The file that tells the daemon of a node how wrong its clock is.
    pub fn file(&self, name: &str) -> PathBuf {
        self.lab.node(name).dir().join("daemon").join("clock")
    }
}
