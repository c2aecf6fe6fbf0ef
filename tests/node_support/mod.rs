//! A stand for the node machine: inputs and effects as short lines of text, time as a number.
//!
//! Owns the two notations. Must never judge: the tests do.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that fails says why")]

use std::io::Write as _;
use std::time::Duration;

use bytes::BytesMut;
use evenring::ami::event::Event;
use evenring::ami::frame::Message;
use evenring::ami::outcome::{Answer, NotSent, Tag, Unknown};
use evenring::config::Settings;
use evenring::ids::{Generation, Now, SessionId};
use evenring::node::roster::Roster;
use evenring::node::session::{Class, Login, Outcome};
use evenring::node::{AdminState, Effect, Input, Live, Node, Note, RecordedState};
use evenring::ring_policy::RingSettings;

/// The generation of the node on the stand.
pub fn generation() -> Generation {
    Generation::from_bits(0xa)
}

/// `s1` is the session 1.
pub fn session(word: &str) -> SessionId {
    let number = word.strip_prefix('s').and_then(|digits| digits.parse().ok());
    SessionId::from_bits(number.unwrap_or_else(|| panic!("{word:?} is no session")))
}

fn name(id: SessionId) -> String {
    format!("s{}", u64::from_str_radix(&id.to_string(), 16).unwrap())
}

/// Session n rings phone cc<n>.
pub fn login(id: SessionId, attempt: u32) -> Login {
    let number = u64::from_str_radix(&id.to_string(), 16).unwrap();
    Login {
        session: id,
        attempt,
        alias: format!("cc{number}x").parse().unwrap(),
        extension: format!("cc{number}").parse().unwrap(),
        agent: format!("a{number}").parse().unwrap(),
        campaign: None,
        class: Class::Local,
    }
}

/// A node, its time, and the actions it waits for.
#[derive(Debug)]
pub struct Stand {
    pub node: Node,
    pub now: Now,
    ring: RingSettings,
    /// Name, tag and what it is about (`s1.1`), oldest first.
    pub open: Vec<(String, Tag, String)>,
    /// The last Originate as it would stand on the wire.
    pub wire: String,
    /// Who waits for their turn, as Redis was told last.
    pub line: String,
    /// What Asterisk says of its start; `None`: it does not answer by itself.
    pub started: Option<String>,
    /// Whether it answers questions about peers and contacts by itself: it knows no such actions.
    pub phones_only_by_state: bool,
}

impl Stand {
    /// A node that has not heard of Asterisk. An hour old, so that uptimes fit in.
    pub fn new(toml: &str) -> Self {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        write!(file, "[node]\nname = \"n\"\n{toml}").unwrap();
        let settings = Settings::load(Some(file.path()), std::iter::empty()).unwrap();
        let now = Now(Duration::from_secs(3600));
        let roster = Roster::new(settings.placement.case, settings.max_phones());
        let ring = settings.ring;
        let mut node = Node::new("n".parse().unwrap(), generation(), ring.clone(), settings.placement.timeouts(), now);
        node.roster = roster;
        Self {
            node,
            now,
            ring,
            open: Vec::new(),
            wire: String::new(),
            line: String::new(),
            started: Some("2026-11-27 10:00:00".to_owned()),
            phones_only_by_state: true,
        }
    }

    /// One in sync with an Asterisk that has been up for 100 s.
    pub fn ready() -> Self {
        Self::ready_with("")
    }

    /// The same with other settings.
    pub fn ready_with(toml: &str) -> Self {
        let mut stand = Self::new(toml);
        stand.say("booted 100");
        stand.say("answer DeviceStateList");
        assert_eq!(stand.say("answer Status"), "synced 0 phones 0 channels 0 sessions; beat active");
        stand
    }

