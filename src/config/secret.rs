//! Secrets: where they may be set, which source takes precedence, and what they may contain.
//!
//! Owns secret files and systemd credentials. Must never put a secret's text into a message, a `Debug` or a dump (P13).
//!
//! Order, highest first: the environment, the settings file, the systemd credential. In the first two a secret stands
//! either as a value or as the path of a file that holds it (`*_file`); both in the same layer is an error. A command that
//! somebody runs has no credentials: it reads the files from which the daemon's unit loads them.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use secrecy::SecretString;
use serde_json::Value;

use super::source::{Entry, Layer, Reader};
use super::unit;

/// Bytes of a secret: it has to fit into one AMI line (1022 bytes) with its header.
pub const SECRET_BYTES_MAX: usize = 1000;

/// The keys and the credential of one secret.
pub(super) struct Place {
    pub(super) value_key: &'static str,
    pub(super) file_key: &'static str,
    pub(super) credential: &'static str,
}

/// Where the credentials of systemd are.
pub(super) enum Credentials {
    /// In this folder: systemd has started this process.
    Folder(PathBuf),
    /// In the files from which the unit would load them, by name: this is a command on the daemon's machine.
    Files(BTreeMap<String, PathBuf>),
}

impl Credentials {
    /// Those of a process with this `$CREDENTIALS_DIRECTORY`. The unit's are of use only with `own_settings`: with other
    /// settings a password would go to another server.
    pub(super) fn of(folder: Option<PathBuf>, own_settings: bool, root: &Path) -> Self {
        match folder {
            // the commands of ExecReload= are told of the folder, and do not see it
            Some(folder) if folder.is_dir() => Self::Folder(folder),
            _ if own_settings => Self::Files(unit::credentials(root)),
            _ => Self::Files(BTreeMap::new()),
        }
    }
}

/// Why a secret cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unusable {
    /// The daemon has it, but this user may not read its file.
    Hidden(String),
    /// It is wrong, or its file is, whoever reads it.
    Wrong(String),
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Hidden(why) | Self::Wrong(why)) = self;
        f.write_str(why)
    }
}

/// A secret, none, or the reason why it could not be read.
pub(super) type Found = Result<Option<SecretString>, Unusable>;

/// Looks in all places in order. Contradictions are problems at once; a file that cannot be read only is one for
/// those who need the secret, because commands on a machine without Asterisk do not.
pub(super) fn find(reader: &mut Reader, place: &Place, credentials: &Credentials) -> Found {
    let value = reader.take(place.value_key);
    let file = reader.take(place.file_key);
    match (value, file) {
        (Some(value), Some(file)) => {
            if std::mem::discriminant(&value.layer) == std::mem::discriminant(&file.layer) {
                let Place { value_key, file_key, .. } = place;
                let at = reader.place(&value.layer);
                reader.problems.push(format!("{value_key} and {file_key} are both set in {at}: remove one of them"));
                return Ok(None);
            }
            if value.layer > file.layer { of_value(reader, place, value) } else { of_file(reader, place, file) }
        }
        (Some(value), None) => of_value(reader, place, value),
        (None, Some(file)) => of_file(reader, place, file),
        (None, None) => of_credential(reader, place, credentials),
    }
}

fn of_value(reader: &mut Reader, place: &Place, entry: Entry) -> Found {
    let Value::String(text) = entry.value else {
        reader.fail(place.value_key, "a secret must be a quoted string");
        return Ok(None);
    };
    if entry.layer == Layer::File {
        reader.inline_secrets.push(place.value_key);
    }
    match checked(text) {
        Ok(secret) => Ok(Some(secret)),
        Err(why) => {
            reader.fail(place.value_key, why);
            Ok(None)
        }
    }
}

