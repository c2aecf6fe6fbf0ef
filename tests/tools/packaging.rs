//! What a package ships: the unit, the system user and the sample settings, judged by the tools that will read them.
//!
//! Owns no logic of the daemon. Must never need a running systemd or root.

#![expect(clippy::expect_used, clippy::panic, reason = "helpers of tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Output};

use evenring::config::Settings;

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd").join(name)
}

fn dump(toml: &str) -> String {
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(file.path(), toml).expect("written");
    Settings::load(Some(file.path()), std::iter::empty()).unwrap_or_else(|error| panic!("{error}\nin:\n{toml}")).dump()
}

/// `section.key` of every line that sets a key, of those that `take` lets through.
fn keys<'a>(toml: &'a str, take: impl Fn(&'a str) -> Option<&'a str>) -> BTreeSet<String> {
    let mut section = "";
    let mut keys = BTreeSet::new();
    for line in toml.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = name;
        } else if let Some(key) = take(line) {
            keys.insert(format!("{section}.{key}"));
        }
    }
    keys
}

/// The key of a line `key = value`.
fn key(line: &str) -> Option<&str> {
    let (key, _) = line.split_once(" = ")?;
    key.bytes().all(|b| b.is_ascii_alphabetic() || b == b'_').then_some(key)
}

#[test]
fn the_sample_says_what_the_defaults_are() {
    let sample = fs::read_to_string(shipped("config.toml")).expect("the sample");
    let defaults = dump("");
    assert_eq!(dump(&sample), defaults, "the sample as shipped changes nothing");

    let is_default =
        |line: &str| line.strip_prefix('#').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase()));
    let uncommented: Vec<_> = sample.lines().map(|line| if is_default(line) { &line[1..] } else { line }).collect();
    let uncommented = uncommented.join("\n");
    assert_eq!(dump(&uncommented), defaults, "every default that the sample shows is the default");

    // Every key with a default is set there, so none is missing or misspelt in both.
    let of_dump = keys(&defaults, key);
    let mut shown = keys(&uncommented, key);
    shown.insert("node.name".to_owned()); // from the host
    assert_eq!(shown, of_dump, "the sample shows every key that has a default");

    let named = |line| key(line).or_else(|| line.strip_prefix("# ").and_then(key));
    let absent = keys(&defaults, |line| line.strip_prefix("# ").and_then(|line| line.strip_suffix(" is not set")));
    let missing: Vec<_> = absent.iter().filter(|key| !keys(&sample, named).contains(*key)).collect();
    assert!(missing.is_empty(), "the sample does not show {missing:?}");
}

#[test]
fn the_examples_in_the_sample_are_legal() {
    let sample = fs::read_to_string(shipped("config.toml")).expect("the sample");
    // One value and one file each contradict each other, and the files are not here; but a user needs a password. A place
    // in the dialplan replaces the application.
    let secrets = ["secret", "secret_file", "password", "password_file", "sentinel_password", "sentinel_password_file"];
    let leave = [&secrets[..], &["context", "exten", "priority"]].concat();
    let lines = sample.lines().map(|line| {
        let rest = line.strip_prefix("# ").unwrap_or(line);
        if let Some(key) = rest.strip_suffix("password = \"\"") {
            return format!("{key}password = \"x\"");
        }
        if key(rest).is_some_and(|key| !leave.contains(&key)) { rest.to_owned() } else { line.to_owned() }
    });
    let all = lines.collect::<Vec<_>>().join("\n");
    let dump = dump(&all);
    for line in ["name = \"tel-1\"", "max_agents = 60", "username = \"evenring\"", "EVENRING_AGENT = \"{agent}\""] {
        assert!(dump.contains(line), "no {line} in\n{dump}");
    }
}

fn analyze(arguments: &[&str], unit: &Path) -> Output {
    let output = Command::new("systemd-analyze").args(arguments).arg(unit).env("SYSTEMD_COLORS", "0").output();
    output.expect("systemd-analyze must be installed for this test (Debian: apt-get install systemd)")
}

