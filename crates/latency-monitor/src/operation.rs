//! The counts of one operation, over all threads.

use std::{
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use infra_types::{Clock, CorrelationId, ExecutionContext};
use parking_lot::Mutex;

use crate::{
    config::RecentPolicy,
    distribution::Distribution,
    recent::{Recent, Sample},
    shard::{Shard, Totals},
    slot,
    snapshot::OperationSnapshot,
};

/// What was done, and by whom. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OperationKey {
    /// The part that did it, e.g. `order_gate`.
    pub service: Arc<str>,
    /// What it did, e.g. `approve`.
    pub operation: Arc<str>,
}

impl fmt::Display for OperationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.service, self.operation)
    }
}

/// No threshold: nothing is longer.
pub(crate) const NEVER_SLOW: u64 = u64::MAX;

pub(crate) struct Operation {
    pub(crate) key: OperationKey,
    pub(crate) clock: Arc<dyn Clock>,
    slow_over: AtomicU64,
    policy: RecentPolicy,
    recent: Arc<Recent>,
    /// One for each thread number, and the last for all threads without a number.
    shards: Box<[OnceLock<Box<Shard>>]>,
    /// What `clear` took as the new zero.
    baseline: Mutex<Option<OperationSnapshot>>,
}

impl fmt::Debug for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Operation").field("key", &self.key).finish_non_exhaustive()
    }
}

pub(crate) fn nanos(duration: Duration) -> u64 {
    duration.as_secs().saturating_mul(1_000_000_000).saturating_add(u64::from(duration.subsec_nanos()))
}

impl Operation {
    pub(crate) fn new(
        key: OperationKey,
        clock: Arc<dyn Clock>,
        slow_over: Option<Duration>,
        policy: RecentPolicy,
        recent: Arc<Recent>,
    ) -> Self {
        Self {
            key,
            clock,
            slow_over: AtomicU64::new(slow_over.map_or(NEVER_SLOW, nanos)),
            policy,
            recent,
            shards: (0..=slot::EXCLUSIVE).map(|_| OnceLock::new()).collect(),
            baseline: Mutex::new(None),
        }
    }

    #[inline]
    fn shard(&self, slot: usize) -> &Shard {
        self.shards[slot].get_or_init(|| Box::new(Shard::new()))
    }

    pub(crate) fn warm_up(&self) {
        self.shard(slot::current());
    }

    #[inline]
    pub(crate) fn record(&self, nanos: u64, failed: bool, correlation: Option<CorrelationId>) {
        let slot = slot::current();
        let shard = self.shard(slot);
        if slot < slot::EXCLUSIVE {
            shard.record::<true>(nanos)
        } else {
            shard.record::<false>(nanos)
        }
        let slow = nanos > self.slow_over.load(Ordering::Relaxed);
        if slow || failed || self.policy == RecentPolicy::All {
            self.note(shard, slot, nanos, failed, slow, correlation);
        }
    }

    #[cold]
    fn note(&self, shard: &Shard, slot: usize, nanos: u64, failed: bool, slow: bool, given: Option<CorrelationId>) {
        let own = slot < slot::EXCLUSIVE;
        if slow {
            if own { shard.count_slow::<true>() } else { shard.count_slow::<false>() }
        }
        if failed {
            if own { shard.count_failed::<true>() } else { shard.count_failed::<false>() }
        }
        // Reading the task's context clones it: worth it for what a person will look at, not for every sample.
        let task = || (slow || failed).then(ExecutionContext::current).flatten().map(|c| c.correlation);
        self.recent.push(Sample {
            key: self.key.clone(),
            took: Duration::from_nanos(nanos),
            failed,
            slow,
            at: self.clock.wall(),
            correlation: given.or_else(task),
        });
    }

    pub(crate) fn record_missed(&self, nanos: u64, interval: u64) {
        let slot = slot::current();
        let shard = self.shard(slot);
        if slot < slot::EXCLUSIVE {
            shard.record_missed::<true>(nanos, interval);
        } else {
            shard.record_missed::<false>(nanos, interval);
        }
    }

    pub(crate) fn count_skipped(&self) {
        let slot = slot::current();
        let shard = self.shard(slot);
        if slot < slot::EXCLUSIVE { shard.count_skipped::<true>() } else { shard.count_skipped::<false>() }
    }

    pub(crate) fn set_slow_over(&self, threshold: Option<Duration>) {
        self.slow_over.store(threshold.map_or(NEVER_SLOW, nanos), Ordering::Relaxed);
    }

    fn since_start(&self) -> OperationSnapshot {
        let mut totals = Totals::default();
        for shard in self.shards.iter().filter_map(OnceLock::get) {
            shard.add_to(&mut totals);
        }
        OperationSnapshot {
            key: self.key.clone(),
            latency: Distribution::from_totals(&totals),
            failed: totals.failed,
            slow: totals.slow,
            skipped: totals.skipped,
        }
    }

    /// The counts since the last `clear`.
    pub(crate) fn snapshot(&self) -> OperationSnapshot {
        // The lock is shared with `clear` only; recorders never take it. Reading after locking keeps reading >= baseline.
        let baseline = self.baseline.lock();
        let now = self.since_start();
        match baseline.as_ref() {
            Some(zero) => now.since(zero),
            None => now,
        }
    }

    pub(crate) fn clear(&self) {
        let mut baseline = self.baseline.lock();
        *baseline = Some(self.since_start());
    }
}
