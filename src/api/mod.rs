//! The HTTP API: any program logs agents in, and any pair of eyes sees the cluster. Owns its thread, its routes and its
//! connections to Redis. Must never know the daemon that it runs in: it talks to Redis alone, so that any node gives the same
//! answer, and nothing that a client does can delay the node loop.
//!
//! ```text
//!  client ──► server ──► wire ──► access ──► logins, cluster, events ──► pool ──► Redis
//!             limits     bytes    rates,                      ▲
//!             TLS                 token                      feed ◄── Redis (one reader of the event stream)
//! ```

mod access;
mod cluster;
mod events;
mod extract;
mod feed;
mod limits;
mod logins;
mod openapi;
mod pool;
mod problem;
mod server;
mod strangers;
mod tls;
pub mod token;
mod wire;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tracing::{error, info, warn};

use crate::config::{ApiSettings, LiveSettings, Settings};
use crate::ids::NodeName;
use crate::registry::view::Placement;
use crate::registry::{Registry, RegistryError};
use crate::runtime::clock::Clock;
use limits::Limits;
use pool::Pool;
use problem::{Kind, Problem};
use server::Server;
use token::Tokens;

/// Requests that wait for a session at once.
const WAITING_MOST: usize = 100;

/// The routes, as metrics name them.
pub const ROUTES: [&str; 14] = [
    "/openapi.json",
    "/v1/agents/{agent}",
    "/v1/events",
    "/v1/explain/{alias}",
    "/v1/logins",
    "/v1/logins/{id}",
    "/v1/logins/{id}/live",
    "/v1/nodes",
    "/v1/nodes/{node}/drain",
    "/v1/nodes/{node}/resume",
    "/v1/phones/{extension}",
    "/v1/prometheus/targets",
    "/v1/sessions",
    OTHER,
];
/// Whatever is no route.
const OTHER: &str = "other";

/// Whoever counts and logs what the API does.
pub trait Observer: fmt::Debug + Send + Sync {
    /// A login was placed or refused.
    fn placed(&self, placement: &Placement, took: Duration);

