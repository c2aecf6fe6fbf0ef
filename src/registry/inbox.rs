//! The shared inbox: logins that any RSMQ client puts into the queue `logins`, as JSON. Owns the form of such a
//! message and of its answer, and which queue may get one. Must never trust a message: it is parsed into ids here or
//! refused.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use redis::ScriptInvocation;
use serde::Serialize;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use super::hold::{Hold, Require};
use super::view::{PlaceReply, Placement};
use super::{LoginRequest, Registry, RegistryError, flag, ms};
use crate::ids::{Agent, Alias, Campaign, Case, IdError, NodeName, SessionId};
use crate::node::session::Class;

/// The queue's name, in RSMQ's layout.
pub(super) const QUEUE: &str = "logins";
/// A login that was received but not answered comes back after this, in s (RSMQ's unit), to any node.
const VISIBILITY_S: u64 = 10;
/// How many nodes a wake-up of the inbox reaches. One would do; the second is there when it dies.
const SEATS: u32 = 2;

/// The longest message that is read, in bytes: RSMQ's own limit, which only its clients keep.
const BODY_MOST: usize = 65_536;
/// The longest alias that a refusal repeats, and the longest reason that it gives, in characters.
const SHOWN_MOST: usize = 200;
/// What a message may say.
const KEYS: [&str; 9] = ["alias", "agent", "campaign", "remote", "move", "reply", "ring", "ttl", "require"];

/// The first words of our own keys behind the namespace: RSMQ keeps the queue `q` in `NS:q` and `NS:q:Q`, so that the queue
/// `node` would be written where the node `Q` is. A test compares them with the scripts.
const OUR_WORDS: [&str; 17] = [
    "QUEUES",
    "aliases",
    "contacts",
    "events",
    "holders",
    "idempotency",
    "index",
    "judge",
    "local",
    "logins",
    "logins-dead",
    "news",
    "node",
    "phones",
    "remote",
    "rt",
    "session",
];
/// How the queues of nodes begin: what is put there is an order to ring.
pub const OUR_QUEUES: &str = "ring-";
/// The longest name of a queue that RSMQ fetches.
const QUEUE_NAME_MOST: usize = 160;

/// The queue that gets an answer: any name that RSMQ's clients allow, and none of ours. RSMQ itself takes
/// `[a-zA-Z0-9_-]{1,160}`; PyRSMQ, up to 64 characters, `[A-Za-z0-9._-]`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ReplyQueue(String);

impl FromStr for ReplyQueue {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        if text.is_empty() || text.len() > QUEUE_NAME_MOST || !text.chars().all(plain) {
            return Err(format!(
                "reply {} is not a valid queue name: use 1 to {QUEUE_NAME_MOST} letters, digits, '_', '-' and '.'",
                quoted(text)
            ));
        }
        if text.starts_with(OUR_QUEUES) || OUR_WORDS.contains(&text) {
            return Err(format!("reply {} is a name that evenring itself uses: use another one", quoted(text)));
        }
        Ok(Self(text.to_owned()))
    }
}

/// A login as it stands in the queue:
/// `{"alias":"cc100x","agent":"7","campaign":"c","remote":false,"move":false,"reply":"web-1"}`.
/// All but `alias` may be left out. `{"alias":"cc100x","ring":"none","ttl":"30s","require":"known"}` is a hold.
#[derive(Debug, Clone)]
pub struct InboxLogin {
    alias: Alias,
    agent: Option<Agent>,
    campaign: Option<Campaign>,
    remote: bool,
    moves: bool,
    hold: Option<Hold>,
}

impl InboxLogin {
    /// The login it asks for.
    pub fn request(&self) -> LoginRequest {
        LoginRequest {
            alias: self.alias.clone(),
            agent: self.agent.clone(),
            campaign: self.campaign.clone(),
            class: if self.remote { Class::Remote } else { Class::Local },
            moves: self.moves,
            hold: self.hold,
        }
    }
}

/// One received message.
#[derive(Debug, Clone)]
pub struct InboxMessage {
    /// RSMQ's id of the message.
    pub id: String,
    /// What it asks for, or what is wrong with it.
    pub login: Result<InboxLogin, String>,
    /// The alias as written, for the answer; also of an invalid message.
    alias: String,
    /// The queue for the answer; also of an invalid message, if it can be read.
    reply: Option<ReplyQueue>,
}

