//! The scripts against a plain model of them, by random operations on a real Redis and a real Valkey.
//!
//! Owns how many, and how a failure is shown and replayed: the seed stands in the message, and
//! `PROPTEST_RNG_SEED=<seed> cargo test --test registry_model` runs the same sequences again.

#![allow(clippy::expect_used, clippy::panic, reason = "a test that fails says why")]

#[path = "../lab/mod.rs"]
mod lab;
#[path = "../model/mod.rs"]
mod model;
#[path = "../redis_fixture/mod.rs"]
mod redis_fixture;

use std::net::Ipv4Addr;
use std::time::Duration;

use lab::redis::{Program, Redis};
use model::op::{Op, beginning, op};
use model::run::{TOML, run};
use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngSeed, TestError, TestRunner};
use redis_fixture::Cluster;

/// Sequences in one run.
const SEQUENCES: u32 = 200;
/// The longest sequence; time passes in about one of twelve, see `model::world::limits` for why that is bounded.
const STEPS: std::ops::Range<usize> = 1..120;

/// The most that sequences may let time pass: after that many steps of 20 n + 1 s the ones would add up to 20.
const PASSES: usize = 18;

fn sequence() -> impl Strategy<Value = Vec<Op>> {
    proptest::collection::vec(op(), STEPS).prop_map(|ops| {
        let mut passes = 0;
        let few = |op: &Op| {
            passes += usize::from(matches!(op, Op::Pass { .. }));
            !matches!(op, Op::Pass { .. }) || passes <= PASSES
        };
        beginning().into_iter().chain(ops.into_iter().filter(few)).collect()
    })
}

fn seed(config: &Config) -> u64 {
    match config.rng_seed {
        RngSeed::Fixed(seed) => seed,
        RngSeed::Random => std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0),
    }
}

#[test]
fn the_scripts_do_what_the_promises_say() {
    check(Redis::start(), SEQUENCES);
}

#[test]
fn they_do_the_same_on_valkey() {
    check(Redis::start_program(Program::Valkey, Ipv4Addr::LOCALHOST, &[]), SEQUENCES / 4);
}

fn check(redis: Redis, sequences: u32) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut config = Config { cases: sequences, failure_persistence: None, ..Config::default() };
    config.max_shrink_time = u32::try_from(Duration::from_secs(30).as_millis()).expect("ms");
    config.max_shrink_iters = 10_000;
    let seed = seed(&config);
    config.rng_seed = RngSeed::Fixed(seed);
    let cluster = std::cell::RefCell::new(runtime.block_on(Cluster::on(redis, TOML)));
    let steps = std::cell::Cell::new(0);
    let begin = lab::now();
    let result = TestRunner::new(config).run(&sequence(), |ops| {
        steps.set(steps.get() + ops.len());
        let ran = runtime.block_on(run(&mut cluster.borrow_mut(), &ops));
        ran.map_err(proptest::test_runner::TestCaseError::fail)
    });
    match result {
        Ok(()) => {
            let took = begin.elapsed();
            let each = f64::from(u32::try_from(steps.get()).expect("some thousands")) / took.as_secs_f64();
            println!("{} operations on both worlds in {took:?}: {each:.0}/s, seed {seed}", steps.get());
        }
        Err(TestError::Fail(why, ops)) => {
            panic!("{why}\nafter\n{}\nreplay: PROPTEST_RNG_SEED={seed}", list(&ops));
        }
        Err(TestError::Abort(why)) => panic!("given up: {why}; seed {seed}"),
    }
}

fn list(ops: &[Op]) -> String {
    ops.iter().enumerate().skip(beginning().len()).map(|(at, op)| format!("  {at} {op:?}\n")).collect()
}