    /// A request of one of [`ROUTES`] was answered.
    fn answered(&self, route: &'static str, status: u16);
}

/// What all requests share.
#[derive(Debug)]
struct Shared {
    node: NodeName,
    redis: Pool,
    feed: feed::Feed,
    limits: Limits,
    tokens: watch::Receiver<Tokens>,
    observer: Arc<dyn Observer>,
    clock: Clock,
    /// Seats of those who wait for a session, and of watchers.
    waiting: Semaphore,
    watchers: Arc<Semaphore>,
    /// Where the daemons serve their metrics: this one's port, for they are all alike.
    metrics_port: Option<u16>,
    openapi: String,
}

/// Why the API does not run.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The settings for Redis are unusable.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The system has no thread for it.
    #[error("cannot start the thread of the API: {0}")]
    Thread(#[from] std::io::Error),
}

/// Serves the API on a thread of its own, for as long as the process lives, if the settings name an address. Tokens and
/// certificate are read again whenever `live` changes.
///
/// # Errors
/// Unusable settings for Redis, or no thread. An address that cannot be used is tried again.
pub fn start(
    settings: &Settings,
    live: watch::Receiver<LiveSettings>,
    observer: Arc<dyn Observer>,
) -> Result<(), ApiError> {
    let Some(address) = settings.api.listen else { return Ok(()) };
    let (told, tokens) = watch::channel(Tokens::default());
    let (tls_told, tls) = watch::channel(None);
    let clock = Clock::start();
    let (mut router, document) = routes().split_for_parts();
    let shared = Arc::new(Shared {
        node: settings.node.name.clone(),
        redis: Pool::new(settings, live.clone())?,
        feed: feed::Feed::default(),
        limits: Limits::new(&settings.api),
        tokens,
        observer,
        clock,
        waiting: Semaphore::new(WAITING_MOST),
        watchers: Arc::new(Semaphore::new(watchers(&settings.api))),
        metrics_port: settings.http.listen.map(|address| address.port()).filter(|port| *port != 0),
        openapi: openapi::finish(document),
    });
    router = router.fallback(no_route).method_not_allowed_fallback(no_method);
    let guard = axum::middleware::from_fn_with_state(Arc::clone(&shared), access::guard);
    let router: Router = pages().merge(router.layer(guard).with_state(Arc::clone(&shared)));
    let api = Api {
        shared,
        router,
        server: Server { node: settings.node.name.clone(), address, tls, watchers: watchers(&settings.api), clock },
        for_feed: Registry::new(settings)?,
        for_watch: Registry::new(settings)?,
        files: Files { settings: settings.api.clone(), node: settings.node.name.clone(), tokens: told, tls: tls_told },
        live,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("api".to_owned()).spawn(move || runtime.block_on(api.run()))?;
    Ok(())
}

fn watchers(settings: &ApiSettings) -> usize {
    usize::try_from(settings.watchers).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS)
}

/// All that the thread does.
struct Api {
    shared: Arc<Shared>,
    router: Router,
    server: Server,
    for_feed: Registry,
    for_watch: Registry,
    files: Files,
    live: watch::Receiver<LiveSettings>,
}

impl Api {
    /// Serves until the process ends.
    async fn run(self) {
        let Self { shared, router, server, for_feed, for_watch, files, live } = self;
        let (ready, mut is_ready) = watch::channel(false);
        let serve = async {
            // An error is the end of the files' task, which never comes.
            if is_ready.wait_for(|ready| *ready).await.is_ok() {
                server.run(router).await;
            }
        };
        let forget = async {
            let mut interval = shared.clock.every(limits::FORGET);
            loop {
                interval.tick().await;
                shared.limits.forget();
            }
        };
        tokio::join!(
            files.watch(live, ready),
            serve,
            shared.feed.run(for_feed, &shared.node, shared.clock),
            shared.redis.watch(for_watch, shared.clock),
            forget,
        );
    }
}

/// The files that are read again at a reload.
struct Files {
    settings: ApiSettings,
    node: NodeName,
    tokens: watch::Sender<Tokens>,
    tls: watch::Sender<Option<TlsAcceptor>>,
}

impl Files {
    /// Reads them now, and whenever the settings are read again. `ready`: the address may be served.
    async fn watch(self, mut live: watch::Receiver<LiveSettings>, ready: watch::Sender<bool>) {
        live.mark_unchanged();
        loop {
            self.read();
            if !*ready.borrow() {
                ready.send_replace(self.is_safe());
            }
            if live.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    fn read(&self) {
        let node = &self.node;
        match Tokens::read(&self.settings.tokens_file) {
            Ok(tokens) => {
                info!(%node, count = tokens.len(), "tokens of the API read");
                self.tokens.send_replace(tokens);
            }
            Err(reason) => {
                let kept = self.tokens.borrow().len();
                error!(%node, reason, kept, "tokens of the API not read: those read before stay valid");
            }
        }
        match tls::acceptor(&self.settings) {
            Ok(acceptor) => drop(self.tls.send_replace(acceptor)),
            Err(reason) => error!(%node, reason, "certificate of the API not read: the one read before stays in use"),
        }
    }

    /// Whether the address may be served: to other hosts only with tokens and TLS, and never without a TLS that is wanted.
    fn is_safe(&self) -> bool {
        let has_tls = self.tls.borrow().is_some();
        let has_tokens = !self.tokens.borrow().is_empty();
        let needs = self.settings.must_be_safe();
        let safe = (has_tls || !(needs || self.settings.cert_file.is_some())) && (has_tokens || !needs);
        if !safe {
            let node = &self.node;
            warn!(%node, has_tokens, has_tls, "the API is not served: other hosts could reach it without tokens or TLS; \
                repair what the lines before say, then reload");
        }
        safe
    }
}

/// Pages for browsers, which need no token: none yet. A page asks for one, and sends it with each request of its own.
fn pages() -> Router {
    Router::new()
}

/// How metrics name this path.
fn route_label(path: &str) -> &'static str {
    ROUTES.into_iter().find(|route| *route == path).unwrap_or(OTHER)
}

async fn no_route() -> Problem {
    Problem::new(Kind::NotFound, "see /openapi.json for the paths that there are")
}

async fn no_method() -> Problem {
    Problem::new(Kind::MethodNotAllowed, "see /openapi.json for the methods of this path")
}

/// All that need a token.
fn routes() -> utoipa_axum::router::OpenApiRouter<Arc<Shared>> {
    use utoipa_axum::routes;
    openapi::router()
        .routes(routes!(logins::log_in))
        .routes(routes!(logins::look, logins::log_out))
        .routes(routes!(logins::is_live))
        .routes(routes!(logins::log_out_agent))
        .routes(routes!(cluster::nodes))
        .routes(routes!(cluster::drain))
        .routes(routes!(cluster::resume))
        .routes(routes!(cluster::sessions))
        .routes(routes!(cluster::phones))
        .routes(routes!(cluster::explain))
        .routes(routes!(cluster::targets))
        .routes(routes!(events::events))
        .routes(routes!(openapi::document))
}
