//! `placement.case = "fold"`: capitals make no other alias or extension, at every door, and Redis has one spelling of each.

use evenring::ids::{Alias, SessionId};
use evenring::node::Live;
use evenring::node::session::{Class, Login};
use evenring::registry::view::Verdict;
use evenring::registry::{Adopted, LoggedOut, Settled, session_of_message};

use crate::redis_fixture::{Cluster, id, login, why};

const FOLD: &str = "placement.case = 'fold'";

async fn holders(cluster: &mut Cluster) -> Vec<String> {
    let mut fields: Vec<String> = cluster.run(&["HKEYS", "NS:holders"]).await;
    fields.sort();
    fields
}

#[tokio::test]
async fn p1_a_login_in_capitals_is_the_login_that_exists() {
    let mut cluster = Cluster::with(FOLD).await;
    let a = cluster.up("a", &["cc100", "cc101"]).await;
    assert_eq!(cluster.node("a").await.case, "fold");
    let explained = cluster.registry.explain(&login("CC100X", ""), id("00000000000000ff")).await.unwrap();
    assert_eq!((explained.verdict, explained.extension.as_str()), (Verdict::WouldPlace, "cc100"));

    let first = cluster.place(&login("CC100X", "Bob")).await;
    assert_eq!((first.verdict, first.alias.as_str()), (Verdict::Placed, "CC100X"), "as it was asked for");
    let session = first.session.unwrap();
    let row = cluster.row(session).await;
    assert_eq!((row.alias.as_str(), row.extension.as_str(), row.agent.as_str()), ("cc100x", "cc100", "Bob"));
    assert_eq!(holders(&mut cluster).await, ["agent:Bob", "alias:cc100x", "phone:cc100"]);
    for alias in ["cc100x", "Cc100X", "CC100", "cc100"] {
        let again = cluster.place(&login(alias, "Bob")).await;
        assert_eq!((again.verdict, again.session), (Verdict::Existing, Some(session)), "{alias}");
        let other = cluster.place(&login(alias, "bob")).await;
        assert_eq!((other.verdict, why(&other).as_str()), (Verdict::Refused, "in-use"), "{alias}: another agent");
    }
    assert_eq!(cluster.take(&a).await.len(), 1);

    // An agent's id is taken as it is.
    assert_eq!(cluster.registry.logout(&id("bob")).await.unwrap(), LoggedOut::Nobody);
    for who in ["CC100X", "CC100", "cC100x", "Bob"] {
        assert_eq!(cluster.registry.logout(&id(who)).await.unwrap(), LoggedOut::Asked(session, "a".into()), "{who}");
    }
}

#[tokio::test]
async fn exact_is_the_default_and_tells_capitals_apart() {
    let mut cluster = Cluster::start().await;
    cluster.up("a", &["CC100", "cc100"]).await;
    assert_eq!(cluster.node("a").await.case, "exact");
    let (small, _) = cluster.placed("cc100x", "").await;
    let (capitals, _) = cluster.placed("CC100x", "").await;
    assert_ne!(small, capitals);
    assert_eq!(why(&cluster.place(&login("CC100X", "")).await), "unknown-alias", "the suffix is x");
    assert_eq!(cluster.registry.phone_list(Some(&id("CC100"))).await.unwrap().len(), 1);
}