    /// Hands in a line, gives the effects.
    pub fn say(&mut self, line: &str) -> String {
        let mut words = line.split_whitespace();
        let verb = words.next().unwrap();
        let rest: Vec<&str> = words.collect();
        let effects = match verb {
            // Time passes, and nothing is handled.
            "stand" => {
                self.now = self.now.after(Duration::from_millis(rest[0].parse().unwrap()));
                Vec::new()
            }
            "wait" => self.wait(Duration::from_millis(rest[0].parse().unwrap())),
            "answer" => self.answer_line(&rest),
            "order" => {
                let attempt = rest.get(1).map_or(1, |word| word.parse().unwrap());
                // `order s1 1 5000`: Redis was asked for it 5 s ago.
                let age = rest.get(2).map_or(0, |word| word.parse().unwrap());
                let asked = Now(self.now.0 - Duration::from_millis(age));
                self.hand(Input::Ring(login(session(rest[0]), attempt), asked, asked))
            }
            "hangup" => self.hand(Input::HangUp(session(rest[0]))),
            "stale" => self.hand(Input::Stale(rest.iter().map(|word| session(word)).collect())),
            "recorded" => self.hand(Input::Recorded(rest.iter().map(|word| recorded(word)).collect(), self.now)),
            "registered" => self.hand(Input::Registered),
            "stopping" => self.hand(Input::Stopping),
            "drain" => self.hand(Input::AdminState(AdminState::Drain)),
            "resume" => self.hand(Input::AdminState(AdminState::Ready)),
            "shutting-down" => self.hand(Input::ShuttingDown(true)),
            "goes-on" => self.hand(Input::ShuttingDown(false)),
            "closed" => self.hand(Input::Closed { gone: false }),
            "refused" => self.hand(Input::Closed { gone: true }),
            "gap" => self.hand(Input::Gap),
            // The settings were read again, and are what they were.
            "settings" => self.hand(Input::Settings(self.ring.clone())),
            // Another process, whatever it says of its uptime.
            "restarted" => {
                self.started = Some(format!("2026-11-27 {:?}", self.now));
                self.hear(&event("booted", &rest))
            }
            _ => {
                let message = event(verb, &rest);
                self.hear(&message)
            }
        };
        effects.join("; ")
    }

    /// Asterisk says this message, outside of any list.
    pub fn hear(&mut self, message: &Message) -> Vec<String> {
        let event = Event::parse(message).unwrap();
        self.hand(Input::Event(event))
    }

    /// Hands in an input, gives the effects.
    pub fn hand(&mut self, input: Input<'_>) -> Vec<String> {
        self.node.handle(input, self.now);
        self.effects()
    }

    /// Answers an open action.
    pub fn answer(&mut self, at: usize, answer: Answer) -> Vec<String> {
        let (_, tag, _) = self.open.remove(at);
        self.hand(Input::Answer(tag, answer))
    }

    fn answer_line(&mut self, rest: &[&str]) -> Vec<String> {
        let wanted = rest[0];
        let at = self.open.iter().position(|(name, _, about)| name == wanted || format!("{name}:{about}") == wanted);
        let at = at.unwrap_or_else(|| panic!("no {wanted} is open, only {:?}", self.open));
        let list = matches!(self.open[at].0.as_str(), "Status" | "DeviceStateList" | "SIPpeers" | "IAXpeerlist");
        let answer = match &rest[1..] {
            // `value sip:cc1@h`, `value` for none.
            ["value", value @ ..] => {
                Answer::Success(Message::new(format!("Response: Success\r\nValue: {}\r\n", value.join(" "))))
            }
            ["ok"] => Answer::Success(Message::new("Response: Success\r\n")),
            ["notsent"] => Answer::NotSent(NotSent::Closed),
            // `counted 5 s1:Up`: one item, of which Asterisk says that they are five.
            ["counted", count, items @ ..] => Answer::Unknown(Unknown::ListCount {
                items: items.iter().map(|word| item(word)).collect(),
                counted: (*count).to_owned(),
            }),
            // `cut 5 PJSIP/cc1:NOT_INUSE`: one item, and five more that are not kept.
            ["cut", beyond, items @ ..] => Answer::Unknown(Unknown::ListCut {
                items: items.iter().map(|word| item(word)).collect(),
                beyond: beyond.parse().unwrap(),
            }),
            ["process", date, time] => Answer::Success(core_status(&format!("{date} {time}"))),
            ["unknown"] => Answer::Unknown(Unknown::Deadline { after: Duration::from_secs(5) }),
            ["error", words @ ..] => {
                Answer::Error { message: words.join(" "), raw: Message::new("Response: Error\r\n") }
            }
            items if list => Answer::List { items: items.iter().map(|word| item(word)).collect() },
            other => panic!("{other:?} is no answer"),
        };
        self.answer(at, answer)
    }

