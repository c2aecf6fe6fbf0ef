//! The secrets that systemd gives to the daemon, for whoever runs a command of evenring on the same machine.
//!
//! Owns where units lie and what `LoadCredential=` in them means. Must never read a secret.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The daemon's unit.
pub(super) const UNIT: &str = "evenring.service";
/// Where units lie; the first folder wins.
const FOLDERS: [&str; 4] = ["etc/systemd/system", "run/systemd/system", "usr/lib/systemd/system", "lib/systemd/system"];

/// Name and file of each credential that the unit below this root loads, drop-ins included. Empty without a unit.
pub(super) fn credentials(root: &Path) -> BTreeMap<String, PathBuf> {
    let folders = FOLDERS.map(|folder| root.join(folder));
    let Some(unit) = folders.iter().find_map(|folder| fs::read_to_string(folder.join(UNIT)).ok()) else {
        return BTreeMap::new();
    };
    let mut drop_ins: BTreeMap<_, PathBuf> = BTreeMap::new();
    for folder in &folders {
        let entries = fs::read_dir(folder.join(format!("{UNIT}.d"))).into_iter().flatten().flatten();
        for path in entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "conf")) {
            drop_ins.entry(path.file_name().map(ToOwned::to_owned)).or_insert(path);
        }
    }
    let texts = drop_ins.values().filter_map(|path| fs::read_to_string(path).ok());
    let mut found = BTreeMap::new();
    for text in std::iter::once(unit).chain(texts) {
        for value in text.lines().filter_map(|line| line.trim().strip_prefix("LoadCredential=")) {
            match value.split_once(':') {
                Some((name, path)) if path.starts_with('/') => {
                    drop(found.insert(name.to_owned(), root.join(&path[1..])))
                }
                // "LoadCredential=" alone takes back what stood before it; names without a path come from elsewhere
                None if value.is_empty() => found.clear(),
                Some(_) | None => {}
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_credentials_of_a_unit_and_its_drop_ins() {
        let root = tempfile::tempdir().expect("a directory");
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            fs::write(path, text).expect("written");
        };
        let now = || -> Vec<(String, String)> {
            let found = credentials(root.path()).into_iter();
            let inside = |path: PathBuf| path.strip_prefix(root.path()).expect("below").display().to_string();
            found.map(|(name, path)| (name, inside(path))).collect()
        };
        let pair = |name: &str, path: &str| (name.to_owned(), path.to_owned());
        assert_eq!(now(), []);
        write(
            "usr/lib/systemd/system/evenring.service",
            "[Service]\nLoadCredential=a:/etc/a\nLoadCredential=b:/etc/b\n",
        );
        assert_eq!(now(), [pair("a", "etc/a"), pair("b", "etc/b")]);
        write("usr/lib/systemd/system/evenring.service.d/20.conf", "LoadCredential=a:/vendor/a\n");
        write("etc/systemd/system/evenring.service.d/30.conf", "LoadCredential=c:/run/c\nLoadCredential=d\n");
        assert_eq!(now(), [pair("a", "vendor/a"), pair("b", "etc/b"), pair("c", "run/c")]);
        // the administrator's file of the same name hides the vendor's
        write("etc/systemd/system/evenring.service.d/20.conf", "LoadCredential=\n");
        assert_eq!(now(), [pair("c", "run/c")]);
        write("etc/systemd/system/evenring.service", "[Service]\n#LoadCredential=a:/etc/a\n");
        write("etc/systemd/system/evenring.service.d/20.conf", "");
        assert_eq!(now(), [pair("c", "run/c")]);
    }
}
