//! README.md says what the program does: its verbs, settings, reasons and log lines, no fewer and by their names.
//!
//! Owns the search for these words in the sources. Must never know what they mean.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that fails says why")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

fn file(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect(path)
}

/// The text of every `.rs` file below `src`, without unit tests.
fn sources() -> Vec<String> {
    let (mut open, mut found) = (vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")], Vec::new());
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|end| end == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            found.push(text.split("#[cfg(test)]").next().unwrap().to_owned());
        }
    }
    found
}

/// The last text in quotes before the parenthesis that was open at the start closes.
fn message(call: &str) -> String {
    let (mut depth, mut last, mut chars) = (1, String::new(), call.chars().peekable());
    while let Some(c) = chars.next() {
        match c {
            '(' => depth += 1,
            ')' if depth == 1 => break,
            ')' => depth -= 1,
            '"' => {
                last.clear();
                while let Some(c) = chars.next().filter(|c| *c != '"') {
                    match c {
                        // A text goes on in the next line.
                        '\\' if chars.peek() == Some(&'\n') => while chars.next_if(|c| c.is_whitespace()).is_some() {},
                        '\\' => last.extend(chars.next()),
                        _ => last.push(c),
                    }
                }
            }
            _ => {}
        }
    }
    last
}

/// The messages of all log lines that an operator sees.
fn messages() -> BTreeSet<String> {
    let sources = sources();
    let calls = sources.iter().flat_map(|text| {
        ["info!(", "warn!(", "error!("].into_iter().flat_map(move |name| text.split(name).skip(1).map(message))
    });
    calls.collect()
}

/// All texts between `quote`s in these lines.
fn quoted(lines: &str, quote: char) -> impl Iterator<Item = &str> {
    lines.lines().flat_map(move |line| line.split(quote).skip(1).step_by(2))
}

/// The part of a text between two others.
fn between<'a>(text: &'a str, from: &str, to: &str) -> &'a str {
    let (_, rest) = text.split_once(from).unwrap_or_else(|| panic!("no {from}"));
    rest.split_once(to).unwrap_or_else(|| panic!("no {to}")).0
}

/// Each of these, as code, is in README.md.
#[track_caller]
fn all_in_readme(what: &str, words: impl IntoIterator<Item = String>, at_least: usize) {
    let readme = file("README.md");
    let words: Vec<String> = words.into_iter().collect();
    assert!(words.len() >= at_least, "the search for {what} finds only {words:?}");
    let missing: Vec<&String> = words.iter().filter(|word| !readme.contains(&format!("`{word}"))).collect();
    assert!(missing.is_empty(), "README.md does not name these {what}: {missing:#?}");
}

#[test]
fn every_log_line_is_explained() {
    let rows = file("README.md");
    let rows: String = rows.lines().filter(|line| line.starts_with("| `")).collect::<Vec<_>>().join("\n");
    let messages = messages();
    assert!(messages.len() > 30 && messages.contains("AMI is away"), "the search finds only {messages:#?}");
    let missing: Vec<&String> = messages.iter().filter(|message| !rows.contains(&format!("`{message}`"))).collect();
    assert!(missing.is_empty(), "no table of README.md explains these log lines: {missing:#?}");
}

#[test]
fn a_message_is_found_in_its_call() {
    assert_eq!(message(r#"node = %a("x)"), state, "all is (well)"); other("b")"#), "all is (well)");
    assert_eq!(message("%node, \"one \\\n        line\")"), "one line");
    assert_eq!(message(r#"reason, "says \"so\"" , )"#), "says \"so\"");
}

#[test]
fn every_verb_is_named() {
    let help = Command::new(env!("CARGO_BIN_EXE_evenring")).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let verbs = between(&help, "Commands:\n", "\n\n").lines().filter_map(|line| line.split_whitespace().next());
    all_in_readme("verbs", verbs.filter(|verb| *verb != "help").map(|verb| format!("evenring {verb}")), 9);
}

#[test]
fn every_setting_is_named_in_its_section() {
    let (readme, sample) = (file("README.md"), file("systemd/config.toml"));
    assert!(readme.contains("(systemd/config.toml)"), "README.md links to the sample");
    let (mut section, mut row, mut keys) = ("", "", 0);
    for line in sample.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = name;
            row = readme.lines().find(|row| row.starts_with(&format!("| `[{name}]`"))).unwrap_or_default();
            assert!(!row.is_empty(), "README.md has no row for [{name}]");
        } else if let Some((key, _)) = line.trim_start_matches(['#', ' ']).split_once(" = ")
            && key.chars().all(|c| c.is_ascii_lowercase() || c == '_')
        {
            assert!(row.contains(&format!("`{key}`")), "README.md does not name {section}.{key}");
            keys += 1;
        }
    }
    assert!(keys > 30, "only {keys} settings were found in the sample");
}

#[test]
fn every_reason_and_refusal_is_explained() {
    let session = file("src/node/session.rs");
    let reasons = quoted(between(&session, "let word = match self {", "f.write_str"), '"');
    let reasons = reasons.map(|word| word.split('{').next().unwrap().to_owned());
    all_in_readme("reasons", reasons, 13);

    let library = file("src/registry/scripts/lib.lua");
    let refusals = quoted(between(&library, "local function refusal", "\nend"), '\'').map(str::to_owned);
    let mut words: Vec<String> = refusals.collect();
    for script in ["lib", "place", "take", "heartbeat", "logout"] {
        let text = file(&format!("src/registry/scripts/{script}.lua"));
        let says =
            |line: &&str| ["finish(", "why = ", "reason = ", "reply('refused'"].iter().any(|word| line.contains(word));
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("--")).filter(says).collect();
        words.extend(quoted(&lines.join("\n"), '\'').map(str::to_owned));
    }
    let is_word = |word: &String| word.len() > 1 && word.chars().all(|c| c.is_ascii_lowercase() || c == '-');
    all_in_readme("refusals", words.into_iter().filter(is_word), 20);
}

#[test]
fn the_event_filter_is_the_one_of_the_tests_and_names_what_the_daemon_wants() {
    let filter = |text: &str| {
        let lines: Vec<_> = text.lines().filter(|line| line.starts_with("eventfilter = ")).map(str::to_owned).collect();
        assert_eq!(lines.len(), 1, "{lines:?}");
        lines[0].clone()
    };
    let line = filter(&file("README.md"));
    assert_eq!(line, filter(&file("tests/lab/etc/manager.conf")));
    let names = line.split(['(', ')']).nth(1).unwrap().split('|');
    let unwanted: Vec<_> = names.filter(|name| !evenring::ami::event::is_wanted(name.as_bytes())).collect();
    assert_eq!(unwanted, [""; 0]);
}
