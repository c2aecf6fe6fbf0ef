//! Whole dialogues with [`Link`], without a socket: what Asterisk says on the left, what follows on the right.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "the helpers of tests may fail loudly, too")]

use std::time::Duration;

use bytes::BytesMut;
use evenring::ami::action::{Action, EventMask, Originate, Target};
use evenring::ami::event::Event;
use evenring::ami::frame::{Item, Limits, Message, Splitter};
use evenring::ami::id::{originate_action_id, session_of_action_id};
use evenring::ami::item::ChannelItem;
use evenring::ami::link::{Boot, LIST_ITEMS, Link, LinkSettings, OPEN_ACTIONS};
use evenring::ami::outcome::{Answer, CloseReason, LinkEffect, Stage, Strays, Tag};
use evenring::ids::{ChannelId, Generation, Now, SessionId};

/// What stands before the number in the ActionIDs of these sessions.
const IDS: &str = "er-000000000000feed-";
const BANNER: &str = "Asterisk Call Manager/11.0.0\r\n";
const CHALLENGE: &str = "Response: Success\r\nActionID: #1\r\nChallenge: 385620988\r\n\r\n";
const ACCEPTED: &str = "Response: Success\r\nActionID: #2\r\nMessage: Authentication accepted\r\n\r\n";
const BOOTED: &str = "Event: FullyBooted\r\nPrivilege: system,all\r\nUptime: 5\r\n\r\n";

fn generation() -> Generation {
    Generation::from_bits(0xfeed)
}

fn session() -> SessionId {
    SessionId::from_bits(0xab)
}

fn settings() -> LinkSettings {
    LinkSettings {
        username: "lab".into(),
        secret: "labsecret".into(),
        events: EventMask::DAEMON,
        ping_interval: Duration::from_secs(2),
        ping_timeout: Duration::from_millis(900),
        login_timeout: Duration::from_secs(4),
        action_timeout: Duration::from_secs(5),
        devices_most: 100_000,
        boot: Boot::Awaited,
        generation: generation(),
        connection: 0,
    }
}

/// A session, the bytes that reach it, and its clock.
struct Talk {
    link: Link,
    splitter: Splitter,
    buf: BytesMut,
    now: Now,
    lists: Vec<Vec<Message>>,
    wire: String,
}

impl Talk {
    fn new(settings: LinkSettings) -> Self {
        let link = Link::new(settings, Now::default());
        let (splitter, buf) = (Splitter::new(Limits::DEFAULT), BytesMut::new());
        Self { link, splitter, buf, now: Now::default(), lists: Vec::new(), wire: String::new() }
    }

    /// One that is booted.
    fn up() -> Self {
        Self::up_with(settings())
    }

    fn up_with(settings: LinkSettings) -> Self {
        let mut talk = Self::new(settings);
        talk.hear(&[BANNER, CHALLENGE, ACCEPTED, BOOTED].concat());
        assert_eq!(talk.link.stage(), Stage::Up);
        talk
    }

    /// Asterisk says this; `#n` stands for the ActionID that the session gave its n-th action.
    fn hear(&mut self, text: &str) -> Vec<String> {
        self.hear_bytes(text.replace("ActionID: #", &format!("ActionID: {IDS}")).as_bytes())
    }

    fn hear_bytes(&mut self, bytes: &[u8]) -> Vec<String> {
        self.buf.extend_from_slice(bytes);
        loop {
            match self.splitter.next(&mut self.buf) {
                Ok(Some(item)) => self.link.received(item, self.now),
                Ok(None) => return self.effects(),
                Err(error) => {
                    self.link.unreadable(error);
                    return self.effects();
                }
            }
        }
    }

    fn send(&mut self, tag: u64, action: Action) -> Vec<String> {
        self.link.send(Tag(tag), action, self.now);
        self.effects()
    }

    fn ring(&mut self, tag: u64, attempt: u32) -> Vec<String> {
        let id = originate_action_id(generation(), session(), attempt);
        self.link.send_with_id(Tag(tag), &id, originate(), self.now);
        self.effects()
    }

    /// Lets time pass, with every timer on the way at its moment.
    fn wait_ms(&mut self, millis: u64) -> Vec<String> {
        let (until, mut seen) = (self.now.after(Duration::from_millis(millis)), Vec::new());
        while let Some(at) = self.link.next_deadline().filter(|at| *at <= until) {
            assert!(at >= self.now, "a deadline lies in the past");
            self.now = at;
            self.link.timer(at);
            assert!(self.link.next_deadline() != Some(at), "a timer that stays due");
            seen.extend(self.effects());
        }
        self.now = until;
        seen
    }

