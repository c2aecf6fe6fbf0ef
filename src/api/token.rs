//! Tokens: what stands in `api.tokens_file`, what a token may do, and how a new one is made.
//!
//! Owns the form of a line (`name scopes sha256`) and the comparison, which takes the same time whatever it is given. Must
//! never keep, log or show a token: it knows their SHA-256 alone.

use std::fmt;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::ids::{Agent, Campaign};

/// How a token begins, so that whoever finds one knows what it is.
const PREFIX: &str = "evr_";
/// Random bytes of a token.
const RANDOM_BYTES: usize = 32;
/// Characters of a name.
const NAME_MOST: usize = 40;
/// Bytes of the file.
const FILE_BYTES_MOST: u64 = 256 << 10;
/// Scopes of one token.
const SCOPES_MOST: usize = 16;

/// Something that a token may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// See nodes, sessions, phones and events.
    Read,
    /// Log agents in and out.
    Login(Whom),
    /// Choose and reserve a node without ringing.
    Hold(Whom),
    /// Drain and resume nodes.
    Admin,
}

/// Whose logins a scope is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whom {
    /// Everybody's.
    All,
    /// Those of one agent.
    Agent(Agent),
    /// Those of one campaign.
    Campaign(Campaign),
}

impl Whom {
    /// Whether it covers a login of this agent for this campaign.
    pub(super) fn covers(&self, agent: Option<&str>, campaign: Option<&str>) -> bool {
        match self {
            Self::All => true,
            Self::Agent(own) => agent == Some(own.as_str()),
            Self::Campaign(own) => campaign == Some(own.as_str()),
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, whom) = match self {
            Self::Read => return f.write_str("read"),
            Self::Admin => return f.write_str("admin"),
            Self::Login(whom) => ("login", whom),
            Self::Hold(whom) => ("hold", whom),
        };
        match whom {
            Whom::All => f.write_str(word),
            Whom::Agent(agent) => write!(f, "{word}:agent={agent}"),
            Whom::Campaign(campaign) => write!(f, "{word}:campaign={campaign}"),
        }
    }
}

impl FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (word, narrow) = text.split_once(':').map_or((text, None), |(word, narrow)| (word, Some(narrow)));
        let whom = match narrow.map(|narrow| narrow.split_once('=').unwrap_or((narrow, ""))) {
            None => Whom::All,
            Some(("agent", agent)) => Whom::Agent(agent.parse().map_err(|error| format!("{error}"))?),
            Some(("campaign", campaign)) => Whom::Campaign(campaign.parse().map_err(|error| format!("{error}"))?),
            Some(_) => return Err(format!("{text:?} is narrowed by neither agent=ID nor campaign=NAME")),
        };
        match (word, &whom) {
            ("read", Whom::All) => Ok(Self::Read),
            ("admin", Whom::All) => Ok(Self::Admin),
            ("login", _) => Ok(Self::Login(whom)),
            ("hold", _) => Ok(Self::Hold(whom)),
            ("read" | "admin", _) => Err(format!("{text:?}: only login and hold can be narrowed")),
            _ => Err(format!("{text:?} is no scope: use read, login, hold or admin")),
        }
    }
}

/// The name of a token, for the log and for events: 1 to 40 letters, digits, `_`, `.` and `-`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenName(Arc<str>);

impl fmt::Display for TokenName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for TokenName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        if text.is_empty() || text.len() > NAME_MOST || !text.chars().all(fine) {
            let shown: String = text.chars().take(NAME_MOST).collect();
            return Err(format!("{shown:?} is not a name of 1 to {NAME_MOST} letters, digits, '_', '.' and '-'"));
        }
        Ok(Self(text.into()))
    }
}

/// A token that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Whose it is.
    pub name: TokenName,
    /// What it may do.
    pub scopes: Vec<Scope>,
    digest: [u8; 32],
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scopes: Vec<String> = self.scopes.iter().map(ToString::to_string).collect();
        write!(f, "{} {} ", self.name, scopes.join(","))?;
        self.digest.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Token {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let [name, scopes, digest] = words[..] else {
            return Err(format!("{} words instead of three: name, scopes, SHA-256", words.len()));
        };
        let scopes: Vec<Scope> = scopes.split(',').map(str::parse).collect::<Result<_, _>>()?;
        if scopes.len() > SCOPES_MOST {
            return Err(format!("{} scopes; at most {SCOPES_MOST} are allowed", scopes.len()));
        }
        let digest = hex(digest).ok_or("the third word is not a SHA-256 in 64 hexadecimal digits")?;
        Ok(Self { name: name.parse()?, scopes, digest })
    }
}

fn hex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 2 * bytes.len() || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(bytes)
}

fn digest(token: &[u8]) -> [u8; 32] {
    Sha256::digest(token).into()
}

