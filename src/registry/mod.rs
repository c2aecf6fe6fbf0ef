//! The shared state in Redis: one typed call per script. Owns the shape of every request and reply, and the names of
//! queues and channels. Must never decide where a phone rings (the scripts do) or what an event means (`node` does).

pub mod answers;
mod client;
mod drain;
mod error;
pub mod events;
mod fetch_sequence;
mod forget;
mod heartbeat;
mod heartbeat_sequence;
mod hold;
mod idempotency;
mod inbox;
pub mod inspect;
mod keepalive;
mod left_out;
mod limits;
mod login_counts;
mod phones;
pub mod queues;
mod reasons;
mod refusal;
mod rejoin;
mod reply;
mod ring_queue;
mod script;
mod server;
mod shown;
mod states;
mod tables;
mod told;
mod try_login;
pub mod view;

use std::time::Duration;

use redis::{FromRedisValue, ScriptInvocation, Value};

pub use drain::{Moved, Turned};
pub use error::RegistryError;
pub use fetch_sequence::{Fetch, FetchSequence};
pub use forget::Forgotten;
pub use heartbeat::HeartbeatReply;
pub use heartbeat_sequence::{HeartbeatSequence, RedisTime, Sent};
pub use hold::{Confirmed, Hold, Require};
pub use idempotency::session_of_key;
pub use inbox::{InboxLogin, InboxMessage, OUR_QUEUES as ORDERS_PREFIX, Received, Settled, session_of_message};
pub use left_out::LeftOutRow;
pub use login_counts::LoginCounts;
pub use rejoin::Rejoined;
pub use reply::{Backlog, PlacedAgain, ReapResult, Reaped, Reported, Taken};
pub use script::{script_hashes, script_text};
pub use shown::PageEnd;
pub use told::{Rival, ToldRow, ToldSettings};

use crate::config::{NodeSettings, PlacementSettings, Rejoin, Settings};
use crate::ids::{Agent, Alias, Campaign, Case, Generation, NodeName, SessionId};
use crate::node::session::{Class, Login, Outcome};
use crate::node::{Live, NodeState};
use client::Connector;
use reply::{Tagged, fence, next_write, tagged2, taken};
use script::Scripts;
use view::Placement;

/// Most work of one script call, in Redis commands, before the rest is left to the next call: two or three milliseconds.
const WORK_MOST: usize = 1_200;
/// Sessions in one call of [`Registry::adopt`].
pub const ADOPT_MOST: usize = 100;
/// How long a daemon on a busy machine may need to report everything to a Redis that has lost its data.
const TELLING_MOST: Duration = Duration::from_secs(5);
/// How long the sessions of a daemon that stopped in good order wait for the next one: an upgrade or a reboot of
/// the daemon, not of Asterisk.
pub const LEAVE_GRACE: Duration = Duration::from_secs(60);

/// A requested login.
#[derive(Debug, Clone)]
pub struct LoginRequest {
    /// What the agent typed: an alias or a bare extension.
    pub alias: Alias,
    /// The person; by default named after the phone.
    pub agent: Option<Agent>,
    /// The campaign.
    pub campaign: Option<Campaign>,
    /// Local or remote.
    pub class: Class,
    /// An agent who is logged in with another phone is logged out there first, in the same step.
    pub moves: bool,
    /// Nobody is rung: whoever asks does that by other means.
    pub hold: Option<Hold>,
}

/// An order that a node took from its queue, or what became of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Ring this phone.
    Ring(Login),
    /// Hang up this session.
    HangUp(SessionId),
    /// This node may not ring it now: it was placed on another node, or failed.
    Moved(SessionId, PlacedAgain),
    /// Expired: it is not rung.
    Expired(SessionId),
    /// Delivered again, cancelled, or unreadable.
    Stale(String),
}

/// Who has a node's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Registered {
    /// We have.
    Taken {
        /// Who had it before.
        previous: Option<Generation>,
    },
    /// Somebody else has.
    Held {
        /// Their host.
        by: String,
        /// What is left of their lease.
        left: Duration,
    },
}

/// What `logout` did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoggedOut {
    /// No session matches.
    Nobody,
    /// It had not been rung: it is over.
    Ended(SessionId, String),
    /// Its node has the order to hang up.
    Asked(SessionId, String),
}

/// The result of adopting a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Adopted {
    /// Redis knew it.
    Kept,
    /// Redis had lost it and has it again.
    Restored,
    /// Its agent has been placed elsewhere: the channel must be hung up.
    Stale,
}