    /// As [`Talk::wait_ms`], with every ping answered at once and not shown.
    fn wait_ms_with_pongs(&mut self, millis: u64) -> Vec<String> {
        let (until, mut seen) = (self.now.after(Duration::from_millis(millis)), Vec::new());
        while self.now < until {
            for effect in self.wait_ms(1) {
                match effect.strip_prefix("> Ping #") {
                    Some(id) => {
                        assert_eq!(self.hear(&format!("Response: Success\r\nActionID: #{id}\r\n\r\n")), [""; 0])
                    }
                    None => seen.push(effect),
                }
            }
        }
        seen
    }

    fn effects(&mut self) -> Vec<String> {
        let mut seen = Vec::new();
        while let Some(effect) = self.link.next_effect() {
            seen.push(self.show(effect));
        }
        seen
    }

    fn show(&mut self, effect: LinkEffect) -> String {
        match effect {
            LinkEffect::Write(bytes) => {
                self.link.written(bytes.len());
                self.wire = String::from_utf8(bytes.to_vec()).unwrap();
                let mut lines = self.wire.lines();
                let mut value = |name: &str| lines.next().unwrap().strip_prefix(name).unwrap().replace(IDS, "#");
                format!("> {} {}", value("Action: "), value("ActionID: "))
            }
            LinkEffect::LoggedIn { version } => format!("logged in {version}"),
            LinkEffect::Booted => "booted".into(),
            LinkEffect::Stalled => "stalled".into(),
            LinkEffect::ShuttingDown(is) => format!("shutting down: {is}"),
            LinkEffect::Event(message) => format!("event {}", message.shown("Event")),
            LinkEffect::Answer { tag: Tag(tag), answer } => match answer {
                Answer::Success(message) => format!("{tag}: success {}", message.shown("Message")),
                Answer::Error { message, .. } => format!("{tag}: error {message}"),
                Answer::List { items } => {
                    self.lists.push(items);
                    format!("{tag}: list of {}", self.lists.last().unwrap().len())
                }
                Answer::NotSent(reason) => format!("{tag}: not sent, {reason}"),
                Answer::Unknown(reason) => format!("{tag}: unknown, {reason}"),
            },
            LinkEffect::Close(reason) => format!("close: {reason}"),
        }
    }
}

fn originate() -> Action {
    Action::originate(&Originate {
        channel: "PJSIP/cc105".into(),
        target: Target::Application { name: "ConfBridge".into(), data: "8600051".into() },
        caller_id: None,
        timeout: Duration::from_secs(20),
        variables: Vec::new(),
        channel_id: ChannelId(session()),
    })
    .unwrap()
}

