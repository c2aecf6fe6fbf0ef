//! The registry's plain model, as the tests of the scripts have it. Owns nothing but the way to it.

#[path = "../model/judge.rs"]
pub mod judge;
#[path = "../model/rules.rs"]
pub mod rules;
#[path = "../model/takes.rs"]
pub mod takes;
#[path = "../model/world.rs"]
pub mod world;
