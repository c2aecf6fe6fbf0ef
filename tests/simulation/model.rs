//! The registry's plain model, as the tests of the scripts have it. Owns nothing but the way to it.

#[path = "../model/fetch_sequence.rs"]
pub mod fetch_sequence;
#[path = "../model/holds.rs"]
pub mod holds;
#[path = "../model/judge.rs"]
pub mod judge;
#[path = "../model/lost.rs"]
pub mod lost;
#[path = "../model/rules.rs"]
pub mod rules;
#[path = "../model/world.rs"]
pub mod world;
