//! The few events that matter to this program.
//!
//! Owns their spelling: header names and values, on Asterisk 16 and 22 alike. Must never know what follows from an
//! event. All others, and events about devices that are not phones, are [`Event::Other`].

use std::time::Duration;

use crate::ids::{Phone, Technology};

use super::frame::Message;

/// Longest piece of a wrong value that is shown, in bytes.
const SHOWN_BYTES: usize = 40;

/// A known event with a missing or unknown value. Nothing is guessed: a new snapshot is needed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// A header that the event always has is not there.
    #[error("the event {event} has no header {header}")]
    Missing {
        /// The event.
        event: &'static str,
        /// The header.
        header: &'static str,
    },
    /// A header has a value that is not known.
    #[error("the event {event} has an unknown value: {header}: {shown}")]
    Value {
        /// The event.
        event: &'static str,
        /// The header.
        header: &'static str,
        /// The value, escaped and cut short.
        shown: String,
    },
}

/// What happened. Borrows from the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event<'a> {
    /// All modules are loaded: from now on Originate and lists mean what they say. Sent at login, too, if that was before.
    FullyBooted {
        /// How long Asterisk has been up, in whole seconds.
        uptime: Option<Duration>,
    },
    /// Asterisk ends. The connection closes about 10 ms later.
    Shutdown {
        /// Whether it starts again by itself.
        restart: bool,
    },
    /// A module, or everything, read its configuration again.
    Reload {
        /// Its name; `All` for a whole reload.
        module: &'a [u8],
    },
    /// What is known about one contact of a PJSIP endpoint has changed. Nothing comes for a mere re-registration.
    ContactStatus {
        /// The endpoint (header `EndpointName`).
        phone: Phone,
        /// What it is now.
        status: ContactState,
        /// The contact's own address; an endpoint may have several.
        uri: &'a [u8],
    },
    /// The same for all channel drivers, for the phone as a whole. chan_sip sends `Registered` at every re-registration.
    PeerStatus {
        /// The phone (header `Peer`).
        phone: Phone,
        /// What it is now.
        status: PeerState,
    },
    /// The state of a phone has changed. Also the items of `DeviceStateList`.
    DeviceState {
        /// The phone (header `Device`).
        phone: Phone,
        /// What it is now.
        state: DeviceState,
    },
    /// A channel began. It may be in any state already.
    Newchannel(Channel<'a>),
    /// A channel's state changed: `Ringing`, `Up`.
    Newstate(Channel<'a>),
    /// The far end hung up; the `Hangup` follows. None comes when Asterisk ends a call, or an operator does
    /// (`SoftHangupRequest`).
    HangupRequest {
        /// The channel's `Uniqueid`.
        unique: &'a [u8],
    },
    /// A channel ended.
    Hangup {
        /// In the state it had at the end; `Ringing` when nobody answered.
        channel: Channel<'a>,
        /// Why, as a Q.931 number: 16 normal, 17 busy, 21 declined, 19 no answer, 0 unknown (also: no answer on
        /// Asterisk 16).
        cause: u16,
    },
    /// How an Originate ended. It comes to every manager session, before or after the `Hangup` of the same channel.
    OriginateResponse {
        /// Of the Originate; see [`super::id::session_of_action_id`].
        action_id: Option<&'a [u8]>,
        /// Whether it was answered.
        ok: bool,
        /// 4 answered, 3 no answer in time, 0 anything else, 5 busy or declined (chan_sip only).
        reason: u8,
        /// The ChannelId that was asked for, even if no channel ever existed, and even if it is another call's.
        unique: &'a [u8],
    },
    /// About a phone whose name is not a valid id: it could not be dialled safely.
    NoId {
        /// The channel driver.
        technology: Technology,
        /// Its name.
        name: &'a [u8],
    },
    /// Anything else.
    Other,
}

/// A channel as an event shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Channel<'a> {
    /// `Uniqueid`: the ChannelId of the Originate if there was one.
    pub unique: &'a [u8],
    /// Its name, e.g. `PJSIP/cc105-0000000f`.
    pub name: &'a [u8],
    /// What it does.
    pub state: ChannelState,
}

