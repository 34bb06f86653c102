//! What can be wrong with a request.

use std::time::Duration;

use infra_types::ErrorKind;

use crate::order_trace::Stage;

/// What can be wrong with a request. Recording itself never fails.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LatencyError {
    /// The configuration cannot work.
    #[error("configure the latency monitor; fix: {}", problems.join("; "))]
    InvalidConfig {
        /// One instruction for each mistake.
        problems: Vec<String>,
    },
    /// An order's stages only go forward, each at most once.
    #[error("mark stage {stage}: the trace is at {last} already; mark each stage once, in order")]
    StageOutOfOrder {
        /// The stage that was refused.
        stage: Stage,
        /// The stage that the trace is at.
        last: Stage,
    },
    /// The given reading is before the previous stage's: the two come from different clocks. Nothing was recorded.
    #[error("mark stage {stage}: the reading is {by:?} before the previous stage; take both from one monotonic clock")]
    ClockWentBack {
        /// The stage that was refused.
        stage: Stage,
        /// By how much.
        by: Duration,
    },
}

impl LatencyError {
    /// What to do about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::InvalidConfig { .. } | Self::StageOutOfOrder { .. } | Self::ClockWentBack { .. } => {
                ErrorKind::Invalid
            }
        }
    }
}
