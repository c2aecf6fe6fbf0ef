//! Any words in any action: it is refused, or one action with just these headers stands on the wire.
#![no_main]

use std::time::Duration;

use bytes::BytesMut;
use evenring::ami::action::{Action, EventMask, Originate, Target};
use evenring::ami::frame::{Item, Limits, LineEnd, Splitter};
use evenring::ids::{ChannelId, SessionId};
use libfuzzer_sys::fuzz_target;

/// As Asterisk reads: LF ends a line, CR before it is dropped, an empty line ends the action.
fn one_action(wire: &[u8]) {
    let empty = |line: &&[u8]| line.is_empty() || **line == b"\r"[..];
    assert_eq!(wire.split(|byte| *byte == b'\n').filter(empty).count(), 2, "one empty line, and the end");
    assert!(wire.ends_with(b"\r\n\r\n"));
    assert!(wire.iter().all(|byte| *byte >= 0x20 && *byte != 0x7f || matches!(byte, b'\r' | b'\n')));
    assert_eq!(wire.iter().filter(|byte| **byte == b'\r').count(), wire.iter().filter(|byte| **byte == b'\n').count());
}

fn check(action: &Action, id: &str, expected: &[(&str, &str)]) {
    let mut wire = BytesMut::new();
    if action.encode(id, &mut wire).is_err() {
        assert!(wire.is_empty(), "nothing is left of what was refused");
        return;
    }
    one_action(&wire);
    let mut splitter = Splitter::without_banner(Limits::DEFAULT, LineEnd::CrLf);
    let Ok(Some(Item::Message(message))) = splitter.next(&mut wire) else { panic!("no message") };
    assert!(wire.is_empty());
    let found: Vec<_> = message.headers().collect();
    assert_eq!(found[1], (&b"ActionID"[..], id.as_bytes()));
    let expected: Vec<_> = expected.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
    assert_eq!(found[2..], expected);
}

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let words: Vec<&str> = text.split('|').collect();
    let word = |at: usize| words.get(at).copied().unwrap_or("x");
    if let Ok(action) = Action::new(word(0).to_owned()) {
        let (mut action, mut expected) = (action, Vec::new());
        for pair in words.get(1..).unwrap_or_default().chunks(2) {
            let [name, value] = pair else { break };
            if let Ok(longer) = action.clone().with((*name).to_owned(), *value) {
                action = longer;
                expected.push((*name, *value));
            }
        }
        check(&action, "er-1", &expected);
        check(&action, word(1), &expected);
    }
    let target = if data.len() % 2 == 0 {
        Target::Application { name: word(1).into(), data: word(2).into() }
    } else {
        Target::Exten { context: word(1).into(), exten: word(2).into(), priority: 1 }
    };
    let call = Originate {
        channel: word(0).into(),
        target: target.clone(),
        caller_id: Some(word(3).into()),
        timeout: Duration::from_secs(1),
        variables: vec![(word(4).into(), word(5).into())],
        channel_id: ChannelId(SessionId::from_bits(1)),
    };
    if let Ok(action) = Action::originate(&call) {
        let variable = format!("{}={}", word(4), word(5));
        let mut expected = vec![
            ("Channel", word(0)),
            ("ChannelId", "evenring-0000000000000001"),
            ("Timeout", "1000"),
            ("Async", "true"),
        ];
        match target {
            Target::Application { .. } => expected.extend([("Application", word(1)), ("Data", word(2))]),
            Target::Exten { .. } => expected.extend([("Context", word(1)), ("Exten", word(2)), ("Priority", "1")]),
        }
        expected.extend([("CallerID", word(3)), ("Variable", &variable)]);
        check(&action, word(6), &expected);
    }
    if let Ok(action) =
        Action::login(word(0), &secrecy::SecretString::from(word(1)), word(2).as_bytes(), &EventMask::DAEMON)
    {
        let mut wire = BytesMut::new();
        action.encode("er-1", &mut wire).unwrap();
        one_action(&wire);
    }
});
