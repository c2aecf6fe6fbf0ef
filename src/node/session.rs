//! One login on this node, from order to end. Owns what Asterisk's evidence means: Originate's answer, OriginateResponse,
//! the channel's events and its hang-up cause. Must never know Redis, sockets or other sessions.
//!
//! Why one result takes several events (measured, Asterisk 16 and 22): a busy, a declining and an
//! unregistered phone all give `OriginateResponse: Failure, Reason: 0`. The cause is in the Hangup event of the same
//! channel, which comes before or after; and a phone that could not be dialled at all never gets a channel.

use std::time::Duration;

pub use super::outcome::{Outcome, Reason};
use crate::ami::event::ChannelState;
use crate::ids::{Agent, Alias, Campaign, Extension, Now, SessionId};

/// Whether an agent's phone is beside this cluster or elsewhere. Only local agents are load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Counts towards the load of its node.
    Local,
    /// Is placed, never counted.
    Remote,
}

/// A login to ring: from an order, or from the variables of an adopted channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// The session.
    pub session: SessionId,
    /// Which try of the session this is, from 1.
    pub attempt: u32,
    /// The alias the agent typed.
    pub alias: Alias,
    /// The phone on this node.
    pub extension: Extension,
    /// The person.
    pub agent: Agent,
    /// The campaign, if one was named.
    pub campaign: Option<Campaign>,
    /// Local or remote.
    pub class: Class,
}

/// How long to wait for the other half of the evidence (OriginateResponse and Hangup come in either order).
const OTHER_HALF: Duration = Duration::from_millis(500);
/// An Asterisk that is stopping has hung up on everybody, and says so 1.1 s later.
const STOPPING: Duration = Duration::from_millis(2_000);
/// After this much more than the ring timeout without any word, Asterisk is asked what became of the channel.
const GRACE: Duration = Duration::from_secs(3);
/// An Originate that was written to a connection which has ended since may be read this late.
const LATE: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Paced: not written to Asterisk yet.
    Waiting,
    /// Originate was written.
    Ringing,
    /// Answered.
    Live,
    /// Asterisk has been asked whether the channel is there.
    Asking,
}

/// What to do next, as the session sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing changed for others.
    Nothing,
    /// Hang up the channel.
    HangUp,
    /// Ask Asterisk whether the channel is there.
    Ask,
    /// Ask Asterisk whether it is stopping.
    AskStopping,
    /// Tell Redis. All but [`Outcome::Live`] end the session here.
    Report(Outcome),
}

/// The answer to [`Step::AskStopping`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopping {
    /// All calls end, or no new ones begin and the others may end in peace. If it is the first, it says so soon.
    Yes,
    /// It goes on.
    No,
}

/// One session on this node.
#[derive(Debug, Clone)]
pub struct Session {
    /// Who is to be rung.
    pub login: Login,
    stage: Stage,
    /// Asterisk made a channel for it.
    channel: bool,
    /// The phone said that it is ringing.
    alerted: bool,
    /// A hang-up was asked for.
    hangup_requested: bool,
    /// The phone has hung up: whatever happens to Asterisk now, this call was over.
    phone_hung_up: bool,
    /// Asterisk was asked whether it is stopping: its answer, or the deadline, ends this.
    questioned: bool,
    /// `Reason` of a failed OriginateResponse.
    refused: Option<u8>,
    /// Cause of the Hangup event.
    cause: Option<u16>,
    deadline: Option<Now>,
}

impl Session {
    /// A session whose order has just been taken.
    pub fn new(login: Login) -> Self {
        Self {
            login,
            stage: Stage::Waiting,
            channel: false,
            alerted: false,
            hangup_requested: false,
            phone_hung_up: false,
            questioned: false,
            refused: None,
            cause: None,
            deadline: None,
        }
    }

    /// A session that was found as a channel in Asterisk.
    pub fn adopted(login: Login, state: ChannelState, ring_timeout: Duration, now: Now) -> Self {
        let mut session = Self::new(login);
        session.found(state, ring_timeout, now);
        session
    }

    /// Whether Originate is still to be written.
    pub fn is_waiting(&self) -> bool {
        self.stage == Stage::Waiting
    }

    /// Whether its phone rings, as far as anybody knows.
    pub fn is_ringing(&self) -> bool {
        matches!(self.stage, Stage::Ringing | Stage::Asking)
    }

    /// Whether the phone has answered.
    pub fn is_live(&self) -> bool {
        self.stage == Stage::Live
    }

