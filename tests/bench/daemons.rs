//! Rows of whole daemons and of placement. Owns their names and what they have to reach. Must never measure: `cluster`
//! does.

use std::path::PathBuf;
use std::time::Duration;

use crate::cluster::{self, AtRest};
use crate::harness::{Bench, ROUNDS, Reach, median};

/// The release binary, built by the same profile as the bench.
fn binary() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_evenring"))
}

/// What the pacing of a daemon allows: so many Originates at once, and so many a second after that.
const BURST: f64 = 100.0;
const RATE: f64 = 50.0;

pub fn rows(bench: &mut Bench) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    for (name, nodes) in [
        ("placement, 3 candidates", 3),
        ("placement, 10 nodes", 10),
        ("placement, 50 nodes", 50),
        ("placement, 200 nodes", 200),
    ] {
        if bench.wants(name) {
            let rounds = if nodes > 10 { 5 } else { ROUNDS };
            let pairs = runtime.block_on(cluster::placement(nodes, rounds));
            // With many nodes the runs are long and the machine's moods with them: their cost is what the row is for.
            let reach = if nodes == 3 { 0.8 } else { 0.7 };
            bench.add(name, "per s", Reach::RatioAtLeast(reach), &pairs);
        }
    }
    latency(bench, &runtime);
    burst(bench, &runtime);
    steady(bench, &runtime);
    idle(bench, &runtime);
}

fn percentile(values: &[f64], part: f64) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a place in a list")]
    let at = (values.len() as f64 * part) as usize;
    values.get(at.min(values.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}

fn latency(bench: &mut Bench, runtime: &tokio::runtime::Runtime) {
    const P50: &str = "login accepted to Originate, 500 a second, p50";
    const P99: &str = "login accepted to Originate, 500 a second, p99";
    if !bench.wants(P50) && !bench.wants(P99) {
        return;
    }
    let rounds: Vec<_> = (0..5).map(|_| runtime.block_on(cluster::latency(&binary(), 1_000, 500))).collect();
    let at = |part: f64| -> Vec<(f64, f64)> {
        rounds.iter().map(|round| (percentile(&round.ring_us, part), median(round.ping_us.iter().copied()))).collect()
    };
    bench.add(P50, "us", Reach::RatioAtMost(3.0), &at(0.5));
    bench.add(P99, "us", Reach::AtMost(5_000.0), &at(0.99));
}

fn burst(bench: &mut Bench, runtime: &tokio::runtime::Runtime) {
    const NAMES: [&str; 4] = [
        "2,000 logins at once on 10 nodes: spread",
        "2,000 logins at once on 10 nodes: lost",
        "2,000 logins at once on 10 nodes: rung twice",
        "2,000 logins at once on 10 nodes: to the last ring",
    ];
    if !NAMES.iter().any(|name| bench.wants(name)) {
        return;
    }
    let rounds: Vec<_> = (0..5).map(|_| runtime.block_on(cluster::burst(&binary(), 10, 2_000))).collect();
    let worst = |value: &dyn Fn(&cluster::Burst) -> f64| -> Vec<(f64, f64)> {
        // One round that is wrong is one too many.
        vec![(rounds.iter().map(value).fold(0.0, f64::max), 0.0)]
    };
    bench.add(NAMES[0], "agents", Reach::AtMost(1.0), &worst(&|round| round.spread as f64));
    bench.add(NAMES[1], "logins", Reach::AtMost(0.0), &worst(&|round| round.lost as f64));
    bench.add(NAMES[2], "phones", Reach::AtMost(0.0), &worst(&|round| round.twice as f64));
    let paced = (200.0 - BURST) / RATE;
    let last: Vec<_> = rounds.iter().map(|round| (round.last_ring.as_secs_f64(), paced)).collect();
    bench.add(NAMES[3], "s", Reach::RatioAtMost(1.25), &last);
}

fn steady(bench: &mut Bench, runtime: &tokio::runtime::Runtime) {
    const CPU: &str = "50 nodes x 400 agents at rest: CPU of one daemon";
    const RSS: &str = "50 nodes x 400 agents at rest: RSS of one daemon";
    if bench.wants(CPU) || bench.wants(RSS) {
        let windows = runtime.block_on(cluster::steady(&binary(), 50, 400, 5, Duration::from_secs(2)));
        let pairs = |value: fn(&AtRest) -> f64| windows.iter().map(|rest| (value(rest), 0.0)).collect::<Vec<_>>();
        bench.add(CPU, "% core", Reach::AtMost(1.0), &pairs(|rest| rest.cpu_percent));
        bench.add(RSS, "MB", Reach::AtMost(24.0), &pairs(|rest| rest.rss_mb));
    }
}

fn idle(bench: &mut Bench, runtime: &tokio::runtime::Runtime) {
    const NAMES: [&str; 3] = ["idle daemon: RSS", "idle daemon: CPU", "idle daemon: start to READY"];
    if !NAMES.iter().any(|name| bench.wants(name)) {
        return;
    }
    let (windows, ready) = runtime.block_on(cluster::idle(&binary(), 5, Duration::from_secs(3)));
    let pairs = |value: fn(&AtRest) -> f64| windows.iter().map(|rest| (value(rest), 0.0)).collect::<Vec<_>>();
    bench.add(NAMES[0], "MB", Reach::AtMost(12.0), &pairs(|rest| rest.rss_mb));
    bench.add(NAMES[1], "% core", Reach::AtMost(0.1), &pairs(|rest| rest.cpu_percent));
    let ready: Vec<_> = ready.iter().map(|took| (took.as_secs_f64() * 1e3, 0.0)).collect();
    bench.add(NAMES[2], "ms", Reach::AtMost(100.0), &ready);
}
