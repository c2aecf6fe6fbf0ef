//! A long way between two ends of a TCP connection: every byte arrives so much later, in both directions.
//!
//! Owns the port at the near end, and the delay. (The kernel's own emulator, netem, is a module that many machines have
//! not.) Must never know what is said.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;

use super::now;

/// Pieces that are on their way at once, in one direction of one connection.
const ON_THE_WAY: usize = 1_024;

/// See above. All connections end when it is dropped.
#[derive(Debug)]
pub struct Distance {
    address: SocketAddr,
    stop: Arc<Notify>,
    thread: Option<JoinHandle<()>>,
}

impl Distance {
    /// From a free port on 127.0.0.1 to there.
    pub fn start(far: SocketAddr, delay: Duration) -> Self {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        listener.set_nonblocking(true).expect("a socket can be non-blocking");
        let address = listener.local_addr().expect("the address of a bound socket");
        let stop = Arc::<Notify>::default();
        let thread = std::thread::spawn({
            let stop = Arc::clone(&stop);
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
                runtime.block_on(async {
                    tokio::select! {
                        () = serve(listener, far, delay) => {}
                        () = stop.notified() => {}
                    }
                });
            }
        });
        Self { address, stop, thread: Some(thread) }
    }

    /// The near end.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Distance {
    fn drop(&mut self) {
        self.stop.notify_one();
        if let Some(thread) = self.thread.take() {
            assert!(thread.join().is_ok() || std::thread::panicking(), "the thread of a distance has panicked");
        }
    }
}

async fn serve(listener: std::net::TcpListener, far: SocketAddr, delay: Duration) {
    let listener = TcpListener::from_std(listener).expect("the runtime takes a socket");
    let mut ways = JoinSet::new();
    loop {
        let Ok((near, _)) = listener.accept().await else { return };
        // a far end that is not there is a connection that ends at once
        let Ok(far) = TcpStream::connect(far).await else { continue };
        let _only_slower = (near.set_nodelay(true), far.set_nodelay(true));
        let (near, far) = (near.into_split(), far.into_split());
        ways.spawn(way(near.0, far.1, delay));
        ways.spawn(way(far.0, near.1, delay));
        while ways.try_join_next().is_some() {}
    }
}

/// One direction, until its end. Whoever reads too slowly slows the writer down, as TCP does.
async fn way(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, delay: Duration) {
    let (send, mut receive) = mpsc::channel::<(Instant, Vec<u8>)>(ON_THE_WAY);
    let read = async move {
        let mut piece = vec![0; 16_384];
        while let Ok(length @ 1..) = from.read(&mut piece).await {
            if send.send((now() + delay, piece[..length].to_vec())).await.is_err() {
                return;
            }
        }
    };
    let write = async move {
        while let Some((due, piece)) = receive.recv().await {
            tokio::time::sleep_until(due.into()).await;
            if to.write_all(&piece).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(read, write);
}
