//! Where others reach this node: its SIP URI and its host, as checked values.
//!
//! Owns the forms of `node.sip` and `node.address`. Must never look up a name or open a connection.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The longest name that DNS takes, in bytes.
const NAME_BYTES_MAX: usize = 253;
/// The longest label of a name, in bytes.
const LABEL_BYTES_MAX: usize = 63;
/// Ports of SIP where a URI names none.
const SIP_PORT: u16 = 5060;
const SIPS_PORT: u16 = 5061;

/// A host name that DNS takes, or an IP address, without brackets.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum HostAddress {
    /// An IP address.
    Ip(IpAddr),
    /// A name, without a dot at its end.
    Name(String),
}

impl HostAddress {
    /// As it stands before a port or in a URI: IPv6 in brackets.
    pub fn in_uri(&self) -> String {
        match self {
            Self::Ip(IpAddr::V6(ip)) => format!("[{ip}]"),
            Self::Ip(IpAddr::V4(ip)) => ip.to_string(),
            Self::Name(name) => name.clone(),
        }
    }
}

impl FromStr for HostAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Ok(Self::Ip(ip));
        }
        if is_name(text) {
            return Ok(Self::Name(text.to_owned()));
        }
        Err(format!(
            "{text:?} is neither a host name nor an IP address: write \"tel-1.example.net\" or \"10.0.0.11\", without a port"
        ))
    }
}

impl fmt::Display for HostAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => write!(f, "{ip}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// How SIP travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SipTransport {
    /// UDP, the default.
    Udp,
    /// TCP.
    Tcp,
    /// TLS over TCP.
    Tls,
}

impl SipTransport {
    /// The word in `;transport=`.
    fn as_str(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
        }
    }
}

/// Where a node takes SIP: `sip:HOST[:PORT][;transport=udp|tcp|tls]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SipUri {
    /// The host.
    pub host: HostAddress,
    port: Option<u16>,
    transport: Option<SipTransport>,
}

impl SipUri {
    /// The port, 1 to 65535: the one of the transport where none is written.
    pub fn port(&self) -> u16 {
        self.port.unwrap_or(match self.transport() {
            SipTransport::Udp | SipTransport::Tcp => SIP_PORT,
            SipTransport::Tls => SIPS_PORT,
        })
    }

    /// How SIP travels there.
    pub fn transport(&self) -> SipTransport {
        self.transport.unwrap_or(SipTransport::Udp)
    }
}

impl FromStr for SipUri {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text:?} is not a SIP URI of a node: write \"sip:10.0.0.11:5060\" or \
                \"sip:tel-1.example.net:5061;transport=tls\" (udp, tcp or tls), without a user"
            )
        };
        let rest = text.strip_prefix("sip:").ok_or_else(wrong)?;
        let (place, transport) = match rest.split_once(";transport=") {
            Some((place, "udp")) => (place, Some(SipTransport::Udp)),
            Some((place, "tcp")) => (place, Some(SipTransport::Tcp)),
            Some((place, "tls")) => (place, Some(SipTransport::Tls)),
            Some(_) => return Err(wrong()),
            None => (rest, None),
        };
        let (host, port) = match place.strip_prefix('[') {
            Some(v6) => {
                let (host, port) = v6.split_once(']').ok_or_else(wrong)?;
                let ip: Ipv6Addr = host.parse().map_err(|_| wrong())?;
                (HostAddress::Ip(IpAddr::V6(ip)), port)
            }
            None => {
                let at = place.find(':').unwrap_or(place.len());
                let (host, port) = place.split_at(at);
                (host.parse().map_err(|_| wrong())?, port)
            }
        };
        let port = match port.strip_prefix(':') {
            Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
                Some(port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?)
            }
            None if port.is_empty() => None,
            Some(_) | None => return Err(wrong()),
        };
        Ok(Self { host, port, transport })
    }
}

impl fmt::Display for SipUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sip:{}", self.host.in_uri())?;
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        match self.transport {
            Some(transport) => write!(f, ";transport={}", transport.as_str()),
            None => Ok(()),
        }
    }
}

/// As the settings, JSON and Redis have them: text.
macro_rules! text {
    ($name:ident) => {
        impl TryFrom<String> for $name {
            type Error = String;

            fn try_from(text: String) -> Result<Self, String> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> String {
                value.to_string()
            }
        }
    };
}

text!(HostAddress);
text!(SipUri);

/// Whether DNS has hosts of this name: stricter than what a resolver is asked for, because it may stand in a zone. A name
/// whose last label is a number is a mistyped address.
fn is_name(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=LABEL_BYTES_MAX).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last = text.rsplit('.').next().unwrap_or_default();
    text.len() <= NAME_BYTES_MAX && text.split('.').all(is_label) && !last.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sip_uri_names_host_port_and_transport() {
        for (text, host, port, transport) in [
            ("sip:10.0.0.11:5060", "10.0.0.11", 5060, SipTransport::Udp),
            ("sip:10.0.0.11", "10.0.0.11", 5060, SipTransport::Udp),
            ("sip:tel-1.example.net;transport=udp", "tel-1.example.net", 5060, SipTransport::Udp),
            ("sip:tel-1:5080;transport=tcp", "tel-1", 5080, SipTransport::Tcp),
            ("sip:tel-1;transport=tls", "tel-1", 5061, SipTransport::Tls),
            ("sip:[2001:db8::1]:5062", "2001:db8::1", 5062, SipTransport::Udp),
            ("sip:[2001:db8::1]", "2001:db8::1", 5060, SipTransport::Udp),
        ] {
            let uri: SipUri = text.parse().expect(text);
            assert_eq!((uri.host.to_string().as_str(), uri.port(), uri.transport()), (host, port, transport), "{text}");
            assert_eq!(uri.to_string(), text);
        }
        for bad in [
            "",
            "sip:",
            "10.0.0.11:5060",
            "sips:a",
            "SIP:a",
            "sip:a@b",
            "sip:a:0",
            "sip:a:65536",
            "sip:a:+1",
            "sip:a:",
            "sip:a:5060;transport=ws",
            "sip:a;transport=udp;lr",
            "sip:a;lr",
            "sip:a b",
            "sip:a\n1 sip:b",
            "sip:2001:db8::1",
            "sip:[10.0.0.1]",
            "sip:[::1",
            "sip:[::1]x",
            "sip:10.0.0.300",
            "sip:a_b",
        ] {
            let error = bad.parse::<SipUri>().expect_err(bad);
            assert!(error.contains("is not a SIP URI") && !error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn an_address_is_a_name_for_dns_or_an_ip_address() {
        for (text, in_uri) in [
            ("10.0.0.11", "10.0.0.11"),
            ("2001:db8::1", "[2001:db8::1]"),
            ("tel-1", "tel-1"),
            ("tel-1.example.net", "tel-1.example.net"),
            ("1a.example", "1a.example"),
        ] {
            let address: HostAddress = text.parse().expect(text);
            assert_eq!((address.to_string().as_str(), address.in_uri().as_str()), (text, in_uri));
        }
        let long = "a".repeat(64);
        for bad in ["", ".", "a.", ".a", "-a", "a-", "a_b", "a b", "a\n", "10.0.0.300", "a:5060", "[::1]", "7", &long] {
            let error = bad.parse::<HostAddress>().expect_err(bad);
            assert!(error.contains("without a port") && !error.contains('\n'), "{error}");
        }
    }
}
