//! The section `[redis]`: where the shared Redis is, and who we are to it and to its sentinels.
//!
//! Owns what its keys mean together. Must never open a connection, and shows no URL that may hold a password (P13).

use std::path::Path;

use secrecy::SecretString;

use super::redis_url::{Reach, RedisUrl};
use super::source::{MILLISECOND, MINUTE, Reader, absolute};
use super::{RedisSettings, SentinelSettings, Transport, secret};

const REDIS_PASSWORD: secret::Place =
    secret::Place { value_key: "redis.password", file_key: "redis.password_file", credential: "redis-password" };
const SENTINEL_PASSWORD: secret::Place = secret::Place {
    value_key: "redis.sentinel_password",
    file_key: "redis.sentinel_password_file",
    credential: "redis-sentinel-password",
};

pub(super) fn redis(reader: &mut Reader, credentials: Option<&Path>) -> Option<RedisSettings> {
    let url = redis_url(reader);
    let username: Option<Option<String>> = reader.optional("redis.username");
    let password = secret::find(reader, &REDIS_PASSWORD, credentials);
    let sentinel_username: Option<Option<String>> = reader.optional("redis.sentinel_username");
    let sentinel_password = secret::find(reader, &SENTINEL_PASSWORD, credentials);
    let ca_file = absolute(reader, "redis.ca_file");
    let namespace = reader.read("redis.namespace", "{evenring}");
    let connect_timeout = reader.span("redis.connect_timeout", "500ms", MILLISECOND * 50..=MINUTE);
    let response_timeout = reader.span("redis.response_timeout", "500ms", MILLISECOND * 50..=MINUTE);
    let password = password.map_err(|why| reader.problems.push(why)).ok();
    let sentinel_password = sentinel_password.map_err(|why| reader.problems.push(why)).ok();
    let url = url?;
    let password = password?.or(url.password);
    warn_redis(reader, url.reach, password.as_ref());
    let (sentinel_username, sentinel_password) = (sentinel_username?, sentinel_password?);
    let has_login = sentinel_username.is_some() || sentinel_password.is_some();
    warn_sentinel(reader, url.sentinel.as_ref(), has_login);
    let ca_file = ca_file?;
    if ca_file.is_some() && !url.reach.is_tls() {
        reader
            .warnings
            .push("redis.ca_file has no effect: redis.url is not rediss:// or rediss+sentinel://".to_owned());
    }
    let with_login = |found| SentinelSettings { username: sentinel_username, password: sentinel_password, ..found };
    Some(RedisSettings {
        url: url.bare,
        username: username?.or(url.username),
        password,
        sentinel: url.sentinel.map(with_login),
        ca_file: ca_file.filter(|_| url.reach.is_tls()),
        namespace: namespace?,
        connect_timeout: connect_timeout?,
        response_timeout: response_timeout?,
    })
}

impl RedisSettings {
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

fn warn_redis(reader: &mut Reader, reach: Reach, password: Option<&SecretString>) {
    let secured = password.is_some();
    let mut warn = |text: &str| reader.warnings.push(format!("redis.url: {text}"));
    match reach {
        Reach::Local => {}
        Reach::Plain if secured => warn("the password is sent unencrypted: use rediss://"),
        Reach::Insecure if secured => warn("#insecure sends the password to any server: set redis.ca_file instead"),
        Reach::Insecure => warn("#insecure accepts any certificate: set redis.ca_file instead"),
        Reach::Plain | Reach::Tls => {}
    }
    if reach != Reach::Local && !secured {
        warn("no password, and Redis is not on this host: anyone who can reach it can ring your agents");
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
