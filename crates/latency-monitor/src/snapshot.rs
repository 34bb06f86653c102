//! Readings, and the differences between them.

use std::time::Duration;

use infra_types::{Monotonic, Timestamp};

use crate::{distribution::Distribution, monitor::MonitorStats, operation::OperationKey};

/// One operation's counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperationSnapshot {
    /// Which operation.
    pub key: OperationKey,
    /// All its durations, failed ones included.
    pub latency: Distribution,
    /// How many failed.
    pub failed: u64,
    /// How many were over their threshold.
    pub slow: u64,
    /// How many pairs of stamps were not a latency ([`crate::Recorder::record_between`]).
    pub skipped: u64,
}

impl OperationSnapshot {
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        Self {
            key: self.key.clone(),
            latency: self.latency.since(&earlier.latency),
            failed: self.failed.saturating_sub(earlier.failed),
            slow: self.slow.saturating_sub(earlier.slow),
            skipped: self.skipped.saturating_sub(earlier.skipped),
        }
    }

    /// The usual figures.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let l = &self.latency;
        let figures = || {
            Some(Figures {
                min: l.min()?,
                max: l.max()?,
                mean: l.mean()?,
                p50: l.percentile(50.0)?,
                p95: l.percentile(95.0)?,
                p99: l.percentile(99.0)?,
            })
        };
        Summary {
            key: self.key.clone(),
            count: l.count(),
            failed: self.failed,
            slow: self.slow,
            skipped: self.skipped,
            figures: figures(),
        }
    }
}

/// The usual figures of one operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Which operation.
    pub key: OperationKey,
    /// How many durations, failed and corrected ones included.
    pub count: u64,
    /// How many failed.
    pub failed: u64,
    /// How many were over their threshold.
    pub slow: u64,
    /// How many pairs of stamps were not a latency.
    pub skipped: u64,
    /// `None` without a sample: no latency is not a latency of zero.
    pub figures: Option<Figures>,
}

/// Durations of at least one sample. Percentiles are nearest rank, at most 0.79 % above the true value; the mean is exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figures {
    /// The shortest.
    pub min: Duration,
    /// The longest.
    pub max: Duration,
    /// The arithmetic mean.
    pub mean: Duration,
    /// Half took no longer.
    pub p50: Duration,
    /// 95 % took no longer.
    pub p95: Duration,
    /// 99 % took no longer.
    pub p99: Duration,
}

/// Everything a monitor had counted when it was asked. Taking one resets nothing, so any number of readers can each take
/// differences of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// When, on the monitor's monotonic clock.
    pub at: Monotonic,
    /// When, for a person.
    pub wall: Timestamp,
    /// How often the monitor had been cleared.
    pub clears: u64,
    /// Every registered operation, ordered by service and name.
    pub operations: Vec<OperationSnapshot>,
    /// The monitor's own counters.
    pub stats: MonitorStats,
}

impl Snapshot {
    /// What happened between `earlier` and this reading of the same monitor, and how long that was. If the monitor was
    /// cleared in between: what happened since it was cleared.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> (Vec<OperationSnapshot>, Duration) {
        let elapsed = self.at.since(earlier.at);
        if self.clears != earlier.clears {
            return (self.operations.clone(), elapsed);
        }
        let mut old = earlier.operations.iter().peekable();
        let changed = self.operations.iter().map(|now| {
            while old.next_if(|o| o.key < now.key).is_some() {}
            old.next_if(|o| o.key == now.key).map_or_else(|| now.clone(), |before| now.since(before))
        });
        (changed.collect(), elapsed)
    }

    /// The operation's counts, if it is registered.
    #[must_use]
    pub fn get(&self, service: &str, operation: &str) -> Option<&OperationSnapshot> {
        self.operations.iter().find(|o| &*o.key.service == service && &*o.key.operation == operation)
    }

    /// The operations whose `percent` percentile is above `limit`, worst first.
    #[must_use]
    pub fn slower_than(&self, percent: f64, limit: Duration) -> Vec<(&OperationKey, Duration)> {
        let figure = |o: &OperationSnapshot| o.latency.percentile(percent);
        let mut found: Vec<_> =
            self.operations.iter().filter_map(|o| figure(o).filter(|p| *p > limit).map(|p| (&o.key, p))).collect();
        found.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(b.0)));
        found
    }
}
