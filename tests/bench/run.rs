//! `./dev bench [NAME-FILTER]`: what must be fast, each as a ratio to a floor that is measured in the same run.
//!
//! Owns the list of groups and what is written. A missed target is shown, and is no error; only what cannot be measured is.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "what cannot be measured fails loudly")]
#![allow(missing_docs, unreachable_pub, reason = "one program")]
#![allow(clippy::cast_precision_loss, reason = "counts are far below 2^52")]

mod client;
mod cluster;
mod daemons;
#[path = "../fake_ami/mod.rs"]
mod fake_ami;
mod harness;
#[path = "../lab/mod.rs"]
mod lab;
mod large;
#[path = "../load_nodes/mod.rs"]
mod load_nodes;
mod meter;
mod parse;
mod scripts;
mod streams;

use harness::Bench;

fn main() {
    // cargo adds `--bench`; the first other word is the filter.
    let filter = std::env::args().skip(1).find(|word| !word.starts_with('-'));
    let mut bench = Bench::new(filter);
    for group in [parse::rows, client::rows, daemons::rows, scripts::rows] {
        group(&mut bench);
    }
    print!("\n{}", bench.table());
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("target"), std::path::PathBuf::from);
    let json = serde_json::to_string_pretty(bench.rows()).expect("rows are JSON");
    std::fs::write(target.join("bench.json"), json + "\n").expect("target/bench.json can be written");
}
