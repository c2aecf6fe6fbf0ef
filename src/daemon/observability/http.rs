//! The task that answers over HTTP: health, readiness, metrics. Owns the listener and its limits. Must never change
//! anything or wait for another task: it reads the status that they publish.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::future::{AbortHandle, abortable};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use prometheus_client::registry::Registry as Page;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::status::DaemonStatus;
use crate::ids::NodeName;
use crate::runtime::clock::Clock;
use crate::runtime::listener;

/// What is served, for the log.
const SERVICE: &str = "health checks and metrics";
/// Connections at once. One more closes the oldest: requests are answered before that many others arrive, and idle
/// connections must not block a health check.
const CONNECTIONS_MOST: usize = 64;
/// Time limit of a connection, from first to last byte. Each carries one request.
const CONNECTION_TIME: Duration = Duration::from_secs(5);
/// Time limit for a request's headers.
const HEAD_TIME: Duration = Duration::from_secs(2);
/// Maximum size of a request in bytes.
const REQUEST_BYTES: usize = 8 << 10;
/// The text format of Prometheus.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What is shown.
#[derive(Debug, Clone)]
pub(in crate::daemon) struct Shown {
    pub(in crate::daemon) page: Arc<Page>,
    pub(in crate::daemon) status: watch::Receiver<DaemonStatus>,
    pub(in crate::daemon) clock: Clock,
    pub(in crate::daemon) lease: Duration,
}

/// Serves `address` until the daemon ends. If the address cannot be used, the daemon works without it.
pub(in crate::daemon) async fn run(node: NodeName, address: SocketAddr, shown: Shown) {
    let listener = listener::listen(&node, SERVICE, address, shown.clock).await;
    serve(&node, listener, shown).await;
}

async fn serve(node: &NodeName, listener: TcpListener, shown: Shown) {
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(shown);
    let mut open = FuturesUnordered::new();
    // Of those in `open` that are to go on, the oldest first.
    let mut handles: VecDeque<(u64, AbortHandle)> = VecDeque::with_capacity(CONNECTIONS_MOST);
    let mut number = 0_u64;
    loop {
        tokio::select! {
            biased;
            Some(ended) = open.next(), if !open.is_empty() => handles.retain(|(number, _)| *number != ended),
            (stream, _) = listener::accept(node, SERVICE, &listener) => {
                if handles.len() == CONNECTIONS_MOST && let Some((_, oldest)) = handles.pop_front() {
                    oldest.abort();
                }
                number = number.wrapping_add(1);
                let (connection, handle) = abortable(connection(stream, router.clone()));
                handles.push_back((number, handle));
                open.push(connection.map(move |_| number));
            }
        }
    }
}

async fn connection(stream: TcpStream, router: Router) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME).keep_alive(false).max_buf_size(REQUEST_BYTES);
    let connection = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    // hyper answers malformed requests; other errors need no handling.
    let _ = tokio::time::timeout(CONNECTION_TIME, connection).await;
}

/// Answers `ready`, or 503 with all missing words in the first line and one line of text for each.
async fn readyz(State(shown): State<Shown>) -> Response {
    let missing = shown.status.borrow().missing(shown.clock.now(), shown.lease);
    if missing.is_empty() {
        return "ready\n".into_response();
    }
    let words: Vec<&str> = missing.iter().map(|(word, _)| *word).collect();
    let more: String = missing.iter().map(|(word, why)| format!("{word}: {why}\n")).collect();
    (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {}\n{more}", words.join(", "))).into_response()
}

async fn metrics(State(shown): State<Shown>) -> Response {
    let mut text = String::new();
    match prometheus_client::encoding::text::encode_registry(&mut text, &shown.page) {
        Ok(()) => ([(CONTENT_TYPE, METRICS_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}
