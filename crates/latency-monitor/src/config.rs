//! What a monitor may use.

use std::{num::NonZeroUsize, time::Duration};

use crate::error::LatencyError;

/// Which samples are kept one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RecentPolicy {
    /// Those over the threshold and those that failed: what a person looks for. Costs the others nothing.
    #[default]
    SlowAndFailed,
    /// All. Every recording takes a lock and reads the wall clock.
    All,
}

/// What a monitor may use.
///
/// | field | default |
/// |---|---|
/// | `operations_max` | 256 |
/// | `recent_max` | 10,000 |
/// | `recent` | `SlowAndFailed` |
/// | `slow_over` | none |
///
/// An operation takes 34 KiB for each thread that records it, at most 64 threads and one shared part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LatencyConfig {
    /// How many (service, operation) pairs get figures of their own; the rest share [`crate::OTHER`].
    pub operations_max: NonZeroUsize,
    /// How many single samples are kept; the oldest go first, and are counted.
    pub recent_max: NonZeroUsize,
    /// Which single samples are kept.
    pub recent: RecentPolicy,
    /// Longer than this is slow, for operations that have no threshold of their own.
    pub slow_over: Option<Duration>,
}

impl Default for LatencyConfig {
    fn default() -> Self {
        Self {
            operations_max: NonZeroUsize::new(256).unwrap_or(NonZeroUsize::MIN),
            recent_max: NonZeroUsize::new(10_000).unwrap_or(NonZeroUsize::MIN),
            recent: RecentPolicy::default(),
            slow_over: None,
        }
    }
}

impl LatencyConfig {
    /// Sets the cap on (service, operation) pairs.
    #[must_use]
    pub fn with_operations_max(mut self, max: NonZeroUsize) -> Self {
        self.operations_max = max;
        self
    }

    /// Sets how many single samples are kept, and which.
    #[must_use]
    pub fn with_recent(mut self, policy: RecentPolicy, max: NonZeroUsize) -> Self {
        self.recent = policy;
        self.recent_max = max;
        self
    }

    /// Sets the default threshold of slow operations.
    #[must_use]
    pub fn with_slow_over(mut self, threshold: Duration) -> Self {
        self.slow_over = Some(threshold);
        self
    }

    /// Checks every field.
    ///
    /// # Errors
    /// [`LatencyError::InvalidConfig`] with all mistakes: more than 65,536 operations, more than 10,000,000 samples, a
    /// threshold of zero.
    pub fn validate(&self) -> Result<(), LatencyError> {
        let mut problems = Vec::new();
        if self.operations_max.get() > 65_536 {
            problems
                .push("operations_max: use at most 65536; name operations by kind, not by order or user".to_owned());
        }
        if self.recent_max.get() > 10_000_000 {
            problems.push("recent_max: use at most 10000000".to_owned());
        }
        if self.slow_over == Some(Duration::ZERO) {
            problems.push("slow_over: use a threshold above zero, or none".to_owned());
        }
        if problems.is_empty() { Ok(()) } else { Err(LatencyError::InvalidConfig { problems }) }
    }
}