/// Judges the unit as text, with the program replaced by one that exists.
fn judge(arguments: &[&str], text: &str) -> (bool, String) {
    let directory = tempfile::tempdir().expect("a directory");
    let unit = directory.path().join("evenring.service");
    fs::write(
        &unit,
        text.replace("ExecStart=/usr/bin/evenring run", "ExecStart=/bin/true")
            .replace("/usr/bin/evenring config check", "/bin/true"),
    )
    .expect("written");
    let output = analyze(arguments, &unit);
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn systemd_accepts_the_unit() {
    let text = fs::read_to_string(shipped("evenring.service")).expect("the unit");
    assert!(text.contains("\nExecStart=/usr/bin/evenring run\n"), "the line that this test replaces");
    let verify = ["verify", "--man=no", "--recursive-errors=no"];
    let (accepted, said) = judge(&verify, &text);
    assert!(accepted && !said.contains("evenring.service"), "{said}");
    let (accepted, said) = judge(&verify, &text.replace("ProtectHome=yes", "ProtectHom=yes"));
    assert!(!accepted, "this test would not see a misspelt key: {said}");
}

#[test]
fn the_unit_is_locked_down() {
    let text = fs::read_to_string(shipped("evenring.service")).expect("the unit");
    let security = ["security", "--offline=true", "--threshold=12", "--no-pager"];
    let (accepted, said) = judge(&security, &text);
    assert!(accepted, "{said}");
    let (accepted, _) = judge(&security, &text.replace("PrivateUsers=yes", "").replace("CapabilityBoundingSet=", "#"));
    assert!(!accepted, "this test would not see a weaker unit");
}

/// Its secrets and its sandbox are the daemon's: what is added to one unit is added to the other.
#[test]
fn the_doctor_is_locked_down_as_the_daemon_is() {
    let lines = |name: &str| {
        let text = fs::read_to_string(shipped(name)).expect("the unit");
        let part = text.split("User=evenring\n").nth(1).expect("the user, and what it may do").to_owned();
        let part = part.split("[Install]").next().expect("a part").to_owned();
        let lines = part.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        lines.map(str::to_owned).collect::<BTreeSet<String>>()
    };
    let (daemon, doctor) = (lines("evenring.service"), lines("evenring-doctor.service"));
    assert!(daemon.len() > 30, "{daemon:?}");
    // The daemon is the last to be killed when memory is short.
    let differ: Vec<_> = daemon.symmetric_difference(&doctor).map(String::as_str).collect();
    assert_eq!(differ, ["OOMScoreAdjust=-500"]);
    let text = fs::read_to_string(shipped("evenring-doctor.service")).expect("the unit");
    let text = text.replace("/usr/bin/evenring doctor --report", "/bin/true");
    let (accepted, said) = judge(&["verify", "--man=no", "--recursive-errors=no"], &text);
    assert!(accepted && !said.contains("evenring.service"), "{said}");
}

#[test]
fn the_user_of_the_unit_is_the_one_that_is_made() {
    let unit = fs::read_to_string(shipped("evenring.service")).expect("the unit");
    let users = fs::read_to_string(shipped("evenring.sysusers")).expect("the users");
    let made: Vec<_> =
        users.lines().filter_map(|line| line.strip_prefix("u ")).filter_map(|line| line.split(' ').next()).collect();
    let user = unit.lines().find_map(|line| line.strip_prefix("User=")).expect("a user");
    assert_eq!(made, [user]);
}

/// Each file for a secret is made for root alone, given to the daemon as a credential, and hidden from it.
#[test]
fn the_files_for_secrets_are_made_loaded_and_hidden() {
    let read = |name: &str| fs::read_to_string(shipped(name)).expect("it is shipped");
    let (unit, made) = (read("evenring.service"), read("evenring.tmpfile"));
    let values = |key: &str| unit.lines().filter_map(|line| line.strip_prefix(key)).collect::<Vec<_>>();
    let loaded: BTreeSet<String> = values("LoadCredential=")
        .iter()
        .map(|value| {
            let (name, path) = value.split_once(':').expect("name:path");
            assert_eq!(path, format!("/etc/evenring/{name}"), "commands and messages name this file");
            path.to_owned()
        })
        .collect();
    assert_eq!(loaded.len(), 4, "{loaded:?}");
    let hidden = values("InaccessiblePaths=").join(" ").split(' ').filter(|path| path.starts_with("-/")).count();
    assert_eq!(hidden, loaded.len());
    for path in loaded {
        assert!(made.contains(&format!("f {path} 0600 root root -\n")), "{path} is not made: {made}");
        assert!(unit.contains(&format!("-{path}")), "{path} is not hidden");
    }
}

#[test]
fn the_manager_user_that_is_shipped_is_the_one_of_the_page() {
    let conf = fs::read_to_string(shipped("manager.conf")).expect("it is shipped");
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/SECURITY.md")).expect("the page");
    let user = conf.split_once("\n\n").expect("comments, then the user").1;
    assert!(
        user.starts_with("[evenring]\nsecret = CHANGE-ME\n") && page.contains(&format!("```ini\n{user}```")),
        "{user}"
    );
}

/// Every file that the package brings, below `/`, by the file of this repository that it is; what is built first is not
/// among them.
fn packaged() -> BTreeMap<PathBuf, PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest = fs::read_to_string(root.join("Cargo.toml")).expect("the manifest");
    let list = manifest.split_once("\nassets = [\n").expect("the assets").1.split_once("\n]").expect("their end").0;
    let mut files = BTreeMap::new();
    for line in list.lines().filter_map(|line| line.trim().strip_prefix('[')) {
        let words: Vec<&str> = line.split('"').collect();
        let [_, from, _, to, ..] = words[..] else { panic!("an asset: {line}") };
        if from.starts_with("target/") {
            continue;
        }
        let (folder, name) = from.rsplit_once('/').unwrap_or((".", from));
        let (start, end) = name.split_once('*').unwrap_or((name, ""));
        let entries = fs::read_dir(root.join(folder)).expect("a folder").map(|entry| entry.expect("an entry").path());
        let fits = |name: &str| name == start || name.contains('.') && name.starts_with(start) && name.ends_with(end);
        for path in entries.filter(|path| path.is_file()) {
            let file = path.file_name().expect("a name").to_string_lossy().into_owned();
            if if from.contains('*') { fits(&file) } else { file == name } {
                let target = if to.ends_with('/') { Path::new(to).join(&file) } else { PathBuf::from(to) };
                files.insert(target, path);
            }
        }
    }
    files
}

