//! What came from outside does nothing to a terminal, and makes no second line: the real command line shows what somebody
//! has put into a real Redis.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that fails says why")]

#[path = "../lab/mod.rs"]
mod lab;
#[path = "../redis_fixture/mod.rs"]
mod redis_fixture;

use std::fmt::Write as _;

use lab::evenring::{Cli, Output};
use redis_fixture::{Cluster, login, session};

/// Colours, clears the screen, writes from right to left, and forges a line.
const EVIL: &str = "x\u{1b}[2J\u{9b}31m\u{202e}\u{7}\nerror: forged\r";

/// Nothing in it acts, but for the ends of its lines; no line is forged, and what was there is seen.
#[track_caller]
fn check(what: &[&str], output: &Output) {
    let all = format!("{}{}", output.stdout, output.stderr);
    let acts = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
    assert!(!all.contains(acts), "{what:?}: {all:?}");
    assert!(!all.lines().any(|line| line.starts_with("error: forged")), "{what:?}: {all}");
    let json = what.contains(&"--json");
    let seen =
        if json { "\\u001b[2J\\u009b31m\\u202e\\u0007\\nerror: forged\\r" } else { "\\u{1b}[2J\\u{9b}31m\\u{202e}" };
    assert!(all.contains(seen), "{what:?}: {all:?}");
    if json {
        all.lines().count();
        let documents = serde_json::Deserializer::from_str(&all).into_iter::<serde_json::Value>();
        let mut text = String::new();
        documents.for_each(|document| write!(text, "{}", document.expect("JSON")).unwrap());
        assert!(text.contains("forged"), "{what:?}: {all}");
    }
}

/// A terminal that is dumb gets text and nothing else; another one gets colours.
#[tokio::test(flavor = "multi_thread")]
async fn a_dumb_terminal_gets_no_colours_and_no_cursor() {
    let mut cluster = Cluster::start().await;
    cluster.up("a", &["cc100"]).await;
    cluster.registry.place(&login("cc100x", "7"), session(1)).await.unwrap();
    let cli = Cli::new(&cluster.redis.url());
    let drain = ["drain", "a", "--wait", "--deadline", "1ms"];
    for verb in [&["status"][..], &["sessions"], &["events"], &["drain", "nobody"], &["doctor"], &drain, &["--help"]] {
        assert!(cli.on_terminal("xterm", verb).contains('\u{1b}'), "{verb:?} has colours or moves the cursor");
        let dumb = cli.on_terminal("dumb", verb);
        let acts = |c: char| c.is_control() && c != '\n' && c != '\r';
        assert!(!dumb.contains(acts) && !dumb.replace("\r\n", "").contains('\r'), "{verb:?}: {dumb:?}");
        assert!(!dumb.is_empty(), "{verb:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_is_shown_is_escaped() {
    let mut cluster = Cluster::start().await;
    cluster.up("a", &["cc100"]).await;
    cluster.registry.place(&login("cc100x", "7"), session(1)).await.unwrap();
    let id = session(1).to_string();
    let (key, node) = (format!("{{evenring}}:session:{id}"), "{evenring}:node:a");
    for (field, value) in [("campaign", EVIL), ("reason", EVIL)] {
        cluster.run::<()>(&["HSET", &key, field, value]).await;
    }
    for field in ["generation", "kept_why", "kept_result", "version"] {
        cluster.run::<()>(&["HSET", node, field, EVIL]).await;
    }
    for (field, value) in [("kept", "1"), ("kept_at", "1")] {
        cluster.run::<()>(&["HSET", node, field, value]).await;
    }
    let contact = serde_json::json!({ "uri": EVIL }).to_string();
    cluster.run::<()>(&["HSET", "{evenring}:contacts:a", "cc100", &contact]).await;
    cluster.run::<()>(&["HSET", "{evenring}:phones:a", EVIL, "registered"]).await;
    cluster.run::<()>(&["HSET", "{evenring}:aliases", EVIL, "cc100@a"]).await;
    cluster.run::<()>(&["XADD", "{evenring}:events", "*", "event", EVIL, "node", EVIL, "reason", EVIL]).await;
    let cli = Cli::new(&cluster.redis.url());
    for verb in [&["status"][..], &["sessions"], &["phones"], &["alias", "list"], &["events"]] {
        for more in [&[][..], &["--json"]] {
            let what = [verb, more].concat();
            check(&what, &cli.run(&what));
        }
    }
    check(&["alias", "export"], &cli.run(&["alias", "export"]));
    // An error carries what Redis said.
    cluster.run::<()>(&["DEL", "{evenring}:index:nodes"]).await;
    cluster.run::<()>(&["SET", "{evenring}:index:nodes", "no set"]).await;
    let output = cli.run(&["status"]);
    assert_eq!((output.stderr.lines().count(), output.stdout.as_str()), (1, ""), "{}", output.stderr);
}
