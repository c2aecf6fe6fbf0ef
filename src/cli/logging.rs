//! Where log lines go, and in which form.
//!
//! Owns the one subscriber of the process; a thread of its own ([`writer`]) writes lines to stderr or to the journal's
//! socket. Must never know what is logged. Levels: `error` an operator must act, `warn` something is degraded and
//! repairs itself, `info` one line per decision and state change, `debug` and `trace` for troubleshooting.

mod journal;
mod writer;

use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use tracing::subscriber::set_global_default;
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::Filter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

use self::journal::Journal;
use self::writer::{Form, Outlet, Sink};
use super::output;
use crate::config::{LogFormat, LogSettings, check_filter};

/// How long the end of the process waits for the last lines to be written.
pub(super) const LAST_LINES: Duration = Duration::from_secs(1);

/// The environment variable whose filter replaces `log.filter`.
pub(super) const FILTER_VARIABLE: &str = "EVENRING_LOG";

/// The log could not be set up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum LoggingError {
    /// The filter in the environment is invalid.
    #[error("the environment variable {FILTER_VARIABLE}: {0}")]
    Filter(String),
    /// The system provides no thread, or no handle for stderr.
    #[error("cannot write the log: {0}")]
    System(String),
    /// Logging was already set up in this process.
    #[error("logging was already set up")]
    Twice,
}

/// What `auto` was resolved to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Output {
    ColouredText,
    PlainText,
    Json,
    Journal,
}

impl Output {
    fn form(self) -> Form {
        match self {
            Self::ColouredText => Form::Coloured,
            Self::PlainText => Form::Text,
            Self::Json => Form::Json,
            Self::Journal => Form::Finished,
        }
    }
}

/// What stderr is, as far as the form of a line depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stderr {
    Terminal,
    PlainTerminal,
    Journal,
    Other,
}

/// Sets up logging for this process, once. `EVENRING_LOG` replaces the filter of the settings.
///
/// Without the journal's socket, lines meant for it are written as JSON to stderr, and the first of them says so.
/// Logging never blocks; a panic is logged as well.
///
/// # Errors
/// If the filter in `EVENRING_LOG` is invalid, or logging was set up before.
pub(super) fn init(log: &LogSettings) -> Result<Log, LoggingError> {
    let own = std::env::var(FILTER_VARIABLE).ok().filter(|filter| !filter.is_empty());
    let (filter, handle) = reload::Layer::new(filter(own.as_deref(), &log.filter)?);
    let system = |error: std::io::Error| LoggingError::System(error.to_string());
    let stderr = stderr();
    let (mut output, mut fallback, mut journal) = (output(log.format, stderr), None, None);
    if output == Output::Journal {
        match journal::sink() {
            Ok(sink) => journal = Some(sink),
            Err(error) => (output, fallback) = (Output::Json, Some(error)),
        }
    }
    let sink = match journal {
        Some(sink) => sink,
        None => Sink::Stderr(std::io::stderr().as_fd().try_clone_to_owned().map(File::from).map_err(system)?),
    };
    let dropped = Arc::<AtomicU64>::default();
    let outlet = Outlet::start(sink, output.form(), dropped.clone()).map_err(system)?;
    let set = match output {
        Output::Journal => set_global_default(Registry::default().with(Journal(outlet.clone()).with_filter(filter))),
        Output::ColouredText | Output::PlainText | Output::Json => {
            set_global_default(lines((output, stderr), filter, outlet.clone()))
        }
    };
    set.map_err(|_| LoggingError::Twice)?;
    if let Some(error) = fallback {
        tracing::warn!(%error, "journald's socket is unavailable: logging JSON to stderr instead");
    }
    let last = outlet.clone();
    std::panic::set_hook(Box::new(move |panic| {
        tracing::error!(reason = %panic, "the daemon panicked: this is a bug, please report it");
        last.flush(LAST_LINES);
    }));
    Ok(Log { filter: FilterHandle(handle), outlet, dropped })
}

