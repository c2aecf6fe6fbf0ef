//! Ids: every id from outside is a newtype, built only by parsing.
//!
//! Owns what a valid id is. Must never know where an id came from or what it is used for, and does no IO.
//! A value that exists is safe to put into an AMI header, a Redis key and a log line: the characters are a small
//! whitelist, so no CR, LF, comma, brace or blank can travel (promise P11).

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Why a text is not an id. The text itself is shown escaped, so that it can be logged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Nothing was given.
    #[error("{what} is empty")]
    Empty {
        /// The kind of id.
        what: &'static str,
    },
    /// More characters than Asterisk, Redis and RSMQ all take.
    #[error("{what} has {length} characters; at most {limit} are allowed")]
    TooLong {
        /// The kind of id.
        what: &'static str,
        /// Characters given.
        length: usize,
        /// Characters allowed.
        limit: usize,
    },
    /// A character outside the whitelist.
    #[error("{what} {text} contains {found:?}; allowed are {allowed}")]
    Character {
        /// The kind of id.
        what: &'static str,
        /// The whole text, quoted and escaped.
        text: String,
        /// The first character that is not allowed.
        found: char,
        /// What is allowed, in words.
        allowed: &'static str,
    },
}

/// Characters of an id that Asterisk sees: what endpoint names may hold without changing an AMI action.
const WORD: &str = "letters, digits, '_', '.' and '-', starting with a letter, a digit or '_'";
/// The same of phones and of who is named after one: many are called like their number, `+4930123`.
const PHONE_WORD: &str = "letters, digits, '_', '.' and '-', starting with a letter, a digit, '_' or '+'";
/// Characters of a node name: it is also part of an RSMQ queue name, which takes no dot.
const QUEUE_WORD: &str = "letters, digits, '_' and '-', starting with a letter, a digit or '_'";
/// Characters of ids this program makes.
const HEX: &str = "16 lower-case hexadecimal digits";

fn parse_word(what: &'static str, text: &str, limit: usize, allowed: &'static str) -> Result<Box<str>, IdError> {
    if text.is_empty() {
        return Err(IdError::Empty { what });
    }
    let (dot, plus) = (allowed != QUEUE_WORD, allowed == PHONE_WORD);
    for (position, found) in text.chars().enumerate() {
        let ok = match found {
            '_' => true,
            '-' => position > 0,
            '.' => position > 0 && dot,
            '+' => position == 0 && plus,
            other => other.is_ascii_alphanumeric(),
        };
        if !ok {
            let text = format!("{:?}", text.chars().take(80).collect::<String>());
            return Err(IdError::Character { what, text, found, allowed });
        }
    }
    if text.len() > limit {
        return Err(IdError::TooLong { what, length: text.len(), limit });
    }
    Ok(text.into())
}

macro_rules! word_id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $limit:literal, $allowed:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Box<str>);

        impl $name {
            /// The text as it was given.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                parse_word($what, text, $limit, $allowed).map(Self)
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0.into()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

word_id!(
    /// One Asterisk and its daemon, e.g. `tel-1`. Part of the queue name `ring-<node>`.
    NodeName, "the node name", 40, QUEUE_WORD
);
word_id!(
    /// A phone's name without technology, e.g. `cc100`.
    Extension, "the extension", 64, PHONE_WORD
);
word_id!(
    /// The one id an agent logs in with, e.g. `cc100x`.
    Alias, "the alias", 64, PHONE_WORD
);
word_id!(
    /// The person.
    Agent, "the agent id", 64, PHONE_WORD
);
word_id!(
    /// The campaign an agent works for.
    Campaign, "the campaign", 64, WORD
);

/// Whether capitals make another name of an alias or an extension. Every node of a cluster has the same: the names in Redis
/// follow from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Case {
    /// They do: `CC100` and `cc100` are two.
    #[default]
    Exact,
    /// They do not. In Redis both are `cc100`; only what Asterisk is told keeps the spelling that Asterisk has.
    Fold,
}

