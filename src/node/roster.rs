//! Which phones this node knows and whether each can ring here. Owns the judgement of device, peer and contact
//! evidence. Must never know of Redis, sessions or the socket.
//!
//! Three kinds of evidence (measured on Asterisk 16 and 22): the device state is the endpoint's own summary, but
//! hides a lost contact while a call is up; PeerStatus says whether the endpoint has any usable contact; ContactStatus
//! says why it has none. So PeerStatus and a device that is plainly idle or unavailable decide, ContactStatus explains.

use std::collections::{BTreeMap, BTreeSet};

use crate::ami::event::{ContactState, DeviceState, PeerState};
use crate::ids::{Extension, Phone, Technology};

/// Whether a phone can ring on this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PhoneState {
    /// It has a contact that is not known to be unreachable.
    Registered,
    /// It has a contact, but that does not answer.
    Unreachable,
    /// It has no contact.
    Unregistered,
    /// Asterisk knows no such endpoint (any more).
    Unknown,
}

impl PhoneState {
    /// The word in Redis, in tables and in refusals.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Registered => "registered",
            Self::Unreachable => "unreachable",
            Self::Unregistered => "unregistered",
            Self::Unknown => "unknown",
        }
    }
}

/// Phones whose state changed since the last time somebody asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PhoneChanges {
    /// True: this is everything, and what is not in it does not exist.
    pub replace: bool,
    /// The phones, each with its new state.
    pub phones: Vec<(Extension, PhoneState)>,
}

/// The most phones a node is believed to have; more are ignored and counted.
pub const MAX_PHONES: usize = 20_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Endpoint {
    online: bool,
    /// Why it is offline, if a contact event said so.
    unreachable: bool,
}

impl Endpoint {
    fn state(self) -> PhoneState {
        match (self.online, self.unreachable) {
            (true, _) => PhoneState::Registered,
            (false, true) => PhoneState::Unreachable,
            (false, false) => PhoneState::Unregistered,
        }
    }
}

/// The phones of one node.
#[derive(Debug, Default)]
pub struct Roster {
    endpoints: BTreeMap<Extension, BTreeMap<Technology, Endpoint>>,
    reported: BTreeMap<Extension, PhoneState>,
    dirty: BTreeSet<Extension>,
    replace: bool,
    ignored: u64,
}

impl Roster {
    /// Starts over from a full list of devices. What an event said before is forgotten, except the reason why a
    /// phone that is still offline is so.
    pub fn replace(&mut self, devices: impl Iterator<Item = (Phone, DeviceState)>) {
        let before = std::mem::take(&mut self.endpoints);
        for (phone, state) in devices {
            let was = before.get(&phone.extension).and_then(|techs| techs.get(&phone.technology));
            let online = device_is_online(&phone, state).unwrap_or(true);
            let unreachable = !online && was.is_some_and(|e| e.unreachable);
            self.insert(phone, Endpoint { online, unreachable });
        }
        self.replace = true;
        self.dirty.clear();
    }

    /// A device changed its state.
    pub fn device(&mut self, phone: Phone, state: DeviceState) {
        let Some(online) = device_is_online(&phone, state) else {
            // In a call: says nothing about the contact. A phone never seen before does have one, for it rings.
            if self.endpoint(&phone).is_none() {
                self.update(phone, Endpoint { online: true, unreachable: false });
            }
            return;
        };
        let unreachable = !online && self.endpoint(&phone).is_some_and(|e| e.unreachable);
        self.update(phone, Endpoint { online, unreachable });
    }

    /// A peer changed its state.
    pub fn peer(&mut self, phone: Phone, state: PeerState) {
        let unreachable = self.endpoint(&phone).is_some_and(|e| e.unreachable);
        let endpoint = match state {
            PeerState::Registered | PeerState::Reachable | PeerState::Lagged => {
                Endpoint { online: true, unreachable: false }
            }
            // chan_pjsip says Unreachable for both; ContactStatus tells them apart. chan_sip and chan_iax2 mean it.
            PeerState::Unreachable if phone.technology == Technology::Pjsip => Endpoint { online: false, unreachable },
            PeerState::Unreachable => Endpoint { online: false, unreachable: true },
            PeerState::Unregistered => Endpoint { online: false, unreachable: false },
            // Somebody failed to log in: says nothing of the phone that is there.
            PeerState::Rejected | PeerState::Unmonitored | PeerState::Unknown => return,
        };
        self.update(phone, endpoint);
    }

