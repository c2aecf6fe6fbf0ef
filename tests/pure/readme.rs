//! README.md and docs/ say what the program does: its settings, states, reasons, log lines and crates, no fewer and by their
//! names, and their links lead somewhere. `command_lines` has what they tell people to type.
//!
//! Owns the search for these words in the sources and the pages. Must never know what they mean.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that fails says why")]

#[path = "../pages/text.rs"]
mod text;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use evenring::node::NodeState;
use evenring::node::keyword::Keyword;
use evenring::node::roster::PhoneState;
use evenring::node::session::Reason;
use evenring::registry::events::EventKind;
use evenring::registry::view::{EndReason, IneligibleReason, OwnReason, RefusalReason, SessionState, ShownNodeState};
use text::{REFERENCE, file, pages, quoted};

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

/// The text of every script, and of every part that scripts share.
fn scripts() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/registry/scripts");
    let entries = [folder.clone(), folder.join("lib")].into_iter().flat_map(|folder| fs::read_dir(folder).unwrap());
    let paths =
        entries.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some_and(|end| end == "lua"));
    paths.map(|path| fs::read_to_string(path).unwrap()).collect()
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

/// The part of a text between two others.
fn between<'a>(text: &'a str, from: &str, to: &str) -> &'a str {
    let (_, rest) = text.split_once(from).unwrap_or_else(|| panic!("no {from}"));
    rest.split_once(to).unwrap_or_else(|| panic!("no {to}")).0
}

/// Each of these, as code, is in the reference.
#[track_caller]
fn all_in_reference(what: &str, words: impl IntoIterator<Item = String>, at_least: usize) {
    let page = file(REFERENCE);
    let words: Vec<String> = words.into_iter().collect();
    assert!(words.len() >= at_least, "the search for {what} finds only {words:?}");
    let missing: Vec<&String> = words.iter().filter(|word| !page.contains(&format!("`{word}"))).collect();
    assert!(missing.is_empty(), "{REFERENCE} does not name these {what}: {missing:#?}");
}

#[test]
fn every_log_line_is_explained() {
    let rows = file(REFERENCE);
    let rows: String = rows.lines().filter(|line| line.starts_with("| `")).collect::<Vec<_>>().join("\n");
    let messages = messages();
    assert!(
        messages.len() > 30 && messages.contains("AMI unavailable: reconnecting"),
        "the search finds only {messages:#?}"
    );
    let missing: Vec<&String> = messages.iter().filter(|message| !rows.contains(&format!("`{message}`"))).collect();
    assert!(missing.is_empty(), "no table of {REFERENCE} explains these log lines: {missing:#?}");
}

