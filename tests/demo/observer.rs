//! The cluster as Redis has it, read many times a second: what `evenring status` and `sessions` print, without the start
//! of a process for each look.
//!
//! Owns one connection. Must never be the source of a figure that a user's own command can tell, but for those that
//! a process would be too slow to see.

use std::path::Path;

use evenring::config::Settings;
use evenring::registry::Registry;
use evenring::registry::view::{NodeRow, SessionRow, SessionState, ShownNodeState, Which};

/// See above.
pub(super) struct Observer {
    runtime: tokio::runtime::Runtime,
    registry: Registry,
}

/// One look.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct View {
    pub(super) nodes: Vec<NodeRow>,
    sessions: Vec<SessionRow>,
}

impl Observer {
    pub(super) fn new(config: &Path) -> Self {
        let settings = Settings::load(Some(config), std::iter::empty()).expect("the lab's config is good");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let registry = Registry::new(&settings).expect("the lab's Redis has a good address");
        Self { runtime, registry }
    }

    /// All nodes and all open sessions.
    pub(super) fn look(&mut self) -> View {
        self.runtime.block_on(async {
            let nodes = self.registry.nodes().await.expect("Redis answers");
            let sessions = self.registry.sessions(Which::Open).await.expect("Redis answers");
            View { nodes, sessions }
        })
    }

    /// One node's state.
    pub(super) fn state(&mut self, node: &str) -> String {
        let nodes = self.runtime.block_on(self.registry.nodes()).expect("Redis answers");
        nodes.into_iter().find(|row| row.name == node).map_or_else(String::new, |row| row.state.to_string())
    }
}

impl View {
    /// Live sessions of one class.
    pub(super) fn live(&self, remote: bool) -> usize {
        self.sessions.iter().filter(|row| row.remote == remote && row.state == SessionState::Live).count()
    }

    /// Local sessions of a node: live, and on the way there.
    pub(super) fn local(&self, node: &str) -> (usize, usize) {
        let here = || self.sessions.iter().filter(|row| row.node == node && !row.remote);
        let live = here().filter(|row| row.state == SessionState::Live).count();
        (live, here().count() - live)
    }

    /// All sessions that are not over.
    pub(super) fn open(&self) -> usize {
        self.sessions.len()
    }

    fn node(&self, name: &str) -> Option<&NodeRow> {
        self.nodes.iter().find(|row| row.name == name)
    }

    /// Sessions of a node that are not over.
    pub(super) fn open_on(&self, node: &str) -> usize {
        self.sessions.iter().filter(|row| row.node == node).count()
    }

    /// Whether the nodes' counts of channels, which come with their heartbeats, have followed the sessions.
    pub(super) fn is_counted(&self) -> bool {
        self.nodes.iter().all(|row| row.channels == row.agents + row.remote)
    }

    /// Whether a node is in the rotation and has its phones.
    pub(super) fn is_ready(&self, node: &str, phones: u32) -> bool {
        self.node(node)
            .is_some_and(|row| row.state == ShownNodeState::Active && row.registrations >= Some(u64::from(phones)))
    }
}