impl Channel<'_> {
    /// The phone whose channel it is, from the name: what stands before the last dash.
    pub fn phone(&self) -> Option<Phone> {
        let dash = memchr::memrchr(b'-', self.name)?;
        Phone::parse(self.name.get(..dash)?)
    }
}

macro_rules! spelled {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
        }

        impl $name {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Reads Asterisk's own spelling; `None` for any other.
            pub fn parse(text: &[u8]) -> Option<Self> {
                Self::ALL.iter().copied().find(|state| state.as_str().as_bytes() == text)
            }

            /// Asterisk's own spelling.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }
        }
    };
}

spelled!(
    /// One contact of a PJSIP endpoint.
    ContactState {
        /// It answers OPTIONS.
        Reachable = "Reachable",
        /// It does not.
        Unreachable = "Unreachable",
        /// Not asked yet, or never asked: may be dialled.
        NonQualified = "NonQualified",
        /// Unregistered or expired.
        Removed = "Removed",
        /// Not known.
        Unknown = "Unknown",
        /// Registered (unverified: in the sources of Asterisk, never seen).
        Created = "Created",
        /// Registered anew (unverified: in the sources of Asterisk, never seen).
        Updated = "Updated",
    }
);

spelled!(
    /// A phone as `PeerStatus` shows it.
    PeerState {
        /// It registered (chan_sip, IAX2).
        Registered = "Registered",
        /// It unregistered or expired (chan_sip, IAX2).
        Unregistered = "Unregistered",
        /// It answers.
        Reachable = "Reachable",
        /// It answers late.
        Lagged = "Lagged",
        /// It does not answer, or has no contact (PJSIP).
        Unreachable = "Unreachable",
        /// Its registration was refused.
        Rejected = "Rejected",
        /// It is not asked.
        Unmonitored = "Unmonitored",
        /// Not known.
        Unknown = "Unknown",
    }
);

spelled!(
    /// A phone as `DeviceStateChange` shows it. With `device_state_busy_at=1` a ringing phone is `Ringing` on
    /// Asterisk 16 and `Busy` on Asterisk 22.
    DeviceState {
        /// Not known.
        Unknown = "UNKNOWN",
        /// Registered and free.
        NotInUse = "NOT_INUSE",
        /// In a call, and would take another.
        InUse = "INUSE",
        /// In a call.
        Busy = "BUSY",
        /// No such device.
        Invalid = "INVALID",
        /// Not registered, or unreachable.
        Unavailable = "UNAVAILABLE",
        /// It rings.
        Ringing = "RINGING",
        /// In a call, and another rings.
        RingInUse = "RINGINUSE",
        /// It holds a call.
        OnHold = "ONHOLD",
    }
);

spelled!(
    /// What a channel does (header `ChannelState`, a number).
    ChannelState {
        /// Nothing yet.
        Down = "0",
        /// Reserved.
        Reserved = "1",
        /// Off hook.
        OffHook = "2",
        /// Digits are being dialled.
        Dialing = "3",
        /// The far end rings, we hear it.
        Ring = "4",
        /// The phone rings.
        Ringing = "5",
        /// Answered.
        Up = "6",
        /// The line is busy.
        Busy = "7",
        /// Digits are being dialled, off hook.
        DialingOffHook = "8",
        /// About to ring.
        PreRing = "9",
    }
);

/// What Asterisk calls the events that are more to this program than [`Event::Other`].
pub const EVENTS: [&str; 11] = [
    "FullyBooted",
    "Shutdown",
    "Reload",
    "ContactStatus",
    "PeerStatus",
    "DeviceStateChange",
    "Newchannel",
    "Newstate",
    "HangupRequest",
    "Hangup",
    "OriginateResponse",
];

