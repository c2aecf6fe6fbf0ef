//! The listener of the API and its connections. Owns how many there are and how long a request may take to arrive. Must never
//! know what is served.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustix::process::{Resource, getrlimit};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::strangers::Strangers;
use super::wire::{Connection, Guarded};
use crate::ids::NodeName;
use crate::runtime::clock::Clock;
use crate::runtime::listener;

/// What is served, for the log.
const SERVICE: &str = "HTTP API";
/// Connections besides those of watchers.
const CONNECTIONS: usize = 2_048;
/// Open files that are left to the rest of the daemon.
const FILES_LEFT: usize = 256;
/// Time limit for the head of a request, and for what TLS needs before it.
const HEAD_TIME: Duration = Duration::from_secs(5);
/// Bytes of a head.
const HEAD_BYTES: usize = 8 << 10;

/// The server.
pub(super) struct Server {
    pub(super) node: NodeName,
    pub(super) address: SocketAddr,
    pub(super) tls: watch::Receiver<Option<TlsAcceptor>>,
    pub(super) watchers: usize,
    pub(super) clock: Clock,
}

impl Server {
    /// Serves until the daemon ends.
    pub(super) async fn run(self, router: Router) {
        let listener = listener::listen(&self.node, SERVICE, self.address, self.clock).await;
        let most = self.most();
        let (mut open, strangers, mut number) = (JoinSet::new(), Arc::new(Strangers::default()), 0_u64);
        loop {
            tokio::select! {
                biased;
                Some(_) = open.join_next(), if !open.is_empty() => {}
                (stream, peer) = listener::accept(&self.node, SERVICE, &listener) => {
                    if open.len() >= most && !strangers.end_one() {
                        continue;
                    }
                    number = number.wrapping_add(1);
                    let peer = peer.ip().to_canonical();
                    let strangers = Arc::clone(&strangers);
                    let connection = Connection { peer, ambiguous: Arc::default(), strangers: Arc::clone(&strangers), number };
                    let handle = open.spawn(serve(stream, self.tls.borrow().clone(), connection, router.clone()));
                    strangers.add(number, handle);
                }
            }
        }
    }

    /// How many connections there may be.
    fn most(&self) -> usize {
        let files =
            getrlimit(Resource::Nofile).current.map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(usize::MAX));
        (self.watchers + CONNECTIONS).min(files.saturating_sub(FILES_LEFT).max(1))
    }
}

async fn serve(stream: TcpStream, tls: Option<TlsAcceptor>, connection: Connection, router: Router) {
    let (strangers, number) = (Arc::clone(&connection.strangers), connection.number);
    // Small answers go out at once; a socket that refuses that works as well.
    let _ = stream.set_nodelay(true);
    match tls {
        None => http(stream, connection, router).await,
        Some(tls) => {
            if let Ok(Ok(stream)) = tokio::time::timeout(HEAD_TIME, tls.accept(stream)).await {
                http(stream, connection, router).await;
            }
        }
    }
    strangers.remove(number);
}

async fn http(stream: impl AsyncRead + AsyncWrite + Unpin + Send, connection: Connection, router: Router) {
    let stream = Guarded::new(stream, Arc::clone(&connection.ambiguous));
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(connection.clone());
        router.call(request)
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME).max_buf_size(HEAD_BYTES);
    // hyper answers malformed requests; other errors need no handling.
    let _ = http.serve_connection(TokioIo::new(stream), service).await;
}
