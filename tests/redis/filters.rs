//! What an operator names and nobody has: refused with the nearest name, or warned of. What a node does not know now: not
//! shown. The real command line on a real Redis.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that fails says why")]

#[path = "../lab/mod.rs"]
mod lab;
#[path = "../redis_fixture/mod.rs"]
mod redis_fixture;

use lab::evenring::Cli;
use redis_fixture::Cluster;

/// Two nodes with phones, and their events.
async fn two() -> (Cluster, Cli) {
    let mut cluster = Cluster::start().await;
    cluster.up("tel-1", &["cc100", "cc101"]).await;
    cluster.up("tel-2", &["cc100", "cc200"]).await;
    cluster.placed("cc101x", "7").await;
    let cli = Cli::new(&cluster.redis.url());
    (cluster, cli)
}

#[track_caller]
fn refused(cli: &Cli, what: &[&str], words: &[&str]) {
    let output = cli.run(what);
    assert_eq!(output.status.code(), Some(2), "{what:?}: {output:?}");
    assert!(words.iter().all(|words| output.stderr.contains(words)), "{what:?}: {output:?}");
    assert!(!output.stdout.contains("No node"), "{what:?}: {output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_by_a_name_that_does_not_exist_is_refused_with_the_nearest() {
    let (mut cluster, cli) = two().await;
    let node = "there is no node tel-l, did you mean tel-1? known nodes: tel-1, tel-2";
    refused(&cli, &["events", "--node", "tel-l"], &[node]);
    refused(&cli, &["events", "--node", "tel-l", "--json"], &[node]);
    refused(&cli, &["events", "--follow", "--node", "tel-l"], &[node]);
    for verb in ["drain", "resume", "forget"] {
        refused(&cli, &[verb, "tel-l"], &[node]);
    }
    refused(&cli, &["events", "--node", "frankfurt"], &["there is no node frankfurt; known nodes: tel-1, tel-2"]);
    refused(&cli, &["events", "--event", "faild"], &["'faild'", "'failed'", "node-lease-expired"]);
    let extension = "no node knows the phone cc20, did you mean cc200?";
    refused(&cli, &["phones", "cc20"], &[extension]);
    refused(&cli, &["phones", "cc20", "--json"], &[extension]);
    refused(&cli, &["phones", "reception"], &["no node knows the phone reception; see `evenring phones`"]);
    let alias = "there is no alias or extension cc20x, did you mean cc200?";
    refused(&cli, &["events", "--alias", "cc20x"], &[alias]);
    refused(&cli, &["events", "--follow", "--alias", "cc20x"], &[alias]);

    // What exists is none, also if nothing has happened to it; and what happened to one that is gone can be looked up.
    cluster.alias("desk7", &["cc100@tel-1"]).await;
    for what in [
        &["events", "--node", "tel-2", "--event", "failed"][..],
        &["events", "--alias", "cc200x"],
        &["events", "--alias", "cc200"],
        &["events", "--alias", "desk7"],
        &["phones", "cc200"],
    ] {
        let output = cli.run(what);
        assert_eq!((output.status.code(), output.stderr.as_str()), (Some(0), ""), "{what:?}");
    }
    let gone: &[(&str, &str)] = &[("event", "ended"), ("node", "old"), ("alias", "oldx"), ("extension", "old")];
    let fields = gone.iter().flat_map(|(name, value)| [*name, *value]);
    let append: Vec<&str> = ["XADD", "NS:events", "*"].into_iter().chain(fields).collect();
    cluster.run::<String>(&append).await;
    for what in [["events", "--node", "old"], ["events", "--alias", "oldx"]] {
        let output = cli.run(&what);
        assert!(output.ok().contains("oldx"), "{what:?}");
    }
    // Nobody has reported a phone: nobody can tell.
    for key in ["NS:phones:tel-1", "NS:phones:tel-2"] {
        cluster.run::<u64>(&["DEL", key]).await;
    }
    assert!(cli.run(&["phones", "cc20"]).ok().contains("No node knows such a phone"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alias_that_cannot_ring_or_hides_a_phone_is_warned_of() {
    let (_cluster, cli) = two().await;
    let plain = cli.run(&["alias", "set", "desk7", "cc100@tel-1", "cc200@tel-2"]);
    assert_eq!((plain.stdout.as_str(), plain.stderr.as_str()), ("desk7: 2 phones\n", ""));
    let stranger = cli.run(&["alias", "set", "desk7", "cc100@tell-1"]);
    assert_eq!((stranger.status.code(), stranger.stdout.as_str()), (Some(0), "desk7: 1 phone\n"), "it is done");
    let words =
        "warning: there is no node tell-1, did you mean tel-1? known nodes: tel-1, tel-2; it rings nobody until";
    assert!(stranger.stderr.starts_with(words), "{stranger:?}");
    for alias in ["cc100x", "cc100"] {
        let hides = cli.run(&["alias", "set", alias, "cc200@tel-2"]);
        let words = format!("warning: {alias} is also a name of the phone cc100 ");
        assert!(hides.stderr.starts_with(&words) && hides.stderr.lines().count() == 1, "{hides:?}");
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "cc101x cc200@tel-2\nfine cc200@tel-2\nfar cc200@tel-9\n").unwrap();
    let imported = cli.run(&["alias", "import", file.path().to_str().unwrap()]);
    let lines: Vec<&str> = imported.stderr.lines().collect();
    assert_eq!(lines.len(), 2, "{imported:?}");
    assert!(
        lines[0].contains("no node tel-9, did you mean tel-1?") && lines[1].contains("cc101x is also"),
        "{lines:?}"
    );
}

/// What was known of a node's phones is not what is: it is not in sync with its Asterisk, or sends no heartbeats.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_down_shows_no_phones() {
    let (mut cluster, cli) = two().await;
    let status = || {
        let status: serde_json::Value = serde_json::from_str(&cli.run(&["status", "--json"]).ok()).unwrap();
        let of = |at: usize| status["nodes"][at]["registrations"].clone();
        (of(0), of(1))
    };
    assert_eq!(status(), (1.into(), 1.into()));
    for state in ["down", "starting"] {
        cluster.run::<u64>(&["HSET", "NS:node:tel-2", "state", state]).await;
        assert_eq!(status(), (1.into(), serde_json::Value::Null), "{state}");
    }
    let text = cli.run(&["status"]).ok();
    let row = text.lines().find(|line| line.trim_start().starts_with("tel-2")).unwrap();
    let cells: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(cells[1..10], ["starting", "0", "0", "0", "0", "1", "-", "-", "-"], "{text}");
    let phones: serde_json::Value = serde_json::from_str(&cli.run(&["phones", "cc100", "--json"]).ok()).unwrap();
    let states = |at: usize| (phones["phones"][at]["node"].clone(), phones["phones"][at]["state"].clone());
    assert_eq!((states(0), states(1)), (("tel-1".into(), "registered".into()), ("tel-2".into(), "unknown".into())));
}
