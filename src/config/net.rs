//! Where Asterisk is, and under which keys we live in Redis, as checked values.
//!
//! Owns the forms of an address and of a key namespace. Must never open a connection.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::Deserialize;

/// How bytes travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// Bare TCP.
    Plain,
    /// TLS, written `tls://`.
    Tls,
}

/// Where Asterisk's manager interface listens: `host:port`, `[v6]:port` or `tls://host:port`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct AmiAddress {
    /// Plain or TLS.
    pub transport: Transport,
    /// A host name or an IP address, without brackets.
    pub host: String,
    /// The TCP port, 1 to 65535.
    pub port: u16,
}

impl AmiAddress {
    /// Whether nothing leaves this machine.
    pub fn is_loopback(&self) -> bool {
        is_loopback(&self.host)
    }
}

impl TryFrom<String> for AmiAddress {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl FromStr for AmiAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let shown =
            || format!("{text:?} is not an address: write \"127.0.0.1:5038\" or \"tls://asterisk.example:5039\"");
        let (transport, rest) = match text.split_once("://") {
            Some(("tls", rest)) => (Transport::Tls, rest),
            Some(("tcp", rest)) => (Transport::Plain, rest),
            None => (Transport::Plain, text),
            Some(_) => return Err(shown()),
        };
        let (host, port) = rest.rsplit_once(':').ok_or_else(shown)?;
        let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(shown)?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = match bare {
            Some(v6) if v6.parse::<std::net::Ipv6Addr>().is_ok() => v6,
            None if is_host(host) => host,
            Some(_) | None => return Err(shown()),
        };
        Ok(Self { transport, host: host.to_owned(), port })
    }
}

impl fmt::Display for AmiAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.transport {
            Transport::Plain => "",
            Transport::Tls => "tls://",
        };
        if self.host.contains(':') {
            write!(f, "{scheme}[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{scheme}{}:{}", self.host, self.port)
        }
    }
}

/// What all keys of a cluster start with: it has one `{hash tag}`, so that all lie in one Redis Cluster slot.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Namespace(String);

impl Namespace {
    /// The text, e.g. `{evenring}`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl TryFrom<String> for Namespace {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let plain = |part: &str| part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ':'));
        let tag = text
            .split_once('{')
            .and_then(|(before, rest)| rest.split_once('}').map(|(tag, after)| (before, tag, after)));
        match tag {
            Some((before, tag, after))
                if !tag.is_empty() && [before, tag, after].into_iter().all(plain) && text.len() <= 64 =>
            {
                Ok(Self(text))
            }
            Some(_) | None => Err(format!(
                "{text:?} is not a namespace: it needs one part in braces, such as \"{{evenring}}\", otherwise \
                    letters, digits, '_', '-', '.' and ':', and at most 64 characters"
            )),
        }
    }
}

/// Whether a host is this machine.
pub(super) fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Whether a host is an address of a private network: those that the unit lets the daemon talk to.
pub(super) fn is_private(host: &str) -> bool {
    match host.trim_matches(['[', ']']).parse() {
        Ok(IpAddr::V4(ip)) => ip.is_private(),
        Ok(IpAddr::V6(ip)) => ip.is_unique_local(),
        Err(_) => false,
    }
}

/// Whether a text can be a host name or an IPv4 address.
pub(super) fn is_host(text: &str) -> bool {
    let label = |label: &str| {
        let ok = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        !label.is_empty() && label.len() <= 63 && label.chars().all(ok) && !label.starts_with('-')
    };
    text.len() <= 253 && text.trim_end_matches('.').split('.').all(label)
}

#[cfg(test)]
mod tests {

    use super::*;

    #[test]
    fn addresses_of_asterisk() {
        for (text, shown, loopback) in [
            ("127.0.0.1:5038", "127.0.0.1:5038", true),
            ("localhost:5038", "localhost:5038", true),
            ("tcp://pbx.example:1", "pbx.example:1", false),
            ("tls://pbx.example:5039", "tls://pbx.example:5039", false),
            ("tls://[::1]:5039", "tls://[::1]:5039", true),
        ] {
            let address: AmiAddress = text.parse().expect(text);
            assert_eq!((address.to_string().as_str(), address.is_loopback()), (shown, loopback));
        }
        for bad in [
            "",
            "pbx",
            "pbx:",
            ":5038",
            "pbx:0",
            "pbx:65536",
            "ssl://pbx:1",
            "a b:1",
            "::1:5038",
            "[x]:1",
            "a\r\n:1",
            "-a:1",
        ] {
            let error = bad.parse::<AmiAddress>().expect_err(bad);
            assert!(error.contains("write \"127.0.0.1:5038\"") && !error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn a_namespace_has_one_hash_tag() {
        for good in ["{evenring}", "{a}:x", "pre:{a-b.c_d}"] {
            assert_eq!(Namespace::try_from(good.to_owned()).expect(good).as_str(), good);
        }
        for bad in ["", "evenring", "{}", "{a", "a}{", "{a}{b}", "{a b}", "{a}\n", "{{a}}"] {
            assert!(Namespace::try_from(bad.to_owned()).is_err(), "{bad:?}");
        }
    }
}
