//! Queries Asterisk's phones: three lists that together become the roster, and the contacts of phones whose state no list
//! shows. Owns what is queried, and how fast. Must never judge an answer: `endpoint` does.

use std::collections::BTreeSet;
use std::time::Duration;

use super::rights::is_denied;
use super::roster::Contact;
use super::snapshot::describe;
use super::{Effect, Node, Note, Purpose};
use crate::ami::action::Action;
use crate::ami::event::{DeviceState, Event};
use crate::ami::frame::Message;
use crate::ami::item::Peer;
use crate::ami::outcome::{Answer, Unknown};
use crate::ids::{Extension, Now, Phone, Technology};

/// So many endpoints are asked about at a time, …
const ASK_AT_ONCE: usize = 50;
/// … and the next ones after this.
const ASK_EVERY: Duration = Duration::from_millis(100);
/// What Asterisk says of an action whose module is not loaded.
const UNKNOWN_ACTION: &str = "Invalid/unknown command";

/// The lists of one round, as far as they have come.
#[derive(Debug, Default)]
pub(super) struct Lists {
    /// Answers to an earlier round are worth nothing.
    round: u32,
    events_lost: bool,
    devices: Option<Vec<(Phone, DeviceState)>>,
    sip: Option<Vec<Peer>>,
    iax: Option<Vec<Peer>>,
}

impl Lists {
    /// Whether the roster is what the last round said.
    pub(super) fn are_complete(&self) -> bool {
        self.devices.is_some() && self.sip.is_some() && self.iax.is_some()
    }

    /// The connection is over: no answer comes any more.
    pub(super) fn closed(&mut self) {
        *self = Self { round: self.round.wrapping_add(1), ..Self::default() };
    }
}

/// The endpoints whose contacts must be queried.
#[derive(Debug, Default)]
pub(super) struct Questions {
    waiting: BTreeSet<Extension>,
    next: Now,
    /// This AMI user may not ask.
    refused: bool,
    aors: Aors,
    /// Not to be dialled, and it is not known yet whether Asterisk can say why.
    undecided: BTreeSet<Extension>,
}

/// Whether Asterisk can list the contacts of an endpoint that has only dead ones. It needs the module func_pjsip_aor and AORs
/// that are called like their endpoints; where either is missing, the answer is empty, and Asterisk logs an error each time.
/// So it is asked about a phone first that does have a contact.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Aors {
    #[default]
    Untried,
    Trying,
    Listed,
    NotListed,
}

impl Questions {
    /// When the next are due.
    pub(super) fn deadline(&self) -> Option<Now> {
        (!self.waiting.is_empty()).then_some(self.next)
    }

    /// The connection is over.
    pub(super) fn closed(&mut self) {
        *self = Self { next: self.next, ..Self::default() };
    }
}

impl Purpose {
    fn is_question(&self) -> bool {
        matches!(self, Self::Dialable(_) | Self::Contacts(_) | Self::ContactsOfOnline | Self::Qualify)
    }
}

impl Node {
    /// Asks for all phones. `events_lost`: what was believed of contacts may be wrong.
    pub(super) fn ask_phones(&mut self, events_lost: bool) {
        let lost_before = self.lists.events_lost && !self.lists.are_complete();
        self.lists.closed();
        self.lists.events_lost = events_lost || lost_before;
        self.roster.left_out.begin();
        let round = self.lists.round;
        self.send(Purpose::Devices(round), None, Action::device_state_list());
        self.send(Purpose::Peers(Technology::Sip, round), None, Action::sip_peers());
        self.send(Purpose::Peers(Technology::Iax2, round), None, Action::iax_peers());
    }

