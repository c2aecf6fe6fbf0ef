//! The few words of SIP that a scripted phone speaks. Pure: text in, text out.
//!
//! Owns parsing, digest authentication and the wording of messages. Must never know a socket, a clock or a behaviour.

use std::fmt::Write as _;
use std::net::SocketAddrV4;

use md5::{Digest as _, Md5};

/// A request or an answer.
#[derive(Debug, Clone)]
pub(super) struct Message {
    start: String,
    /// Names in lower case, in the order they came.
    headers: Vec<(String, String)>,
}

impl Message {
    /// `None` for what is no SIP message.
    pub(super) fn parse(datagram: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(datagram);
        let head = text.split("\r\n\r\n").next()?;
        let mut lines = head.split("\r\n");
        let start = lines.next().filter(|line| line.contains("SIP/2.0"))?.to_owned();
        let headers = lines.filter_map(|line| line.split_once(':'));
        let headers =
            headers.map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().to_owned())).collect();
        Some(Self { start, headers })
    }

    /// The code of an answer; `None` for a request.
    pub(super) fn code(&self) -> Option<u16> {
        self.start.strip_prefix("SIP/2.0 ")?.split(' ').next()?.parse().ok()
    }

    /// The method of a request.
    pub(super) fn method(&self) -> &str {
        self.start.split(' ').next().unwrap_or_default()
    }

    /// The first header of that name (in lower case), or nothing.
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }

    /// The method that an answer answers.
    pub(super) fn answers(&self) -> &str {
        self.header("cseq").split(' ').nth(1).unwrap_or_default()
    }

    /// The id of the transaction.
    pub(super) fn branch(&self) -> &str {
        parameter(self.header("via"), "branch")
    }

    /// The address between the angle brackets of Contact.
    fn contact(&self) -> &str {
        let value = self.header("contact");
        value.split_once('<').and_then(|(_, rest)| rest.split_once('>')).map_or(value, |(uri, _)| uri)
    }
}

fn parameter<'a>(value: &'a str, name: &str) -> &'a str {
    let mut parts = value.split(';').filter_map(|part| part.trim().split_once('='));
    parts.find(|(key, _)| *key == name).map_or("", |(_, value)| value)
}

/// What a phone is called and where it is reached.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    pub(super) name: String,
    pub(super) password: String,
    pub(super) address: SocketAddrV4,
}

/// One REGISTER.
pub(super) struct Register<'a> {
    pub(super) node: SocketAddrV4,
    pub(super) call_id: &'a str,
    pub(super) cseq: u32,
    pub(super) branch: &'a str,
    pub(super) expires: u32,
    /// The Authorization header with its line end, or nothing.
    pub(super) authorization: &'a str,
}

impl Identity {
    pub(super) fn register(&self, what: &Register<'_>) -> String {
        let Self { name, address, .. } = self;
        let Register { node, call_id, cseq, branch, expires, authorization } = what;
        let host = node.ip();
        format!(
            "REGISTER sip:{host} SIP/2.0\r\nVia: SIP/2.0/UDP {address};rport;branch={branch}\r\nMax-Forwards: 70\r\n\
             From: <sip:{name}@{host}>;tag={call_id}\r\nTo: <sip:{name}@{host}>\r\nCall-ID: {call_id}\r\n\
             CSeq: {cseq} REGISTER\r\nContact: <sip:{name}@{address}>\r\nExpires: {expires}\r\nUser-Agent: scripted\r\n\
             {authorization}Content-Length: 0\r\n\r\n"
        )
    }

