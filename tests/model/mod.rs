//! What the registry must do, in plain Rust: a model to compare the scripts with, written from the promises.
//!
//! Owns the rules (`world`, `rules`, `holds`, `lost`, `judge`, `fetch_sequence`), the form of an operation (`op`), and how Redis is read and compared (`look`,
//! `run`, `fetching`, `tables`, `inbox`, `faults`, `ring_queue`, `events`). The simulation uses the rules alone, as its Redis.
//! The model must never know Redis's keys; only `look` does.
#![allow(unreachable_pub, dead_code, reason = "each test binary uses its own part")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a model that fails ends the test, and says why"
)]

pub mod events;
pub mod faults;
pub mod fetch_sequence;
pub mod fetching;
pub mod holds;
pub mod inbox;
pub mod judge;
pub mod look;
pub mod lost;
pub mod op;
pub mod ring_queue;
pub mod rules;
pub mod run;
pub mod tables;
pub mod words;
pub mod world;
