//! Servers that answer and do not do for evenring: each says so at the door, in its own way. The real command line is told
//! what to do by a line and exit code 3, and keeps no such connection.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that fails says why")]

#[path = "../lab/mod.rs"]
mod lab;
#[path = "../redis_fixture/mod.rs"]
mod redis_fixture;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use lab::evenring::Cli;
use lab::redis::Redis;
use lab::{run, wait_for, wait_until};

const SOON: Duration = Duration::from_secs(20);

fn with(arguments: &[&str]) -> Redis {
    Redis::start_with(Ipv4Addr::LOCALHOST, arguments)
}

/// Says one line to a server, and reads the first line of the answer.
fn say(address: SocketAddrV4, line: &str) -> (String, TcpStream) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.write_all(format!("{line}\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    BufReader::new(&stream).read_line(&mut answer).unwrap();
    (answer.trim_end().to_owned(), stream)
}

#[track_caller]
fn ok(address: SocketAddrV4, line: &str) {
    assert_eq!(say(address, line).0, "+OK", "{line}");
}

/// The command line says this in one line, and that it is Redis.
#[track_caller]
fn check(url: &str, words: &[&str]) {
    let output = Cli::new(url).run(&["status"]);
    assert_eq!(output.status.code(), Some(3), "{url}: {}{}", output.stdout, output.stderr);
    assert!(words.iter().all(|word| output.stderr.contains(word)), "{words:?} in {}", output.stderr);
    assert_eq!(output.stderr.lines().count(), 1, "{}", output.stderr);
}

#[test]
fn no_room_for_another_connection() {
    let redis = with(&["--maxclients", "1"]);
    let (pong, _held) = say(redis.address(), "PING");
    assert_eq!(pong, "+PONG");
    check(&redis.url(), &["max number of clients reached", "raise maxclients"]);
    // A login is refused in the same words, which are not about the password.
    let redis = with(&["--maxclients", "1", "--requirepass", "right"]).with_credentials(":right@");
    let _held = say(redis.address(), "AUTH right").1;
    check(&redis.url(), &["max number of clients reached", "raise maxclients"]);
}

#[test]
fn a_wrong_password_is_still_one() {
    let redis = with(&["--requirepass", "right"]).with_credentials(":wrong@");
    check(&redis.url(), &["denied access", "the password and the ACL"]);
    let redis = with(&[]).with_credentials("evenring:any@");
    check(&redis.url(), &["denied access", "the password and the ACL"]);
}

#[test]
fn protected_mode_lets_in_nobody_from_outside() {
    run("ip addr add 10.78.0.1/32 dev lo");
    let address = Ipv4Addr::new(10, 78, 0, 1);
    let redis = Redis::start_with(address, &[]);
    ok(redis.address(), "CONFIG SET protected-mode yes");
    check(&redis.url(), &["protected mode", "not about evenring's password", "docs/redis.md"]);
    let with_password = format!("redis://:secret@{}", redis.address());
    check(&with_password, &["protected mode", "not about evenring's password", "docs/redis.md"]);
    run("ip addr del 10.78.0.1/32 dev lo");
}

#[test]
fn a_node_of_a_cluster() {
    let start = |name: &str| {
        let (bus, file) = (lab::free_port(Ipv4Addr::LOCALHOST).to_string(), format!("nodes-{name}"));
        (with(&["--cluster-enabled", "yes", "--cluster-config-file", &file, "--cluster-port", &bus]), bus)
    };
    let ((ours, _), (theirs, bus)) = (start("ours"), start("theirs"));
    check(&ours.url(), &["Hash slot not served", "a Redis Cluster node"]);
    ok(theirs.address(), "CLUSTER ADDSLOTSRANGE 0 16383");
    ok(ours.address(), &format!("CLUSTER MEET 127.0.0.1 {} {bus}", theirs.address().port()));
    wait_until(SOON, "the nodes to know each other", || say(ours.address(), "GET {evenring}").0.starts_with("-MOVED"));
    check(&ours.url(), &["Moved", "a Redis Cluster node"]);
    let id = |redis: &Redis| {
        let mut stream = say(redis.address(), "PING").1;
        stream.write_all(b"CLUSTER MYID\r\n").unwrap();
        let mut answer = [0; 47];
        stream.read_exact(&mut answer).unwrap();
        String::from_utf8_lossy(&answer[5..45]).into_owned()
    };
    let slot = say(ours.address(), "CLUSTER KEYSLOT {evenring}").0.replace(':', "");
    ok(theirs.address(), &format!("CLUSTER SETSLOT {slot} MIGRATING {}", id(&ours)));
    // A cluster is down for a moment after its first slots.
    wait_until(SOON, "the slot to migrate", || say(theirs.address(), "GET {evenring}").0.starts_with("-ASK"));
    check(&theirs.url(), &["Ask", "a Redis Cluster node"]);
    check(&format!("{}/1", theirs.url()), &["a Redis Cluster node"]);
}

#[test]
fn commands_that_were_renamed() {
    for command in ["EVALSHA", "SCRIPT", "TIME"] {
        let redis = with(&["--rename-command", command, "hidden"]);
        check(&redis.url(), &["nknown", "without rename-command"]);
    }
    let redis = with(&[]);
    check(&format!("{}/99", redis.url()), &["no database with the number in redis.url"]);
}

#[test]
fn a_server_that_is_busy() {
    let redis = with(&["--busy-reply-threshold", "10"]);
    let mut stream = TcpStream::connect(redis.address()).unwrap();
    stream.write_all(b"EVAL \"while true do end\" 0\r\n").unwrap();
    wait_until(SOON, "Redis to be busy", || say(redis.address(), "PING").0.starts_with("-BUSY"));
    check(&redis.url(), &["BUSY", "SCRIPT KILL"]);
    ok(redis.address(), "SCRIPT KILL");
}

/// A process that ends with its handle.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn tls_where_there_is_none_and_none_where_there_is() {
    let plain = with(&[]);
    check(&plain.url().replace("redis:", "rediss:"), &["does not use TLS", "use redis://"]);
    let dir = tempfile::tempdir().unwrap();
    lab::config::certificate(dir.path());
    let file = |name: &str| dir.path().join(name).display().to_string();
    let port = lab::free_port(Ipv4Addr::LOCALHOST);
    let mut command = Command::new("redis-server");
    command.args(["--port", "0", "--tls-port", &port.to_string(), "--save", "", "--tls-auth-clients", "no"]);
    command.args(["--tls-cert-file", &file("certificate.pem"), "--tls-key-file", &file("key.pem")]);
    command.args(["--tls-ca-cert-file", &file("certificate.pem"), "--dir", &file("")]).stdout(Stdio::null());
    let _server = Server(command.spawn().unwrap());
    wait_for(SOON, || TcpStream::connect(("127.0.0.1", port)).map_err(|error| error.to_string()));
    check(&format!("redis://127.0.0.1:{port}"), &["requires TLS", "use rediss://"]);
    check(&format!("redis://:secret@127.0.0.1:{port}"), &["requires TLS", "use rediss://"]);
    check(&format!("rediss://127.0.0.1:{port}"), &["certificate", "check redis.ca_file"]);
}

#[test]
fn what_is_no_redis() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let greet = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"Asterisk Call Manager/9.0.0\r\n").unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    });
    check(&format!("redis://{address}"), &["not a Redis: check redis.url"]);
    greet.join().unwrap();
}

/// A connection that was refused something is not used again.
#[tokio::test(flavor = "multi_thread")]
async fn the_connection_is_dropped() {
    let redis = with(&["--rename-command", "EVALSHA", "hidden"]);
    let connections = || {
        let mut stream = say(redis.address(), "PING").1;
        stream.write_all(b"INFO stats\r\n").unwrap();
        let lines = BufReader::new(stream).lines().map_while(Result::ok);
        let found = lines.filter_map(|line| line.strip_prefix("total_connections_received:").map(str::to_owned)).next();
        found.unwrap().parse::<u64>().unwrap()
    };
    let mut registry = evenring::registry::Registry::new(&redis_fixture::settings(&redis.url(), "")).unwrap();
    let before = connections();
    for _ in 0..3 {
        registry.nodes().await.expect_err("it has no EVALSHA");
    }
    assert_eq!(connections() - before, 4, "three of ours, and the one that asks");
}
