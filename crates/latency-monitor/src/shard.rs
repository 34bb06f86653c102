//! Counts that one thread writes and everybody may read. They only grow: readers take differences and never wait.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::buckets;

/// One thread's counts of one operation. Aligned so that two threads' shards never share a cache line.
#[repr(align(128))]
pub(crate) struct Shard {
    buckets: Box<[AtomicU64]>,
    sum: AtomicU64,
    min: AtomicU64,
    max: AtomicU64,
    failed: AtomicU64,
    slow: AtomicU64,
    skipped: AtomicU64,
}

/// Where counts of several shards are added up.
pub(crate) struct Totals {
    pub(crate) buckets: Vec<u64>,
    pub(crate) sum: u128,
    pub(crate) min: u64,
    pub(crate) max: u64,
    pub(crate) failed: u64,
    pub(crate) slow: u64,
    pub(crate) skipped: u64,
}

impl Default for Totals {
    fn default() -> Self {
        Self { buckets: vec![0; buckets::LEN], sum: 0, min: u64::MAX, max: 0, failed: 0, slow: 0, skipped: 0 }
    }
}

/// Adds to a cell. With `OWN` the caller is the cell's only writer, so a plain load and store do: about four times
/// cheaper than a locked add. `Release` makes what was stored before visible to whoever sees this count.
#[inline]
fn bump<const OWN: bool>(cell: &AtomicU64, by: u64) {
    if OWN {
        cell.store(cell.load(Ordering::Relaxed).wrapping_add(by), Ordering::Release);
    } else {
        cell.fetch_add(by, Ordering::AcqRel);
    }
}

/// Keeps the smaller value. A load alone where nothing changes, which is nearly always.
#[inline]
fn lower<const OWN: bool>(cell: &AtomicU64, to: u64) {
    if to < cell.load(Ordering::Relaxed) {
        if OWN {
            cell.store(to, Ordering::Relaxed);
        } else {
            cell.fetch_min(to, Ordering::AcqRel);
        }
    }
}

/// Keeps the larger value.
#[inline]
fn raise<const OWN: bool>(cell: &AtomicU64, to: u64) {
    if to > cell.load(Ordering::Relaxed) {
        if OWN {
            cell.store(to, Ordering::Relaxed);
        } else {
            cell.fetch_max(to, Ordering::AcqRel);
        }
    }
}

impl Shard {
    pub(crate) fn new() -> Self {
        Self {
            buckets: (0..buckets::LEN).map(|_| AtomicU64::new(0)).collect(),
            sum: AtomicU64::new(0),
            min: AtomicU64::new(u64::MAX),
            max: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            slow: AtomicU64::new(0),
            skipped: AtomicU64::new(0),
        }
    }

    /// Adds one sample of `nanos`.
    #[inline]
    pub(crate) fn record<const OWN: bool>(&self, nanos: u64) {
        lower::<OWN>(&self.min, nanos);
        raise::<OWN>(&self.max, nanos);
        bump::<OWN>(&self.sum, nanos);
        // Last, so that whoever counts this sample also sees its share of sum, min and max.
        bump::<OWN>(&self.buckets[buckets::index_of(nanos)], 1);
    }

    /// Adds the samples that a stall of `nanos` kept from being taken: `nanos - interval`, `nanos - 2 * interval`, …
    /// down to `interval`. Works bucket by bucket, so its cost is bounded however small the interval is.
    pub(crate) fn record_missed<const OWN: bool>(&self, nanos: u64, interval: u64) {
        let mut next = nanos.saturating_sub(interval);
        while interval > 0 && next >= interval {
            let index = buckets::index_of(next);
            let floor = buckets::lowest(index).max(interval);
            let n = (next - floor) / interval + 1;
            let last = next - (n - 1) * interval;
            let sum = u128::from(next) * u128::from(n) - u128::from(interval) * u128::from(n) * u128::from(n - 1) / 2;
            lower::<OWN>(&self.min, last);
            bump::<OWN>(&self.sum, u64::try_from(sum).unwrap_or(u64::MAX));
            bump::<OWN>(&self.buckets[index], n);
            if last < interval * 2 {
                return;
            }
            next = last - interval;
        }
    }

    pub(crate) fn count_failed<const OWN: bool>(&self) {
        bump::<OWN>(&self.failed, 1);
    }

    pub(crate) fn count_slow<const OWN: bool>(&self) {
        bump::<OWN>(&self.slow, 1);
    }

    pub(crate) fn count_skipped<const OWN: bool>(&self) {
        bump::<OWN>(&self.skipped, 1);
    }

    /// Adds what this shard holds to `into`.
    pub(crate) fn add_to(&self, into: &mut Totals) {
        // Buckets first: every sample counted here has its sum, min and max stored already.
        for (total, cell) in into.buckets.iter_mut().zip(&self.buckets) {
            *total += cell.load(Ordering::Acquire);
        }
        into.sum += u128::from(self.sum.load(Ordering::Relaxed));
        into.min = into.min.min(self.min.load(Ordering::Relaxed));
        into.max = into.max.max(self.max.load(Ordering::Relaxed));
        into.failed += self.failed.load(Ordering::Relaxed);
        into.slow += self.slow.load(Ordering::Relaxed);
        into.skipped += self.skipped.load(Ordering::Relaxed);
    }
}
