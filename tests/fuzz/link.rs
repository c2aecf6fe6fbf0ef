//! A server that says anything at any time: no panic, one action a write, and each action answered exactly once.
#![no_main]

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::BytesMut;
use evenring::ami::action::{Action, EventMask};
use evenring::ami::frame::{Limits, Splitter};
use evenring::ami::id::originate_action_id;
use evenring::ami::link::{Boot, Link, LinkSettings};
use evenring::ami::outcome::{Answer, LinkEffect, NotSent, Stage, Tag};
use evenring::ids::{Generation, Now, SessionId};
use libfuzzer_sys::fuzz_target;

struct World {
    link: Link,
    splitter: Splitter,
    buf: BytesMut,
    now: Now,
    /// Answers of each action.
    answers: BTreeMap<u64, u32>,
    /// Actions that stand on the wire.
    writes: u64,
    given: usize,
    written: usize,
    over: bool,
}

fn settings(boot: Boot) -> LinkSettings {
    LinkSettings {
        username: "lab".into(),
        secret: "labsecret".into(),
        events: EventMask::DAEMON,
        ping_interval: Duration::from_secs(2),
        ping_timeout: Duration::from_secs(1),
        login_timeout: Duration::from_secs(4),
        action_timeout: Duration::from_secs(5),
        devices_most: 100_000,
        boot,
        generation: Generation::from_bits(0xfeed),
        connection: 0,
    }
}

impl World {
    fn hear(&mut self, bytes: &[u8]) {
        self.buf.extend_from_slice(bytes);
        loop {
            match self.splitter.next(&mut self.buf) {
                Ok(Some(item)) => self.link.received(item, self.now),
                Ok(None) => break,
                Err(error) => {
                    self.link.unreadable(error);
                    break;
                }
            }
        }
        self.effects();
    }

    fn effects(&mut self) {
        while let Some(effect) = self.link.next_effect() {
            assert!(
                !self.over || matches!(effect, LinkEffect::Answer { answer: Answer::NotSent(_), .. }),
                "{effect:?}"
            );
            match effect {
                LinkEffect::Write(bytes) => {
                    self.writes += 1;
                    self.given += bytes.len();
                    assert!(bytes.starts_with(b"Action: ") && bytes.ends_with(b"\r\n\r\n"));
                    assert_eq!(bytes.windows(4).filter(|four| four == b"\r\n\r\n").count(), 1);
                }
                LinkEffect::Answer { tag: Tag(tag), answer } => {
                    let count = self.answers.get_mut(&tag).expect("an action that was sent");
                    *count += 1;
                    assert_eq!(*count, 1, "answered twice: {tag}");
                    if self.written == self.given && self.link.stage() == Stage::Closed && !self.over {
                        assert!(!matches!(answer, Answer::NotSent(NotSent::TooManyOpen { .. })));
                    }
                }
                LinkEffect::Close(_) => self.over = true,
                LinkEffect::LoggedIn { .. }
                | LinkEffect::Booted
                | LinkEffect::Stalled
                | LinkEffect::ShuttingDown(_)
                | LinkEffect::Event(_) => {}
            }
        }
    }

    fn send(&mut self, kind: u8) {
        let tag = self.answers.len() as u64;
        self.answers.insert(tag, 0);
        let (action, own_id) = match kind % 5 {
            0 => (Action::status(&[]), None),
            1 => (Action::pjsip_show_contacts(), None),
            2 => (Action::new("Originate").expect("a name"), Some(u32::from(kind) / 5)),
            3 => (Action::hangup(evenring::ids::ChannelId(SessionId::from_bits(1))), None),
            _ => (Action::device_state_list(), Some(u32::from(kind) / 5)),
        };
        match own_id {
            None => self.link.send(Tag(tag), action, self.now),
            Some(number) => {
                let id = originate_action_id(Generation::from_bits(0xfeed), SessionId::from_bits(7), number);
                self.link.send_with_id(Tag(tag), &id, action, self.now);
            }
        }
        self.effects();
    }