/// Whether an event of this name can be anything but [`Event::Other`], or belongs to a list that [`super::action`] can
/// ask for. For [`super::frame::Splitter::only`].
pub fn is_wanted(name: &[u8]) -> bool {
    match name {
        b"FullyBooted" | b"Shutdown" | b"Reload" | b"ContactStatus" | b"PeerStatus" | b"DeviceStateChange" => true,
        b"Newchannel" | b"Newstate" | b"HangupRequest" | b"Hangup" | b"OriginateResponse" => true,
        b"Status" | b"CoreShowChannel" | b"ContactList" | b"PeerEntry" => true,
        other => other.ends_with(b"Complete"),
    }
}

impl<'a> Event<'a> {
    /// Its name, one of [`EVENTS`]; `None` for [`Event::Other`].
    pub fn name(&self) -> Option<&'static str> {
        Some(match self {
            Self::FullyBooted { .. } => "FullyBooted",
            Self::Shutdown { .. } => "Shutdown",
            Self::Reload { .. } => "Reload",
            Self::ContactStatus { .. } => "ContactStatus",
            Self::PeerStatus { .. } => "PeerStatus",
            Self::DeviceState { .. } => "DeviceStateChange",
            Self::Newchannel(_) => "Newchannel",
            Self::Newstate(_) => "Newstate",
            Self::HangupRequest { .. } => "HangupRequest",
            Self::Hangup { .. } => "Hangup",
            Self::OriginateResponse { .. } => "OriginateResponse",
            Self::NoId { .. } | Self::Other => return None,
        })
    }

    /// Reads a message. [`Event::Other`] for what is not listed here, also for answers; an error for an event that is
    /// listed but does not say what it should.
    pub fn parse(message: &'a Message) -> Result<Self, EventError> {
        let Some(name) = message.event_name() else { return Ok(Self::Other) };
        match name {
            b"FullyBooted" => {
                Ok(Self::FullyBooted { uptime: message.get("Uptime").and_then(number).map(Duration::from_secs) })
            }
            b"Shutdown" => shutdown(Reader { event: "Shutdown", message }),
            b"Reload" => Ok(Self::Reload { module: Reader { event: "Reload", message }.get("Module")? }),
            b"ContactStatus" => contact_status(Reader { event: "ContactStatus", message }),
            b"PeerStatus" => peer_status(Reader { event: "PeerStatus", message }),
            b"DeviceStateChange" => device_state(Reader { event: "DeviceStateChange", message }),
            b"Newchannel" => Ok(Self::Newchannel(Reader { event: "Newchannel", message }.channel()?)),
            b"Newstate" => Ok(Self::Newstate(Reader { event: "Newstate", message }.channel()?)),
            b"HangupRequest" => {
                Ok(Self::HangupRequest { unique: Reader { event: "HangupRequest", message }.get("Uniqueid")? })
            }
            b"Hangup" => hangup(Reader { event: "Hangup", message }),
            b"OriginateResponse" => originate_response(Reader { event: "OriginateResponse", message }),
            _ => Ok(Self::Other),
        }
    }
}

