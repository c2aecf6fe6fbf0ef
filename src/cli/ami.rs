//! `evenring ami`: AMI messages for people and programs. Owns how a message looks as JSON and as text. Must never act on
//! one.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf, BytesMut};
use clap::{Args, Subcommand};
use memchr::{memchr, memmem};
use serde::Serialize;
use tokio::io::Interest;
use tokio::net::unix::pipe::Sender;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::{CliError, DONE, FAILED, escape, output};
use crate::ami::action::EventMask;
use crate::ami::frame::{Frame, Limits, LineEnd, Part, Splitter};
use crate::ami::link::Boot;
use crate::ami_client::link_settings;
use crate::ami_client::{Ami, FromAmi};
use crate::config::Settings;
use crate::ids::Generation;
use crate::runtime::clock::Clock;
use crate::runtime::random::random_bits;

/// Limits of a capture: far higher than those of a connection, because nothing depends on it.
const LIMITS: Limits = Limits { banner_bytes: 256, message_bytes: 256 << 20, headers: usize::MAX };
/// Bytes read at a time.
const READ_BYTES: usize = 64 << 10;
/// What a greeting begins with.
const GREETING: &[u8] = b"Asterisk Call Manager/";

#[derive(Debug, Args)]
pub(super) struct AmiArgs {
    #[command(subcommand)]
    pub(super) what: AmiWhat,
}

#[derive(Debug, Subcommand)]
pub(super) enum AmiWhat {
    /// Decode captured AMI bytes to JSON Lines. Needs no configuration.
    #[command(after_help = SHAPE)]
    Decode(DecodeArgs),
    /// Follow the events of this node's Asterisk until Ctrl-C. Logs in as the configured AMI user, beside the daemon.
    #[command(after_help = "\
Shows the events that the user may read (its read classes in manager.conf). Reconnects if the
connection is lost; exits if the login is refused. With --json, lines have the format described in
`evenring ami decode --help`.

Examples:
  evenring ami tail --event Hangup --event OriginateResponse
  evenring ami tail --json | jq -r 'select(.name == \"PeerStatus\") | .headers'")]
    Tail(TailArgs),
}

