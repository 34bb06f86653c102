//! How durations were spread.

use std::time::Duration;

use crate::{buckets, shard::Totals};

/// Counted durations: the buckets that are not empty, with their exact sum.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Distribution {
    /// `(bucket, count)`, ascending, no zero counts.
    counts: Vec<(usize, u64)>,
    count: u64,
    sum: u128,
    min: u64,
    max: u64,
}

impl Distribution {
    pub(crate) fn from_totals(totals: &Totals) -> Self {
        let counts: Vec<_> = totals.buckets.iter().enumerate().filter(|(_, n)| **n > 0).map(|(i, n)| (i, *n)).collect();
        let count = counts.iter().map(|(_, n)| n).sum();
        Self { counts, count, sum: totals.sum, min: totals.min, max: totals.max }
    }

    /// How many durations were counted, corrected ones included.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The mean, exact to the nanosecond (rounded down), or `None` without a sample.
    #[must_use]
    pub fn mean(&self) -> Option<Duration> {
        let mean = self.sum.checked_div(u128::from(self.count))?;
        Some(Duration::from_nanos(u64::try_from(mean).unwrap_or(u64::MAX)))
    }

    /// The shortest; exact since the monitor's start, to the bucket in a difference.
    #[must_use]
    pub fn min(&self) -> Option<Duration> {
        self.counts.first().map(|(i, _)| Duration::from_nanos(self.min.max(buckets::lowest(*i))))
    }

    /// The longest; exact since the monitor's start, to the bucket in a difference.
    #[must_use]
    pub fn max(&self) -> Option<Duration> {
        self.counts.last().map(|(i, _)| Duration::from_nanos(self.top_of(*i)))
    }

    /// The nearest-rank percentile: the smallest recorded value that at least `percent` of all values do not exceed,
    /// given as the highest value of its bucket (at most 0.79 % above), and never above [`Self::max`].
    ///
    /// `percent` is cut to 0..=100 and read to six decimals. `None` without a sample.
    #[must_use]
    pub fn percentile(&self, percent: f64) -> Option<Duration> {
        const UNIT: f64 = 1e6;
        // In whole millionths, because 0.9999 * 20_000 in floating point is above 19_998 and would take the next rank.
        let millionths = (percent.clamp(0.0, 100.0) * UNIT).round() as u128;
        let rank = (u128::from(self.count) * millionths).div_ceil(100 * UNIT as u128).max(1);
        let mut seen = 0;
        for (i, n) in &self.counts {
            seen += u128::from(*n);
            if seen >= rank {
                return Some(Duration::from_nanos(self.top_of(*i)));
            }
        }
        None
    }

    /// What was counted here and not yet in `earlier`, which must be an earlier reading of the same operation.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut old = earlier.counts.iter().copied().peekable();
        let mut counts = Vec::with_capacity(self.counts.len());
        for (i, n) in &self.counts {
            while old.next_if(|(j, _)| j < i).is_some() {}
            let before = old.next_if(|(j, _)| j == i).map_or(0, |(_, n)| n);
            if *n > before {
                counts.push((*i, n - before));
            }
        }
        let count = counts.iter().map(|(_, n)| n).sum();
        Self { counts, count, sum: self.sum.saturating_sub(earlier.sum), min: self.min, max: self.max }
    }

    /// The highest value that bucket `index` can hold. The last bucket also holds everything longer.
    fn top_of(&self, index: usize) -> u64 {
        if index + 1 == buckets::LEN { self.max } else { buckets::highest(index).min(self.max) }
    }
}