fn shutdown(from: Reader<'_>) -> Result<Event<'_>, EventError> {
    let restart = from.map("Restart", |value| match value {
        b"True" => Some(true),
        b"False" => Some(false),
        _ => None,
    })?;
    Ok(Event::Shutdown { restart })
}

fn contact_status(from: Reader<'_>) -> Result<Event<'_>, EventError> {
    let name = from.get("EndpointName")?;
    let Some(phone) = Phone::named(Technology::Pjsip, name) else {
        return Ok(Event::NoId { technology: Technology::Pjsip, name });
    };
    Ok(Event::ContactStatus { phone, status: from.map("ContactStatus", ContactState::parse)?, uri: from.get("URI")? })
}

fn peer_status(from: Reader<'_>) -> Result<Event<'_>, EventError> {
    let Some((technology, name)) = Phone::parts(from.get("Peer")?) else { return Ok(Event::Other) };
    let status = from.map("PeerStatus", PeerState::parse)?;
    Ok(match Phone::named(technology, name) {
        Some(phone) => Event::PeerStatus { phone, status },
        // Somebody who is let in nowhere may call themselves anything.
        None if status == PeerState::Rejected => Event::Other,
        None => Event::NoId { technology, name },
    })
}

fn device_state(from: Reader<'_>) -> Result<Event<'_>, EventError> {
    let Some((technology, name)) = Phone::parts(from.get("Device")?) else { return Ok(Event::Other) };
    let Some(phone) = Phone::named(technology, name) else { return Ok(Event::NoId { technology, name }) };
    Ok(Event::DeviceState { phone, state: from.map("State", DeviceState::parse)? })
}

fn hangup(from: Reader<'_>) -> Result<Event<'_>, EventError> {
    let cause = from.map("Cause", |value| number(value)?.try_into().ok())?;
    Ok(Event::Hangup { channel: from.channel()?, cause })
}

fn originate_response(from: Reader<'_>) -> Result<Event<'_>, EventError> {
    let ok = from.map("Response", |value| match value {
        b"Success" => Some(true),
        b"Failure" => Some(false),
        _ => None,
    })?;
    let reason = from.map("Reason", |value| number(value)?.try_into().ok())?;
    Ok(Event::OriginateResponse { action_id: from.message.get("ActionID"), ok, reason, unique: from.get("Uniqueid")? })
}

/// Decimal digits only, no sign and no blank.
pub(super) fn number(text: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(text).ok()?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

/// A message whose headers are asked for by someone who knows what it should be.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    pub(super) event: &'static str,
    pub(super) message: &'a Message,
}

impl<'a> Reader<'a> {
    pub(super) fn get(self, header: &'static str) -> Result<&'a [u8], EventError> {
        self.message.get(header).ok_or(EventError::Missing { event: self.event, header })
    }

    pub(super) fn map<T>(self, header: &'static str, read: impl FnOnce(&[u8]) -> Option<T>) -> Result<T, EventError> {
        let value = self.get(header)?;
        read(value).ok_or_else(|| {
            let shown = value.get(..SHOWN_BYTES).unwrap_or(value).escape_ascii().to_string();
            EventError::Value { event: self.event, header, shown }
        })
    }

    pub(super) fn channel(self) -> Result<Channel<'a>, EventError> {
        let state = self.map("ChannelState", ChannelState::parse)?;
        Ok(Channel { unique: self.get("Uniqueid")?, name: self.get("Channel")?, state })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &'static str, expected: Result<Event<'_>, &str>) {
        let message = Message::new(text);
        let found = Event::parse(&message);
        assert_eq!(
            found.as_ref().map_err(ToString::to_string),
            expected.as_ref().map_err(ToString::to_string),
            "{text}"
        );
        if let Ok(event) = &found {
            let known = !matches!(event, Event::NoId { .. } | Event::Other);
            assert_eq!(event.name().map(str::as_bytes), message.event_name().filter(|_| known), "{text}");
            assert!(event.name().is_none_or(|name| is_wanted(name.as_bytes()) && EVENTS.contains(&name)), "{text}");
        }
    }

    fn phone(text: &str) -> Phone {
        Phone::parse(text.as_bytes()).expect(text)
    }

    #[test]
    fn state_of_phones() {
        let contact = "Event: ContactStatus\r\nURI: sip:a@b\r\nContactStatus: Removed\r\nEndpointName: cc100\r\n";
        let (phone_100, uri) = (phone("PJSIP/cc100"), &b"sip:a@b"[..]);
        check(contact, Ok(Event::ContactStatus { phone: phone_100, status: ContactState::Removed, uri }));
        let peer = "Event: PeerStatus\r\nChannelType: SIP\r\nPeer: SIP/cc200\r\nPeerStatus: Registered\r\n";
        check(peer, Ok(Event::PeerStatus { phone: phone("SIP/cc200"), status: PeerState::Registered }));
        let device = "Event: DeviceStateChange\r\nDevice: IAX2/iax300\r\nState: RINGINUSE\r\n";
        check(device, Ok(Event::DeviceState { phone: phone("IAX2/iax300"), state: DeviceState::RingInUse }));
        check("Event: DeviceStateChange\r\nDevice: confbridge:8600051\r\nState: INUSE\r\n", Ok(Event::Other));
        check(
            "Event: ContactStatus\r\nContactStatus: Removed\r\nEndpointName: a b\r\n",
            Ok(Event::NoId { technology: Technology::Pjsip, name: b"a b" }),
        );
        for state in DeviceState::ALL {
            assert_eq!(DeviceState::parse(state.as_str().as_bytes()), Some(*state));
        }
    }

    #[test]
    fn the_end_and_the_beginning() {
        let hour = Some(Duration::from_secs(3600));
        check("Event: FullyBooted\r\nUptime: 3600\r\n", Ok(Event::FullyBooted { uptime: hour }));
        check("Event: FullyBooted\r\n", Ok(Event::FullyBooted { uptime: None }));
        check("Event: Shutdown\r\nShutdown: Cleanly\r\nRestart: True\r\n", Ok(Event::Shutdown { restart: true }));
        check("Event: Reload\r\nModule: All\r\nStatus: 0\r\n", Ok(Event::Reload { module: b"All" }));
    }

    #[test]
    fn calls() {
        let text = "Event: Hangup\r\nChannel: PJSIP/cc-1-0000000f\r\nChannelState: 5\r\nUniqueid: u\r\nCause: 17\r\n";
        let channel = Channel { unique: b"u", name: b"PJSIP/cc-1-0000000f", state: ChannelState::Ringing };
        assert_eq!(channel.phone(), Some(phone("PJSIP/cc-1")));
        check(text, Ok(Event::Hangup { channel, cause: 17 }));
        let text = "Event: HangupRequest\r\nChannel: PJSIP/cc-1-0000000f\r\nUniqueid: u\r\nCause: 16\r\n";
        check(text, Ok(Event::HangupRequest { unique: b"u" }));
        let text = "Event: OriginateResponse\r\nActionID: a3\r\nResponse: Failure\r\nReason: 0\r\nUniqueid: u\r\n";
        check(text, Ok(Event::OriginateResponse { action_id: Some(b"a3"), ok: false, reason: 0, unique: b"u" }));
    }

    #[test]
    fn what_is_missing_or_strange_is_named() {
        check("Event: Hangup\r\nUniqueid: u\r\n", Err("the event Hangup has no header Cause"));
        check("Event: HangupRequest\r\nCause: 16\r\n", Err("the event HangupRequest has no header Uniqueid"));
        let text = "Event: PeerStatus\r\nPeer: PJSIP/cc100\r\nPeerStatus: \x1b[2J\r\n";
        check(text, Err("the event PeerStatus has an unknown value: PeerStatus: \\x1b[2J"));
        let text = "Event: OriginateResponse\r\nResponse: Success\r\nReason: 256\r\n";
        check(text, Err("the event OriginateResponse has an unknown value: Reason: 256"));
        let peer = |status: &str| {
            let message = Message::new(format!("Event: PeerStatus\r\nPeer: SIP/a b\r\nPeerStatus: {status}\r\n"));
            matches!(Event::parse(&message), Ok(Event::NoId { technology: Technology::Sip, name: b"a b" }))
        };
        assert!(peer("Registered") && !peer("Rejected"));
        check("Event: RTCPSent\r\n", Ok(Event::Other));
        check("Response: Success\r\nMessage: x\r\n", Ok(Event::Other));
    }
}
