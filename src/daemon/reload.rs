//! The task that reads the settings again at SIGHUP. Owns the settings in effect. Must never change what needs a restart,
//! or apply invalid settings: the old ones stay, and the log says why.

use tokio::signal::unix::Signal;
use tokio::sync::watch;
use tracing::{error, info, warn};

use crate::config::{ConfigError, LiveSettings, Settings};

/// Sets the log filter; `Err` says why it has no effect.
pub type SetFilter = Box<dyn Fn(&str) -> Result<(), String> + Send>;

/// How settings are reloaded and a new log filter is set.
pub struct Reloader {
    /// Reads the file and the environment.
    pub settings: Box<dyn Fn() -> Result<Settings, ConfigError> + Send>,
    /// Sets the filter of the log.
    pub filter: SetFilter,
}

/// The task.
pub(super) struct Reload {
    pub(super) settings: Settings,
    pub(super) reloader: Reloader,
    pub(super) told: watch::Sender<LiveSettings>,
}

impl Reload {
    /// Waits for SIGHUP until the daemon ends.
    pub(super) async fn run(mut self, mut hangup: Signal) {
        while hangup.recv().await.is_some() {
            match (self.reloader.settings)() {
                Ok(new) => self.take_over(&new),
                Err(error) => {
                    for reason in &error.problems {
                        let node = &self.settings.node.name;
                        error!(%node, reason, "invalid settings: the old ones stay in effect");
                    }
                }
            }
        }
    }

    fn take_over(&mut self, new: &Settings) {
        let node = self.settings.node.name.clone();
        for reason in new.warnings() {
            warn!(%node, reason, "configuration");
        }
        let changes = self.settings.changes(new);
        for change in &changes.restart {
            let (key, from, to) = (&change.key, &change.from, &change.to);
            warn!(%node, key, from, to, "setting changed: needs a restart");
        }
        if changes.live.iter().any(|change| change.key == "log.filter")
            && let Err(reason) = (self.reloader.filter)(&new.log.filter)
        {
            warn!(%node, reason, "log filter not changed");
        }
        for change in &changes.live {
            let (key, from, to) = (&change.key, &change.from, &change.to);
            info!(%node, key, from, to, "setting applied");
        }
        self.settings.take_over(new);
        let restart = changes.restart.iter().map(|change| change.key.clone()).collect();
        self.told.send_replace(LiveSettings { restart, ..LiveSettings::of(&self.settings) });
        info!(%node, taken_over = changes.live.len(), need_restart = changes.restart.len(), "settings reloaded");
    }
}
