//! The whole client on loopback: socket, frame, link and the owner's channel, against a bare socket. Owns its rows and the
//! servers they need. Must never look inside of the task.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use evenring::ami::action::Action;
use evenring::ami::event::is_wanted;
use evenring::ami::outcome::{Answer, Tag};
use evenring::ami_client::{FromAmi, ToAmi};
use memchr::memmem;
use tokio::runtime::Runtime;

use crate::fake_ami::{Client, Conn, Peer};
use crate::harness::{Bench, ROUNDS, Reach, median, now, pin};
use crate::streams::mixed;

const READ_BYTES: usize = 64 << 10;
const SERVER_CORE: usize = 0;
const CLIENT_CORE: usize = 1;
/// Round trips of one round, one at a time.
const PINGS: usize = 3_000;
/// Pings of one round with many at a time.
const MANY_PINGS: usize = 60_000;
const IN_FLIGHT: usize = 64;
/// What the owner takes in one step, as the node loop does.
const AT_ONCE: usize = 64;
/// No ping of the session's own comes between.
const LONG: Duration = Duration::from_secs(60);

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// A server that says all of `bytes` at once, after a login if there is to be one, and when it began.
fn blaster(bytes: Arc<Vec<u8>>, login: bool) -> (Peer, Arc<Mutex<Option<Instant>>>) {
    let began = Arc::new(Mutex::new(None));
    let told = Arc::clone(&began);
    let peer = Peer::start(move |_, mut conn| {
        pin(SERVER_CORE);
        if login && !conn.login() {
            return;
        }
        *told.lock().expect("a time") = Some(now());
        conn.say(&bytes[..]);
        conn.answer_all();
    });
    (peer, began)
}

fn read_plainly(peer: &Peer, count: usize) {
    let mut socket = TcpStream::connect(peer.address).expect("loopback");
    let (mut buf, mut seen) = (vec![0; READ_BYTES], 0);
    while seen < count {
        seen += socket.read(&mut buf).expect("bytes");
    }
}

/// The same through the runtime that the daemon has.
fn read_by_runtime(peer: &Peer, count: usize) {
    use tokio::io::AsyncReadExt;
    runtime().block_on(async {
        let mut socket = tokio::net::TcpStream::connect(peer.address).await.expect("loopback");
        let (mut buf, mut seen) = (vec![0; READ_BYTES], 0);
        while seen < count {
            seen += socket.read(&mut buf).await.expect("bytes");
        }
    });
}

/// Gives how many events came.
fn read_as_client(peer: &Peer, wanted: u64) {
    runtime().block_on(async {
        let mut client = Client::start(peer, |ami| {
            ami.wanted = is_wanted;
            (ami.link.ping_interval, ami.link.ping_timeout) = (LONG, LONG);
        });
        client.booted().await;
        let (mut seen, mut batch) = (0, Vec::with_capacity(AT_ONCE));
        while seen < wanted {
            assert_ne!(client.from.recv_many(&mut batch, AT_ONCE).await, 0, "ended after {seen} events");
            for told in batch.drain(..) {
                assert!(matches!(told, FromAmi::Event(_)), "{told:?} after {seen} events");
                seen += 1;
            }
        }
    });
}

