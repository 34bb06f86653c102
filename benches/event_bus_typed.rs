//! A typed topic beside the channels that one would use instead: throughput from one publisher to one receiver and to four, and
//! the time from publishing to receiving.
//!
//! Every event is an `Arc` that is made for it. Every implementation runs in every round, in turns, so that what else the
//! machine does meets all of them; the table of ratios is made of such pairs.

mod typed_peers;

use std::time::Duration;

use criterion::{Criterion, Throughput};
use infra_benches::criterion;

use typed_peers::{BESIDE, LATENCIES, THROUGHPUTS, runtime};

/// Events in one burst.
const EVENTS: u64 = 100_000;
/// Events whose way is timed in one round.
const TIMED: usize = 2_000;
const ROUNDS: usize = 15;

fn median(values: &[f64]) -> [f64; 3] {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    [sorted.len() / 4, sorted.len() / 2, sorted.len() * 3 / 4].map(|at| sorted[at])
}

/// Prints what each costs, and how many times that is of what the broadcast channel costs **in the same round**.
fn table(title: &str, names: &[&str], rounds: &[Vec<f64>], lost: &[f64]) {
    let beside = names.iter().position(|name| *name == BESIDE).expect("it takes part");
    println!("\n{title}; median of {ROUNDS} interleaved rounds, middle half in brackets");
    for (which, name) in names.iter().enumerate() {
        let of_this: Vec<f64> = rounds.iter().map(|round| round[which]).collect();
        let ratios: Vec<f64> = rounds.iter().map(|round| round[which] / round[beside]).collect();
        let ([low, at, high], [least, ratio, most]) = (median(&of_this), median(&ratios));
        let lost = 100.0 * lost[which];
        println!(
            "  {name:22} {at:8.1} ns ({low:.1}-{high:.1})   {ratio:.2} x {BESIDE} ({least:.2}-{most:.2})   lost {lost:.1} %"
        );
    }
}

fn throughput(c: &mut Criterion, receivers: usize) {
    let rt = runtime();
    let (names, work): (Vec<_>, Vec<_>) = THROUGHPUTS.iter().copied().unzip();
    let mut rounds = Vec::new();
    let mut lost = vec![0.0; names.len()];
    for round in 0..ROUNDS {
        let mut of_round = vec![0.0; names.len()];
        for turn in 0..names.len() {
            let which = (turn + round) % names.len();
            let burst = work[which](&rt, receivers, EVENTS);
            of_round[which] = burst.ns_per_event();
            lost[which] += burst.lost() / ROUNDS as f64;
        }
        rounds.push(of_round);
    }
    table(&format!("typed topic, 1 to {receivers}, time for each event that arrived"), &names, &rounds, &lost);

    let mut group = c.benchmark_group(format!("event_bus/typed_1_to_{receivers}"));
    group.throughput(Throughput::Elements(EVENTS)).sample_size(10);
    for (name, work) in THROUGHPUTS {
        group.bench_function(*name, |b| {
            b.iter_custom(|times| {
                // What was lost did not arrive for free: the time is for as many events as were sent.
                let once =
                    |_| Duration::from_nanos((work(&rt, receivers, EVENTS).ns_per_event() * EVENTS as f64) as u64);
                (0..times).map(once).sum()
            });
        });
    }
    group.finish();
}

fn latency(c: &mut Criterion) {
    let rt = runtime();
    let (names, work): (Vec<_>, Vec<_>) = LATENCIES.iter().copied().unzip();
    let mut rounds = Vec::new();
    for round in 0..ROUNDS {
        let mut of_round = vec![0.0; names.len()];
        for turn in 0..names.len() {
            let which = (turn + round) % names.len();
            of_round[which] = median(&work[which](&rt, TIMED))[1];
        }
        rounds.push(of_round);
    }
    table("typed topic, publish to receive, p50 of a round", &names, &rounds, &vec![0.0; names.len()]);

    let mut group = c.benchmark_group("event_bus/typed_publish_to_receive");
    group.sample_size(10);
    for (name, work) in LATENCIES {
        group.bench_function(*name, |b| {
            b.iter_custom(|times| {
                let times = usize::try_from(times).unwrap_or(usize::MAX);
                Duration::from_nanos(work(&rt, times).iter().sum::<f64>() as u64)
            });
        });
    }
    group.finish();
}

fn main() {
    let mut c = criterion();
    throughput(&mut c, 1);
    throughput(&mut c, 4);
    latency(&mut c);
    c.final_summary();
}