impl InboxMessage {
    /// Reads a message, as much of it as can be read.
    pub(super) fn read(id: String, body: &[u8]) -> Self {
        let mut entries = Entries::default();
        let mut json = serde_json::Deserializer::from_slice(&body[..body.len().min(BODY_MOST)]);
        let whole = entries.seed().deserialize(&mut json).and_then(|()| json.end());
        let form = match (whole, entries.wrong.take()) {
            (Ok(()) | Err(_), _) if body.len() > BODY_MOST => {
                Err(format!("the message has {} bytes; at most {BODY_MOST} are allowed", body.len()))
            }
            (Err(error), _) => Err(format!("not a JSON object with a login: {error}")),
            (Ok(()), Some(wrong)) => Err(wrong),
            (Ok(()), None) => Ok(()),
        };
        let reply = entries.word::<ReplyQueue>("reply");
        let login = form.and_then(|()| entries.login()).and_then(|login| reply.clone().map(|_| login));
        Self {
            id,
            login: login.map_err(|reason| cut(&reason)),
            alias: entries.text("alias").map(cut).unwrap_or_default(),
            reply: reply.ok().flatten(),
        }
    }
}

/// The keys and values that were read, and what was wrong with the first of them that was.
#[derive(Debug, Default)]
struct Entries {
    values: BTreeMap<&'static str, Value>,
    wrong: Option<String>,
}

impl Entries {
    fn seed(&mut self) -> Seed<'_> {
        Seed(self)
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.values.get(key)?.as_str()
    }

    /// `Ok(None)`: it is not there, or `null`.
    fn word<T: FromStr<Err: ToString>>(&self, key: &str) -> Result<Option<T>, String> {
        match self.values.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => text.parse().map(Some).map_err(|error: T::Err| error.to_string()),
            Some(Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
                Err(format!("{key} is not a string"))
            }
        }
    }

    fn flag(&self, key: &str) -> Result<bool, String> {
        match self.values.get(key) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(Value::Null | Value::Number(_) | Value::String(_) | Value::Array(_) | Value::Object(_)) => {
                Err(format!("{key} is neither true nor false"))
            }
        }
    }

    fn login(&self) -> Result<InboxLogin, String> {
        let (remote, moves) = (self.flag("remote")?, self.flag("move")?);
        let empty = IdError::Empty { what: "the alias" };
        Ok(InboxLogin {
            alias: self.word("alias")?.ok_or_else(|| empty.to_string())?,
            agent: self.word("agent")?,
            campaign: self.word("campaign")?,
            remote,
            moves,
            hold: self.hold()?,
        })
    }

    fn hold(&self) -> Result<Option<Hold>, String> {
        let (ring, ttl) = (self.word::<String>("ring")?, self.word::<String>("ttl")?);
        let require = self.word::<String>("require")?;
        match ring.as_deref() {
            None if ttl.is_some() || require.is_some() => Err(r#"ttl and require need "ring": "none""#.to_owned()),
            None => Ok(None),
            Some("none") => Hold::parse(ttl.as_deref(), require.as_deref()).map(Some),
            Some(other) => Err(format!(r#"ring {} is not "none": leave it out, and the phone is rung"#, quoted(other))),
        }
    }
}

/// Reads an object entry by entry, so that what stands before a fault is known.
struct Seed<'a>(&'a mut Entries);

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object with the keys {}", KEYS.join(", "))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            let value = map.next_value::<Value>()?;
            let wrong = match KEYS.into_iter().find(|known| *known == key) {
                None => Some(format!("unknown key {}; allowed keys: {}", quoted(&key), KEYS.join(", "))),
                Some(known) => self.0.values.insert(known, value).map(|_| format!("the key {known} appears twice")),
            };
            if self.0.wrong.is_none() {
                self.0.wrong = wrong;
            }
        }
        Ok(())
    }
}

fn cut(text: &str) -> String {
    text.chars().take(SHOWN_MOST).collect()
}

/// Escaped, and cut short.
fn quoted(text: &str) -> String {
    format!("{:?}", text.chars().take(40).collect::<String>())
}

