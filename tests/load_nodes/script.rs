//! Captured dialogues as templates: what a real Asterisk said after an Originate, case by case.
//!
//! Owns where names and ids stand in the captured bytes. Must never invent a message.

use std::path::Path;

/// The ids in a captured dialogue that are to be replaced.
const CAPTURED_PHONES: [&str; 4] = ["cc105", "cc106", "cc107", "cc104"];

/// What is said after an Originate.
#[derive(Debug)]
pub(super) struct Script {
    /// From the first event to the one that decides, as templates.
    pub(super) ringing: Vec<String>,
    /// From `Newstate: Up` on, if it was answered.
    pub(super) answered: Vec<String>,
    /// From the failing `OriginateResponse` or the `Hangup` on.
    pub(super) ended: Vec<String>,
}

/// What goes into a template.
#[derive(Debug, Clone)]
pub(super) struct Filling<'a> {
    pub(super) channel: &'a str,
    pub(super) unique: &'a str,
    pub(super) action: &'a str,
    pub(super) phone: &'a str,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Scripts {
    pub(super) greeting: String,
    pub(super) answered: Script,
    pub(super) busy: Script,
    pub(super) congestion: Script,
    pub(super) ring: Script,
    pub(super) unreachable: Script,
}

impl Scripts {
    pub(super) fn load() -> Self {
        let answered = read("20-originate-app-answered");
        Self {
            greeting: answered.split_inclusive("\r\n").next().expect("a banner").to_owned(),
            answered: script(&answered),
            busy: script(&read("20-originate-busy")),
            congestion: script(&read("20-originate-503")),
            ring: script(&read("20-originate-noanswer")),
            unreachable: script(&read("20-originate-not-registered")),
        }
    }
}

fn read(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto-fixtures/v22").join(format!("{name}.ami"));
    let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Cuts a dialogue at what decides, and puts placeholders where its ids were. Events that a user with
/// `read = system,call,agent` would not get are left out.
fn script(text: &str) -> Script {
    let queued = "Message: Originate successfully queued\r\n\r\n";
    let (_, after) = text.split_once(queued).expect("an Originate that was queued");
    let event = |message: &&str| message.starts_with("Event: ") && has_class(message);
    let messages: Vec<String> =
        after.split_inclusive("\r\n\r\n").map(without_newlines).filter(event).map(template).collect();
    let is = |message: &String, name: &str| message.starts_with(&format!("Event: {name}\r\n"));
    let up = messages.iter().position(|m| is(m, "Newstate") && m.contains("ChannelState: 6\r\n"));
    let over = |m: &String| is(m, "Hangup") || (is(m, "OriginateResponse") && m.contains("Response: Failure\r\n"));
    let end = messages.iter().position(over).unwrap_or(messages.len());
    let (before, ended) = messages.split_at(end);
    let (ringing, answered) = before.split_at(up.unwrap_or(end).min(end));
    // What was said of other calls and after the end is no part of it.
    let ended = ended.iter().filter(|m| is(m, "Hangup") || is(m, "OriginateResponse")).take(2);
    Script { ringing: ringing.to_vec(), answered: answered.to_vec(), ended: ended.cloned().collect() }
}

/// Some events have one empty line too many before them.
fn without_newlines(message: &str) -> &str {
    message.trim_start_matches(['\r', '\n'])
}

fn has_class(message: &str) -> bool {
    let class = message.split("Privilege: ").nth(1).and_then(|rest| rest.split(',').next());
    matches!(class, Some("call" | "system" | "agent"))
}

fn template(message: &str) -> String {
    let value = |name: &str| message.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
    let unique = value("Uniqueid: ").or_else(|| value("DestUniqueid: "));
    let channel = value("Channel: ").or_else(|| value("DestChannel: "));
    let action = value("ActionID: ");
    let mut text = message.to_owned();
    for (found, placeholder) in [(channel, "\u{1}c"), (unique, "\u{1}u"), (action, "\u{1}a")] {
        if let Some(found) = found.filter(|found| !found.is_empty()) {
            text = text.replace(&format!(": {found}\r\n"), &format!(": {placeholder}\r\n"));
        }
    }
    for phone in CAPTURED_PHONES {
        text = text.replace(phone, "\u{1}p");
    }
    text
}

/// Fills a template in.
pub(super) fn fill(template: &str, with: &Filling<'_>) -> String {
    let mut out = String::with_capacity(template.len() + 64);
    let mut pieces = template.split('\u{1}');
    out.push_str(pieces.next().unwrap_or_default());
    for piece in pieces {
        let (mark, rest) = piece.split_at(1);
        out.push_str(match mark {
            "c" => with.channel,
            "u" => with.unique,
            "a" => with.action,
            _ => with.phone,
        });
        out.push_str(rest);
    }
    out
}
