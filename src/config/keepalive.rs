//! `[keepalive]`: the operators' own command for an Asterisk that stays away.
//!
//! Owns those four keys. Must never know when the command runs: the daemon decides that.

use std::path::Path;
use std::time::Duration;

use super::AmiAddress;
use super::source::{MILLISECOND, MINUTE, Reader};

/// Words of the command.
const WORDS_MAX: usize = 32;

/// What is done for an Asterisk that stays away; by default nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeepaliveSettings {
    /// The program, by its whole path, and its arguments. Empty: nothing runs.
    pub command: Vec<String>,
    /// How long AMI must be away.
    pub after: Duration,
    /// From the beginning of one run to that of the next, at least.
    pub every: Duration,
    /// The command is killed after this time.
    pub timeout: Duration,
}

pub(super) fn keepalive(reader: &mut Reader, ami: Option<&AmiAddress>) -> Option<KeepaliveSettings> {
    let key = "keepalive.command";
    let command = reader.read::<Vec<String>>(key, Vec::<String>::new());
    let after = reader.span("keepalive.after", "1m", MILLISECOND * 500..=60 * MINUTE);
    let every = reader.span("keepalive.every", "10m", MILLISECOND * 500..=24 * 60 * MINUTE);
    let timeout = reader.span("keepalive.timeout", "30s", MILLISECOND * 100..=10 * MINUTE);
    let command = command?;
    if let Some(program) = command.first() {
        if !program.starts_with('/') {
            reader.fail(key, format!("{program:?} is not an absolute path"));
        } else if !Path::new(program).is_file() {
            reader.warnings.push(format!("{key}: {program} does not exist"));
        }
        if ami.is_some_and(|address| !address.is_loopback()) {
            let why = "a firewall may refuse the connection while calls are active";
            reader.warnings.push(format!("{key} is set, and ami.address is not on this host: {why}"));
        }
    }
    if command.len() > WORDS_MAX || command.iter().any(|word| word.contains('\0')) {
        reader.fail(key, format!("at most {WORDS_MAX} words are allowed, none with a NUL"));
    }
    Some(KeepaliveSettings { command, after: after?, every: every?, timeout: timeout? })
}
