//! What real Asterisk 13 to 22 wrote about an Originate, said to the node machine as if the Originate were its own.
//!
//! The captured ids are replaced by ours; nothing else is.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "the helpers of tests may fail loudly, too")]

#[path = "../node_support/mod.rs"]
mod node_support;

use std::path::Path;
use std::time::Duration;

use bytes::BytesMut;
use evenring::ami::frame::{Item, Limits, Message, Splitter};
use evenring::ami::id::originate_action_id;
use evenring::ami::outcome::Answer;
use evenring::ids::ChannelId;
use node_support::{Stand, generation, session};

/// The messages of a dialogue.
fn messages(version: &str, name: &str) -> Vec<Message> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("proto-fixtures/{version}/{name}.ami"));
    let mut buf = BytesMut::from(&std::fs::read(path).expect(name)[..]);
    let mut splitter = Splitter::new(Limits::DEFAULT);
    let next = || splitter.next(&mut buf).expect(name);
    let message = |item| match item {
        Item::Message(message) => Some(message),
        Item::Banner(_) => None,
    };
    std::iter::from_fn(next).filter_map(message).collect()
}

/// What chan_sip lists, device states do not: after a start, phones that Asterisk would dial are in no other list.
#[test]
fn the_peers_that_asterisk_13_16_and_18_list_can_ring_if_they_have_an_address() {
    for (version, name, registered) in
        [("v13", "73-perm-evenring", 3), ("v16", "50-chansip", 1), ("v18", "73-perm-evenring", 3)]
    {
        let items: Vec<Message> =
            messages(version, name).into_iter().filter(|message| message.event_name() == Some(b"PeerEntry")).collect();
        assert!(items.len() > 2, "{version}: {items:?}");
        let mut stand = Stand::new("");
        stand.phones_only_by_state = false;
        stand.say("booted");
        stand.say("answer DeviceStateList");
        let at = stand.open.iter().position(|(name, ..)| name == "SIPpeers").expect("it is asked");
        stand.answer(at, Answer::List { items });
        stand.say("answer IAXpeerlist");
        assert_eq!(stand.node.roster.registered(), registered, "{version}");
    }
}

/// Asterisk 13 says nothing of its uptime when a daemon logs in; what every version says of its start is enough.
#[test]
fn a_reconnect_is_no_restart_and_a_restart_is_one_as_asterisk_13_and_18_say_it() {
    for version in ["v13", "v18"] {
        let said = messages(version, "73-perm-evenring");
        let status =
            said.iter().find(|message| message.get("CoreStartupTime").is_some()).expect("CoreStatus is permitted");
        let booted = messages(version, "01-login-daemon");
        let booted = booted.iter().find(|message| message.event_name() == Some(b"FullyBooted")).expect("it is booted");
        assert_eq!(booted.get("Uptime").is_some(), version != "v13");
        let other =
            String::from_utf8(status.as_bytes().to_vec()).unwrap().replace("CoreStartupTime: 1", "CoreStartupTime: 2");
        for (next, reason) in [(status.clone(), "hung-up"), (Message::new(other), "node-lost")] {
            let mut stand = Stand::new("");
            stand.started = None;
            let sync = |stand: &mut Stand, status: &Message, list: &str| {
                stand.hear(booted);
                let at = stand.open.iter().position(|(name, ..)| name == "CoreStatus").expect("it is asked");
                let mut seen = stand.answer(at, Answer::Success(status.clone()));
                seen.push(stand.say("answer DeviceStateList"));
                seen.push(stand.say(list));
                seen.join("; ")
            };
            assert!(sync(&mut stand, status, "answer Status s1:Up").contains("adopt s1 live"));
            stand.say("closed");
            let seen = sync(&mut stand, &next, "answer Status");
            assert!(seen.contains(&format!("s1 ended {reason}")), "{version}: {seen}");
        }
    }
}

