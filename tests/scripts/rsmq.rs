//! The queues, seen by a foreign client: PyRSMQ in the environment that `./dev setup` makes. And the shared inbox.

use std::process::Command;

use evenring::node::session::Class;
use evenring::registry::session_of_message;
use evenring::registry::view::Verdict;

use crate::ledger::{Cluster, login};

const HEAD: &str = "
import json, sys
from rsmq import RedisSMQ
client = RedisSMQ(host='127.0.0.1', port=sys.argv[1], ns='{evenring}')
";

/// Runs these lines with PyRSMQ connected as `client`; what they print, as JSON.
fn python(cluster: &Cluster, lines: &str) -> serde_json::Value {
    let python = crate::lab::python();
    assert!(python.is_file(), "{} is not there: run ./dev setup", python.display());
    let port = cluster.redis.address().port().to_string();
    let output = Command::new(&python).args(["-c", &format!("{HEAD}{lines}"), &port]).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{lines}: {error}; is the environment whole? run ./dev setup");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|wrong| panic!("{wrong}: {output:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_client_reads_and_deletes_an_order() {
    let mut cluster = Cluster::start().await;
    let a = cluster.up("a", &["cc100", "cc101"]).await;
    let (first, _) = cluster.placed("cc100x", "7").await;
    cluster.placed("cc101x", "8").await;
    let told = python(
        &cluster,
        "
before = client.getQueueAttributes().qname('ring-a').execute()
message = client.receiveMessage().qname('ring-a').vt(30).execute()
between = client.getQueueAttributes().qname('ring-a').execute()
deleted = client.deleteMessage().qname('ring-a').id(message['id']).execute()
after = client.getQueueAttributes().qname('ring-a').execute()
queues = sorted(client.listQueues().execute())
print(json.dumps([before, message, between, deleted, after, queues]))",
    );
    let number = |at: usize, field: &str| told[at][field].as_i64().unwrap_or_else(|| panic!("{field} of {told}"));
    assert_eq!((number(0, "msgs"), number(0, "hiddenmsgs"), number(0, "totalsent")), (2, 0, 2));
    assert_eq!(
        (number(0, "maxsize"), told[0]["vt"].as_f64(), told[0]["delay"].as_f64()),
        (65536, Some(30.0), Some(0.0))
    );
    assert_eq!(told[1]["id"].as_str().unwrap().len(), 32);
    let order: serde_json::Value = serde_json::from_str(told[1]["message"].as_str().unwrap()).unwrap();
    assert_eq!((&order["kind"], &order["extension"], &order["agent"]), (&"ring".into(), &"cc100".into(), &"7".into()));
    assert_eq!(order["session"], first.to_string());
    assert_eq!((number(2, "msgs"), number(2, "hiddenmsgs"), number(2, "totalrecv")), (2, 1, 1));
    assert_eq!((told[3].as_bool(), number(4, "msgs"), number(4, "hiddenmsgs")), (Some(true), 1, 0));
    assert_eq!(told[5], serde_json::json!(["logins", "ring-a"]));
    assert_eq!(cluster.take(&a).await.len(), 1, "the node finds what the client left");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_client_logs_in_through_the_inbox_and_reads_the_answer() {
    let mut cluster = Cluster::start().await;
    cluster.up("a", &["cc100"]).await;
    python(
        &cluster,
        r#"
send = lambda text: client.sendMessage().qname('logins').message(text).execute()
send('{"alias":"cc100x","agent":"7","remote":true,"reply":"web-1"}')
send('{"alias":"no such","reply":"web-1"}')
send('{"alias":"cc900x","reply":"web-1"}')
print(1)"#,
    );
    let mut registry = cluster.another();
    let message = registry.receive_login().await.unwrap().expect("a login");
    let request = message.login.as_ref().expect("it is well formed").request();
    assert_eq!((request.alias.as_str(), request.class), ("cc100x", Class::Remote));
    let placement = registry.place(&request, session_of_message(&message.id)).await.unwrap();
    assert_eq!((placement.verdict, placement.node.as_str()), (Verdict::Placed, "a"));
    // the daemon died and the message came back: the same session
    let again = registry.place(&request, session_of_message(&message.id)).await.unwrap();
    assert_eq!((again.verdict, again.session), (Verdict::Existing, placement.session));
    for _ in 0..2 {
        registry.answer_login(&message, Ok(&placement)).await.unwrap();
    }
    let bad = registry.receive_login().await.unwrap().expect("the second");
    let reason = bad.login.as_ref().expect_err("no alias has a blank").clone();
    assert!(reason.contains("the alias"), "{reason}");
    registry.answer_login(&bad, Err(&reason)).await.unwrap();
    let last = registry.receive_login().await.unwrap().expect("the third");
    let refused = registry.place(&last.login.as_ref().unwrap().request(), session_of_message(&last.id)).await.unwrap();
    registry.answer_login(&last, Ok(&refused)).await.unwrap();
    assert!(registry.receive_login().await.unwrap().is_none());
    let told = python(
        &cluster,
        "
take = lambda: json.loads(client.popMessage().qname('web-1').execute()['message'])
answers = [take(), take()]
left = client.getQueueAttributes().qname('web-1').execute()['msgs']
print(json.dumps([answers, left, client.getQueueAttributes().qname('logins').execute()['msgs']]))",
    );
    let session = placement.session.unwrap().to_string();
    let first = serde_json::json!({"alias":"cc100x","session":session,"node":"a","state":"placed","reason":""});
    assert_eq!(told[0][0], first);
    assert_eq!((&told[0][1]["state"], &told[0][1]["reason"]), (&"refused".into(), &"unknown-alias".into()));
    assert_eq!((&told[1], &told[2]), (&0.into(), &0.into()), "one answer each, and an empty inbox");
}

/// Puts a login into the inbox as an RSMQ client does.
async fn submit(cluster: &mut Cluster, number: u64, body: &str) {
    let name = format!("{number:032}");
    cluster.run::<u64>(&["ZADD", "NS:logins", "1", &name]).await;
    cluster.run::<u64>(&["HSET", "NS:logins:Q", &name, body]).await;
}

#[tokio::test]
async fn p11_a_hostile_reply_queue_hurts_nobody() {
    let mut cluster = Cluster::start().await;
    let a = cluster.up("a", &["cc100"]).await;
    cluster.placed("cc100x", "7").await;
    cluster.alias("desk", &["cc100@a"]).await;
    for (at, queue) in ["holders", "aliases", "QUEUES", "ring-a", "logins"].iter().enumerate() {
        submit(&mut cluster, at as u64, &format!(r#"{{"alias":"cc100x","reply":"{queue}"}}"#)).await;
        let message = cluster.registry.receive_login().await.unwrap().expect("a login");
        let placement = cluster.place(&login("cc100x", "")).await;
        cluster
            .registry
            .answer_login(&message, Ok(&placement))
            .await
            .unwrap_or_else(|error| panic!("{queue}: {error}"));
    }
    let echo = cluster.registry.receive_login().await.unwrap().expect("the answer to 'logins' itself");
    assert!(echo.login.is_err(), "an answer is no login");
    cluster.registry.answer_login(&echo, Err("no login")).await.unwrap();
    assert!(cluster.registry.receive_login().await.unwrap().is_none());
    let stray: u64 = cluster.run(&["EXISTS", "NS:holders:Q", "NS:aliases:Q", "NS:QUEUES:Q"]).await;
    assert_eq!(stray, 0);
    assert_eq!(cluster.take(&a).await.len(), 2, "its own order and one that is stale");
}
