//! The items of lists: what `Status`, `CoreShowChannels`, `SIPpeers`, `IAXpeerlist` and `PJSIPShowContacts` return.
//!
//! Owns their spelling. Must never know why the list was asked for. Items of `DeviceStateList` are read by
//! [`super::event::Event::parse`]: they are events of the same shape.

use std::time::Duration;

use crate::ids::{Phone, Technology};

use super::event::{Channel, ContactState, Event, EventError, Reader, number};
use super::frame::Message;

/// An item of `Status` or `CoreShowChannels`: a channel that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelItem<'a> {
    /// The channel.
    pub channel: Channel<'a>,
    message: &'a Message,
}

impl<'a> ChannelItem<'a> {
    /// Reads an item; `None` if it is an item of some other list.
    pub fn parse(message: &'a Message) -> Result<Option<Self>, EventError> {
        let event = match message.event_name() {
            Some(b"Status") => "Status",
            Some(b"CoreShowChannel") => "CoreShowChannel",
            Some(_) | None => return Ok(None),
        };
        Ok(Some(Self { channel: Reader { event, message }.channel()?, message }))
    }

    /// The value of a channel variable that `Status` was asked to show (`Variable: NAME=value`). Asterisk cuts
    /// values at 511 bytes.
    pub fn variable(&self, name: &str) -> Option<&'a [u8]> {
        let mut all = self.message.all("Variable");
        all.find_map(|line| line.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
    }
}

/// An item of `SIPpeers` or `IAXpeerlist`: a phone that is configured, whatever it did so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The peer; `None` if its name is none that could be dialled safely.
    pub phone: Option<Phone>,
    /// Whether Asterisk knows where it is: it has registered, or stands in the configuration.
    pub has_address: bool,
    /// Whether Asterisk has asked it and got no answer in time (`UNREACHABLE`, `LAGGED`): it is not dialled then.
    pub silent: bool,
}

impl Peer {
    /// Reads an item; `None` if it is an item of some other list.
    pub fn parse(message: &Message) -> Result<Option<Self>, EventError> {
        if message.event_name() != Some(b"PeerEntry") {
            return Ok(None);
        }
        let from = Reader { event: "PeerEntry", message };
        let (technology, name) = named_peer(from)?;
        // chan_sip writes `-none-`, chan_iax2 `(null)`.
        let has_address = from.get("IPaddress")?.first().is_some_and(|first| !matches!(first, b'-' | b'('));
        let status = from.get("Status")?;
        let silent = status.starts_with(b"UNREACHABLE") || status.starts_with(b"LAGGED");
        Ok(Some(Self { phone: Phone::named(technology, name), has_address, silent }))
    }
}

fn named_peer(from: Reader<'_>) -> Result<(Technology, &[u8]), EventError> {
    let technology = from.map("Channeltype", |value| match value {
        b"SIP" => Some(Technology::Sip),
        b"IAX" | b"IAX2" => Some(Technology::Iax2),
        _ => None,
    })?;
    Ok((technology, from.get("ObjectName")?))
}

/// Of an item of `DeviceStateList`, `SIPpeers` or `IAXpeerlist`: the phone's driver and name, if that name is no id.
pub fn without_id(message: &Message) -> Option<(Technology, &[u8])> {
    if message.event_name() == Some(b"PeerEntry") {
        let (technology, name) = named_peer(Reader { event: "PeerEntry", message }).ok()?;
        return Phone::named(technology, name).is_none().then_some((technology, name));
    }
    match Event::parse(message) {
        Ok(Event::NoId { technology, name }) => Some((technology, name)),
        Ok(_) | Err(_) => None,
    }
}

/// An item of `PJSIPShowContacts`: one address at which a phone is registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contact<'a> {
    /// The endpoint; `None` if its name is none that could be dialled safely.
    pub phone: Option<Phone>,
    /// The address.
    pub uri: &'a [u8],
    /// What the phone calls itself: any bytes.
    pub user_agent: &'a [u8],
    /// When the registration ends, in seconds since 1970 on Asterisk's host. `None` for one that never ends.
    pub expires_at_s: Option<u64>,
    /// What is known about it.
    pub status: ContactState,
    /// The time its last answer took; `None` if it was not asked (`N/A`).
    pub roundtrip: Option<Duration>,
}