impl Case {
    /// As it stands in the settings.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Fold => "fold",
        }
    }

    /// The one spelling of a name. Names are ASCII.
    pub fn one_spelling(self, name: &str) -> Cow<'_, str> {
        match self {
            Self::Fold if name.bytes().any(|byte| byte.is_ascii_uppercase()) => name.to_ascii_lowercase().into(),
            Self::Exact | Self::Fold => name.into(),
        }
    }

    /// The same of an alias.
    pub fn alias(self, alias: &Alias) -> Alias {
        Alias(self.one_spelling(alias.as_str()).into())
    }

    /// The same of an extension.
    pub fn extension(self, extension: &Extension) -> Extension {
        Extension(self.one_spelling(extension.as_str()).into())
    }
}

macro_rules! random_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(u64);

        impl $name {
            /// Makes the id of 64 random bits. The caller brings the randomness.
            pub const fn from_bits(bits: u64) -> Self {
                Self(bits)
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                if text.is_empty() {
                    return Err(IdError::Empty { what: $what });
                }
                if let Some(found) = text.chars().find(|c| !matches!(c, '0'..='9' | 'a'..='f')) {
                    let text = format!("{:?}", text.chars().take(80).collect::<String>());
                    return Err(IdError::Character { what: $what, text, found, allowed: HEX });
                }
                match u64::from_str_radix(text, 16) {
                    Ok(bits) if text.len() == 16 => Ok(Self(bits)),
                    Ok(_) | Err(_) => Err(IdError::TooLong { what: $what, length: text.len(), limit: 16 }),
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.to_string()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&format!("{:016x}", self.0))
            }
        }
    };
}

random_id!(
    /// One login of one agent.
    SessionId, "the session id"
);
random_id!(
    /// One life of a daemon: a new random one at every start. What an older generation says is refused.
    Generation, "the generation"
);

/// What a channel that rings an agent is called inside Asterisk (header `ChannelId` of Originate, seen as `Uniqueid`
/// ever after). Asterisk takes at most 149 characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChannelId(pub SessionId);

impl ChannelId {
    /// What stands before the session id.
    pub const PREFIX: &str = "evenring-";

    /// The session that a `Uniqueid` belongs to, if it is one of ours. The second half of a Local channel
    /// (`…;2`) is not: the first half decides.
    pub fn parse(unique: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(unique).ok()?.strip_prefix(Self::PREFIX)?;
        text.parse().ok().map(Self)
    }
}

impl fmt::Display for ChannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", Self::PREFIX, self.0)
    }
}

/// The channel drivers whose phones are followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Technology {
    /// chan_pjsip.
    #[serde(rename = "PJSIP")]
    Pjsip,
    /// chan_sip, which Asterisk 21 removed.
    #[serde(rename = "SIP")]
    Sip,
    /// chan_iax2.
    #[serde(rename = "IAX2")]
    Iax2,
}

impl Technology {
    /// As it stands before the slash of a dial string.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pjsip => "PJSIP",
            Self::Sip => "SIP",
            Self::Iax2 => "IAX2",
        }
    }
}

impl fmt::Display for Technology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An endpoint on a node, e.g. `PJSIP/cc100`. The default order prefers PJSIP where a name exists twice.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Phone {
    /// The channel driver.
    pub technology: Technology,
    /// The name behind the slash.
    pub extension: Extension,
}

impl Phone {
    /// Reads a device or peer name such as `PJSIP/cc100`. `None` for what is no phone of ours: other technologies
    /// (`Local/…`, `confbridge:…`) and names that could not be dialled safely.
    pub fn parse(device: &[u8]) -> Option<Self> {
        let (technology, name) = Self::parts(device)?;
        Self::named(technology, name)
    }

    /// The phone of this name, if that is an id.
    pub fn named(technology: Technology, name: &[u8]) -> Option<Self> {
        Some(Self { technology, extension: std::str::from_utf8(name).ok()?.parse().ok()? })
    }

