//! `[api]`: where the HTTP API listens, and how it is protected.
//!
//! Owns these keys, and that nobody serves the API to other hosts in the clear by mistake. Must never read a token.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::listen;
use super::source::{Reader, absolute};

/// Where the tokens stand if nothing else is said.
const TOKENS_FILE: &str = "/etc/evenring/tokens";

/// The HTTP API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiSettings {
    /// The address; `None` if nothing is to listen.
    pub listen: Option<SocketAddr>,
    /// The certificate and those that it depends on, PEM; with [`Self::key_file`], the API speaks TLS only.
    pub cert_file: Option<PathBuf>,
    /// The certificate's private key, PEM.
    pub key_file: Option<PathBuf>,
    /// Names, scopes and SHA-256 of the tokens.
    pub tokens_file: PathBuf,
    /// Other hosts may be served without TLS and before there is a token. Requests need a token all the same.
    pub insecure: bool,
    /// Event streams at once.
    pub watchers: u32,
    /// Requests per second of one token.
    pub token_rate: u32,
    /// Requests per second from one address.
    pub address_rate: u32,
}

impl ApiSettings {
    /// As `listen` stands in the settings.
    pub(super) fn listen_text(&self) -> String {
        self.listen.map_or_else(|| listen::OFF.to_owned(), |address| address.to_string())
    }

    /// Whether other hosts can reach it, and that needs tokens and TLS.
    pub fn must_be_safe(&self) -> bool {
        !self.insecure && self.listen.is_some_and(|address| !address.ip().is_loopback())
    }
}

/// Reads the section.
pub(super) fn api(reader: &mut Reader) -> Option<ApiSettings> {
    let listen = listen::address(reader, "api.listen", listen::OFF);
    let cert_file = absolute(reader, "api.cert_file");
    let key_file = absolute(reader, "api.key_file");
    let tokens_file: Option<PathBuf> = reader.read("api.tokens_file", TOKENS_FILE);
    let insecure = reader.read("api.insecure", false);
    let watchers = reader.number("api.watchers", 10_000, 1..=100_000);
    let token_rate = reader.number("api.token_rate", 2_000, 1..=1_000_000);
    let address_rate = reader.number("api.address_rate", 2_000, 1..=1_000_000);
    let api = ApiSettings {
        listen: listen?,
        cert_file: cert_file?,
        key_file: key_file?,
        tokens_file: tokens_file?,
        insecure: insecure?,
        watchers: watchers?,
        token_rate: token_rate?,
        address_rate: address_rate?,
    };
    check(reader, &api);
    Some(api)
}

fn check(reader: &mut Reader, api: &ApiSettings) {
    if !api.tokens_file.is_absolute() {
        reader.fail("api.tokens_file", "the path must be absolute");
    }
    if api.cert_file.is_some() != api.key_file.is_some() {
        reader.problems.push("api.cert_file and api.key_file belong together: set both, or neither".to_owned());
        return;
    }
    let Some(address) = api.listen.filter(|address| !address.ip().is_loopback()) else { return };
    if api.insecure {
        let without = if api.cert_file.is_some() { "without a token being there yet" } else { "without TLS" };
        let advice = "let only your own proxies reach it";
        reader.warnings.push(format!("api.insecure: other hosts reach {address} {without}: {advice}"));
        return;
    }
    if api.cert_file.is_none() {
        let advice = "set api.cert_file and api.key_file, listen at 127.0.0.1 behind a proxy, or accept that tokens \
            can be read on the network with api.insecure = true";
        reader.fail("api.listen", format!("{address} is reachable from other hosts, and there is no TLS: {advice}"));
    }
    let missing = std::fs::metadata(&api.tokens_file).is_err_and(|error| error.kind() == ErrorKind::NotFound);
    if missing {
        let file = api.tokens_file.display();
        let advice = "make one with `evenring token new`, and write its line there";
        reader.fail("api.listen", format!("{address} is reachable from other hosts, and {file} is missing: {advice}"));
    }
}
