//! The lock file by which one daemon of this machine speaks for a node name. Owns that lock, and the holder's name in
//! Redis. Must never judge a lease: `registry/scripts/register.lua` does.
//!
//! The kernel releases the lock when its process ends, however it ends. A daemon that gets the same lock as the last
//! holder therefore knows that the holder is dead, and need not wait for its lease; with another lock, or none, it has
//! to wait. This is why the lock is part of the holder's name in Redis.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing::{info, warn};

use super::DaemonError;
use crate::config::{Settings, span_text};
use crate::ids::{Generation, NodeName, Now};
use crate::registry::Registry;
use crate::runtime::clock::Clock;

/// Directory of the locks unless configured or created by systemd.
const DEFAULT_DIR: &str = "/run/evenring";
/// Looks at a name whose holder seems to be frozen, in one lease.
const LOOKS: u32 = 20;

/// What was found at the lock.
#[derive(Debug)]
enum Found {
    Free(Lock),
    /// A living process has it: what it wrote there, and for how long.
    Busy(String),
    /// There can be no lock, and why.
    None(String),
}

/// The lock, as long as this lives.
#[derive(Debug)]
struct Lock {
    _file: File,
    /// Which file it is: one that was removed and made again is another one.
    id: String,
}

/// The right to register the name in Redis.
#[derive(Debug)]
pub(super) struct Claim {
    _lock: Option<Lock>,
    /// The holder's name in Redis. The text after the first blank is for people.
    pub(super) holder: String,
}

/// The daemon's runtime directory: where the lock lies, unless configured or created by systemd.
pub fn runtime_dir(settings: &Settings) -> PathBuf {
    settings.lock_dir.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_DIR))
}

/// Takes the lock. Fails while another process on this machine has it, unless that process sends no heartbeat for a whole
/// lease: then it is frozen, and its later writes are refused.
///
/// # Errors
/// [`DaemonError::NameTaken`].
pub(super) async fn claim(settings: &Settings, generation: Generation, clock: Clock) -> Result<Claim, DaemonError> {
    let node = &settings.node.name;
    let dir = runtime_dir(settings);
    let path = dir.join(format!("{node}.lock"));
    let mut registry = Registry::new(settings)?;
    let mut until: Option<Now> = None;
    loop {
        let who = match look(&dir, &path, generation) {
            Found::Free(lock) => {
                info!(%node, path = %path.display(), "node name locked");
                return Ok(granted(Some(lock), generation, settings));
            }
            Found::None(reason) => {
                warn!(%node, reason, "no lock on the node name: after a restart, the daemon waits for its lease to \
                    expire");
                return Ok(granted(None, generation, settings));
            }
            Found::Busy(who) => who,
        };
        let lease = lease(&mut registry, node).await;
        if lease != Some(Duration::ZERO) {
            let lease = lease.map(|left| format!(" and a lease for {} more", span_text(left))).unwrap_or_default();
            let holder = format!("{} is running on this machine and has the lock {}{lease}", who, path.display());
            return Err(DaemonError::NameTaken { node: node.clone(), holder });
        }
        let now = clock.now();
        if now >= *until.get_or_insert(now.after(settings.placement.lease)) {
            warn!(%node, holder = who, "the daemon that holds the lock sends no heartbeats: taking over");
            return Ok(granted(None, generation, settings));
        }
        tokio::time::sleep(settings.placement.lease / LOOKS).await;
    }
}

fn granted(lock: Option<Lock>, generation: Generation, settings: &Settings) -> Claim {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let host = gethostname::gethostname().to_string_lossy().into_owned();
    // Without a lock, no later daemon can prove that this one is dead: the id is unique.
    let id = lock.as_ref().map_or_else(|| generation.to_string(), |lock| lock.id.clone());
    let at = own_address(settings).map(|address| format!(" at {address}")).unwrap_or_default();
    let holder = format!("{}/{}/{id} pid {}{at}", word(&host), boot.trim(), std::process::id());
    Claim { _lock: lock, holder }
}

