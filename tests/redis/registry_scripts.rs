//! The scripts, promise by promise, on a real Redis. Owns which promises are tested where. Must never know how the
//! scripts keep them; what many steps in any order do is `registry_model`'s business.

#[path = "../lab/mod.rs"]
mod lab;
#[path = "../redis_fixture/mod.rs"]
mod redis_fixture;
#[path = "../scripts/mod.rs"]
mod scripts;
