//! A Redis that is far away: everything takes a while on its way, in both directions. No packet is lost, and the line is wide.
//!
//! Owns the delay. Must never know what is said. It ends with its runtime.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Reads that may be on their way at a time.
const ON_THE_WAY: usize = 4096;

/// Listens on a port of its own and hands everything on to `to`, so that a round trip takes `round_trip` longer.
pub async fn far(to: SocketAddrV4, round_trip: Duration) -> SocketAddrV4 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    let port = listener.local_addr().expect("the address of a bound socket").port();
    spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let Ok(there) = TcpStream::connect(to).await else { continue };
            let ((near_in, near_out), (there_in, there_out)) = (near.into_split(), there.into_split());
            for (from, to) in [(near_in, there_out), (there_in, near_out)] {
                spawn(carry(from, to, round_trip / 2));
            }
        }
    });
    SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)
}

/// One direction: each piece arrives `delay` after it was sent, and those behind it do not wait for that.
async fn carry(mut from: tokio::net::tcp::OwnedReadHalf, mut to: tokio::net::tcp::OwnedWriteHalf, delay: Duration) {
    let (sent, mut arriving) = mpsc::channel::<(Instant, Vec<u8>)>(ON_THE_WAY);
    let read = async move {
        let mut bytes = vec![0; 64 << 10];
        while let Ok(count @ 1..) = from.read(&mut bytes).await {
            if sent.send((now() + delay, bytes[..count].to_vec())).await.is_err() {
                return;
            }
        }
    };
    let write = async move {
        while let Some((due, bytes)) = arriving.recv().await {
            tokio::time::sleep_until(due).await;
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(read, write);
}

#[expect(clippy::disallowed_methods, reason = "the line is as long as real time says")]
fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "a connection is two tasks that end with the runtime")]
fn spawn(future: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(future);
}
