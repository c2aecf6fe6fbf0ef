//! The queues, seen by a foreign client: PyRSMQ in the environment that `./dev setup` makes. And the shared inbox.

use std::process::Command;

use evenring::node::session::Class;
use evenring::registry::view::Verdict;
use evenring::registry::{Settled, session_of_message};

use crate::redis_fixture::{Cluster, why};

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
    let mut registry = cluster.another().with_work(1);
    let messages = registry.receive_logins(10, None).await.unwrap().messages;
    assert_eq!(messages.len(), 3);
    let request = messages[0].login.as_ref().expect("it is well formed").request();
    assert_eq!((request.alias.as_str(), request.class), ("cc100x", Class::Remote));
    // a daemon placed it and died, and the message came back: the same session
    let placement = registry.place(&request, session_of_message(&messages[0].id)).await.unwrap();
    assert_eq!((placement.verdict, placement.node.as_str()), (Verdict::Placed, "a"));
    let first = registry.settle_logins(&messages).await.unwrap();
    let [Settled::Placed(again)] = &first[..] else { panic!("a little work, one login: {first:?}") };
    assert_eq!((again.verdict, again.session), (Verdict::Existing, placement.session));
    let second = registry.settle_logins(&messages).await.unwrap();
    let [Settled::Gone, Settled::NoLogin] = &second[..] else { panic!("{second:?}") };
    let third = registry.settle_logins(&messages).await.unwrap();
    let [Settled::Gone, Settled::Gone, Settled::Placed(refused)] = &third[..] else { panic!("{third:?}") };
    assert_eq!((refused.verdict, why(refused).as_str()), (Verdict::Refused, "unknown-alias"));
    let reason = messages[1].login.as_ref().expect_err("no alias has a blank");
    assert!(reason.contains("the alias"), "{reason}");
    let again = registry.settle_logins(&messages).await.unwrap();
    assert!(matches!(again[..], [Settled::Gone, Settled::Gone, Settled::Gone]), "{again:?}");
    assert!(registry.receive_logins(10, None).await.unwrap().messages.is_empty());
    let told = python(
        &cluster,
        "
take = lambda: json.loads(client.popMessage().qname('web-1').execute()['message'])
answers = [take(), take(), take()]
left = client.getQueueAttributes().qname('web-1').execute()['msgs']
print(json.dumps([answers, left, client.getQueueAttributes().qname('logins').execute()['msgs']]))",
    );
    let session = placement.session.unwrap().to_string();
    let first = serde_json::json!({"alias":"cc100x","session":session,"node":"a","state":"placed","reason":"",
        "outcome":"existing","session_alias":"cc100x","extension":"cc100","agent":"7","moved_from":""});
    let of = |alias: &str| told[0].as_array().unwrap().iter().find(|answer| answer["alias"] == alias).unwrap();
    assert_eq!(*of("cc100x"), first);
    let invalid = serde_json::json!({"alias":"no such","session":"","node":"","state":"refused","reason":reason,
        "outcome":"refused","session_alias":"","extension":"","agent":"","moved_from":""});
    assert_eq!(*of("no such"), invalid, "what is no login is told so");
    assert_eq!((&of("cc900x")["state"], &of("cc900x")["reason"]), (&"refused".into(), &"unknown-alias".into()));
    assert_eq!((&told[1], &told[2]), (&0.into(), &0.into()), "one answer each, and an empty inbox");
}

/// Puts a login into the inbox as an RSMQ client does.
async fn submit(cluster: &mut Cluster, number: u64, body: &str) {
    let name = format!("{number:032}");
    cluster.run::<u64>(&["ZADD", "NS:logins", "1", &name]).await;
    cluster.run::<u64>(&["HSET", "NS:logins:Q", &name, body]).await;
}

/// The longest name that this client fetches, one that begins as no node's does, and one that only this client fetches.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_goes_to_any_queue_that_a_foreign_client_can_make() {
    let mut cluster = Cluster::start().await;
    cluster.up("a", &["cc100"]).await;
    let longest = "Web_".repeat(16);
    for name in [longest.as_str(), "-7", "Answers", "web.1"] {
        let sent = format!(
            r#"
client.createQueue().qname('{name}').vt(5).execute()
client.sendMessage().qname('logins').message({{"alias": "cc 100x", "reply": "{name}"}}).execute()
print(1)"#
        );
        python(&cluster, &sent);
        let bad = cluster.registry.receive_logins(10, None).await.unwrap().messages;
        assert!(bad[0].login.is_err(), "no alias has a blank");
        assert!(matches!(cluster.registry.settle_logins(&bad).await.unwrap()[..], [Settled::NoLogin]));
        let told = python(
            &cluster,
            &format!("print(json.dumps(json.loads(client.receiveMessage().qname('{name}').execute()['message'])))"),
        );
        assert_eq!((&told["state"], &told["alias"]), (&"refused".into(), &"cc 100x".into()), "{told}");
    }
}