    /// Whether a hang-up was asked for.
    pub fn is_hangup_requested(&self) -> bool {
        self.hangup_requested
    }

    /// Originate is on its way to Asterisk.
    pub fn originated(&mut self, ring_timeout: Duration, now: Now) {
        self.stage = Stage::Ringing;
        self.deadline = Some(now.after(ring_timeout).after(GRACE));
    }

    /// Originate could not be written after all: it waits for its turn again, unless it was called off.
    pub fn not_sent(&mut self) -> Step {
        // Its channel has been seen: it was sent after all.
        if self.channel {
            return Step::Nothing;
        }
        if self.hangup_requested {
            return Step::Report(Outcome::Ended(Reason::LoggedOut));
        }
        self.stage = Stage::Waiting;
        self.deadline = None;
        Step::Nothing
    }

    /// It is unknown whether Originate was written: only the channel itself can show it, if it has not done so.
    pub fn unanswered(&mut self, now: Now) -> Step {
        if self.channel || self.stage != Stage::Ringing { Step::Nothing } else { self.ask(now) }
    }

    fn ask(&mut self, now: Now) -> Step {
        self.stage = Stage::Asking;
        self.deadline = Some(now.after(GRACE));
        Step::Ask
    }

    /// The channel was seen in a list of channels, in this state.
    pub fn found(&mut self, state: ChannelState, ring_timeout: Duration, now: Now) -> Step {
        self.channel = true;
        self.alerted |= state == ChannelState::Ringing;
        if state == ChannelState::Up && !self.hangup_requested {
            return self.answered(now);
        }
        if state == ChannelState::Up {
            self.stage = Stage::Live;
        } else if self.stage != Stage::Ringing && self.stage != Stage::Live {
            self.originated(ring_timeout, now);
        }
        // Perhaps the hang-up got lost with a connection.
        if self.hangup_requested { self.hang_up(now) } else { Step::Nothing }
    }

    /// Whether a list of channels in which its channel is in this state, or missing, says something else than is known
    /// here. While something has a deadline by which it is judged anyway, nothing does.
    pub fn differs(&self, seen: Option<ChannelState>) -> bool {
        match (self.stage, seen) {
            (_, _) if self.cause.is_some() || self.refused.is_some() => false,
            (Stage::Waiting | Stage::Asking, _) | (Stage::Live, Some(_)) => false,
            (Stage::Ringing, None) => self.channel,
            (Stage::Ringing, Some(state)) => state == ChannelState::Up,
            (Stage::Live, None) => true,
        }
    }

    /// AMI is back after a gap: what was due in the meantime waits for the list of channels.
    pub fn reconnected(&mut self, now: Now) {
        // A question that was on its way has no answer.
        if self.stage == Stage::Asking {
            self.stage = Stage::Ringing;
        }
        self.deadline = self.deadline.map(|at| at.max(now.after(GRACE)));
    }

    /// The channel is in no list of channels. `restarted`: Asterisk is not the one that was asked to ring.
    pub fn missing(&mut self, restarted: bool, now: Now) -> Step {
        let outcome = match self.stage {
            Stage::Waiting => return Step::Nothing,
            // Perhaps it is only not there yet: asked once more.
            Stage::Ringing if !restarted && !self.channel && self.refused.is_none() => return self.wait(LATE, now),
            Stage::Live if restarted && !self.phone_hung_up => Outcome::Ended(Reason::NodeLost),
            Stage::Live if self.hangup_requested => Outcome::Ended(Reason::LoggedOut),
            Stage::Live => Outcome::Ended(Reason::HungUp),
            Stage::Ringing | Stage::Asking if self.hangup_requested => Outcome::Ended(Reason::LoggedOut),
            Stage::Ringing | Stage::Asking if restarted => Outcome::TryNextNode(Reason::NodeLost),
            Stage::Ringing | Stage::Asking => self.evidence().unwrap_or(Outcome::Failed(Reason::OutcomeUnknown)),
        };
        Step::Report(outcome)
    }

    /// Asterisk itself is gone, or the daemon stops or drains before it could ring.
    pub fn lost(&mut self, why: Reason) -> Step {
        Step::Report(match self.stage {
            Stage::Live if self.phone_hung_up => Outcome::Ended(Reason::HungUp),
            Stage::Live => Outcome::Ended(Reason::NodeLost),
            Stage::Waiting | Stage::Ringing | Stage::Asking if self.hangup_requested => {
                Outcome::Ended(Reason::LoggedOut)
            }
            Stage::Waiting | Stage::Ringing | Stage::Asking => Outcome::TryNextNode(why),
        })
    }