/// What was received from the inbox.
#[derive(Debug)]
pub struct Received {
    /// Whether a wake-up of the inbox is to reach the node that asked. It asks again before its seat is given to another.
    pub listens: bool,
    /// Hidden from the other nodes for a while.
    pub messages: Vec<InboxMessage>,
}

/// The result of a received message.
#[derive(Debug)]
pub enum Settled {
    /// Invalid: its sender has been told.
    NoLogin,
    /// A login, with what it led to; its sender has been told, unless it is [`super::view::Verdict::NotNow`]: then the message
    /// comes back.
    Placed(Box<Placement>),
    /// Somebody else has taken it off the inbox: nothing was done.
    Gone,
}

/// The answer to an invalid message. For a login, the script writes the same fields.
#[derive(Debug, Serialize)]
struct Refusal<'a> {
    alias: &'a str,
    session: &'a str,
    node: &'a str,
    state: &'a str,
    reason: &'a str,
    outcome: &'a str,
    session_alias: &'a str,
    extension: &'a str,
    agent: &'a str,
    moved_from: &'a str,
}

impl InboxMessage {
    /// The queue for the answer, and the answer itself if this is no login. Empty: none.
    fn answer(&self) -> (&str, String) {
        let queue = self.reply.as_ref().map_or("", |queue| queue.0.as_str());
        match &self.login {
            Ok(_) => (queue, String::new()),
            Err(reason) => {
                let refusal = Refusal {
                    alias: &self.alias,
                    session: "",
                    node: "",
                    state: "refused",
                    reason,
                    outcome: "refused",
                    session_alias: "",
                    extension: "",
                    agent: "",
                    moved_from: "",
                };
                // A struct of strings always serialises.
                (queue, serde_json::to_string(&refusal).unwrap_or_default())
            }
        }
    }

    fn add_to(&self, call: &mut ScriptInvocation<'_>, case: Case) {
        let (queue, refusal) = self.answer();
        call.arg(&self.id).arg(queue).arg(refusal).arg(session_of_message(&self.id).to_string());
        match &self.login {
            Ok(login) => {
                call.arg(case.one_spelling(login.alias.as_str()).as_ref());
                call.arg(login.agent.as_ref().map_or("", Agent::as_str));
                call.arg(login.campaign.as_ref().map_or("", Campaign::as_str)).arg(flag(login.request().class));
                // Whoever asked knows the answer by the alias that they wrote.
                call.arg(login.alias.as_str()).arg(u8::from(login.moves));
                match login.hold {
                    Some(hold) => call.arg(ms(hold.ttl)).arg(u8::from(hold.require == Require::Known)),
                    None => call.arg("").arg(0),
                };
            }
            Err(_) => {
                for _ in 0..8 {
                    call.arg("");
                }
            }
        }
    }
}