fn blast(bench: &mut Bench) {
    let names = [
        "client: a blast over loopback, every wanted event",
        "client: a blast over loopback (floor: the bare runtime)",
    ];
    if !names.iter().any(|name| bench.wants(name)) {
        return;
    }
    let stream = mixed();
    let (count, wanted) = (stream.bytes.len(), stream.wanted);
    let bytes = Arc::new(stream.bytes);
    let (plain, plain_began) = blaster(Arc::clone(&bytes), false);
    let (manager, manager_began) = blaster(bytes, true);
    let rate = |began: &Mutex<Option<Instant>>, work: &dyn Fn()| {
        work();
        let wall = began.lock().expect("a time").take().expect("a blast").elapsed().as_secs_f64();
        count as f64 / wall / 1e6
    };
    let round = || {
        let ours = rate(&manager_began, &|| read_as_client(&manager, wanted));
        let plainly = rate(&plain_began, &|| read_plainly(&plain, count));
        (ours, plainly, rate(&plain_began, &|| read_by_runtime(&plain, count)))
    };
    round();
    let rounds: Vec<_> = (0..ROUNDS).map(|_| round()).collect();
    let against = |floor: fn(&(f64, f64, f64)) -> f64| rounds.iter().map(|all| (all.0, floor(all))).collect::<Vec<_>>();
    bench.add(names[0], "MB/s", Reach::RatioAtLeast(0.5), &against(|all| all.1));
    bench.add(names[1], "MB/s", Reach::RatioAtLeast(0.5), &against(|all| all.2));
}

/// Answers every action at once, all that came in one read with one write.
fn answer_at_once(mut conn: Conn, login: bool) {
    pin(SERVER_CORE);
    if login && !conn.login() {
        return;
    }
    let (end, id) = (memmem::Finder::new(b"\r\n\r\n"), memmem::Finder::new(b"ActionID: "));
    let (mut buf, mut len, mut out) = (vec![0; 1 << 20], 0, Vec::new());
    loop {
        match conn.stream.read(&mut buf[len..]) {
            Ok(0) | Err(_) => return,
            Ok(count) => len += count,
        }
        let mut at = 0;
        while let Some(length) = end.find(&buf[at..len]) {
            let action = &buf[at..at + length];
            at += length + 4;
            let from = id.find(action).expect("an ActionID") + 10;
            let line = action[from..].split(|byte| *byte == b'\r').next().unwrap_or_default();
            for part in [b"Response: Success\r\nActionID: ", line, b"\r\nPing: Pong\r\nTimestamp: 1.000000\r\n\r\n"] {
                out.extend_from_slice(part);
            }
        }
        buf.copy_within(at..len, 0);
        len -= at;
        if conn.stream.write_all(&out).is_err() {
            return;
        }
        out.clear();
    }
}

fn ping_text(number: usize) -> String {
    format!("Action: Ping\r\nActionID: er-000000000000feed-{number}\r\n\r\n")
}

fn bare(peer: &Peer) -> TcpStream {
    let socket = TcpStream::connect(peer.address).expect("loopback");
    socket.set_nodelay(true).expect("an option");
    socket
}

/// Median of a round, in microseconds.
fn bare_round_trips(socket: &mut TcpStream) -> f64 {
    let mut buf = vec![0; READ_BYTES];
    let one = |number| {
        let start = now();
        socket.write_all(ping_text(number).as_bytes()).expect("written");
        let mut len = 0;
        while !buf[..len].ends_with(b"\r\n\r\n") {
            len += socket.read(&mut buf[len..]).expect("an answer");
        }
        start.elapsed().as_secs_f64() * 1e6
    };
    median((0..PINGS).map(one))
}

async fn round_trips(client: &mut Client) -> f64 {
    let mut times = Vec::with_capacity(PINGS);
    for _ in 0..PINGS {
        let start = now();
        client.to.send(ToAmi::Send(Tag(0), None, Action::ping())).await.expect("a task");
        pong(client).await;
        times.push(start.elapsed().as_secs_f64() * 1e6);
    }
    median(times.into_iter())
}

async fn pong(client: &mut Client) {
    match client.from.recv().await {
        Some(FromAmi::Answer(_, Answer::Success(_))) => {}
        other => panic!("{other:?}"),
    }
}

