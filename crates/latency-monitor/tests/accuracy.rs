//! Figures against a sorted list of all values.
#![expect(clippy::unwrap_used, reason = "helpers of a test may panic")]

use std::{sync::Arc, time::Duration};

use infra_latency_monitor::{Distribution, LatencyConfig, LatencyMonitor, MemoryLatencyMonitor};
use infra_types::ManualClock;
use proptest::prelude::*;

fn monitor() -> MemoryLatencyMonitor {
    MemoryLatencyMonitor::new(LatencyConfig::default(), Arc::new(ManualClock::default())).unwrap()
}

fn latency(monitor: &MemoryLatencyMonitor) -> Distribution {
    monitor.snapshot().get("s", "o").unwrap().latency.clone()
}

/// The nearest-rank percentile; `percent` in hundredths of a percent.
fn oracle(sorted: &[u64], hundredths: usize) -> u64 {
    sorted[(sorted.len() * hundredths).div_ceil(10_000).max(1) - 1]
}

fn assert_within_bound(got: Duration, exact: u64) {
    let got = u64::try_from(got.as_nanos()).unwrap();
    assert!(got >= exact, "{got} below {exact}");
    assert!(u128::from(got - exact) * 10_000 <= u128::from(exact) * 79, "{got} more than 0.79 % above {exact}");
}

/// Any magnitude from a nanosecond to the last bucket, not only large ones.
fn any_nanos() -> impl Strategy<Value = u64> {
    (0u32..40, any::<u64>()).prop_map(|(bits, raw)| raw & ((1 << (bits + 1)) - 1) & ((1 << 40) - 1))
}

proptest! {
    #[test]
    fn percentiles_stay_within_the_bound(mut values in prop::collection::vec(any_nanos(), 1..400)) {
        let monitor = monitor();
        let recorder = monitor.register("s", "o");
        values.iter().for_each(|v| recorder.record(Duration::from_nanos(*v)));
        let got = latency(&monitor);
        values.sort_unstable();
        for hundredths in [0, 1, 100, 2_500, 5_000, 7_500, 9_500, 9_900, 9_990, 9_999, 10_000] {
            let percent = f64::from(u32::try_from(hundredths).unwrap()) / 100.0;
            assert_within_bound(got.percentile(percent).unwrap(), oracle(&values, hundredths));
        }
        let mean = values.iter().map(|v| u128::from(*v)).sum::<u128>() / values.len() as u128;
        prop_assert_eq!(got.mean().unwrap().as_nanos(), mean);
        prop_assert_eq!(got.min().unwrap().as_nanos(), u128::from(values[0]));
        prop_assert_eq!(got.max().unwrap().as_nanos(), u128::from(values[values.len() - 1]));
        prop_assert_eq!(got.count(), values.len() as u64);
    }

    #[test]
    fn correction_adds_what_a_loop_would(took in 0u64..5_000_000, expected in 0u64..10_000) {
        let (fast, slow) = (monitor(), monitor());
        fast.register("s", "o").record_with_expected_interval(Duration::from_nanos(took), Duration::from_nanos(expected));
        let recorder = slow.register("s", "o");
        recorder.record(Duration::from_nanos(took));
        if expected > 0 {
            let mut missed = took.saturating_sub(expected);
            while missed >= expected {
                recorder.record(Duration::from_nanos(missed));
                missed -= expected;
            }
        }
        prop_assert_eq!(latency(&fast), latency(&slow));
    }

    #[test]
    fn a_difference_is_what_came_in_between(
        before in prop::collection::vec(any_nanos(), 0..100),
        after in prop::collection::vec(any_nanos(), 0..100),
    ) {
        let (both, alone) = (monitor(), monitor());
        let recorder = both.register("s", "o");
        before.iter().for_each(|v| recorder.record(Duration::from_nanos(*v)));
        let first = both.snapshot();
        after.iter().for_each(|v| recorder.record(Duration::from_nanos(*v)));
        let recorder = alone.register("s", "o");
        after.iter().for_each(|v| recorder.record(Duration::from_nanos(*v)));

        let got = both.snapshot().since(&first).0.remove(0).latency;
        let want = latency(&alone);
        prop_assert_eq!((got.count(), got.mean()), (want.count(), want.mean()));
        let mut sorted = after.clone();
        sorted.sort_unstable();
        if !sorted.is_empty() {
            assert_within_bound(got.percentile(95.0).unwrap(), oracle(&sorted, 9_500));
            assert_within_bound(got.max().unwrap(), sorted[sorted.len() - 1]);
            prop_assert!(got.min().unwrap().as_nanos() <= u128::from(sorted[0]));
        }
    }
}

#[test]
fn an_interval_of_a_nanosecond_does_not_hang() {
    let monitor = monitor();
    monitor.register("s", "o").record_with_expected_interval(Duration::from_secs(100), Duration::from_nanos(1));
    assert_eq!(latency(&monitor).count(), 100_000_000_000);
}

#[test]
fn what_is_longer_than_the_last_bucket_keeps_its_maximum() {
    let monitor = monitor();
    let recorder = monitor.register("s", "o");
    recorder.record(Duration::from_secs(3_600));
    assert_eq!(latency(&monitor).percentile(50.0), Some(Duration::from_secs(3_600)));
    recorder.record(Duration::MAX);
    assert_eq!(latency(&monitor).max(), Some(Duration::from_nanos(u64::MAX)));
}

#[test]
fn without_a_sample_there_is_no_figure() {
    let monitor = monitor();
    monitor.register("s", "o");
    assert_eq!(latency(&monitor).percentile(99.0), None);
    let summary = monitor.summary("s", "o").unwrap();
    assert_eq!((summary.count, summary.figures), (0, None));
    assert_eq!(monitor.summary("s", "unknown"), None);
}

/// 10,000 answers in 1 ms, then one stall of 100 s, in a loop that should run every 10 ms: the naive figures hide that
/// half of the time nothing worked.
#[test]
fn coordinated_omission_is_corrected() {
    let ms = Duration::from_millis;
    let (naive, corrected) = (monitor(), monitor());
    let (n, c) = (naive.register("s", "o"), corrected.register("s", "o"));
    for took in std::iter::repeat_n(ms(1), 10_000).chain([ms(100_000)]) {
        n.record(took);
        c.record_with_expected_interval(took, ms(10));
    }
    let tenths = |d: Duration, unit: Duration| (d.as_nanos() * 10 + unit.as_nanos() / 2) / unit.as_nanos();
    let second = Duration::from_secs(1);

    let naive = latency(&naive);
    assert_eq!(tenths(naive.mean().unwrap(), ms(1)), 110, "naive mean 11.0 ms");
    assert_within_bound(naive.percentile(99.99).unwrap(), 1_000_000);

    let corrected = latency(&corrected);
    assert_eq!(corrected.count(), 20_000);
    assert_eq!(corrected.mean().unwrap(), Duration::from_nanos(25_003_000_000), "corrected mean 25.0 s");
    // The exact values are 50.0 s, 98.0 s and 99.98 s; the buckets may report up to 0.79 % more, never above the maximum.
    assert_within_bound(corrected.percentile(75.0).unwrap(), 50_000_000_000);
    assert_within_bound(corrected.percentile(99.0).unwrap(), 98_000_000_000);
    assert_within_bound(corrected.percentile(99.99).unwrap(), 99_980_000_000);
    assert_eq!(tenths(corrected.percentile(99.99).unwrap(), second), 1_000, "corrected p99.99 100.0 s");
    assert_eq!(corrected.max(), Some(ms(100_000)));
}
