//! The sentinels, and the primary that they monitor.
//!
//! Owns the form of a `redis+sentinel://` URL. Must never ask a sentinel: the registry does.

use std::fmt;

use redis::IntoConnectionInfo;
use secrecy::SecretString;

use super::net::{Transport, is_host, is_loopback};

/// Where a sentinel listens if its URL does not say.
const PORT: u16 = 26379;
/// Sentinels of one cluster; three or five are usual.
const SENTINELS_MAX: usize = 15;

/// Redis behind Sentinel.
#[derive(Debug, Clone)]
pub struct SentinelSettings {
    /// The sentinels, host and port each. Which of them answer, and in which order, does not matter.
    pub hosts: Vec<(String, u16)>,
    /// The name under which they watch the primary.
    pub primary: String,
    /// The database on the primary.
    pub db: i64,
    /// To the primary.
    pub to_redis: Transport,
    /// To the sentinels.
    pub to_sentinels: Transport,
    /// The ACL user of the sentinels, from `redis.sentinel_username`.
    pub username: Option<String>,
    /// The password of the sentinels, from `redis.sentinel_password`, its file or the systemd credential.
    pub password: Option<SecretString>,
}

/// What a URL says: where, and the login for Redis itself.
pub(super) type Parsed = (SentinelSettings, Option<String>, Option<SecretString>);

const FORM: &str = "not a Sentinel URL: write \"redis+sentinel://host1:26379,host2:26379,host3:26379/mymaster\" (the \
    name in `sentinel monitor`; a database may follow as /2), or \"rediss+sentinel://\" for TLS";

/// Reads a URL with one of the two schemes; `None` for any other text.
pub(super) fn parse(text: &str) -> Option<Result<Parsed, &'static str>> {
    let (scheme, rest) = text.split_once("://")?;
    let transport = match scheme {
        "redis+sentinel" => Transport::Plain,
        "rediss+sentinel" => Transport::Tls,
        _ => return None,
    };
    Some(parse_rest(transport, rest))
}

fn parse_rest(transport: Transport, rest: &str) -> Result<Parsed, &'static str> {
    let (authority, path) = rest
        .split_once('/')
        .ok_or("the URL names no primary: end it with the name in `sentinel monitor`, such as /mymaster")?;
    if path.contains('@') {
        return Err("an '@' follows the host: percent-encode the password, or set redis.password");
    }
    let (path, to_sentinels) = match path.split_once('?') {
        None => (path, transport),
        Some((path, "sentinels=plain")) if transport == Transport::Tls => (path, Transport::Plain),
        Some(_) => {
            return Err(
                "only \"?sentinels=plain\" may follow, after rediss+sentinel://: TLS to Redis, none to the sentinels",
            );
        }
    };
    let (primary, db) = path.split_once('/').unwrap_or((path, "0"));
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if primary.is_empty() || !primary.chars().all(is_name) {
        return Err(
            "the primary's name may contain letters, digits, '.', '-' and '_': use the one in `sentinel monitor`, \
                such as /mymaster",
        );
    }
    let db = db
        .parse()
        .ok()
        .filter(|db| (0..=1_000_000).contains(db))
        .ok_or("the database after the primary's name is not a number")?;
    let (credentials, hosts) = match authority.rsplit_once('@') {
        Some((credentials, hosts)) => (Some(credentials), hosts),
        None => (None, authority),
    };
    let hosts = hosts.split(',').map(host).collect::<Option<Vec<_>>>().ok_or(FORM)?;
    if hosts.len() > SENTINELS_MAX {
        return Err("the URL lists more than 15 sentinels");
    }
    let (username, password) = match credentials {
        None => (None, None),
        // The same rules for escapes as in any other Redis URL.
        Some(credentials) => {
            let info = format!("redis://{credentials}@localhost").into_connection_info().map_err(|_| FORM)?;
            let login = info.redis_settings();
            (login.username().map(str::to_owned), login.password().map(SecretString::from))
        }
    };
    let primary = primary.to_owned();
    let (none, to_redis) = (None, transport);
    let settings = SentinelSettings { hosts, primary, db, to_redis, to_sentinels, username: none, password: None };
    Ok((settings, username, password))
}

