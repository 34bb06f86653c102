//! The contract.

use std::{fmt, time::Duration};

use crate::{
    recent::Sample,
    recorder::Recorder,
    snapshot::{Snapshot, Summary},
};

/// The service and operation that stand for all that came after the cap.
pub const OTHER: &str = "__other__";

/// A monitor's own counters; they only grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MonitorStats {
    /// Registrations that were answered with [`OTHER`], because of the cap or because the name was empty or longer than
    /// 128 bytes.
    pub registrations_over_cap: u64,
    /// Recent samples that made room for newer ones.
    pub samples_evicted: u64,
}

/// Where parts register what they do, and readers find how long it took.
///
/// Watching never stops trading: nothing here fails or waits for a recorder, and what does not fit is counted.
pub trait LatencyMonitor: Send + Sync + fmt::Debug {
    /// The handle that records `operation` of `service`. Asking again gives a handle on the same figures.
    ///
    /// Takes a lock and may allocate: call it when a part is built, not for each operation. Names are kinds of work;
    /// an order id or a user in one would reach the cap, after which all new names share [`OTHER`].
    fn register(&self, service: &str, operation: &str) -> Recorder;

    /// Says from which duration on an operation is slow, `None` for never. Registers it if it is new.
    fn set_slow_over(&self, service: &str, operation: &str, threshold: Option<Duration>);

    /// All counts since the start or the last [`clear`](Self::clear), without resetting any. An operation that is
    /// recorded meanwhile may be counted with or without its duration in the mean.
    fn snapshot(&self) -> Snapshot;

    /// One operation's figures; `None` if it is not registered.
    fn summary(&self, service: &str, operation: &str) -> Option<Summary>;

    /// The newest `limit` samples that were kept, newest first.
    fn recent(&self, limit: usize) -> Vec<Sample>;

    /// Starts all figures again from zero and forgets recent samples. Recorders, thresholds and [`MonitorStats`] stay.
    /// After it, `min` and `max` are exact to the bucket only.
    fn clear(&self);
}
