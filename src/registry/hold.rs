//! Holds: a login is chosen and reserved, and whoever asked rings the phone by other means. Owns how long such a session may
//! stay without a word. Must never ring.

use std::time::Duration;

use redis::ScriptInvocation;

use super::reasons::{EndReason, reason};
use super::states::{Parsed, SessionState};
use super::view::Placement;
use super::{LoginRequest, Registry, RegistryError, flag, ms};
use crate::ids::{Agent, Campaign, NodeName, SessionId};
use crate::node::keyword::{Keyword, keywords};

/// A login that is chosen and reserved, and that nobody rings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hold {
    /// It ends after this, unless [`Registry::confirm`] is called; from [`Hold::LEAST`] to [`Hold::MOST`].
    pub ttl: Duration,
    /// Which phones may be chosen.
    pub require: Require,
}

impl Hold {
    /// The shortest time that a hold stays.
    pub const LEAST: Duration = Duration::from_secs(1);
    /// The longest.
    pub const MOST: Duration = Duration::from_secs(300);
    /// Where nothing is said.
    pub const TTL: Duration = Duration::from_secs(30);

    /// What somebody wrote, e.g. `45s` and `known`; `None`: the default.
    ///
    /// # Errors
    /// What is wrong with it, as a sentence.
    pub fn parse(ttl: Option<&str>, require: Option<&str>) -> Result<Self, String> {
        let ttl = ttl.map_or(Ok(Self::TTL), |text| {
            let span = humantime::parse_duration(text).ok();
            let fits = span.filter(|span| (Self::LEAST..=Self::MOST).contains(span));
            fits.ok_or_else(|| format!("ttl {:?} is not a time from 1s to 5m, such as 30s", shown(text)))
        })?;
        let require = require.map_or(Ok(Require::Registered), |word| {
            Require::of(word).ok_or_else(|| format!("require {:?} is neither registered nor known", shown(word)))
        })?;
        Ok(Self { ttl, require })
    }
}

fn shown(text: &str) -> String {
    text.chars().take(40).collect()
}

keywords! {
    /// Which phones a hold may choose.
    Require {
        /// Such as can ring now.
        Registered = "registered",
        /// All that their node knows: a web phone registers only when its node has been chosen.
        Known = "known",
    }
}

/// What became of the word that the agent of a hold is on the phone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Confirmed {
    /// It is live, perhaps since an earlier word.
    Live,
    /// There is no such session.
    None,
    /// Its own node rings it, and says when it is live.
    Rung,
    /// It is over.
    Over(Parsed<SessionState>, Option<EndReason>),
}

impl Registry {
    /// Places a login that nobody rings; an agent's hold that exists has its time begin anew.
    pub(super) async fn hold(
        &mut self,
        request: &LoginRequest,
        hold: Hold,
        session: SessionId,
    ) -> Result<Placement, RegistryError> {
        let p = &self.placement;
        let build = |call: &mut ScriptInvocation<'_>| {
            call.key(&self.namespace).arg(session.to_string());
            call.arg(p.case.one_spelling(request.alias.as_str()).as_ref());
            call.arg(request.agent.as_ref().map_or("", Agent::as_str));
            call.arg(request.campaign.as_ref().map_or("", Campaign::as_str));
            call.arg(flag(request.class)).arg(&p.alias_suffix).arg(ms(hold.ttl)).arg(ms(p.session_keep));
            call.arg(u8::from(request.moves)).arg(u8::from(hold.require == Require::Known));
        };
        let raw = self.connector.run(&self.scripts.hold, build).await?;
        Ok(Placement::from_reply(raw, &request.alias))
    }

    /// Where the host of a node is reached, as `node.address` says.
    ///
    /// # Errors
    /// Redis unavailable.
    pub async fn address_of(&mut self, node: &NodeName) -> Result<Option<String>, RegistryError> {
        let mut command = redis::cmd("HGET");
        command.arg(format!("{}:node:{node}", self.namespace)).arg("address");
        let address: Option<String> = self.connector.command(&command).await?;
        Ok(address.filter(|address| !address.is_empty()))
    }

    /// Whoever has a hold says that its agent is on the phone. Idempotent.
    ///
    /// # Errors
    /// Redis unavailable.
    pub async fn confirm(&mut self, session: SessionId) -> Result<Confirmed, RegistryError> {
        let build = |call: &mut ScriptInvocation<'_>| {
            call.key(&self.namespace).arg(session.to_string());
        };
        let reply: Vec<String> = self.connector.run(&self.scripts.confirm, build).await?;
        let mut words = reply.into_iter();
        let mut next = || words.next().unwrap_or_default();
        match next().as_str() {
            "live" => Ok(Confirmed::Live),
            "none" => Ok(Confirmed::None),
            "rung" => Ok(Confirmed::Rung),
            "over" => Ok(Confirmed::Over(next().into(), reason(&next()))),
            other => Err(self.connector.script_error(format!("confirm.lua replied {other:?}"))),
        }
    }
}
