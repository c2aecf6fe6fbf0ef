//! Which server to talk to: the one of `redis.url`, or the primary that the sentinels name. Owns the search, its time
//! limit and TLS. Must never keep a connection or a result: after any error it searches again.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use redis::io::tcp::TcpSettings;
use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{
    Client, ClientTlsConfig, ConnectionAddr, ErrorKind, IntoConnectionInfo, RedisConnectionInfo, RedisError,
    TlsCertificates, TlsMode,
};
use secrecy::ExposeSecret;

use super::RegistryError;
use crate::config::{RedisSettings, SentinelSettings, Transport};

/// TCP drops a peer that acknowledges nothing for this long. Our own time limits are shorter; this is for idle connections.
const USER_TIMEOUT: Duration = Duration::from_secs(2);
/// Sentinels that are slower than the first one by this are not waited for.
const GRACE: Duration = Duration::from_millis(50);

/// The way to the server.
#[derive(Debug)]
pub(super) enum Server {
    /// One server.
    Fixed(Box<Client>),
    /// Whichever server the sentinels name.
    Sentinels(Box<Sentinels>),
}

/// The sentinels, and how to log in to what they name.
#[derive(Debug)]
pub(super) struct Sentinels {
    redis: RedisSettings,
    sentinel: SentinelSettings,
    root: Option<Vec<u8>>,
    limit: Duration,
}

/// Why no server was found.
#[derive(Debug)]
pub(super) enum Lost {
    /// What Redis, a sentinel or the system said.
    Error(RedisError),
    /// Nothing was said in time.
    Silence(Duration),
}

fn tcp() -> TcpSettings {
    TcpSettings::default().set_nodelay(true).set_user_timeout(USER_TIMEOUT)
}

fn certificates(root: &Option<Vec<u8>>) -> TlsCertificates {
    let client_tls: Option<ClientTlsConfig> = None;
    TlsCertificates { client_tls, root_cert: root.clone() }
}

impl Server {
    /// Prepares, and connects to nothing yet.
    pub(super) fn new(settings: &RedisSettings) -> Result<Self, RegistryError> {
        let bad = |error: RedisError| RegistryError::Settings(error.to_string());
        let root = match &settings.ca_file {
            None => None,
            Some(path) => Some(
                std::fs::read(path)
                    .map_err(|error| RegistryError::Settings(format!("cannot read {}: {error}", path.display())))?,
            ),
        };
        if let Some(sentinel) = settings.sentinel.clone() {
            let limit = settings.connect_timeout * 2;
            let sentinels = Sentinels { redis: settings.clone(), sentinel, root, limit };
            // What cannot be built is found out now.
            sentinels.clients().map_err(bad)?;
            return Ok(Self::Sentinels(Box::new(sentinels)));
        }
        let info = settings.url.as_str().into_connection_info().map_err(bad)?;
        // CLIENT SETINFO would be denied, and stand in the log of denials.
        let mut login = info.redis_settings().clone().set_skip_set_lib_name();
        if let Some(username) = &settings.username {
            login = login.set_username(username);
        }
        if let Some(password) = &settings.password {
            login = login.set_password(password.expose_secret());
        }
        let info = info.set_redis_settings(login).set_tcp_settings(tcp());
        let client = match root {
            None => Client::open(info),
            Some(_) => Client::build_with_tls(info, certificates(&root)),
        };
        Ok(Self::Fixed(Box::new(client.map_err(bad)?)))
    }

    /// The server that can be written now, as far as anybody knows.
    pub(super) async fn find(&self) -> Result<Client, Lost> {
        match self {
            Self::Fixed(client) => Ok(Client::clone(client)),
            Self::Sentinels(sentinels) => sentinels.find().await,
        }
    }
}

impl Server {
    /// The sentinels, and what they name, whether it lets anybody in or not.
    pub(super) async fn addresses(&self) -> Vec<(String, u16)> {
        let Self::Sentinels(sentinels) = self else { return Vec::new() };
        let mut addresses = sentinels.sentinel.hosts.clone();
        for (host, port) in &sentinels.sentinel.hosts {
            let named = tokio::time::timeout(sentinels.limit, sentinels.named(host, *port)).await;
            if let Ok(Some(primary)) = named {
                addresses.push(primary);
                break;
            }
        }
        addresses
    }

    /// What each sentinel names, for people.
    pub(super) async fn survey(&self) -> Vec<(String, Result<String, String>)> {
        let Self::Sentinels(sentinels) = self else { return Vec::new() };
        let mut said = Vec::new();
        for (host, port) in &sentinels.sentinel.hosts {
            let name = format!("{host}:{port}");
            let answer = match sentinels.client(host.clone(), *port) {
                Ok(mut client) => tokio::time::timeout(sentinels.limit, client.async_get_client()).await,
                Err(error) => Ok(Err(error)),
            };
            let answer = match answer {
                Ok(Ok(primary)) => Ok(primary.get_connection_info().addr().to_string()),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err(format!("no response within {:?}", sentinels.limit)),
            };
            said.push((name, answer));
        }
        said
    }
}

impl Sentinels {
    /// One client for each sentinel, without connections: a frozen sentinel does not delay the others, and nothing from an
    /// earlier search is used.
    fn clients(&self) -> Result<Vec<SentinelClient>, RedisError> {
        self.sentinel.hosts.iter().map(|(host, port)| self.client(host.clone(), *port)).collect()
    }

