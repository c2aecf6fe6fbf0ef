//! The thread that writes log lines, and the queue in front of it. Owns what happens when lines are not read: logging never
//! blocks; lines that do not fit are dropped and counted, and the number is logged once lines flow again. Must never know
//! what a line says.
//!
//! The daemon has one thread: a full pipe, a hanging journald or a hanging disk would block it inside `write`.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::warn;
use tracing_subscriber::fmt::MakeWriter;

use super::super::escape;

/// Lines that may wait.
const LINES_MOST: usize = 4096;
/// Their bytes.
const BYTES_MOST: usize = 4 << 20;
/// A stderr that does not block is tried again after this.
const BREATH: Duration = Duration::from_millis(50);

/// Where lines go.
#[derive(Debug)]
pub(super) enum Sink {
    /// Standard error, by a handle of its own: a panic must not wait for the writer.
    Stderr(File),
    /// The journal's socket, which has this path.
    Journal(UnixDatagram, &'static str),
}

impl Sink {
    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        match self {
            Self::Stderr(file) => write_all(file, line),
            Self::Journal(socket, path) => socket.send_to(line, path).map(|_| ()),
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Stderr(_) => "standard error",
            Self::Journal(_, _) => "the journal",
        }
    }
}

fn write_all(file: &mut impl Write, mut rest: &[u8]) -> io::Result<()> {
    while !rest.is_empty() {
        match file.write(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => rest = &rest[count..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(BREATH),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// What is done to a line before it waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// One line of text, without or with colours of ours.
    Text,
    Coloured,
    /// One line of JSON.
    Json,
    /// Is as it is to be.
    Finished,
}

impl Form {
    /// No text of a line makes a second one, nor does anything to a terminal.
    fn apply(self, bytes: &[u8]) -> Vec<u8> {
        if self == Self::Finished {
            return bytes.to_vec();
        }
        let text = String::from_utf8_lossy(bytes);
        let text = text.strip_suffix('\n').unwrap_or(&text);
        let line = match self {
            Self::Text | Self::Finished => escape::line(text),
            Self::Coloured => escape::coloured_line(text),
            Self::Json => escape::json(text),
        };
        let mut line = line.into_owned().into_bytes();
        line.push(b'\n');
        line
    }
}

/// A handle to the queue; writing one line in one call never blocks.
#[derive(Debug, Clone)]
pub(super) struct Outlet {
    shared: Arc<Shared>,
    form: Form,
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
    dropped: Arc<AtomicU64>,
}

#[derive(Debug, Default)]
struct Queue {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    /// A line is with the sink.
    writing: bool,
    /// Lines are dropped until half of the queue is free again, so that there is one gap.
    full: bool,
    /// Dropped, and not said yet.
    unsaid: u64,
    /// Why the last of them was.
    why: String,
}

impl Queue {
    fn has_much_room(&self) -> bool {
        self.lines.len() <= LINES_MOST / 2 && self.bytes <= BYTES_MOST / 2
    }
}

impl Outlet {
    /// Starts the thread. What is dropped is counted in `dropped`.
    pub(super) fn start(sink: Sink, form: Form, dropped: Arc<AtomicU64>) -> io::Result<Self> {
        let shared = Arc::new(Shared { queue: Mutex::default(), changed: Condvar::new(), dropped });
        let worker = shared.clone();
        std::thread::Builder::new().name("log".to_owned()).spawn(move || worker.write(sink))?;
        Ok(Self { shared, form })
    }

    /// Queues one line.
    pub(super) fn push(&self, line: &[u8]) {
        self.shared.push(self.form.apply(line));
    }

    /// Waits up to this long until all lines are written; returns whether they are.
    pub(super) fn flush(&self, limit: Duration) -> bool {
        let busy = |queue: &mut Queue| queue.writing || !queue.lines.is_empty();
        match self.shared.changed.wait_timeout_while(self.shared.lock(), limit, busy) {
            Ok((_, timeout)) => !timeout.timed_out(),
            Err(_) => false,
        }
    }
}

impl Write for Outlet {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.push(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Outlet {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Shared {
    /// The lock is never held while anything is waited for.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, line: Vec<u8>) {
        let mut queue = self.lock();
        queue.full &= !queue.has_much_room();
        queue.full |= queue.lines.len() >= LINES_MOST || queue.bytes + line.len() > BYTES_MOST;
        if queue.full {
            self.drop_one(&mut queue, "they were not read in time".to_owned());
            return;
        }
        queue.bytes += line.len();
        queue.lines.push_back(line);
        self.changed.notify_all();
    }

    fn drop_one(&self, queue: &mut Queue, why: String) {
        self.dropped.fetch_add(1, Relaxed);
        queue.unsaid += 1;
        queue.why = why;
    }

    /// Writes for as long as the process lives.
    fn write(&self, mut sink: Sink) {
        // The end of a line that could be written in part only is missing.
        let mut torn = false;
        loop {
            let line = self.next();
            let written = match std::mem::take(&mut torn) {
                true => sink.write(b"\n").and_then(|()| sink.write(&line)),
                false => sink.write(&line),
            };
            match written {
                Ok(()) => self.say_what_was_dropped(sink.name()),
                Err(error) => {
                    torn = matches!(sink, Sink::Stderr(_));
                    self.drop_one(&mut self.lock(), error.to_string());
                }
            }
            self.lock().writing = false;
            self.changed.notify_all();
        }
    }

    fn next(&self) -> Vec<u8> {
        let mut queue = self.lock();
        loop {
            if let Some(line) = queue.lines.pop_front() {
                queue.bytes -= line.len();
                queue.writing = true;
                return line;
            }
            queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn say_what_was_dropped(&self, sink: &str) {
        let mut queue = self.lock();
        if queue.unsaid == 0 || !queue.has_much_room() {
            return;
        }
        let (dropped, why) = (std::mem::take(&mut queue.unsaid), std::mem::take(&mut queue.why));
        drop(queue);
        // Goes through the queue like any other line.
        warn!(dropped, reason = %format_args!("{sink}: {why}"), "log lines were dropped");
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    fn pipe() -> (io::PipeReader, Sink) {
        let (reader, writer) = io::pipe().unwrap();
        (reader, Sink::Stderr(File::from(std::os::fd::OwnedFd::from(writer))))
    }

    #[test]
    fn whoever_logs_never_waits_and_what_has_no_room_is_counted() {
        let (mut reader, sink) = pipe();
        let dropped = Arc::<AtomicU64>::default();
        let outlet = Outlet::start(sink, Form::Text, dropped.clone()).unwrap();
        let line = [b'x'; 999];
        // Nobody reads: a pipe holds 64 KiB, and the queue its share.
        for _ in 0..3 * LINES_MOST {
            outlet.push(&line);
        }
        assert!(!outlet.flush(Duration::from_millis(1)), "nobody has read");
        let lost = dropped.load(Relaxed);
        assert!(lost > 0 && outlet.shared.lock().bytes <= BYTES_MOST, "{lost}");
        let kept = 3 * LINES_MOST - usize::try_from(lost).unwrap();
        let mut read = vec![0; kept * (line.len() + 1)];
        reader.read_exact(&mut read).unwrap();
        assert!(outlet.flush(SOON));
        assert!(read.chunks(line.len() + 1).all(|chunk| chunk.ends_with(b"x\n")), "whole lines");
        outlet.push(b"flows again");
        assert!(outlet.flush(SOON));
        assert_eq!(dropped.load(Relaxed), lost);
        assert_eq!(outlet.shared.lock().unsaid, 0, "said");
    }

    #[test]
    fn a_disk_that_is_full_costs_lines_and_nothing_else() {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let dropped = Arc::<AtomicU64>::default();
        let outlet = Outlet::start(Sink::Stderr(full), Form::Text, dropped.clone()).unwrap();
        outlet.push(b"one");
        outlet.push(b"two");
        assert!(outlet.flush(SOON));
        let queue = outlet.shared.lock();
        assert_eq!((dropped.load(Relaxed), queue.unsaid), (2, 2));
        assert!(queue.why.contains("No space left on device"), "{}", queue.why);
    }

    #[test]
    fn one_line_stays_one_line() {
        let forged = "a\n2026 ERROR forged \u{1b}[2J\u{202e}\n";
        let shown = |form: Form| String::from_utf8(form.apply(forged.as_bytes())).unwrap();
        assert_eq!(shown(Form::Text), "a\\n2026 ERROR forged \\u{1b}[2J\\u{202e}\n");
        assert_eq!(shown(Form::Coloured), "a\\n2026 ERROR forged \u{1b}[2J\\u{202e}\n");
        assert_eq!(shown(Form::Finished), forged);
    }
}
