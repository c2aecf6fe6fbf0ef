//! The verbs: one file each, thin; they print what the rooms below say.
//!
//! Owns exit codes and wording on the terminal. Must never decide anything about calls or nodes.

pub mod config;
pub mod logging;
