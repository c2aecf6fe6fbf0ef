//! How the demo looks: lines with the time, and one table that is drawn again in place on a terminal.
//!
//! Owns the terminal. Without one there are plain lines, and only a few. Must never measure or decide anything.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use anstyle::{AnsiColor, Style};

use super::observer::View;
use crate::lab::now;

/// Between two plain lines about a table that moves.
const PLAIN: Duration = Duration::from_millis(500);

/// See above.
pub(super) struct Screen {
    begin: Instant,
    terminal: bool,
    colours: bool,
    /// Lines of the table at the bottom.
    drawn: usize,
    plain: (String, Instant),
}

impl Screen {
    pub(super) fn new() -> Self {
        let terminal = std::io::stdout().is_terminal();
        let colours = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let begin = now();
        Self { begin, terminal, colours, drawn: 0, plain: (String::new(), begin) }
    }

    /// A line with the time. A table above it stays as it is.
    pub(super) fn say(&mut self, text: &str) {
        let time = format!("{:5.1} s", self.begin.elapsed().as_secs_f64());
        println!("{}  {text}", self.paint(AnsiColor::Cyan, &time));
        self.drawn = 0;
    }

    /// The nodes as they are now. `last`: nothing more comes of this scene.
    pub(super) fn show(&mut self, view: &View, last: bool) {
        if self.terminal {
            self.draw(view);
        } else {
            self.tell(view, last);
        }
    }

    fn draw(&mut self, view: &View) {
        let mut text = String::new();
        if self.drawn > 0 {
            write!(text, "\x1b[{}A", self.drawn).expect("a String takes all");
        }
        let lines = self.lines(view);
        for line in &lines {
            writeln!(text, "\r{line}\x1b[K").expect("a String takes all");
        }
        self.drawn = lines.len();
        print!("{text}");
        let _nobody_looks = std::io::stdout().flush();
    }

    fn lines(&self, view: &View) -> Vec<String> {
        let head = "          NODE  STATE     AGENTS  REMOTE  PHONES  CHANNELS";
        let head = if self.colours { format!("{0}{head}{0:#}", Style::new().bold()) } else { head.to_owned() };
        let rows = view.nodes.iter().map(|row| {
            let colour = match row.state.as_str() {
                "active" => AnsiColor::Green,
                "down" | "lease-expired" => AnsiColor::Red,
                _ => AnsiColor::Yellow,
            };
            let state = self.paint(colour, &format!("{:<8}", row.state));
            let (live, coming) = view.local(&row.name);
            format!(
                "          {:<4}  {state}  {:>6}  {:>6}  {:>6}  {:>8}  {}{}",
                row.name,
                row.agents,
                row.remote,
                row.registrations.map_or_else(|| "-".to_owned(), |phones| phones.to_string()),
                row.channels,
                self.paint(AnsiColor::Green, &"█".repeat(live)),
                self.paint(AnsiColor::Yellow, &"░".repeat(coming)),
            )
        });
        std::iter::once(head).chain(rows).collect()
    }

    fn tell(&mut self, view: &View, last: bool) {
        let row = |row: &evenring::registry::view::NodeRow| {
            let (live, coming) = view.local(&row.name);
            let ringing = if coming > 0 { format!(" + {coming} ringing") } else { String::new() };
            let remote = if row.remote > 0 { format!(" + {} remote", row.remote) } else { String::new() };
            format!("{} {} {live} live{ringing}{remote}", row.name, row.state)
        };
        let text = view.nodes.iter().map(row).collect::<Vec<_>>().join(" | ");
        let (told, at) = &self.plain;
        if *told != text && (last || at.elapsed() >= PLAIN) {
            self.say(&format!("  {text}"));
            self.plain = (text, now());
        }
    }

    fn paint(&self, colour: AnsiColor, text: &str) -> String {
        if !self.colours || text.is_empty() {
            return text.to_owned();
        }
        let style = colour.on_default();
        format!("{style}{text}{style:#}")
    }
}
