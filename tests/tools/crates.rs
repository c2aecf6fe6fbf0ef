//! The crates of this program: their licences, where they come from, and what must not be among them, by cargo-deny.
//!
//! Owns the planted faults. Must never hold a rule of its own: they stand in `.cargo/deny.toml`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that fails says why")]

use std::path::{Path, PathBuf};
use std::process::Command;

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What `./dev setup` has built.
fn cargo_deny() -> PathBuf {
    let cache = std::env::var_os("EVENRING_LAB").expect("EVENRING_LAB is not set: run this with ./dev test");
    Path::new(&cache).join("tools/bin/cargo-deny")
}

/// Whether all is well by these rules, and what was said. The sandbox has no network, so nothing is fetched.
fn check(rules: &Path) -> (bool, String) {
    let mut command = Command::new(cargo_deny());
    command.current_dir(here()).args(["--color", "never", "--log-level", "error", "--offline", "--locked"]);
    command.arg("--config").arg(rules).args(["check", "bans", "licenses", "sources"]);
    let output = command.output().expect("run cargo-deny: ./dev setup builds it");
    (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

#[test]
fn licences_sources_and_bans_are_kept() {
    let (good, said) = check(&here().join(".cargo/deny.toml"));
    assert!(good, "{said}");
}

#[test]
fn each_rule_sees_what_breaks_it() {
    let rules = std::fs::read_to_string(here().join(".cargo/deny.toml")).unwrap();
    for (from, to, says) in [
        ("\"ISC\", ", "", "license is not explicitly allowed"),
        ("https://github.com/rust-lang/crates.io-index", "https://crates.example/index", "source-not-allowed"),
        ("crate = \"native-tls\"", "crate = \"tokio\"", "crate 'tokio"),
        ("{ crate = \"syn@2\"", "{ crate = \"syn@1\"", "duplicate entries for crate 'syn'"),
    ] {
        assert!(rules.contains(from), "no {from} in the rules");
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), rules.replace(from, to)).unwrap();
        let (good, said) = check(file.path());
        assert!(!good && said.contains(says), "{from} -> {to}: {said}");
    }
}
