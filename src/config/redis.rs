//! The section `[redis]`: where the shared Redis is, and who we are to it and to its sentinels.
//!
//! Owns what its keys mean together. Must never open a connection, and shows no URL that may hold a password (P13).

use std::net::SocketAddr;

use secrecy::SecretString;

use super::redis_url::{Reach, RedisUrl, address, is_on_this_host};
use super::source::{MILLISECOND, MINUTE, Reader, absolute};
use super::{RedisSettings, SentinelSettings, Transport, secret};

const REDIS_PASSWORD: secret::Place =
    secret::Place { value_key: "redis.password", file_key: "redis.password_file", credential: "redis-password" };
const SENTINEL_PASSWORD: secret::Place = secret::Place {
    value_key: "redis.sentinel_password",
    file_key: "redis.sentinel_password_file",
    credential: "redis-sentinel-password",
};

pub(super) fn redis(reader: &mut Reader, credentials: &secret::Credentials) -> Option<RedisSettings> {
    let url = redis_url(reader);
    let username: Option<Option<String>> = reader.optional("redis.username");
    let password = secret::find(reader, &REDIS_PASSWORD, credentials);
    let sentinel_username: Option<Option<String>> = reader.optional("redis.sentinel_username");
    let sentinel_password = secret::find(reader, &SENTINEL_PASSWORD, credentials);
    let ca_file = absolute(reader, "redis.ca_file");
    let namespace = reader.read("redis.namespace", "{evenring}");
    let connect_timeout = reader.span("redis.connect_timeout", "500ms", MILLISECOND * 50..=MINUTE);
    let response_timeout = reader.span("redis.response_timeout", "500ms", MILLISECOND * 50..=MINUTE);
    let password = Password::of(reader, password);
    let sentinel_password = Password::of(reader, sentinel_password);
    let url = url?;
    let username = username?.or(url.username);
    let password = password?.or(url.password);
    password.check(reader, username.as_deref(), &REDIS_PASSWORD);
    warn_redis(reader, url.reach, !matches!(password, Password::None));
    let (sentinel_username, sentinel_password) = (sentinel_username?, sentinel_password?);
    sentinel_password.check(reader, sentinel_username.as_deref(), &SENTINEL_PASSWORD);
    let has_login = sentinel_username.is_some() || !matches!(sentinel_password, Password::None);
    warn_sentinel(reader, url.sentinel.as_ref(), has_login);
    let (password, sentinel_password) = (password.known(), sentinel_password.known());
    let ca_file = ca_file?;
    if ca_file.is_some() && !url.reach.is_tls() {
        reader
            .warnings
            .push("redis.ca_file has no effect: redis.url is not rediss:// or rediss+sentinel://".to_owned());
    }
    let with_login = |found| SentinelSettings { username: sentinel_username, password: sentinel_password, ..found };
    Some(RedisSettings {
        url: url.bare,
        username,
        password,
        sentinel: url.sentinel.map(with_login),
        ca_file: ca_file.filter(|_| url.reach.is_tls()),
        namespace: namespace?,
        connect_timeout: connect_timeout?,
        response_timeout: response_timeout?,
    })
}

/// What is known about a password here.
enum Password {
    Known(SecretString),
    /// The daemon has one, which this user may not read.
    Hidden,
    None,
}

impl Password {
    /// `None` after a problem.
    fn of(reader: &mut Reader, found: secret::Found) -> Option<Self> {
        match found {
            Ok(Some(password)) => Some(Self::Known(password)),
            Ok(None) => Some(Self::None),
            Err(secret::Unusable::Hidden(why)) => {
                reader.hidden.push(why);
                Some(Self::Hidden)
            }
            Err(secret::Unusable::Wrong(why)) => {
                reader.problems.push(why);
                None
            }
        }
    }

    fn or(self, other: Option<SecretString>) -> Self {
        match (self, other) {
            (Self::None, Some(password)) => Self::Known(password),
            (password, _) => password,
        }
    }

    fn known(self) -> Option<SecretString> {
        match self {
            Self::Known(password) => Some(password),
            Self::Hidden | Self::None => None,
        }
    }