fn fixture(name: &str) -> Vec<u8> {
    let path = format!("{}/proto-fixtures/{name}.ami", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A captured dialogue as if its client had been this session: there, `a1` is the challenge and `a2` the login.
fn captured(name: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for line in fixture(name).split_inclusive(|byte| *byte == b'\n') {
        match line.strip_prefix(b"ActionID: a") {
            Some(rest) => out.extend([b"ActionID: ", IDS.as_bytes(), rest].concat()),
            None => out.extend(line),
        }
    }
    out
}

#[test]
fn the_login_is_the_one_that_real_asterisk_accepted() {
    for (version, name, key) in [
        ("5.0.4", "v16/01-login-md5", "af30a81a382b343211f5956e48152bc1"),
        ("11.0.0", "v22/01-login-md5", "f53db886d6af594d03d092de4b8bee49"),
    ] {
        let mut talk = Talk::new(settings());
        let seen = talk.hear_bytes(&captured(name));
        let logged_in = format!("logged in {version}");
        let expected =
            ["> Challenge #1", "> Login #2", &logged_in, "booted", "event FullyBooted", "event SuccessfulAuth"];
        assert_eq!(seen, expected);
        let login = format!("Action: Login\r\nActionID: {IDS}2\r\nAuthType: MD5\r\nUsername: lab\r\nKey: {key}\r\n");
        assert_eq!(talk.wire, format!("{login}Events: system,call,agent\r\n\r\n"));
        assert_eq!(
            talk.link.strays(),
            Strays { foreign: 2, ..Strays::default() },
            "answers to the capture's own actions"
        );
    }
}

#[test]
fn a_wrong_password_is_said_so() {
    let mut talk = Talk::new(settings());
    let seen = talk.hear_bytes(&captured("v22/02-badlogin-wrong-md5"));
    let reason = "close: Asterisk refused the login of lab: Authentication failed; check user, secret, permit and deny \
        in manager.conf";
    assert_eq!(seen, ["> Challenge #1", "> Login #2", reason]);
    talk.link.closed(talk.now);
    assert_eq!(talk.hear(BOOTED), [""; 0], "nothing follows the end");
    assert_eq!((talk.link.next_deadline(), talk.link.stage()), (None, Stage::Closed));
}

#[test]
fn asterisk_that_ends_says_so_at_the_login() {
    let expected = "close: Asterisk is shutting down; no action needed, evenring reconnects";
    for id in ["ActionID: #1\r\n", ""] {
        let mut talk = Talk::new(settings());
        talk.hear(BANNER);
        let answer = format!("Response: Error\r\n{id}Message: Asterisk is shutting down\r\n\r\n");
        assert_eq!(talk.hear(&answer), ["shutting down: true", expected]);
    }
    let mut talk = Talk::new(settings());
    talk.hear(&[BANNER, CHALLENGE].concat());
    let answer = "Response: Error\r\nActionID: #2\r\nMessage: Asterisk is shutting down\r\n\r\n";
    assert_eq!(talk.hear(answer), ["shutting down: true", expected]);
}

/// As both versions do after `core stop gracefully` and `core abort shutdown`.
#[test]
fn asterisk_that_lets_calls_end_says_so_with_every_answer_and_a_ping_tells_that_it_goes_on() {
    let mut talk = Talk::up();
    let refusal = |id: &str| format!("Response: Error\r\nActionID: {id}\r\nMessage: Asterisk is shutting down\r\n\r\n");
    let pong = |id: &str| format!("Response: Success\r\nActionID: {id}\r\nPing: Pong\r\n\r\n");
    assert_eq!(talk.wait_ms(2000), ["> Ping #3"]);
    assert_eq!(talk.hear(&refusal("#3")), ["shutting down: true"]);
    assert_eq!(talk.wait_ms(2000), ["> Ping #4"]);
    assert_eq!(talk.hear(&refusal("#4")), [""; 0], "said once");
    assert_eq!(talk.wait_ms(2000), ["> Ping #5"]);
    assert_eq!(talk.hear(&pong("#5")), ["shutting down: false"]);
    // Whoever asks first finds it out, and nobody else's success says that it is over.
    talk.ring(7, 0);
    let heard = talk.hear(&refusal("#o-00000000000000ab-0"));
    assert_eq!(heard, ["shutting down: true", "7: error Asterisk is shutting down"]);
    assert_eq!(talk.wait_ms(2000), ["> Ping #6"]);
    assert_eq!(talk.hear(&pong("#6")), ["shutting down: false"]);
}

#[test]
fn another_service_is_recognised() {
    let seen = Talk::new(settings()).hear("SSH-2.0-OpenSSH_9.6\r\n");
    assert_eq!(seen.len(), 1);
    assert!(seen[0].starts_with("close: the peer is not Asterisk's AMI") && seen[0].contains("SSH-2.0"), "{seen:?}");
}

#[test]
fn a_login_that_does_not_come_about_ends() {
    let mut talk = Talk::new(settings());
    assert_eq!(talk.wait_ms(3999), [""; 0]);
    assert!(talk.wait_ms(1)[0].starts_with("close: no complete login within 4s (stuck before its greeting)"));
    let mut talk = Talk::new(settings());
    talk.wait_ms(3000);
    talk.hear(&[BANNER, CHALLENGE].concat());
    assert_eq!(talk.wait_ms(999), [""; 0]);
    assert!(talk.wait_ms(1)[0].starts_with("close: no complete login within 4s (stuck during the login)"));
    let mut talk = Talk::new(LinkSettings { username: "lab\r\nAction: Ping".into(), ..settings() });
    let seen = talk.hear(&[BANNER, CHALLENGE].concat());
    assert!(seen[1].starts_with("close: cannot send the login: Username has the byte 0x0d"), "{seen:?}");
}

#[test]
fn nothing_is_sent_before_asterisk_is_booted() {
    let mut talk = Talk::new(settings());
    assert_eq!(talk.ring(1, 0), ["1: not sent, Asterisk is not ready yet"]);
    talk.hear(&[BANNER, CHALLENGE].concat());
    assert_eq!(talk.ring(2, 0), ["2: not sent, Asterisk is not ready yet"]);
    assert_eq!(talk.hear(ACCEPTED), ["logged in 11.0.0"]);
    assert_eq!(talk.ring(3, 0), ["3: not sent, Asterisk is not ready yet"]);
    assert_eq!(talk.hear("Event: PeerStatus\r\nPeer: PJSIP/cc100\r\n\r\n"), ["event PeerStatus"]);
    assert_eq!(talk.wait_ms(2000), ["> Ping #3"], "a ping is allowed while it boots");
    talk.hear("Response: Success\r\nActionID: #3\r\nPing: Pong\r\n\r\n");
    assert_eq!(talk.hear(BOOTED), ["booted", "event FullyBooted"]);
    assert_eq!(talk.ring(4, 0), ["> Originate #o-00000000000000ab-0"]);
    assert_eq!(talk.hear(BOOTED), ["event FullyBooted"], "booted is said once");
}

#[test]
fn a_boot_that_takes_long_is_remarked_upon_once() {
    let mut talk = Talk::new(LinkSettings { ping_interval: Duration::from_secs(600), ..settings() });
    talk.hear(&[BANNER, CHALLENGE, ACCEPTED].concat());
    assert_eq!(talk.wait_ms(9_999), [""; 0]);
    assert_eq!(talk.wait_ms(60_000), ["stalled"]);
    assert_eq!(talk.hear(BOOTED), ["booted", "event FullyBooted"]);
    let mut talk = Talk::new(LinkSettings { boot: Boot::NotAwaited, ..settings() });
    assert_eq!(talk.hear(&[BANNER, CHALLENGE, ACCEPTED].concat())[2..], ["logged in 11.0.0", "booted"]);
}

#[test]
fn a_peer_that_does_not_answer_pings_is_gone() {
    let mut talk = Talk::up();
    for ping in 3..6 {
        assert_eq!(talk.wait_ms(1999), [""; 0]);
        assert_eq!(talk.wait_ms(1), [format!("> Ping #{ping}")]);
        talk.wait_ms(500);
        let answer = format!("Response: Success\r\nActionID: #{ping}\r\nPing: Pong\r\n\r\n");
        assert_eq!(talk.hear(&answer), [""; 0]);
    }
    talk.ring(7, 0);
    assert_eq!(talk.wait_ms(2000), ["> Ping #6"]);
    talk.hear("Response: Success\r\nActionID: #5\r\nPing: Pong\r\n\r\nEvent: PeerStatus\r\n\r\n");
    let reason =
        "close: Asterisk did not answer a ping within 900ms; evenring reconnects, check the host and the network";
    assert_eq!(talk.wait_ms(5000), ["7: unknown, the connection ended before the answer came", reason]);
}

#[test]
fn an_action_without_answer_is_unknown() {
    let mut talk = Talk::up();
    assert_eq!(talk.ring(1, 0), ["> Originate #o-00000000000000ab-0"]);
    assert_eq!(talk.ring(2, 0), ["2: not sent, its ActionID is already in use"]);
    talk.now = talk.now.after(Duration::from_secs(1));
    assert_eq!(talk.send(3, Action::device_state_list()), ["> DeviceStateList #3"]);
    let seen: Vec<_> = talk.wait_ms_with_pongs(3_999);
    assert_eq!(seen, [""; 0]);
    assert_eq!(talk.wait_ms_with_pongs(1), ["1: unknown, no answer within 5s"]);
    assert_eq!(talk.wait_ms_with_pongs(1000), ["3: unknown, no answer within 5s"]);
    let late = "Response: Success\r\nActionID: #o-00000000000000ab-0\r\n\r\n";
    assert_eq!(talk.hear(late), [""; 0]);
    assert_eq!(
        talk.hear("Event: DeviceStateChange\r\nActionID: #3\r\nDevice: PJSIP/a\r\nState: BUSY\r\n\r\n"),
        [""; 0]
    );
    assert_eq!(talk.link.strays(), Strays { foreign: 1, late: 1, ..Strays::default() });
    assert_eq!(talk.link.open_actions(), 0);
}

#[test]
fn a_connection_that_ends_leaves_open_rings_unknown_and_repeats_nothing() {
    let mut talk = Talk::up();
    talk.ring(1, 0);
    talk.ring(2, 1);
    talk.hear("Response: Success\r\nActionID: #o-00000000000000ab-0\r\nMessage: Originate successfully queued\r\n\r\n");
    talk.send(3, Action::ping());
    talk.link.closed(talk.now);
    let unknown = |tag| format!("{tag}: unknown, the connection ended before the answer came");
    let seen = talk.effects();
    assert_eq!(seen[..2], [unknown(2), unknown(3)]);
    assert!(seen[2].starts_with("close: Asterisk closed the connection while in use;"), "{seen:?}");
    assert_eq!(talk.ring(4, 2), ["4: not sent, the session is over"]);
    assert_eq!(talk.wait_ms(60_000), [""; 0]);
}

#[test]
fn an_action_that_was_not_written_to_its_end_was_not_sent() {
    let mut talk = Talk::up();
    talk.ring(1, 0);
    talk.link.send(Tag(2), Action::ping(), talk.now);
    let Some(LinkEffect::Write(bytes)) = talk.link.next_effect() else { panic!("nothing to write") };
    talk.link.written(bytes.len() - 1);
    talk.link.closed(talk.now);
    let seen = talk.effects();
    assert_eq!(seen[0], "1: unknown, the connection ended before the answer came");
    assert_eq!(seen[1], "2: not sent, the session is over");
}

#[test]
fn a_ping_is_not_late_while_its_owner_could_not_read() {
    let mut talk = Talk::up();
    assert_eq!(talk.wait_ms(2000), ["> Ping #3"]);
    talk.wait_ms(800);
    talk.link.kept_waiting(talk.now);
    assert_eq!(talk.wait_ms(899), [""; 0]);
    assert!(talk.wait_ms(1)[0].starts_with("close: Asterisk did not answer a ping within 900ms"));
}

#[test]
fn a_real_list_comes_whole_while_another_action_is_open() {
    for version in ["v16", "v22"] {
        let mut talk = Talk::new(settings());
        let bytes = captured(&format!("{version}/20-originate-app-answered-reconnect"));
        let booted = BOOTED.len() + bytes.windows(18).position(|text| text == b"Event: FullyBooted").unwrap();
        let cut = booted + bytes[booted..].windows(4).position(|text| text == b"\r\n\r\n").unwrap() + 4;
        talk.hear_bytes(&bytes[..cut]);
        assert_eq!(talk.send(10, Action::core_show_channels()), ["> CoreShowChannels #3"]);
        assert_eq!(talk.send(11, Action::status(&["LAB_B"])), ["> Status #4"]);
        let seen = talk.hear_bytes(&bytes[cut..]);
        let answers: Vec<_> = seen.iter().filter(|effect| effect.contains(": ")).collect();
        assert_eq!(answers, ["10: list of 1", "11: list of 1"], "{version}");
        assert!(seen.iter().any(|effect| effect == "event Hangup"), "{seen:?}");
        for list in &talk.lists {
            let item = ChannelItem::parse(&list[0]).unwrap().unwrap();
            assert_eq!(item.channel.unique, format!("callx-app-1-{}", &version[1..]).as_bytes());
        }
    }
}

#[test]
fn answers_find_their_action_in_any_order_and_foreign_ones_harm_nothing() {
    let mut talk = Talk::up();
    talk.send(1, Action::status(&[]));
    talk.send(2, Action::hangup(ChannelId(session())));
    talk.send(3, Action::pjsip_show_contacts());
    let answers = [
        "Response: Success\r\nActionID: a3\r\nMessage: foreign\r\n\r\n",
        "Response: Success\r\nActionID: er-00000000000000aa-3\r\n\r\n",
        "Response: Error\r\nMessage: Missing action in request\r\n\r\n",
        "Odd: 1\r\n\r\n",
        "Response: Error\r\nActionID: #5\r\nMessage: No Contacts found\r\n\r\n",
        "Response: Success\r\nEventList: start\r\nActionID: #3\r\n\r\n",
        "Event: Status\r\nUniqueid: u\r\nActionID: #3\r\n\r\n",
        "Event: PeerStatus\r\nPeer: PJSIP/cc100\r\n\r\n",
        "Response: Error\r\nActionID: #4\r\nMessage: No such \x1b[2Jchannel\r\n\r\n",
        "Event: Status\r\nUniqueid: v\r\nActionID: #3\r\n\r\n",
        "Event: StatusComplete\r\nActionID: #3\r\nEventList: Complete\r\nListItems: 2\r\n\r\n",
    ];
    let seen = talk.hear(&answers.concat());
    assert_eq!(seen, ["3: list of 0", "event PeerStatus", "2: error No such \\u{1b}[2Jchannel", "1: list of 2"]);
    assert_eq!(talk.link.strays(), Strays { unaddressed: 1, foreign: 2, late: 0, unreadable: 1 });
}

#[test]
fn the_outcome_of_a_ring_is_an_event_even_before_its_answer() {
    let mut talk = Talk::up();
    talk.ring(1, 0);
    let early = "Event: OriginateResponse\r\nActionID: #o-00000000000000ab-0\r\nResponse: Failure\r\nReason: 0\r\nUniqueid: u\r\n\r\n";
    assert_eq!(talk.hear(early), ["event OriginateResponse"]);
    assert_eq!(talk.hear("Event: Odd\r\nActionID: #o-00000000000000ab-0\r\nResponse: Success\r\n\r\n"), ["event Odd"]);
    let answer =
        "Response: Success\r\nActionID: #o-00000000000000ab-0\r\nMessage: Originate successfully queued\r\n\r\n";
    assert_eq!(talk.hear(answer), ["1: success Originate successfully queued"]);
    assert_eq!(talk.hear(early), ["event OriginateResponse"]);
    assert_eq!(talk.hear(&early.replace("#o-", "someone-else-")), ["event OriginateResponse"]);
    let message = Message::new(early.replace("#", IDS));
    let Event::OriginateResponse { action_id: Some(id), .. } = Event::parse(&message).unwrap() else {
        panic!("{message:?}");
    };
    assert_eq!(session_of_action_id(id), Some((generation(), session(), 0)));
}

#[test]
fn the_outcome_of_a_ring_under_a_plain_id_comes_late_and_is_shown() {
    let mut talk = Talk::up();
    assert_eq!(talk.send(1, originate()), ["> Originate #3"]);
    talk.hear("Response: Success\r\nActionID: #3\r\n\r\n");
    assert_eq!(talk.hear("Event: OriginateResponse\r\nActionID: #3\r\n\r\n"), ["event OriginateResponse"]);
    assert_eq!(talk.hear("Event: Hangup\r\nUniqueid: u\r\n\r\n"), ["event Hangup"]);
}

#[test]
fn an_id_that_is_used_again_has_its_own_deadline() {
    let answer = "Response: Success\r\nActionID: #o-00000000000000ab-0\r\nMessage: queued\r\n\r\n";
    let mut talk = Talk::up();
    talk.send(1, Action::core_show_channels());
    talk.ring(2, 0);
    assert_eq!(talk.hear(answer), ["2: success queued"]);
    talk.wait_ms_with_pongs(1000);
    talk.ring(3, 0);
    assert_eq!(talk.hear("Response: Error\r\nActionID: #3\r\nMessage: no\r\n\r\n"), ["1: error no"]);
    assert_eq!(talk.wait_ms_with_pongs(4999), [""; 0]);
    assert_eq!(talk.wait_ms_with_pongs(1), ["3: unknown, no answer within 5s"]);
}

#[test]
fn a_list_that_lost_items_is_no_answer() {
    let mut talk = Talk::up();
    talk.send(1, Action::device_state_list());
    let start = "Response: Success\r\nActionID: #3\r\nEventList: start\r\n\r\n";
    let item = "Event: DeviceStateChange\r\nActionID: #3\r\nDevice: PJSIP/a\r\nState: BUSY\r\n\r\n";
    let end = "Event: DeviceStateListComplete\r\nActionID: #3\r\nEventList: Complete\r\nListItems: 2\r\n\r\n";
    let seen = talk.hear(&[start, item, end].concat());
    assert_eq!(seen, ["1: unknown, the list has 1 items, but Asterisk counted 2"]);
    talk.send(2, Action::device_state_list());
    let end = end.replace("#3", "#4").replace("Complete\r\nList", "cancelled\r\nList");
    assert_eq!(talk.hear(&[start.replace("#3", "#4"), end].concat()), ["2: error the list was cancelled"]);
    talk.send(3, Action::status(&[]));
    talk.hear(&start.replace("#3", "#5"));
    let item = Message::new(item.replace("#3", &format!("{IDS}5")).into_bytes());
    for _ in 0..LIST_ITEMS + 2 {
        talk.link.received(Item::Message(item.clone()), talk.now);
    }
    assert_eq!(talk.effects(), ["3: unknown, the list has more than 100000 items"]);
    assert_eq!(talk.link.strays().late, 1);
}

#[test]
fn of_too_many_devices_the_first_are_kept_and_the_others_counted() {
    let mut talk = Talk::up_with(LinkSettings { devices_most: 2, ..settings() });
    let lists = [Action::device_state_list(), Action::sip_peers(), Action::iax_peers()];
    for (at, action) in lists.into_iter().enumerate() {
        let id = format!("#{}", at + 3);
        talk.send(1, action);
        let start = format!("Response: Success\r\nActionID: {id}\r\nEventList: start\r\n\r\n");
        let item = format!("Event: DeviceStateChange\r\nActionID: {id}\r\nDevice: PJSIP/a\r\nState: BUSY\r\n\r\n");
        let end =
            |count| format!("Event: XComplete\r\nActionID: {id}\r\nEventList: Complete\r\nListItems: {count}\r\n\r\n");
        let (count, said) = match at {
            0 => (5, "1: unknown, the list has 3 items beyond the first 2, which are kept"),
            1 => (2, "1: list of 2"),
            _ => (4, "1: unknown, the list has 2 items, but Asterisk counted 5"),
        };
        let counted = if at == 2 { 5 } else { count };
        let seen = talk.hear(&[start, item.repeat(count), end(counted)].concat());
        assert!(seen.len() == 1 && seen[0].starts_with(said), "{seen:?}");
    }
}

#[test]
fn the_number_of_open_actions_is_bounded() {
    let mut talk = Talk::up();
    for tag in 0..OPEN_ACTIONS {
        assert!(talk.send(tag as u64, Action::ping())[0].starts_with("> Ping"));
    }
    assert_eq!(talk.send(5000, Action::ping()), ["5000: not sent, too many actions are waiting for an answer (1024)"]);
    talk.hear("Response: Success\r\nActionID: #3\r\n\r\n");
    assert!(talk.send(5001, Action::ping())[0].starts_with("> Ping"));
    talk.link.closed(talk.now);
    assert_eq!(talk.effects().len(), OPEN_ACTIONS + 1, "each gets an answer, and then the end");
}

#[test]
fn a_bad_action_id_never_reaches_the_wire() {
    let mut talk = Talk::up();
    talk.link.send_with_id(Tag(1), "x\r\nAction: Command", Action::ping(), talk.now);
    let seen = talk.effects();
    assert!(seen[0].starts_with("1: not sent, ActionID has the byte 0x0d"), "{seen:?}");
    assert_eq!(talk.send(2, Action::ping()), ["> Ping #3"], "nothing of it is left in the next write");
}

#[test]
fn a_goodbye_is_answered_or_not() {
    let mut talk = Talk::up();
    talk.ring(1, 0);
    talk.link.logoff(talk.now);
    assert_eq!(talk.effects(), ["> Logoff #3"]);
    assert_eq!(talk.ring(2, 1), ["2: not sent, the session is over"]);
    assert_eq!(
        talk.hear("Response: Success\r\nActionID: #o-00000000000000ab-0\r\nMessage: queued\r\n\r\n"),
        ["1: success queued"]
    );
    let goodbye = "Response: Goodbye\r\nActionID: #3\r\nMessage: Thanks for all the fish.\r\n\r\n";
    assert_eq!(talk.hear(goodbye), ["close: logged off"]);
    let mut talk = Talk::up();
    talk.link.logoff(talk.now);
    talk.effects();
    assert_eq!(talk.wait_ms(5000), ["close: logged off"]);
}

#[test]
fn who_has_to_act_is_known() {
    assert!(CloseReason::LoginRefused { user: String::new(), message: String::new() }.needs_people());
    assert!(!CloseReason::Lost { stage: Stage::Up }.needs_people());
}

#[test]
fn two_connections_of_one_life_share_no_action_id() {
    let mut talk = Talk::new(LinkSettings { connection: 1, ..settings() });
    assert_eq!(talk.hear(BANNER), ["> Challenge #4294967297"]);
    assert!(!format!("{:?} {:?}", talk.link, settings()).contains("labsecret"));
}
