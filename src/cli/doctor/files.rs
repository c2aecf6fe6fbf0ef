//! Checks that files with secrets are readable by their owners only. Owns which files hold secrets, and the judgement of
//! their modes. Must never open one.

use std::path::PathBuf;

use super::finding::Finding;

/// A file and its mode.
#[derive(Debug)]
pub(super) struct Lying {
    pub(super) path: PathBuf,
    /// Permission bits.
    pub(super) mode: u32,
    /// What it contains.
    pub(super) holds: Holds,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holds {
    /// A secret and nothing else.
    Secret,
    /// Settings, with a secret among them.
    SettingsWithSecret,
    /// Settings without secrets.
    Settings,
    /// Manager users and their secrets.
    ManagerConf,
}

pub(super) fn judge(files: &[Lying]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for Lying { path, mode, holds } in files {
        let (shown, bits) = (path.display(), mode & 0o777);
        let what = match holds {
            Holds::Secret => "a secret",
            Holds::SettingsWithSecret => "settings with a secret",
            Holds::Settings => "settings",
            Holds::ManagerConf => "the secrets of all manager users",
        };
        if bits & 0o022 != 0 {
            let text = format!("{shown} ({what}) is writable by users other than its owner (mode {bits:03o})");
            findings.push(Finding::failure("files", text, format!("chmod go-w {shown}")).code("files.writable"));
        }
        let read_by_all = bits & 0o004 != 0;
        let fix = match holds {
            Holds::Secret => {
                format!(
                    "chmod 0600 {shown} (or 0640 with a group that contains only the daemon), then change the \
                    secret"
                )
            }
            Holds::SettingsWithSecret => {
                format!("chmod 0640 {shown} with the daemon's group, or move the secret to a file of its own")
            }
            Holds::ManagerConf => format!("chmod 0640 {shown}"),
            Holds::Settings => continue,
        };
        if read_by_all {
            let text = format!("{shown} ({what}) is world-readable (mode {bits:03o})");
            findings.push(Finding::failure("files", text, fix).code("files.readable"));
        }
    }
    if findings.is_empty() {
        findings.push(Finding::ok("files", format!("files checked: {}, none open to other users", files.len())));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::finding::check;
    use super::*;

    #[test]
    fn secrets_are_for_their_owner() {
        let of = |holds, mode: u32| judge(&[Lying { path: "/x".into(), mode: 0o100_000 | mode, holds }]);
        for (holds, mode) in [
            (Holds::Secret, 0o600),
            (Holds::Secret, 0o640),
            (Holds::SettingsWithSecret, 0o640),
            (Holds::Settings, 0o644),
            (Holds::ManagerConf, 0o640),
        ] {
            check(&of(holds, mode), &[("files", "ok", "files checked: 1", "")]);
        }
        check(
            &of(Holds::Secret, 0o644),
            &[("files", "failure", "/x (a secret) is world-readable (mode 644)", "chmod 0600 /x")],
        );
        check(&of(Holds::SettingsWithSecret, 0o644), &[("files", "failure", "world-readable", "file of its own")]);
        check(&of(Holds::ManagerConf, 0o644), &[("files", "failure", "all manager users", "chmod 0640 /x")]);
        check(
            &of(Holds::Settings, 0o664),
            &[(
                "files",
                "failure",
                "is writable by users other than its owner",
                "chmod \
            go-w /x",
            )],
        );
        check(
            &of(Holds::Secret, 0o666),
            &[("files", "failure", "writable", "go-w"), ("files", "failure", "world-readable", "0600")],
        );
        check(&judge(&[]), &[("files", "ok", "files checked: 0", "")]);
    }
}