#[test]
fn a_message_is_found_in_its_call() {
    assert_eq!(message(r#"node = %a("x)"), state, "all is (well)"); other("b")"#), "all is (well)");
    assert_eq!(message("%node, \"one \\\n        line\")"), "one line");
    assert_eq!(message(r#"reason, "says \"so\"" , )"#), "says \"so\"");
}

#[test]
fn every_setting_is_named_in_its_section() {
    let (page, sample) = (file(REFERENCE), file("systemd/config.toml"));
    assert!(page.contains("(../systemd/config.toml)"), "{REFERENCE} links to the sample");
    let (mut section, mut row, mut keys) = ("", "", 0);
    for line in sample.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = name;
            row = page.lines().find(|row| row.starts_with(&format!("| `[{name}]`"))).unwrap_or_default();
            assert!(!row.is_empty(), "{REFERENCE} has no row for [{name}]");
        } else if let Some((key, _)) = line.trim_start_matches(['#', ' ']).split_once(" = ")
            && key.chars().all(|c| c.is_ascii_lowercase() || c == '_')
        {
            assert!(row.contains(&format!("`{key}`")), "{REFERENCE} does not name {section}.{key}");
            keys += 1;
        }
    }
    assert!(keys > 30, "only {keys} settings were found in the sample");
}

/// The words of an enum, with the quote behind each: `unknown` is not found in `unknown-node`.
fn words<T: Keyword>() -> Vec<String> {
    T::VALUES.iter().map(|value| format!("{}`", value.word())).collect()
}

#[test]
fn every_state_and_reason_that_the_program_knows_is_explained() {
    all_in_reference("states of sessions", words::<SessionState>(), 6);
    all_in_reference("states of nodes", words::<ShownNodeState>(), 8);
    all_in_reference("reasons of nodes", words::<IneligibleReason>(), 14);
    all_in_reference("refusals", words::<RefusalReason>(), 6);
    all_in_reference("reasons of scripts and commands", words::<OwnReason>(), 7);
}

/// What a script writes into the event stream can be filtered by, and is explained.
#[test]
fn every_event_of_a_script_is_a_kind_that_the_program_knows() {
    let mut kinds = BTreeSet::new();
    for text in scripts() {
        for call in ["append_event(", "append_node_event("] {
            for rest in text.split(call).skip(1) {
                kinds.extend(quoted(rest.split(',').next().unwrap(), '\'').map(str::to_owned));
            }
        }
    }
    let is_word = |kind: &str| kind.len() > 1 && kind.chars().all(|c| c.is_ascii_lowercase() || c == '-');
    kinds.retain(|kind| is_word(kind) && NodeState::of(kind).is_none());
    assert!(kinds.len() > 10, "{kinds:?}");
    let unknown: Vec<&String> = kinds.iter().filter(|kind| EventKind::of(kind).is_none()).collect();
    assert_eq!(unknown, [""; 0], "src/registry/events.rs does not have them");
    let states: Vec<_> = SessionState::ALL.iter().filter(|state| EventKind::of(state.as_str()).is_none()).collect();
    assert_eq!(states, [&SessionState::Placed; 0]);
    all_in_reference("events", words::<EventKind>(), 20);
}

/// A reason without what it says of one case.
fn plain(reason: &str) -> String {
    reason.trim_end_matches(['{', '}', ' ', ':', '-', '0']).to_owned()
}

#[test]
fn every_reason_and_refusal_is_explained() {
    let session = file("src/node/outcome.rs");
    let reasons = quoted(between(&session, "fn class(&self) -> &'static str {", "/// Reads the words back."), '"');
    let reasons: BTreeSet<String> = reasons.map(str::to_owned).collect();
    // What is listed is what can be said.
    let listed: BTreeSet<String> = Reason::ALL.iter().map(ToString::to_string).map(|text| plain(&text)).collect();
    assert_eq!(listed, reasons.iter().map(|text| plain(text)).collect());
    all_in_reference("reasons", reasons, 13);

    let mut words = Vec::new();
    for text in scripts() {
        // The reasons of one function are what it returns.
        let eligible = text.split_once("local function ineligible_reason").map_or("", |(_, rest)| rest);
        words.extend(quoted(eligible.split("\nend").next().unwrap(), '\'').map(str::to_owned));
        let marks =
            ["finish(", "why = ", "closed = ", "reason = ", "unavailable = ", "reply('refused'", "reply('not-now'"];
        let lines = text.lines().map(|line| line.split("--").next().unwrap());
        let lines: Vec<_> = lines.filter(|line| marks.iter().any(|mark| line.contains(mark))).collect();
        words.extend(quoted(&lines.join("\n"), '\'').map(str::to_owned));
    }
    let is_word = |word: &String| word.len() > 1 && word.chars().all(|c| c.is_ascii_lowercase() || c == '-');
    words.retain(is_word);
    // What a script says, the program knows.
    let known = |word: &&String| {
        !matches!(EndReason::from(word.as_str()), EndReason::Other(_))
            || IneligibleReason::of(word).is_some()
            || RefusalReason::of(word).is_some()
            || SessionState::of(word).is_some()
            || PhoneState::of(word).is_some()
            || NodeState::of(word).is_some()
            || ["refused", "not-now"].contains(&word.as_str())
    };
    let unknown: Vec<&String> = words.iter().filter(|word| !known(word)).collect();
    assert_eq!(unknown, [""; 0], "no enum of src/registry/reasons.rs has them");
    all_in_reference("refusals", words, 20);
}

#[test]
fn the_event_filter_is_the_one_of_the_tests_and_names_what_the_daemon_wants() {
    let filter = |text: &str| {
        let lines: Vec<_> = text.lines().filter(|line| line.starts_with("eventfilter = ")).map(str::to_owned).collect();
        assert_eq!(lines.len(), 1, "{lines:?}");
        lines[0].clone()
    };
    let line = filter(&file("docs/SECURITY.md"));
    assert_eq!(line, filter(&file("tests/lab/etc/manager.conf")));
    let names = line.split(['(', ')']).nth(1).unwrap().split('|');
    let unwanted: Vec<_> = names.filter(|name| !evenring::ami::event::is_wanted(name.as_bytes())).collect();
    assert_eq!(unwanted, [""; 0]);
}

/// The first cells of the tables below a heading of the runbook. Each row has a cause and something to type.
fn symptoms(heading: &str) -> Vec<String> {
    let page = file("docs/runbook.md");
    let part = page.split(&format!("\n## {heading}\n")).nth(1).unwrap_or_else(|| panic!("no {heading}"));
    let rows = part.split("\n## ").next().unwrap().lines().filter(|line| line.starts_with("| ")).skip(1);
    let cells = rows.map(|row| {
        let cells: Vec<&str> = row.trim_matches(['|', ' ']).split(" | ").collect();
        let [symptom, cause, action] = cells[..] else { panic!("three cells, not {row}") };
        assert!(!cause.is_empty() && (action.contains('`') || action.contains("](#")), "nothing to type: {row}");
        symptom.to_owned()
    });
    cells.collect()
}

#[test]
fn every_state_and_reason_has_its_row_in_the_runbook() {
    let states = ShownNodeState::ALL.iter().filter(|state| **state != ShownNodeState::Active);
    let states = states.map(|state| format!("state `{}`", state.as_str()));
    let words = ["asterisk", "redis", "name", "draining", "stopping"].map(|word| format!("`/readyz`: `{word}`"));
    let code = |word: &str| format!("`{word}`");
    let refusals = RefusalReason::ALL.iter().map(|reason| code(reason.as_str()));
    let ineligible = IneligibleReason::ALL.iter().map(|reason| code(reason.as_str()));
    let ends = Reason::ALL.into_iter().map(|reason| code(reason.class()));
    let ends = ends.chain(OwnReason::ALL.iter().map(|reason| code(reason.as_str())));
    for (heading, expected) in [
        ("A node takes no logins", states.chain(words).collect::<Vec<_>>()),
        ("A login is refused", refusals.collect()),
        ("Why a node is not eligible", ineligible.collect()),
        ("A session failed or ended", ends.collect()),
    ] {
        let rows = symptoms(heading);
        let has_row = |text: &&String| rows.iter().any(|row| row.contains(text.as_str()));
        let missing: Vec<_> = expected.iter().filter(|text| !has_row(text)).collect();
        assert!(missing.is_empty(), "docs/runbook.md, {heading}: no row for {missing:?}");
        let known = |row: &&String| expected.iter().any(|text| row.contains(text.as_str()));
        let strange: Vec<_> = rows.iter().filter(|row| !known(row)).collect();
        assert!(strange.is_empty(), "docs/runbook.md, {heading}: nothing says {strange:?}");
    }
}

/// What stands below "Why a node is not ready" is what the program says.
#[test]
fn every_text_of_the_runbook_is_one_of_the_program() {
    // A text that goes on in the next line of the source is one text.
    let sources: String = sources().concat();
    let joined: Vec<&str> =
        sources.split('\\').enumerate().map(|(n, part)| if n == 0 { part } else { part.trim_start() }).collect();
    let sources = joined.concat();
    let rows = symptoms("Why a node is not ready");
    assert!(rows.len() > 10, "{rows:?}");
    for row in rows {
        let text = row.trim_matches('`').replace("tel-1", "{node}");
        let asterisks_own = ["Permission denied"].contains(&text.as_str());
        assert!(asterisks_own || sources.contains(&text), "no source says {text:?}");
    }
}

/// The name that a heading has in a link.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.collect::<String>().trim().to_lowercase().replace(' ', "-")
}

/// What is wrong with the links of a page.
fn dead_links(name: &str, text: &str) -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let links = text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap());
    let is_dead = |link: &&str| {
        let (path, part) = link.split_once('#').map_or((*link, None), |(path, part)| (path, Some(part)));
        let target = if path.is_empty() { root.join(name) } else { root.join(name).parent().unwrap().join(path) };
        let Some(part) = part else { return !target.exists() };
        let page = fs::read_to_string(target).unwrap_or_default();
        let headings = page.lines().filter_map(|line| line.strip_prefix('#'));
        !headings.map(|line| anchor(line.trim_start_matches('#'))).any(|heading| heading == part)
    };
    links.filter(|link| !link.starts_with("http")).filter(is_dead).map(|link| format!("{name}: {link}")).collect()
}

