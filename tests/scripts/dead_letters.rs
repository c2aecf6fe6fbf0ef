//! Logins that nobody could read: they are kept for people, and can be given back. Owns those cases; `rsmq` has the queues as
//! foreign clients see them.

use evenring::registry::queues::{DEAD, Emptying};
use evenring::registry::{InboxMessage, Settled};

use crate::redis_fixture::Cluster;

async fn send(cluster: &mut Cluster, id: &str, body: &str) {
    let at = cluster.registry.now_ms().await.unwrap().to_string();
    cluster.run::<u64>(&["ZADD", "NS:logins", &at, id]).await;
    cluster.run::<u64>(&["HSET", "NS:logins:Q", id, body]).await;
}

async fn settle(cluster: &mut Cluster) -> Vec<Settled> {
    let mut all = Vec::new();
    let received: Vec<InboxMessage> = cluster.registry.receive_logins(64, None).await.unwrap().messages;
    let mut rest = &received[..];
    while !rest.is_empty() {
        let settled = cluster.registry.settle_logins(rest).await.unwrap();
        rest = &rest[settled.len()..];
        all.extend(settled);
    }
    all
}

#[tokio::test]
async fn a_message_that_is_no_login_is_kept_with_its_reason_and_can_be_given_back_or_dropped() {
    let mut cluster = Cluster::start().await;
    cluster.up("a", &["cc100"]).await;
    let strange = "{\"alias\":\"cc100x\",\"ring\":\"no\\nPRIORITY=0\u{1b}[31m\"}";
    send(&mut cluster, &"1".repeat(32), strange).await;
    send(&mut cluster, "short", "junk").await;
    assert!(matches!(&settle(&mut cluster).await[..], [Settled::NoLogin, Settled::NoLogin]));
    let dead = cluster.registry.peek(DEAD, 9).await.unwrap();
    let read = |body: &str| serde_json::from_str::<serde_json::Value>(body).unwrap();
    let mut kept: Vec<_> =
        dead.iter().map(|message| read(&message.body)["message"].as_str().unwrap().to_owned()).collect();
    kept.sort();
    assert_eq!(kept, ["junk", strange], "as they were sent");
    let now = cluster.registry.now_ms().await.unwrap();
    for message in &dead {
        let body = read(&message.body);
        assert!(body["reason"].as_str().unwrap().len() > 10, "{body}");
        let at: u64 = body["at"].as_str().unwrap().parse().unwrap();
        assert!(now.abs_diff(at) < 60_000 && now.abs_diff(message.sent) < 60_000, "{now}: {message:?}");
    }
    let row = cluster.registry.queues().await.unwrap().into_iter().find(|row| row.queue == DEAD).unwrap();
    assert_eq!((row.messages, row.visible, row.sent, row.received), (2, 2, 2, 0));

    // Given back, they are read again, and come here again.
    assert_eq!(cluster.registry.empty(Emptying::Retry, DEAD, None).await.unwrap(), 2);
    assert_eq!(cluster.registry.peek(DEAD, 9).await.unwrap(), []);
    assert_eq!(settle(&mut cluster).await.len(), 2);
    let again = cluster.registry.peek(DEAD, 9).await.unwrap();
    assert_eq!(again.len(), 2);
    assert_eq!(cluster.registry.empty(Emptying::Drop, DEAD, Some(&again[0].id)).await.unwrap(), 1);
    assert_eq!(cluster.registry.empty(Emptying::Drop, DEAD, Some(&again[0].id)).await.unwrap(), 0, "it is gone");
    assert_eq!(cluster.registry.peek(DEAD, 9).await.unwrap(), again[1..]);
    // What somebody else has put there is no login that could be given back.
    cluster.run::<u64>(&["HSET", "NS:logins-dead:Q", &again[1].id, "{}"]).await;
    assert_eq!(cluster.registry.empty(Emptying::Retry, DEAD, None).await.unwrap(), 0);
    assert_eq!(cluster.registry.empty(Emptying::Drop, DEAD, None).await.unwrap(), 1);
}

#[tokio::test]
async fn the_last_thousand_are_kept_and_shown_a_page_at_a_time() {
    let mut cluster = Cluster::start().await;
    cluster.up("a", &["cc100"]).await;
    for round in 0..17 {
        for number in 0..64 {
            send(&mut cluster, &format!("{round:016}{number:016}"), &format!("junk {round} {number}")).await;
        }
        assert_eq!(settle(&mut cluster).await.len(), 64);
    }
    let dead = cluster.registry.peek(DEAD, 5_000).await.unwrap();
    assert_eq!(dead.len(), 1_000, "of 1,088");
    let ids: std::collections::BTreeSet<&str> = dead.iter().map(|message| message.id.as_str()).collect();
    assert_eq!(ids.len(), 1_000, "each once");
    assert!(dead.last().unwrap().body.contains("junk 16 "), "the newest are kept: {:?}", dead.last());
    assert_eq!(cluster.registry.peek(DEAD, 130).await.unwrap(), dead[..130]);
    assert_eq!(cluster.registry.empty(Emptying::Drop, DEAD, None).await.unwrap(), 1_000);
}

#[tokio::test]
async fn a_dead_login_is_read_once_more_after_its_repair() {
    let mut cluster = Cluster::start().await;
    cluster.up("a", &["cc100"]).await;
    let dead = r#"{"reason":"unknown key","at":"1","message":"{\"alias\":\"cc100x\"}"}"#;
    cluster.run::<u64>(&["ZADD", "NS:logins-dead", "1", "m"]).await;
    cluster.run::<u64>(&["HSET", "NS:logins-dead:Q", "m", dead]).await;
    assert_eq!(cluster.registry.empty(Emptying::Retry, DEAD, Some("m")).await.unwrap(), 1);
    assert!(matches!(&settle(&mut cluster).await[..], [Settled::Placed(placed)] if placed.alias == "cc100x"));
}