const SHAPE: &str = "\
Prints one line for each message:
  {\"kind\":\"event\",\"name\":\"Hangup\",\"headers\":[[\"Event\",\"Hangup\"],[\"Cause\",\"16\"]]}
  kind     event, response, banner or error
  name     name of the event, result of a response (Success), version of a banner; empty for errors
  headers  all header lines in order; a line without a colon has an empty name. Bytes that are not
           UTF-8 become U+FFFD
  raw      only if the message is not UTF-8: its bytes in base64, as received (header lines with
           their line ends, without the empty line that ends the message)
  message  only for an error: what is wrong. Decoding continues after it
A capture may start anywhere, even in the middle of a message, and may contain several connections
in a row.
Exit codes: 0 everything was decoded, 1 there were errors or the file cannot be read.

Examples:
  evenring ami decode capture.bin | jq -c 'select(.kind == \"event\") | .name'
  socat -u TCP:127.0.0.1:5038 - | evenring ami decode -";

#[derive(Debug, Args)]
pub(super) struct DecodeArgs {
    /// File with the captured bytes; `-` is standard input.
    #[arg(value_name = "FILE|-")]
    file: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct TailArgs {
    /// Show only events of this name; may be given several times.
    #[arg(long = "event", value_name = "NAME")]
    events: Vec<String>,
    /// Print JSON Lines instead of text.
    #[arg(long)]
    json: bool,
}

/// One line of JSON.
#[derive(Debug, Serialize)]
struct Line<'a> {
    kind: &'static str,
    name: String,
    headers: Vec<(String, String)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    raw: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
}

impl<'a> Line<'a> {
    fn bare(kind: &'static str, name: &[u8], message: Option<&'a str>) -> Self {
        Self { kind, name: text(name), headers: Vec::new(), raw: None, message }
    }

    fn new(frame: Frame<'_>, error: Option<&'a str>) -> Self {
        let (kind, name, message) = match (error, frame.event_name(), frame.response()) {
            (Some(_), _, _) => ("error", &b""[..], error),
            (None, Some(name), _) => ("event", name, None),
            (None, None, Some(name)) => ("response", name, None),
            (None, None, None) => ("error", &b""[..], Some("neither an event nor a response")),
        };
        let headers = frame.headers().map(|(name, value)| (text(name), text(value))).collect();
        let raw = std::str::from_utf8(frame.as_bytes()).is_err().then(|| STANDARD.encode(frame.as_bytes()));
        Self { headers, raw, ..Self::bare(kind, name, message) }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Decodes a capture; the exit code.
pub(super) fn decode(args: &DecodeArgs) -> u8 {
    let mut decoder = Decoder::new(BufWriter::new(io::stdout().lock()));
    let done = if args.file.as_os_str() == "-" {
        decoder.run(io::stdin().lock())
    } else {
        match File::open(&args.file) {
            Ok(file) => decoder.run(file),
            Err(error) => Err(Stop::Read(error)),
        }
    };
    match done {
        Ok(()) if decoder.errors => FAILED,
        Ok(()) | Err(Stop::Write) => DONE,
        Err(Stop::Read(error)) => {
            output::complain(&format!("{}: {error}", args.file.display()));
            FAILED
        }
    }
}

/// Why decoding ends before the end.
enum Stop {
    Read(io::Error),
    /// The reader of the output has gone.
    Write,
}

struct Decoder<W: Write> {
    out: W,
    errors: bool,
    /// `None` before the first line: its line end decides about all others.
    splitter: Option<(Splitter, LineEnd)>,
}

impl<W: Write> Decoder<W> {
    fn new(out: W) -> Self {
        Self { out, errors: false, splitter: None }
    }

    fn run(&mut self, mut from: impl Read) -> Result<(), Stop> {
        let mut buf = BytesMut::new();
        let mut piece = vec![0; READ_BYTES];
        loop {
            let count = match from.read(&mut piece) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Stop::Read(error)),
            };
            buf.extend_from_slice(piece.get(..count).unwrap_or_default());
            self.cut(&mut buf)?;
            self.out.flush().map_err(|_| Stop::Write)?;
        }
        self.end(&buf)?;
        self.out.flush().map_err(|_| Stop::Write)
    }

    /// What is left when nothing more comes.
    fn end(&mut self, buf: &[u8]) -> Result<(), Stop> {
        let rest = match greeting(buf) {
            Some((version, length)) => {
                self.put(&Line::bare("banner", version, None))?;
                buf.get(length..).unwrap_or_default()
            }
            None => buf,
        };
        if rest.is_empty() {
            return Ok(());
        }
        let ends = self.splitter.as_ref().map_or(LineEnd::CrLf, |(_, ends)| *ends);
        self.put(&Line::new(Frame::new(rest, ends), Some("the capture ends in the middle of a message")))
    }

    fn cut(&mut self, buf: &mut BytesMut) -> Result<(), Stop> {
        loop {
            let (splitter, ends) = match &mut self.splitter {
                Some((splitter, ends)) => (splitter, *ends),
                None => {
                    let Some(ends) = ends_of(buf) else { return Ok(()) };
                    self.splitter = Some((Splitter::without_banner(LIMITS, ends), ends));
                    continue;
                }
            };
            let used = match splitter.part(buf) {
                Ok((used, Part::More)) => {
                    buf.advance(used);
                    return Ok(());
                }
                // A greeting has no empty line behind it, so it sticks to the first message, which may end otherwise.
                Ok((used, Part::Message(frame))) => match greeting(frame.as_bytes()) {
                    Some((version, length)) => {
                        let at = memmem::find(buf, GREETING).unwrap_or_default();
                        let ends = ends_of(frame.as_bytes()).unwrap_or(ends);
                        self.put(&Line::bare("banner", version, None))?;
                        self.splitter = Some((Splitter::without_banner(LIMITS, ends), ends));
                        (at + length).min(used)
                    }
                    None => {
                        self.put(&Line::new(frame, None))?;
                        used
                    }
                },
                // The splitter was told that there is no banner.
                Ok((used, Part::Banner(_))) => used,
                Err(error) => {
                    self.put(&Line::bare("error", b"", Some(&error.to_string())))?;
                    self.splitter = Some((Splitter::without_banner(LIMITS, ends), ends));
                    buf.len()
                }
            };
            buf.advance(used);
        }
    }

    fn put(&mut self, line: &Line<'_>) -> Result<(), Stop> {
        self.errors |= line.kind == "error";
        let text = serde_json::to_string(line).map_err(|_| Stop::Write)?;
        self.out.write_all(escape::json(&text).as_bytes()).map_err(|_| Stop::Write)?;
        self.out.write_all(b"\n").map_err(|_| Stop::Write)
    }
}

/// How the first line ends; `None` if its end has not come.
fn ends_of(text: &[u8]) -> Option<LineEnd> {
    let line = &text[..memchr(b'\n', text)?];
    Some(if line.ends_with(b"\r") { LineEnd::CrLf } else { LineEnd::Lf })
}

/// The version of the greeting with which `text` begins, and how long its line is.
fn greeting(text: &[u8]) -> Option<(&[u8], usize)> {
    let length = memchr(b'\n', text).map_or(text.len(), |end| end + 1);
    Some((text[..length].trim_ascii_end().strip_prefix(GREETING)?, length))
}

/// Follows a live connection.
pub(super) async fn tail(settings: Settings, args: TailArgs) -> Result<u8, CliError> {
    let login = settings.require_ami()?;
    let generation = Generation::from_bits(random_bits());
    let mut link = link_settings(&settings, login, EventMask::ALL, generation);
    link.boot = Boot::NotAwaited;
    let mut ami = Ami::new(settings.node.name, settings.ami, link, Clock::start(), "tail");
    ami.wanted = |_| true;
    let address = ami.settings.address.to_string();
    // Kept: without an owner's end, the task would say goodbye.
    let (_to, orders) = mpsc::channel(1);
    let (told, mut from) = mpsc::channel(256);
    let mut interrupt = signal(SignalKind::interrupt()).map_err(CliError::Runtime)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(CliError::Runtime)?;
    let names: BTreeSet<&[u8]> = args.events.iter().map(|name| name.as_bytes()).collect();
    let show = async {
        while let Some(message) = from.recv().await {
            match message {
                FromAmi::Event(message) => {
                    let name = message.event_name().unwrap_or_default();
                    if (names.is_empty() || names.contains(name)) && show(message.frame(), args.json).is_err() {
                        return DONE;
                    }
                }
                FromAmi::LoggedIn(version) => notice(&format!("{address}: logged in, manager {version}")),
                FromAmi::Closed { reason, needs_people, .. } => {
                    if needs_people {
                        output::complain(&format!("{address}: {reason}"));
                        return FAILED;
                    }
                    notice(&format!("{address}: {reason}"));
                }
                FromAmi::ShuttingDown(true) => notice(&format!("{address}: Asterisk is shutting down")),
                FromAmi::Answer(_, _) | FromAmi::ShuttingDown(false) => {}
            }
        }
        DONE
    };
    tokio::select! {
        code = show => Ok(code),
        () = ami.run(orders, told) => Ok(DONE),
        () = nobody_reads() => Ok(DONE),
        _ = interrupt.recv() => Ok(DONE),
        _ = terminate.recv() => Ok(DONE),
    }
}

/// One event on standard output. Control characters are escaped for people; JSON escapes its own.
fn show(frame: Frame<'_>, json: bool) -> io::Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    if json {
        out.write_all(escape::json(&serde_json::to_string(&Line::new(frame, None))?).as_bytes())?;
    } else {
        for (name, value) in frame.headers() {
            let safe = |bytes: &[u8]| escape::line(&text(bytes)).into_owned();
            writeln!(out, "{}: {}", safe(name), safe(value))?;
        }
    }
    out.write_all(b"\n")?;
    out.flush()
}

