//! What it costs to check an order against all limits and reserve for it, in the process and over a store in memory.
//!
//! Besides criterion's figures, which are of bursts, it prints the times of single calls: every implementation in every round, in
//! turns, so that what else the machine does meets all of them; the ratios are of pairs in the same round. A call's time is taken
//! with two readings of the monotonic clock, less what two readings take with nothing between them.

mod risk_peers;

use std::{hint::black_box, sync::Arc, time::Duration};

use criterion::Criterion;
use infra_benches::{buy, criterion, runtime};
use infra_risk_engine::{Outcome, Stance};
use infra_state_store::{Batch, Delta, Key, MemoryStateStore, StateStore, Value};
use infra_types::{Clock, Namespace, SystemClock};

use risk_peers::{BURST, Floor, Local, ORDERS, Openpit, Peer, Policies, engine, order, reserve};

const ROUNDS: usize = 15;
const CALLS: usize = 20_000;

fn reserve_and_settle(c: &mut Criterion) {
    let (rt, ns) = (runtime(), Namespace::new("ledger").expect("a valid namespace"));
    let engine = rt.block_on(engine());
    let order = buy("o-1");
    let mut group = c.benchmark_group("risk_engine/reserve_and_settle");
    group.bench_function("infra", |b| {
        b.to_async(&rt).iter(|| async {
            let approval =
                engine.check_and_reserve(order.clone(), Stance::Open, &|_| vec![]).await.expect("within all limits");
            engine.settle(&approval.order, &approval.reservation, Outcome::End, &|_| vec![]).await.expect("settled")
        });
    });

    let store: Arc<dyn StateStore> = Arc::new(MemoryStateStore::new(SystemClock::shared()));
    let counters = ["account", "firm", "position"].map(|name| Key::record(name).expect("a valid key"));
    let batch = |delta: Delta| counters.iter().fold(Batch::new(ns.clone()), |batch, key| batch.add(key.clone(), delta));
    group.bench_function("floor_two_batches", |b| {
        b.to_async(&rt).iter(|| async {
            store.apply(batch(Delta::at_most(8_723_201, Value::COUNTER_MAX))).await.expect("reserved");
            store.apply(batch(Delta::at_least(-8_723_201, 0))).await.expect("given back")
        });
    });
    group.finish();
}

/// The time of `orders` reservations in bursts; what gives them back is not counted.
fn bursts(peer: &mut impl Peer, orders: u64) -> Duration {
    let (mut took, mut left) = (Duration::ZERO, orders);
    while left > 0 {
        let burst = left.min(BURST as u64);
        peer.prepare(burst as usize);
        let began = SystemClock.now();
        (0..burst).for_each(|_| reserve(peer));
        took += SystemClock.now().since(began);
        peer.release();
        left -= burst;
    }
    took
}

/// The time of each of `CALLS` single calls in nanoseconds, ascending, with what the clock takes still in it.
fn single(peer: &mut impl Peer, times: &mut Vec<u64>) {
    times.clear();
    for call in 0..CALLS {
        if call % BURST == 0 {
            peer.release();
            peer.prepare(BURST);
        }
        let began = SystemClock.now();
        reserve(peer);
        times.push(SystemClock.now().since(began).as_nanos() as u64);
    }
    peer.release();
    times.sort_unstable();
}

/// Reserves nothing: what the clock takes.
struct Nothing;

impl Peer for Nothing {
    fn prepare(&mut self, _: usize) {}
    fn reserve(&mut self) -> bool {
        true
    }
    fn release(&mut self) {}
}