/// The calls. Each is one round trip, and each may be repeated.
#[derive(Debug)]
pub struct Registry {
    connector: Connector,
    scripts: Scripts,
    namespace: String,
    placement: PlacementSettings,
    ring_timeout: Duration,
    /// How long an answer may take.
    patience: Duration,
    /// Why the event stream could not be written at the last registration.
    mute: Option<String>,
    /// The number of the last word on phones. A Redis that took over from another may have lost it, and says so at the
    /// next heartbeat.
    told: u64,
    /// What this registry has registered.
    registered: Option<(NodeName, Generation)>,
    work_most: usize,
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A flag as the scripts write it.
fn flag(class: Class) -> &'static str {
    match class {
        Class::Local => "0",
        Class::Remote => "1",
    }
}

/// As a script takes them.
fn campaigns_of(node: &NodeSettings) -> String {
    node.campaigns.iter().map(Campaign::as_str).collect::<Vec<_>>().join(" ")
}

fn cap_of(node: &NodeSettings) -> String {
    node.max_agents.map(|most| most.to_string()).unwrap_or_default()
}

/// What is optional, as a script takes it.
fn text_of(value: Option<&impl ToString>) -> String {
    value.map(ToString::to_string).unwrap_or_default()
}

impl Registry {
    /// Prepares, and connects at the first call.
    ///
    /// # Errors
    /// [`RegistryError::Settings`].
    pub fn new(settings: &Settings) -> Result<Self, RegistryError> {
        Ok(Self {
            connector: Connector::new(&settings.redis)?,
            scripts: Scripts::new(),
            namespace: settings.redis.namespace.to_string(),
            placement: settings.placement.clone(),
            ring_timeout: settings.ring.timeout,
            patience: settings.redis.response_timeout,
            mute: None,
            told: 0,
            registered: None,
            work_most: WORK_MOST,
        })
    }

    /// Limits the work of one script call; with 1, each call handles one session.
    #[must_use]
    pub fn with_work(mut self, most: usize) -> Self {
        self.work_most = most;
        self
    }

    /// Places a login, or finds the session that exists (promises P1, P2, P3).
    ///
    /// # Errors
    /// Redis unavailable. A refusal is no error: it is in the reply.
    pub async fn place(&mut self, request: &LoginRequest, session: SessionId) -> Result<Placement, RegistryError> {
        match self.placement("place", request, session).await {
            Ok(placement) => Ok(placement),
            Err(error) => Err(self.name_what_is_missing(error).await),
        }
    }

    /// What [`Self::place`] would do, and why; writes nothing.
    ///
    /// # Errors
    /// Redis unavailable.
    pub async fn explain(&mut self, request: &LoginRequest, session: SessionId) -> Result<Placement, RegistryError> {
        self.placement("explain", request, session).await
    }

