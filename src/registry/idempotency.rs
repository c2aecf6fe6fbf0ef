//! Idempotency keys: the session id that follows from one, and whether it was used for another request. Owns both. Must never
//! place a login.

use redis::ScriptInvocation;
use sha2::{Digest, Sha256};

use super::{LoginRequest, Registry, RegistryError, flag, ms};
use crate::ids::{Agent, Campaign, SessionId};

/// The session id of a key: the same for the same key of the same client, so that a repeated request finds its own session.
pub fn session_of_key(client: &str, key: &str) -> SessionId {
    let digest = Sha256::digest(format!("{client}\n{key}"));
    let mut bits = [0; 8];
    bits.copy_from_slice(&digest[..8]);
    SessionId::from_bits(u64::from_be_bytes(bits))
}

/// What a request is about, in a few characters.
fn digest_of(request: &LoginRequest) -> String {
    let agent = request.agent.as_ref().map_or("", Agent::as_str);
    let campaign = request.campaign.as_ref().map_or("", Campaign::as_str);
    let (class, moves) = (flag(request.class), request.moves);
    let hold = request.hold.map(|hold| (ms(hold.ttl), hold.require.as_str()));
    let digest = Sha256::digest(format!("{}\n{agent}\n{campaign}\n{class}\n{moves}\n{hold:?}", request.alias));
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Registry {
    /// Whether this session id is free for this request, or was made for it. It is kept as long as a session that is over.
    ///
    /// # Errors
    /// Redis unavailable.
    pub async fn belongs_to(&mut self, session: SessionId, request: &LoginRequest) -> Result<bool, RegistryError> {
        let build = |call: &mut ScriptInvocation<'_>| {
            call.key(&self.namespace).arg(session.to_string()).arg(digest_of(request));
            call.arg(ms(self.placement.session_keep));
        };
        let (tag,): (String,) = self.connector.run(&self.scripts.idempotency, build).await?;
        Ok(tag == "ok")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::session::Class;

    #[test]
    fn whatever_differs_makes_another_request() {
        let of = |alias: &str, agent: &str, campaign: &str, class, moves| {
            let (agent, campaign) = (agent.parse().ok(), campaign.parse().ok());
            digest_of(&LoginRequest { alias: alias.parse().unwrap(), agent, campaign, class, moves, hold: None })
        };
        let one = of("a", "b", "c", Class::Local, false);
        assert_eq!(one, of("a", "b", "c", Class::Local, false));
        for other in [
            of("x", "b", "c", Class::Local, false),
            of("a", "", "c", Class::Local, false),
            of("a", "b", "", Class::Local, false),
            of("a", "c", "b", Class::Local, false),
            of("a", "b", "c", Class::Remote, false),
            of("a", "b", "c", Class::Local, true),
        ] {
            assert_ne!(one, other);
        }
        assert_ne!(session_of_key("web", "1"), session_of_key("app", "1"));
    }
}