    /// Lets time pass, with every timer at its moment.
    pub fn wait(&mut self, span: Duration) -> Vec<String> {
        let (until, mut seen, mut timers) = (self.now.after(span), Vec::new(), 0);
        while let Some(at) = self.node.next_deadline(self.now).filter(|at| *at <= until) {
            timers += 1;
            assert!(timers < 2_000, "a timer that stays due at {at:?}");
            self.now = self.now.max(at);
            seen.extend(self.hand(Input::Timer));
        }
        self.now = until;
        seen
    }

    fn effects(&mut self) -> Vec<String> {
        let mut seen = Vec::new();
        while let Some(effect) = self.node.next_effect() {
            if let (Effect::Ami { tag, action, .. }, Some(started)) = (&effect, &self.started)
                && action.name() == "CoreStatus"
            {
                let answer = Answer::Success(core_status(started));
                self.node.handle(Input::Answer(*tag, answer), self.now);
                continue;
            }
            if let Effect::Ami { tag, action, .. } = &effect
                && self.phones_only_by_state
                && matches!(action.name(), "SIPpeers" | "IAXpeerlist" | "Getvar")
            {
                let message = format!("Invalid/unknown command: {}.", action.name());
                let answer = Answer::Error { message, raw: Message::new("Response: Error\r\n") };
                self.node.handle(Input::Answer(*tag, answer), self.now);
                continue;
            }
            seen.extend(self.show(effect));
        }
        if let Some(changes) = self.node.roster.take_changes() {
            let kind = if changes.replace { "all" } else { "changed" };
            seen.push(format!("phones {kind} {}", changes.phones.len()));
        }
        seen
    }

    fn show(&mut self, effect: Effect) -> Option<String> {
        Some(match effect {
            Effect::Ami { tag, action_id, action } => {
                let mut out = BytesMut::new();
                action.encode(action_id.as_deref().unwrap_or("x"), &mut out).unwrap();
                let wire = String::from_utf8(out.to_vec()).unwrap();
                let value = |name: &str| wire.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
                let mut about = value("Channel: evenring-").parse().map(name).unwrap_or_default();
                about.push_str(value("Variable: PJSIP_"));
                about.push_str(value("Endpoint: "));
                if action.name() == "Originate" {
                    let parts = evenring::ami::id::session_of_action_id(value("ActionID: ").as_bytes());
                    let (of, id, attempt) = parts.expect("an Originate's own ActionID");
                    assert_eq!((of, value("ChannelId: evenring-")), (generation(), id.to_string().as_str()));
                    about = format!("{}.{attempt}", name(id));
                    self.wire.clone_from(&wire);
                }
                let shown = format!("> {} {about}", action.name());
                self.open.push((action.name().to_owned(), tag, about));
                shown.trim_end().to_owned()
            }
            Effect::Report(id, _, outcome) => format!("{} {}", name(id), outcome_text(&outcome)),
            Effect::Adopt(login, Live::Yes) => format!("adopt {} live", name(login.session)),
            Effect::Adopt(login, Live::NotYet) => format!("adopt {} ringing", name(login.session)),
            Effect::RingQueue(ids) => {
                self.line = ids.into_iter().map(name).collect::<Vec<_>>().join(" ");
                return None;
            }
            Effect::Beat => format!("beat {}", self.node.state().as_str()),
            Effect::Note(note) => return note_text(note),
        })
    }
}

