//! What each script costs Redis, measured between the two: a line on the way that reads Redis's time on its core when a
//! request goes there and when the answer begins. Other programs that share the core are no part of it.
//!
//! Owns the line. Must never know what is said, but for the hash of a script; one request at a time goes over it.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// A script's hash, and what one call of it cost in us.
type Cost = (String, f64);

/// Listens on a port of its own, and knows the costs of all calls since they were last asked for.
#[derive(Debug, Clone)]
pub struct Meter {
    costs: Arc<Mutex<Vec<Cost>>>,
    port: u16,
}

impl Meter {
    pub async fn start(to: SocketAddrV4, pid: u32) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let port = listener.local_addr().expect("the address of a bound socket").port();
        let meter = Self { costs: Arc::default(), port };
        let costs = meter.costs.clone();
        spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let there = TcpStream::connect(to).await.expect("Redis listens");
                spawn(carry(near, there, pid, costs.clone()));
            }
        });
        meter
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// From here on they are counted anew.
    pub fn take(&self) -> Vec<Cost> {
        std::mem::take(&mut *self.costs.lock().expect("nobody panics while holding it"))
    }
}

async fn carry(mut near: TcpStream, mut there: TcpStream, pid: u32, costs: Arc<Mutex<Vec<Cost>>>) {
    let (mut asked, mut told) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    let mut began: Option<(Option<String>, f64)> = None;
    loop {
        tokio::select! {
            count = near.read(&mut asked) => {
                let count @ 1.. = count.unwrap_or(0) else { return };
                began = began.or_else(|| Some((script_in(&asked[..count]), on_core_us(pid))));
                if there.write_all(&asked[..count]).await.is_err() {
                    return;
                }
            }
            count = there.read(&mut told) => {
                let count @ 1.. = count.unwrap_or(0) else { return };
                if let Some((Some(script), began)) = began.take() {
                    let cost = on_core_us(pid) - began;
                    costs.lock().expect("nobody panics while holding it").push((script, cost));
                }
                if near.write_all(&told[..count]).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// The hash that the beginning of a request asks for.
fn script_in(request: &[u8]) -> Option<String> {
    let head = String::from_utf8_lossy(&request[..request.len().min(80)]);
    let mut words = head.split("\r\n").skip_while(|word| !word.eq_ignore_ascii_case("evalsha"));
    words.nth(2).map(str::to_owned)
}

/// The main thread's: it carries out all commands.
fn on_core_us(pid: u32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/schedstat")).expect("schedstat");
    text.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).expect("a number") / 1e3
}

#[expect(clippy::disallowed_methods, reason = "a connection is a task that ends with the runtime")]
fn spawn(future: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(future);
}
