//! The settings that a daemon takes over while it runs, as the tasks need them, and what it says of the rest. Owns that selection. Must never decide when
//! they change.

use std::collections::BTreeMap;

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
    /// What must be the same on all nodes, of the settings in effect: see [`Settings::shared`].
    pub shared: BTreeMap<String, String>,
    /// Keys that were changed by a reload and need a restart.
    pub restart: Vec<String>,
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
            shared: settings.shared(),
            restart: Vec::new(),
        }
    }
}
