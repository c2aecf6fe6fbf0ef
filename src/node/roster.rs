//! Which phones this node knows, and which of them have changed. Owns the collection; `endpoint` judges the evidence about
//! each. Must never know Redis, sessions or the socket.

use std::collections::{BTreeMap, BTreeSet};

pub use super::endpoint::Contact;
use super::endpoint::Endpoint;
pub use super::endpoint::PhoneState;
use super::left_out::LeftOut;
use crate::ami::event::{ContactState, DeviceState, PeerState};
use crate::ami::item::Peer;
use crate::ids::{Case, Extension, Phone, Technology};

/// Phones whose state changed since the last report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PhoneChanges {
    /// True: this is everything, and what is not in it does not exist.
    pub replace: bool,
    /// The phones, each with its new state.
    pub phones: Vec<(Extension, PhoneState)>,
}

/// The phones of one node. An extension may have several endpoints: of different technologies, and, where capitals make no
/// other name, of different spellings.
#[derive(Debug)]
pub struct Roster {
    case: Case,
    /// More extensions are left out.
    most: usize,
    /// Who is left out, for whatever reason.
    pub left_out: LeftOut,
    /// Extensions in their one spelling, and their endpoints as Asterisk spells them.
    endpoints: BTreeMap<Extension, BTreeMap<Phone, Endpoint>>,
    reported: BTreeMap<Extension, PhoneState>,
    dirty: BTreeSet<Extension>,
    replace: bool,
}

impl Default for Roster {
    fn default() -> Self {
        Self::new(Case::Exact, usize::MAX)
    }
}

impl Roster {
    /// An empty roster that compares names by `case` and keeps at most `most` extensions.
    pub fn new(case: Case, most: usize) -> Self {
        Self {
            case,
            most,
            left_out: LeftOut::default(),
            endpoints: BTreeMap::new(),
            reported: BTreeMap::new(),
            dirty: BTreeSet::new(),
            replace: false,
        }
    }

    /// Starts over from full lists: of devices, which leaves out those that did nothing since Asterisk started, and of
    /// peers, which has them all. `events_lost`: what events said before is worth nothing, but for the reason why a phone
    /// that is still off line is so.
    pub fn replace(&mut self, devices: &[(Phone, DeviceState)], peers: &[Peer], events_lost: bool) {
        let mut before = std::mem::take(&mut self.endpoints);
        self.left_out.set_admin_state();
        for (phone, state) in devices {
            let was = before.get_mut(&self.case.extension(&phone.extension)).and_then(|all| all.remove(phone));
            let is_news = events_lost || was.is_none();
            let mut endpoint = was.unwrap_or_else(|| Endpoint::new(phone.technology));
            if events_lost {
                endpoint.events_lost();
            }
            endpoint.device(phone.technology, *state, is_news);
            self.insert(phone.clone(), endpoint);
        }
        for peer in peers {
            if let Some(phone) = &peer.phone {
                self.insert(phone.clone(), Endpoint::listed(peer));
            }
        }
        self.replace = true;
        self.dirty.clear();
    }

    /// A device changed its state.
    pub fn device(&mut self, phone: Phone, state: DeviceState) {
        let is_new = self.endpoint(&phone).is_none();
        self.update(phone, |endpoint, technology| endpoint.device(technology, state, is_new));
    }

    /// A peer changed its state.
    pub fn peer(&mut self, phone: Phone, state: PeerState) {
        // Somebody failed to log in, whatever name they gave: says nothing of the phone that is there, or is not.
        if state != PeerState::Rejected {
            self.update(phone, |endpoint, _| endpoint.peer(state));
        }
    }

    /// A contact changed its state.
    pub fn contact(&mut self, phone: Phone, state: ContactState) {
        self.update(phone, |endpoint, _| endpoint.contact_event(state));
    }