impl Registry {
    /// The next logins of the shared inbox, `most` at most. `seat`: this node would listen for wake-ups of the inbox, and
    /// asks again within that time.
    ///
    /// # Errors
    /// Redis unavailable.
    pub async fn receive_logins(
        &mut self,
        most: usize,
        seat: Option<(&NodeName, Duration)>,
    ) -> Result<Received, RegistryError> {
        let (node, keep) = seat.map_or(("", Duration::ZERO), |(node, keep)| (node.as_str(), keep));
        let build = |call: &mut ScriptInvocation<'_>| {
            call.key(&self.namespace).arg(QUEUE).arg(VISIBILITY_S).arg(most).arg(node).arg(ms(keep)).arg(SEATS);
        };
        let (seated, rows): (u8, Vec<(String, redis::Value, u64)>) =
            self.connector.run(&self.scripts.receive, build).await?;
        let message = |(id, body, _count): (String, redis::Value, u64)| {
            InboxMessage::read(id, &redis::from_redis_value::<Vec<u8>>(body).unwrap_or_default())
        };
        Ok(Received { listens: seated == 1, messages: rows.into_iter().map(message).collect() })
    }

    /// Places logins, takes their messages off the inbox and answers them; of several the first ones, one at least: the rest is
    /// for a next call.
    ///
    /// # Errors
    /// Redis unavailable: the messages come back, and the session id made of a message's id finds the same session again.
    pub async fn settle_logins(&mut self, messages: &[InboxMessage]) -> Result<Vec<Settled>, RegistryError> {
        let (p, give_up) = (&self.placement, self.give_up_ms());
        let build = |call: &mut ScriptInvocation<'_>| {
            call.key(&self.namespace).arg(QUEUE).arg(&p.alias_suffix).arg(ms(p.order_expiry)).arg(p.tries);
            call.arg(give_up).arg(ms(p.session_keep)).arg(self.work_most);
            for message in messages {
                message.add_to(call, p.case);
            }
        };
        let rows: Vec<Vec<String>> = self.connector.run(&self.scripts.settle, build).await?;
        let settled = |(row, message): (Vec<String>, &InboxMessage)| {
            let mut cells = row.into_iter();
            let mut next = || cells.next().unwrap_or_default();
            let tag = next();
            match (&message.login, tag.as_str()) {
                (_, "gone") => Settled::Gone,
                (Err(_), _) => Settled::NoLogin,
                (Ok(login), _) => {
                    let [session, node, state, reason, extension] = std::array::from_fn(|_| next());
                    let [agent, session_alias, was] = std::array::from_fn(|_| next());
                    let reply: PlaceReply =
                        (tag, session, node, state, reason, extension, agent, session_alias, was, Vec::new());
                    Settled::Placed(Box::new(Placement::from_reply(reply, &login.alias)))
                }
            }
        };
        Ok(rows.into_iter().zip(messages).map(settled).collect())
    }

    /// Listens for the wake-ups of the shared inbox.
    ///
    /// # Errors
    /// Redis unavailable.
    pub async fn subscribe_logins(&mut self) -> Result<redis::aio::PubSub, RegistryError> {
        self.connector.subscribe(&[format!("{}:rt:{QUEUE}", self.namespace)]).await
    }
}