/// To standard error, so that it does not mix with the events.
fn notice(text: &str) {
    let _ = writeln!(io::stderr(), "{}", escape::line(text));
}

/// Ends when standard output is a pipe whose reader has gone; for anything else, never.
async fn nobody_reads() {
    // Only looked at: it stays as it is, and everything is written through the standard library.
    if let Ok(out) = io::stdout().as_fd().try_clone_to_owned().and_then(Sender::from_owned_fd_unchecked)
        && out.ready(Interest::ERROR).await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines that a capture gives, however it is cut.
    #[track_caller]
    fn check(capture: &[u8], expected: &[&str]) {
        for step in [1, 5, capture.len().max(1)] {
            let mut decoder = Decoder::new(Vec::new());
            let mut buf = BytesMut::new();
            let (front, back) = capture.split_at(capture.len() - capture.len() % step);
            for piece in front.chunks(step) {
                buf.extend_from_slice(piece);
                assert!(decoder.cut(&mut buf).is_ok());
            }
            buf.extend_from_slice(back);
            assert!(decoder.cut(&mut buf).is_ok());
            assert!(decoder.end(&buf).is_ok());
            let lines = String::from_utf8(decoder.out).expect("JSON is UTF-8");
            assert_eq!(lines.lines().collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn messages_become_lines_of_json() {
        check(
            b"Asterisk Call Manager/11.0.0\r\nEvent: Hangup\r\nCause: 16\r\nno colon\r\n\r\nResponse: Success\r\n\r\n",
            &[
                r#"{"kind":"banner","name":"11.0.0","headers":[]}"#,
                r#"{"kind":"event","name":"Hangup","headers":[["Event","Hangup"],["Cause","16"],["","no colon"]]}"#,
                r#"{"kind":"response","name":"Success","headers":[["Response","Success"]]}"#,
            ],
        );
    }

    #[test]
    fn what_is_no_text_is_kept_in_base64() {
        check(
            b"Event: U\r\nName: \xffx\r\n\r\n",
            &["{\"kind\":\"event\",\"name\":\"U\",\"headers\":[[\"Event\",\"U\"],[\"Name\",\"\u{fffd}x\"]],\
                \"raw\":\"RXZlbnQ6IFUNCk5hbWU6IP94DQo=\"}"],
        );
    }

    #[test]
    fn a_capture_may_begin_and_end_in_the_middle_and_hold_two_connections() {
        check(
            b"e: 16\r\n\r\nEvent: A\r\n\r\nAsterisk Call Manager/5.0.4\r\nEvent: B\r\n\r\nEvent: C\r\nK",
            &[
                r#"{"kind":"error","name":"","headers":[["e","16"]],"message":"neither an event nor a response"}"#,
                r#"{"kind":"event","name":"A","headers":[["Event","A"]]}"#,
                r#"{"kind":"banner","name":"5.0.4","headers":[]}"#,
                r#"{"kind":"event","name":"B","headers":[["Event","B"]]}"#,
                r#"{"kind":"error","name":"","headers":[["Event","C"],["","K"]],"message":"the capture ends in the middle of a message"}"#,
            ],
        );
        check(
            b"Asterisk Call Manager/1.1\nEvent: B\n\nEvent: C\nK: 1\n\n",
            &[
                r#"{"kind":"banner","name":"1.1","headers":[]}"#,
                r#"{"kind":"event","name":"B","headers":[["Event","B"]]}"#,
                r#"{"kind":"event","name":"C","headers":[["Event","C"],["K","1"]]}"#,
            ],
        );
        check(b"Asterisk Call Manager/5.0.4\r\n", &[r#"{"kind":"banner","name":"5.0.4","headers":[]}"#]);
        check(b"", &[]);
    }
}
