//! The connection to Redis. Owns connecting and time limits. Must never know what is sent.
//!
//! One rule (measured): after any error except a refusal by Redis itself, drop the connection and make a new one at the
//! next call. A client that keeps a timed-out connection stays on a frozen or demoted primary for ever.

use std::time::Duration;

use futures_util::future::join_all;
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ErrorKind, FromRedisValue, RedisConnectionInfo, RedisError, Script,
    ScriptInvocation, Value,
};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use super::error::RegistryError;
use super::refusal::Place;
use super::server::{Lost, Server};
use crate::config::RedisSettings;

/// A server that lets nobody in says so within this time, before it is asked anything.
const GREETING: Duration = Duration::from_millis(300);
/// Bytes of such a greeting.
const GREETING_BYTES: u64 = 4096;

/// A connection that reconnects by itself.
#[derive(Debug)]
pub(super) struct Connector {
    server: Server,
    url: String,
    config: AsyncConnectionConfig,
    connect_timeout: Duration,
    open: Option<Open>,
}

/// A connection, and the server that it leads to: subscriptions go to the same one.
#[derive(Debug, Clone)]
struct Open {
    client: Client,
    connection: MultiplexedConnection,
}

impl Connector {
    /// Prepares, and connects to nothing yet.
    pub(super) fn new(settings: &RedisSettings) -> Result<Self, RegistryError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(settings.connect_timeout))
            .set_response_timeout(Some(settings.response_timeout));
        let (server, url) = (Server::new(settings)?, settings.url.clone());
        Ok(Self { server, url, config, connect_timeout: settings.connect_timeout, open: None })
    }

    /// Runs a script. The connection is dropped after any error that is not Redis's own word.
    pub(super) async fn run<T: FromRedisValue>(
        &mut self,
        script: &Script,
        build: impl Fn(&mut ScriptInvocation<'_>),
    ) -> Result<T, RegistryError> {
        let mut connection = self.open().await?.connection;
        let mut invocation = script.prepare_invoke();
        build(&mut invocation);
        let result = invocation.invoke_async(&mut connection).await;
        self.judge(result)
    }

    /// Runs one plain command.
    pub(super) async fn command<T: FromRedisValue>(&mut self, command: &redis::Cmd) -> Result<T, RegistryError> {
        let mut connection = self.open().await?.connection;
        let result = command.query_async(&mut connection).await;
        self.judge(result)
    }

    /// A connection of its own for a subscription, on the server that commands go to. When the connection moves to another
    /// server, a command has failed: then the subscription must be renewed, too.
    pub(super) async fn subscribe(&mut self, channels: &[String]) -> Result<redis::aio::PubSub, RegistryError> {
        let client = self.open().await?.client;
        let open = async {
            let mut subscription = client.get_async_pubsub().await?;
            for channel in channels {
                subscription.subscribe(channel).await?;
            }
            Ok(subscription)
        };
        match tokio::time::timeout(self.connect_timeout * 2, open).await {
            Ok(result) => self.judge(result),
            Err(_) => {
                self.open = None;
                Err(self.unreachable("no response to SUBSCRIBE in time".to_owned()))
            }
        }
    }

    /// See [`Server::survey`].
    pub(super) async fn survey(&self) -> Vec<(String, Result<String, String>)> {
        self.server.survey().await
    }

    /// The connection that there is, or a new one.
    async fn open(&mut self) -> Result<Open, RegistryError> {
        if let Some(open) = &self.open {
            return Ok(open.clone());
        }
        let client = match self.server.find().await {
            Ok(client) => client,
            Err(Lost::Error(error)) => return Err(self.explain_search(&error).await),
            Err(Lost::Silence(limit)) => {
                return Err(self.unreachable(format!("no sentinel named a primary that responded within {limit:?}")));
            }
        };
        // The limit of the configuration does not cover everything that connecting does.
        let connect = client.get_multiplexed_async_connection_with_config(&self.config);
        let connection = match tokio::time::timeout(self.connect_timeout * 2, connect).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => return Err(self.explain_login(&client, error).await),
            Err(_) => return Err(self.unreachable(format!("no connection within {:?}", self.connect_timeout * 2))),
        };
        tracing::debug!(server = %client.get_connection_info().addr(), "connected to Redis");
        Ok(self.open.insert(Open { client, connection }).clone())
    }

    /// The client hides Redis's answer to a failed login, which may not be about the login: this asks once more, without
    /// credentials.
    async fn explain_login(&self, client: &Client, error: RedisError) -> RegistryError {
        let is_dropped = error.is_connection_dropped() && !error.is_connection_refusal();
        if (is_dropped || error.kind() == ErrorKind::AuthenticationFailed)
            && let ConnectionAddr::Tcp(host, port) = client.get_connection_info().addr()
            && let Some(greeting) = self.greeting(host, *port).await
        {
            return greeting;
        }
        if error.kind() != ErrorKind::AuthenticationFailed {
            return self.explain(&error);
        }
        let stranger = RedisConnectionInfo::default().set_skip_set_lib_name();
        let said = async {
            let stranger = Client::open(client.get_connection_info().clone().set_redis_settings(stranger))?;
            let mut connection = stranger.get_multiplexed_async_connection_with_config(&self.config).await?;
            redis::cmd("TIME").query_async::<()>(&mut connection).await
        };
        if let Ok(Err(said)) = tokio::time::timeout(self.connect_timeout * 2, said).await {
            let said = self.explain(&said);
            if matches!(said, RegistryError::Unfit { .. }) {
                return said;
            }
        }
        self.explain(&error)
    }

    /// What the server says before it is asked anything: that it is in protected mode, or has no room. Behind a login that
    /// looks like a wrong password, or is lost, because the server has hung up by then.
    async fn greeting(&self, host: &str, port: u16) -> Option<RegistryError> {
        let said = async {
            let stream = TcpStream::connect((host, port)).await.ok()?;
            let mut said = Vec::new();
            stream.take(GREETING_BYTES).read_to_end(&mut said).await.ok()?;
            let Value::ServerError(error) = redis::parse_redis_value(&said).ok()? else { return None };
            Some(self.explain(&RedisError::from(error)))
        };
        tokio::time::timeout(GREETING, said).await.ok().flatten()
    }

    fn judge<T>(&mut self, result: Result<T, RedisError>) -> Result<T, RegistryError> {
        result.map_err(|error| {
            let error = self.explain(&error);
            if error.is_outage() {
                self.open = None;
            }
            error
        })
    }

    /// What is said while the nodes have not reported.
    pub(super) fn not_now(&self) -> RegistryError {
        RegistryError::NotNow { url: self.url.clone() }
    }

    /// What this user may not do.
    pub(super) fn lacks(&self, missing: String) -> RegistryError {
        RegistryError::Lacks { url: self.url.clone(), missing }
    }

    /// A reply that does not have the shape it must have.
    pub(super) fn script_error(&self, why: String) -> RegistryError {
        RegistryError::Script { url: self.url.clone(), why }
    }

    fn unreachable(&self, why: String) -> RegistryError {
        self.place().unreachable(&why)
    }

    /// The way to a primary has two logins, and a refusal does not say whose it is.
    async fn explain_search(&self, error: &RedisError) -> RegistryError {
        let is_dropped = error.is_connection_dropped() && !error.is_connection_refusal();
        if is_dropped || error.kind() == ErrorKind::AuthenticationFailed {
            let addresses = self.server.addresses().await;
            let greetings = addresses.iter().map(|(host, port)| self.greeting(host, *port));
            if let Some(greeting) = join_all(greetings).await.into_iter().flatten().next() {
                return greeting;
            }
        }
        let mut explained = self.explain(error);
        if let RegistryError::Denied { why, .. } = &mut explained {
            why.push_str(
                " (said by a sentinel, to redis.sentinel_username, or by the primary when redis.username asked for \
                    its ROLE)",
            );
        }
        explained
    }

    fn explain(&self, error: &RedisError) -> RegistryError {
        self.place().explain(error)
    }

    fn place(&self) -> Place<'_> {
        let replica = match self.server {
            Server::Fixed(_) => "it is a replica: point redis.url at the primary",
            Server::Sentinels(_) => "it is now a replica: the sentinels are asked again",
        };
        Place { url: &self.url, replica }
    }
}