/// The session id of a message: the same for the same message, so that a redelivered one finds its own session.
pub fn session_of_message(id: &str) -> SessionId {
    use md5::{Digest, Md5};
    let digest = Md5::digest(id.as_bytes());
    let mut bits = [0; 8];
    bits.copy_from_slice(&digest[..8]);
    SessionId::from_bits(u64::from_be_bytes(bits))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &[u8]) -> (Result<String, String>, String, String) {
        let message = InboxMessage::read(String::new(), body);
        let reply = message.reply.map(|queue| queue.0).unwrap_or_default();
        (message.login.map(|login| login.alias.to_string()), message.alias, reply)
    }

    #[track_caller]
    fn refused(body: impl AsRef<[u8]>, reason: &str, alias: &str, reply: &str) {
        let (login, told_alias, told_reply) = read(body.as_ref());
        let why = login.expect_err("it is no login");
        assert!(why.contains(reason) && why.chars().count() <= SHOWN_MOST, "{why}");
        assert!(!why.contains(char::is_control), "{why:?}");
        assert_eq!((told_alias.as_str(), told_reply.as_str()), (alias, reply), "{why}");
    }

    #[test]
    fn a_login_and_its_queue() {
        let longest = "Q".repeat(QUEUE_NAME_MOST);
        for name in ["web-1", "web.1", ".", "-", "_x", "0", "RING-a", "ringer", "nodes", &longest] {
            let body = format!(r#"{{"alias":"cc100x","agent":null,"campaign":null,"reply":"{name}"}}"#);
            assert_eq!(read(body.as_bytes()), (Ok("cc100x".to_owned()), "cc100x".to_owned(), name.to_owned()));
        }
        assert_eq!(read(br#" {"alias":"cc100x","reply":null} "#).2, "");
        assert!(read(br#"{"remote":true,"alias":"cc100x"}"#).0.is_ok());
        let moves = |body: &[u8]| InboxMessage::read(String::new(), body).login.unwrap().request().moves;
        assert!(moves(br#"{"move":true,"alias":"cc100x"}"#) && !moves(br#"{"alias":"cc100x"}"#));
    }

    #[test]
    fn whatever_is_wrong_the_queue_that_can_be_read_gets_the_refusal() {
        refused(r#"{"alias": "cc 100x", "reply": "web-1"}"#, "the alias", "cc 100x", "web-1");
        refused(r#"{"alias":"cc100x","agent":7,"reply":"w"}"#, "agent is not a string", "cc100x", "w");
        refused(r#"{"alias":["cc100x"],"reply":"w"}"#, "alias is not a string", "", "w");
        refused(r#"{"reply":"w"}"#, "the alias is empty", "", "w");
        refused(r#"{"alias":"cc100x","remote":"yes","reply":"w"}"#, "remote", "cc100x", "w");
        refused(r#"{"alias":"cc100x","remote":null,"reply":"w"}"#, "remote", "cc100x", "w");
        refused(r#"{"alias":"cc100x","move":"yes","reply":"w"}"#, "move is neither", "cc100x", "w");
        refused(r#"{"alais":"cc100x","reply":"w"}"#, "unknown key \"alais\"", "", "w");
        refused("{\"\u{1b}[31m\":1,\"reply\":\"w\"}", "not a JSON", "", "");
        refused(r#"{"\u001b[31m":1,"reply":"w"}"#, r#"unknown key "\u{1b}[31m""#, "", "w");
        refused(r#"{"alias":"a","alias":"b","reply":"w"}"#, "alias appears twice", "b", "w");
        // Up to where it can be read.
        refused(r#"{"alias":"cc100x","reply":"w""#, "not a JSON object", "cc100x", "w");
        refused(r#"{"alias":"cc100x","reply":"w"} x"#, "not a JSON object", "cc100x", "w");
        refused(b"{\"reply\":\"w\",\"alias\":\"\xff\"}", "not a JSON object", "", "w");
        let long = format!(r#"{{"reply":"w","alias":"cc100x","agent":"{}"}}"#, "7".repeat(BODY_MOST));
        refused(&long, "at most 65536", "cc100x", "w");
        refused(format!(r#"{{"reply":"w","agent":{}"#, "[".repeat(60_000)), "not a JSON object", "", "w");
        for none in ["", "x", "[]", "7", r#"["cc100x","7"]"#, r#""cc100x""#, "null"] {
            refused(none, "not a JSON object", "", "");
        }
    }

    #[test]
    fn no_answer_goes_where_it_would_be_something_else() {
        let ours = OUR_WORDS.map(str::to_owned).into_iter().chain(["ring-a".to_owned(), "ring-".to_owned()]);
        for name in ours {
            refused(format!(r#"{{"alias":"cc100x","reply":"{name}"}}"#), "evenring itself uses", "cc100x", "");
        }
        let long = "q".repeat(QUEUE_NAME_MOST + 1);
        for name in ["", "a:b", "a b", "ä", "rt:x", "{x}", r"a\r\nb", r"a\u0000", &long] {
            refused(format!(r#"{{"alias":"cc100x","reply":"{name}"}}"#), "not a valid queue name", "cc100x", "");
        }
        refused(r#"{"alias":"cc100x","reply":7}"#, "reply is not a string", "cc100x", "");
    }

    /// Whatever stands between colons in a script, or behind NS in the list of keys, is a word of ours.
    #[test]
    fn every_key_of_a_script_is_refused_as_a_queue() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/registry/scripts");
        let mut found = std::collections::BTreeSet::new();
        let files =
            [folder.to_owned(), format!("{folder}/lib")].into_iter().flat_map(|f| std::fs::read_dir(f).unwrap());
        for file in files.map(|file| file.unwrap().path()).filter(|path| path.is_file()) {
            let text = std::fs::read_to_string(file).unwrap();
            for start in ["':", "NS:", ".. \":"] {
                for rest in text.split(start).skip(1) {
                    let word: String = rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
                    found.insert(word);
                }
            }
        }
        // What RSMQ puts behind a queue's name or a message's id, and the stand-in for any name.
        let rsmq = ["", "Q", "rc", "fr", "QUEUE"];
        let words: Vec<&str> = found.iter().map(String::as_str).filter(|word| !rsmq.contains(word)).collect();
        assert!(words.len() >= 12, "{words:?}");
        for word in words {
            assert!(word.parse::<ReplyQueue>().is_err(), "{word} is a key of ours, and any client could write there");
        }
    }
}
