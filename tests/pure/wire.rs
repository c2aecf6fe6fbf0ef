//! What is said and what is read, for any input: nothing can be slipped in, and cuts make no difference.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "the helpers of tests may fail loudly, too")]

use std::time::Duration;

use bytes::BytesMut;
use evenring::ami::action::{Action, Originate, Target};
use evenring::ami::frame::{FrameError, Item, Limits, LineEnd, Message, Splitter};
use evenring::ids::{ChannelId, SessionId};
use proptest::collection::vec;
use proptest::prelude::*;

const BANNER: &[u8] = b"Asterisk Call Manager/11.0.0\r\n";

fn read(limits: Limits, pieces: &[&[u8]]) -> Result<Vec<Message>, FrameError> {
    let (mut splitter, mut buf, mut messages) = (Splitter::new(limits), BytesMut::new(), Vec::new());
    for piece in pieces {
        buf.extend_from_slice(piece);
        while let Some(item) = splitter.next(&mut buf)? {
            match item {
                Item::Message(message) => messages.push(message),
                Item::Banner(_) => {}
            }
        }
    }
    Ok(messages)
}

fn encode(action: &Action, id: &str) -> Option<Vec<u8>> {
    let mut out = BytesMut::new();
    action.encode(id, &mut out).ok().map(|()| out.to_vec())
}

/// As Asterisk reads requests (measured): LF ends a line, CR before it is dropped, an empty line ends the action.
fn actions_as_asterisk_counts(wire: &[u8]) -> usize {
    wire.split(|byte| *byte == b'\n').filter(|line| line.is_empty() || *line == b"\r").count() - 1
}

/// Text that is mostly harmless, with the bytes that are not.
fn any_text() -> impl Strategy<Value = String> {
    let spice = prop_oneof![
        Just("\r\n".to_owned()),
        Just("\n\nAction: Command".to_owned()),
        Just("\r".to_owned()),
        Just("\0".to_owned()),
        Just(",".to_owned()),
        "[a-zA-Z0-9:= ü]{0,8}",
    ];
    prop_oneof!["[a-zA-Z0-9_ ü:<>\"]{0,20}", vec(spice, 0..4).prop_map(|parts| parts.concat()), ".{0,600}"]
}

fn has_line_end(bytes: &[u8]) -> bool {
    bytes.windows(2).any(|pair| pair == b"\r\n")
}

/// What a caller may put into a value: anything that Asterisk passes on, so no CRLF.
fn any_content() -> impl Strategy<Value = Vec<u8>> {
    let spice = prop_oneof![
        Just(b"\n".to_vec()),
        Just(b"\n\n".to_vec()),
        Just(b"\r".to_vec()),
        Just(b"\n\nEvent: Shutdown\nShutdown: Cleanly\nRestart: False\n\n".to_vec()),
        Just(b"\nActionID: er-1\n".to_vec()),
        Just(b"--END COMMAND--\n\n".to_vec()),
        Just(b": ".to_vec()),
        vec(any::<u8>(), 0..12),
    ];
    vec(spice, 0..5).prop_map(|parts| parts.concat()).prop_filter("a CRLF ends the line", |value| !has_line_end(value))
}

