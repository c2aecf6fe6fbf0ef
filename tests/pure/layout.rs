//! The house keeps its order: which room may know which, what the pure rooms never name, what lies at the top.
//!
//! The rules are the constants below. Each is also broken on purpose here, so that a rule which
//! no longer sees anything is noticed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "the helpers of tests may fail loudly, too")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// A room, and the rooms below it: all that it may name besides itself.
const ROOMS: &[(&str, &[&str])] = &[
    (
        "main",
        &["cli", "daemon", "api", "registry", "node", "ami_client", "ami", "config", "ring_policy", "runtime", "ids"],
    ),
    ("cli", &["daemon", "api", "registry", "node", "ami_client", "ami", "config", "ring_policy", "runtime", "ids"]),
    ("daemon", &["api", "registry", "node", "ami_client", "ami", "config", "ring_policy", "runtime", "ids"]),
    ("api", &["registry", "node", "ami", "config", "ring_policy", "runtime", "ids"]),
    ("registry", &["node", "ami", "config", "ring_policy", "ids"]),
    ("ami_client", &["ami", "config", "runtime", "ids"]),
    ("node", &["ami", "ring_policy", "ids"]),
    ("ami", &["ids"]),
    ("config", &["ring_policy", "ids"]),
    ("ring_policy", &["ids"]),
    ("runtime", &["ids"]),
    ("ids", &[]),
];

/// The rooms that take (input, now) and give effects.
const PURE: &[&str] = &["ami", "node", "ring_policy"];

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

/// The files of the same room that a file imports: their paths below `src/`. A `mod.rs` is left out, for it names its
/// children, and they their parent, wherever there are folders.
fn imports<'a>(path: &str, sources: &'a Sources) -> Vec<&'a str> {
    let Some((folder, file)) = path.rsplit_once('/') else { return Vec::new() };
    let text = sources[path].split("#[cfg(test)]").next().unwrap_or_default();
    let uses = text.lines().filter_map(|line| line.trim_start().strip_prefix("use "));
    let own = file.strip_suffix(".rs").unwrap_or(file);
    let (beside, below, room) = (format!("{folder}/"), format!("{folder}/{own}/"), room(path).unwrap_or_default());
    let above = folder.rsplit_once('/').map_or(String::new(), |(up, _)| format!("{up}/"));
    let inside = format!("crate::{room}::");
    let roots = [("super::super::", above), ("super::", beside), ("self::", below), (&*inside, format!("{room}/"))];
    let named = uses.flat_map(|rest| {
        let found = roots.iter().find_map(|(root, base)| Some((rest.strip_prefix(root)?, base)));
        found
            .into_iter()
            .flat_map(|(rest, base)| first_names(rest).into_iter().map(move |name| format!("{base}{name}.rs")))
    });
    named
        .filter_map(|file| sources.get_key_value(&file).map(|(known, _)| known.as_str()))
        .filter(|other| *other != path)
        .collect()
}

/// Files that import each other, directly or through others: one such circle, if there is any.
fn circle(sources: &Sources) -> Option<Vec<String>> {
    fn walk<'a>(
        path: &'a str,
        way: &mut Vec<&'a str>,
        done: &mut BTreeSet<&'a str>,
        sources: &'a Sources,
    ) -> Option<Vec<String>> {
        if let Some(at) = way.iter().position(|seen| *seen == path) {
            return Some(way[at..].iter().map(|seen| (*seen).to_owned()).collect());
        }
        if !done.insert(path) {
            return None;
        }
        way.push(path);
        let found = imports(path, sources).into_iter().find_map(|next| walk(next, way, done, sources));
        way.pop();
        found
    }
    let mut done = BTreeSet::new();
    sources.keys().find_map(|path| walk(path, &mut Vec::new(), &mut done, sources))
}

