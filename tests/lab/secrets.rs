//! What no output of the program may hold: the secrets that it was given in this process, and callers' numbers.
//!
//! Owns the search. Every daemon and every verb that the lab or the simulation starts is searched when it ends, so the whole
//! suite looks for leaks. Must never know who starts what.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part of the lab")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a leak ends the test, and says where")]

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// What the number of every phone of the lab begins with, as callers' numbers do: Asterisk tells it with each channel.
pub const NUMBER: &str = "0305550";
/// A shorter secret would be found by chance.
const SHORTEST: usize = 6;

static USED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// The secrets of a settings file: values, files, and passwords in a URL.
pub fn of_settings(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (key, value) in text.lines().filter_map(|line| line.split_once(" = ")) {
        let key = key.rsplit('.').next().unwrap_or(key).trim();
        let value = value.trim().trim_matches('"');
        match key {
            "secret" | "password" | "sentinel_password" => found.extend([value.to_owned()]),
            "secret_file" | "password_file" | "sentinel_password_file" => {
                found.extend(std::fs::read_to_string(value).ok().map(|secret| secret.trim().to_owned()));
            }
            "url" => {
                let login = value.split_once("://").and_then(|(_, rest)| rest.rsplit_once('@'));
                found.extend(login.and_then(|(login, _)| login.split_once(':')).map(|(_, word)| word.to_owned()));
            }
            _ => {}
        }
    }
    found.retain(|secret| secret.len() >= SHORTEST);
    found
}

/// From now on no output may hold the secrets of these settings.
pub fn keep(settings: &str) {
    USED.lock().unwrap_or_else(PoisonError::into_inner).extend(of_settings(settings));
}

/// What an output holds, and must not. Only what looks for faults may show a number.
pub fn leaks(text: &str) -> Vec<String> {
    // As text, and as `Debug` shows bytes.
    let forms = |word: &str| [word.to_owned(), format!("{:?}", word.as_bytes()).trim_matches(['[', ']']).to_owned()];
    let secrets: Vec<_> = USED.lock().unwrap_or_else(PoisonError::into_inner).iter().flat_map(|s| forms(s)).collect();
    let numbers = forms(NUMBER);
    let has = |line: &str, words: &[String]| words.iter().any(|word| line.contains(word.as_str()));
    let is_debug = |line: &str| line.contains(" DEBUG ") || line.contains(" TRACE ");
    let holds = |line: &str| has(line, &secrets) || (!is_debug(line) && has(line, &numbers));
    text.lines().filter(|line| holds(line)).map(str::to_owned).collect()
}

/// Panics if an output holds a secret.
#[track_caller]
pub fn search(what: &str, text: &str) {
    let leaks = leaks(text);
    if !leaks.is_empty() && !std::thread::panicking() {
        panic!("P13: a secret or a caller's number in {what}: {leaks:#?}");
    }
}

/// The same for a log that has ended.
#[track_caller]
pub fn search_log(path: &Path) {
    match std::fs::read(path) {
        Ok(log) => search(&path.display().to_string(), &String::from_utf8_lossy(&log)),
        Err(_) if std::thread::panicking() => {}
        Err(error) => panic!("{} went before it was searched for secrets: {error}", path.display()),
    }
}