#[test]
fn links_lead_somewhere_and_every_page_is_linked() {
    let (pages, readme) = (pages(), file("README.md"));
    let dead: Vec<_> = pages.iter().flat_map(|(name, text)| dead_links(name, text)).collect();
    assert_eq!(dead, [""; 0]);
    let lonely: Vec<_> = pages.iter().filter(|(name, _)| !readme.contains(&format!("({name})"))).collect();
    assert!(lonely.iter().all(|(name, _)| name == "README.md"), "{lonely:?}");
    let planted = "[a](docs/none.md) [b](#no-such) [c](docs/faults.md#what-each-fault-costs) [d](docs/faults.md#x)";
    assert_eq!(dead_links("README.md", planted).len(), 3);
}

#[test]
fn the_readme_is_short_and_begins_with_what_to_type() {
    let readme = file("README.md");
    assert!(readme.lines().count() <= 180, "the README grows: docs/ is the place for it");
    let first: Vec<&str> = readme.lines().take(20).collect();
    assert!(["./dev demo ", "./dev test "].iter().all(|verb| first.iter().any(|line| line.starts_with(verb))));
}

#[test]
fn the_verbs_of_dev_exist() {
    let dev = file("dev");
    let cases = between(&dev, "case $verb in", "\nesac");
    let verbs: BTreeSet<&str> = cases
        .lines()
        .filter_map(|line| line.split_once(')'))
        .flat_map(|(words, _)| words.split('|'))
        .map(str::trim)
        .collect();
    let mut used = BTreeSet::new();
    for (_, text) in pages() {
        let words =
            text.split("./dev ").skip(1).filter_map(|rest| rest.split(|c: char| !c.is_ascii_lowercase()).next());
        used.extend(words.filter(|word| !word.is_empty()).map(str::to_owned));
    }
    assert!(used.len() > 4, "{used:?}");
    let missing: Vec<_> = used.iter().filter(|word| !verbs.contains(word.as_str())).collect();
    assert!(missing.is_empty(), "./dev has no {missing:?}, only {verbs:?}");
}