fn check_and_reserve(c: &mut Criterion) {
    let mut group = c.benchmark_group("risk_engine/check_and_reserve");
    let mut measure = |name: &str, mut peer: Box<dyn FnMut(u64) -> Duration>| {
        group.bench_function(name, |b| b.iter_custom(&mut peer));
    };
    let (mut local, mut given) = (Local::new(true, true), Local::new(true, false));
    measure("infra", Box::new(move |n| bursts(&mut local, n)));
    measure("infra_time_given", Box::new(move |n| bursts(&mut given, n)));
    let mut common = Local::new(false, true);
    measure("infra_common_limits", Box::new(move |n| bursts(&mut common, n)));
    for (name, policies) in OPENPIT {
        let mut openpit = Openpit::new(*policies);
        measure(name, Box::new(move |n| bursts(&mut openpit, n)));
    }
    let mut floor = Floor::new();
    measure("floor_eight_comparisons", Box::new(move |n| bursts(&mut floor, n)));

    let rt = runtime();
    let engine = rt.block_on(engine());
    let orders: Vec<_> = (0..ORDERS).map(order).collect();
    group.bench_function("infra_engine_memory", |b| {
        b.iter_custom(|n| {
            rt.block_on(async {
                let mut took = Duration::ZERO;
                for order in orders.iter().cycle().take(usize::try_from(n).unwrap_or(usize::MAX)) {
                    let wanted = order.clone();
                    let began = SystemClock.now();
                    let approval = engine.check_and_reserve(wanted, Stance::Open, &|_| vec![]).await.expect("approved");
                    took += SystemClock.now().since(began);
                    let ended = engine.settle(&approval.order, &approval.reservation, Outcome::End, &|_| vec![]).await;
                    ended.expect("settled");
                }
                took
            })
        });
    });
    group.finish();
}

const OPENPIT: &[(&str, Policies)] =
    &[("openpit", Policies::Checks), ("openpit_shared", Policies::ChecksShared), ("openpit_funds", Policies::Funds)];

/// Of values in ascending order.
fn quantile(sorted: &[u64], of: f64) -> u64 {
    sorted[((sorted.len() - 1) as f64 * of) as usize]
}

fn quartiles(values: impl Iterator<Item = f64>) -> [f64; 3] {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    [sorted.len() / 4, sorted.len() / 2, sorted.len() * 3 / 4].map(|at| sorted[at])
}

/// Prints p50, p99 and p99.9 of single calls, and the ratio of each p50 to openpit's in the same round.
fn latencies() {
    type Round = Box<dyn FnMut(&mut Vec<u64>)>;
    fn timed(mut peer: impl Peer + 'static) -> Round {
        Box::new(move |times| single(&mut peer, times))
    }
    let mut peers: Vec<(&str, Round)> = vec![
        ("clock", timed(Nothing)),
        ("infra", timed(Local::new(true, true))),
        ("infra_time_given", timed(Local::new(true, false))),
        ("infra_common_limits", timed(Local::new(false, true))),
        ("floor_eight_comparisons", timed(Floor::new())),
    ];
    peers.extend(OPENPIT.iter().map(|(name, policies)| (*name, timed(Openpit::new(*policies)))));
    let beside = peers.iter().position(|(name, _)| *name == "openpit").expect("it takes part");

    let mut times = Vec::with_capacity(CALLS);
    let mut rounds: Vec<Vec<[u64; 3]>> = Vec::new();
    for round in 0..=ROUNDS {
        let mut of_round = vec![[0; 3]; peers.len()];
        for turn in 0..peers.len() {
            let which = (turn + round) % peers.len();
            (peers[which].1)(&mut times);
            of_round[which] = [0.5, 0.99, 0.999].map(|of| quantile(black_box(&times), of));
        }
        // The first one warms up.
        if round > 0 {
            rounds.push(of_round);
        }
    }
    println!(
        "\nsingle calls of check and reserve, medians of {ROUNDS} rounds of {CALLS} in turns; the clock's own p50 is taken off"
    );
    println!("{:<24} {:>9} {:>9} {:>9}   p50 as a part of openpit's in the same round", "", "p50", "p99", "p99.9");
    for (which, (name, _)) in peers.iter().enumerate() {
        let net =
            |round: &[[u64; 3]], of: usize| round[which][of].saturating_sub(if which == 0 { 0 } else { round[0][0] });
        let [p50, p99, p999] = [0, 1, 2].map(|of| quartiles(rounds.iter().map(|round| net(round, of) as f64))[1]);
        let part =
            |round: &Vec<[u64; 3]>| net(round, 0) as f64 / round[beside][0].saturating_sub(round[0][0]).max(1) as f64;
        let [low, median, high] = quartiles(rounds.iter().map(part));
        println!("{name:<24} {p50:>6} ns {p99:>6} ns {p999:>6} ns   {median:.2} ({low:.2} to {high:.2})");
    }
}

fn main() {
    let mut c = criterion();
    reserve_and_settle(&mut c);
    check_and_reserve(&mut c);
    latencies();
    c.final_summary();
}