/// Makes a token. Returns it, for whoever is to have it, and what is kept of it.
///
/// # Errors
/// The system has no random bits.
pub fn make(name: TokenName, scopes: Vec<Scope>) -> Result<(String, Token), String> {
    let mut random = [0; RANDOM_BYTES];
    getrandom::fill(&mut random).map_err(|error| format!("no random bits: {error}"))?;
    let token = format!("{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(random));
    let digest = digest(token.as_bytes());
    Ok((token, Token { name, scopes, digest }))
}

/// All tokens that are known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Tokens(Vec<Arc<Token>>);

impl Tokens {
    /// Reads the file.
    ///
    /// # Errors
    /// What is wrong with it, and in which line. Its content is not shown.
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        let shown = path.display();
        let unreadable = |error| format!("cannot read {shown}: {error}");
        let meta = std::fs::metadata(path).map_err(unreadable)?;
        if meta.permissions().mode() & 0o007 != 0 {
            return Err(format!("{shown} is accessible to everybody: chmod o-rwx {shown}"));
        }
        if meta.len() > FILE_BYTES_MOST {
            return Err(format!("{shown} is larger than {FILE_BYTES_MOST} bytes"));
        }
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        Self::parse(&text).map_err(|why| format!("{shown} {why}"))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut tokens: Vec<Arc<Token>> = Vec::new();
        for (number, line) in text.lines().enumerate().map(|(at, line)| (at + 1, line.trim())) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let token: Token = line.parse().map_err(|why| format!("line {number}: {why}"))?;
            if tokens.iter().any(|known| known.name == token.name || known.digest == token.digest) {
                return Err(format!("line {number}: an earlier line has this name or this token, too"));
            }
            tokens.push(Arc::new(token));
        }
        Ok(Self(tokens))
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whose this token is. All are compared, whichever fits.
    pub(super) fn find(&self, presented: &[u8]) -> Option<Arc<Token>> {
        let digest = digest(presented);
        let mut found = None;
        for token in &self.0 {
            if bool::from(token.digest.ct_eq(&digest)) {
                found = Some(Arc::clone(token));
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(name: &str, scopes: &str) -> String {
        format!("{name} {scopes} {}", "ab".repeat(32))
    }

    #[test]
    fn a_new_token_is_found_by_its_line_and_no_other_is() {
        let scopes = vec![Scope::Read, "login:campaign=sales".parse().unwrap()];
        let (secret, token) = make("web".parse().unwrap(), scopes).unwrap();
        assert!(secret.starts_with(PREFIX) && secret.len() == PREFIX.len() + 43, "{secret}");
        let kept = token.to_string();
        assert!(!kept.contains(&secret) && kept.starts_with("web read,login:campaign=sales "), "{kept}");
        let tokens = Tokens::parse(&format!("# ours\n\n{kept}\n{}\n", line("other", "admin"))).unwrap();
        assert_eq!(tokens.find(secret.as_bytes()).as_deref(), Some(&token));
        assert_eq!(tokens.find(format!("{secret} ").as_bytes()), None);
        assert_eq!(tokens.find(b""), None);
        let (other, _) = make("web".parse().unwrap(), vec![Scope::Read]).unwrap();
        assert_ne!(other, secret);
    }

    #[test]
    fn a_faulty_line_is_named_and_not_shown() {
        for (text, why) in [
            ("x read".to_owned(), "line 1: 2 words instead of three"),
            (format!("\n{} x", line("a", "read")), "line 2: 4 words"),
            (line("a", "write"), "line 1: \"write\" is no scope"),
            (line("a", "read,"), "line 1: \"\" is no scope"),
            (line("a", "read:agent=7"), "only login and hold can be narrowed"),
            (line("a", "login:agent=a b"), "words"),
            (line("a", "login:agent="), "the agent id is empty"),
            (line("a", "login:node=x"), "neither agent=ID nor campaign=NAME"),
            (line("a\u{1b}", "read"), "is not a name of"),
            ("a read abcd".to_owned(), "SHA-256 in 64"),
            (format!("{}\n{}", line("a", "read"), line("a", "read")), "line 2: an earlier line"),
            (line("a", &["read"; 17].join(",")), "at most 16"),
        ] {
            let error = Tokens::parse(&text).expect_err(&text);
            assert!(error.contains(why) && !error.contains(char::is_control), "{text}: {error}");
            assert!(!error.contains("abab"), "{error}");
        }
    }

    #[test]
    fn a_file_that_others_may_read_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), line("a", "read")).unwrap();
        let mode = |mode| std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        mode(0o640);
        assert_eq!(Tokens::read(file.path()).map(|tokens| tokens.len()), Ok(1));
        mode(0o644);
        assert!(Tokens::read(file.path()).unwrap_err().contains("is accessible to everybody"));
        assert!(Tokens::read(Path::new("/nonexistent/tokens")).unwrap_err().contains("cannot read"));
    }

    #[test]
    fn a_narrow_scope_covers_its_own_and_nobody_else() {
        let whom = |text: &str| match text.parse() {
            Ok(Scope::Login(whom)) => whom,
            other => panic!("{other:?}"),
        };
        assert!(whom("login").covers(None, None));
        assert!(whom("login:agent=7").covers(Some("7"), Some("x")) && !whom("login:agent=7").covers(Some("8"), None));
        assert!(!whom("login:agent=7").covers(None, None));
        assert!(whom("login:campaign=s").covers(None, Some("s")) && !whom("login:campaign=s").covers(Some("s"), None));
    }
}
