//! A finding of a check. Owns the levels and what they mean for the exit code. Must never know what is checked.

use serde::Serialize;

/// The severity of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    /// As it should be.
    Ok,
    /// Harmless, or it could not be checked.
    Note,
    /// It works, but not for ever or not as well as it could.
    Warning,
    /// Logins are refused, lost or unsafe.
    Failure,
}

impl Level {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Failure => "failure",
        }
    }
}

/// One line of the report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    /// What was checked: a stable name.
    pub(super) check: &'static str,
    pub(super) level: Level,
    pub(super) finding: String,
    /// What to do; empty if all is well.
    pub(super) fix: String,
}

impl Finding {
    pub(super) fn ok(check: &'static str, finding: impl Into<String>) -> Self {
        Self { check, level: Level::Ok, finding: finding.into(), fix: String::new() }
    }

    pub(super) fn note(check: &'static str, finding: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { check, level: Level::Note, finding: finding.into(), fix: fix.into() }
    }

    pub(super) fn warning(check: &'static str, finding: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { check, level: Level::Warning, finding: finding.into(), fix: fix.into() }
    }

    pub(super) fn failure(check: &'static str, finding: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { check, level: Level::Failure, finding: finding.into(), fix: fix.into() }
    }
}

/// Joins the first few names into one line.
pub(super) fn some(names: &[String]) -> String {
    const MOST: usize = 5;
    let shown = names.get(..MOST.min(names.len())).unwrap_or_default().join(", ");
    match names.len().saturating_sub(MOST) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// What a table test compares: check, level, a part of the text and a part of the fix.
#[cfg(test)]
#[track_caller]
pub(super) fn check(findings: &[Finding], expected: &[(&str, &str, &str, &str)]) {
    assert_eq!(findings.len(), expected.len(), "{findings:#?}");
    for (found, (check, level, finding, fix)) in findings.iter().zip(expected) {
        assert_eq!((found.check, found.level.word()), (*check, *level), "{found:?}");
        assert!(found.finding.contains(finding) && found.fix.contains(fix), "{found:?} lacks {finding:?} or {fix:?}");
        assert_eq!(
            found.fix.is_empty(),
            found.level == Level::Ok,
            "{found:?}: what is well needs no fix, all else one"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_few_of_many() {
        let names = |count: usize| (0..count).map(|n| n.to_string()).collect::<Vec<_>>();
        assert_eq!(some(&names(2)), "0, 1");
        assert_eq!(some(&names(5)), "0, 1, 2, 3, 4");
        assert_eq!(some(&names(7)), "0, 1, 2, 3, 4 and 2 more");
        assert!(Level::Failure > Level::Warning && Level::Warning > Level::Note && Level::Note > Level::Ok);
    }
}
