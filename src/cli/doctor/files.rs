//! Whether files with secrets are for their owners only. Owns what makes a file a secret, and the judgement of its mode.
//! Must never open one.

use std::path::PathBuf;

use super::finding::Finding;

/// A file as it lies there.
#[derive(Debug)]
pub(super) struct Lying {
    pub(super) path: PathBuf,
    /// Permission bits.
    pub(super) mode: u32,
    /// What stands in it.
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
            Holds::SettingsWithSecret => "settings with a secret in them",
            Holds::Settings => "settings",
            Holds::ManagerConf => "the secrets of all manager users",
        };
        if bits & 0o022 != 0 {
            let text = format!("{shown} ({what}) can be written by others than its owner (mode {bits:03o})");
            findings.push(Finding::failure("files", text, format!("chmod go-w {shown}")));
        }
        let read_by_all = bits & 0o004 != 0;
        let fix = match holds {
            Holds::Secret => {
                format!("chmod 0600 {shown} (or 0640 with a group that only the daemon is in); then change the secret")
            }
            Holds::SettingsWithSecret => {
                format!(
                    "chmod 0640 {shown} with a group that the daemon is in, or put the secret into a file of its own"
                )
            }
            Holds::ManagerConf => format!("chmod 0640 {shown}"),
            Holds::Settings => continue,
        };
        if read_by_all {
            let text = format!("{shown} ({what}) can be read by everybody (mode {bits:03o})");
            findings.push(Finding::failure("files", text, fix));
        }
    }
    if findings.is_empty() {
        findings.push(Finding::ok("files", format!("{} files, none open to others", files.len())));
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
            check(&of(holds, mode), &[("files", "ok", "1 files", "")]);
        }
        check(
            &of(Holds::Secret, 0o644),
            &[("files", "failure", "/x (a secret) can be read by everybody (mode 644)", "chmod 0600 /x")],
        );
        check(&of(Holds::SettingsWithSecret, 0o644), &[("files", "failure", "read by everybody", "file of its own")]);
        check(&of(Holds::ManagerConf, 0o644), &[("files", "failure", "all manager users", "chmod 0640 /x")]);
        check(&of(Holds::Settings, 0o664), &[("files", "failure", "can be written by others", "chmod go-w /x")]);
        check(
            &of(Holds::Secret, 0o666),
            &[("files", "failure", "written", "go-w"), ("files", "failure", "read", "0600")],
        );
        check(&judge(&[]), &[("files", "ok", "0 files", "")]);
    }
}