    fn wait(&mut self, millis: u64) {
        let until = self.now.after(Duration::from_millis(millis));
        for _ in 0..20_000 {
            let Some(at) = self.link.next_deadline().filter(|at| *at <= until) else { break };
            self.now = self.now.max(at);
            self.link.timer(self.now);
            assert!(self.link.next_deadline() != Some(at), "a timer that stays due");
            self.effects();
        }
        self.now = until;
    }
}

/// Words that matter, so that chance meets them.
const WORDS: [&str; 24] = [
    "Response: Success\r\n",
    "Response: Error\r\n",
    "Response: Goodbye\r\n",
    "Response: Follows\r\n",
    "--END COMMAND--\r\n\r\n",
    "\r\n",
    "ActionID: er-000000000000feed-1\r\n",
    "ActionID: er-000000000000feed-2\r\n",
    "ActionID: er-000000000000feed-3\r\n",
    "ActionID: er-000000000000feed-4\r\n",
    "ActionID: er-000000000000feed-5\r\n",
    "ActionID: er-000000000000feed-6\r\n",
    "ActionID: er-000000000000feed-o-0000000000000007-0\r\n",
    "ActionID: er-000000000000feed-o-0000000000000007-1\r\n",
    "EventList: start\r\n",
    "EventList: Complete\r\n",
    "ListItems: 1\r\n",
    "Event: FullyBooted\r\n",
    "Event: Status\r\n",
    "Event: OriginateResponse\r\n",
    "Challenge: 1\r\n",
    "Message: No Contacts found\r\n",
    "Message: Asterisk is shutting down\r\n",
    "Asterisk Call Manager/11.0.0\r\n",
];

const LOGIN: &str = "Asterisk Call Manager/11.0.0\r\nResponse: Success\r\nActionID: er-000000000000feed-1\r\nChallenge: 1\r\n\r\n\
    Response: Success\r\nActionID: er-000000000000feed-2\r\n\r\nEvent: FullyBooted\r\n\r\n";

fuzz_target!(|data: &[u8]| {
    let Some((first, data)) = data.split_first() else { return };
    let boot = if first & 1 == 1 { Boot::Awaited } else { Boot::NotAwaited };
    let mut world = World {
        link: Link::new(settings(boot), Now::default()),
        splitter: Splitter::new(Limits { message_bytes: 4096, headers: 64, ..Limits::DEFAULT }),
        buf: BytesMut::new(),
        now: Now::default(),
        answers: BTreeMap::new(),
        writes: 0,
        given: 0,
        written: 0,
        over: false,
    };
    if first & 2 == 2 {
        world.hear(LOGIN.as_bytes());
        assert_eq!(world.link.stage(), Stage::Up);
    }
    let mut rest = data;
    while let Some(([op, value], after)) = rest.split_first_chunk::<2>() {
        rest = after;
        match op % 10 {
            0..=4 => world.hear(WORDS[usize::from(*value) % WORDS.len()].as_bytes()),
            5 => world.send(*value),
            6 => world.wait(u64::from(*value) * 20),
            7 => {
                let count = usize::from(*value).min(world.given - world.written);
                world.written += count;
                world.link.written(count);
            }
            8 => {
                let count = usize::from(*value).min(rest.len());
                let (bytes, after) = rest.split_at(count);
                rest = after;
                world.hear(bytes);
            }
            _ => match value % 4 {
                0 => world.link.closed(world.now),
                1 => world.link.logoff(world.now),
                2 => world.link.kept_waiting(world.now),
                _ => world.wait(1),
            },
        }
        world.effects();
    }
    world.link.closed(world.now);
    world.effects();
    assert!(world.over, "a session that is closed is over");
    assert!(world.answers.values().all(|count| *count == 1), "each action has its answer: {:?}", world.answers);
    assert_eq!(world.link.next_deadline(), None);
});
