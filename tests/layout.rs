//! The house keeps its order: which room may know which, what the pure rooms never name, what lies at the top.
//!
//! The rules are in `DESIGN`'s words at the constants below. Each is also broken on purpose here, so that a rule which
//! no longer sees anything is noticed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "the helpers of tests may fail loudly, too")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// A room, and the rooms below it: all that it may name besides itself.
const ROOMS: &[(&str, &[&str])] = &[
    ("main", &["cli", "daemon", "registry", "node", "ami", "config", "ids"]),
    ("cli", &["daemon", "registry", "node", "ami", "config", "ids"]),
    ("daemon", &["registry", "node", "ami", "config", "ids"]),
    ("registry", &["node", "ami", "config", "ids"]),
    ("node", &["ami", "config", "ids"]),
    ("ami", &["ids"]),
    ("config", &["ids"]),
    ("ids", &[]),
];

/// The rooms that take (input, now) and give effects.
const PURE: &[&str] = &["ami", "node"];

/// What no file of a pure room may name, comments included.
const IMPURE: &[&str] = &[
    "tokio",
    "tokio_util",
    "redis",
    "axum",
    "tracing",
    "rand",
    "getrandom",
    "std::net",
    "std::fs",
    "std::io",
    "std::env",
    "std::process",
    "std::thread",
    "std::{",
    "Instant::now",
    "SystemTime::now",
    "println!",
    "eprintln!",
];

/// What may lie at the top of the repository, besides files with a leading dot and licences.
const TOP: &[&str] =
    &["Cargo.toml", "Cargo.lock", "src", "proto-fixtures", "systemd", "tests", "docs", "README.md", "dev", "target"];

/// Path below `src/` to text.
type Sources = BTreeMap<String, String>;

fn sources() -> Sources {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut open, mut found) = (vec![src.clone()], Sources::new());
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(fs::read_dir(&path).expect("a folder").map(|entry| entry.expect("an entry").path()));
        } else if path.extension().is_some_and(|end| end == "rs") {
            let name = path.strip_prefix(&src).expect("below src").to_string_lossy().into_owned();
            found.insert(name, fs::read_to_string(&path).expect("text"));
        }
    }
    found
}

/// The room of `ami/frame.rs` or `config.rs`; none for `lib.rs`, which is the map of all.
fn room(path: &str) -> Option<&str> {
    let first = path.split('/').next()?;
    let name = first.strip_suffix(".rs").unwrap_or(first);
    (name != "lib").then_some(name)
}

fn is_part_of_a_name(c: Option<char>) -> bool {
    c.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Where `word` stands as a word of its own: what follows it.
fn after<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = &'a str> {
    text.match_indices(word).filter_map(move |(at, _)| {
        let (before, rest) = (&text[..at], &text[at + word.len()..]);
        let open_end = word.chars().last().is_some_and(|c| is_part_of_a_name(Some(c)));
        let runs_on = open_end && is_part_of_a_name(rest.chars().next());
        let whole = !runs_on && !is_part_of_a_name(before.chars().last());
        whole.then_some(rest)
    })
}

fn name_at(text: &str) -> &str {
    let text = text.trim_start();
    &text[..text.find(|c| !is_part_of_a_name(Some(c))).unwrap_or(text.len())]
}

