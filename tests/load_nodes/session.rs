//! One AMI session of a simulated node. Owns the actions that a daemon sends and their answers, in captured shape.
//! Must never answer what real Asterisk would not.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use md5::{Digest, Md5};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::broadcast::error::RecvError;

use super::script::{Filling, Script, fill};
use super::{Behaviour, Channel, Ring, Shared, USER, now, spawn};

/// Asterisk's own limits: bytes of a line without its end, header lines of an action.
const LINE_BYTES: usize = 1022;
const HEADER_LINES: usize = 128;
const CHALLENGE: &str = "688813217";

/// Talks until the peer is gone.
pub(super) async fn serve(mut stream: TcpStream, shared: Arc<Shared>) {
    let _ = stream.set_nodelay(true);
    let (mut reader, mut writer) = stream.split();
    if writer.write_all(shared.scripts.greeting.as_bytes()).await.is_err() {
        return;
    }
    let mut events = shared.events.subscribe();
    let mut logged_in = false;
    let mut input = Vec::with_capacity(8192);
    loop {
        let mut out = String::new();
        tokio::select! {
            read = reader.read_buf(&mut input) => match read {
                Ok(count) if count > 0 => {
                    while let Some(end) = find(&input, b"\r\n\r\n") {
                        let action: Vec<u8> = input.drain(..end + 4).collect();
                        if act(&shared, &String::from_utf8_lossy(&action), &mut logged_in, &mut out).is_none() {
                            return;
                        }
                    }
                }
                Ok(_) | Err(_) => return,
            },
            event = events.recv() => match event {
                Ok(event) if logged_in => {
                    out.push_str(&event);
                    // What else is there goes out in the same write.
                    while let Ok(event) = events.try_recv() {
                        out.push_str(&event);
                    }
                }
                Ok(_) => {}
                Err(RecvError::Lagged(_) | RecvError::Closed) => return,
            },
        }
        if !out.is_empty() && writer.write_all(out.as_bytes()).await.is_err() {
            return;
        }
    }
}

fn find(text: &[u8], needle: &[u8]) -> Option<usize> {
    memchr::memmem::find(text, needle)
}

/// Carries out one action; `None` ends the session.
fn act(shared: &Arc<Shared>, text: &str, logged_in: &mut bool, out: &mut String) -> Option<()> {
    let lines: Vec<&str> = text.trim_end().split("\r\n").collect();
    if lines.iter().any(|line| line.len() > LINE_BYTES) {
        out.push_str("Response: Error\r\nMessage: Failed to parse message: line too long\r\n\r\n");
        return Some(());
    }
    if lines.len() > HEADER_LINES {
        out.push_str("Response: Error\r\nMessage: Too many lines in message or allocation failure\r\n\r\n");
        return Some(());
    }
    let get =
        |name: &str| lines.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).unwrap_or_default();
    let id = get("ActionID");
    let mut success = |rest: &str| {
        let _ = write!(out, "Response: Success\r\nActionID: {id}\r\n{rest}\r\n");
    };
    match get("Action") {
        "Challenge" => success(&format!("Challenge: {CHALLENGE}\r\n")),
        "Login" => {
            let digest = Md5::digest(format!("{CHALLENGE}{}", USER.1));
            let key = digest.iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
            if get("Key") != key || get("Username") != USER.0 {
                let _ = write!(out, "Response: Error\r\nActionID: {id}\r\nMessage: Authentication failed\r\n\r\n");
                return Some(());
            }
            *logged_in = true;
            success("Message: Authentication accepted\r\n");
            out.push_str("Event: FullyBooted\r\nPrivilege: system,all\r\nUptime: 91\r\nLastReload: 91\r\nStatus: Fully Booted\r\n\r\n");
        }
        _ if !*logged_in => {
            let _ = write!(out, "Response: Error\r\nActionID: {id}\r\nMessage: Permission denied\r\n\r\n");
        }
        "Ping" => success("Ping: Pong\r\nTimestamp: 1732145000.123456\r\n"),
        "Logoff" => {
            let _ = write!(out, "Response: Goodbye\r\nActionID: {id}\r\nMessage: Thanks for all the fish.\r\n\r\n");
        }
        "CoreStatus" => success(
            "CoreStartupDate: 2026-11-20\r\nCoreStartupTime: 08:00:00\r\nCoreReloadDate: 2026-11-20\r\n\
             CoreReloadTime: 08:00:00\r\nCoreCurrentCalls: 0\r\n",
        ),
        "DeviceStateList" => devices(shared, id, out),
        "Status" => channels(shared, id, out),
        "Originate" => originate(shared, &lines, id, out),
        "Hangup" => hang_up(shared, get("Channel"), id, out),
        _ => {
            let _ = write!(
                out,
                "Response: Error\r\nActionID: {id}\r\nMessage: Invalid/unknown command: {}. Use Action: ListCommands to show available commands.\r\n\r\n",
                get("Action")
            );
        }
    }
    Some(())
}

fn devices(shared: &Shared, id: &str, out: &mut String) {
    let phones = shared.state().settings.phones;
    let _ = write!(
        out,
        "Response: Success\r\nActionID: {id}\r\nEventList: start\r\nMessage: Device State Changes will follow\r\n\r\n"
    );
    for number in 100..100 + phones {
        let _ = write!(
            out,
            "Event: DeviceStateChange\r\nActionID: {id}\r\nDevice: PJSIP/cc{number}\r\nState: NOT_INUSE\r\n\r\n"
        );
    }
    let _ = write!(
        out,
        "Event: DeviceStateListComplete\r\nActionID: {id}\r\nEventList: Complete\r\nListItems: {phones}\r\n\r\n"
    );
}