fn of_file(reader: &mut Reader, place: &Place, entry: Entry) -> Found {
    let layer = entry.layer.clone();
    let Some(path) = reader.convert::<PathBuf>(place.file_key, entry) else { return Ok(None) };
    if !path.is_absolute() {
        reader.fail(place.file_key, "the path must be absolute");
        return Ok(None);
    }
    reader.note_file(place.file_key, &path);
    let wrong = |why| Unusable::Wrong(format!("{} in {}: {why}", place.file_key, reader.place(&layer)));
    from_file(&path).and_then(checked_file(&path)).map(Some).map_err(wrong)
}

/// An empty one counts as none: the package makes the files, and who needs a secret fills one in.
fn of_credential(reader: &mut Reader, place: &Place, credentials: &Credentials) -> Found {
    let name = place.credential;
    let path = match credentials {
        Credentials::Folder(folder) => folder.join(name),
        Credentials::Files(files) => match files.get(name) {
            Some(path) => path.clone(),
            None => return Ok(None),
        },
    };
    match std::fs::File::open(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => return hidden(place, &path),
        Ok(_) | Err(_) => {}
    }
    if matches!(credentials, Credentials::Files(_)) {
        reader.note_file(name, &path);
    }
    let text = from_file(&path).map_err(|why| Unusable::Wrong(format!("the systemd credential {name}: {why}")))?;
    if text.is_empty() {
        return Ok(None);
    }
    let wrong = |why| Unusable::Wrong(format!("the systemd credential {name}: {why}"));
    checked_file(&path)(text).map(Some).map_err(wrong)
}

/// A file of the unit that this user may not read. Its size tells whether there is a secret, except in the daemon's sandbox.
fn hidden(place: &Place, path: &Path) -> Found {
    if std::fs::metadata(path).is_ok_and(|meta| meta.len() == 0 && meta.permissions().mode() & 0o777 != 0) {
        return Ok(None);
    }
    let variable = place.file_key.to_uppercase().replace('.', "__");
    Err(Unusable::Hidden(format!(
        "{}: this user may not read {}, from which {} loads the credential {}: run this as root, or name another \
         file in EVENRING__{variable}",
        place.value_key,
        path.display(),
        unit::UNIT,
        place.credential
    )))
}

fn from_file(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    let limit = SECRET_BYTES_MAX as u64 + 3;
    let read = std::fs::File::open(path).and_then(|file| file.take(limit).read_to_string(&mut text));
    read.map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}

fn checked_file(path: &Path) -> impl Fn(String) -> Result<SecretString, String> {
    move |text| checked(text).map_err(|why| format!("{}: {why}", path.display()))
}

fn checked(text: String) -> Result<SecretString, &'static str> {
    if text.is_empty() {
        return Err("the secret is empty");
    }
    if text.len() > SECRET_BYTES_MAX {
        return Err("the secret is longer than 1000 bytes");
    }
    if text.chars().any(|c| c.is_ascii_control()) {
        return Err("the secret contains a control character, perhaps a second line: write it on one line");
    }
    Ok(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Root may read all files, so who may not is asked for here alone; a test with systemd does it as a user.
    #[test]
    fn a_file_that_may_not_be_read_is_named_unless_it_is_empty() {
        let place =
            Place { value_key: "redis.password", file_key: "redis.password_file", credential: "redis-password" };
        let file = tempfile::NamedTempFile::new().expect("a file");
        assert!(matches!(hidden(&place, file.path()), Ok(None)));
        std::fs::write(file.path(), "hunter2").expect("written");
        let Err(Unusable::Hidden(why)) = hidden(&place, file.path()) else { panic!("it has a secret") };
        let path = file.path().display().to_string();
        for part in [&path, "evenring.service loads the credential redis-password", "EVENRING__REDIS__PASSWORD_FILE"] {
            assert!(why.contains(part) && !why.contains("hunter2"), "{why}");
        }
        // as the sandbox of the unit shows a file that it hides
        std::fs::write(file.path(), "").expect("written");
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o0)).expect("a mode");
        assert!(matches!(hidden(&place, file.path()), Err(Unusable::Hidden(_))));
    }
}
