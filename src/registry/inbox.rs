//! The shared inbox: logins that any RSMQ client puts into the queue `logins`, as JSON. Owns the form of such a
//! message and of its answer. Must never trust one: it is parsed into ids here, or refused.

use std::time::Duration;

use redis::ScriptInvocation;
use serde::{Deserialize, Serialize};

use super::view::{PlaceReply, Placement};
use super::{LoginRequest, Registry, RegistryError, flag, ms};
use crate::ids::{Agent, Alias, Campaign, NodeName, SessionId};
use crate::node::session::Class;

/// The queue's name, in RSMQ's layout.
pub(super) const QUEUE: &str = "logins";
/// A login that was received but not answered comes back after this, in s (RSMQ's unit), to any node.
const VISIBILITY_S: u64 = 10;
/// How many nodes a wake-up of the inbox reaches. One would do; the second is there when it dies.
const SEATS: u32 = 2;

/// A login as it stands in the queue: `{"alias":"cc100x","agent":"7","campaign":"c","remote":false,"reply":"web-1"}`.
/// All but `alias` may be left out.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InboxLogin {
    alias: Alias,
    #[serde(default)]
    agent: Option<Agent>,
    #[serde(default)]
    campaign: Option<Campaign>,
    #[serde(default)]
    remote: bool,
    /// The RSMQ queue that gets the answer.
    #[serde(default)]
    reply: Option<NodeName>,
}

impl InboxLogin {
    /// The login it asks for.
    pub fn request(&self) -> LoginRequest {
        LoginRequest {
            alias: self.alias.clone(),
            agent: self.agent.clone(),
            campaign: self.campaign.clone(),
            class: if self.remote { Class::Remote } else { Class::Local },
        }
    }
}

/// One received message.
#[derive(Debug, Clone)]
pub struct InboxMessage {
    /// RSMQ's id of the message.
    pub id: String,
    /// What it asks for, or what is wrong with it.
    pub login: Result<InboxLogin, String>,
}

/// What was received from the inbox.
#[derive(Debug)]
pub struct Received {
    /// Whether a wake-up of the inbox is to reach the node that asked. It asks again before its seat is given to another.
    pub listens: bool,
    /// Hidden from the other nodes for a while.
    pub messages: Vec<InboxMessage>,
}

/// What became of a received message.
#[derive(Debug)]
pub enum Settled {
    /// It is no login: its sender has been told so.
    NoLogin,
    /// A login, with what it led to; its sender has been told, unless it is [`super::view::Verdict::NotNow`]: then the message
    /// comes back.
    Placed(Placement),
    /// Somebody else has taken it off the inbox: nothing was done.
    Gone,
}

/// What goes back to the sender of what is no login. For a login the script writes the same fields.
#[derive(Debug, Serialize)]
struct Refusal<'a> {
    alias: &'a str,
    session: &'a str,
    node: &'a str,
    state: &'a str,
    reason: &'a str,
}

impl InboxMessage {
    /// The queue for the answer, and the answer itself if this is no login. Empty: none.
    fn answer(&self) -> (&str, String) {
        match &self.login {
            Ok(login) => (login.reply.as_ref().map_or("", |queue| queue.as_str()), String::new()),
            Err(reason) => {
                let refusal = Refusal { alias: "", session: "", node: "", state: "refused", reason };
                // A struct of five strings always serialises.
                ("", serde_json::to_string(&refusal).unwrap_or_default())
            }
        }
    }

    fn add_to(&self, call: &mut ScriptInvocation<'_>) {
        let (queue, refusal) = self.answer();
        call.arg(&self.id).arg(queue).arg(refusal).arg(session_of_message(&self.id).to_string());
        match &self.login {
            Ok(login) => {
                call.arg(login.alias.as_str()).arg(login.agent.as_ref().map_or("", Agent::as_str));
                call.arg(login.campaign.as_ref().map_or("", Campaign::as_str)).arg(flag(login.request().class));
            }
            Err(_) => {
                call.arg("").arg("").arg("").arg("");
            }
        }
    }
}

impl Registry {
    /// The next logins of the shared inbox, `most` at most. `seat`: this node would listen for wake-ups of the inbox, and
    /// asks again within that time.
    ///
    /// # Errors
    /// Redis out of use.
    pub async fn receive_logins(
        &mut self,
        most: usize,
        seat: Option<(&NodeName, Duration)>,
    ) -> Result<Received, RegistryError> {
        let (node, keep) = seat.map_or(("", Duration::ZERO), |(node, keep)| (node.as_str(), keep));
        let build = |call: &mut ScriptInvocation<'_>| {
            call.key(&self.namespace).arg(QUEUE).arg(VISIBILITY_S).arg(most).arg(node).arg(ms(keep)).arg(SEATS);
        };
        let (seated, rows): (u8, Vec<(String, redis::Value, u64)>) =
            self.connector.run(&self.scripts.receive, build).await?;
        let message = |(id, body, _count): (String, redis::Value, u64)| {
            // What is no UTF-8 is no login either.
            let body = redis::from_redis_value::<String>(body).unwrap_or_default();
            InboxMessage { id, login: serde_json::from_str(&body).map_err(|error| error.to_string()) }
        };
        Ok(Received { listens: seated == 1, messages: rows.into_iter().map(message).collect() })
    }

    /// Places logins, takes their messages off the inbox and answers them; of several the first ones, one at least: the rest is
    /// for a next call.
    ///
    /// # Errors
    /// Redis out of use: the messages come back, and the session id made of a message's id finds the same session again.
    pub async fn settle_logins(&mut self, messages: &[InboxMessage]) -> Result<Vec<Settled>, RegistryError> {
        let (p, give_up) = (&self.placement, self.give_up_ms());
        let build = |call: &mut ScriptInvocation<'_>| {
            call.key(&self.namespace).arg(QUEUE).arg(&p.alias_suffix).arg(ms(p.order_expiry)).arg(p.tries);
            call.arg(give_up).arg(ms(p.session_keep)).arg(self.looks_most);
            for message in messages {
                message.add_to(call);
            }
        };
        let rows: Vec<Vec<String>> = self.connector.run(&self.scripts.settle, build).await?;
        let settled = |(row, message): (Vec<String>, &InboxMessage)| {
            let mut cells = row.into_iter();
            let mut next = || cells.next().unwrap_or_default();
            let tag = next();
            match (&message.login, tag.as_str()) {
                (_, "gone") => Settled::Gone,
                (Err(_), _) => Settled::NoLogin,
                (Ok(login), _) => {
                    let reply: PlaceReply = (tag, next(), next(), next(), next(), next(), next(), Vec::new());
                    Settled::Placed(Placement::from_reply(reply, &login.alias))
                }
            }
        };
        Ok(rows.into_iter().zip(messages).map(settled).collect())
    }

    /// Listens for the wake-ups of the shared inbox.
    ///
    /// # Errors
    /// Redis out of use.
    pub async fn subscribe_logins(&mut self) -> Result<redis::aio::PubSub, RegistryError> {
        self.connector.subscribe(&[format!("{}:rt:{QUEUE}", self.namespace)]).await
    }
}

/// The session id of a message: the same for the same message, so that a redelivered one finds its own session.
pub fn session_of_message(id: &str) -> SessionId {
    use md5::{Digest, Md5};
    let digest = Md5::digest(id.as_bytes());
    let mut bits = [0; 8];
    bits.copy_from_slice(&digest[..8]);
    SessionId::from_bits(u64::from_be_bytes(bits))
}
