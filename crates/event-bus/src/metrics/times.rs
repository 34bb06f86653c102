//! How long handlings took, by percentile.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Each doubling of the time is divided into this many buckets: a percentile is at most 1/16 beside the truth.
const PER_DOUBLING: usize = 8;
/// Times from 2^40 ns (18 minutes) on share the last buckets.
const DOUBLINGS: usize = 40;
const BUCKETS: usize = (DOUBLINGS - 2) * PER_DOUBLING;

/// How long handlings took: percentiles within 7 %, the longest exactly. Zero before the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
#[non_exhaustive]
pub struct HandlingTimes {
    /// Half took at most this long.
    pub p50: Duration,
    /// 95 of 100 did.
    pub p95: Duration,
    /// 99 of 100 did.
    pub p99: Duration,
    /// 999 of 1,000 did.
    pub p999: Duration,
    /// The longest.
    pub max: Duration,
}

#[derive(Debug)]
pub(super) struct Times {
    counts: Box<[AtomicU64]>,
    max: AtomicU64,
}

impl Default for Times {
    fn default() -> Self {
        Self { counts: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(), max: AtomicU64::new(0) }
    }
}

impl Times {
    pub(super) fn record(&self, nanos: u64) {
        self.counts[bucket(nanos)].fetch_add(1, Relaxed);
        self.max.fetch_max(nanos, Relaxed);
    }

    pub(super) fn read(&self) -> HandlingTimes {
        let counts: Vec<u64> = self.counts.iter().map(|count| count.load(Relaxed)).collect();
        let total: u64 = counts.iter().sum();
        let max = self.max.load(Relaxed);
        let percentile = |thousandths: u64| {
            if total == 0 {
                return Duration::ZERO;
            }
            // The rank of nearest-rank percentiles: the smallest that so many of the handlings do not exceed.
            let rank = (u128::from(total) * u128::from(thousandths)).div_ceil(1_000);
            let mut seen = 0;
            let found = counts.iter().position(|count| {
                seen += u128::from(*count);
                seen >= rank
            });
            Duration::from_nanos(middle(found.unwrap_or(BUCKETS - 1)).min(max))
        };
        HandlingTimes {
            p50: percentile(500),
            p95: percentile(950),
            p99: percentile(990),
            p999: percentile(999),
            max: Duration::from_nanos(max),
        }
    }
}

/// Below 8 ns each nanosecond has a bucket; from there each doubling has 8.
fn bucket(nanos: u64) -> usize {
    if nanos < PER_DOUBLING as u64 {
        return nanos as usize;
    }
    let doubling = nanos.ilog2() as usize;
    let within = (nanos >> (doubling - 3)) as usize - PER_DOUBLING;
    ((doubling - 2) * PER_DOUBLING + within).min(BUCKETS - 1)
}

fn middle(bucket: usize) -> u64 {
    if bucket < PER_DOUBLING {
        return bucket as u64;
    }
    let (doubling, within) = (bucket / PER_DOUBLING + 2, bucket % PER_DOUBLING);
    let width = 1u64 << (doubling - 3);
    (PER_DOUBLING + within) as u64 * width + width / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_at_most_a_sixteenth_beside_its_times() {
        for nanos in (0..10_000).chain((1..39).flat_map(|n| [(1u64 << n) - 1, 1 << n, (1 << n) + 1, 3 << (n - 1)])) {
            let near = middle(bucket(nanos));
            assert!(near.abs_diff(nanos) * 16 <= nanos, "{nanos}: {near}");
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
        for pair in (0..BUCKETS).collect::<Vec<_>>().windows(2) {
            assert!(middle(pair[0]) < middle(pair[1]));
        }
    }

    #[test]
    fn percentiles_are_the_nearest_rank() {
        let times = Times::default();
        assert_eq!(times.read(), HandlingTimes::default());
        (1..=1_000u64).for_each(|micros| times.record(micros * 1_000));
        let read = times.read();
        for (found, micros) in [(read.p50, 500), (read.p95, 950), (read.p99, 990), (read.p999, 999)] {
            let off = found.as_nanos().abs_diff(micros * 1_000);
            assert!(off * 16 <= micros * 1_000, "{found:?} for {micros}");
        }
        assert_eq!(read.max, Duration::from_millis(1));
        times.record(u64::MAX);
        assert_eq!(times.read().max, Duration::from_nanos(u64::MAX));
    }
}