    pub(super) fn devices_answer(&mut self, round: u32, answer: Answer, now: Now) {
        if round != self.lists.round {
            return;
        }
        let mut beyond = 0;
        let items = match answer {
            Answer::List { items } => {
                self.miscounted.devices = false;
                items
            }
            Answer::Unknown(Unknown::ListCut { items, beyond: more }) => {
                (self.miscounted.devices, beyond) = (false, more);
                items
            }
            Answer::Unknown(Unknown::ListCount { items, counted }) if self.miscounted.devices => {
                self.accepted("DeviceStateList", items, counted)
            }
            Answer::Success(_) | Answer::Error { .. } | Answer::NotSent(_) | Answer::Unknown(_) => {
                self.miscounted.devices = matches!(answer, Answer::Unknown(Unknown::ListCount { .. }));
                return self.snapshot_failed("DeviceStateList", &answer, now);
            }
        };
        self.roster.left_out.listed(&items, beyond);
        self.lists.devices = Some(items.iter().filter_map(device).collect());
        self.phones_came();
    }

    /// A list of peers. Where that driver is not loaded there is none; and without the list, its phones are known as soon as
    /// something happens to them.
    pub(super) fn peers_answer(&mut self, technology: Technology, round: u32, answer: Answer) {
        if round != self.lists.round {
            return;
        }
        let mut beyond = 0;
        let items = match answer {
            Answer::List { items } | Answer::Unknown(Unknown::ListCount { items, .. }) => items,
            Answer::Unknown(Unknown::ListCut { items, beyond: more }) => {
                beyond = more;
                items
            }
            Answer::Error { message, .. } if message.starts_with(UNKNOWN_ACTION) => Vec::new(),
            Answer::Success(_) | Answer::Error { .. } | Answer::NotSent(_) | Answer::Unknown(_) => {
                let message = describe(&answer);
                self.effects.push_back(Effect::Note(Note::PeersUnlisted { technology, message }));
                Vec::new()
            }
        };
        self.roster.left_out.listed(&items, beyond);
        let peers = items.iter().filter_map(|item| Peer::parse(item).ok()?).collect();
        match technology {
            Technology::Iax2 => self.lists.iax = Some(peers),
            Technology::Sip | Technology::Pjsip => self.lists.sip = Some(peers),
        }
        self.phones_came();
    }

    fn phones_came(&mut self) {
        let Lists { devices: Some(devices), sip: Some(sip), iax: Some(iax), .. } = &mut self.lists else { return };
        let mut peers = std::mem::take(sip);
        peers.append(iax);
        let (devices, events_lost) = (std::mem::take(devices), self.lists.events_lost);
        // What was asked before and heard since is still true, unless events were lost.
        let settled: BTreeSet<Extension> = self.roster.in_doubt().filter(|_| !events_lost).cloned().collect();
        self.roster.replace(&devices, &peers, events_lost);
        if !self.questions.refused {
            let new = self.roster.in_doubt().filter(|extension| !settled.contains(*extension)).cloned();
            self.questions.waiting.extend(new);
        }
        self.in_sync();
    }

    /// Whether all queries about phones have been answered.
    pub fn phones_are_settled(&self) -> bool {
        let asked_all = self.questions.waiting.is_empty() && !self.open.values().any(Purpose::is_question);
        self.lists.are_complete() && asked_all
    }

    /// Something was heard of this phone: if that leaves it in doubt, Asterisk is asked about it.
    pub(super) fn heard_of(&mut self, extension: Extension) {
        if !self.questions.refused && self.roster.is_in_doubt(&extension) {
            self.questions.waiting.insert(extension);
        }
    }

    /// Sends the queries that are due. Runs at the end of every input.
    pub(super) fn ask_contacts(&mut self, now: Now) {
        if self.is_away() || self.questions.waiting.is_empty() || now < self.questions.next {
            return;
        }
        self.questions.next = now.after(ASK_EVERY);
        // An Asterisk that is slow gets no more of them: logins have to get through.
        let unanswered = self.open.values().filter(|purpose| purpose.is_question()).count();
        for _ in unanswered..ASK_AT_ONCE {
            let Some(extension) = self.questions.waiting.pop_first() else { break };
            let action = Action::pjsip_dial_contacts(&extension);
            self.send(Purpose::Dialable(extension), None, action);
        }
    }

