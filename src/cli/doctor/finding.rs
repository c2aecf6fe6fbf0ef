//! A finding of a check. Owns the levels and what they mean for the exit code. Must never know what is checked.

use serde::Serialize;

/// The severity of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    /// As it should be.
    Ok,
    /// A known risk: `doctor.accept` in the settings names its code.
    Accepted,
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
            Self::Accepted => "accepted",
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
    /// What was found, as `doctor.accept` names it: stable, too.
    pub(super) code: &'static str,
    pub(super) level: Level,
    pub(super) finding: String,
    /// What to do; empty if all is well.
    pub(super) fix: String,
}

/// All codes: docs/reference.md says what each means.
pub(super) const CODES: [&str; 86] = [
    "config",
    "config.unwise",
    "config.unencrypted",
    "config.secret",
    "config.burst",
    "config.accept",
    "files",
    "files.writable",
    "files.readable",
    "redis",
    "redis.write",
    "redis.version",
    "redis.acl",
    "redis.acl.missing",
    "redis.acl.excess",
    "redis.clock",
    "redis.server",
    "redis.server.unchecked",
    "redis.default-user",
    "redis.default-user.unchecked",
    "redis.bind",
    "redis.eviction",
    "redis.eviction.unused",
    "redis.memory",
    "redis.persistence",
    "redis.persistence.off",
    "redis.persistence.failed",
    "redis.replicas",
    "redis.replicas.role",
    "redis.replicas.min",
    "redis.replicas.few",
    "redis.sentinel",
    "ami",
    "ami.unchecked",
    "ami.version",
    "ami.module",
    "ami.read",
    "ami.read.excess",
    "ami.write",
    "ami.write.excess",
    "ami.write.unchecked",
    "ami.manager-conf",
    "ami.manager-conf.unchecked",
    "ami.writetimeout",
    "ami.eventfilter",
    "ami.permit",
    "daemon",
    "daemon.unchecked",
    "daemon.silent",
    "nodes",
    "nodes.none",
    "nodes.unregistered",
    "nodes.draining",
    "nodes.stopped",
    "nodes.lost",
    "nodes.down",
    "nodes.starting",
    "nodes.stopping",
    "nodes.unknown",
    "nodes.inactive",
    "nodes.full",
    "nodes.case",
    "nodes.version",
    "nodes.settings",
    "nodes.clock",
    "nodes.restart",
    "nodes.name",
    "phones",
    "phones.left-out",
    "phones.none",
    "phones.unregistered",
    "phones.nowhere",
    "phones.one-node",
    "aliases",
    "aliases.case",
    "aliases.no-phone",
    "aliases.unknown-node",
    "aliases.unknown-phone",
    "queues",
    "queues.overdue",
    "sessions",
    "sessions.stuck",
    "drift",
    "drift.unchecked",
    "drift.sessions",
    "drift.phones",
];

impl Finding {
    /// What was found, where a check finds more than one thing.
    pub(super) fn code(self, code: &'static str) -> Self {
        Self { code, ..self }
    }

    pub(super) fn ok(check: &'static str, finding: impl Into<String>) -> Self {
        Self { check, code: check, level: Level::Ok, finding: finding.into(), fix: String::new() }
    }

    pub(super) fn note(check: &'static str, finding: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { check, code: check, level: Level::Note, finding: finding.into(), fix: fix.into() }
    }

    pub(super) fn warning(check: &'static str, finding: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { check, code: check, level: Level::Warning, finding: finding.into(), fix: fix.into() }
    }

    pub(super) fn failure(check: &'static str, finding: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { check, code: check, level: Level::Failure, finding: finding.into(), fix: fix.into() }
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

/// Marks the findings whose risk the settings accept. A code that no finding has is one itself.
pub(super) fn accept(findings: &mut Vec<Finding>, accepted: &[String]) {
    for finding in findings.iter_mut().filter(|finding| accepted.iter().any(|code| code == finding.code)) {
        if finding.level > Level::Accepted {
            finding.level = Level::Accepted;
        }
    }
    for code in accepted.iter().filter(|code| !CODES.contains(&code.as_str())) {
        let nearest = CODES.into_iter().max_by(|a, b| strsim::jaro(code, a).total_cmp(&strsim::jaro(code, b)));
        let fix =
            format!("write {} there, or remove it; docs/reference.md lists all codes", nearest.unwrap_or_default());
        findings.push(
            Finding::warning("config", format!("doctor.accept names {code}, which is no code of a finding"), fix)
                .code("config.accept"),
        );
    }
}

/// The worst first; of equals, what causes others stands before them, as the checks are in that order.
pub(super) fn sort(findings: &mut [Finding]) {
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.level));
}

/// What a table test compares: check, level, a part of the text and a part of the fix.
#[cfg(test)]
#[track_caller]
pub(super) fn check(findings: &[Finding], expected: &[(&str, &str, &str, &str)]) {
    assert_eq!(findings.len(), expected.len(), "{findings:#?}");
    for (found, (check, level, finding, fix)) in findings.iter().zip(expected) {
        assert_eq!((found.check, found.level.word()), (*check, *level), "{found:?}");
        assert!(
            CODES.contains(&found.code) && found.code.starts_with(found.check),
            "{found:?} has no code of the list"
        );
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
    fn what_is_accepted_is_no_trouble_and_nothing_else_is() {
        let mut findings = vec![
            Finding::ok("files", "well"),
            Finding::warning("phones", "one", "do").code("phones.one-node"),
            Finding::failure("nodes", "down", "do").code("nodes.down"),
        ];
        accept(&mut findings, &["phones.one-node".to_owned(), "files".to_owned(), "nodes.dwon".to_owned()]);
        sort(&mut findings);
        let shown: Vec<_> = findings.iter().map(|finding| (finding.level.word(), finding.code)).collect();
        let expected =
            [("failure", "nodes.down"), ("warning", "config.accept"), ("accepted", "phones.one-node"), ("ok", "files")];
        assert_eq!(shown, expected);
        assert!(findings[1].fix.contains("nodes.down"), "{findings:?}");
    }

    #[test]
    fn every_code_is_explained_and_stands_behind_its_check() {
        let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference.md");
        let page = std::fs::read_to_string(page).expect("the page");
        let missing: Vec<_> = CODES.into_iter().filter(|code| !page.contains(&format!("`{code}`"))).collect();
        assert_eq!(missing, [""; 0], "docs/reference.md does not name them");
    }

    #[test]
    fn the_first_few_of_many() {
        let names = |count: usize| (0..count).map(|n| n.to_string()).collect::<Vec<_>>();
        assert_eq!(some(&names(2)), "0, 1");
        assert_eq!(some(&names(5)), "0, 1, 2, 3, 4");
        assert_eq!(some(&names(7)), "0, 1, 2, 3, 4 and 2 more");
        assert!(Level::Failure > Level::Warning && Level::Warning > Level::Note && Level::Note > Level::Ok);
    }
}