#[test]
fn every_crate_is_explained_and_no_other() {
    let manifest = file("Cargo.toml");
    let mut used = BTreeSet::new();
    for part in ["[dependencies]\n", "[dev-dependencies]\n"] {
        let lines = between(&manifest, part, "\n\n").lines();
        used.extend(lines.filter_map(|line| line.split_once(" = ")).map(|(name, _)| name.to_owned()));
    }
    let page = file("docs/architecture.md");
    let page = page.split_once("## Dependencies").expect("the part about them").1;
    let cells = page.lines().filter_map(|line| line.strip_prefix("| `")?.split(" | ").next());
    let told: BTreeSet<_> =
        cells.flat_map(|cell| cell.split(['`', ',', ' '])).filter(|word| !word.is_empty()).map(str::to_owned).collect();
    assert!(used.len() > 30, "{used:?}");
    assert_eq!(told, used, "left: docs/architecture.md, right: Cargo.toml");
}

/// The way of a login, as a newcomer walks it: each file is there and hands on as the README says, and `lib.rs` names the same.
#[test]
fn the_way_of_a_login_can_be_walked() {
    let readme = file("README.md");
    let rows = between(&readme, "The files, in order", "## A real node in five minutes").lines();
    let rows = rows.filter_map(|line| line.strip_prefix("| `src/"));
    let steps: Vec<(&str, &str)> = rows
        .map(|row| {
            let mut parts = row.split('`');
            (parts.next().expect("a file"), parts.nth(1).expect("what it hands on with"))
        })
        .collect();
    assert!(steps.len() > 15, "{steps:?}");
    for (path, hands_on) in &steps {
        assert!(file(&format!("src/{path}")).contains(hands_on), "src/{path} has no {hands_on}");
    }
    let map = file("src/lib.rs");
    let named: Vec<&str> =
        between(&map, "```text\n", "```").lines().map(|line| line.trim_start_matches("//! ")).collect();
    let walked: Vec<&str> = steps.iter().map(|(path, _)| *path).collect();
    assert_eq!(named[..walked.len()], walked, "left: src/lib.rs, right: README.md");
}
