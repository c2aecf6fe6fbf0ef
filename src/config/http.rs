//! `[http]`: where health checks and metrics are served.
//!
//! Owns this one address. Must never know what is served there.

use std::net::SocketAddr;

use super::source::Reader;

/// What the address is set to when nothing is to listen.
const OFF: &str = "off";

/// Where health checks and metrics are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HttpSettings {
    /// The address; `None` if nothing is to listen.
    pub listen: Option<SocketAddr>,
}

impl HttpSettings {
    /// As it stands in the settings.
    pub(super) fn text(self) -> String {
        self.listen.map_or_else(|| OFF.to_owned(), |address| address.to_string())
    }
}

pub(super) fn http(reader: &mut Reader) -> Option<HttpSettings> {
    let key = "http.listen";
    let text: String = reader.read(key, "127.0.0.1:9816")?;
    if text == OFF {
        return Some(HttpSettings { listen: None });
    }
    let Ok(address) = text.parse::<SocketAddr>() else {
        reader.fail(key, format!("{text:?} is neither \"address:port\", \"[v6]:port\" nor \"{OFF}\""));
        return None;
    };
    if !address.ip().is_loopback() {
        let why = "it has no authentication: allow only your monitoring to reach it";
        reader.warnings.push(format!("{key}: {address} is reachable from other hosts: {why}"));
    }
    Some(HttpSettings { listen: Some(address) })
}
