//! The Debian package, packed as `./dev package` does it from the program that the test was built with (or EVENRING_BIN).
//!
//! Owns only that: the recipe is that of `./dev package`, and who compiles is another. Must never know what is tested with it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that fails says why")]
#![allow(unreachable_pub, reason = "it is a part of test binaries")]

#[path = "../pages/mod.rs"]
mod pages;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::lab::evenring::binary;
use crate::lab::{cache, run};

/// Packs the program in this folder; the path of the package.
pub fn pack(dir: &Path) -> PathBuf {
    let release = dir.join("release");
    pages::write(&release.join("pages")).expect("write the pages");
    run(&format!("strip -o {} {}", release.join("evenring").display(), binary().display()));
    let mut dev = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("dev"));
    dev.arg("pack").arg(dir).arg("--fast").env("EVENRING_CACHE", cache());
    let output = dev.output().expect("run dev");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{said}");
    let packages: Vec<_> = fs::read_dir(dir.join("debian")).unwrap().map(|entry| entry.unwrap().path()).collect();
    let [package] = &packages[..] else { panic!("one package, not {packages:?}: {said}") };
    println!("{}: {} KiB", package.file_name().unwrap().display(), fs::metadata(package).unwrap().len() >> 10);
    package.clone()
}