/// The same through the runtime that the daemon has: what is left is what the client itself adds.
async fn runtime_round_trips(peer: &Peer) -> f64 {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut socket = tokio::net::TcpStream::connect(peer.address).await.expect("loopback");
    socket.set_nodelay(true).expect("an option");
    let (mut buf, mut times) = (vec![0; READ_BYTES], Vec::with_capacity(PINGS));
    for number in 0..PINGS {
        let start = now();
        socket.write_all(ping_text(number).as_bytes()).await.expect("written");
        let mut len = 0;
        while !buf[..len].ends_with(b"\r\n\r\n") {
            len += socket.read(&mut buf[len..]).await.expect("an answer");
        }
        times.push(start.elapsed().as_secs_f64() * 1e6);
    }
    median(times.into_iter())
}

/// Pings a second.
fn bare_many(socket: &mut TcpStream) -> f64 {
    let mut buf = vec![0; READ_BYTES];
    let start = now();
    let first: String = (0..IN_FLIGHT).map(ping_text).collect();
    socket.write_all(first.as_bytes()).expect("written");
    let (mut sent, mut answered) = (IN_FLIGHT, 0);
    let mut text = String::new();
    while answered < MANY_PINGS {
        let count = socket.read(&mut buf).expect("answers");
        // Each answer has one line of this kind; one that is cut in two by the read is counted with its second part.
        let pongs = memchr::memchr_iter(b'P', &buf[..count]).count() / 2;
        answered += pongs;
        text.clear();
        for _ in 0..pongs {
            if sent < MANY_PINGS {
                text.push_str(&ping_text(sent));
                sent += 1;
            }
        }
        socket.write_all(text.as_bytes()).expect("written");
        if sent >= MANY_PINGS && answered + IN_FLIGHT / 2 >= MANY_PINGS {
            break;
        }
    }
    answered as f64 / start.elapsed().as_secs_f64()
}

async fn many(client: &mut Client) -> f64 {
    let start = now();
    for _ in 0..IN_FLIGHT {
        client.to.send(ToAmi::Send(Tag(0), None, Action::ping())).await.expect("a task");
    }
    for answered in 0..MANY_PINGS {
        pong(client).await;
        if answered + IN_FLIGHT < MANY_PINGS {
            client.to.send(ToAmi::Send(Tag(0), None, Action::ping())).await.expect("a task");
        }
    }
    MANY_PINGS as f64 / start.elapsed().as_secs_f64()
}

fn pings(bench: &mut Bench) {
    let names = ["ping: round trip, p50", "ping: round trip, p50 (floor: the bare runtime)", "ping: 64 in flight"];
    if !names.iter().any(|name| bench.wants(name)) {
        return;
    }
    let plain = Peer::start(|_, conn| answer_at_once(conn, false));
    let manager = Peer::start(|_, conn| answer_at_once(conn, true));
    let runtime = runtime();
    let mut client = runtime.block_on(async {
        let mut client = Client::start(&manager, |ami| (ami.link.ping_interval, ami.link.ping_timeout) = (LONG, LONG));
        client.booted().await;
        client
    });
    let (mut singles, mut runtimes, mut manys) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let mut socket = bare(&plain);
        let single = (runtime.block_on(round_trips(&mut client)), bare_round_trips(&mut socket));
        drop(socket);
        let through = (runtime.block_on(round_trips(&mut client)), runtime.block_on(runtime_round_trips(&plain)));
        let mut socket = bare(&plain);
        let many = (runtime.block_on(many(&mut client)), bare_many(&mut socket));
        if round > 0 {
            singles.push(single);
            runtimes.push(through);
            manys.push(many);
        }
    }
    bench.add(names[0], "us", Reach::RatioAtMost(1.1), &singles);
    bench.add(names[1], "us", Reach::RatioAtMost(1.1), &runtimes);
    bench.add(names[2], "pings/s", Reach::AtLeast(200_000.0), &manys);
}

/// On a thread of its own, which stays on its core.
pub fn rows(bench: &mut Bench) {
    std::thread::scope(|scope| {
        let rows = scope.spawn(|| {
            pin(CLIENT_CORE);
            pings(bench);
            blast(bench);
        });
        rows.join().expect("measured");
    });
}
