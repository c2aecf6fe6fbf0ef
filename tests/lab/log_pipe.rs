//! A daemon's log that goes through a pipe, which somebody reads, or nobody.
//!
//! Owns the pipe, the thread that reads it, and whether it does. What was read goes to the end of the daemon's log file.
//! Must never know what a daemon says.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::evenring::Daemon;
use super::run;

/// `O_NONBLOCK` of Linux.
const NO_WAIT: i32 = 0o4000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reader {
    Reads,
    /// It was told to pause, and may still be at its last read.
    Pausing,
    Pauses,
    Ends,
}

#[derive(Debug)]
struct Shared {
    reader: Mutex<Reader>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Reader> {
        self.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, reader: Reader) {
        *self.lock() = reader;
        self.changed.notify_all();
    }

    /// Waits until it is not as `wrong` says.
    fn wait_while(&self, wrong: fn(Reader) -> bool) -> Reader {
        let guard = self.changed.wait_while(self.lock(), |reader| wrong(*reader));
        *guard.unwrap_or_else(PoisonError::into_inner)
    }
}

/// See above. The thread ends when this is dropped.
#[derive(Debug)]
pub struct LogPipe {
    path: PathBuf,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl LogPipe {
    /// Gives a daemon that has ended a new life with its log in a pipe.
    pub fn put_behind(daemon: Daemon) -> (Daemon, Self) {
        let path = daemon.config().with_extension("pipe");
        let _none = std::fs::remove_file(&path);
        run(&format!("mkfifo {}", path.display()));
        // open for both: it waits for no other end, and never comes to one
        let pipe = OpenOptions::new().read(true).write(true).open(&path).expect("open the pipe");
        let log = OpenOptions::new().append(true).open(daemon.log_file()).expect("open the daemon's log");
        let end = OpenOptions::new().write(true).open(&path).expect("open the pipe");
        let shared = Arc::new(Shared { reader: Mutex::new(Reader::Reads), changed: Condvar::new() });
        let thread = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || read(pipe, log, &shared)
        });
        (daemon.again_saying_to(end), Self { path, shared, thread: Some(thread) })
    }

    /// Nobody reads it any more, and there is no room in it.
    pub fn block(&self) {
        self.shared.set(Reader::Pausing);
        let mut end = self.end();
        write(&mut end, b"nobody reads this log now\n");
        self.shared.wait_while(|reader| reader == Reader::Pausing);
        for piece in [&[b'\n'; 4096][..], b"\n"] {
            while write(&mut end, piece) {}
        }
    }

    /// It is read again.
    pub fn unblock(&self) {
        self.shared.set(Reader::Reads);
    }

    /// An end of its own for writing, which never waits.
    fn end(&self) -> File {
        OpenOptions::new().write(true).custom_flags(NO_WAIT).open(&self.path).expect("open the pipe")
    }
}

/// False if there is no room.
fn write(end: &mut File, piece: &[u8]) -> bool {
    match end.write(piece) {
        Ok(_) => true,
        Err(error) if error.kind() == ErrorKind::WouldBlock => false,
        Err(error) => panic!("write into the pipe of a log: {error}"),
    }
}

fn read(mut pipe: File, mut log: File, shared: &Shared) {
    let mut piece = [0; 65_536];
    loop {
        let length = pipe.read(&mut piece).expect("read the pipe of a log");
        log.write_all(&piece[..length]).expect("write the daemon's log");
        if *shared.lock() == Reader::Pausing {
            shared.set(Reader::Pauses);
        }
        if shared.wait_while(|reader| reader == Reader::Pauses) == Reader::Ends {
            return;
        }
    }
}

impl Drop for LogPipe {
    fn drop(&mut self) {
        self.shared.set(Reader::Ends);
        // if it waits for something to read
        write(&mut self.end(), b"\n");
        if let Some(thread) = self.thread.take() {
            assert!(thread.join().is_ok() || std::thread::panicking(), "the thread of a log has panicked");
        }
    }
}
