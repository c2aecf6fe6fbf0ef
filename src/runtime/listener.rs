//! Sockets that others ask for what the daemon knows. Owns that one whose address cannot be used is tried again: the
//! daemon works without it. Must never know what is served.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tracing::{debug, info, warn};

use crate::ids::NodeName;
use crate::runtime::clock::Clock;
use crate::runtime::log_throttle::LogThrottle;

/// Interval at which binding the address is retried.
const AGAIN_AFTER: Duration = Duration::from_secs(5);
/// Pause after a failed `accept`.
const BREATH: Duration = Duration::from_millis(100);

/// Listens at `address`, as soon as that is possible. `service`: what is served there, for the log.
pub(crate) async fn listen(node: &NodeName, service: &str, address: SocketAddr, clock: Clock) -> TcpListener {
    let mut throttle = LogThrottle::default();
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => {
                let address = listener.local_addr().unwrap_or(address);
                info!(%node, service, %address, "listening");
                return listener;
            }
            Err(error) => {
                let reason = error.to_string();
                if let Some(suppressed) = throttle.allow(&reason, clock.now()) {
                    warn!(%node, service, %address, reason, suppressed, "cannot listen; retrying every 5 s");
                }
                tokio::time::sleep(AGAIN_AFTER).await;
            }
        }
    }
}

/// The next connection, and whose it is.
pub(crate) async fn accept(node: &NodeName, service: &str, listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) => {
                debug!(%node, service, %error, "a connection was not accepted");
                tokio::time::sleep(BREATH).await;
            }
        }
    }
}
