//! Rows, rounds and the table. Owns how a measurement becomes a row. Must never know what is measured.
//!
//! A new group is a function that takes a [`Bench`] and adds rows; `run.rs` lists the groups. Measured thing and floor
//! take turns, so that both see the same noise; the ratio of a row is the median of the rounds' own ratios.

use std::fmt::Write as _;
use std::hint::black_box;
use std::io::IsTerminal;
use std::time::Instant;

use serde::Serialize;

/// Rounds of which the median is taken. The first round of all is thrown away.
pub const ROUNDS: usize = 7;

/// What a row has to reach.
#[derive(Debug, Clone, Copy)]
pub enum Reach {
    /// Measured ÷ floor is at least this.
    RatioAtLeast(f64),
    /// Measured ÷ floor is at most this.
    RatioAtMost(f64),
    /// The measured value itself is at least this; the floor is shown for comparison.
    AtLeast(f64),
    /// The measured value itself is at most this; the floor is shown for comparison.
    AtMost(f64),
}

/// One line of the table.
#[derive(Debug, Serialize)]
pub struct Row {
    /// What was measured.
    pub name: &'static str,
    /// The unit of `measured` and `floor`.
    pub unit: &'static str,
    /// Median of all rounds.
    pub measured: f64,
    /// Median of all rounds.
    pub floor: f64,
    /// Median of the rounds' ratios of measured to floor; `null` if the floor is 0.
    pub ratio: Option<f64>,
    /// What is to be reached, in words.
    pub reach: String,
    /// Whether it is.
    pub ok: bool,
}

/// The rows so far, and which are wanted.
#[derive(Debug)]
pub struct Bench {
    filter: Option<String>,
    rows: Vec<Row>,
}

impl Bench {
    pub fn new(filter: Option<String>) -> Self {
        Self { filter, rows: Vec::new() }
    }

    /// Whether a row of this name is asked for. Ask before anything costly is prepared.
    pub fn wants(&self, name: &str) -> bool {
        self.filter.as_deref().is_none_or(|filter| name.contains(filter))
    }

    /// Measures in turns; each closure gives one value of one round.
    pub fn row(
        &mut self,
        name: &'static str,
        unit: &'static str,
        reach: Reach,
        mut measured: impl FnMut() -> f64,
        mut floor: impl FnMut() -> f64,
    ) {
        if !self.wants(name) {
            return;
        }
        black_box((measured(), floor()));
        let pairs: Vec<(f64, f64)> = (0..ROUNDS).map(|_| (measured(), floor())).collect();
        self.add(name, unit, reach, &pairs);
    }

    /// Adds a row of pairs (measured, floor) that were measured in turns elsewhere.
    pub fn add(&mut self, name: &'static str, unit: &'static str, reach: Reach, pairs: &[(f64, f64)]) {
        let measured = median(pairs.iter().map(|pair| pair.0));
        let floor = median(pairs.iter().map(|pair| pair.1));
        let ratio = pairs.iter().all(|pair| pair.1 > 0.0).then(|| median(pairs.iter().map(|pair| pair.0 / pair.1)));
        let (reach, ok) = match reach {
            Reach::RatioAtLeast(least) => (format!(">= {least} x floor"), ratio.is_some_and(|ratio| ratio >= least)),
            Reach::RatioAtMost(most) => (format!("<= {most} x floor"), ratio.is_some_and(|ratio| ratio <= most)),
            Reach::AtLeast(least) => (format!(">= {least} {unit}"), measured >= least),
            Reach::AtMost(most) => (format!("<= {most} {unit}"), measured <= most),
        };
        let row = Row { name, unit, measured, floor, ratio, reach, ok };
        eprintln!("{}", line(&row));
        self.rows.push(row);
    }

    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// The whole table. What missed its target is red where a person looks at a terminal.
    pub fn table(&self) -> String {
        let colours = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        let mut text = format!(
            "{:<58} {:>12} {:>12} {:<9} {:>7}  {:<18} ok\n",
            "name", "measured", "floor", "unit", "ratio", "reach"
        );
        for row in &self.rows {
            let (on, off) = if colours && !row.ok { ("\x1b[31m", "\x1b[0m") } else { ("", "") };
            writeln!(text, "{on}{}{off}", line(row)).expect("memory");
        }
        text
    }
}

fn line(row: &Row) -> String {
    let ratio = row.ratio.map_or("-".into(), |ratio| format!("{ratio:.3}"));
    let ok = if row.ok { "yes" } else { "no" };
    let Row { name, unit, measured, floor, reach, .. } = row;
    format!("{name:<58} {measured:>12.2} {floor:>12.2} {unit:<9} {ratio:>7}  {reach:<18} {ok}")
}

pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[expect(clippy::disallowed_methods, reason = "a bench reads the clock")]
pub fn now() -> Instant {
    Instant::now()
}

/// Keeps this thread on one core: what talks to another thread is measured across cores, always. Where there is no such
/// core, or it is not allowed, the scheduler places it, and the rounds differ more.
pub fn pin(core: usize) {
    let mut set = rustix::thread::CpuSet::new();
    set.set(core);
    let _ = rustix::thread::sched_setaffinity(None, &set);
}

/// Seconds of this thread on a core: other programs that share it do not count.
pub fn cpu_s(work: impl FnOnce()) -> f64 {
    let read = || {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
    };
    let start = read();
    work();
    read() - start
}

/// MB (10^6) of `bytes` that `work` handles in a second of a core.
pub fn mb_per_s(bytes: usize, work: impl FnOnce()) -> f64 {
    bytes as f64 / cpu_s(work) / 1e6
}
