//! `evenring config check` and `evenring config dump`.
//!
//! Owns how settings and their problems are shown. Must never show a secret or connect to anything.

use std::io::{self, Write};
use std::path::Path;

use super::escape;
use crate::config::{ConfigError, Settings, process_env};

/// All is well.
pub(super) const EXIT_OK: u8 = 0;
/// The settings are wrong, or could not be printed.
pub(super) const EXIT_BAD_SETTINGS: u8 = 2;

/// Checks the settings at `path` (or the default place) with this process's environment. Prints `ok` and warnings on
/// stdout, errors on stderr. The exit code is 0, or 2 after an error.
///
/// An incomplete AMI login is only a note, because a machine that only talks to Redis needs none. A secret that only the
/// daemon may read is there. A secret file that is named but unusable is an error.
pub(super) fn check(path: Option<&Path>) -> u8 {
    check_to(path, process_env(), &mut io::stdout().lock(), &mut io::stderr().lock()).unwrap_or(EXIT_BAD_SETTINGS)
}

/// Prints all settings in effect on stdout, as a settings file with masked secrets. The exit code is 0, or 2 after an
/// error, which is printed on stderr.
pub(super) fn dump(path: Option<&Path>) -> u8 {
    dump_to(path, process_env(), &mut io::stdout().lock(), &mut io::stderr().lock()).unwrap_or(EXIT_BAD_SETTINGS)
}

fn check_to(
    path: Option<&Path>,
    env: impl Iterator<Item = (String, String)>,
    out: &mut impl Write,
    err: &mut impl Write,
) -> io::Result<u8> {
    let settings = match Settings::look(path, env) {
        Ok(settings) => settings,
        Err(error) => return refuse(err, &error),
    };
    let problems = settings.ami.secret_problems();
    if !problems.is_empty() {
        return refuse(err, &ConfigError { problems });
    }
    for missing in settings.missing_logins() {
        writeln!(out, "note: `evenring run` needs more settings: {}", escape::line(&missing))?;
    }
    for note in settings.notes() {
        writeln!(out, "note: {}", escape::line(note))?;
    }
    for warning in settings.warnings() {
        writeln!(out, "warning: {}", escape::line(&warning))?;
    }
    writeln!(out, "ok")?;
    Ok(EXIT_OK)
}

fn dump_to(
    path: Option<&Path>,
    env: impl Iterator<Item = (String, String)>,
    out: &mut impl Write,
    err: &mut impl Write,
) -> io::Result<u8> {
    match Settings::look(path, env) {
        Ok(settings) => {
            out.write_all(settings.dump().as_bytes())?;
            Ok(EXIT_OK)
        }
        Err(error) => refuse(err, &error),
    }
}

fn refuse(err: &mut impl Write, error: &ConfigError) -> io::Result<u8> {
    for problem in error.problems.iter().flat_map(|problem| problem.lines()) {
        writeln!(err, "error: {}", escape::line(problem))?;
    }
    Ok(EXIT_BAD_SETTINGS)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The exit code and the first line of stdout and stderr.
    fn check(toml: &str, code: u8, first_out: &str, first_err: &str) {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), format!("node.name = \"n\"\n{toml}")).expect("written");
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let got = check_to(Some(file.path()), std::iter::empty(), &mut out, &mut err).expect("a Vec takes all");
        let (out, err) = (String::from_utf8_lossy(&out), String::from_utf8_lossy(&err));
        assert_eq!(got, code, "{toml}: {out}{err}");
        assert!(out.starts_with(first_out) && err.starts_with(first_err), "{toml}: {out}{err}");
        assert_eq!(out.ends_with("ok\n"), code == EXIT_OK, "{out}");
        assert!(!format!("{out}{err}").contains("hunter2"), "{out}{err}");
    }

    #[test]
    fn settings_are_checked() {
        check("ami.username = \"u\"\nami.secret = \"hunter2\"", EXIT_OK, "ok\n", "");
        let note = "note: `evenring run` needs more settings: ";
        check("", EXIT_OK, &format!("{note}ami.username is not set"), "");
        check("ami.username = \"u\"", EXIT_OK, &format!("{note}ami.username is set, but no secret"), "");
        let contacts = "ami.username = \"u\"\nami.secret = \"x\"\nami.contacts.username = \"c\"";
        check(contacts, EXIT_OK, &format!("{note}ami.contacts.username is set, but no secret"), "");
        let unreadable = "ami.contacts.secret_file = \"/nonexistent/secret\"";
        check(unreadable, EXIT_BAD_SETTINGS, "", "error: ami.contacts.secret_file in ");
        check("ring.dial = \"PJSIP/1\"\nami.username = \"u\"\nami.secret = \"x\"", EXIT_OK, "warning: ring.dial", "");
        check("node.weigth = 1", EXIT_BAD_SETTINGS, "", "error: unknown key node.weigth in ");
    }

    #[test]
    fn settings_are_dumped_without_secrets() {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let file = tempfile::NamedTempFile::new().expect("a file");
        let env = [("EVENRING__AMI__SECRET".to_owned(), "hunter2".to_owned())];
        let code = dump_to(Some(file.path()), env.into_iter(), &mut out, &mut err).expect("a Vec takes all");
        let out = String::from_utf8_lossy(&out);
        assert_eq!((code, err.len()), (EXIT_OK, 0));
        assert!(out.contains("[ami]\n") && out.contains("secret = \"***\"") && !out.contains("hunter2"), "{out}");
    }
}