    /// Without a password the client would not even tell its name, and be the default user.
    fn check(&self, reader: &mut Reader, username: Option<&str>, place: &secret::Place) {
        if let (Self::None, Some(_)) = (self, username) {
            let secret::Place { value_key, file_key, credential } = place;
            let name = value_key.replace("password", "username");
            reader.problems.push(format!(
                "{name} is set, but no password: write it into /etc/evenring/{credential}, which the unit passes on, or set \
                 {file_key} or {value_key}"
            ));
        }
    }
}

impl RedisSettings {
    /// Whether nobody on another host can be meant.
    pub fn is_local(&self) -> bool {
        self.sentinel.as_ref().map_or_else(|| is_on_this_host(&self.url), SentinelSettings::is_local)
    }

    /// The address of Redis, or of its first sentinel; `None` if it is a name or a socket: no name is looked up.
    pub fn address(&self) -> Option<SocketAddr> {
        match &self.sentinel {
            None => address(&self.url),
            Some(sentinel) => {
                let (host, port) = sentinel.hosts.first()?;
                Some(SocketAddr::new(host.parse().ok()?, *port))
            }
        }
    }

    /// The same Redis, for somebody who has no login.
    pub fn without_login(&self) -> Self {
        Self { username: None, password: None, ..self.clone() }
    }

    /// The same Redis, reached by another URL with its own login.
    ///
    /// # Errors
    /// What is wrong with the URL; never the URL itself, for it holds a password.
    pub fn with_url(&self, url: &str) -> Result<Self, &'static str> {
        let RedisUrl { bare, username, password, sentinel, reach } = url.parse()?;
        let ca_file = self.ca_file.clone().filter(|_| reach.is_tls());
        // The sentinels know one login, whoever asks them.
        let login = self.sentinel.clone().map(|own| (own.username, own.password)).unwrap_or_default();
        let with_login = |found| SentinelSettings { username: login.0, password: login.1, ..found };
        Ok(Self { url: bare, username, password, sentinel: sentinel.map(with_login), ca_file, ..self.clone() })
    }
}

/// Apart from the other readers, because a URL that is wrong may hold a password and must not be shown.
fn redis_url(reader: &mut Reader) -> Option<RedisUrl> {
    let Some(entry) = reader.take("redis.url") else { return "redis://127.0.0.1:6379".parse().ok() };
    let url = match entry.value.as_str() {
        Some(text) => text.parse::<RedisUrl>(),
        None => Err("a URL must be a quoted string"),
    };
    match url {
        Ok(url) => {
            if url.password.is_some() && entry.layer == super::source::Layer::File {
                reader.inline_secrets.push("redis.password");
            }
            Some(url)
        }
        Err(why) => {
            reader.fail("redis.url", why);
            None
        }
    }
}

fn warn_redis(reader: &mut Reader, reach: Reach, secured: bool) {
    let mut warn = |text: &str| reader.warnings.push(format!("redis.url: {text}"));
    match reach {
        Reach::Local => {}
        Reach::Private if secured => reader.notes.push(
            "redis.url: the password is sent unencrypted: use rediss:// unless this network is yours alone".to_owned(),
        ),
        Reach::Plain if secured => warn("the password is sent unencrypted: use rediss://"),
        Reach::Insecure if secured => warn("#insecure sends the password to any server: set redis.ca_file instead"),
        Reach::Insecure => warn("#insecure accepts any certificate: set redis.ca_file instead"),
        Reach::Private | Reach::Plain | Reach::Tls => {}
    }
    if reach != Reach::Local && !secured {
        let why = "no password, and Redis is not on this host: anyone who can reach it can ring your agents";
        reader.warnings.push(format!("redis.url: {why}"));
    }
}

fn warn_sentinel(reader: &mut Reader, sentinel: Option<&SentinelSettings>, has_login: bool) {
    let mut warn = |text: &str| reader.warnings.push(format!("redis.{text}"));
    match sentinel {
        None if has_login => {
            warn("sentinel_username and redis.sentinel_password have no effect without redis+sentinel:// in redis.url");
        }
        Some(sentinel) if has_login && sentinel.to_sentinels == Transport::Plain && !sentinel.is_local() => {
            warn("sentinel_password is sent unencrypted: use rediss+sentinel://");
        }
        None | Some(_) => {}
    }
    if sentinel.is_some_and(|sentinel| sentinel.hosts.len() < 3) {
        warn("url: fewer than three sentinels are listed: list all of them, so that losing one does no harm");
    }
}
