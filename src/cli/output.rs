//! How things look on a terminal: tables, colours, errors, JSON. Owns the look only. Must never know what is shown.
//!
//! Colours only where a person looks at a terminal and `NO_COLOR` is not set.

use std::io::{IsTerminal, Write};

use comfy_table::{Attribute, Cell, Color, ContentArrangement, Table, presets};
use serde::Serialize;

/// Whether standard output is a terminal that wants colours.
pub(super) fn colours() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

/// An empty table with these heads.
pub(super) fn table(heads: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(
        heads
            .iter()
            .map(|head| if colours() { Cell::new(head).add_attribute(Attribute::Bold) } else { Cell::new(head) }),
    );
    table
}

/// A state, in the colour of how good it is.
pub(super) fn state(word: &str) -> Cell {
    let colour = match word {
        "active" | "live" => Color::Green,
        "placed" | "queued" | "ringing" | "starting" | "draining" | "stopping" | "stopped" => Color::Yellow,
        "down" | "lost" | "failed" | "refused" => Color::Red,
        _ => return Cell::new(word),
    };
    if colours() { Cell::new(word).fg(colour) } else { Cell::new(word) }
}

/// How bad a finding is, padded, in the colour of that.
pub(super) fn level(word: &str) -> String {
    let colour = match word {
        "ok" => anstyle::AnsiColor::Green,
        "warning" => anstyle::AnsiColor::Yellow,
        "failure" => anstyle::AnsiColor::Red,
        _ => return format!("{word:<7}"),
    };
    if !colours() {
        return format!("{word:<7}");
    }
    let style = colour.on_default().bold();
    format!("{style}{word:<7}{style:#}")
}

/// A word of the story, padded, in the colour of how good it is.
pub(super) fn event(word: &str) -> String {
    let colour = match word {
        "live" | "node-up" | "node-resume" => anstyle::AnsiColor::Green,
        "failed" | "refused" | "stranded" | "node-down" | "node-lost" | "drift" | "keepalive" => {
            anstyle::AnsiColor::Red
        }
        "ended" | "logout" => return format!("{word:<14}"),
        _ => anstyle::AnsiColor::Yellow,
    };
    if !colours() {
        return format!("{word:<14}");
    }
    let style = colour.on_default();
    format!("{style}{word:<14}{style:#}")
}

/// Prints a table without blanks at the ends of its lines.
pub(super) fn print_table(table: &Table) {
    for line in table.to_string().lines() {
        line_out(line.trim_end());
    }
}

/// Prints a line. A reader who has gone (`| head`) is no error.
pub(super) fn line_out(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Prints a line of many; false: the reader has gone.
pub(super) fn one_of_many(line: &str) -> bool {
    writeln!(std::io::stdout(), "{line}").is_ok()
}

/// Prints one JSON document.
pub(super) fn json<T: Serialize>(value: &T) {
    match serde_json::to_string_pretty(value) {
        Ok(text) => line_out(&text),
        Err(error) => complain(&format!("cannot be written as JSON: {error}")),
    }
}

/// Prints an error, each line of it marked.
pub(super) fn complain(message: &str) {
    marked("error:", anstyle::AnsiColor::Red, message);
}

/// Prints a warning, each line of it marked.
pub(super) fn warn(message: &str) {
    marked("warning:", anstyle::AnsiColor::Yellow, message);
}

fn marked(word: &str, colour: anstyle::AnsiColor, message: &str) {
    let mark = if std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none() {
        let style = colour.on_default().bold();
        format!("{style}{word}{style:#}")
    } else {
        word.to_owned()
    };
    for line in message.lines() {
        let _ = writeln!(std::io::stderr(), "{mark} {line}");
    }
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
    fn numbers_for_people() {
        assert_eq!([load(10.0), load(0.5), load(1.0 / 3.0), load(0.0)], ["10", "0.5", "0.33", "0"]);
        assert_eq!([age(999), age(119_999), age(120_000), age(7_260_000)], ["0 s", "119 s", "2 min", "2 h 1 min"]);
    }
}