proptest! {
    #[test]
    fn content_never_decides_about_framing(
        messages in vec((any::<bool>(), vec(any_content(), 0..6)), 1..6),
        stray in prop_oneof![Just(&b""[..]), Just(&b"\r\n"[..]), Just(&b"\n"[..]), Just(&b"\n\r\n"[..])],
        cut in any::<prop::sample::Index>(),
    ) {
        let mut stream = BANNER.to_vec();
        for (is_event, values) in &messages {
            stream.extend_from_slice(stray);
            stream.extend_from_slice(if *is_event { b"Event: Status\r\n" } else { b"Response: Success\r\n" });
            for value in values {
                stream.extend([b"Data: ", &value[..], b"\r\n"].concat());
            }
            stream.extend_from_slice(b"ActionID: er-2\r\n\r\n");
        }
        let (front, back) = stream.split_at(cut.index(stream.len()));
        let found = read(Limits::DEFAULT, &[front, back]).unwrap();
        prop_assert_eq!(found.len(), messages.len());
        for (message, (is_event, values)) in found.iter().zip(&messages) {
            prop_assert_eq!(message.all("Data").collect::<Vec<_>>(), values.iter().map(Vec::as_slice).collect::<Vec<_>>());
            prop_assert_eq!(message.event_name(), is_event.then_some(&b"Status"[..]));
            prop_assert_eq!((message.action_id(), message.headers().count()), (Some(&b"er-2"[..]), values.len() + 2));
        }
    }

    #[test]
    fn what_is_built_reads_back(headers in vec(("[A-Za-z][A-Za-z0-9_-]{0,20}", "[^\\x00-\\x1f\\x7f]{0,200}"), 0..20)) {
        let mut action = Action::new("Ping").unwrap();
        let mut expected = vec![("Action".to_owned(), "Ping".to_owned()), ("ActionID".to_owned(), "er-1".to_owned())];
        for (name, value) in headers {
            let Ok(longer) = action.clone().with(name.clone(), value.clone()) else { continue };
            action = longer;
            expected.push((name, value));
        }
        let wire = encode(&action, "er-1").unwrap();
        let found = read(Limits::DEFAULT, &[BANNER, &wire]).unwrap();
        prop_assert_eq!(found.len(), 1);
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let pairs: Vec<_> = found[0].headers().map(|(name, value)| (text(name), text(value))).collect();
        prop_assert_eq!(pairs, expected);
    }

    #[test]
    fn no_input_makes_a_second_action_or_header(texts in vec(any_text(), 8), exten in any::<bool>()) {
        let [channel, name, data, caller, variable, value, header, id] = texts.try_into().unwrap();
        let target = if exten {
            Target::Exten { context: name, exten: data, priority: 1 }
        } else {
            Target::Application { name, data }
        };
        let lines = if exten { 11 } else { 10 };
        let call = Originate {
            channel,
            target,
            caller_id: Some(caller),
            timeout: Duration::from_secs(1),
            variables: vec![(variable, value.clone())],
            channel_id: ChannelId(SessionId::from_bits(1)),
        };
        if let Ok(action) = Action::originate(&call)
            && let Some(wire) = encode(&action, &id)
        {
            prop_assert_eq!(actions_as_asterisk_counts(&wire), 1);
            prop_assert_eq!(read(Limits::DEFAULT, &[BANNER, &wire]).unwrap()[0].headers().count(), lines);
        }
        if let Ok(action) = Action::ping().with(header, value) {
            let wire = encode(&action, "er-1").unwrap();
            prop_assert_eq!(actions_as_asterisk_counts(&wire), 1);
            prop_assert_eq!(wire.iter().filter(|byte| **byte == b'\n').count(), 4);
        }
    }

    #[test]
    fn any_stream_reads_the_same_however_it_is_cut(
        parts in vec(prop_oneof![
            Just(&b"\r"[..]), Just(&b"\n"[..]), Just(&b"\r\n"[..]), Just(&b"\r\n\r\n"[..]), Just(&b": "[..]),
            Just(&b"Event"[..]), Just(&b"x"[..]), Just(&b"\xff\0"[..]), Just(&b"longer than the rest"[..]),
        ], 0..60),
        cuts in vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let limits = Limits { message_bytes: 64, headers: 8, ..Limits::DEFAULT };
        let stream = [BANNER, &parts.concat()].concat();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len())).collect();
        cuts.extend([0, stream.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &stream[pair[0]..pair[1]]).collect();
        let bytes: Vec<&[u8]> = stream.chunks(1).collect();
        let whole = read(limits, &[&stream]);
        prop_assert_eq!(&read(limits, &pieces), &whole);
        prop_assert_eq!(&read(limits, &bytes), &whole);
        for message in whole.unwrap_or_default() {
            prop_assert!(message.headers().all(|(name, value)| !has_line_end(name) && !has_line_end(value)));
            prop_assert!(message.headers().count() > 0);
        }
    }
}

#[test]
fn five_thousand_output_lines_are_one_message() {
    let body: String = (0..5000).map(|n| format!("Output: line {n}\r\n")).collect();
    let stream = [BANNER, b"Response: Success\r\n", body.as_bytes(), b"\r\n"].concat();
    for cut in [0, 1, 5000, stream.len()] {
        let (front, back) = stream.split_at(cut);
        let found = read(Limits::DEFAULT, &[front, back]).expect("one message");
        assert_eq!(found.iter().map(|message| message.headers().count()).collect::<Vec<_>>(), [5001]);
    }
}

#[test]
fn a_name_beyond_the_limit_is_too_long_wherever_it_is_cut() {
    let limits = Limits { message_bytes: 20, headers: 4, ..Limits::DEFAULT };
    for (name, fits) in [("x".repeat(12), true), ("x".repeat(13), true), ("x".repeat(14), false)] {
        let stream = format!("Event: {name}\r\n\r\n");
        for step in [1, 2, 5, 100] {
            let mut splitter = Splitter::without_banner(limits, LineEnd::CrLf).only(|_| false);
            let mut buf = BytesMut::new();
            let found = stream.as_bytes().chunks(step).try_for_each(|piece| {
                buf.extend_from_slice(piece);
                splitter.next(&mut buf).map(|_| ())
            });
            assert_eq!((found.is_ok(), splitter.skipped()), (fits, u64::from(fits)), "{name} by {step}");
        }
    }
}