fn is_declared(path: &str, sources: &Sources) -> bool {
    let file = path.strip_suffix("/mod.rs").or_else(|| path.strip_suffix(".rs")).unwrap_or(path);
    let (folder, name) = file.rsplit_once('/').unwrap_or(("", file));
    if ["lib", "main"].contains(&file) {
        return true;
    }
    let parents = match folder {
        "" => vec!["lib.rs".to_owned()],
        folder => vec![format!("{folder}/mod.rs"), format!("{folder}.rs")],
    };
    parents.iter().filter_map(|parent| sources.get(parent)).any(|text| text.contains(&format!("mod {name};")))
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
fn no_files_import_each_other() {
    assert_eq!(circle(&sources()), None);
    let round = [
        ("node/a.rs", "use super::b::X;"),
        ("node/b.rs", "use crate::node::c::{Y, Z};"),
        ("node/c.rs", "use super::{a, Node};"),
    ];
    let round = round.map(|(path, text)| (path.to_owned(), text.to_owned()));
    assert_eq!(
        circle(&Sources::from(round)),
        Some(["node/a.rs", "node/b.rs", "node/c.rs"].map(str::to_owned).to_vec())
    );
}

/// A file that no module declares is not compiled, and nobody would notice.
#[test]
fn every_file_belongs_to_a_module() {
    let sources = sources();
    let lost: Vec<&String> = sources.keys().filter(|path| !is_declared(path, &sources)).collect();
    assert_eq!(lost, [""; 0]);
    let planted = [("lib.rs", "mod a;"), ("a/mod.rs", "mod b;"), ("a/b.rs", ""), ("a/c.rs", "")];
    let planted = Sources::from(planted.map(|(path, text)| (path.to_owned(), text.to_owned())));
    assert!(is_declared("a/b.rs", &planted) && !is_declared("a/c.rs", &planted));
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
    check("node/a.rs", "//! A.\nuse crate::config::X;", &[&up("node/a.rs", "config", "node")]);
    check("ami_client/a.rs", "//! A.\nuse crate::registry::X;", &[&up("ami_client/a.rs", "registry", "ami_client")]);
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

/// The layers of the tests: a folder each, named after the most that its binaries need (`tests/README.md`).
const LAYERS: &[&str] = &["pure", "redis", "asterisk", "system", "tools"];

/// What is wrong with the test binaries: each lies in the folder of its layer and is declared in `Cargo.toml`, without
/// which it would never run, and a pure one has neither lab nor cluster.
fn layer_faults(manifest: &str, binaries: &BTreeMap<String, String>) -> Vec<String> {
    let mut faults = Vec::new();
    for (path, text) in binaries {
        let (layer, file) = path.split_once('/').unwrap_or(("", path));
        if !LAYERS.contains(&layer) {
            faults.push(format!("tests/{path} lies in no layer"));
            continue;
        }
        let name = file.trim_end_matches(".rs");
        if !manifest.contains(&format!("[[test]]\nname = \"{name}\"\npath = \"tests/{path}\"\n")) {
            faults.push(format!("tests/{path} is not declared in Cargo.toml"));
        }
        if layer == "pure" && text.lines().any(|line| line == "mod lab;" || line == "mod cluster;") {
            faults.push(format!("tests/{path} is pure, but has a lab"));
        }
    }
    faults
}

#[test]
fn every_test_binary_runs_in_its_layer() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = LAYERS.iter().map(|layer| format!("{layer}/")).chain([String::new()]);
    let mut binaries = BTreeMap::new();
    for folder in folders {
        for entry in fs::read_dir(top.join("tests").join(&folder)).expect("a folder of tests") {
            let path = entry.expect("an entry").path();
            if path.extension().is_some_and(|end| end == "rs") {
                let name = path.file_name().expect("a name").to_string_lossy();
                binaries.insert(format!("{folder}{name}"), fs::read_to_string(&path).expect("text"));
            }
        }
    }
    assert!(binaries.contains_key("pure/layout.rs") && binaries.len() > 50, "the tests were not found");
    let manifest = fs::read_to_string(top.join("Cargo.toml")).expect("Cargo.toml");
    assert_eq!(layer_faults(&manifest, &binaries), [""; 0]);

    let planted =
        ["a.rs", "pure/b.rs", "pure/c.rs", "redis/d.rs"].map(|path| (path.to_owned(), "mod lab;\n".to_owned()));
    let declared = ["pure/b", "redis/d"].map(|path| {
        let name = &path[path.len() - 1..];
        format!("[[test]]\nname = \"{name}\"\npath = \"tests/{path}.rs\"\n")
    });
    let expected = [
        "tests/a.rs lies in no layer",
        "tests/pure/b.rs is pure, but has a lab",
        "tests/pure/c.rs is not declared in Cargo.toml",
        "tests/pure/c.rs is pure, but has a lab",
    ];
    assert_eq!(layer_faults(&declared.concat(), &BTreeMap::from(planted)), expected);
}

/// The paths in backticks that begin at the top of the repository.
fn named_paths(text: &str) -> impl Iterator<Item = &str> {
    let roots = ["src/", "tests/", "docs/", "systemd/", "proto-fixtures/", ".dev/"];
    let words = text.lines().flat_map(|line| line.split('`').skip(1).step_by(2));
    let plain = |word: &&str| word.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c));
    words.filter(move |word| roots.iter().any(|root| word.starts_with(root))).filter(plain)
}

/// A comment or page that names a file which was moved leads nowhere.
#[test]
fn every_path_that_is_named_exists() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut open: Vec<_> = ["src", "tests", "docs", ".dev", "README.md", "dev"].map(|name| top.join(name)).to_vec();
    let (mut named, mut lost) = (0, Vec::new());
    while let Some(path) = open.pop() {
        // The changelog tells of names that are gone.
        if path.ends_with("docs/CHANGELOG.md") {
            continue;
        }
        if path.is_dir() {
            open.extend(fs::read_dir(&path).expect("a folder").map(|entry| entry.expect("an entry").path()));
        } else if let Ok(text) = fs::read_to_string(&path) {
            let paths: Vec<&str> = named_paths(&text).collect();
            named += paths.len();
            let missing = paths.into_iter().filter(|path| !top.join(path).exists());
            lost.extend(missing.map(|missing| format!("{} names {missing}", path.display())));
        }
    }
    assert!(named > 50, "{named}");
    assert_eq!(lost, [""; 0]);
    let planted = "a 'tests/x.rs' and 'src/y' but not 'src/*.rs'".replace('\'', "`");
    assert_eq!(named_paths(&planted).collect::<Vec<_>>(), ["tests/x.rs", "src/y"]);
}