    /// A contact changed its state. Explains; never puts a phone on line by itself while others say it is not.
    pub fn contact(&mut self, phone: Phone, state: ContactState) {
        let Some(mut endpoint) = self.endpoint(&phone) else { return };
        endpoint.unreachable = match state {
            ContactState::Unreachable => true,
            ContactState::Reachable
            | ContactState::NonQualified
            | ContactState::Created
            | ContactState::Updated
            | ContactState::Removed => false,
            ContactState::Unknown => return,
        };
        self.update(phone, endpoint);
    }

    /// How many phones can ring here.
    pub fn registered(&self) -> usize {
        self.endpoints.values().filter(|techs| summary(techs) == PhoneState::Registered).count()
    }

    /// How many phones there are of each state.
    pub fn tally(&self) -> BTreeMap<PhoneState, usize> {
        self.endpoints.values().fold(BTreeMap::new(), |mut tally, techs| {
            *tally.entry(summary(techs)).or_default() += 1;
            tally
        })
    }

    /// The technology to dial an extension by: one that can ring, else the first known.
    pub fn technology(&self, extension: &Extension) -> Option<Technology> {
        let techs = self.endpoints.get(extension)?;
        let online = techs.iter().find(|(_, e)| e.online).map(|(t, _)| *t);
        online.or_else(|| techs.keys().next().copied())
    }

    /// The state of one phone.
    pub fn state(&self, extension: &Extension) -> PhoneState {
        self.endpoints.get(extension).map_or(PhoneState::Unknown, summary)
    }

    /// Everything is to be told again (Redis forgot).
    pub fn tell_all(&mut self) {
        self.replace = true;
    }

    /// What changed since the last call; `None` if nothing did.
    pub fn take_changes(&mut self) -> Option<PhoneChanges> {
        if self.replace {
            self.replace = false;
            self.dirty.clear();
            self.reported = self.endpoints.iter().map(|(x, techs)| (x.clone(), summary(techs))).collect();
            let phones = self.reported.iter().map(|(x, s)| (x.clone(), *s)).collect();
            return Some(PhoneChanges { replace: true, phones });
        }
        let mut phones = Vec::new();
        for extension in std::mem::take(&mut self.dirty) {
            let state = self.state(&extension);
            if self.reported.insert(extension.clone(), state) != Some(state) {
                phones.push((extension, state));
            }
        }
        (!phones.is_empty()).then_some(PhoneChanges { replace: false, phones })
    }

    /// How many phones were beyond [`MAX_PHONES`].
    pub fn ignored(&self) -> u64 {
        self.ignored
    }

    fn endpoint(&self, phone: &Phone) -> Option<Endpoint> {
        self.endpoints.get(&phone.extension)?.get(&phone.technology).copied()
    }

    fn update(&mut self, phone: Phone, endpoint: Endpoint) {
        if self.endpoint(&phone) != Some(endpoint) {
            let extension = phone.extension.clone();
            self.insert(phone, endpoint);
            self.dirty.insert(extension);
        }
    }

    fn insert(&mut self, phone: Phone, endpoint: Endpoint) {
        if self.endpoints.len() >= MAX_PHONES && !self.endpoints.contains_key(&phone.extension) {
            self.ignored += 1;
            return;
        }
        self.endpoints.entry(phone.extension).or_default().insert(phone.technology, endpoint);
    }
}

/// What a device state says about the contact; `None` while a call hides it. chan_iax2 says `UNKNOWN` of a peer that
/// is registered and `UNAVAILABLE` of one that is not (measured on Asterisk 16).
fn device_is_online(phone: &Phone, state: DeviceState) -> Option<bool> {
    match state {
        DeviceState::NotInUse => Some(true),
        DeviceState::Unknown if phone.technology == Technology::Iax2 => Some(true),
        DeviceState::Unavailable | DeviceState::Invalid | DeviceState::Unknown => Some(false),
        DeviceState::InUse
        | DeviceState::Busy
        | DeviceState::Ringing
        | DeviceState::RingInUse
        | DeviceState::OnHold => None,
    }
}

