//! A short AMI connection to this node's Asterisk, beside the daemon's own. Owns what is asked. Must never judge an answer
//! or ring a phone: its one Originate names a channel technology that does not exist.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::sync::mpsc;

use super::drift::Side;
use super::manager::{Heard, Role, command};
use crate::ami::action::{Action, EventMask, Originate, Target};
use crate::ami::event::Event;
use crate::ami::frame::Message;
use crate::ami::id::originate_action_id;
use crate::ami::link::Boot;
use crate::ami::outcome::{Answer, Tag};
use crate::ami_client::link_settings;
use crate::ami_client::{Ami, FromAmi, ToAmi};
use crate::config::{AmiLogin, Settings};
use crate::ids::{ChannelId, Generation, Now};
use crate::node::roster::{PhoneState, Roster};
use crate::node::{Effect, Input, Node, NodeState};
use crate::runtime::clock::Clock;
use crate::runtime::random::{new_session, random_bits};

/// An event that did not come within this time does not come.
const EVENT_WAIT: Duration = Duration::from_millis(1_500);
/// Tags of ours; those of the node machine are small numbers.
const OWN_TAGS: u64 = 1 << 32;

/// A login that was accepted.
#[derive(Debug)]
pub(super) struct ManagerProbe {
    to: mpsc::Sender<ToAmi>,
    from: mpsc::Receiver<FromAmi>,
    clock: Clock,
    generation: Generation,
    booted: Option<Message>,
    classes: BTreeSet<String>,
    next_tag: u64,
    version: String,
}

/// Why the connection was lost or could not be made.
pub(super) type Lost = String;

/// Runs `probe` on a connection that is logged in.
pub(super) async fn with_manager<T>(
    settings: &Settings,
    login: AmiLogin,
    probe: impl AsyncFnOnce(&mut ManagerProbe) -> Result<T, Lost>,
) -> Result<T, Lost> {
    let generation = Generation::from_bits(random_bits());
    let mut link = link_settings(settings, login, EventMask::ALL, generation);
    link.boot = Boot::NotAwaited;
    let clock = Clock::start();
    let mut ami = Ami::new(settings.node.name.clone(), settings.ami.clone(), link, clock, "doctor");
    ami.wanted = |_| true;
    let (to, orders) = mpsc::channel(64);
    let (told, from) = mpsc::channel(256);
    let (booted, classes, next_tag, version) = (None, BTreeSet::new(), OWN_TAGS, String::new());
    let mut open = ManagerProbe { to, from, clock, generation, booted, classes, next_tag, version };
    let converse = async {
        open.log_in(settings).await?;
        let said = probe(&mut open).await;
        // The answer to Logoff is not awaited.
        let _ = open.to.try_send(ToAmi::Logoff);
        said
    };
    tokio::select! {
        said = converse => said,
        () = ami.run(orders, told) => Err("the connection ended".to_owned()),
    }
}

impl ManagerProbe {
    async fn log_in(&mut self, settings: &Settings) -> Result<(), Lost> {
        let most = settings.ami.connect_timeout + settings.ami.login_timeout;
        let until = self.clock.now().after(most);
        loop {
            match self.hear(Some(until)).await? {
                Some(FromAmi::LoggedIn(version)) => {
                    self.version = version;
                    return Ok(());
                }
                Some(FromAmi::Event(_) | FromAmi::ShuttingDown(_) | FromAmi::Answer(_, _) | FromAmi::Closed { .. }) => {
                }
                None => return Err(format!("no login within {most:?}")),
            }
        }
    }

    /// The next message; `None` after the deadline.
    async fn hear(&mut self, until: Option<Now>) -> Result<Option<FromAmi>, Lost> {
        let word = tokio::select! {
            word = self.from.recv() => word,
            () = self.clock.sleep_until(until) => return Ok(None),
        };
        match word {
            None => Err("the connection ended".to_owned()),
            Some(FromAmi::Closed { reason, .. }) => Err(reason),
            Some(FromAmi::Event(message)) => {
                self.note(&message);
                Ok(Some(FromAmi::Event(message)))
            }
            Some(word @ (FromAmi::LoggedIn(_) | FromAmi::ShuttingDown(_) | FromAmi::Answer(_, _))) => Ok(Some(word)),
        }
    }

    /// Items of lists have no classes.
    fn note(&mut self, message: &Message) {
        if let Some(classes) = message.get("Privilege") {
            let classes = String::from_utf8_lossy(classes).to_ascii_lowercase();
            self.classes.extend(classes.split(',').map(|class| class.trim().to_owned()));
        }
        if message.event_name() == Some(b"FullyBooted") {
            self.booted = Some(message.clone());
        }
    }

    async fn send(&mut self, tag: Tag, action_id: Option<String>, action: Action) -> Result<(), Lost> {
        self.to.send(ToAmi::Send(tag, action_id, action)).await.map_err(|_| "the connection ended".to_owned())
    }

    /// One action, and its answer.
    async fn ask(&mut self, action_id: Option<String>, action: Action) -> Result<Answer, Lost> {
        self.next_tag += 1;
        let tag = Tag(self.next_tag);
        self.send(tag, action_id, action).await?;
        loop {
            // The link itself answers "unknown" in time.
            if let Some(FromAmi::Answer(at, answer)) = self.hear(None).await?
                && at == tag
            {
                return Ok(answer);
            }
        }
    }