/// `host`, `host:port`, `[v6]` or `[v6]:port`.
fn host(text: &str) -> Option<(String, u16)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            (host, if rest.is_empty() { None } else { Some(rest.strip_prefix(':')?) })
        }
        None => {
            let (host, port) = text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
            is_host(host).then_some((host, port))?
        }
    };
    let port = port.map_or(Some(PORT), |port| port.parse().ok().filter(|port| *port != 0))?;
    Some((host.to_owned(), port))
}

impl SentinelSettings {
    /// Whether all sentinels are on this machine.
    pub(super) fn is_local(&self) -> bool {
        self.hosts.iter().all(|(host, _)| is_loopback(host))
    }
}

impl fmt::Display for SentinelSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.to_redis {
            Transport::Plain => "redis",
            Transport::Tls => "rediss",
        };
        let host = |(host, port): &(String, u16)| {
            if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
        };
        let hosts: Vec<String> = self.hosts.iter().map(host).collect();
        write!(f, "{scheme}+sentinel://{}/{}", hosts.join(","), self.primary)?;
        if self.db != 0 {
            write!(f, "/{}", self.db)?;
        }
        match self.to_sentinels {
            Transport::Plain if self.to_redis == Transport::Tls => f.write_str("?sentinels=plain"),
            Transport::Plain | Transport::Tls => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    /// `Ok` is the URL as it is shown, with user and password; `Err` a part of the message.
    fn check(text: &str, expected: Result<(&str, Option<&str>, Option<&str>), &str>) {
        match (parse(text).expect("a Sentinel URL"), expected) {
            (Ok((settings, user, password)), Ok((shown, wanted_user, wanted))) => {
                assert_eq!((settings.to_string().as_str(), user.as_deref()), (shown, wanted_user), "{text}");
                assert_eq!(password.as_ref().map(|password| password.expose_secret()), wanted, "{text}");
                let again = parse(shown).expect("the same form").expect("readable").0;
                assert_eq!(again.to_string(), shown);
            }
            (Err(why), Err(part)) => assert!(why.contains(part), "{text}: {why:?} lacks {part:?}"),
            (got, expected) => panic!("{text}: {got:?}, not {expected:?}"),
        }
    }

    #[test]
    fn urls_with_sentinels() {
        check("redis+sentinel://a:1,b,c:3/mymaster", Ok(("redis+sentinel://a:1,b:26379,c:3/mymaster", None, None)));
        check("redis+sentinel://u:p%40w@a/m/2", Ok(("redis+sentinel://a:26379/m/2", Some("u"), Some("p@w"))));
        check("rediss+sentinel://[::1]:1,[::2]/m", Ok(("rediss+sentinel://[::1]:1,[::2]:26379/m", None, None)));
        check(
            "rediss+sentinel://a/m/0?sentinels=plain",
            Ok(("rediss+sentinel://a:26379/m?sentinels=plain", None, None)),
        );
        check("redis+sentinel://a:26379", Err("names no primary"));
        check("redis+sentinel://a:26379/", Err("the primary's name"));
        check("redis+sentinel://a/my master", Err("the primary's name"));
        check("redis+sentinel://a/m/x", Err("is not a number"));
        check("redis+sentinel://a/m/-1", Err("is not a number"));
        check("redis+sentinel:///m", Err("write \"redis+sentinel://host1"));
        check("redis+sentinel://a,,b/m", Err("write \"redis+sentinel://host1"));
        check("redis+sentinel://a:0/m", Err("write \"redis+sentinel://host1"));
        check("redis+sentinel://a:x/m", Err("write \"redis+sentinel://host1"));
        check("redis+sentinel://::1/m", Err("write \"redis+sentinel://host1"));
        check("redis+sentinel://u:a/b@c/m", Err("percent-encode the password"));
        check("redis+sentinel://a/m?sentinels=plain", Err("only \"?sentinels=plain\""));
        check("rediss+sentinel://a/m?x=1", Err("only \"?sentinels=plain\""));
        check("rediss+sentinel://a/m#insecure", Err("the primary's name"));
        check(&format!("redis+sentinel://{}a/m", "a,".repeat(15)), Err("more than 15"));
        assert!(parse("redis://a").is_none() && parse("a").is_none());
    }
}
