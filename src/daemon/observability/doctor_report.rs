//! The report that `evenring doctor --report` leaves for the metrics of the daemon beside it. Owns its form and its name. Must
//! never know what a finding is about.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

/// Its name in the daemon's runtime directory.
const NAME: &str = "doctor.json";
/// More bytes than it ever has.
const BYTES_MOST: u64 = 4096;

/// What the last run has found.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct DoctorReport {
    /// Logins are refused, lost or unsafe.
    pub failures: u64,
    /// It works, but not for ever or not as well as it could.
    pub warnings: u64,
    /// When it was written, in s since 1970.
    #[serde(skip)]
    pub at: f64,
}

impl DoctorReport {
    /// Leaves it in the daemon's runtime directory. Whoever reads sees the whole of the last one, or of this.
    ///
    /// # Errors
    /// The file that could not be written, and why.
    pub fn write(self, runtime_dir: &Path) -> Result<(), String> {
        let (path, new) = (runtime_dir.join(NAME), runtime_dir.join(format!("{NAME}.new")));
        let write = || -> io::Result<()> {
            // Not through a link that somebody has left there.
            match fs::remove_file(&new) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&new)?;
            file.write_all(&serde_json::to_vec(&self)?)?;
            fs::rename(&new, &path)
        };
        write().map_err(|error| format!("{}: {error}", path.display()))
    }

    /// The last one, if there is one.
    pub fn read(runtime_dir: &Path) -> Option<Self> {
        let file = File::open(runtime_dir.join(NAME)).ok()?;
        let written = file.metadata().and_then(|meta| meta.modified()).ok()?;
        let mut text = String::new();
        file.take(BYTES_MOST).read_to_string(&mut text).ok()?;
        let report: Self = serde_json::from_str(&text).ok()?;
        Some(Self { at: written.duration_since(UNIX_EPOCH).ok()?.as_secs_f64(), ..report })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read_as_it_was_written() {
        let dir = tempfile::tempdir().expect("a directory");
        assert_eq!(DoctorReport::read(dir.path()), None);
        for failures in [2, 0] {
            DoctorReport { failures, warnings: 1, at: 0.0 }.write(dir.path()).expect("written");
            let read = DoctorReport::read(dir.path()).expect("a report");
            assert_eq!((read.failures, read.warnings), (failures, 1));
            assert!(read.at > 1_500_000_000.0, "{read:?}");
        }
        std::fs::write(dir.path().join(NAME), "{").expect("written");
        assert_eq!(DoctorReport::read(dir.path()), None, "nonsense is no report");
        let error =
            DoctorReport { failures: 0, warnings: 0, at: 0.0 }.write(Path::new("/nowhere")).expect_err("no folder");
        assert!(error.starts_with("/nowhere/doctor.json: No such file"), "{error}");
    }
}