fn channels(shared: &Shared, id: &str, out: &mut String) {
    let state = shared.state();
    let _ = write!(
        out,
        "Response: Success\r\nActionID: {id}\r\nEventList: start\r\nMessage: Channel status will follow\r\n\r\n"
    );
    for (unique, channel) in &state.channels {
        let number = if channel.live { 6 } else { 5 };
        let variables =
            channel.variables.iter().fold(String::new(), |all, (k, v)| format!("{all}Variable: {k}={v}\r\n"));
        let _ = write!(
            out,
            "Event: Status\r\nPrivilege: Call\r\nChannel: {}\r\nChannelState: {number}\r\nUniqueid: {unique}\r\n{variables}ActionID: {id}\r\n\r\n",
            channel.name
        );
    }
    let count = state.channels.len();
    let _ = write!(
        out,
        "Event: StatusComplete\r\nActionID: {id}\r\nEventList: Complete\r\nListItems: {count}\r\nItems: {count}\r\n\r\n"
    );
}

fn originate(shared: &Arc<Shared>, lines: &[&str], id: &str, out: &mut String) {
    let get =
        |name: &str| lines.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).unwrap_or_default();
    let (dial, unique) = (get("Channel").to_owned(), get("ChannelId").to_owned());
    let phone = dial.trim_start_matches("PJSIP/").to_owned();
    let timeout = Duration::from_millis(get("Timeout").parse().unwrap_or(30_000));
    let variables = lines.iter().filter_map(|line| line.strip_prefix("Variable: ")?.split_once('='));
    let variables: Vec<(String, String)> = variables.map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
    let _ = write!(out, "Response: Success\r\nActionID: {id}\r\nMessage: Originate successfully queued\r\n\r\n");
    let mut state = shared.state();
    let at = now();
    state.rings.push(Ring { at, channel: dial, unique: unique.clone() });
    let known = phone
        .strip_prefix("cc")
        .and_then(|n| n.parse().ok())
        .is_some_and(|n: u32| (100..100 + state.settings.phones).contains(&n));
    let reachable =
        known && state.settings.behaviour != Behaviour::Unreachable && !state.channels.contains_key(&unique);
    state.lives += 1;
    let life = state.lives;
    let name = format!("PJSIP/{phone}-{life:08x}");
    if reachable {
        let channel = Channel { phone: phone.clone(), name: name.clone(), live: false, variables, life };
        state.channels.insert(unique.clone(), channel);
    }
    let turn = state.free_at.max(at);
    state.free_at = turn + Duration::from_secs(1) / state.settings.rate.max(1);
    let start = (turn - at) + state.settings.lag;
    let behaviour = if reachable { state.settings.behaviour } else { Behaviour::Unreachable };
    drop(state);
    let call = Call { shared: shared.clone(), name, unique, action: id.to_owned(), phone, life };
    spawn(async move { call.run(behaviour, start, timeout).await });
}

/// One call from Originate to its end.
struct Call {
    shared: Arc<Shared>,
    name: String,
    unique: String,
    action: String,
    phone: String,
    life: u64,
}

impl Call {
    async fn run(self, behaviour: Behaviour, start: Duration, timeout: Duration) {
        let scripts = self.shared.scripts.clone();
        tokio::time::sleep(start).await;
        let (script, wait) = match behaviour {
            Behaviour::Answer { after } => (&scripts.answered, after),
            Behaviour::Busy => (&scripts.busy, Duration::ZERO),
            Behaviour::Congestion => (&scripts.congestion, Duration::ZERO),
            Behaviour::Ring => (&scripts.ring, timeout),
            Behaviour::Unreachable => (&scripts.unreachable, Duration::ZERO),
        };
        self.say(&script.ringing);
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        if behaviour == Behaviour::Unreachable {
            return self.say(&script.ended);
        }
        let answered = !script.answered.is_empty();
        {
            let mut state = self.shared.state();
            match state.channels.get_mut(&self.unique).filter(|channel| channel.life == self.life) {
                Some(channel) if answered => channel.live = true,
                Some(_) => {
                    state.channels.remove(&self.unique);
                }
                // Hung up in the meantime.
                None => return,
            }
        }
        self.say(if answered { &script.answered } else { &script.ended });
    }

    fn say(&self, templates: &[String]) {
        let with = Filling { channel: &self.name, unique: &self.unique, action: &self.action, phone: &self.phone };
        let text: String = templates.iter().map(|template| fill(template, &with)).collect();
        // Nobody may be listening.
        let _ = self.shared.events.send(text.into());
    }
}

fn hang_up(shared: &Shared, unique: &str, id: &str, out: &mut String) {
    let removed = shared.state().channels.remove(unique);
    let Some(channel) = removed else {
        let _ = write!(out, "Response: Error\r\nActionID: {id}\r\nMessage: No such channel\r\n\r\n");
        return;
    };
    let _ = write!(out, "Response: Success\r\nActionID: {id}\r\nMessage: Channel Hungup\r\n\r\n");
    let script: &Script = &shared.scripts.busy;
    let with = Filling { channel: &channel.name, unique, action: id, phone: &channel.phone };
    let hangup = script.ended.iter().find(|message| message.starts_with("Event: Hangup")).expect("a captured Hangup");
    let text = fill(hangup, &with).replace("Cause: 17\r\n", "Cause: 16\r\n");
    let _ = shared.events.send(text.into());
}
