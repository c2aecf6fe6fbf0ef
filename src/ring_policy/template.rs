//! Texts with placeholders, such as `{technology}/{extension}`: parsed once when the settings are read.
//!
//! Owns which placeholders exist and what a literal piece may hold. Must never know what a placeholder's value is:
//! the caller brings it. Since literals have no control byte and every value is an id, neither has the result (P11).

use std::fmt;
use std::str::FromStr;

/// Bytes of one template's text.
pub const TEMPLATE_BYTES_MAX: usize = 500;

/// What can stand between braces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Placeholder {
    /// The phone's name, e.g. `cc100`.
    Extension,
    /// What the agent logged in with, e.g. `cc100x`.
    Alias,
    /// The agent.
    Agent,
    /// The campaign; empty if the login named none.
    Campaign,
    /// The session, 16 hexadecimal digits.
    Session,
    /// The node that rings.
    Node,
    /// `PJSIP`, `SIP` or `IAX2`.
    Technology,
}

impl Placeholder {
    /// Every placeholder, in the order in which help texts list them.
    pub const ALL: [Self; 7] =
        [Self::Extension, Self::Alias, Self::Agent, Self::Campaign, Self::Session, Self::Node, Self::Technology];

    /// The name between the braces.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Extension => "extension",
            Self::Alias => "alias",
            Self::Agent => "agent",
            Self::Campaign => "campaign",
            Self::Session => "session",
            Self::Node => "node",
            Self::Technology => "technology",
        }
    }
}

/// Why a text is not a template. Shows placeholders and bytes, escaped, but never the whole text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// A placeholder that does not exist.
    #[error("unknown placeholder {{{}}}: did you mean {{{}}}? Use {{{{ and }}}} for literal braces", name.escape_debug(), nearest.as_str())]
    Unknown {
        /// What stood between the braces.
        name: String,
        /// The one that looks most like it.
        nearest: Placeholder,
    },
    /// A brace without its partner.
    #[error("unmatched '{brace}' at byte {at}: write it twice for a literal brace")]
    Brace {
        /// `{` or `}`.
        brace: char,
        /// Bytes from the start.
        at: usize,
    },
    /// A byte that could end a line on the AMI wire, or is otherwise unsafe where this text goes.
    #[error("{found:?} is not allowed here: {why}")]
    Character {
        /// The character.
        found: char,
        /// What it would do.
        why: &'static str,
    },
    /// Longer than one AMI line takes with room for its values.
    #[error("{bytes} bytes are too many; at most {TEMPLATE_BYTES_MAX} are allowed")]
    TooLong {
        /// Bytes given.
        bytes: usize,
    },
    /// Nothing was given.
    #[error("the text is empty")]
    Empty,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Literal(Box<str>),
    Value(Placeholder),
}

/// A parsed text with placeholders. `{{` and `}}` stand for single braces, so Asterisk's `${NAME}` is written `${{NAME}}`.
///
/// ```
/// use evenring::ring_policy::{Placeholder, Template};
/// let dial: Template = "{technology}/{extension}".parse()?;
/// let text = dial.render(|placeholder| if placeholder == Placeholder::Technology { "PJSIP" } else { "cc100" });
/// assert_eq!(text, "PJSIP/cc100");
/// # Ok::<(), evenring::ring_policy::TemplateError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    pieces: Box<[Piece]>,
    text: Box<str>,
}