#[tokio::test]
async fn the_tables_have_one_spelling() {
    let mut cluster = Cluster::with(&format!("{FOLD}\nplacement.alias_suffix = 'X'")).await;
    let a = cluster.up("a", &["cc100", "cc200"]).await;
    cluster.alias("Desk7", &["CC200@a"]).await;
    let aliases = cluster.registry.aliases().await.unwrap();
    assert_eq!((aliases[0].alias.as_str(), aliases[0].phones.as_slice()), ("desk7", &["cc200@a".to_owned()][..]));
    let placed = cluster.place(&login("DESK7", "")).await;
    assert_eq!((placed.verdict, placed.extension.as_str(), placed.agent.as_str()), (Verdict::Placed, "cc200", "desk7"));
    assert_eq!(cluster.place(&login("cc100x", "")).await.extension, "cc100", "with the suffix in capitals, too");

    let details = [("CC100".to_owned(), r#"{"uri":"sip:x"}"#.to_owned())];
    cluster.registry.contacts(&a.name, a.generation, &details).await.unwrap();
    let phones = cluster.registry.phone_list(Some(&id("Cc100"))).await.unwrap();
    assert_eq!((phones.len(), phones[0].extension.as_str()), (1, "cc100"));
    assert!(phones[0].contact.is_some(), "{phones:?}");
}

#[tokio::test]
async fn the_inbox_answers_with_the_alias_as_it_was_written() {
    let mut cluster = Cluster::with(FOLD).await;
    cluster.up("a", &["cc100"]).await;
    for (number, body) in
        [r#"{"alias":"CC100X","reply":"web"}"#, r#"{"alias":"Nobody","reply":"web"}"#].iter().enumerate()
    {
        let message = format!("message{number}");
        cluster.run::<u64>(&["ZADD", "NS:logins", "0", &message]).await;
        cluster.run::<u64>(&["HSET", "NS:logins:Q", &message, body]).await;
    }
    let messages = cluster.registry.receive_logins(10, None).await.unwrap().messages;
    let settled = cluster.registry.settle_logins(&messages).await.unwrap();
    let [Settled::Placed(placed), Settled::Placed(refused)] = &settled[..] else { panic!("{settled:?}") };
    assert_eq!((placed.verdict, why(refused).as_str()), (Verdict::Placed, "unknown-alias"));
    assert_eq!(cluster.row(session_of_message("message0")).await.alias, "cc100x");
    let queue: Vec<String> = cluster.run(&["HVALS", "NS:web:Q"]).await;
    let told = |alias: &str, state: &str| {
        let start = format!(r#"{{"alias":"{alias}","session":""#);
        queue.iter().any(|text| text.starts_with(&start) && text.contains(&format!(r#""state":"{state}""#)))
    };
    assert!(told("CC100X", "placed") && told("Nobody", "refused"), "{queue:?}");
}

/// A channel of an agent who logged in while capitals made another name.
fn channel(session: SessionId) -> (Login, Live) {
    let login = Login {
        session,
        attempt: 1,
        alias: id("CC100x"),
        extension: id("CC100"),
        agent: id("7"),
        campaign: None,
        class: Class::Local,
    };
    (login, Live::Yes)
}

#[tokio::test]
async fn p1_who_logged_in_before_the_change_is_found_after_it() {
    let mut cluster = Cluster::start().await;
    let a = cluster.up("a", &["CC100"]).await;
    let (session, _) = cluster.placed("CC100x", "7").await;
    cluster.take(&a).await;
    // The daemon is started again with the other setting, and finds the call.
    let mut cluster = Cluster::on(cluster.redis, FOLD).await;
    let a = cluster.up("a", &["cc100"]).await;
    for _ in 0..2 {
        let found = cluster.registry.adopt(&a.name, a.generation, &[channel(session)]).await.unwrap();
        assert_eq!(found, [Adopted::Kept]);
        assert_eq!(holders(&mut cluster).await, ["agent:7", "alias:cc100x", "phone:cc100"]);
    }
    let row = cluster.row(session).await;
    assert_eq!((row.alias.as_str(), row.extension.as_str()), ("cc100x", "cc100"));
    for alias in ["cc100x", "CC100X"] {
        assert_eq!(cluster.place(&login(alias, "")).await.session, Some(session), "{alias}");
    }
    // The same from nothing.
    cluster.run::<String>(&["FLUSHALL"]).await;
    let a = cluster.up("a", &["cc100"]).await;
    let found = cluster.registry.adopt(&a.name, a.generation, &[channel(session)]).await.unwrap();
    assert_eq!(found, [Adopted::Restored]);
    assert_eq!(holders(&mut cluster).await, ["agent:7", "alias:cc100x", "phone:cc100"]);
    assert_eq!(cluster.registry.logout(&id::<Alias>("CC100")).await.unwrap(), LoggedOut::Asked(session, "a".into()));
}