/// The first names of a path: of `crate::ami::frame` it is `ami`, of `crate::{ami::{a, b}, node}` they are two.
fn first_names(rest: &str) -> Vec<&str> {
    let Some(group) = rest.trim_start().strip_prefix('{') else { return vec![name_at(rest)] };
    let (mut depth, mut names, mut start) = (0, Vec::new(), 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                names.push(name_at(&group[start..at]));
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    names
}

/// Everything that is out of order.
fn faults(sources: &Sources) -> Vec<String> {
    let mut faults = Vec::new();
    for (path, text) in sources {
        if !text.starts_with("//! ") {
            faults.push(format!("{path} does not begin with //! and what it owns"));
        }
        let Some(own) = room(path) else { continue };
        let Some((_, below)) = ROOMS.iter().find(|(name, _)| *name == own) else {
            faults.push(format!("{path} lies in no room of the house"));
            continue;
        };
        let paths = ["crate::", "evenring::", "super::"].into_iter().flat_map(|root| {
            // In a room's folder, `super::ids` may be a file of the room.
            let is_file = move |name: &str| root == "super::" && sources.contains_key(&format!("{own}/{name}.rs"));
            after(text, root).flat_map(first_names).filter(move |name| !is_file(name))
        });
        for name in paths.filter(|name| *name != own && ROOMS.iter().any(|(room, _)| room == name)) {
            if !below.contains(&name) {
                faults.push(format!("{path} names the room {name}, which is not below {own}"));
            }
        }
        if PURE.contains(&own) {
            let named = IMPURE.iter().filter(|word| after(text, word).next().is_some());
            faults.extend(named.map(|word| format!("{path} names {word}, but the room {own} is pure")));
        }
    }
    faults
}

fn top_faults(names: impl IntoIterator<Item = String>) -> Vec<String> {
    let fine = |name: &String| name.starts_with('.') || name.starts_with("LICENSE") || TOP.contains(&name.as_str());
    names.into_iter().filter(|name| !fine(name)).collect()
}

#[test]
fn the_house_is_in_order() {
    let sources = sources();
    assert!(sources.contains_key("ids.rs") && sources.contains_key("ami/frame.rs"), "the sources were not found");
    assert_eq!(faults(&sources), [""; 0]);
}

#[test]
fn the_top_holds_nothing_else() {
    let entries = fs::read_dir(env!("CARGO_MANIFEST_DIR")).expect("the repository");
    let names = entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
    assert_eq!(top_faults(names), [""; 0]);
    assert_eq!(top_faults(["src".into(), ".git".into(), "notes.txt".into()]), ["notes.txt"]);
}

#[track_caller]
fn check(path: &str, text: &str, expected: &[&str]) {
    let sources = Sources::from([(path.into(), text.into()), ("ami/ids.rs".into(), "//! A file.".into())]);
    assert_eq!(faults(&sources), expected, "{text}");
}

#[test]
fn each_rule_sees_what_breaks_it() {
    check("ids.rs", "use x;", &["ids.rs does not begin with //! and what it owns"]);
    check("util.rs", "//! Things.", &["util.rs lies in no room of the house"]);
    let up = |path: &str, room: &str, own: &str| format!("{path} names the room {room}, which is not below {own}");
    check("ami/link.rs", "//! A.\nuse crate::config::X;", &[&up("ami/link.rs", "config", "ami")]);
    check("ami/mod.rs", "//! A.\nuse super::node;", &[&up("ami/mod.rs", "node", "ami")]);
    check("ami/mod.rs", "//! A.\nuse super::ids;", &[]);
    check("node/mod.rs", "//! A.\nuse crate::{ami::{a, b}, registry::x};", &[&up("node/mod.rs", "registry", "node")]);
    check("node/a.rs", "//! See [`crate::daemon`].", &[&up("node/a.rs", "daemon", "node")]);
    check("config.rs", "//! A.\nuse crate::{\n    ids, ami};", &[&up("config.rs", "ami", "config")]);
    check("main.rs", "//! A.\nuse evenring::{cli, daemon};", &[]);
    check("daemon/mod.rs", "//! A.\nuse crate::node::X; use tokio::net; use mycrate::cli;", &[]);
    for word in IMPURE {
        check(
            "node/a.rs",
            &format!("//! A.\n// {word} x"),
            &[&format!("node/a.rs names {word}, but the room node is pure")],
        );
    }
    check("ami/a.rs", "//! A random bit, in redistribution: std::fsx.", &[]);
}

/// What a script costs Redis is measured: each has a row in the bench, which is named after it.
#[test]
fn every_script_has_a_row_in_the_bench() {
    let rows = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/bench/scripts.rs");
    let rows = fs::read_to_string(rows).expect("the rows");
    let without = |known: &[&str]| -> Vec<String> {
        let has_row = |name: &&str| ["\"", " ", ","].iter().any(|end| rows.contains(&format!("\"script {name}{end}")));
        known.iter().filter(|name| !has_row(name)).map(|name| (*name).to_owned()).collect()
    };
    let scripts = evenring::registry::script_hashes();
    let names: Vec<&str> = scripts.iter().map(|(name, _)| *name).collect();
    assert!(names.len() > 20, "{names:?}");
    assert_eq!(without(&names), [""; 0]);
    assert_eq!(without(&["place", "none", "plac"]), ["none", "plac"]);
}
