//! What is printed of the rounds: a table for people, and one line for programs.
//!
//! Owns the wording. Must never decide whether something is good.

use std::time::Duration;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets::ASCII_MARKDOWN};
use serde_json::json;

use super::round::Outcome;

const HEADER: [&str; 12] = [
    "fault",
    "live before",
    "logins: accepted, refused, no Redis",
    "they became live / failed / forgotten",
    "agents rung elsewhere",
    "INVITEs",
    "of these late, taken back",
    "out of the rotation",
    "rang elsewhere (p99)",
    "logins again",
    "slowest login",
    "all back",
];

fn time(time: Option<Duration>) -> String {
    time.map_or_else(String::new, |time| format!("{:.2} s", time.as_secs_f64()))
}

fn row(outcome: &Outcome) -> Vec<String> {
    let Outcome { accepted, refused, errors, became_live, failed, forgotten, .. } = outcome;
    vec![
        format!("{}: {}", outcome.name, outcome.what),
        outcome.live.to_string(),
        format!("{accepted}, {refused}, {errors}"),
        format!("{became_live} / {failed} / {forgotten}"),
        outcome.moved.to_string(),
        outcome.invites.to_string(),
        outcome.late.to_string(),
        time(outcome.out),
        time(outcome.elsewhere),
        time(outcome.again),
        time(outcome.settled),
        time(outcome.back),
    ]
}

/// All rounds, one a row.
pub fn table(outcomes: &[Outcome]) -> String {
    let mut table = Table::new();
    table.load_preset(ASCII_MARKDOWN).set_content_arrangement(ContentArrangement::Disabled).set_header(HEADER);
    table.add_rows(outcomes.iter().map(row));
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}

/// One round, while the others are still to come.
pub fn progress(outcome: &Outcome) -> String {
    let word = if outcome.violations.is_empty() {
        "kept".to_owned()
    } else {
        format!("{} VIOLATIONS", outcome.violations.len())
    };
    let took = outcome.took.as_secs_f64();
    let whys: Vec<String> = outcome.whys.iter().map(|(why, count)| format!(", {count} {why}")).collect();
    let (name, what, whys) = (outcome.name, outcome.what, whys.concat());
    format!("{word}: {name}: {what} ({} logins{whys}, {} INVITEs, {took:.1} s)", outcome.accepted, outcome.invites)
}

/// One JSON object.
pub fn line(outcomes: &[Outcome], took: Duration) -> String {
    let sum = |count: fn(&Outcome) -> usize| outcomes.iter().map(count).sum::<usize>();
    let slowest =
        |time: fn(&Outcome) -> Option<Duration>| outcomes.iter().filter_map(time).max().map(|time| time.as_millis());
    json!({
        "faults": outcomes.len(),
        "violations": sum(|outcome| outcome.violations.len()),
        "logins": sum(|outcome| outcome.accepted),
        "live": sum(|outcome| outcome.became_live),
        "failed": sum(|outcome| outcome.failed),
        "forgotten": sum(|outcome| outcome.forgotten),
        "invites": sum(|outcome| outcome.invites),
        "late_invites": sum(|outcome| outcome.late),
        "slowest_login_ms": slowest(|outcome| outcome.settled),
        "slowest_back_ms": slowest(|outcome| outcome.back),
        "seconds": took.as_secs(),
    })
    .to_string()
}