/// The captured ids with ours in their place.
fn ours(message: &Message, action_id: &str, unique: &str) -> Message {
    let mut bytes = Vec::new();
    for (key, value) in message.headers() {
        let own = format!("{}: {}", key.escape_ascii(), value.escape_ascii());
        match own.as_str() {
            line if line == format!("ActionID: {action_id}") => {
                let id = originate_action_id(generation(), session("s1"), 1);
                bytes.extend_from_slice(format!("ActionID: {id}").as_bytes());
            }
            line if line == format!("Uniqueid: {unique}") => {
                bytes.extend_from_slice(format!("Uniqueid: {}", ChannelId(session("s1"))).as_bytes());
            }
            _ => bytes.extend_from_slice(&[key, b": ", value].concat()),
        }
        bytes.extend_from_slice(b"\r\n");
    }
    Message::new(bytes)
}

/// The Originate had this ActionID, and its channel this id.
fn check(version: &str, name: &str, action_id: &str, unique: &str, expected: &str) {
    let mut stand = Stand::ready();
    assert_eq!(stand.say("order s1"), "> Originate s1.1");
    let mut seen = Vec::new();
    for message in messages(version, name) {
        let is_answer = message.response().is_some() && message.action_id() == Some(action_id.as_bytes());
        let message = ours(&message, action_id, unique);
        if is_answer {
            let error = || Answer::Error { message: message.shown("Message"), raw: message.clone() };
            let success = message.response() == Some(b"Success");
            seen.extend(stand.answer(0, if success { Answer::Success(message.clone()) } else { error() }));
        } else if message.is_event() && !matches!(message.event_name(), Some(b"FullyBooted" | b"Reload")) {
            seen.extend(stand.hear(&message));
        }
        if seen.last().is_some_and(|effect| effect == "> Ping") {
            seen.push(stand.say("answer Ping ok"));
        }
        seen.extend(stand.wait(Duration::from_millis(1)));
    }
    seen.extend(stand.wait(Duration::from_secs(24)));
    seen.retain(|effect| effect.starts_with("s1") || effect.starts_with('>'));
    assert_eq!(seen.join("; "), expected, "{version}/{name}");
}

#[test]
fn every_captured_originate_ends_as_it_should() {
    for (version, number) in [("v16", "16"), ("v22", "22")] {
        for (name, unique, expected) in [
            ("404", "404", "s1 try-next-node not-found"),
            ("503", "503", "s1 try-next-node congestion-34"),
            ("app-answered", "app-1", "s1 live; > Ping; s1 ended hung-up"),
            ("app-unknown", "app-unknown", "s1 try-next-node not-reachable"),
            ("busy", "busy", "s1 failed busy"),
            ("local-hup21", "local-hup21", "s1 failed declined"),
            ("noanswer", "noanswer", "s1 failed no-answer"),
            ("not-registered", "not-registered", "s1 try-next-node not-reachable"),
            ("ringbusy", "ringbusy", "s1 failed busy"),
            ("silent-timeout", "silent-timeout", "s1 try-next-node silent"),
            ("unknown-endpoint", "unknown-endpoint", "s1 try-next-node not-reachable"),
            ("unknown-tech", "unknown-tech", "s1 try-next-node not-reachable"),
            ("unreachable", "unr", "s1 try-next-node not-reachable"),
            ("exten-unknown", "exten-unknown", "s1 try-next-node refused: Extension does not exist."),
            ("no-channel", "no-channel", "s1 try-next-node refused: Channel not specified"),
        ] {
            check(version, &format!("20-originate-{name}"), "a3", &format!("callx-{unique}-{number}"), expected);
        }
    }
}

