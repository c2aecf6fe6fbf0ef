//! Output on a terminal: tables, colours, errors, JSON. Owns the format, and escapes every text from outside so that it
//! cannot control the terminal. Must never know what is shown.
//!
//! Colours are used only if the output is a terminal, `NO_COLOR` is not set, and `TERM` is not `dumb`.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use comfy_table::{Attribute, Color, ContentArrangement, presets};
use serde::Serialize;

use super::escape;
use crate::node::keyword::Keyword;
use crate::registry::view::{Parsed, SessionState, ShownNodeState};

/// Whether standard output is a terminal that wants colours.
pub(super) fn colours() -> bool {
    has_colours(&std::io::stdout())
}

fn has_colours(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none() && !is_dumb()
}

/// Whether the terminal shows whatever it gets as text: no colours, and no moving of the cursor.
pub(super) fn is_dumb() -> bool {
    std::env::var_os("TERM").is_some_and(|term| term == "dumb")
}

/// Text for a terminal, in which only our own colours act: whatever is put into it is escaped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shown(String);

impl Shown {
    /// With more text behind it.
    pub(super) fn then(mut self, text: &str) -> Self {
        self.0.push_str(&escape::line(text));
        self
    }

    /// With a coloured word behind it, for a column of this width.
    fn then_word(mut self, word: &str, width: usize, colour: Option<anstyle::Style>) -> Self {
        let word = format!("{:<width$}", escape::line(word));
        match colour.filter(|_| colours()) {
            Some(style) => self.0.push_str(&format!("{style}{word}{style:#}")),
            None => self.0.push_str(&word),
        }
        self
    }

    /// With a word of the event stream behind it, padded, in the colour of how good it is.
    pub(super) fn then_event(self, word: &str) -> Self {
        let colour = match word {
            "live" | "node-up" | "node-resume" => Some(anstyle::AnsiColor::Green),
            "failed" | "refused" | "stranded" | "node-down" | "node-lease-expired" | "name-conflict" | "drift"
            | "keepalive" => Some(anstyle::AnsiColor::Red),
            "ended" | "logout" => None,
            _ => Some(anstyle::AnsiColor::Yellow),
        };
        self.then_word(word, 18, colour.map(anstyle::AnsiColor::on_default))
    }

    /// Without blanks at its end.
    pub(super) fn trimmed(mut self) -> Self {
        self.0.truncate(self.0.trim_end().len());
        self
    }
}

impl<T: AsRef<str>> From<T> for Shown {
    fn from(text: T) -> Self {
        Self(String::new()).then(text.as_ref())
    }
}

/// How bad a finding is, padded, in the colour of that.
pub(super) fn level(word: &str) -> Shown {
    let colour = match word {
        "ok" => Some(anstyle::AnsiColor::Green),
        "warning" => Some(anstyle::AnsiColor::Yellow),
        "failure" => Some(anstyle::AnsiColor::Red),
        _ => None,
    };
    Shown(String::new()).then_word(word, 8, colour.map(|colour| colour.on_default().bold()))
}

/// A table. What its cells hold is escaped.
#[derive(Debug)]
pub(super) struct Table(comfy_table::Table);

/// One cell.
#[derive(Debug)]
pub(super) struct Cell(comfy_table::Cell);

impl<T: AsRef<str>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self(comfy_table::Cell::new(escape::line(text.as_ref())))
    }
}

/// An empty table with these heads.
pub(super) fn table(heads: &[&str]) -> Table {
    let mut table = comfy_table::Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    let head = |head: &&str| {
        let cell = comfy_table::Cell::new(head);
        if colours() { cell.add_attribute(Attribute::Bold) } else { cell }
    };
    table.set_header(heads.iter().map(head));
    Table(table)
}

impl Table {
    pub(super) fn add_row<C: Into<Cell>>(&mut self, cells: impl IntoIterator<Item = C>) {
        self.0.add_row(cells.into_iter().map(|cell| cell.into().0));
    }
}

/// What is shown in a colour: how good it is.
pub(super) trait Coloured: Keyword {
    fn colour(self) -> Option<Color>;
}

impl Coloured for SessionState {
    fn colour(self) -> Option<Color> {
        match self {
            Self::Live => Some(Color::Green),
            Self::Placed | Self::Held | Self::Queued | Self::Ringing => Some(Color::Yellow),
            Self::Failed => Some(Color::Red),
            Self::Ended => None,
        }
    }
}

