//! The task that reads the settings again at SIGHUP. Owns the settings in force. Must never change what needs a restart,
//! nor let wrong settings take effect: then the old ones stay, and the log says why.

use tokio::signal::unix::Signal;
use tokio::sync::watch;
use tracing::{error, info, warn};

use crate::config::{AmiLogin, AmiSettings, ConfigError, NodeSettings, RingSettings, Settings};

/// Sets a filter of the log; or why that has no effect.
pub type SetFilter = Box<dyn Fn(&str) -> Result<(), String> + Send>;

/// How settings are read again, and what of them lies above this room.
pub struct Again {
    /// Reads the file and the environment.
    pub settings: Box<dyn Fn() -> Result<Settings, ConfigError> + Send>,
    /// What of them lies above.
    pub filter: SetFilter,
}

/// What the other tasks take over.
#[derive(Debug, Clone)]
pub(super) struct InForce {
    pub(super) node: NodeSettings,
    pub(super) ring: RingSettings,
    pub(super) ami: AmiSettings,
    /// The manager users; the one that does not do is left out.
    pub(super) ami_login: Option<AmiLogin>,
    pub(super) contacts_login: Option<AmiLogin>,
}

impl InForce {
    pub(super) fn of(settings: &Settings) -> Self {
        Self {
            node: settings.node.clone(),
            ring: settings.ring.clone(),
            ami: settings.ami.clone(),
            ami_login: settings.ami_login().ok().flatten(),
            contacts_login: settings.contacts_login().ok().flatten(),
        }
    }
}

/// The task.
pub(super) struct Reload {
    pub(super) settings: Settings,
    pub(super) again: Again,
    pub(super) told: watch::Sender<InForce>,
}

impl Reload {
    /// Waits for SIGHUP until the daemon ends.
    pub(super) async fn run(mut self, mut hangup: Signal) {
        while hangup.recv().await.is_some() {
            match (self.again.settings)() {
                Ok(new) => self.take_over(&new),
                Err(error) => {
                    for reason in &error.problems {
                        let node = &self.settings.node.name;
                        error!(%node, reason, "the new settings are wrong: the old ones stay in force");
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
            warn!(%node, key, from, to, "a setting that needs a restart has changed");
        }
        if changes.live.iter().any(|change| change.key == "log.filter")
            && let Err(reason) = (self.again.filter)(&new.log.filter)
        {
            warn!(%node, reason, "the log's filter stays as it is");
        }
        for change in &changes.live {
            let (key, from, to) = (&change.key, &change.from, &change.to);
            info!(%node, key, from, to, "setting taken over");
        }
        self.settings.take_over(new);
        self.told.send_replace(InForce::of(&self.settings));
        info!(%node, taken_over = changes.live.len(), need_restart = changes.restart.len(), "settings read again");
    }
}
