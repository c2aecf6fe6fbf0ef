//! Hostile clients of the HTTP API: what cannot be read, what is too much, and what comes from other hosts.
//!
//! Owns what such a client is told, and that nobody else notices. Must never look into the program: it sends bytes, and looks
//! into Redis.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that fails says why")]

#[path = "../api_client/mod.rs"]
mod api_client;
#[path = "../api_client/house.rs"]
mod house;
#[path = "../lab/mod.rs"]
mod lab;
#[path = "../load_nodes/mod.rs"]
mod load_nodes;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use api_client::{Client, free_address};
use house::{House, SOON, log_in, new_token, write_tokens};
use lab::redis::Redis;
use lab::wait_for;
use load_nodes::daemons::SimDaemon;
use load_nodes::{Settings, Sim};
use serde_json::json;

#[track_caller]
fn check(name: &str, answer: &api_client::Answer) {
    assert_eq!(answer.problem(), name, "{answer:?}");
    assert!((400..500).contains(&answer.status), "{answer:?}");
}

/// Nothing has changed, and no control character is in the log.
fn untouched(house: &House, before: &(u64, u64, Vec<String>, u64)) {
    assert_eq!(&house.state(), before, "nothing was changed");
    let log = house.daemon.log();
    assert!(log.lines().all(|line| !line.contains(char::is_control)), "a control character in the log: {log:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_is_a_problem_and_changes_nothing() {
    let house = House::start("").await;
    let boss = house.client("boss");
    let before = house.state();
    let token = &boss.token;
    let login = r#"{"alias":"cc100x"}"#;
    let auth =
        format!("Host: x\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\nConnection: close\r\n");
    let raw = |head: &str, body: &str| boss.raw(format!("{head}\r\n{auth}{body}").as_bytes());
    check("ambiguous", &boss.send("POST", "/v1/logins", &format!("Authorization: Bearer {token}\r\n"), login));
    let chunked = "Transfer-Encoding: chunked\r\nContent-Length: 18\r\n\r\n12\r\n{\"alias\":\"cc100x\"}\r\n0\r\n\r\n";
    check("ambiguous", &raw("POST /v1/logins HTTP/1.1", chunked));
    let swapped = "Content-Length: 18\r\nTransfer-Encoding: chunked\r\n\r\n12\r\n{\"alias\":\"cc100x\"}\r\n0\r\n\r\n";
    check("ambiguous", &raw("POST /v1/logins HTTP/1.1", swapped));
    check("malformed", &raw("POST /v1/logins HTTP/1.1", "Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n"));
    check("malformed", &raw("POST /v1/logins HTTP/1.1", "Content-Length: 1\r\nContent-Length: 2\r\n\r\n{}"));
    check("malformed", &raw("POST /v1/logins HTTP/1.1", "Content-Length: x\r\n\r\n{}"));
    check("malformed", &raw("GET /v1/logins/a\0b HTTP/1.1", "\r\n"));
    check("malformed", &boss.raw(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"));
    check("head-too-large", &raw("GET /v1/nodes HTTP/1.1", &format!("X: {}\r\n\r\n", "x".repeat(20_000))));
    check("too-large", &boss.post("/v1/logins", &format!("{{\"alias\":\"{}\"}}", "a".repeat(20_000))));
    check("malformed", &boss.post("/v1/logins", &"[".repeat(10_000)));
    let nested = format!("{{\"alias\":{}}}", "[".repeat(5_000));
    assert!([400, 422].contains(&boss.post("/v1/logins", &nested).status));
    for (body, name) in [
        ("", "malformed"),
        ("{", "malformed"),
        (r#"{"alias":"cc100x"} x"#, "malformed"),
        ("null", "invalid"),
        (r#"["cc100x","7",null,false,false]"#, "invalid"),
        (r#"{"alias":"cc100x","nope":1}"#, "invalid"),
        (r#"{"alias":"cc100x","alias":"cc100x"}"#, "invalid"),
        (r#"{"alias":7}"#, "invalid"),
        (r#"{"alias":""}"#, "invalid"),
        (r#"{"alias":"cc100\r\nAction: Originate"}"#, "invalid"),
        (r#"{"alias":"cc100x","agent":"<img src=x onerror=alert(1)>"}"#, "invalid"),
        (r#"{"alias":"cc100x","agent":"\u001b[31m"}"#, "invalid"),
        (r#"{"alias":"cc100x","remote":"yes"}"#, "invalid"),
    ] {
        check(name, &boss.post("/v1/logins", body));
    }
    check("unsupported-media-type", &boss.send("POST", "/v1/logins", "Content-Type: text/plain\r\n", login));
    check(
        "foreign-origin",
        &boss.send("POST", "/v1/logins", "Content-Type: application/json\r\nOrigin: http://evil\r\n", login),
    );
    untouched(&house, &before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_path_is_a_problem_and_changes_nothing() {
    let house = House::start("").await;
    let (boss, login) = (house.client("boss"), r#"{"alias":"cc100x"}"#);
    let before = house.state();
    for (path, name) in [
        ("/v1/logins/../nodes", "not-found"),
        ("/v1/logins/%00", "invalid"),
        ("/v1/logins/%0d%0aX:%20y", "invalid"),
        ("/v1/logins/%ff", "invalid"),
        ("/v1/logins/x", "invalid"),
        ("/v1/logins/0000000000000001?wait=1e9", "invalid"),
        ("/v1/logins/0000000000000001?wait=26s", "invalid"),
        ("/v1/logins/0000000000000001?wiat=1s", "invalid"),
        ("/v1/phones/%1b%5b31m", "invalid"),
        ("/v1/sessions?limit=0", "invalid"),
        ("/v1/sessions?limit=99999999999", "invalid"),
        ("/v1/sessions?after=x", "invalid"),
        ("/v1/sessions?state=paused", "invalid"),
        ("/v1/sessions?agent=a&agent=b", "invalid"),
        ("/v1/events?after=abc", "invalid"),
        ("/v1/events?after=99999999999999-0", "invalid"),
        ("/v1/events?event=nothing", "invalid"),
        ("/v1/explain/cc100x?remote=maybe", "invalid"),
        ("/v1/nodes/", "not-found"),
        ("/", "not-found"),
    ] {
        check(name, &boss.get(path));
    }
    for id in ["abc", "99999999999999-0", "1-2-3"] {
        check("invalid", &boss.send("GET", "/v1/events", &format!("Last-Event-ID: {id}\r\n"), ""));
    }
    let answer = boss.send("PUT", "/v1/logins", "", "");
    assert_eq!((answer.status, answer.problem().as_str()), (405, "method-not-allowed"));
    assert_eq!(answer.header("allow"), Some("POST"), "{answer:?}");
    check(
        "invalid",
        &boss.send("POST", "/v1/logins", "Content-Type: application/json\r\nIdempotency-Key: a b\r\n", login),
    );
    untouched(&house, &before);
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_requests_are_told_when_to_come_back() {
    let house = House::start("token_rate = 20").await;
    let crm = house.client("crm");
    let answers: Vec<_> = (0..40).map(|_| crm.get("/v1/logins/0000000000000001")).collect();
    let refused = answers.iter().find(|answer| answer.status == 429).expect("one too many");
    assert_eq!((refused.problem().as_str(), refused.header("retry-after")), ("too-many-requests", Some("1")));
    assert_eq!(house.client("reader").get("/v1/nodes").status, 200, "another token has a rate of its own");
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_clients_delay_nobody() {
    let house = House::start("watchers = 2").await;
    let (reader, crm) = (house.client("reader"), house.client("crm"));
    // Heads that never end, bodies that never come.
    let (opened, mut slow) = (lab::now(), Vec::new());
    for number in 0..200 {
        let mut stream = crm.connect();
        let head = match number % 2 {
            0 => "GET /v1/nodes HTTP/1.1\r\nHost: x\r\n".to_owned(),
            _ => format!(
                "POST /v1/logins HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
                 Content-Length: 100\r\n\r\n{{",
                crm.token
            ),
        };
        stream.write_all(head.as_bytes()).unwrap();
        slow.push(stream);
    }
    let begin = lab::now();
    assert_eq!(log_in(&crm, &json!({"alias": "cc100x", "agent": "7"})).0, 201);
    assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
    let answer = {
        use std::io::Read as _;
        let mut text = Vec::new();
        slow[1].read_to_end(&mut text).unwrap();
        String::from_utf8(text).unwrap()
    };
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("/problems/too-slow"), "{answer}");
    let elapsed = opened.elapsed();
    assert!((5..10).contains(&elapsed.as_secs()), "{elapsed:?}");
    // Seats of watchers are counted, and come back.
    let watchers = [reader.watch("/v1/events", ""), reader.watch("/v1/events", "")];
    assert_eq!(reader.get("/v1/events").problem(), "busy");
    drop(watchers);
    wait_for(SOON, || {
        log_in(&crm, &json!({"alias": "cc101x", "agent": "8"}));
        crm.delete("/v1/agents/8");
        let stream = std::panic::catch_unwind(|| reader.watch("/v1/events", ""));
        if stream.is_ok() { Ok(()) } else { Err("a seat".to_owned()) }
    });
}

/// A new certificate and its key, in two files.
fn certificate(dir: &Path) -> (PathBuf, PathBuf) {
    let (cert, key) = (dir.join("cert.pem"), dir.join("key.pem"));
    let mut command = Command::new("openssl");
    command.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "30",
    ]);
    command
        .args(["-subj", "/CN=api", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&cert);
    let output = command.output().expect("run openssl");
    assert!(output.status.success(), "{output:?}");
    (cert, key)
}

/// What a client that trusts this certificate alone gets for `GET /v1/nodes`.
fn over_tls(address: std::net::SocketAddr, trusted: &Path, token: &str) -> String {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-quiet", "-verify_return_error", "-verify_ip", "127.0.0.1", "-connect"]);
    command.arg(address.to_string()).arg("-CAfile").arg(trusted);
    let mut child = command
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("run openssl");
    let request =
        format!("GET /v1/nodes HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\r\n");
    // One that trusts nobody has ended by now.
    let _ = child.stdin.as_mut().unwrap().write_all(request.as_bytes());
    String::from_utf8_lossy(&child.wait_with_output().unwrap().stdout).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn other_hosts_are_served_over_tls_and_the_certificate_is_read_again() {
    let (redis, dir, address) = (Redis::start(), tempfile::tempdir().unwrap(), free_address());
    let address: std::net::SocketAddr = format!("0.0.0.0:{}", address.port()).parse().unwrap();
    let ((token, line), tokens_file) = (new_token("reader", &["read"]), dir.path().join("tokens"));
    write_tokens(&tokens_file, &[], 0o640);
    let (cert, key) = certificate(dir.path());
    let node = Sim::new().node(Settings { phones: 1, ..Settings::default() }).await;
    let api = format!(
        "[api]\nlisten = \"{address}\"\ncert_file = \"{}\"\nkey_file = \"{}\"\ntokens_file = \"{}\"\n",
        cert.display(),
        key.display(),
        tokens_file.display()
    );
    let binary = Path::new(env!("CARGO_BIN_EXE_evenring"));
    let daemon = SimDaemon::start(binary, dir.path(), "tel-1", node.address(), &redis.url(), &api);
    let until = |what: &str| wait_for(SOON, || if daemon.log().contains(what) { Ok(()) } else { Err(daemon.log()) });
    let reload = || assert!(Command::new("kill").args(["-HUP", &daemon.pid().to_string()]).status().unwrap().success());
    // Without a token, the address is not served at all.
    until("the API is not served");
    let local = std::net::SocketAddr::from(([127, 0, 0, 1], address.port()));
    assert!(std::net::TcpStream::connect(local).is_err());
    write_tokens(&tokens_file, &[line], 0o640);
    reload();
    let served = |trusted: &Path| {
        wait_for(SOON, || {
            let answer = over_tls(local, trusted, &token);
            if answer.starts_with("HTTP/1.1 200 ") { Ok(()) } else { Err(format!("{answer}; {}", daemon.log())) }
        });
    };
    served(&cert);
    let before = dir.path().join("before.pem");
    fs::copy(&cert, &before).unwrap();
    certificate(dir.path());
    fs::write(&key, "no key").unwrap();
    reload();
    until("certificate of the API not read");
    served(&before);
    certificate(dir.path());
    reload();
    served(&cert);
    assert_eq!(over_tls(local, &before, &token), "", "the old certificate is not shown any more");
    let plain = Client { address: local, token };
    assert_eq!(plain.get("/v1/nodes").status, 0, "nobody is answered in the clear");
}
