//! The journal's native protocol: turns a tracing event into the fields of one entry. Owns the names of the fields. Must
//! never send anything: the writer's thread does.
//!
//! Values are escaped and contain no line end, so each field is one line and cannot start another.

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
    let priority = match *about.level() {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 5,
        Level::DEBUG => 6,
        Level::TRACE => 7,
    };
    let mut entry = Entry(format!("PRIORITY={priority}\nSYSLOG_IDENTIFIER=evenring\n"));
    entry.put("TARGET", about.target());
    if let (Some(file), Some(line)) = (about.file(), about.line()) {
        entry.put("CODE_FILE", file);
        entry.put("CODE_LINE", &line.to_string());
    }
    event.record(&mut entry);
    entry.0
}

struct Entry(String);

impl Entry {
    fn put(&mut self, name: &str, value: &str) {
        let mut end = value.len().min(VALUE_MOST);
        while !value.is_char_boundary(end) {
            end -= 1;
        }
        let cut = if end < value.len() { "…" } else { "" };
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "{name}={}{cut}", escape::line(&value[..end]));
    }
}

impl Visit for Entry {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            return self.put("MESSAGE", value);
        }
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
        let fields = ["MESSAGE=AMI unavailable", "EVENRING_NODE=tel-1", "EVENRING_SUPPRESSED=3"];
        assert!(fields.iter().all(|field| lines.contains(field)), "{lines:?}");
        assert!(lines.contains(&"EVENRING_REASON=no\\nMESSAGE=forged\\nPRIORITY=0"), "{lines:?}");
        assert!(lines.iter().all(|line| line.len() < VALUE_MOST + 100) && lines.len() == 8, "{lines:?}");
    }
}
