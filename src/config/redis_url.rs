//! The URL of a Redis: where it is, how safely bytes travel to it, and the credentials in it, which are taken out. Owns its
//! forms, the ones of the `redis` package and Sentinel's. Must never show a credential (P13).

use std::net::SocketAddr;
use std::str::FromStr;

use redis::{ConnectionAddr, IntoConnectionInfo};
use secrecy::SecretString;

use super::net::{Transport, is_loopback, is_private};
use super::sentinel::{self, SentinelSettings};

/// A Redis URL without its credentials, and the credentials.
#[derive(Debug, Clone)]
pub(super) struct RedisUrl {
    pub(super) bare: String,
    pub(super) username: Option<String>,
    pub(super) password: Option<SecretString>,
    pub(super) reach: Reach,
    /// The sentinels that know where Redis is, if it is behind some.
    pub(super) sentinel: Option<SentinelSettings>,
}

/// How far bytes to Redis travel, and how safely.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// A Unix socket or the loopback interface.
    Local,
    /// A private address, in clear.
    Private,
    /// Any other network, in clear.
    Plain,
    /// A network, by TLS.
    Tls,
    /// A network, by TLS that trusts anybody (`#insecure`).
    Insecure,
}

impl Reach {
    pub(super) fn is_tls(self) -> bool {
        matches!(self, Self::Tls | Self::Insecure)
    }
}

/// The address of the server of a URL without Sentinel, if it is no name.
pub(super) fn address(url: &str) -> Option<SocketAddr> {
    let info = url.into_connection_info().ok()?;
    let (ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. }) = info.addr() else {
        return None;
    };
    Some(SocketAddr::new(host.parse().ok()?, *port))
}

/// Whether the server of a URL without Sentinel can only be on this host, with or without TLS.
pub(super) fn is_on_this_host(url: &str) -> bool {
    let Ok(info) = url.into_connection_info() else { return false };
    let (ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. }) = info.addr() else { return true };
    is_loopback(host)
}

impl FromStr for RedisUrl {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        const FORM: &str = "not a Redis URL: write \"redis://host:6379\", \"rediss://host:6380\" (TLS), \"unix:///path\" \
                            or \"redis+sentinel://host1:26379,host2:26379/mymaster\"";
        if text.chars().any(char::is_control) {
            return Err("a control character is not allowed in a URL");
        }
        if let Some(parsed) = sentinel::parse(text) {
            let (sentinel, username, password) = parsed?;
            let reach = match sentinel.to_redis {
                Transport::Tls => Reach::Tls,
                Transport::Plain if sentinel.is_local() => Reach::Local,
                Transport::Plain => Reach::Plain,
            };
            return Ok(Self { bare: sentinel.to_string(), username, password, reach, sentinel: Some(sentinel) });
        }
        let mut url = redis::parse_redis_url(text).ok_or(FORM)?;
        // An unescaped '/', '?' or '#' in a password makes its rest look like a path.
        let query = if url.scheme().ends_with("unix") { None } else { url.query() };
        if [Some(url.path()), query, url.fragment()].into_iter().flatten().any(|tail| tail.contains('@')) {
            return Err("an '@' follows the host: percent-encode the password, or set redis.password");
        }
        let info = url.clone().into_connection_info().map_err(|_| FORM)?;
        let reach = if let ConnectionAddr::TcpTls { insecure, .. } = info.addr() {
            if *insecure { Reach::Insecure } else { Reach::Tls }
        } else if let ConnectionAddr::Tcp(host, _) = info.addr() {
            match (is_loopback(host), is_private(host)) {
                (true, _) => Reach::Local,
                (false, true) => Reach::Private,
                (false, false) => Reach::Plain,
            }
        } else {
            Reach::Local
        };
        let settings = info.redis_settings();
        let username = settings.username().map(str::to_owned);
        let password = settings.password().map(SecretString::from);
        // Neither can fail for a URL that has a host; one without a host has no such parts.
        let _ = url.set_password(None);
        let _ = url.set_username("");
        let kept: Vec<_> = url
            .query_pairs()
            .filter(|(key, _)| key != "pass" && key != "user")
            .map(|(k, v)| (k.into_owned(), v.into_owned()))
            .collect();
        url.set_query(None);
        if !kept.is_empty() {
            url.query_pairs_mut().extend_pairs(kept);
        }
        Ok(Self { bare: url.to_string(), username, password, reach, sentinel: None })
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn a_redis_url_loses_its_credentials() {
        for (text, bare, user, password, reach) in [
            ("redis://127.0.0.1:6379", "redis://127.0.0.1:6379", None, None, Reach::Local),
            ("redis://:p%40ss@r1:6380/2", "redis://r1:6380/2", None, Some("p@ss"), Reach::Plain),
            ("redis://10.0.0.11:6379", "redis://10.0.0.11:6379", None, None, Reach::Private),
            ("redis://203.0.113.7:6379", "redis://203.0.113.7:6379", None, None, Reach::Plain),
            ("rediss://u:pw@r1", "rediss://r1", Some("u"), Some("pw"), Reach::Tls),
            ("rediss://r1/#insecure", "rediss://r1/#insecure", None, None, Reach::Insecure),
            (
                "unix:///run/redis.sock?db=1&user=u&pass=p@w",
                "unix:///run/redis.sock?db=1",
                Some("u"),
                Some("p@w"),
                Reach::Local,
            ),
        ] {
            let url: RedisUrl = text.parse().expect(text);
            assert_eq!((url.bare.as_str(), url.username.as_deref(), url.reach), (bare, user, reach), "{text}");
            assert_eq!(is_on_this_host(bare), reach == Reach::Local, "{text}");
            assert_eq!(url.password.as_ref().map(|p| p.expose_secret()), password, "{text}");
        }
        let of = |url: &str| address(url).map(|address| address.to_string());
        assert_eq!(of("redis://10.0.0.5"), Some("10.0.0.5:6379".to_owned()));
        assert_eq!((of("redis://r1"), of("unix:///run/redis.sock")), (None, None), "no name is looked up");
        assert!(is_on_this_host("rediss://localhost:6380"), "TLS is no other host");
        for bad in [
            "",
            "r1:6379",
            "http://r1",
            "redis://",
            "redis://u:12#34@r1",
            "redis://u:12/34@r1",
            "redis://u:12?34@r1",
            "redis://u:a/b@r1",
            "redis://r1/x",
        ] {
            assert!(bad.parse::<RedisUrl>().is_err(), "{bad}");
        }
    }
}