/// The address of this host on the way to Redis, where that says something: two hosts may have one host name. Nothing is sent.
fn own_address(settings: &Settings) -> Option<IpAddr> {
    let redis = settings.redis.address()?;
    let any: IpAddr = if redis.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(redis).ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|own| !own.is_loopback())
}

/// Without blanks.
fn word(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join("-")
}

/// Time left of the node's lease. `None`: Redis is unavailable, or does not know the node.
async fn lease(registry: &mut Registry, node: &NodeName) -> Option<Duration> {
    let rows = registry.nodes().await.ok()?;
    rows.into_iter().find(|row| row.name == node.as_str()).map(|row| Duration::from_millis(row.lease_ms))
}

fn look(dir: &Path, path: &Path, generation: Generation) -> Found {
    let failed = |error: std::io::Error| Found::None(format!("{}: {error}", path.display()));
    if let Err(error) = DirBuilder::new().recursive(true).mode(0o755).create(dir) {
        return failed(error);
    }
    let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o644).open(path);
    let mut file = match open {
        Ok(file) => file,
        Err(error) => return failed(error),
    };
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Found::Busy(holder_in(&mut file)),
        Err(TryLockError::Error(error)) => return failed(error),
    }
    let text = format!("pid {}, generation {generation}", std::process::id());
    let written = file.rewind().and_then(|()| file.set_len(0)).and_then(|()| writeln!(file, "{text}"));
    match written.and_then(|()| file.metadata()) {
        Ok(meta) => Found::Free(Lock { id: format!("{}:{}", meta.dev(), meta.ino()), _file: file }),
        Err(error) => failed(error),
    }
}

/// What the holder wrote, as one line, and since when.
fn holder_in(file: &mut File) -> String {
    let mut text = String::new();
    // At worst it is not named.
    let _ = file.take(200).read_to_string(&mut text);
    let text: String = text.trim().chars().filter(|c| !c.is_control()).collect();
    let age = file.metadata().and_then(|meta| meta.modified()).ok().and_then(|at| at.elapsed().ok());
    let age =
        age.map(|age| format!(", since {} ago", span_text(Duration::from_secs(age.as_secs())))).unwrap_or_default();
    format!("another daemon ({}{age})", if text.is_empty() { "unnamed" } else { &text })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(dir: &Path) -> Found {
        look(dir, &dir.join("a.lock"), Generation::from_bits(7))
    }

    #[test]
    fn a_lock_is_had_once_and_free_when_its_holder_is_gone() {
        let dir = tempfile::tempdir().expect("a directory");
        let dir = dir.path().join("made");
        let Found::Free(first) = found(&dir) else { panic!("not free") };
        let Found::Busy(who) = found(&dir) else { panic!("not busy") };
        assert!(
            who.contains(&format!("pid {}, generation 0000000000000007, since 0s ago", std::process::id())),
            "{who}"
        );
        let id = first.id.clone();
        drop(first);
        let Found::Free(again) = found(&dir) else { panic!("not free") };
        assert_eq!(again.id, id, "the same lock: its last holder is dead");
        std::fs::remove_file(dir.join("a.lock")).expect("removed");
        let Found::Free(other) = found(&dir) else { panic!("not free") };
        assert_ne!(other.id, again.id, "another lock says nothing about that holder");
    }

    fn settings(redis: &str) -> Settings {
        let environment = [("EVENRING__NODE__NAME", "n"), ("EVENRING__REDIS__URL", redis)];
        let environment = environment.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let file = tempfile::NamedTempFile::new().expect("a file");
        Settings::load(Some(file.path()), environment.into_iter()).expect("settings")
    }

    #[test]
    fn where_no_file_can_be_there_is_no_lock() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let Found::None(why) = found(file.path()) else { panic!("a lock below a file") };
        assert!(why.contains("a.lock"), "{why}");
        let [one, two] =
            [1, 2].map(|bits| granted(None, Generation::from_bits(bits), &settings("redis://127.0.0.1")).holder);
        let id = |holder: &str| holder.split(' ').next().map(str::to_owned);
        assert_ne!(id(&one), id(&two), "two lives without a lock are two holders");
    }
}
