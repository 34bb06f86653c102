//! Plain numbers about a handle.

use std::sync::atomic::{AtomicU64, Ordering};

/// What a handle has done since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RedisStatistics {
    /// Connections open now.
    pub connections: u64,
    /// Connections made and checked.
    pub connects: u64,
    /// Attempts to connect that failed.
    pub connect_failures: u64,
    /// Connections made to replace one that had died.
    pub reconnects: u64,
    /// Times that another server, or the same after a restart, stood behind a new connection; with a cluster, primaries
    /// that lost all their slots.
    pub failovers: u64,
    /// Operations that got no answer in time.
    pub timeouts: u64,
    /// Operations asked for; a pipeline counts once.
    pub commands: u64,
    /// Operations that another node of a cluster had to answer.
    pub redirects: u64,
    /// Scripts that had to be sent in full.
    pub script_loads: u64,
    /// Subscriptions that were interrupted, each of which was told.
    pub gaps: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) open: AtomicU64,
    pub(super) connects: AtomicU64,
    pub(super) connect_failures: AtomicU64,
    pub(super) reconnects: AtomicU64,
    pub(super) failovers: AtomicU64,
    pub(super) timeouts: AtomicU64,
    pub(super) commands: AtomicU64,
    pub(super) redirects: AtomicU64,
    pub(super) script_loads: AtomicU64,
    pub(super) gaps: AtomicU64,
}

impl Counters {
    pub(super) fn read(&self) -> RedisStatistics {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        RedisStatistics {
            connections: get(&self.open),
            connects: get(&self.connects),
            connect_failures: get(&self.connect_failures),
            reconnects: get(&self.reconnects),
            failovers: get(&self.failovers),
            timeouts: get(&self.timeouts),
            commands: get(&self.commands),
            redirects: get(&self.redirects),
            script_loads: get(&self.script_loads),
            gaps: get(&self.gaps),
        }
    }
}
