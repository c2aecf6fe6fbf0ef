//! `[http]` and `[agent_check]`: addresses where the daemon answers without asking who it is.
//!
//! Owns these addresses. Must never know what is served there.

use std::net::SocketAddr;

use super::source::Reader;

/// What an address is set to when nothing is to listen.
pub(super) const OFF: &str = "off";

/// An address where something listens, or nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenSettings {
    /// The address; `None` if nothing is to listen.
    pub listen: Option<SocketAddr>,
}

impl ListenSettings {
    /// As it stands in the settings.
    pub(super) fn text(self) -> String {
        self.listen.map_or_else(|| OFF.to_owned(), |address| address.to_string())
    }
}

/// Reads one address. `whom`: who is to reach it, for a warning if others can.
pub(super) fn listen(reader: &mut Reader, key: &str, default: &str, whom: &str) -> Option<ListenSettings> {
    let listen = address(reader, key, default)?;
    if let Some(address) = listen.filter(|address| !address.ip().is_loopback()) {
        let why = format!("it has no authentication: allow only {whom} to reach it");
        reader.warnings.push(format!("{key}: {address} is reachable from other hosts: {why}"));
    }
    Some(ListenSettings { listen })
}

/// The same without a warning.
pub(super) fn address(reader: &mut Reader, key: &str, default: &str) -> Option<Option<SocketAddr>> {
    let text: String = reader.read(key, default)?;
    if text == OFF {
        return Some(None);
    }
    let Ok(address) = text.parse::<SocketAddr>() else {
        reader.fail(key, format!("{text:?} is neither \"address:port\", \"[v6]:port\" nor \"{OFF}\""));
        return None;
    };
    Some(Some(address))
}
