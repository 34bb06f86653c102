//! How a part feels.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Whether a part can do its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HealthStatus {
    /// It does all it promises.
    Up,
    /// It works with less than it promises; `detail` says what is missing.
    Degraded,
    /// It was never asked to connect, so it does not know.
    NeverConnected,
    /// It cannot work.
    Down,
}

/// One part's answer to "how are you", measured when it was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// The verdict.
    pub status: HealthStatus,
    /// One line for a person; never holds a secret.
    pub detail: String,
    /// How long the probe took, if there was one.
    pub probe: Option<Duration>,
}

impl Health {
    /// All is well.
    #[must_use]
    pub fn up(detail: impl Into<String>) -> Self {
        Self { status: HealthStatus::Up, detail: detail.into(), probe: None }
    }

    /// Works, with less than promised.
    #[must_use]
    pub fn degraded(detail: impl Into<String>) -> Self {
        Self { status: HealthStatus::Degraded, detail: detail.into(), probe: None }
    }

    /// Does not work.
    #[must_use]
    pub fn down(detail: impl Into<String>) -> Self {
        Self { status: HealthStatus::Down, detail: detail.into(), probe: None }
    }

    /// Adds how long the probe took.
    #[must_use]
    pub fn with_probe(mut self, took: Duration) -> Self {
        self.probe = Some(took);
        self
    }
}