    async fn placement(
        &mut self,
        mode: &str,
        request: &LoginRequest,
        session: SessionId,
    ) -> Result<Placement, RegistryError> {
        if let (Some(hold), "place") = (request.hold, mode) {
            return self.hold(request, hold, session).await;
        }
        let (p, give_up) = (&self.placement, self.give_up_ms());
        let build = |call: &mut ScriptInvocation<'_>| {
            call.key(&self.namespace).arg(mode).arg(session.to_string());
            call.arg(p.case.one_spelling(request.alias.as_str()).as_ref());
            call.arg(request.agent.as_ref().map_or("", Agent::as_str));
            call.arg(request.campaign.as_ref().map_or("", Campaign::as_str));
            call.arg(flag(request.class)).arg(&p.alias_suffix).arg(ms(p.order_expiry)).arg(p.tries);
            call.arg(give_up).arg(ms(p.session_keep)).arg(u8::from(request.moves));
        };
        let raw = self.connector.run(&self.scripts.place, build).await?;
        Ok(Placement::from_reply(raw, &request.alias))
    }

    /// How names are compared here. What goes to Redis has the one spelling already.
    pub fn case(&self) -> Case {
        self.placement.case
    }

    /// What makes an alias of an extension.
    pub fn alias_suffix(&self) -> &str {
        &self.placement.alias_suffix
    }

    /// P4: live, or failed with a reason, within ring timeout × tries + lease.
    fn give_up_ms(&self) -> u64 {
        ms(self.ring_timeout * self.placement.tries + self.placement.lease)
    }

    /// Tries for the agent of a lost node; 0: they log in again.
    fn rejoin_tries(&self) -> u32 {
        match self.placement.rejoin {
            Rejoin::Manual => 0,
            Rejoin::Auto => self.placement.tries,
        }
    }

    /// How long the nodes need to report everything again to a Redis that has lost its data: two heartbeats, and some time
    /// on a busy machine. A command that waits for a session gives up no sooner.
    pub fn repair_time(&self) -> Duration {
        self.placement.heartbeat * 2 + TELLING_MOST
    }

    /// Registers a node's name. `host` identifies the holder up to the first blank; the rest of it is for people.
    ///
    /// # Errors
    /// Redis unavailable.
    pub async fn register(
        &mut self,
        node: &NodeSettings,
        generation: Generation,
        host: &str,
    ) -> Result<Registered, RegistryError> {
        let (campaigns, cap) = (campaigns_of(node), cap_of(node));
        let returns = self.registered.as_ref().is_some_and(|(name, life)| (name, *life) == (&node.name, generation));
        let build = |call: &mut ScriptInvocation<'_>| {
            call.key(&self.namespace).arg(node.name.as_str()).arg(generation.to_string()).arg(host);
            call.arg(ms(self.placement.lease)).arg(node.weight);
            call.arg(&cap).arg(&campaigns).arg(env!("CARGO_PKG_VERSION"));
            call.arg(u8::from(returns)).arg(self.placement.case.as_str());
            call.arg(text_of(node.sip.as_ref())).arg(text_of(node.address.as_ref()));
        };
        let reply: Vec<Value> = self.connector.run(&self.scripts.register, build).await?;
        let text = |at: usize| reply.get(at).and_then(|v| String::from_redis_value_ref(v).ok()).unwrap_or_default();
        if text(0) == "held" {
            let left = Duration::from_millis(text(2).parse().unwrap_or(0));
            return Ok(Registered::Held { by: text(1), left });
        }
        self.mute = Some(text(2)).filter(|why| !why.is_empty());
        self.registered = Some((node.name.clone(), generation));
        Ok(Registered::Taken { previous: text(1).parse().ok() })
    }

    /// Fetches up to `most` orders of this node; each session of them is ringing from here on. Before them come those
    /// of earlier takes whose answer was lost. Where some are moved, fewer may come than are there.
    ///
    /// # Errors
    /// Redis unavailable; [`RegistryError::Fenced`]; [`RegistryError::Forgotten`].
    pub async fn fetch_orders(
        &mut self,
        node: &NodeName,
        generation: Generation,
        asked: Fetch,
        most: usize,
    ) -> Result<Vec<Taken>, RegistryError> {
        // RSMQ's visibility time is in whole seconds, and always given: a queue's own default may be anything.
        let visibility = crate::node::ring::visibility(self.ring_timeout).as_secs();
        let build = |call: &mut ScriptInvocation<'_>| {
            call.key(&self.namespace).arg(node.as_str()).arg(generation.to_string()).arg(visibility).arg(most);
            call.arg(ms(self.placement.order_expiry)).arg(ms(self.placement.session_keep));
            call.arg(asked.number).arg(asked.since).arg(self.work_most);
        };
        let reply: (String, Option<Vec<Vec<String>>>) =
            tagged2(&mut self.connector, &self.scripts.fetch_orders, build).await?;
        fence(&reply.0)?;
        if reply.0 == "not-now" {
            return Err(self.connector.not_now());
        }
        Ok(reply.1.unwrap_or_default().iter().map(|row| taken(row)).collect())
    }

    /// Reports outcomes of sessions, and the state of the node: one that is not active is out of the rotation before they are
    /// settled. One result each, for the first of them, one at least: the rest is for a next call.
    ///
    /// # Errors
    /// Redis unavailable; [`RegistryError::Fenced`]; [`RegistryError::Forgotten`].
    pub async fn report(
        &mut self,
        node: &NodeName,
        generation: Generation,
        state: NodeState,
        outcomes: &[(SessionId, Outcome)],
    ) -> Result<Vec<Reported>, RegistryError> {
        let (rejoin_tries, give_up, number) = (self.rejoin_tries(), self.give_up_ms(), next_write());
        let build = |call: &mut ScriptInvocation<'_>| {
            call.key(&self.namespace).arg(node.as_str()).arg(generation.to_string()).arg(number);
            call.arg(ms(self.placement.order_expiry)).arg(ms(self.placement.session_keep));
            call.arg(rejoin_tries).arg(give_up).arg(state.as_str()).arg(self.work_most);
            for (session, outcome) in outcomes {
                let (what, reason) = match outcome {
                    Outcome::Live => ("live", String::new()),
                    Outcome::Ended(reason) => ("ended", reason.to_string()),
                    Outcome::Failed(reason) => ("failed", reason.to_string()),
                    Outcome::TryNextNode(reason) => ("try-next-node", reason.to_string()),
                };
                call.arg(session.to_string()).arg(what).arg(reason);
            }
        };
        let reply: (String, Option<Vec<String>>) = tagged2(&mut self.connector, &self.scripts.report, build).await?;
        fence(&reply.0)?;
        let unread = |result: &str| self.connector.script_error(format!("report: {result}"));
        let read = |result: &String| Reported::parse(result).ok_or_else(|| unread(result));
        reply.1.unwrap_or_default().iter().map(read).collect()
    }

    /// Reports the sessions that were found as channels in Asterisk.
    ///
    /// # Errors
    /// Redis unavailable; [`RegistryError::Fenced`]; [`RegistryError::Forgotten`].
    pub async fn adopt(
        &mut self,
        node: &NodeName,
        generation: Generation,
        found: &[(Login, Live)],
    ) -> Result<Vec<Adopted>, RegistryError> {
        let (case, number) = (self.placement.case, next_write());
        let build = |call: &mut ScriptInvocation<'_>| {
            call.key(&self.namespace).arg(node.as_str()).arg(generation.to_string()).arg(number);
            call.arg(self.placement.tries).arg(&self.placement.alias_suffix);
            for (login, live) in found {
                let state = match live {
                    Live::Yes => "live",
                    Live::NotYet => "ringing",
                };
                call.arg(login.session.to_string()).arg(state).arg(case.one_spelling(login.alias.as_str()).as_ref());
                call.arg(case.one_spelling(login.extension.as_str()).as_ref()).arg(login.agent.as_str());
                call.arg(login.campaign.as_ref().map_or("", Campaign::as_str));
                call.arg(flag(login.class)).arg(login.attempt);
            }
        };
        let reply: (String, Option<Vec<String>>) = tagged2(&mut self.connector, &self.scripts.adopt, build).await?;
        fence(&reply.0)?;
        let result = |word: String| match word.as_str() {
            "kept" => Adopted::Kept,
            "restored" => Adopted::Restored,
            _ => Adopted::Stale,
        };
        Ok(reply.1.unwrap_or_default().into_iter().map(result).collect())
    }

    /// Leaves the rotation. Orders that were not taken are placed elsewhere; how many.
    ///
    /// # Errors
    /// Redis unavailable; [`RegistryError::Fenced`]; [`RegistryError::Forgotten`].
    pub async fn leave(
        &mut self,
        node: &NodeName,
        generation: Generation,
        beats: &mut HeartbeatSequence,
    ) -> Result<usize, RegistryError> {
        let number = beats.last_one();
        let build = |call: &mut ScriptInvocation<'_>| {
            call.key(&self.namespace).arg(node.as_str()).arg(generation.to_string()).arg(ms(LEAVE_GRACE));
            call.arg(ms(self.placement.order_expiry)).arg(ms(self.placement.session_keep)).arg(number);
            call.arg(self.work_most);
        };
        let mut count = 0;
        loop {
            let reply = Tagged::of(&mut self.connector, &self.scripts.leave, build).await?;
            fence(&reply.tag)?;
            count += reply.part::<Vec<(String, String)>>(&self.connector, 0)?.unwrap_or_default().len();
            if reply.part(&self.connector, 1)? != Some(1_u8) {
                return Ok(count);
            }
        }
    }

    /// Ends the session of an alias, an extension, an agent or a session id.
    ///
    /// # Errors
    /// Redis unavailable.
    pub async fn logout(&mut self, who: &Alias) -> Result<LoggedOut, RegistryError> {
        let build = |call: &mut ScriptInvocation<'_>| {
            call.key(&self.namespace).arg(self.placement.case.one_spelling(who.as_str()).as_ref());
            call.arg(ms(self.placement.session_keep)).arg(&self.placement.alias_suffix).arg(who.as_str());
        };
        let reply: Vec<String> = self.connector.run(&self.scripts.logout, build).await?;
        let found = reply.get(1).and_then(|id| id.parse().ok()).zip(reply.get(2).cloned());
        Ok(match (reply.first().map(String::as_str), found) {
            (Some("not-now"), _) => return Err(self.connector.not_now()),
            (Some("ended"), Some((id, node))) => LoggedOut::Ended(id, node),
            (Some("asked"), Some((id, node))) => LoggedOut::Asked(id, node),
            (_, _) => LoggedOut::Nobody,
        })
    }

    /// Listens for the wake-ups of this node's queue.
    ///
    /// # Errors
    /// Redis unavailable.
    pub async fn subscribe_orders(&mut self, node: &NodeName) -> Result<redis::aio::PubSub, RegistryError> {
        self.connector.subscribe(&[format!("{}:rt:ring-{node}", self.namespace)]).await
    }

    /// Listens for the changes of one session.
    ///
    /// # Errors
    /// Redis unavailable.
    pub async fn subscribe_session(&mut self, session: SessionId) -> Result<redis::aio::PubSub, RegistryError> {
        let channels = [format!("{}:news:{session}", self.namespace)];
        self.connector.subscribe(&channels).await
    }
}