    /// What Asterisk says of all contacts of a PJSIP endpoint.
    pub fn asked(&mut self, extension: &Extension, found: Contact) {
        let phone = Phone { technology: Technology::Pjsip, extension: extension.clone() };
        if self.endpoint(&phone).is_some() {
            self.update(phone, |endpoint, _| endpoint.asked(found));
        }
    }

    /// The PJSIP endpoints, in Asterisk's own spelling, of which only Asterisk's word about their contacts can tell how they
    /// are.
    pub fn in_doubt(&self) -> impl Iterator<Item = &Extension> {
        self.all().filter(|(_, endpoint)| endpoint.is_in_doubt()).map(|(phone, _)| &phone.extension)
    }

    /// Whether this is such a one.
    pub fn is_in_doubt(&self, extension: &Extension) -> bool {
        let phone = Phone { technology: Technology::Pjsip, extension: extension.clone() };
        self.endpoint(&phone).is_some_and(Endpoint::is_in_doubt)
    }

    /// A PJSIP endpoint that has a contact, by its own summary, in Asterisk's own spelling.
    pub fn online_pjsip(&self) -> Option<&Extension> {
        self.all().find(|(_, endpoint)| endpoint.is_online_pjsip()).map(|(phone, _)| &phone.extension)
    }

    /// How many phones can ring here.
    pub fn registered(&self) -> usize {
        self.endpoints.values().filter(|techs| summary(techs) == PhoneState::Registered).count()
    }

    /// How many phones there are of each state.
    pub fn counts(&self) -> BTreeMap<PhoneState, usize> {
        self.endpoints.values().fold(BTreeMap::new(), |mut counts, techs| {
            *counts.entry(summary(techs)).or_default() += 1;
            counts
        })
    }

    /// The endpoint to dial for an extension, in Asterisk's own spelling: one that can ring, else the first known.
    pub fn to_dial(&self, extension: &Extension) -> Option<&Phone> {
        let endpoints = self.endpoints.get(&self.case.extension(extension))?;
        let online = endpoints.iter().find(|(_, e)| e.state() == PhoneState::Registered).map(|(phone, _)| phone);
        online.or_else(|| endpoints.keys().next())
    }

    /// The state of one phone.
    pub fn state(&self, extension: &Extension) -> PhoneState {
        self.endpoints.get(&self.case.extension(extension)).map_or(PhoneState::Unknown, summary)
    }

