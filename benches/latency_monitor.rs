//! What it costs to count one latency.

use std::{hint::black_box, time::Duration};

use criterion::Criterion;
use hdrhistogram::Histogram;
use infra_benches::criterion;
use infra_latency_monitor::{LatencyConfig, LatencyMonitor, MemoryLatencyMonitor};
use infra_types::SystemClock;

/// Latencies between 1 µs and 66 µs: one value again and again would be predicted.
fn latencies() -> impl FnMut() -> u64 {
    let mut state = 1_u32;
    move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        1_000 + u64::from(state >> 16)
    }
}

fn record(c: &mut Criterion) {
    let mut group = c.benchmark_group("latency_monitor/record");
    let monitor = MemoryLatencyMonitor::new(LatencyConfig::default(), SystemClock::shared()).expect("a monitor");
    let recorder = monitor.register("bench", "record");
    recorder.warm_up();
    let mut next = latencies();
    group.bench_function("infra", |b| b.iter(|| recorder.record(black_box(Duration::from_nanos(next())))));

    let histogram = Histogram::<u64>::new_with_bounds(1, 60_000_000_000, 3).expect("bounds").into_sync();
    let mut recorder = histogram.recorder();
    let mut next = latencies();
    group.bench_function("hdrhistogram_sync", |b| b.iter(|| recorder.record(black_box(next())).expect("in bounds")));
    group.finish();
}

fn main() {
    let mut c = criterion();
    record(&mut c);
    c.final_summary();
}