    /// Asterisk did not take the Originate.
    pub fn refused(&mut self, message: &str) -> Step {
        if self.hangup_requested {
            return Step::Report(Outcome::Ended(Reason::LoggedOut));
        }
        let words = message.chars().filter(|c| !c.is_control()).take(80).collect();
        Step::Report(Outcome::TryNextNode(Reason::Refused(words)))
    }

    /// Event Newchannel.
    pub fn channel_made(&mut self, now: Now) -> Step {
        self.channel = true;
        if self.hangup_requested { self.hang_up(now) } else { Step::Nothing }
    }

    /// Event Newstate: Ringing.
    pub fn alerting(&mut self, now: Now) -> Step {
        self.alerted = true;
        if self.channel { Step::Nothing } else { self.channel_made(now) }
    }

    /// Event Newstate: Up, or OriginateResponse: Success.
    pub fn answered(&mut self, now: Now) -> Step {
        if self.stage == Stage::Live {
            return Step::Nothing;
        }
        if self.cause.is_some() {
            // It was answered and is over already.
            return Step::Report(Outcome::Ended(if self.hangup_requested {
                Reason::LoggedOut
            } else {
                Reason::HungUp
            }));
        }
        let known = std::mem::replace(&mut self.channel, true);
        self.stage = Stage::Live;
        // The hang-up of a ringing call may have been lost, and nothing else would end it now.
        self.deadline = self.hangup_requested.then(|| now.after(GRACE));
        if self.hangup_requested && !known { self.hang_up(now) } else { Step::Report(Outcome::Live) }
    }

    /// Event OriginateResponse: Failure with this `Reason`.
    pub fn originate_failed(&mut self, reason: u8, now: Now) -> Step {
        if self.stage == Stage::Live || self.stage == Stage::Waiting {
            return Step::Nothing;
        }
        // Any other reason than 0 is the word of a channel that was made.
        if !self.channel && reason == 0 {
            let step = Outcome::TryNextNode(Reason::NotReachable);
            return Step::Report(if self.hangup_requested { Outcome::Ended(Reason::LoggedOut) } else { step });
        }
        self.refused = Some(reason);
        self.judge(now)
    }

    /// Event HangupRequest: the phone has hung up. Of a call that is not live, `Hangup` says all there is.
    pub fn hangs_up(&mut self) -> Step {
        self.phone_hung_up |= self.stage == Stage::Live;
        Step::Nothing
    }

    /// Event Hangup of this channel. `alerted`: the channel had been ringing by then.
    pub fn hung_up(&mut self, cause: u16, alerted: bool, now: Now) -> Step {
        if self.stage == Stage::Waiting {
            return Step::Nothing;
        }
        self.channel = true;
        self.cause = Some(cause);
        self.alerted |= alerted;
        if self.hangup_requested {
            return Step::Report(Outcome::Ended(Reason::LoggedOut));
        }
        self.judge(now)
    }

    /// A hang-up is asked for. The channel can be hung up only once it is there.
    pub fn call_off(&mut self, now: Now) -> Step {
        self.hangup_requested = true;
        match self.stage {
            Stage::Waiting => Step::Report(Outcome::Ended(Reason::LoggedOut)),
            Stage::Ringing | Stage::Live | Stage::Asking if self.channel => self.hang_up(now),
            Stage::Ringing | Stage::Live | Stage::Asking => Step::Nothing,
        }
    }

    /// A live call has no other deadline: should the hang-up get lost, it is asked for again.
    fn hang_up(&mut self, now: Now) -> Step {
        if self.stage == Stage::Live && self.cause.is_none() {
            self.deadline = Some(now.after(GRACE));
        }
        Step::HangUp
    }

    /// Asterisk says whether it is stopping, after the end of a call that nobody explained.
    pub fn told(&mut self, asterisk: Stopping, now: Now) -> Step {
        match (self.stage, asterisk) {
            (_, _) if !self.questioned => Step::Nothing,
            (Stage::Waiting, _) => Step::Nothing,
            (Stage::Live, Stopping::No) => Step::Report(Outcome::Ended(Reason::HungUp)),
            (Stage::Live, Stopping::Yes) => self.wait(STOPPING, now),
            (Stage::Ringing | Stage::Asking, Stopping::No) => self.evidence().map_or(Step::Nothing, Step::Report),
            // The phone gave no answer, and this Asterisk rings nobody any more.
            (Stage::Ringing | Stage::Asking, Stopping::Yes) => self.lost(Reason::NodeLost),
        }
    }