    /// Reports everything again: Redis lost its data.
    pub fn tell_all(&mut self) {
        self.replace = true;
        self.left_out.tell_again();
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

    fn all(&self) -> impl Iterator<Item = (&Phone, &Endpoint)> {
        self.endpoints.values().flatten()
    }

    fn endpoint(&self, phone: &Phone) -> Option<Endpoint> {
        self.endpoints.get(&self.case.extension(&phone.extension))?.get(phone).copied()
    }

    fn update(&mut self, phone: Phone, change: impl FnOnce(&mut Endpoint, Technology)) {
        let technology = phone.technology;
        let before = self.endpoint(&phone);
        let mut endpoint = before.unwrap_or_else(|| Endpoint::new(technology));
        change(&mut endpoint, technology);
        let extension = self.case.extension(&phone.extension);
        if before != Some(endpoint) && self.insert(phone, endpoint) {
            self.dirty.insert(extension);
        }
    }

    /// Whether there was room for it.
    fn insert(&mut self, phone: Phone, endpoint: Endpoint) -> bool {
        let extension = self.case.extension(&phone.extension);
        if self.endpoints.len() >= self.most && !self.endpoints.contains_key(&extension) {
            self.left_out.phone(extension);
            return false;
        }
        self.endpoints.entry(extension).or_default().insert(phone, endpoint);
        true
    }
}

fn summary(endpoints: &BTreeMap<Phone, Endpoint>) -> PhoneState {
    endpoints.values().map(|endpoint| endpoint.state()).min().unwrap_or(PhoneState::Unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn phone(device: &str) -> Phone {
        Phone::parse(device.as_bytes()).unwrap()
    }

    /// Evidence as real Asterisk gave it, and what it means in the end.
    #[derive(Debug, Clone, Copy)]
    enum Heard {
        Device(&'static str, DeviceState),
        Peer(&'static str, PeerState),
        Contact(&'static str, ContactState),
    }

    fn check(words: &[Heard], extension: &str, state: PhoneState) {
        let mut roster = Roster::default();
        for word in words {
            match *word {
                Heard::Device(device, state) => roster.device(phone(device), state),
                Heard::Peer(device, state) => roster.peer(phone(device), state),
                Heard::Contact(device, state) => roster.contact(phone(device), state),
            }
        }
        assert_eq!(roster.state(&extension.parse().unwrap()), state, "{words:?}");
    }

    #[test]
    fn the_evidence_of_three_drivers() {
        use ContactState as C;
        use DeviceState as D;
        use Heard::{Contact, Device, Peer};
        use PeerState as P;
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
        // What somebody claims to be is no phone.
        check(&[Peer("SIP/s", P::Rejected)], "s", PhoneState::Unknown);
        // A contact that nobody has asked yet may be dialled, whatever the summary says.
        check(&[Device("PJSIP/x", D::Unavailable), Contact("PJSIP/x", C::NonQualified)], "x", PhoneState::Registered);
        check(&[Contact("PJSIP/x", C::NonQualified)], "x", PhoneState::Registered);
        // chan_sip does not dial a peer that did not answer in time, even if it registers again.
        check(&[Peer("SIP/s", P::Registered), Peer("SIP/s", P::Lagged)], "s", PhoneState::Unreachable);
        let again = [Peer("SIP/s", P::Unreachable), Peer("SIP/s", P::Registered)];
        check(&again, "s", PhoneState::Unreachable);
        check(&[again.as_slice(), &[Peer("SIP/s", P::Reachable)]].concat(), "s", PhoneState::Registered);
        check(&[again.as_slice(), &[Device("SIP/s", D::NotInUse)]].concat(), "s", PhoneState::Registered);
        check(&[again.as_slice(), &[Peer("SIP/s", P::Unregistered)]].concat(), "s", PhoneState::Unregistered);
    }

    #[test]
    fn lists_and_answers_say_more_than_events_did() {
        let mut roster = Roster::default();
        let extension = |name: &str| name.parse().unwrap();
        let (x, y) = (phone("PJSIP/x"), phone("PJSIP/y"));
        let devices = [(x.clone(), DeviceState::Unavailable), (y.clone(), DeviceState::Unavailable)];
        let peer = |device: &str, has_address, silent| Peer { phone: Some(phone(device)), has_address, silent };
        let peers = [peer("SIP/s", true, false), peer("SIP/t", true, true), peer("IAX2/u", false, false)];
        roster.replace(&devices, &peers, true);
        let states = |roster: &Roster| ["x", "y", "s", "t", "u"].map(|name| roster.state(&extension(name)));
        use PhoneState::{Registered, Unreachable, Unregistered};
        assert_eq!(states(&roster), [Unregistered, Unregistered, Registered, Unreachable, Unregistered]);
        assert_eq!(roster.in_doubt().map(Extension::as_str).collect::<Vec<_>>(), ["x", "y"]);
        roster.asked(&extension("x"), Contact::Dialable);
        roster.asked(&extension("y"), Contact::Dead);
        assert_eq!(states(&roster), [Registered, Unreachable, Registered, Unreachable, Unregistered]);
        assert_eq!(roster.in_doubt().count(), 1, "the dead one may be gone");
        // A reload loses no events: what they said stays. A gap does, but for a reason that was true.
        roster.replace(&devices, &peers, false);
        assert_eq!(states(&roster), [Registered, Unreachable, Registered, Unreachable, Unregistered]);
        roster.replace(&devices, &peers, true);
        assert_eq!(states(&roster), [Unregistered, Unreachable, Registered, Unreachable, Unregistered]);
        roster.asked(&extension("nobody"), Contact::Dialable);
        assert_eq!(roster.state(&extension("nobody")), PhoneState::Unknown);
    }

    #[test]
    fn endpoints_that_differ_in_case_are_one_phone_where_capitals_make_no_other_name() {
        let (capitals, small) = (phone("PJSIP/CC100"), phone("PJSIP/cc100"));
        let devices = [(capitals.clone(), DeviceState::NotInUse), (small.clone(), DeviceState::Unavailable)];
        let asked = ["CC100", "cc100", "Cc100"].map(|text| text.parse::<Extension>().unwrap());

        let mut roster = Roster::new(Case::Exact, 2);
        roster.replace(&devices, &[], true);
        assert_eq!(roster.take_changes().unwrap().phones.len(), 2);
        let states = asked.each_ref().map(|extension| roster.state(extension));
        assert_eq!(states, [PhoneState::Registered, PhoneState::Unregistered, PhoneState::Unknown]);
        assert_eq!(roster.to_dial(&asked[1]), Some(&small));

        let mut roster = Roster::new(Case::Fold, 1);
        roster.replace(&devices, &[], true);
        assert_eq!(roster.take_changes().unwrap().phones, [(asked[1].clone(), PhoneState::Registered)]);
        for extension in &asked {
            assert_eq!(roster.state(extension), PhoneState::Registered);
            assert_eq!(roster.to_dial(extension), Some(&capitals), "as Asterisk spells it");
        }
        roster.peer(capitals.clone(), PeerState::Unreachable);
        assert_eq!(roster.take_changes().unwrap().phones, [(asked[1].clone(), PhoneState::Unregistered)]);
        // Asterisk is asked about each, by its own name.
        assert_eq!(roster.in_doubt().collect::<Vec<_>>(), [&asked[0], &asked[1]]);
        roster.asked(&asked[1], Contact::Dialable);
        assert_eq!(roster.take_changes().unwrap().phones, [(asked[1].clone(), PhoneState::Registered)]);
        assert_eq!(roster.in_doubt().collect::<Vec<_>>(), [&asked[0]]);
        assert_eq!((roster.to_dial(&asked[0]), roster.registered()), (Some(&small), 1), "the one that can ring");
    }

    #[test]
    fn who_has_no_room_is_left_out_and_counted_once() {
        let mut roster = Roster::new(Case::Exact, 2);
        let devices =
            ["PJSIP/x", "SIP/x", "PJSIP/y", "PJSIP/z", "SIP/z"].map(|name| (phone(name), DeviceState::NotInUse));
        for _ in 0..2 {
            roster.replace(&devices, &[], true);
            assert_eq!((roster.registered(), roster.left_out.counts()[1].1), (2, 1));
        }
        roster.device(phone("PJSIP/z"), DeviceState::Unavailable);
        roster.device(phone("PJSIP/v"), DeviceState::NotInUse);
        assert_eq!((roster.registered(), roster.left_out.counts()[1].1), (2, 2));
        roster.replace(&devices[..2], &[], true);
        assert_eq!((roster.registered(), roster.left_out.counts()[1].1), (1, 0));
    }

    #[test]
    fn only_changes_are_told_and_a_snapshot_tells_all() {
        let mut roster = Roster::default();
        let (x, y) = (phone("PJSIP/x"), phone("PJSIP/y"));
        roster.replace(&[(x.clone(), DeviceState::NotInUse), (y.clone(), DeviceState::Unavailable)], &[], true);
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
        roster.replace(&[(x, DeviceState::NotInUse)], &[], true);
        assert_eq!(roster.take_changes().unwrap().phones.len(), 1, "what is not listed does not exist");
        assert_eq!(roster.registered(), 1);
    }
}
