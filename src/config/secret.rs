//! Secrets: where they may be set, which source takes precedence, and what they may contain.
//!
//! Owns secret files and systemd credentials. Must never put a secret's text into a message, a `Debug` or a dump (P13).
//!
//! Order, highest first: the environment, the settings file, the systemd credential. In the first two a secret stands
//! either as a value or as the path of a file that holds it (`*_file`); both in the same layer is an error.

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use secrecy::SecretString;
use serde_json::Value;

use super::source::{Entry, Layer, Reader};

/// Bytes of a secret: it has to fit into one AMI line (1022 bytes) with its header.
pub const SECRET_BYTES_MAX: usize = 1000;

/// The keys and the credential of one secret.
pub(super) struct Place {
    pub(super) value_key: &'static str,
    pub(super) file_key: &'static str,
    pub(super) credential: &'static str,
}

/// A secret, none, or the reason why it could not be read.
pub(super) type Found = Result<Option<SecretString>, String>;

/// Looks in all places in order. Contradictions are problems at once; a file that cannot be read only is one for
/// those who need the secret, because commands on a machine without Asterisk do not.
pub(super) fn find(reader: &mut Reader, place: &Place, credentials: Option<&Path>) -> Found {
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
        (None, None) => of_credential(place, credentials),
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
    reader.secret_files.push(path.clone());
    if std::fs::metadata(&path).is_ok_and(|meta| meta.permissions().mode() & 0o004 != 0) {
        let shown = path.display();
        reader.open_files.push(format!("{}: {shown} is world-readable: chmod 0600 {shown}", place.file_key));
    }
    from_file(&path).map(Some).map_err(|why| format!("{} in {}: {why}", place.file_key, reader.place(&layer)))
}

fn of_credential(place: &Place, credentials: Option<&Path>) -> Found {
    let Some(path) = credentials.map(|directory| directory.join(place.credential)) else { return Ok(None) };
    if !path.exists() {
        return Ok(None);
    }
    from_file(&path).map(Some).map_err(|why| format!("the systemd credential {}: {why}", place.credential))
}

fn from_file(path: &Path) -> Result<SecretString, String> {
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
    checked(text).map_err(|why| format!("{}: {why}", path.display()))
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
