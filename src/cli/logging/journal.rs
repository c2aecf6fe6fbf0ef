//! The journal's native protocol: turns a tracing event into the fields of one entry. Owns the names of the fields. Must
//! never send anything: the writer's thread does.
//!
//! Values are escaped and contain no line end, so each field is one line and cannot start another. `MESSAGE` has what was
//! said and all fields, because `journalctl` and `systemctl status` show nothing else.

use std::fmt::{self, Write as _};
use std::io;
use std::os::unix::net::UnixDatagram;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::super::escape;
use super::writer::{Outlet, Sink};

/// Where journald listens.
const SOCKET: &str = "/run/systemd/journal/socket";
/// Bytes of a value; a datagram must not be too long for the socket.
const VALUE_MOST: usize = 8 << 10;

/// Connects to journald, if it listens. Never blocks.
pub(super) fn sink() -> io::Result<Sink> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    match socket.send_to(&[], SOCKET) {
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
        Ok(_) | Err(_) => {}
    }
    socket.set_nonblocking(false)?;
    Ok(Sink::Journal(socket, SOCKET))
}

/// The layer.
#[derive(Debug)]
pub(super) struct Journal(pub(super) Outlet);

impl<S: Subscriber> Layer<S> for Journal {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        self.0.push(entry(event).as_bytes());
    }
}

fn entry(event: &Event<'_>) -> String {
    let about = event.metadata();
    let mut entry = Entry::default();
    entry.put("PRIORITY", priority(*about.level()));
    entry.put("SYSLOG_IDENTIFIER", "evenring");
    entry.put("TARGET", about.target());
    if let (Some(file), Some(line)) = (about.file(), about.line()) {
        entry.put("CODE_FILE", file);
        entry.put("CODE_LINE", &line.to_string());
    }
    event.record(&mut entry);
    // `journalctl` shows this one only, so it has them all; the message alone is for those who search for it.
    let (message, words) = (std::mem::take(&mut entry.message), std::mem::take(&mut entry.words));
    entry.put("EVENRING_MESSAGE", &message);
    entry.put("MESSAGE", &format!("{message}{words}"));
    entry.fields
}

/// What syslog calls this level.
pub(super) fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "3",
        Level::WARN => "4",
        Level::INFO => "6",
        Level::DEBUG | Level::TRACE => "7",
    }
}

#[derive(Default)]
struct Entry {
    /// `NAME=value` lines.
    fields: String,
    message: String,
    /// ` name=value` for each field of the event.
    words: String,
}

impl Entry {
    fn put(&mut self, name: &str, value: &str) {
        let mut end = value.len().min(VALUE_MOST);
        while !value.is_char_boundary(end) {
            end -= 1;
        }
        let cut = if end < value.len() { "…" } else { "" };
        // Writing to a String cannot fail.
        let _ = writeln!(self.fields, "{name}={}{cut}", escape::line(&value[..end]));
    }

    /// A value that could be taken for several words is quoted. A line that suppressed nothing does not say so.
    fn say(&mut self, name: &str, value: &str) {
        if (name, value) == ("suppressed", "0") {
            return;
        }
        let is_word = !value.is_empty() && !value.contains(|c: char| c.is_whitespace() || ['"', '='].contains(&c));
        let _ = match is_word {
            true => write!(self.words, " {name}={value}"),
            false => write!(self.words, " {name}=\"{}\"", value.replace('"', "\\\"")),
        };
    }
}

impl Visit for Entry {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            value.clone_into(&mut self.message);
            return;
        }
        self.say(field.name(), value);
        let name: String = field.name().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        self.put(&format!("EVENRING_{}", name.to_ascii_uppercase()), value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::Registry;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    struct Keep(Arc<Mutex<Vec<String>>>);

    impl<S: Subscriber> Layer<S> for Keep {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            self.0.lock().unwrap().push(entry(event));
        }
    }

    #[test]
    fn an_entry_has_the_fields_of_its_event_and_no_forged_ones() {
        let kept = Arc::<Mutex<Vec<String>>>::default();
        tracing::subscriber::with_default(Registry::default().with(Keep(kept.clone())), || {
            let reason = "no\nMESSAGE=forged\nPRIORITY=0";
            tracing::warn!(node = %"tel-1", suppressed = 3, reason, text = "x".repeat(2 * VALUE_MOST), "AMI unavailable");
        });
        let entries = kept.lock().unwrap();
        let lines: Vec<_> = entries[0].lines().filter(|line| !line.starts_with("CODE_")).collect();
        assert_eq!(
            lines[..3],
            ["PRIORITY=4", "SYSLOG_IDENTIFIER=evenring", "TARGET=evenring::cli::logging::journal::tests"]
        );
        let fields = ["EVENRING_MESSAGE=AMI unavailable", "EVENRING_NODE=tel-1", "EVENRING_SUPPRESSED=3"];
        assert!(fields.iter().all(|field| lines.contains(field)), "{lines:?}");
        assert!(lines.contains(&"EVENRING_REASON=no\\nMESSAGE=forged\\nPRIORITY=0"), "{lines:?}");
        let message =
            "MESSAGE=AMI unavailable node=tel-1 suppressed=3 reason=\"no\\nMESSAGE=forged\\nPRIORITY=0\" text=xxx";
        assert!(lines[8].starts_with(message), "{lines:?}");
        assert!(lines.iter().all(|line| line.len() < VALUE_MOST + 100) && lines.len() == 9, "{lines:?}");
    }

    #[test]
    fn the_message_has_what_was_said_and_the_priority_is_that_of_syslog() {
        let kept = Arc::<Mutex<Vec<String>>>::default();
        tracing::subscriber::with_default(Registry::default().with(Keep(kept.clone())), || {
            tracing::error!(reason = "it said \"no\"", empty = "", "failed");
            tracing::warn!(suppressed = 0, "failed");
            tracing::info!(reason = %"busy", "failed");
            tracing::debug!(answer = ?Some(1), "failed");
            tracing::trace!("failed");
        });
        let entries = kept.lock().unwrap();
        let line = |entry: &String, name: &str| {
            entry.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().to_owned()
        };
        let said: Vec<_> = entries.iter().map(|entry| (line(entry, "PRIORITY="), line(entry, "MESSAGE="))).collect();
        let expected = [
            ("3", "failed reason=\"it said \\\"no\\\"\" empty=\"\""),
            ("4", "failed"),
            ("6", "failed reason=busy"),
            ("7", "failed answer=Some(1)"),
            ("7", "failed"),
        ];
        assert_eq!(said, expected.map(|(priority, message)| (priority.to_owned(), message.to_owned())));
    }
}