fn summary(techs: &BTreeMap<Technology, Endpoint>) -> PhoneState {
    techs.values().map(|e| e.state()).min().unwrap_or(PhoneState::Unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn phone(device: &str) -> Phone {
        Phone::parse(device.as_bytes()).unwrap()
    }

    /// Evidence as real Asterisk gave it, and what it means in the end.
    #[derive(Debug, Clone, Copy)]
    enum Word {
        Device(&'static str, DeviceState),
        Peer(&'static str, PeerState),
        Contact(&'static str, ContactState),
    }

    fn check(words: &[Word], extension: &str, state: PhoneState) {
        let mut roster = Roster::default();
        for word in words {
            match *word {
                Word::Device(device, state) => roster.device(phone(device), state),
                Word::Peer(device, state) => roster.peer(phone(device), state),
                Word::Contact(device, state) => roster.contact(phone(device), state),
            }
        }
        assert_eq!(roster.state(&extension.parse().unwrap()), state, "{words:?}");
    }

    #[test]
    fn the_evidence_of_three_drivers() {
        use ContactState as C;
        use DeviceState as D;
        use PeerState as P;
        use Word::{Contact, Device, Peer};
        let registered =
            [Contact("PJSIP/x", C::NonQualified), Peer("PJSIP/x", P::Reachable), Device("PJSIP/x", D::NotInUse)];
        check(&registered, "x", PhoneState::Registered);
        let gone = [Peer("PJSIP/x", P::Unreachable), Contact("PJSIP/x", C::Removed), Device("PJSIP/x", D::Unavailable)];
        check(&[registered.as_slice(), &gone].concat(), "x", PhoneState::Unregistered);
        let silent =
            [Peer("PJSIP/x", P::Unreachable), Contact("PJSIP/x", C::Unreachable), Device("PJSIP/x", D::Unavailable)];
        check(&[registered.as_slice(), &silent].concat(), "x", PhoneState::Unreachable);
        // A contact that is lost during a call: the device stays in use, the peer is not there any more.
        check(&[Device("PJSIP/x", D::InUse), Peer("PJSIP/x", P::Unreachable)], "x", PhoneState::Unregistered);
        check(&[Device("PJSIP/x", D::NotInUse), Device("PJSIP/x", D::Busy)], "x", PhoneState::Registered);
        check(&[Device("PJSIP/x", D::Unknown)], "x", PhoneState::Unregistered);
        check(&[Peer("IAX2/i", P::Registered), Device("IAX2/i", D::Unknown)], "i", PhoneState::Registered);
        check(&[Peer("SIP/s", P::Registered), Peer("SIP/s", P::Unreachable)], "s", PhoneState::Unreachable);
        check(&[Peer("SIP/s", P::Registered), Peer("SIP/s", P::Rejected)], "s", PhoneState::Registered);
        check(&[Device("SIP/s", D::NotInUse), Device("PJSIP/s", D::Unavailable)], "s", PhoneState::Registered);
        check(&[], "nobody", PhoneState::Unknown);
    }

    #[test]
    fn only_changes_are_told_and_a_snapshot_tells_all() {
        let mut roster = Roster::default();
        let (x, y) = (phone("PJSIP/x"), phone("PJSIP/y"));
        roster.replace([(x.clone(), DeviceState::NotInUse), (y.clone(), DeviceState::Unavailable)].into_iter());
        let all = roster.take_changes().unwrap();
        assert!(all.replace && all.phones.len() == 2);
        assert_eq!(roster.take_changes(), None);
        roster.device(x.clone(), DeviceState::InUse);
        roster.device(x.clone(), DeviceState::NotInUse);
        assert_eq!(roster.take_changes(), None, "a call is no change");
        roster.peer(x.clone(), PeerState::Unreachable);
        roster.device(y, DeviceState::NotInUse);
        let some = roster.take_changes().unwrap();
        assert!(!some.replace && some.phones.len() == 2, "{some:?}");
        roster.peer(x.clone(), PeerState::Reachable);
        roster.peer(x.clone(), PeerState::Unreachable);
        assert_eq!(roster.take_changes(), None, "back where it was");
        roster.replace([(x, DeviceState::NotInUse)].into_iter());
        assert_eq!(roster.take_changes().unwrap().phones.len(), 1, "what is not listed does not exist");
        assert_eq!(roster.registered(), 1);
    }
}
