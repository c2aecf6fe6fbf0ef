//! The tests, by promise. Owns nothing else.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that fails says why")]

mod bounds;
mod case;
mod dead_letters;
mod drain;
mod ends;
mod even;
mod events;
mod faults;
mod holds;
mod judge;
mod left_out;
mod login_counts;
mod moves;
mod one_ring;
mod reasons;
mod rejoin;
mod retries;
mod ring_queue;
mod rsmq;
mod soft_state;
mod told;