    /// When [`Self::timer`] wants to be called.
    pub fn deadline(&self) -> Option<Now> {
        self.deadline
    }

    /// The deadline has passed.
    pub fn timer(&mut self, now: Now) -> Step {
        self.deadline = None;
        match self.stage {
            Stage::Waiting => Step::Nothing,
            Stage::Live if self.hangup_requested && self.cause.is_none() => self.hang_up(now),
            Stage::Live if self.hangup_requested => Step::Report(Outcome::Ended(Reason::LoggedOut)),
            // Nobody said that Asterisk stopped: it was somebody's command.
            Stage::Live => Step::Report(Outcome::Ended(Reason::HungUp)),
            Stage::Ringing | Stage::Asking => match self.evidence() {
                // The other half never came: judge by what there is.
                Some(outcome) => self.conclude(outcome, now),
                None if self.stage == Stage::Ringing => self.ask(now),
                None if self.hangup_requested => Step::Report(Outcome::Ended(Reason::LoggedOut)),
                None => Step::Report(Outcome::Failed(Reason::OutcomeUnknown)),
            },
        }
    }

    /// The outcome that follows from the evidence so far; `None` if there is none.
    fn evidence(&self) -> Option<Outcome> {
        match (self.refused, self.cause) {
            (None, None) => None,
            (_, _) if self.hangup_requested => Some(Outcome::Ended(Reason::LoggedOut)),
            (reason, cause) => Some(verdict(reason.unwrap_or(0), cause.unwrap_or(0), self.alerted)),
        }
    }

    fn judge(&mut self, now: Now) -> Step {
        match (self.stage, self.refused, self.cause) {
            (Stage::Live, _, Some(_)) if self.phone_hung_up => Step::Report(Outcome::Ended(Reason::HungUp)),
            // Asterisk that stops hangs up just as an operator or, in a conference, an agent would.
            (Stage::Live, _, Some(_)) => self.question(now),
            (_, Some(reason), Some(cause)) => self.conclude(verdict(reason, cause, self.alerted), now),
            (_, _, _) => self.wait(OTHER_HALF, now),
        }
    }

    /// Concludes an attempt. Without an answer of the phone, a command ended it, or Asterisk is stopping.
    fn conclude(&mut self, outcome: Outcome, now: Now) -> Step {
        match outcome {
            Outcome::Failed(Reason::HungUp) if !self.questioned => self.question(now),
            Outcome::Live | Outcome::Ended(_) | Outcome::Failed(_) | Outcome::TryNextNode(_) => Step::Report(outcome),
        }
    }

    fn question(&mut self, now: Now) -> Step {
        self.questioned = true;
        self.deadline = Some(now.after(GRACE));
        Step::AskStopping
    }

    fn wait(&mut self, how_long: Duration, now: Now) -> Step {
        self.deadline = Some(now.after(how_long));
        Step::Nothing
    }
}

/// OriginateResponse `Reason: 3`: the timeout passed.
const TIMEOUT: u8 = 3;

/// What the two halves of the evidence mean. Causes are Q.850; where two systems differ, both are listed:
/// a timeout is cause 19 on Asterisk 22, 0 on Asterisk 16 and 16 with chan_sip; busy is Reason 5 with chan_sip. An INVITE
/// that nothing answers is cause 18 when the channel driver gives it up before the timeout: chan_sip after 6.4 s,
/// chan_pjsip after 32 s.
fn verdict(reason: u8, cause: u16, alerted: bool) -> Outcome {
    match (reason, cause) {
        (_, 17) => Outcome::Failed(Reason::Busy),
        (_, 21) => Outcome::Failed(Reason::Declined),
        (TIMEOUT, _) if alerted => Outcome::Failed(Reason::NoAnswer),
        (TIMEOUT, _) => Outcome::TryNextNode(Reason::Silent),
        (_, 1) => Outcome::TryNextNode(Reason::NotFound),
        (_, 18) if alerted => Outcome::Failed(Reason::NoAnswer),
        (_, 18) => Outcome::TryNextNode(Reason::Silent),
        (_, 19) => Outcome::Failed(Reason::PhoneUnavailable),
        (5, 0) => Outcome::Failed(Reason::Busy),
        (_, 0 | 16) => Outcome::Failed(Reason::HungUp),
        (_, cause) => Outcome::TryNextNode(Reason::Congestion(cause)),
    }
}