    /// Technology and name of a device of ours, whether or not that is an id.
    pub fn parts(device: &[u8]) -> Option<(Technology, &[u8])> {
        let slash = device.iter().position(|byte| *byte == b'/')?;
        let technology = match device.get(..slash)? {
            b"PJSIP" => Technology::Pjsip,
            b"SIP" => Technology::Sip,
            b"IAX2" => Technology::Iax2,
            _ => return None,
        };
        Some((technology, device.get(slash + 1..)?))
    }
}

impl fmt::Display for Phone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.technology, self.extension)
    }
}

/// A moment on the process's own monotonic clock, counted from its start. The pure modules get it with every
/// input and never read a clock themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Now(pub Duration);

impl Now {
    /// The moment `wait` later.
    #[must_use]
    pub fn after(self, wait: Duration) -> Self {
        Self(self.0.saturating_add(wait))
    }

    /// How long ago `earlier` was; zero if it is still to come.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_is_refused_and_shown_escaped() {
        for text in
            ["cc100\r\nAction: Originate", "cc100,cc101", "a b", "é", "-x", ".x", "{evenring}", "a/b", "a;2", "\0"]
        {
            let error = text.parse::<Alias>().expect_err(text).to_string();
            assert!(!error.bytes().any(|b| b < 0x20), "{error:?} has a control byte");
            assert!(error.contains("the alias"), "{error}");
        }
        assert_eq!("".parse::<Alias>(), Err(IdError::Empty { what: "the alias" }));
        assert!(matches!("a".repeat(65).parse::<Alias>(), Err(IdError::TooLong { length: 65, limit: 64, .. })));
    }

    #[test]
    fn a_node_name_takes_no_dot_because_a_queue_name_takes_none() {
        assert!("tel-1_b".parse::<NodeName>().is_ok());
        assert!("tel.1".parse::<NodeName>().is_err());
        assert!("cc100.home".parse::<Extension>().is_ok());
    }

    #[test]
    fn what_is_called_like_a_number_may_begin_with_plus() {
        assert_eq!(Phone::parse(b"PJSIP/+4930123").map(|p| p.to_string()).as_deref(), Some("PJSIP/+4930123"));
        assert!("+4930123x".parse::<Alias>().is_ok() && "+4930123".parse::<Agent>().is_ok());
        for text in ["49+30", "++49", "+49 30"] {
            assert!(text.parse::<Extension>().is_err(), "{text}");
        }
        assert!("+tel".parse::<NodeName>().is_err() && "+c".parse::<Campaign>().is_err());
    }

    #[test]
    fn a_name_has_one_spelling_where_capitals_make_no_other() {
        let (alias, extension) = ("Desk-7X".parse().expect("an alias"), "CC100".parse().expect("an extension"));
        assert_eq!(
            (Case::Fold.alias(&alias).as_str(), Case::Fold.extension(&extension).as_str()),
            ("desk-7x", "cc100")
        );
        assert_eq!((Case::Exact.alias(&alias), Case::Exact.extension(&extension)), (alias, extension));
    }

    #[test]
    fn session_ids_read_back() {
        let id = SessionId::from_bits(0xab);
        assert_eq!(id.to_string(), "00000000000000ab");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!("00000000000000AB".parse::<SessionId>().is_err());
        assert!("ab".parse::<SessionId>().is_err());
        assert_eq!(ChannelId::parse(ChannelId(id).to_string().as_bytes()), Some(ChannelId(id)));
        assert_eq!(ChannelId::parse(b"evenring-00000000000000ab;2"), None);
        assert_eq!(ChannelId::parse(b"1700000000.12"), None);
    }

    #[test]
    fn phones_are_the_three_technologies_only() {
        assert_eq!(Phone::parse(b"PJSIP/cc100").map(|p| p.to_string()).as_deref(), Some("PJSIP/cc100"));
        for other in [&b"Local/100@x"[..], b"confbridge:12", b"PJSIP/", b"PJSIP/a&PJSIP/b", b"\xff/x"] {
            assert_eq!(Phone::parse(other), None);
        }
    }
}