impl<'a> Contact<'a> {
    /// Reads an item; `None` if it is an item of some other list.
    pub fn parse(message: &'a Message) -> Result<Option<Self>, EventError> {
        if message.event_name() != Some(b"ContactList") {
            return Ok(None);
        }
        let from = Reader { event: "ContactList", message };
        Ok(Some(Self {
            phone: Phone::named(Technology::Pjsip, from.get("Endpoint")?),
            uri: from.get("Uri")?,
            user_agent: message.get("UserAgent").unwrap_or_default(),
            expires_at_s: from.map("ExpirationTime", |value| Some(number(value).filter(|at| *at > 0)))?,
            status: from.map("Status", ContactState::parse)?,
            roundtrip: message.get("RoundtripUsec").and_then(number).map(Duration::from_micros),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ami::event::ChannelState;

    #[test]
    fn a_channel_shows_the_variables_that_were_asked_for() {
        let message = Message::new(
            "Event: Status\r\nChannel: PJSIP/cc105-00000000\r\nChannelState: 6\r\nUniqueid: evenring-1\r\n\
             Variable: EVENRING=a=b\r\nVariable: EVENRING_AGENT=\r\nActionID: a4\r\n",
        );
        let item = ChannelItem::parse(&message).unwrap().unwrap();
        assert_eq!((item.channel.state, item.channel.unique), (ChannelState::Up, &b"evenring-1"[..]));
        assert_eq!(item.variable("EVENRING"), Some(&b"a=b"[..]));
        assert_eq!(item.variable("EVENRING_AGENT"), Some(&b""[..]));
        assert_eq!(item.variable("EVEN"), None);
        assert_eq!(ChannelItem::parse(&Message::new("Event: StatusComplete\r\n")), Ok(None));
    }

    #[test]
    fn a_peer_is_dialled_where_it_is_if_it_answers() {
        let read = |text: String| Peer::parse(&Message::new(text)).unwrap().unwrap();
        let sip = |address: &str, status: &str| {
            let peer = read(format!(
                "Event: PeerEntry\r\nChanneltype: SIP\r\nObjectName: cc200\r\nIPaddress: {address}\r\nStatus: \
                    {status}\r\n"
            ));
            assert_eq!(peer.phone, Phone::parse(b"SIP/cc200"));
            (peer.has_address, peer.silent)
        };
        for (address, status, expected) in [
            ("10.77.0.1", "OK (1 ms)", (true, false)),
            ("10.77.0.1", "Unmonitored", (true, false)),
            ("10.77.0.1", "UNKNOWN", (true, false)),
            ("10.77.0.1", "UNREACHABLE", (true, true)),
            ("10.77.0.1", "LAGGED (1200 ms)", (true, true)),
            ("-none-", "UNKNOWN", (false, false)),
        ] {
            assert_eq!(sip(address, status), expected, "{address} {status}");
        }
        let iax =
            "Event: PeerEntry\r\nChanneltype: IAX\r\nObjectName: iax300\r\nIPaddress: (null)\r\nStatus: UNKNOWN\r\n";
        let peer = read(iax.to_owned());
        assert_eq!((peer.phone, peer.has_address), (Phone::parse(b"IAX2/iax300"), false));
        assert_eq!(Peer::parse(&Message::new("Event: PeerlistComplete\r\n")), Ok(None));
    }

    #[test]
    fn a_contact_that_was_not_asked_has_no_roundtrip() {
        let text = |rest: &str| {
            Message::new(format!(
                "Event: ContactList\r\nEndpoint: cc100\r\nUri: sip:cc100@h\r\nExpirationTime: 9\r\n{rest}"
            ))
        };
        let message = text("Status: NonQualified\r\nRoundtripUsec: N/A\r\n");
        let contact = Contact::parse(&message).unwrap().unwrap();
        assert_eq!((contact.status, contact.roundtrip), (ContactState::NonQualified, None));
        assert_eq!((contact.expires_at_s, contact.user_agent), (Some(9), &b""[..]));
        let message = text("Status: Odd\r\n");
        let error = Contact::parse(&message).unwrap_err().to_string();
        assert_eq!(error, "the event ContactList has an unknown value: Status: Odd");
    }
}