/// The log of this process.
#[derive(Debug)]
pub(super) struct Log {
    pub(super) filter: FilterHandle,
    outlet: Outlet,
    /// Lines that were dropped so far.
    pub(super) dropped: Arc<AtomicU64>,
}

impl Log {
    /// Waits until pending lines are written, but not for a reader that hangs.
    pub(super) fn finish(&self) {
        self.outlet.flush(LAST_LINES);
    }
}

/// Changes the filter of the running log.
#[derive(Debug, Clone)]
pub(super) struct FilterHandle(reload::Handle<EnvFilter, Registry>);

impl FilterHandle {
    /// Uses this filter from now on.
    ///
    /// # Errors
    /// Why it has no effect.
    pub(super) fn set(&self, text: &str) -> Result<(), String> {
        if std::env::var(FILTER_VARIABLE).is_ok_and(|own| !own.is_empty()) {
            return Err(format!("the environment variable {FILTER_VARIABLE} overrides log.filter"));
        }
        let filter = filter(None, text).map_err(|error| error.to_string())?;
        self.0.reload(filter).map_err(|error| error.to_string())
    }
}

fn filter(own: Option<&str>, settings: &str) -> Result<EnvFilter, LoggingError> {
    let text = own.unwrap_or(settings);
    check_filter(text).map_err(LoggingError::Filter)?;
    EnvFilter::builder().parse(text).map_err(|error| LoggingError::Filter(error.to_string()))
}

fn output(format: LogFormat, stderr: Stderr) -> Output {
    match format {
        LogFormat::Auto => match stderr {
            Stderr::Terminal => Output::ColouredText,
            Stderr::PlainTerminal => Output::PlainText,
            Stderr::Journal => Output::Journal,
            Stderr::Other => Output::Json,
        },
        LogFormat::Text => match stderr {
            Stderr::Terminal => Output::ColouredText,
            Stderr::PlainTerminal | Stderr::Journal | Stderr::Other => Output::PlainText,
        },
        LogFormat::Json => Output::Json,
        LogFormat::Journald => Output::Journal,
    }
}

fn stderr() -> Stderr {
    let stderr = std::io::stderr();
    if stderr.is_terminal() {
        let colourless = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        return if colourless || output::is_dumb() { Stderr::PlainTerminal } else { Stderr::Terminal };
    }
    let file = stderr.as_fd().try_clone_to_owned().map(File::from).and_then(|file| file.metadata());
    let stream = std::env::var("JOURNAL_STREAM").ok();
    match (stream, file) {
        (Some(stream), Ok(file)) if is_journal(&stream, file.dev(), file.ino()) => Stderr::Journal,
        (Some(_) | None, Ok(_) | Err(_)) => Stderr::Other,
    }
}

/// Whether a stream is the one that systemd connected with the journal: `JOURNAL_STREAM` is `device:inode`. A child
/// process inherits the variable even where its stderr was sent elsewhere.
fn is_journal(stream: &str, device: u64, inode: u64) -> bool {
    stream == format!("{device}:{inode}")
}

/// The journal has the time of each line, and takes its priority from the front of it.
fn lines<W>(
    (output, stderr): (Output, Stderr),
    filter: impl Filter<Registry> + Send + Sync + 'static,
    writer: W,
) -> Box<dyn Subscriber + Send + Sync>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let layer = tracing_subscriber::fmt::layer();
    if stderr == Stderr::Journal {
        let layer = layer.without_time().with_writer(Prioritised(writer));
        return match output {
            Output::ColouredText | Output::PlainText => {
                let layer = layer.with_level(false).with_ansi(false);
                Box::new(Registry::default().with(layer.with_filter(filter)))
            }
            Output::Json | Output::Journal => {
                Box::new(Registry::default().with(layer.json().flatten_event(true).with_filter(filter)))
            }
        };
    }
    let layer = layer.with_writer(writer);
    match output {
        Output::ColouredText => Box::new(Registry::default().with(layer.with_ansi(true).with_filter(filter))),
        Output::PlainText => Box::new(Registry::default().with(layer.with_ansi(false).with_filter(filter))),
        Output::Json | Output::Journal => {
            Box::new(Registry::default().with(layer.json().flatten_event(true).with_filter(filter)))
        }
    }
}