/// The answer to `CoreStatus` of an Asterisk that started then: date, blank, time.
pub fn core_status(started: &str) -> Message {
    let (date, time) = started.split_once(' ').unwrap();
    Message::new(format!(
        "Response: Success\r\nCoreStartupDate: {date}\r\nCoreStartupTime: {time}\r\nCoreCurrentCalls: 0\r\n"
    ))
}

/// Each line in, and all effects of it.
#[track_caller]
pub fn check_on(mut stand: Stand, steps: &[(&str, &str)]) -> Stand {
    for (at, (line, expected)) in steps.iter().enumerate() {
        assert_eq!(stand.say(line), *expected, "step {}: {line}, of {steps:?}", at + 1);
    }
    stand
}

/// The same on a node in sync.
#[track_caller]
pub fn check(steps: &[(&str, &str)]) -> Stand {
    check_on(Stand::ready(), steps)
}

/// What becomes of a session that was ordered and whose Originate Asterisk took, and no other effect.
#[track_caller]
pub fn ends(lines: &[&str], expected: &str) {
    let mut stand = check(&[("order s1", "> Originate s1.1"), ("answer Originate ok", "")]);
    let seen: Vec<String> = lines.iter().map(|line| stand.say(line)).filter(|seen| !seen.is_empty()).collect();
    assert_eq!(seen.join("; "), expected, "{lines:?}");
    assert_eq!(
        stand.node.sessions().count(),
        usize::from(expected.is_empty() || expected.ends_with("live")),
        "{lines:?}"
    );
}

fn outcome_text(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Live => "live".to_owned(),
        Outcome::Ended(reason) => format!("ended {reason}"),
        Outcome::Failed(reason) => format!("failed {reason}"),
        Outcome::TryNextNode(reason) => format!("try-next-node {reason}"),
    }
}

fn note_text(note: Note) -> Option<String> {
    Some(match note {
        // The Originate itself follows.
        Note::Ringing(_, _) => return None,
        Note::Synced { registered, channels, sessions } => {
            format!("synced {registered} phones {channels} channels {sessions} sessions")
        }
        Note::SnapshotFailed { action, message } => format!("snapshot failed {action} {message}"),
        Note::Miscounted { action, found, counted } => format!("miscounted {action} {found} not {counted}"),
        Note::PeersUnlisted { technology, message } => format!("{technology} peers unlisted {message}"),
        Note::Unreadable(id) => format!("unreadable {}", name(id)),
        Note::GivenUp { sessions } => format!("given up {sessions}"),
        Note::Drift(id, _) => format!("drift {}", name(id)),
        Note::HangUpFailed(id, message) => format!("hang-up of {} failed {message}", name(id)),
        Note::Unbuildable(id, message) => format!("unbuildable {} {message}", name(id)),
    })
}

/// `s1:live`.
fn recorded(word: &str) -> (SessionId, RecordedState) {
    let (id, state) = word.split_once(':').unwrap();
    let state = match state {
        "placed" => RecordedState::Placed,
        "ringing" => RecordedState::Ringing,
        "live" => RecordedState::Live,
        "gone" => RecordedState::Gone,
        "hangup-requested" => RecordedState::HangupRequested,
        other => panic!("{other:?} is no state"),
    };
    (session(id), state)
}

fn channel(id: &str, state: &str) -> String {
    let unique = id.strip_prefix('s').and_then(|digits| digits.parse().ok());
    let unique = unique.map_or(id.to_owned(), |bits| format!("evenring-{}", SessionId::from_bits(bits)));
    format!("Channel: PJSIP/x-00000001\r\nChannelState: {state}\r\nUniqueid: {unique}\r\n")
}

