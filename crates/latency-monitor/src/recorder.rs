//! The handle that a hot path holds.

use std::{future::Future, sync::Arc, time::Duration};

use infra_types::{CorrelationId, Monotonic, Timestamp};

use crate::{
    operation::{Operation, OperationKey, nanos},
    timer::Timer,
};

/// How an operation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// As it should.
    Ok,
    /// With an error, or not at all.
    Failed,
}

/// Records durations of one operation. Cheap to clone; register once, keep the handle.
///
/// Recording never blocks, never fails, and allocates only the first time a thread records an operation
/// ([`Recorder::warm_up`]). Slow and failed samples also go to the buffer of recent samples, under a short lock.
#[derive(Debug, Clone)]
pub struct Recorder {
    operation: Arc<Operation>,
}

impl Recorder {
    pub(crate) fn new(operation: Arc<Operation>) -> Self {
        Self { operation }
    }

    /// What this handle records.
    #[must_use]
    pub fn key(&self) -> &OperationKey {
        &self.operation.key
    }

    /// Takes the calling thread's memory now (34 KiB), so that its first recording does not.
    pub fn warm_up(&self) {
        self.operation.warm_up();
    }

    /// Adds one operation that went well.
    #[inline]
    pub fn record(&self, took: Duration) {
        self.operation.record(nanos(took), false, None);
    }

    /// Adds one operation that failed. Its duration counts like any other.
    pub fn record_failed(&self, took: Duration) {
        self.operation.record(nanos(took), true, None);
    }

    /// Adds one operation of a given story, so that a slow sample leads to its log lines.
    pub fn record_for(&self, correlation: CorrelationId, took: Duration, outcome: Outcome) {
        self.operation.record(nanos(took), outcome == Outcome::Failed, Some(correlation));
    }

    /// Adds one operation of a loop that should have run every `expected`, and the operations that it held up.
    ///
    /// A loop that waits for each answer takes no samples while it is stalled ("coordinated omission"). This adds them
    /// as HdrHistogram does: `took - expected`, `took - 2 * expected`, … down to `expected`. They count in percentiles
    /// and mean, not in `failed`, `slow` or the recent samples. `expected` of zero adds none.
    pub fn record_with_expected_interval(&self, took: Duration, expected: Duration) {
        self.record(took);
        self.operation.record_missed(nanos(took), nanos(expected));
    }

    /// Adds the time between two wall-clock stamps, such as a venue's and ours; says whether it was one.
    ///
    /// Stamps that run backwards, or that are equal because one was copied from the other, are not a latency: they are
    /// counted as skipped.
    pub fn record_between(&self, from: Timestamp, to: Timestamp) -> bool {
        let took = to.since(from);
        if took.is_zero() {
            self.operation.count_skipped();
            return false;
        }
        self.record(took);
        true
    }

    /// Starts measuring on the monitor's clock.
    pub fn start(&self) -> Timer<'_> {
        Timer::new(self, self.now())
    }

    /// Runs `work` and records how long it took; `Err` counts as failed.
    ///
    /// # Errors
    /// Those of `work`.
    ///
    /// # Cancel safety
    /// As that of `work`; a dropped future is recorded as failed.
    pub async fn time<T, E>(&self, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let timer = self.start();
        let result = work.await;
        timer.stop(if result.is_ok() { Outcome::Ok } else { Outcome::Failed });
        result
    }

    pub(crate) fn now(&self) -> Monotonic {
        self.operation.clock.now()
    }
}
