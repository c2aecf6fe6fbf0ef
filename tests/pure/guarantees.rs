//! docs/guarantees.md names tests that exist, and every guarantee that the code or a test names by its number.
//!
//! Owns the search for both. Must never run one of those tests.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails says why")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn page() -> String {
    fs::read_to_string(root().join("docs/guarantees.md")).unwrap()
}

/// The tests that a text names, `file::test`, that are not there.
fn missing(text: &str) -> Vec<String> {
    let names: Vec<&str> = text.split('`').skip(1).step_by(2).filter(|word| word.contains("::")).collect();
    assert!(!names.is_empty(), "the text names tests");
    let is_missing = |name: &&&str| {
        let (file, test) = name.split_once("::").unwrap();
        // a binary in the folder of its layer, or a file of one: tests/*/bursts.rs, tests/scripts/rejoin.rs
        let mut folders = fs::read_dir(root().join("tests")).unwrap().map(|entry| entry.unwrap().path());
        let source = |path: PathBuf| fs::read_to_string(path).is_ok_and(|it| it.contains(&format!("fn {test}(")));
        !source(root().join(format!("tests/{file}.rs"))) && !folders.any(|dir| source(dir.join(format!("{file}.rs"))))
    };
    names.iter().filter(is_missing).map(ToString::to_string).collect()
}

/// The numbers of guarantees in a text: `P7`, `p7_`.
fn numbers(text: &str) -> BTreeSet<u32> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric());
    let digits = words.filter_map(|word| word.strip_prefix(['P', 'p'])).filter(|digits| digits.len() <= 2);
    digits.filter_map(|digits| digits.parse().ok()).collect()
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs" || end == "lua") {
            found.push(path);
        }
    }
}

#[test]
fn each_test_that_the_page_names_exists() {
    let page = page();
    let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| P")).collect();
    for (number, row) in (1..).zip(&rows) {
        assert!(row.starts_with(&format!("| P{number} | **")), "row {number}: {row}");
        assert_eq!(missing(row), [""; 0], "P{number}");
    }
    assert_eq!(rows.len(), 16);
    assert_eq!(missing(&page), [""; 0]);
}

#[test]
fn each_number_in_the_code_is_on_the_page() {
    let mut files = Vec::new();
    for dir in ["src", "tests"] {
        sources(&root().join(dir), &mut files);
    }
    let rows: String = page().lines().filter(|line| line.starts_with("| P")).collect();
    let known = numbers(&rows);
    let mut named = BTreeSet::new();
    for path in files.iter().filter(|path| !path.ends_with("tests/pure/guarantees.rs")) {
        // In a comment or in the name of a test; elsewhere P1 may be anything.
        let text = fs::read_to_string(path).unwrap();
        let told =
            text.lines().filter_map(|line| line.split_once("//").or_else(|| line.split_once("--"))).map(|it| it.1);
        let tests =
            text.lines().filter_map(|line| line.trim_start().strip_prefix("fn ")).filter(|name| name.starts_with('p'));
        let numbers: BTreeSet<u32> = told.chain(tests).flat_map(numbers).collect();
        let unknown: Vec<_> = numbers.difference(&known).collect();
        assert!(unknown.is_empty(), "{} names {unknown:?}, which docs/guarantees.md does not explain", path.display());
        named.extend(numbers);
    }
    assert!(named.len() > 12, "the search finds only {named:?}");
}

#[test]
fn what_is_missing_is_seen() {
    assert_eq!(
        missing("`guarantees::what_is_missing_is_seen` `guarantees::no_such_test` `nowhere::x`"),
        ["guarantees::no_such_test", "nowhere::x"]
    );
    assert_eq!(numbers("P1, (P16) and p3_x; P100, PIN, p"), BTreeSet::from([1, 3, 16]));
}