    /// Which contacts Asterisk would dial. Those that it has not asked yet are asked now: else it could take a minute.
    pub(super) fn dialable_answer(&mut self, extension: Extension, answer: Answer) {
        match Said::of(answer) {
            Said::Some => {
                self.roster.asked(&extension, Contact::Dialable);
                self.send(Purpose::Qualify, None, Action::pjsip_qualify(&extension));
            }
            Said::Empty => self.ask_why(extension),
            Said::Refused { for_good } => {
                self.questions.refused = for_good;
                self.questions.waiting.clear();
            }
            // Asterisk is slow, or nothing gets through: asked again in its turn.
            Said::Nothing => self.heard_of(extension),
        }
    }

    /// Asterisk would not dial it: has it only dead contacts, or none?
    fn ask_why(&mut self, extension: Extension) {
        match self.questions.aors {
            Aors::NotListed => {}
            Aors::Listed => self.ask_for_contacts(extension),
            Aors::Trying => {
                self.questions.undecided.insert(extension);
            }
            Aors::Untried => match self.roster.online_pjsip().cloned() {
                Some(online) => {
                    self.questions.aors = Aors::Trying;
                    self.questions.undecided.insert(extension);
                    self.send(Purpose::ContactsOfOnline, None, Action::pjsip_contacts(&online));
                }
                None => self.ask_for_contacts(extension),
            },
        }
    }

    fn ask_for_contacts(&mut self, extension: Extension) {
        let action = Action::pjsip_contacts(&extension);
        self.send(Purpose::Contacts(extension), None, action);
    }

    /// Which contacts a phone has that is known to have one.
    pub(super) fn contacts_of_online_answer(&mut self, answer: Answer) {
        let undecided = std::mem::take(&mut self.questions.undecided);
        match Said::of(answer) {
            Said::Some => {
                self.questions.aors = Aors::Listed;
                undecided.into_iter().for_each(|extension| self.ask_for_contacts(extension));
            }
            // What the events said stays.
            Said::Empty | Said::Refused { .. } => self.questions.aors = Aors::NotListed,
            Said::Nothing => {
                self.questions.aors = Aors::Untried;
                undecided.into_iter().for_each(|extension| self.heard_of(extension));
            }
        }
    }

    /// Which contacts there are, of an endpoint that Asterisk would not dial.
    pub(super) fn contacts_answer(&mut self, extension: &Extension, answer: Answer) {
        match Said::of(answer) {
            Said::Some => self.roster.asked(extension, Contact::Dead),
            Said::Empty => self.roster.asked(extension, Contact::Missing),
            Said::Refused { .. } => {}
            Said::Nothing => self.heard_of(extension.clone()),
        }
    }
}

/// What Asterisk said to Getvar.
enum Said {
    /// A value that is not empty.
    Some,
    Empty,
    /// An error: this login may not ask, or Asterisk is about to stop and answers nothing any more.
    Refused {
        for_good: bool,
    },
    /// No answer.
    Nothing,
}

impl Said {
    fn of(answer: Answer) -> Self {
        match &answer {
            Answer::Success(message) if message.get("Value").is_some_and(|value| !value.is_empty()) => Self::Some,
            Answer::Success(_) | Answer::List { .. } => Self::Empty,
            Answer::Error { .. } => Self::Refused { for_good: is_denied(&answer) },
            Answer::NotSent(_) | Answer::Unknown(_) => Self::Nothing,
        }
    }
}

/// An item of a list that cannot be read is left out: the phone counts as not there.
fn device(message: &Message) -> Option<(Phone, DeviceState)> {
    match Event::parse(message).ok()? {
        Event::DeviceState { phone, state } => Some((phone, state)),
        Event::FullyBooted { .. }
        | Event::Shutdown { .. }
        | Event::HangupRequest { .. }
        | Event::Reload { .. }
        | Event::ContactStatus { .. }
        | Event::PeerStatus { .. }
        | Event::Newchannel(_)
        | Event::Newstate(_)
        | Event::Hangup { .. }
        | Event::OriginateResponse { .. }
        | Event::NoId { .. }
        | Event::Other => None,
    }
}
