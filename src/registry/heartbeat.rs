//! A node's heartbeat: its lease, its state, and the housekeeping that any living node does for all. Owns that call, and how
//! housekeeping is spread over several calls. Must never decide which node is dead: the judge in Redis does.

use std::time::Duration;

use redis::ScriptInvocation;

use super::reply::{Backlog, ReapResult, Reaped, Tagged, admin_state, fence, recorded_state};
use super::{HeartbeatSequence, LoginCounts, RedisTime, Registry, RegistryError, Sent, ms};
use crate::ids::{Generation, NodeName, Now, SessionId};
use crate::node::{AdminState, NodeState, RecordedState};

/// The most sessions that one call ends for others.
const REAP_MOST: usize = 200;
/// How often a heartbeat may be said again at once, because much was left to clean: others come in between.
const AGAIN_MOST: usize = 10;
/// A node without a heartbeat for this long is forgotten.
const NODE_KEEP: Duration = Duration::from_secs(30 * 24 * 3600);

/// The reply to a heartbeat.
#[derive(Debug)]
pub struct HeartbeatReply {
    /// The sessions that Redis has for this node.
    pub recorded: Vec<(SessionId, RecordedState)>,
    /// Sessions of others that this beat ended or placed elsewhere.
    pub reaped: Vec<Reaped>,
    /// Whether this node takes logins.
    pub admin_state: AdminState,
    /// How often older generations of this node were refused so far.
    pub refused: u64,
    /// Redis lacks the last report of phones: all of them must be reported again.
    pub phones_lost: bool,
    /// What waits in this node's queue.
    pub ring: Backlog,
    /// What waits in the inbox.
    pub logins: Backlog,
    /// Logins of the whole cluster that were refused or have failed.
    pub counts: LoginCounts,
}

/// How the node is: its state, and how many channels and registrations it has.
type How = (NodeState, usize, usize);

impl Registry {
    /// Renews the lease, says how the node is, and does the housekeeping. `now` is the daemon's own time: Redis's clock is
    /// checked by it.
    ///
    /// # Errors
    /// Redis unavailable; [`RegistryError::Fenced`]; [`RegistryError::Forgotten`].
    pub async fn heartbeat(
        &mut self,
        node: &NodeName,
        generation: Generation,
        how: How,
        (beats, now): (&mut HeartbeatSequence, Now),
    ) -> Result<HeartbeatReply, RegistryError> {
        let mut sent = beats.next(now);
        let reply = loop {
            let reply = self.send_beat(node, generation, how, sent).await?;
            fence(&reply.tag)?;
            if reply.tag != "late" {
                let ms = reply.part(&self.connector, 7)?.unwrap_or(0);
                let corrections = reply.part(&self.connector, 9)?.unwrap_or(0);
                beats.answered(RedisTime { ms, corrections }, now);
                break reply;
            }
            let redis_now = reply.part(&self.connector, 0)?.unwrap_or(0);
            // It was called late, and was not: its answer is here. So Redis's clock has stepped.
            sent = beats.again(&sent, redis_now).ok_or_else(|| self.connector.not_now())?;
        };
        let mut beat = self.beat(&reply)?;
        let mut is_more = self.is_more(&reply)?;
        for _ in 0..AGAIN_MOST {
            if !is_more {
                break;
            }
            let reply = self.send_beat(node, generation, how, beats.next(now)).await?;
            if reply.tag != "ok" {
                // The next heartbeat finds out.
                break;
            }
            let reaped = beat.reaped;
            beat = self.beat(&reply)?;
            beat.reaped.splice(0..0, reaped);
            is_more = self.is_more(&reply)?;
        }
        Ok(beat)
    }

    async fn send_beat(
        &mut self,
        node: &NodeName,
        generation: Generation,
        (state, channels, registrations): How,
        sent: Sent,
    ) -> Result<Tagged, RegistryError> {
        let (rejoin_tries, give_up) = (self.rejoin_tries(), self.give_up_ms());
        let build = |call: &mut ScriptInvocation<'_>| {
            call.key(&self.namespace).arg(node.as_str()).arg(generation.to_string());
            call.arg(ms(self.placement.lease)).arg(state.as_str()).arg(channels).arg(registrations);
            call.arg(ms(self.placement.session_keep)).arg(REAP_MOST).arg(ms(self.placement.order_expiry));
            call.arg(rejoin_tries).arg(give_up).arg(sent.number).arg(sent.expected).arg(sent.step);
            call.arg(self.work_most).arg(ms(NODE_KEEP)).arg(sent.corrections);
        };
        Tagged::of(&mut self.connector, &self.scripts.heartbeat, build).await
    }

    fn is_more(&self, reply: &Tagged) -> Result<bool, RegistryError> {
        Ok(reply.part(&self.connector, 8)? == Some(1_u8))
    }

    fn beat(&self, reply: &Tagged) -> Result<HeartbeatReply, RegistryError> {
        let recorded = reply.part::<Vec<(String, String)>>(&self.connector, 0)?.unwrap_or_default().into_iter();
        let recorded = recorded.filter_map(|(id, state)| Some((id.parse().ok()?, recorded_state(&state)))).collect();
        let reaped = reply.part::<Vec<(String, String, String)>>(&self.connector, 1)?.unwrap_or_default().into_iter();
        let reaped = reaped
            .map(|(session, node, result)| Reaped { session, node, result: ReapResult::parse(&result) })
            .collect();
        let refused = reply.part(&self.connector, 3)?.unwrap_or(0);
        let phones: Option<String> = reply.part(&self.connector, 4)?;
        let phones_lost = self.told > 0 && phones.is_some_and(|number| number != self.told.to_string());
        let (ring, logins) = (reply.backlog(&self.connector, 5)?, reply.backlog(&self.connector, 6)?);
        let counts = reply.part::<Vec<(String, u64)>>(&self.connector, 10)?.unwrap_or_default();
        let counts = LoginCounts::read(&counts);
        let admin_state = admin_state(reply.part(&self.connector, 2)?);
        Ok(HeartbeatReply { recorded, reaped, admin_state, refused, phones_lost, ring, logins, counts })
    }
}