/// chan_sip, which gives up a silent phone after 6.4 s, and whose Hangup has a cause where chan_pjsip's has none.
#[test]
fn every_captured_originate_of_asterisk_13_and_18_ends_as_it_should() {
    for (version, number) in [("v13", "13"), ("v18", "18")] {
        for (name, unique, expected) in [
            ("503", "503", "s1 try-next-node congestion-34"),
            ("app-answered", "app", "s1 live; > Ping; s1 ended hung-up"),
            ("busy", "busy", "s1 failed busy"),
            ("declined", "declined", "s1 failed declined"),
            ("hangup-while-ringing", "hwr", "> Ping; s1 failed hung-up"),
            ("noanswer", "noanswer", "s1 failed no-answer"),
            ("not-registered", "not-registered", "s1 try-next-node not-reachable"),
            ("silent-timeout", "silent-timeout", "s1 try-next-node silent"),
        ] {
            check(version, &format!("20-originate-{name}"), "a3", &format!("callx-{unique}-{number}"), expected);
        }
    }
}

/// `core restart now`: one agent is live, another one's phone rings, and Asterisk refuses what it is asked.
#[test]
fn a_restart_of_asterisk_13_and_18_gives_the_ring_back_and_ends_the_call() {
    for (version, number) in [("v13", "13"), ("v18", "18")] {
        for (action_id, unique, expected) in
            [("a3", "rs", "s1 live; > Ping; s1 ended node-lost"), ("a4", "rs2", "> Ping; s1 try-next-node node-lost")]
        {
            let mut stand = Stand::ready();
            stand.say("order s1");
            let mut seen = Vec::new();
            for message in messages(version, "61-restart") {
                if !message.is_event() || message.event_name() == Some(b"FullyBooted") {
                    continue;
                }
                seen.extend(stand.hear(&ours(&message, action_id, &format!("{unique}-{number}"))));
                if seen.last().is_some_and(|effect| effect == "> Ping") {
                    seen.push(stand.say("answer Ping error Asterisk is shutting down"));
                }
            }
            seen.retain(|effect| effect.starts_with("s1") || effect.starts_with('>'));
            assert_eq!(seen.join("; "), expected, "{version} {unique}");
        }
    }
}

#[test]
fn a_stop_of_asterisk_in_the_middle_gives_the_ring_back() {
    for version in ["v16", "v22"] {
        let all = messages(version, "61-ami-ring");
        let response = all.iter().find(|message| message.event_name() == Some(b"OriginateResponse"));
        let (id, unique) = match response {
            Some(response) => (response.shown("ActionID"), response.shown("Uniqueid")),
            None => continue_without(&all),
        };
        let mut stand = Stand::ready();
        stand.say("order s1");
        let mut seen = Vec::new();
        for message in all.iter().filter(|message| message.is_event() && message.event_name() != Some(b"FullyBooted")) {
            seen.extend(stand.hear(&ours(message, &id, &unique)));
        }
        seen.extend(stand.hand(evenring::node::Input::Closed { gone: false }));
        seen.extend(stand.hand(evenring::node::Input::Closed { gone: true }));
        seen.retain(|effect| effect.starts_with("s1"));
        assert_eq!(seen, ["s1 try-next-node node-lost"], "{version}");
    }
}

/// The capture ends before the response: any ids will do.
fn continue_without(all: &[Message]) -> (String, String) {
    let channel = all.iter().find(|message| message.event_name() == Some(b"Newchannel")).expect("a channel");
    ("none".to_owned(), channel.shown("Uniqueid"))
}

#[test]
fn every_answer_of_a_captured_chan_sip_phone() {
    for (unique, expected) in [
        ("sip-1", "s1 live; > Ping; s1 ended hung-up"),
        ("sip-busy", "s1 failed busy"),
        ("sip-decline", "s1 failed declined"),
        ("sip-480", "s1 failed phone-unavailable"),
    ] {
        let all = messages("v16", "50-chansip");
        let response = all.iter().find(|message| {
            message.event_name() == Some(b"OriginateResponse") && message.get("Uniqueid") == Some(unique.as_bytes())
        });
        let id = response.expect(unique).shown("ActionID");
        check("v16", "50-chansip", &id, unique, expected);
    }
}