/// `s1:Up`, `s1:Ringing`, `s1:bare` (without variables), `1700.1:Up` (not ours); `PJSIP/cc1:NOT_INUSE`; of a list of peers
/// `SIP/cc1@10.0.0.1:OK`.
fn item(word: &str) -> Message {
    let (what, state) = word.split_once(':').unwrap();
    if let Some((phone, address)) = what.split_once('@') {
        let (driver, name) = phone.split_once('/').unwrap();
        return Message::new(format!(
            "Event: PeerEntry\r\nChanneltype: {driver}\r\nObjectName: {name}\r\nIPaddress: {address}\r\nStatus: {state}\r\n"
        ));
    }
    if what.contains('/') {
        return Message::new(format!("Event: DeviceStateChange\r\nDevice: {what}\r\nState: {state}\r\n"));
    }
    let number = match state {
        "Up" => "6",
        "Ringing" => "5",
        _ => "0",
    };
    let mut text = format!("Event: Status\r\n{}", channel(what, number));
    if state != "bare" && what.starts_with('s') {
        let login = login(session(what), 1);
        for (name, value) in [
            ("ALIAS", login.alias.as_str()),
            ("EXTENSION", login.extension.as_str()),
            ("AGENT", login.agent.as_str()),
            ("CAMPAIGN", ""),
            ("CLASS", "local"),
            ("TRY", "1"),
        ] {
            text.push_str(&format!("Variable: EVENRING_{name}={value}\r\n"));
        }
    }
    Message::new(text)
}

/// An event, as Asterisk would write it.
pub fn event(verb: &str, rest: &[&str]) -> Message {
    let first = rest.first().copied().unwrap_or_default();
    let number = |at: usize| rest.get(at).copied().unwrap_or("0");
    Message::new(match verb {
        "new" => format!("Event: Newchannel\r\n{}", channel(first, "0")),
        "ringing" => format!("Event: Newstate\r\n{}", channel(first, "5")),
        "up" => format!("Event: Newstate\r\n{}", channel(first, "6")),
        "hangs-up" => format!("Event: HangupRequest\r\n{}Cause: 16\r\n", channel(first, "6")),
        // `gone s1 17`, `gone s1 0 ringing`
        "gone" => {
            let state = if rest.get(2) == Some(&"ringing") { "5" } else { "0" };
            format!("Event: Hangup\r\n{}Cause: {}\r\n", channel(first, state), number(1))
        }
        // `response s1 ok`, `response s1 3`, `response s1.2 0`, `response - 0` (somebody else's ActionID)
        "response" => {
            let (id, attempt) = first.split_once('.').unwrap_or((first, "1"));
            let (id, unique) = match id {
                "-" => ("somebody-7".to_owned(), "1700.1".to_owned()),
                ours => {
                    let id = session(ours);
                    let id_text = evenring::ami::id::originate_action_id(generation(), id, attempt.parse().unwrap());
                    (id_text, format!("evenring-{id}"))
                }
            };
            let (word, reason) = if number(1) == "ok" { ("Success", "4") } else { ("Failure", number(1)) };
            format!(
                "Event: OriginateResponse\r\nActionID: {id}\r\nResponse: {word}\r\nReason: {reason}\r\nUniqueid: {unique}\r\n"
            )
        }
        "booted" if rest.is_empty() => "Event: FullyBooted\r\n".to_owned(),
        "booted" => format!("Event: FullyBooted\r\nUptime: {first}\r\n"),
        "shutdown" => "Event: Shutdown\r\nShutdown: Cleanly\r\nRestart: False\r\n".to_owned(),
        "reload" => "Event: Reload\r\nModule: All\r\nStatus: 0\r\n".to_owned(),
        "contact" => format!(
            "Event: ContactStatus\r\nURI: sip:{first}@h\r\nContactStatus: {}\r\nEndpointName: {first}\r\n",
            number(1)
        ),
        "peer" => format!("Event: PeerStatus\r\nPeer: {first}\r\nPeerStatus: {}\r\n", number(1)),
        "device" => format!("Event: DeviceStateChange\r\nDevice: {first}\r\nState: {}\r\n", number(1)),
        other => panic!("{other:?} is no input"),
    })
}
