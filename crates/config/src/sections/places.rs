//! Where things are kept.

use std::{fmt, num::NonZeroU32, time::Duration};

use serde::{Deserialize, Serialize};

use crate::fields::duration;

/// A kind of store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Backend {
    /// In the process; gone when it ends.
    Memory,
    /// One file, shared by the processes of one host.
    Sqlite,
    /// A Redis server.
    Redis,
    /// A PostgreSQL server.
    Postgres,
}

impl Backend {
    /// The name that every crate of the house uses for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Sqlite => "sqlite",
            Self::Redis => "redis",
            Self::Postgres => "postgres",
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// General state: caches, rate limits, whatever a strategy keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StateSection {
    /// Where it is kept.
    pub backend: Backend,
    /// The one deadline of each operation.
    #[serde(with = "duration")]
    pub operation_timeout: Duration,
    /// How many cache entries the memory backend keeps before it evicts.
    pub cache_entries_max: NonZeroU32,
}

/// The event bus.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct EventsSection {
    /// Signals, orders, fills, risk events: at-least-once.
    pub backend: Backend,
    /// Market data: at-most-once.
    pub market_data_backend: Backend,
    /// How many events wait for one subscription.
    pub queue_entries_max: NonZeroU32,
    /// Deliveries of one event before it goes to the dead letters.
    pub delivery_attempts_max: NonZeroU32,
}

/// What money depends on: halt state, limits, reservations, outbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LedgerSection {
    /// Where it is kept.
    pub backend: Backend,
    /// The one deadline of each operation.
    #[serde(with = "duration")]
    pub operation_timeout: Duration,
}

/// The audit trail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AuditSection {
    /// Where it is kept.
    pub backend: Backend,
    /// Days that an entry is kept; 2555 (seven years) at least.
    pub retention_days: u32,
    /// How many entries the memory backend keeps.
    pub memory_entries_max: NonZeroU32,
}
