//! The shared inbox: logins that any RSMQ client puts into the queue `logins`, as JSON. Owns the form of such a
//! message and of its answer. Must never trust one: it is parsed into ids here, or refused.

use redis::ScriptInvocation;
use serde::{Deserialize, Serialize};

use super::{LoginRequest, Registry, RegistryError, view::Placement};
use crate::ids::{Agent, Alias, Campaign, SessionId};
use crate::node::session::Class;

/// The queue's name, in RSMQ's layout.
pub(super) const QUEUE: &str = "logins";
/// A login that was received but not answered comes back after this, in s (RSMQ's unit), to any node.
const VISIBILITY_S: u64 = 10;

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
    reply: Option<crate::ids::NodeName>,
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
#[derive(Debug)]
pub struct InboxMessage {
    /// RSMQ's id of the message.
    pub id: String,
    /// What it asks for, or what is wrong with it.
    pub login: Result<InboxLogin, String>,
}

/// What goes back to the sender.
#[derive(Debug, Serialize)]
struct Answer<'a> {
    alias: &'a str,
    session: &'a str,
    node: &'a str,
    state: &'a str,
    reason: &'a str,
}

impl Registry {
    /// The next login of the shared inbox, hidden from the other nodes for a while.
    ///
    /// # Errors
    /// Redis out of use.
    pub async fn receive_login(&mut self) -> Result<Option<InboxMessage>, RegistryError> {
        let build = |call: &mut ScriptInvocation<'_>| {
            call.key(&self.namespace).arg(QUEUE).arg(VISIBILITY_S);
        };
        let reply: Vec<redis::Value> = self.connector.run(&self.scripts.receive, build).await?;
        let text = |at: usize| reply.get(at).and_then(|v| redis::from_redis_value_ref::<String>(v).ok());
        let Some(id) = text(0) else { return Ok(None) };
        let login = serde_json::from_str(&text(1).unwrap_or_default()).map_err(|error| error.to_string());
        Ok(Some(InboxMessage { id, login }))
    }

    /// Takes a message off the inbox and answers it. `placement` is `Err` with the reason if the message was no login.
    ///
    /// # Errors
    /// Redis out of use: the message comes back, and the session id made of its id finds the same session again.
    pub async fn answer_login(
        &mut self,
        message: &InboxMessage,
        placement: Result<&Placement, &str>,
    ) -> Result<(), RegistryError> {
        let (alias, reply) = match &message.login {
            Ok(login) => (login.alias.as_str(), login.reply.as_ref().map_or("", |queue| queue.as_str())),
            Err(_) => ("", ""),
        };
        let session = placement.ok().and_then(|p| p.session).map(|id| id.to_string()).unwrap_or_default();
        let answer = match placement {
            Ok(p) => Answer { alias, session: &session, node: &p.node, state: &p.state, reason: &p.reason },
            Err(reason) => Answer { alias, session: "", node: "", state: "refused", reason },
        };
        // A struct of five strings always serialises.
        let body = serde_json::to_string(&answer).unwrap_or_default();
        let build = |call: &mut ScriptInvocation<'_>| {
            call.key(&self.namespace).arg(QUEUE).arg(&message.id).arg(reply).arg(&body);
        };
        let _: (String,) = self.connector.run(&self.scripts.answer, build).await?;
        Ok(())
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