    /// The Authorization header for a REGISTER that was answered 401.
    pub(super) fn authorize(&self, node: SocketAddrV4, challenge: &Message, cnonce: &str) -> String {
        let challenge = challenge.header("www-authenticate");
        let (realm, nonce, opaque) = (field(challenge, "realm"), field(challenge, "nonce"), field(challenge, "opaque"));
        let (name, uri) = (&self.name, format!("sip:{}", node.ip()));
        let first = md5_hex(&format!("{name}:{realm}:{}", self.password));
        let second = md5_hex(&format!("REGISTER:{uri}"));
        let (response, quality) = if field(challenge, "qop").is_empty() {
            (md5_hex(&format!("{first}:{nonce}:{second}")), String::new())
        } else {
            let response = md5_hex(&format!("{first}:{nonce}:00000001:{cnonce}:auth:{second}"));
            (response, format!(", qop=auth, nc=00000001, cnonce=\"{cnonce}\""))
        };
        let mut header = format!(
            "Authorization: Digest username=\"{name}\", realm=\"{realm}\", nonce=\"{nonce}\", uri=\"{uri}\", \
             response=\"{response}\", algorithm=MD5{quality}"
        );
        if !opaque.is_empty() {
            write!(header, ", opaque=\"{opaque}\"").expect("a String takes all");
        }
        header + "\r\n"
    }

    /// An answer to a request; `tag` goes to To unless it has one, and `sdp` says whether it offers sound.
    pub(super) fn answer(&self, request: &Message, code: u16, tag: &str, sdp: Sdp) -> String {
        let Self { name, address, .. } = self;
        let mut text = format!("SIP/2.0 {code} {}\r\n", reason(code));
        for (_, via) in request.headers.iter().filter(|(key, _)| key == "via") {
            write!(text, "Via: {via}\r\n").expect("a String takes all");
        }
        let to = request.header("to");
        let tag = if to.contains(";tag=") || tag.is_empty() { String::new() } else { format!(";tag={tag}") };
        let (from, call_id, cseq) = (request.header("from"), request.header("call-id"), request.header("cseq"));
        write!(
            text,
            "From: {from}\r\nTo: {to}{tag}\r\nCall-ID: {call_id}\r\nCSeq: {cseq}\r\nContact: <sip:{name}@{address}>\r\n"
        )
        .expect("a String takes all");
        match sdp {
            Sdp::None => text + "Content-Length: 0\r\n\r\n",
            Sdp::Sound => {
                let host = address.ip();
                let body = format!(
                    "v=0\r\no=- 1 1 IN IP4 {host}\r\ns=-\r\nc=IN IP4 {host}\r\nt=0 0\r\nm=audio 40000 RTP/AVP 0\r\n\
                     a=rtpmap:0 PCMU/8000\r\na=sendrecv\r\n"
                );
                format!("{text}Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{body}", body.len())
            }
        }
    }

    /// The BYE that ends a call which this phone has answered.
    pub(super) fn bye(&self, invite: &Message, tag: &str, branch: &str) -> String {
        let (address, contact) = (self.address, invite.contact());
        let (from, to, call_id) = (invite.header("to"), invite.header("from"), invite.header("call-id"));
        format!(
            "BYE {contact} SIP/2.0\r\nVia: SIP/2.0/UDP {address};rport;branch={branch}\r\nMax-Forwards: 70\r\n\
             From: {from};tag={tag}\r\nTo: {to}\r\nCall-ID: {call_id}\r\nCSeq: 1 BYE\r\nContent-Length: 0\r\n\r\n"
        )
    }
}

/// Whether an answer carries a session description.
#[derive(Debug, Clone, Copy)]
pub(super) enum Sdp {
    None,
    /// One that nobody listens behind.
    Sound,
}

/// The value of `name=` in a challenge, with or without quotes.
fn field<'a>(challenge: &'a str, name: &str) -> &'a str {
    let challenge = challenge.strip_prefix("Digest").unwrap_or(challenge);
    let mut parts = challenge.split(',').filter_map(|part| part.trim().split_once('='));
    parts.find(|(key, _)| *key == name).map_or("", |(_, value)| value.trim_matches('"'))
}

fn md5_hex(text: &str) -> String {
    Md5::digest(text.as_bytes()).iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"))
}

fn reason(code: u16) -> &'static str {
    match code {
        100 => "Trying",
        180 => "Ringing",
        200 => "OK",
        480 => "Temporarily Unavailable",
        486 => "Busy Here",
        487 => "Request Terminated",
        603 => "Decline",
        _ => "As Scripted",
    }
}
