//! What a bus counts.

mod times;

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

pub use self::times::HandlingTimes;
use self::times::Times;

/// Counts since the bus (or the subscription) began, in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
#[non_exhaustive]
pub struct Metrics {
    /// Events accepted from publishers; a subscription counts those that reached it.
    pub published: u64,
    /// Publishes of an id that was already there.
    pub duplicates: u64,
    /// Handlings that succeeded.
    pub processed: u64,
    /// Handlings that failed, panicked or ran out of time.
    pub failed: u64,
    /// Deliveries with an attempt above 1.
    pub redelivered: u64,
    /// Events that a full queue or a stopped live subscription dropped.
    pub dropped: u64,
    /// Events that a newer one of their key replaced before their turn came.
    pub conflated: u64,
    /// Events that were older than the subscription's `max_age` when their turn came.
    pub expired: u64,
    /// Times that live events of other processes were lost on the way.
    pub gaps: u64,
    /// Live events that could not be sent to other processes.
    pub unsent: u64,
    /// Events that were handled in a replay.
    pub replayed: u64,
    /// Events that became dead letters.
    pub dead_lettered: u64,
    /// Stored events given up unseen: no group wanted them and the retention was full, or dead letters beyond their limit.
    pub evicted: u64,
    /// Times that the claims of running handlers were prolonged.
    pub leases_extended: u64,
    /// Acknowledgements that came too late: another consumer had taken the event over.
    pub leases_lost: u64,
    /// Subscriptions that ended because another process runs a consumer of their name.
    pub displaced: u64,
    /// Calls to the store that failed in the background and are tried again.
    pub store_errors: u64,
    /// How long handlings took, all together.
    pub handling_time: Duration,
    /// How long they took each.
    pub handling: HandlingTimes,
}

impl Metrics {
    /// How long one handling took on average; none before the first.
    #[must_use]
    pub fn mean_handling_time(&self) -> Option<Duration> {
        let handled = self.processed + self.failed;
        let mean = self.handling_time.as_nanos().checked_div(u128::from(handled))?;
        Some(Duration::from_nanos(u64::try_from(mean).unwrap_or(u64::MAX)))
    }
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) published: AtomicU64,
    pub(crate) duplicates: AtomicU64,
    pub(crate) processed: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) redelivered: AtomicU64,
    pub(crate) dropped: AtomicU64,
    pub(crate) conflated: AtomicU64,
    pub(crate) expired: AtomicU64,
    pub(crate) gaps: AtomicU64,
    pub(crate) unsent: AtomicU64,
    pub(crate) replayed: AtomicU64,
    pub(crate) dead_lettered: AtomicU64,
    pub(crate) evicted: AtomicU64,
    pub(crate) leases_extended: AtomicU64,
    pub(crate) leases_lost: AtomicU64,
    pub(crate) displaced: AtomicU64,
    pub(crate) store_errors: AtomicU64,
    pub(crate) handling_nanos: AtomicU64,
    times: Times,
}

impl Counters {
    pub(crate) fn read(&self) -> Metrics {
        Metrics {
            published: self.published.load(Relaxed),
            duplicates: self.duplicates.load(Relaxed),
            processed: self.processed.load(Relaxed),
            failed: self.failed.load(Relaxed),
            redelivered: self.redelivered.load(Relaxed),
            dropped: self.dropped.load(Relaxed),
            conflated: self.conflated.load(Relaxed),
            expired: self.expired.load(Relaxed),
            gaps: self.gaps.load(Relaxed),
            unsent: self.unsent.load(Relaxed),
            replayed: self.replayed.load(Relaxed),
            dead_lettered: self.dead_lettered.load(Relaxed),
            evicted: self.evicted.load(Relaxed),
            leases_extended: self.leases_extended.load(Relaxed),
            leases_lost: self.leases_lost.load(Relaxed),
            displaced: self.displaced.load(Relaxed),
            store_errors: self.store_errors.load(Relaxed),
            handling_time: Duration::from_nanos(self.handling_nanos.load(Relaxed)),
            handling: self.times.read(),
        }
    }
}

/// Adds to one counter of the subscription and to the same one of its bus.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tally<'a>(pub(crate) &'a Counters, pub(crate) &'a Counters);

impl Tally<'_> {
    pub(crate) fn add(self, which: impl Fn(&Counters) -> &AtomicU64, n: u64) {
        if n > 0 {
            which(self.0).fetch_add(n, Relaxed);
            which(self.1).fetch_add(n, Relaxed);
        }
    }

    pub(crate) fn took(self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.add(|c| &c.handling_nanos, nanos);
        self.0.times.record(nanos);
        self.1.times.record(nanos);
    }
}