impl Template {
    /// The text with every placeholder replaced by what `value` gives for it. Values must be ids or empty: they are
    /// not checked again here.
    pub fn render<'a>(&self, value: impl Fn(Placeholder) -> &'a str) -> String {
        let mut out = String::with_capacity(self.text.len() + 32);
        for piece in &self.pieces {
            match piece {
                Piece::Literal(text) => out.push_str(text),
                Piece::Value(placeholder) => out.push_str(value(*placeholder)),
            }
        }
        out
    }

    /// Whether the text changes with this placeholder's value.
    pub fn uses(&self, placeholder: Placeholder) -> bool {
        self.pieces.contains(&Piece::Value(placeholder))
    }

    /// The text it was parsed from.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Refuses a literal that has `found`, for a place where that character has a meaning of its own.
    ///
    /// # Errors
    /// [`TemplateError::Character`] with `why`, if it is there.
    pub fn without(self, found: char, why: &'static str) -> Result<Self, TemplateError> {
        if self.text.contains(found) { Err(TemplateError::Character { found, why }) } else { Ok(self) }
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl TryFrom<String> for Template {
    type Error = TemplateError;
    fn try_from(text: String) -> Result<Self, TemplateError> {
        text.parse()
    }
}

impl FromStr for Template {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, TemplateError> {
        if text.is_empty() {
            return Err(TemplateError::Empty);
        }
        if text.len() > TEMPLATE_BYTES_MAX {
            return Err(TemplateError::TooLong { bytes: text.len() });
        }
        if let Some(found) = text.chars().find(|c| c.is_control()) {
            return Err(TemplateError::Character { found, why: "it could end the line sent to Asterisk" });
        }
        Ok(Self { pieces: pieces(text)?, text: text.into() })
    }
}

fn pieces(text: &str) -> Result<Box<[Piece]>, TemplateError> {
    let mut pieces = Vec::new();
    let mut literal = String::new();
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if c != '{' && c != '}' {
            literal.push(c);
            continue;
        }
        if chars.next_if(|(_, next)| *next == c).is_some() {
            literal.push(c);
            continue;
        }
        if c == '}' {
            return Err(TemplateError::Brace { brace: c, at });
        }
        let mut name = String::new();
        loop {
            match chars.next() {
                Some((_, '}')) => break,
                Some((_, '{')) | None => return Err(TemplateError::Brace { brace: c, at }),
                Some((_, inner)) => name.push(inner),
            }
        }
        if !literal.is_empty() {
            pieces.push(Piece::Literal(std::mem::take(&mut literal).into()));
        }
        pieces.push(Piece::Value(placeholder(name)?));
    }
    if !literal.is_empty() {
        pieces.push(Piece::Literal(literal.into()));
    }
    Ok(pieces.into())
}

fn placeholder(name: String) -> Result<Placeholder, TemplateError> {
    let mut nearest = (usize::MAX, Placeholder::Extension);
    for known in Placeholder::ALL {
        let distance = strsim::osa_distance(&name.to_lowercase(), known.as_str());
        if name == known.as_str() {
            return Ok(known);
        }
        nearest = if distance < nearest.0 { (distance, known) } else { nearest };
    }
    Err(TemplateError::Unknown { name, nearest: nearest.1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `Ok` is the rendering with every value in angle brackets, `Err` a part of the message.
    fn check(text: &str, expected: Result<&str, &str>) {
        match (text.parse::<Template>(), expected) {
            (Ok(template), Ok(rendered)) => {
                let shown = |p: Placeholder| match p {
                    Placeholder::Extension => "<extension>",
                    Placeholder::Alias => "<alias>",
                    Placeholder::Agent => "<agent>",
                    Placeholder::Campaign => "<campaign>",
                    Placeholder::Session => "<session>",
                    Placeholder::Node => "<node>",
                    Placeholder::Technology => "<technology>",
                };
                assert_eq!(template.render(shown), rendered, "{text:?}");
                assert_eq!(template.to_string(), text);
            }
            (Err(error), Err(part)) => {
                let message = error.to_string();
                assert!(message.contains(part), "{text:?}: {message:?} lacks {part:?}");
                assert!(!message.chars().any(char::is_control), "{message:?}");
            }
            (got, expected) => panic!("{text:?}: {got:?}, not {expected:?}"),
        }
    }

    #[test]
    fn texts_with_placeholders() {
        check("{technology}/{extension}", Ok("<technology>/<extension>"));
        check("{alias}{agent}{campaign}{session}{node}", Ok("<alias><agent><campaign><session><node>"));
        check("plain é", Ok("plain é"));
        check("${{CALLERID(num)}}-{agent}}}", Ok("${CALLERID(num)}-<agent>}"));
        check("{exten}", Err("unknown placeholder {exten}: did you mean {extension}?"));
        check("{Agent}", Err("did you mean {agent}?"));
        check("{}", Err("unknown placeholder {}"));
        check("a{agent", Err("unmatched '{' at byte 1"));
        check("{a{agent}", Err("'{' at byte 0"));
        check("agent}", Err("'}' at byte 5"));
        check("a\r\nAction: Command", Err("'\\r' is not allowed here"));
        check("a\u{7f}", Err("'\\u{7f}' is not allowed here"));
        check("{a\0}", Err("is not allowed here"));
        check("", Err("empty"));
        check(&"x".repeat(501), Err("501 bytes are too many; at most 500"));
    }

    #[test]
    fn a_place_can_refuse_a_character_of_its_own() {
        let template: Template = "a,{agent}".parse().expect("a template");
        assert!(template.uses(Placeholder::Agent) && !template.uses(Placeholder::Node));
        assert!(template.clone().without('&', "it rings two").is_ok());
        let error = template.without(',', "it starts another variable").expect_err("a comma");
        assert_eq!(error.to_string(), "',' is not allowed here: it starts another variable");
    }
}