/// Every key that stands in Redis is no queue for answers, nor is one that might come: `node` would be written where the
/// node Q is, and what stands in `ring-a` is an order.
#[tokio::test]
async fn p11_a_hostile_reply_queue_hurts_nobody() {
    let mut cluster = Cluster::start().await;
    let a = cluster.up("a", &["cc100"]).await;
    cluster.up("Q", &["cc101"]).await;
    cluster.placed("cc100x", "7").await;
    cluster.alias("desk", &["cc100@a"]).await;
    let mut names: Vec<String> = ["ring-a", "ring-Q", "ring-later", "rt", "news", "session"].map(str::to_owned).into();
    let keys: Vec<String> = cluster.run(&["KEYS", "NS:*"]).await;
    let word = |key: &String| Some(key.split_once("}:")?.1.split(':').next()?.to_owned());
    names.extend(keys.iter().filter_map(word));
    assert!(names.len() > 12, "{names:?}");
    for (at, queue) in names.iter().enumerate() {
        submit(&mut cluster, at as u64, &format!(r#"{{"alias":"cc100x","reply":"{queue}"}}"#)).await;
        let messages = cluster.registry.receive_logins(10, None).await.unwrap().messages;
        let settled = cluster.registry.settle_logins(&messages).await.unwrap_or_else(|e| panic!("{queue}: {e}"));
        assert!(matches!(settled[..], [Settled::NoLogin]), "{queue}: {settled:?}");
    }
    let more = cluster.registry.receive_logins(10, None).await.unwrap().messages;
    assert!(more.is_empty(), "an answer went into the inbox");
    let mut after: Vec<String> = cluster.run(&["KEYS", "NS:*"]).await;
    after.retain(|key| !keys.contains(key) && !key.contains(":logins"));
    assert_eq!(after, Vec::<String>::new(), "only keys that were there");
    assert_eq!(cluster.take(&a).await.len(), 1, "its own order");
}

/// Somebody else's keys in our namespace: no answer there, and the inbox goes on.
#[tokio::test]
async fn a_reply_queue_that_is_something_else_stops_no_inbox() {
    let mut cluster = Cluster::start().await;
    cluster.up("a", &["cc100"]).await;
    cluster.run::<String>(&["SET", "NS:text", "x"]).await;
    cluster.run::<String>(&["SET", "NS:half:Q", "x"]).await;
    for (at, queue) in ["text", "half", "web-1"].iter().enumerate() {
        submit(&mut cluster, at as u64, &format!(r#"{{"alias":"cc100x","reply":"{queue}"}}"#)).await;
        let messages = cluster.registry.receive_logins(10, None).await.unwrap().messages;
        let settled =
            cluster.registry.settle_logins(&messages).await.unwrap_or_else(|error| panic!("{queue}: {error}"));
        assert!(matches!(settled[..], [Settled::Placed(_)]), "{queue}: {settled:?}");
    }
    assert!(cluster.registry.receive_logins(10, None).await.unwrap().messages.is_empty());
    let (half, web): (u64, u64) =
        (cluster.run(&["EXISTS", "NS:half"]).await, cluster.run(&["ZCARD", "NS:web-1"]).await);
    assert_eq!((half, web), (0, 1));
}

#[tokio::test]
async fn few_nodes_listen_for_logins_and_another_takes_the_seat_of_one_that_asks_no_more() {
    let mut cluster = Cluster::start().await;
    let names: Vec<evenring::ids::NodeName> = ["a", "b", "c", "d"].map(crate::redis_fixture::id).into();
    let minute = std::time::Duration::from_secs(60);
    async fn who(cluster: &mut Cluster, names: &[evenring::ids::NodeName], keep: std::time::Duration) -> String {
        let mut listening = String::new();
        for name in names {
            if cluster.registry.receive_logins(1, Some((name, keep))).await.unwrap().listens {
                listening.push_str(name.as_str());
            }
        }
        listening
    }
    assert_eq!(who(&mut cluster, &names, minute).await, "ab");
    assert_eq!(who(&mut cluster, &names[1..], minute).await, "b", "a keeps its seat for a while");
    // a has not asked for as long as a seat is kept
    cluster.run::<u64>(&["ZADD", "NS:index:listeners", "1", "a"]).await;
    assert_eq!(who(&mut cluster, &names[1..], minute).await, "bc");
    assert_eq!(who(&mut cluster, &names, minute).await, "bc", "it comes back, and waits for a free one");
    // The clock of this Redis is an hour behind that of the one before.
    for name in ["b", "c"] {
        cluster.run::<u64>(&["ZADD", "NS:index:listeners", "99999999999999", name]).await;
    }
    assert_eq!(who(&mut cluster, &names, minute).await, "ab");
}