/// The links of a page that lead to no file or folder of the package.
fn dead_links(page: &Path, text: &str, files: &BTreeMap<PathBuf, PathBuf>) -> Vec<String> {
    let links = text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
    let is_dead = |link: &&str| {
        let mut target = page.parent().expect("a folder").to_owned();
        for part in Path::new(link).components() {
            match part {
                Component::ParentDir => drop(target.pop()),
                Component::Normal(part) => target.push(part),
                Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
            }
        }
        !files.keys().any(|file| file.starts_with(&target))
    };
    let relative = links.filter(|link| !link.is_empty() && !link.contains("://"));
    relative.filter(is_dead).map(|link| format!("{}: {link}", page.display())).collect()
}

/// Whoever reads the pages where they are installed gets where the links lead.
#[test]
fn every_link_of_a_packaged_page_leads_to_a_packaged_file() {
    let files = packaged();
    let pages = files.iter().filter(|(target, _)| target.extension().is_some_and(|end| end == "md"));
    let pages: Vec<(&Path, String)> =
        pages.map(|(target, from)| (target.as_path(), fs::read_to_string(from).expect("a page"))).collect();
    assert!(pages.len() > 12, "{files:?}");
    let dead: Vec<String> = pages.iter().flat_map(|(page, text)| dead_links(page, text, &files)).collect();
    assert_eq!(dead, [""; 0]);
    let readme = Path::new("usr/share/doc/evenring/README.md");
    assert!(files.contains_key(readme), "{files:?}");
    let planted = "[a](docs/none.md) [b](docs/reference.md#reasons) [c](systemd/monitoring) [d](src/lib.rs) [e](#x)";
    assert_eq!(dead_links(readme, planted, &files).len(), 2);
}
