//! What is known about one endpoint, and whether Asterisk would ring it. Owns the judgement of device, peer and contact
//! evidence, for each driver. Must never know which endpoints there are.
//!
//! Evidence has an order of trust (measured on Asterisk 16 and 22). Of chan_pjsip, device state and PeerStatus are the endpoint's own
//! summary: it may be dialled if they say so. If they do not, it may still have a contact that nobody has asked yet, as after
//! a start of Asterisk: the summary is `UNAVAILABLE` then, and Asterisk dials it all the same. ContactStatus speaks of one
//! contact of several; the last word is what Asterisk says of all of them when it is asked ([`Contact`]). Of chan_sip and
//! chan_iax2 there is one address, and Asterisk dials it unless it was asked and did not answer in time; a new registration
//! does not change that, only an answer does.

use super::keyword::keywords;
use crate::ami::event::{ContactState, DeviceState, PeerState};
use crate::ami::item::Peer;
use crate::ids::Technology;

keywords! {
    /// Whether a phone can ring on this node.
    PhoneState {
        /// It has a contact that is not known to be unreachable.
        Registered = "registered",
        /// It has a contact, but that does not answer.
        Unreachable = "unreachable",
        /// It has no contact.
        Unregistered = "unregistered",
        /// Asterisk knows no such endpoint (any more).
        Unknown = "unknown",
    }
}

/// An endpoint of one driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// Of chan_pjsip.
    Pjsip {
        /// Its summary: it can be dialled.
        online: bool,
        /// Its contacts.
        contact: Contact,
    },
    /// Of chan_sip or chan_iax2.
    Peer {
        /// It has an address.
        known: bool,
        /// It was asked, and did not answer in time.
        silent: bool,
    },
}

/// What is known of an endpoint's contacts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contact {
    /// It has none.
    Missing,
    /// All that it has are dead.
    Dead,
    /// It has one that is not known to be dead.
    Dialable,
}

impl Endpoint {
    /// One of which nothing is known.
    pub(super) fn new(technology: Technology) -> Self {
        match technology {
            Technology::Pjsip => Self::Pjsip { online: false, contact: Contact::Missing },
            Technology::Sip | Technology::Iax2 => Self::Peer { known: false, silent: false },
        }
    }

    /// What an item of a list of peers says; it says all.
    pub(super) fn listed(peer: &Peer) -> Self {
        Self::Peer { known: peer.has_address, silent: peer.silent }
    }

    pub(super) fn state(self) -> PhoneState {
        match self {
            Self::Pjsip { online: true, .. } | Self::Pjsip { contact: Contact::Dialable, .. } => PhoneState::Registered,
            Self::Pjsip { contact: Contact::Dead, .. } => PhoneState::Unreachable,
            Self::Pjsip { contact: Contact::Missing, .. } => PhoneState::Unregistered,
            Self::Peer { known: false, .. } => PhoneState::Unregistered,
            Self::Peer { silent: true, .. } => PhoneState::Unreachable,
            Self::Peer { silent: false, .. } => PhoneState::Registered,
        }
    }

    /// A device state. In a call it says nothing about the contact; but if it `is_news`, there is one, for it rings.
    pub(super) fn device(&mut self, technology: Technology, state: DeviceState, is_news: bool) {
        let Some(is) = device_is_online(technology, state).or(is_news.then_some(true)) else { return };
        match self {
            Self::Pjsip { online, .. } => *online = is,
            Self::Peer { known, silent } if is => (*known, *silent) = (true, false),
            // No address, or silent: PeerStatus says which.
            Self::Peer { known, silent } => *known &= *silent,
        }
    }

    /// A PeerStatus.
    pub(super) fn peer(&mut self, state: PeerState) {
        match (self, state) {
            (_, PeerState::Rejected | PeerState::Unmonitored | PeerState::Unknown) => {}
            // Of PJSIP, it says Unreachable of no contact and of dead ones alike.
            (Self::Pjsip { online, .. }, PeerState::Unreachable | PeerState::Unregistered) => *online = false,
            (Self::Pjsip { online, .. }, PeerState::Registered | PeerState::Reachable | PeerState::Lagged) => {
                *online = true;
            }
            (Self::Peer { known, .. }, PeerState::Registered) => *known = true,
            (Self::Peer { known, .. }, PeerState::Unregistered) => *known = false,
            (Self::Peer { known, silent }, PeerState::Reachable) => (*known, *silent) = (true, false),
            (Self::Peer { known, silent }, PeerState::Unreachable | PeerState::Lagged) => {
                (*known, *silent) = (true, true);
            }
        }
    }

    /// A ContactStatus: of one contact, and there may be others.
    pub(super) fn contact_event(&mut self, state: ContactState) {
        let Self::Pjsip { contact, .. } = self else { return };
        *contact = match state {
            ContactState::Reachable | ContactState::NonQualified | ContactState::Created | ContactState::Updated => {
                Contact::Dialable
            }
            ContactState::Unreachable => Contact::Dead,
            ContactState::Removed => Contact::Missing,
            ContactState::Unknown => return,
        };
    }

    /// What Asterisk says of all its contacts.
    pub(super) fn asked(&mut self, found: Contact) {
        if let Self::Pjsip { contact, .. } = self {
            *contact = found;
        }
    }

    /// Events were lost: a contact that could be dialled may be gone. Of a dead one, the reason stays until Asterisk says
    /// something else.
    pub(super) fn events_lost(&mut self) {
        if let Self::Pjsip { contact: contact @ Contact::Dialable, .. } = self {
            *contact = Contact::Missing;
        }
    }

    /// Whether it is of chan_pjsip and its summary says that it can be dialled.
    pub(super) fn is_online_pjsip(self) -> bool {
        matches!(self, Self::Pjsip { online: true, .. })
    }

    /// Whether its state is only known by asking Asterisk for its contacts.
    pub(super) fn is_in_doubt(self) -> bool {
        matches!(self, Self::Pjsip { online: false, contact: Contact::Missing | Contact::Dead })
    }
}

/// What a device state says about the contact; `None` while a call hides it. chan_iax2 says `UNKNOWN` of a peer that
/// is registered and `UNAVAILABLE` of one that is not (measured on Asterisk 16).
fn device_is_online(technology: Technology, state: DeviceState) -> Option<bool> {
    match state {
        DeviceState::NotInUse => Some(true),
        DeviceState::Unknown if technology == Technology::Iax2 => Some(true),
        DeviceState::Unavailable | DeviceState::Invalid | DeviceState::Unknown => Some(false),
        DeviceState::InUse
        | DeviceState::Busy
        | DeviceState::Ringing
        | DeviceState::RingInUse
        | DeviceState::OnHold => None,
    }
}
