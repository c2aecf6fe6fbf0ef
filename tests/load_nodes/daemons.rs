//! Real daemons beside simulated nodes: one process each, as in production. Owns their settings and logs. Must never
//! reach into one: what they did is seen in Redis and at the simulated nodes.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::{USER, secrets};

/// A daemon beside a simulated node. It ends with its handle.
#[derive(Debug)]
pub struct SimDaemon {
    child: Child,
    log: PathBuf,
}

impl SimDaemon {
    /// Starts `evenring run` as node `name`. Many share one network,
    /// so each serves HTTP at a port of its own. `more` goes to the end of the settings and may hold whole tables.
    pub fn start(binary: &Path, dir: &Path, name: &str, ami: SocketAddr, redis: &str, more: &str) -> Self {
        let (user, secret) = USER;
        let text = format!(
            "[node]\nname = \"{name}\"\n[ami]\naddress = \"{ami}\"\nusername = \"{user}\"\nsecret = \"{secret}\"\n\
             [redis]\nurl = \"{redis}\"\n[http]\nlisten = \"127.0.0.1:0\"\n[log]\nformat = \"text\"\n{more}\n"
        );
        secrets::keep(&text);
        let config = dir.join(format!("{name}.toml"));
        std::fs::write(&config, text).expect("write the daemon's settings");
        let log = dir.join(format!("{name}.log"));
        let file = std::fs::File::create(&log).expect("create the daemon's log");
        let mut command = Command::new(binary);
        command.arg("run").arg("--config").arg(config).env("RUNTIME_DIRECTORY", dir).stdin(Stdio::null());
        command.stdout(file.try_clone().expect("the log twice")).stderr(file);
        let child = command.spawn().expect("start evenring");
        Self { child, log }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// All it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for SimDaemon {
    fn drop(&mut self) {
        // Both fail only if it has ended before.
        let _ = self.child.kill();
        let _ = self.child.wait();
        secrets::search_log(&self.log);
    }
}
