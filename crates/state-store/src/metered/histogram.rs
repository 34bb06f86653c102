//! Durations in buckets that grow with them.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Four buckets for every doubling from 4 ns to 2⁴⁰ ns (18 minutes), one for each nanosecond below; longer ones share the last.
const BUCKETS: usize = 4 * 39;

/// Counts durations: what it tells of a quantile is at most a quarter too long, never too short.
#[derive(Debug)]
pub(super) struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    sum_ns: AtomicU64,
    min_ns: AtomicU64,
    max_ns: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            buckets: [const { AtomicU64::new(0) }; BUCKETS],
            sum_ns: AtomicU64::new(0),
            min_ns: AtomicU64::new(u64::MAX),
            max_ns: AtomicU64::new(0),
        }
    }
}

/// What a histogram tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Latencies {
    pub(super) count: u64,
    pub(super) min: Duration,
    pub(super) mean: Duration,
    pub(super) p50: Duration,
    pub(super) p99: Duration,
    pub(super) max: Duration,
}

impl Histogram {
    pub(super) fn note(&self, took: Duration) {
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[bucket(ns)].fetch_add(1, Relaxed);
        self.sum_ns.fetch_add(ns, Relaxed);
        self.min_ns.fetch_min(ns, Relaxed);
        self.max_ns.fetch_max(ns, Relaxed);
    }

    /// None before the first duration.
    pub(super) fn latencies(&self) -> Option<Latencies> {
        let counts: Vec<u64> = self.buckets.iter().map(|bucket| bucket.load(Relaxed)).collect();
        let count = counts.iter().sum::<u64>();
        let (min, max) = (self.min_ns.load(Relaxed), self.max_ns.load(Relaxed));
        if count == 0 || min > max {
            return None;
        }
        let quantile = |percent: u64| {
            // The smallest duration that so many are not longer than.
            let rank = (count * percent).div_ceil(100).max(1);
            let mut seen = 0;
            let at = counts.iter().position(|n| {
                seen += n;
                seen >= rank
            });
            Duration::from_nanos(at.map_or(max, longest).clamp(min, max))
        };
        Some(Latencies {
            count,
            min: Duration::from_nanos(min),
            mean: Duration::from_nanos(self.sum_ns.load(Relaxed) / count),
            p50: quantile(50),
            p99: quantile(99),
            max: Duration::from_nanos(max),
        })
    }
}

fn bucket(ns: u64) -> usize {
    if ns < 4 {
        return ns as usize;
    }
    let doubling = ns.ilog2() as usize;
    let quarter = (ns >> (doubling - 2)) as usize & 3;
    (4 * (doubling - 1) + quarter).min(BUCKETS - 1)
}

/// The longest duration of a bucket.
fn longest(bucket: usize) -> u64 {
    if bucket < 4 {
        return bucket as u64;
    }
    if bucket == BUCKETS - 1 {
        return u64::MAX;
    }
    let (doubling, quarter) = (bucket / 4 + 1, bucket as u64 % 4);
    ((5 + quarter) << (doubling - 2)) - 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nothing_tells_nothing() {
        assert_eq!(Histogram::default().latencies(), None);
    }

    #[test]
    fn buckets_lie_side_by_side() {
        for at in 0..BUCKETS - 1 {
            let last = longest(at);
            assert_eq!((bucket(last), bucket(last + 1)), (at, at + 1));
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
        assert_eq!(longest(BUCKETS - 2), (7 << 37) - 1);
    }

    proptest! {
        #[test]
        fn quantiles_are_never_too_short_and_little_too_long(mut took in prop::collection::vec(0_u64..100_000_000_000, 1..200)) {
            let histogram = Histogram::default();
            for ns in &took {
                histogram.note(Duration::from_nanos(*ns));
            }
            took.sort_unstable();
            let told = histogram.latencies().unwrap();
            prop_assert_eq!(told.count, took.len() as u64);
            prop_assert_eq!(told.min.as_nanos(), u128::from(took[0]));
            prop_assert_eq!(told.max.as_nanos(), u128::from(took[took.len() - 1]));
            prop_assert_eq!(told.mean.as_nanos(), u128::from(took.iter().sum::<u64>() / took.len() as u64));
            for (percent, told) in [(50, told.p50), (99, told.p99)] {
                let exact = took[(took.len() * percent).div_ceil(100).max(1) - 1];
                let told = told.as_nanos() as u64;
                prop_assert!(told >= exact && told <= exact + exact / 4 + 1, "{} of {}", told, exact);
            }
        }
    }
}