    /// Waits for an event that `is_it`.
    async fn wait_event(&mut self, is_it: impl Fn(&Message) -> bool) -> Result<bool, Lost> {
        let until = self.clock.now().after(EVENT_WAIT);
        loop {
            match self.hear(Some(until)).await? {
                Some(FromAmi::Event(message)) if is_it(&message) => return Ok(true),
                Some(_) => {}
                None => return Ok(false),
            }
        }
    }

    /// Reads the rights of this user.
    pub(super) async fn rights(&mut self, role: Role) -> Result<Heard, Lost> {
        let list = Action::new("ListCommands").map_err(|error| error.to_string())?;
        let commands = match self.ask(None, list).await? {
            Answer::Success(message) => Ok(commands(&message)),
            Answer::Error { message, .. } => Err(message),
            Answer::List { .. } => Err("it returned a list of events".to_owned()),
            Answer::NotSent(why) => Err(why.to_string()),
            Answer::Unknown(why) => Err(why.to_string()),
        };
        let settings = Action::new("CoreSettings").map_err(|error| error.to_string())?;
        let asterisk = match self.ask(None, settings).await? {
            Answer::Success(message) => message.get("AsteriskVersion").map(|_| message.shown("AsteriskVersion")),
            Answer::Error { .. } | Answer::List { .. } | Answer::NotSent(_) | Answer::Unknown(_) => None,
        };
        let may_ring = commands.as_ref().is_ok_and(|list: &BTreeMap<_, _>| list.contains_key("Originate"));
        let call_events = if role == Role::Main && may_ring { Some(self.probe().await?) } else { None };
        let booted =
            self.booted.is_some() || self.wait_event(|event| event.event_name() == Some(b"FullyBooted")).await?;
        let (version, classes) = (self.version.clone(), self.classes.clone());
        Ok(Heard { version, asterisk, commands, booted, call_events, classes })
    }

    /// Checks whether events of class `call` arrive, with an Originate to a channel technology that does not exist: it makes
    /// no channel and rings no phone.
    async fn probe(&mut self) -> Result<bool, Lost> {
        let session = new_session();
        let action_id = originate_action_id(self.generation, session, 1);
        let call = Originate {
            channel: "EvenringDoctor/none".to_owned(),
            target: Target::Application { name: "Hangup".to_owned(), data: String::new() },
            caller_id: None,
            timeout: Duration::from_secs(1),
            variables: Vec::new(),
            channel_id: ChannelId(session),
        };
        let action = Action::originate(&call).map_err(|error| error.to_string())?;
        let wanted = action_id.clone();
        let is_it = move |event: &Message| {
            event.event_name() == Some(b"OriginateResponse") && event.get("ActionID") == Some(wanted.as_bytes())
        };
        // Asterisk gives the answer before the event.
        match self.ask(Some(action_id), action).await? {
            Answer::Success(_) => self.wait_event(is_it).await,
            Answer::Error { .. } | Answer::List { .. } | Answer::NotSent(_) | Answer::Unknown(_) => Ok(false),
        }
    }

    /// Reads sessions and phones of this Asterisk with the daemon's own state machine; `None` if it is not booted, or does
    /// not answer.
    pub(super) async fn truth(&mut self, settings: &Settings) -> Result<Option<Side>, Lost> {
        let Some(booted) = self.booted.clone() else { return Ok(None) };
        let name = settings.node.name.clone();
        let (ring, timeouts) = (settings.ring.clone(), settings.placement.timeouts());
        let mut node = Node::new(name, self.generation, ring, timeouts, self.clock.now());
        node.roster = Roster::new(settings.placement.case, settings.max_phones());
        let event = Event::parse(&booted).map_err(|error| error.to_string())?;
        node.handle(Input::Event(event), self.clock.now());
        let until = self.clock.now().after(settings.ami.action_timeout);
        let mut side = Side::default();
        loop {
            while let Some(effect) = node.next_effect() {
                match effect {
                    Effect::Ami { tag, action_id, action } => self.send(tag, action_id, action).await?,
                    Effect::Adopt(login, live) => {
                        side.sessions.insert(login.session.to_string(), live);
                    }
                    Effect::Report(_, _, _) | Effect::RingQueue(_) | Effect::Beat | Effect::Note(_) => {}
                }
            }
            // With many phones the queries take a while: compare what is known by the deadline.
            if node.state() == NodeState::Active && (node.phones_are_settled() || self.clock.now() >= until) {
                let phones = node.roster.take_changes().map(|changes| changes.phones).unwrap_or_default();
                let can_ring = phones.into_iter().filter(|(_, state)| *state == PhoneState::Registered);
                side.registered = can_ring.map(|(extension, _)| extension.to_string()).collect();
                return Ok(Some(side));
            }
            let next = node.next_deadline(self.clock.now()).map_or(until, |at| at.min(until));
            match self.hear(Some(next)).await? {
                Some(FromAmi::Answer(tag, answer)) => node.handle(Input::Answer(tag, answer), self.clock.now()),
                Some(FromAmi::Event(_) | FromAmi::ShuttingDown(_) | FromAmi::LoggedIn(_) | FromAmi::Closed { .. }) => {}
                None if self.clock.now() < until => node.handle(Input::Timer, self.clock.now()),
                None if node.state() == NodeState::Active => {}
                None => return Ok(None),
            }
        }
    }
}

/// The list of actions, a header line each.
fn commands(message: &Message) -> BTreeMap<String, BTreeSet<String>> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    message.frame().headers().filter_map(|(name, value)| command(&text(name), &text(value))).collect()
}
