//! The settings that a daemon takes over while it runs, as the tasks need them. Owns that selection. Must never decide when
//! they change.

use super::{AmiLogin, AmiSettings, NodeSettings, Settings};
use crate::ring_policy::RingSettings;

/// What the other tasks take over.
#[derive(Debug, Clone)]
pub struct LiveSettings {
    /// Share, caps and campaigns.
    pub node: NodeSettings,
    /// How phones are rung.
    pub ring: RingSettings,
    /// The way to Asterisk, for the next connection.
    pub ami: AmiSettings,
    /// The manager users; `None` where the settings name none that works.
    pub ami_login: Option<AmiLogin>,
    /// See `ami_login`.
    pub contacts_login: Option<AmiLogin>,
}

impl LiveSettings {
    /// What of these settings is taken over.
    pub fn of(settings: &Settings) -> Self {
        Self {
            node: settings.node.clone(),
            ring: settings.ring.clone(),
            ami: settings.ami.clone(),
            ami_login: settings.ami_login().ok().flatten(),
            contacts_login: settings.contacts_login().ok().flatten(),
        }
    }
}