    fn client(&self, host: String, port: u16) -> Result<SentinelClient, RedisError> {
        let address = match self.sentinel.to_sentinels {
            Transport::Plain => ConnectionAddr::Tcp(host, port),
            Transport::Tls => ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None },
        };
        let primary = &self.sentinel.primary;
        let mut builder = SentinelClientBuilder::new([address], primary, SentinelServerType::Master)?
            .set_client_to_redis_tcp_settings(tcp())
            .set_client_to_sentinel_tcp_settings(tcp())
            .set_client_to_redis_db(self.sentinel.db);
        if self.sentinel.to_redis == Transport::Tls {
            builder = builder.set_client_to_redis_tls_mode(TlsMode::Secure);
            if self.root.is_some() {
                builder = builder.set_client_to_redis_certificates(certificates(&self.root));
            }
        }
        if self.sentinel.to_sentinels == Transport::Tls && self.root.is_some() {
            builder = builder.set_client_to_sentinel_certificates(certificates(&self.root));
        }
        if let Some(username) = &self.redis.username {
            builder = builder.set_client_to_redis_username(username);
        }
        if let Some(password) = &self.redis.password {
            builder = builder.set_client_to_redis_password(password.expose_secret());
        }
        if let Some(username) = &self.sentinel.username {
            builder = builder.set_client_to_sentinel_username(username);
        }
        if let Some(password) = &self.sentinel.password {
            builder = builder.set_client_to_sentinel_password(password.expose_secret());
        }
        builder.build()
    }

    /// The address that a sentinel names, without a look at what is there. Not over TLS: what is said before a login is not
    /// to be had there.
    async fn named(&self, host: &str, port: u16) -> Option<(String, u16)> {
        let mut login = RedisConnectionInfo::default().set_skip_set_lib_name();
        if let Some(username) = &self.sentinel.username {
            login = login.set_username(username);
        }
        if let Some(password) = &self.sentinel.password {
            login = login.set_password(password.expose_secret());
        }
        let info = (host.to_owned(), port).into_connection_info().ok()?.set_redis_settings(login);
        let mut connection = Client::open(info).ok()?.get_multiplexed_async_connection().await.ok()?;
        let known = redis::cmd("SENTINEL").arg("MASTERS").query_async(&mut connection).await;
        let known: Vec<BTreeMap<String, String>> = known.ok()?;
        let primary = known.iter().find(|primary| primary.get("name") == Some(&self.sentinel.primary))?;
        Some((primary.get("ip")?.clone(), primary.get("port")?.parse().ok()?))
    }

    /// Asks all sentinels at once, within the time limit. Each answer has been checked by the server that it names: it
    /// says itself that it is a primary (`ROLE`).
    async fn find(&self) -> Result<Client, Lost> {
        let clients = self.clients().map_err(Lost::Error)?;
        let ask = |mut client: SentinelClient| async move { client.async_get_client().await };
        let mut answers: FuturesUnordered<_> = clients.into_iter().map(ask).collect();
        let (mut named, mut errors) = (Vec::new(), Vec::new());
        let collect = async {
            while named.is_empty() {
                match answers.next().await {
                    Some(Ok(client)) => named.push(client),
                    Some(Err(error)) => errors.push(error),
                    None => return,
                }
            }
            // A sentinel that is cut off from the others may name a primary that is, too: it has fewer votes.
            let others = async {
                while let Some(answer) = answers.next().await {
                    named.extend(answer);
                }
            };
            // Late ones are let go: that is no error.
            let _late = tokio::time::timeout(GRACE, others).await;
        };
        let in_time = tokio::time::timeout(self.limit, collect).await.is_ok();
        match most_named(named) {
            Some(client) => Ok(client),
            None => match errors.into_iter().max_by_key(|error| weight(error.kind())) {
                Some(error) if in_time || weight(error.kind()) > 1 => Err(Lost::Error(error)),
                Some(_) | None => Err(Lost::Silence(self.limit)),
            },
        }
    }
}

/// The server that most sentinels name; of several, the one that was named first.
fn most_named(named: Vec<Client>) -> Option<Client> {
    let address = |client: &Client| client.get_connection_info().addr().to_string();
    let votes = |client: &Client| named.iter().filter(|other| address(other) == address(client)).count();
    // The last of equals wins, so that is the first.
    named.iter().rev().max_by_key(|client| votes(client)).cloned()
}

/// Which of several errors an operator can do most about.
fn weight(kind: ErrorKind) -> u8 {
    if matches!(kind, ErrorKind::AuthenticationFailed | ErrorKind::Server(_)) {
        3
    } else if kind == ErrorKind::MasterNameNotFoundBySentinel {
        2
    } else {
        u8::from(kind != ErrorKind::Io)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_majority_of_the_sentinels_has_the_say_and_of_equals_the_first() {
        for (named, expected) in [
            (vec![], None),
            (vec![1], Some(1)),
            (vec![1, 2, 2], Some(2)),
            (vec![2, 1], Some(2)),
            (vec![3, 1, 1, 3], Some(3)),
        ] {
            let client = |host: i32| Client::open(format!("redis://10.0.0.{host}")).unwrap();
            let found = most_named(named.iter().copied().map(client).collect());
            let shown = found.map(|client| client.get_connection_info().addr().to_string());
            assert_eq!(shown, expected.map(|host| format!("10.0.0.{host}:6379")), "{named:?}");
        }
    }
}