impl Coloured for ShownNodeState {
    fn colour(self) -> Option<Color> {
        match self {
            Self::Active => Some(Color::Green),
            Self::Starting | Self::Draining | Self::Stopping | Self::Stopped => Some(Color::Yellow),
            Self::Down | Self::LeaseExpired | Self::Unknown => Some(Color::Red),
        }
    }
}

/// A state, in its colour; that of another version has none.
pub(super) fn state<T: Coloured>(state: &Parsed<T>) -> Cell {
    let Cell(cell) = state.as_str().into();
    let colour = match state {
        Parsed::Known(state) => state.colour(),
        Parsed::Other(_) => None,
    };
    Cell(match colour.filter(|_| colours()) {
        Some(colour) => cell.fg(colour),
        None => cell,
    })
}

/// Prints a table without blanks at the ends of its lines.
pub(super) fn print_table(table: &Table) {
    for line in table.0.to_string().lines() {
        put(line.trim_end());
    }
}

/// Prints a line. A reader who has gone (`| head`) is no error.
pub(super) fn line_out(line: &str) {
    put(&escape::line(line));
}

/// Prints whole lines. A reader who has gone is no error.
pub(super) fn text_out(lines: &str) {
    lines.lines().for_each(line_out);
}

/// The same of what has colours.
pub(super) fn shown_out(line: &Shown) {
    put(&line.0);
}

/// Prints a line of many; false: the reader has gone.
pub(super) fn one_of_many(line: &Shown) -> bool {
    put(&line.0)
}

/// Prints what is harmless already; false: the reader has gone.
fn put(line: &str) -> bool {
    writeln!(std::io::stdout(), "{line}").is_ok()
}

/// Prints one JSON document.
pub(super) fn json<T: Serialize>(value: &T) {
    match serde_json::to_string_pretty(value) {
        Ok(text) => {
            put(&escape::json(&text));
        }
        Err(error) => complain(&format!("cannot write JSON: {error}")),
    }
}

/// Prints one JSON document of many, in one line; false: the reader has gone.
pub(super) fn json_line<T: Serialize>(value: &T) -> bool {
    // What we have serialises; a struct of texts and numbers always does.
    put(&escape::json(&serde_json::to_string(value).unwrap_or_default()))
}

/// Prints an error, in one line.
pub(super) fn complain(message: &str) {
    marked("error:", anstyle::AnsiColor::Red, message);
}

/// The same of several lines, each of them marked; does not wait longer than this for whoever should read it, if at all.
pub(super) fn complain_within(limit: Duration, message: String) {
    let (told, done) = std::sync::mpsc::sync_channel(1);
    // Too late, or no thread: the process ends all the same.
    let _ = std::thread::Builder::new().spawn(move || {
        message.lines().for_each(complain);
        told.send(())
    });
    let _ = done.recv_timeout(limit);
}

/// Prints a warning, in one line.
pub(super) fn warn(message: &str) {
    marked("warning:", anstyle::AnsiColor::Yellow, message);
}

fn marked(word: &str, colour: anstyle::AnsiColor, message: &str) {
    let mark = if has_colours(&std::io::stderr()) {
        let style = colour.on_default().bold();
        format!("{style}{word}{style:#}")
    } else {
        word.to_owned()
    };
    let _ = writeln!(std::io::stderr(), "{mark} {}", escape::line(message));
}

/// A number of ms as people say it.
pub(super) fn age(ms: u64) -> String {
    let s = ms / 1000;
    match s {
        0..=119 => format!("{s} s"),
        120..=7199 => format!("{} min", s / 60),
        _ => format!("{} h {} min", s / 3600, s % 3600 / 60),
    }
}

/// A load with at most two digits behind the point.
pub(super) fn load(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_but_the_end_has_a_colour() {
        let plain: Vec<_> = SessionState::ALL.into_iter().filter(|state| state.colour().is_none()).collect();
        assert_eq!(plain, [SessionState::Ended]);
        let plain: Vec<_> = ShownNodeState::ALL.into_iter().filter(|state| state.colour().is_none()).collect();
        assert_eq!(plain, []);
        assert_eq!(ShownNodeState::Stopping.colour(), Some(Color::Yellow));
    }

    #[test]
    fn numbers_for_people() {
        assert_eq!([load(10.0), load(0.5), load(1.0 / 3.0), load(0.0)], ["10", "0.5", "0.33", "0"]);
        assert_eq!([age(999), age(119_999), age(120_000), age(7_260_000)], ["0 s", "119 s", "2 min", "2 h 1 min"]);
    }
}
