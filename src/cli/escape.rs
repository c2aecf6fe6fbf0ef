//! Escapes text from outside for terminals, logs and JSON. Owns which characters are escaped, and how. Must never know
//! where the text comes from or goes to.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Whether a character does something on a screen instead of being seen: controls (with ESC and the line ends), the
/// overrides of the writing direction, separators of lines, and what is as wide as nothing.
fn acts(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// A text as one line in which every character can be seen: `\n`, `\u{1b}`.
pub(super) fn line(text: &str) -> Cow<'_, str> {
    all_but(text, |_| false)
}

/// The same for what a program of ours has coloured, after it has escaped what is not its own: ESC stays.
pub(super) fn coloured_line(text: &str) -> Cow<'_, str> {
    all_but(text, |c| c == '\u{1b}')
}

fn all_but(text: &str, stays: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.chars().any(acts) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if acts(c) && !stays(c) { out.extend(c.escape_default()) } else { out.push(c) }
    }
    Cow::Owned(out)
}

/// A JSON document that means the same and holds no such character. Line ends and blanks between its parts stay.
pub(super) fn json(document: &str) -> Cow<'_, str> {
    // Below a blank JSON itself allows none but the ones between its parts.
    let hidden = |c: char| c >= ' ' && acts(c);
    if !document.chars().any(hidden) {
        return Cow::Borrowed(document);
    }
    let mut out = String::with_capacity(document.len() + 16);
    for c in document.chars() {
        if hidden(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_acts_is_seen_instead() {
        assert_eq!(line("cc100x, José 日本 \\ \"a\""), "cc100x, José 日本 \\ \"a\"");
        assert_eq!(line("a\nb\r\tc\0"), "a\\nb\\r\\tc\\u{0}");
        assert_eq!(line("\u{1b}[31m\u{9b}2J\u{7f}"), "\\u{1b}[31m\\u{9b}2J\\u{7f}");
        assert_eq!(line("\u{202e}txt\u{2066}\u{2028}\u{feff}"), "\\u{202e}txt\\u{2066}\\u{2028}\\u{feff}");
        assert_eq!(coloured_line("\u{1b}[31ma\nb"), "\u{1b}[31ma\\nb");
    }

    #[test]
    fn json_means_the_same() {
        for text in ["plain", "a\nb\u{1b}\u{9b}\u{7f}", "\u{202e}\u{2028}\u{e0041}日本"] {
            let document = serde_json::to_string_pretty(&[text]).unwrap();
            let shown = json(&document);
            assert!(!shown.chars().any(|c| acts(c) && c != '\n'), "{shown}");
            assert_eq!(serde_json::from_str::<[String; 1]>(&shown).unwrap(), [text]);
        }
    }
}