/// Lines with the priority in front, as journald and syslog read it: `<4>`.
struct Prioritised<W>(W);

/// One of them.
struct PrioritisedLine<W>(&'static str, W);

impl<'a, W: MakeWriter<'a>> MakeWriter<'a> for Prioritised<W> {
    type Writer = PrioritisedLine<W::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        PrioritisedLine(journal::priority(Level::INFO), self.0.make_writer())
    }

    fn make_writer_for(&'a self, about: &Metadata<'_>) -> Self::Writer {
        PrioritisedLine(journal::priority(*about.level()), self.0.make_writer_for(about))
    }
}

impl<W: io::Write> io::Write for PrioritisedLine<W> {
    /// A line comes in one call.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let whole = [b"<", self.0.as_bytes(), b">", line].concat();
        self.1.write_all(&whole)?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.1.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn the_form_follows_stderr() {
        for (format, stderr, expected) in [
            (LogFormat::Auto, Stderr::Terminal, Output::ColouredText),
            (LogFormat::Auto, Stderr::PlainTerminal, Output::PlainText),
            (LogFormat::Auto, Stderr::Journal, Output::Journal),
            (LogFormat::Auto, Stderr::Other, Output::Json),
            (LogFormat::Text, Stderr::Other, Output::PlainText),
            (LogFormat::Json, Stderr::Terminal, Output::Json),
            (LogFormat::Journald, Stderr::Other, Output::Journal),
        ] {
            assert_eq!(output(format, stderr), expected, "{format:?} {stderr:?}");
        }
        assert!(is_journal("9:42", 9, 42) && !is_journal("9:42", 9, 43) && !is_journal("", 9, 42));
    }

    #[test]
    fn the_environment_replaces_the_filter() {
        assert_eq!(filter(None, "info").expect("a filter").to_string(), "info");
        assert_eq!(filter(Some("debug"), "info").expect("a filter").to_string(), "debug");
        let error = filter(Some("inof"), "info").expect_err("no level").to_string();
        assert!(error.starts_with("the environment variable EVENRING_LOG: \"inof\" is not a level"), "{error}");
    }

    #[test]
    fn json_lines_carry_their_fields() {
        let written = Arc::new(Mutex::new(Vec::new()));
        let sink = written.clone();
        let to = (Output::Json, Stderr::Other);
        let subscriber = lines(to, EnvFilter::new("info"), move || Sink(sink.clone()));
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(node = "tel-1", "placed");
            tracing::debug!("not this one");
        });
        let text = String::from_utf8(written.lock().expect("a lock").clone()).expect("UTF-8");
        let line: serde_json::Value = serde_json::from_str(&text).expect("one JSON line");
        assert_eq!((line["node"].as_str(), line["message"].as_str()), (Some("tel-1"), Some("placed")), "{text}");
        assert!(line["timestamp"].is_string(), "{text}");
    }

    #[test]
    fn a_line_for_the_journal_has_its_priority_and_no_time_of_its_own() {
        let said = |output: Output| {
            let written = Arc::new(Mutex::new(Vec::new()));
            let sink = written.clone();
            let to = (output, Stderr::Journal);
            let subscriber = lines(to, EnvFilter::new("info"), move || Sink(sink.clone()));
            tracing::subscriber::with_default(subscriber, || {
                tracing::error!(node = "tel-1", "failed");
                tracing::info!("placed");
            });
            String::from_utf8(written.lock().expect("a lock").clone()).expect("UTF-8")
        };
        let text = said(Output::PlainText);
        assert_eq!(
            text.lines().collect::<Vec<_>>(),
            ["<3>evenring::cli::logging::tests: failed node=\"tel-1\"", "<6>evenring::cli::logging::tests: placed"]
        );
        let json = said(Output::Json);
        assert!(json.starts_with("<3>{\"level\":\"ERROR\"") && !json.contains("timestamp"), "{json}");
    }

    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("a lock").extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
}
