//! The last reason why the node takes no logins, as texts for people: what happened and what to do. Owns their form: one
//! line each, whoever wrote the text. Must never know where they are shown.

/// Characters of a reason; systemd, Redis and a terminal are to show it whole.
const LENGTH_MOST: usize = 500;

/// What is said of Asterisk, Redis and the node's name until each is as it should be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::daemon) struct Reasons {
    pub(in crate::daemon) asterisk: Option<String>,
    pub(in crate::daemon) redis: Option<String>,
    pub(in crate::daemon) name: Option<String>,
}

/// A text from outside as a reason: no line end can start another line, or another message to systemd.
pub(in crate::daemon) fn reason(text: &str) -> Option<String> {
    let line = text.chars().take(LENGTH_MOST).map(|c| if c.is_control() { ' ' } else { c });
    let cut = if text.chars().nth(LENGTH_MOST).is_some() { "…" } else { "" };
    Some(line.collect::<String>() + cut)
}

/// What is missing, and why if that is known.
pub(in crate::daemon) fn with_reason(what: &str, reason: Option<&String>) -> String {
    reason.map_or_else(|| what.to_owned(), |reason| format!("{what}: {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_one_line_of_a_limited_length() {
        let said = reason("no\nMAINPID=1\u{1b}[2J").unwrap_or_default();
        assert_eq!(said, "no MAINPID=1 [2J");
        let long = reason(&"\u{e9}".repeat(2 * LENGTH_MOST)).unwrap_or_default();
        assert_eq!((long.chars().count(), long.ends_with('…')), (LENGTH_MOST + 1, true));
        assert_eq!(with_reason("unavailable", reason("no").as_ref()), "unavailable: no");
        assert_eq!(with_reason("unavailable", None), "unavailable");
    }
}
