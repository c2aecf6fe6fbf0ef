//! A file that is replaced as a whole: whoever reads it sees the old text or the new one. Owns how. Must never know what is in it.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read as _, Result, Write as _};
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::{Path, PathBuf};

/// The folder that a file lies in.
pub(super) fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Whether a file has this text.
///
/// # Errors
/// If it is there and cannot be read.
pub(super) fn has(path: &Path, text: &str) -> Result<bool> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    // One byte more than is wanted tells a longer one.
    let mut found = Vec::new();
    file.take(text.len() as u64 + 1).read_to_end(&mut found)?;
    Ok(found == text.as_bytes())
}

/// Puts a text into a file: into another one of the same folder, to the disk, and by that in its place. It keeps the mode
/// of the file that was there, and its owner if this user may give files away.
///
/// # Errors
/// What the system says. The old file is there as before, unless only the last step failed.
pub(super) fn replace(path: &Path, text: &str) -> Result<()> {
    let folder = folder(path);
    let name = path.file_name().ok_or(ErrorKind::IsADirectory)?;
    let mut new_name = std::ffi::OsString::from(".");
    new_name.push(name);
    new_name.push(".new");
    let new = folder.join(new_name);
    write(&new, path, text).and_then(|()| fs::rename(&new, path)).inspect_err(|_| {
        // Nothing else is lost if it stays.
        let _ = fs::remove_file(&new);
    })?;
    File::open(folder)?.sync_all()
}

fn write(new: &PathBuf, old: &Path, text: &str) -> Result<()> {
    match fs::remove_file(new) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    // Never through a link that somebody has put there.
    let mut file = OpenOptions::new().write(true).create_new(true).open(new)?;
    file.write_all(text.as_bytes())?;
    if let Ok(before) = fs::metadata(old) {
        // Only root may.
        let _ = chown(new, Some(before.uid()), Some(before.gid()));
        file.set_permissions(before.permissions())?;
    }
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole_and_keeps_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("list");
        assert!(!has(&path, "a\n").unwrap());
        replace(&path, "a\n").unwrap();
        assert!(has(&path, "a\n").unwrap() && !has(&path, "a").unwrap() && !has(&path, "a\nb\n").unwrap());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let before = File::open(&path).unwrap();
        replace(&path, "b\n").unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!((fs::read_to_string(&path).unwrap().as_str(), mode), ("b\n", 0o640));
        let old = std::io::read_to_string(before).unwrap();
        assert_eq!(old, "a\n", "whoever has it open reads the old one to its end");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_file_that_cannot_be_written_stays_and_no_link_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("list"), dir.path().join("other"));
        fs::write(&other, "x").unwrap();
        symlink(&other, dir.path().join(".list.new")).unwrap();
        replace(&path, "a\n").unwrap();
        assert_eq!(
            (fs::read_to_string(&other).unwrap(), fs::read_to_string(&path).unwrap()),
            ("x".into(), "a\n".into())
        );
        assert!(replace(&dir.path().join("no/list"), "a").is_err());
        fs::create_dir(dir.path().join(".list.new")).unwrap();
        assert!(replace(&path, "b\n").is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "a\n");
    }
}
