//! The task that answers over HTTP: health, readiness, metrics. Owns the listener and its limits. Must never change
//! anything, nor wait for another task: it reads what they left for it.

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
use tracing::{debug, info, warn};

use super::clock::{Clock, Repeats};
use super::vitals::Vitals;
use crate::ids::NodeName;

/// Connections at once. One more ends the oldest: whoever sends a request has its answer before so many others come, and
/// whoever sends none must not keep a health check waiting.
const CONNECTIONS_MOST: usize = 64;
/// From its first byte to its last a connection may take so long. Each carries one request.
const CONNECTION_TIME: Duration = Duration::from_secs(5);
/// A request's head may take so long.
const HEAD_TIME: Duration = Duration::from_secs(2);
/// Bytes of a request.
const REQUEST_BYTES: usize = 8 << 10;
/// An address that cannot be used is tried again after this.
const AGAIN_AFTER: Duration = Duration::from_secs(5);
/// A system that has no room for another connection is asked again after this.
const BREATH: Duration = Duration::from_millis(100);
/// The text format of Prometheus.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What is shown.
#[derive(Debug, Clone)]
pub(super) struct Shown {
    pub(super) page: Arc<Page>,
    pub(super) vitals: watch::Receiver<Vitals>,
    pub(super) clock: Clock,
    pub(super) lease: Duration,
}

/// Answers at `address` until the daemon ends. If the address cannot be used, the daemon does its work without it.
pub(super) async fn run(node: NodeName, address: SocketAddr, shown: Shown) {
    let mut repeats = Repeats::default();
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => {
                let address = listener.local_addr().unwrap_or(address);
                info!(%node, %address, "HTTP: health checks and metrics");
                serve(&node, listener, shown).await;
                return;
            }
            Err(error) => {
                let reason = error.to_string();
                if let Some(held) = repeats.allow(&reason, shown.clock.now()) {
                    warn!(%node, %address, reason, held, "HTTP cannot listen: no health checks and no metrics");
                }
                tokio::time::sleep(AGAIN_AFTER).await;
            }
        }
    }
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
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    if handles.len() == CONNECTIONS_MOST && let Some((_, oldest)) = handles.pop_front() {
                        oldest.abort();
                    }
                    number = number.wrapping_add(1);
                    let (talk, handle) = abortable(talk(stream, router.clone()));
                    handles.push_back((number, handle));
                    open.push(talk.map(move |_| number));
                }
                Err(error) => {
                    debug!(%node, %error, "HTTP: a connection was not accepted");
                    tokio::time::sleep(BREATH).await;
                }
            },
        }
    }
}

async fn talk(stream: TcpStream, router: Router) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME).keep_alive(false).max_buf_size(REQUEST_BYTES);
    let connection = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    // Whoever sent nonsense or went away is told by hyper, or need not be.
    let _ = tokio::time::timeout(CONNECTION_TIME, connection).await;
}

/// `ready`, or what is missing: its words in the first line, and a line more for each.
async fn readyz(State(shown): State<Shown>) -> Response {
    let missing = shown.vitals.borrow().missing(shown.clock.now(), shown.lease);
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
