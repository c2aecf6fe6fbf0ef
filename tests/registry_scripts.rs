//! The scripts, promise by promise, on a real Redis. Owns which promises are tested where. Must never know how the
//! scripts keep them; what many steps in any order do is `registry_model`'s business.

mod lab;
mod redis_fixture;
mod scripts;
