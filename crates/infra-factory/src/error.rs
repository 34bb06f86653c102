//! Why an infrastructure could not be built, or not be closed cleanly.

use infra_types::ErrorKind;

/// A failure of composition; each message says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FactoryError {
    /// The configuration is wrong; every mistake is named.
    #[error(transparent)]
    Config(#[from] infra_config::ConfigError),
    /// A part needs a backend that this build or version does not have.
    #[error("{part} is to be on {backend}, which this build does not have: {hint}")]
    BackendMissing {
        /// Which part.
        part: &'static str,
        /// Which backend.
        backend: String,
        /// What to do.
        hint: &'static str,
    },
    /// Nothing that other processes use can be reached with this configuration.
    #[error("nothing to reach: {reason}; name the preset and the data directory or servers that the bots run with")]
    NothingShared {
        /// Why.
        reason: String,
    },
    /// A person wants what only others may do.
    #[error("{user} is not among those who may (emergency.rearm_persons): ask one of them")]
    NotEntitled {
        /// Who asked.
        user: String,
    },
    /// The data directory cannot be used.
    #[error("data directory {path}: {reason}; choose one that this user may write to")]
    DataDir {
        /// Where.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// Another process runs the same bot on the same data.
    #[error("bot {bot} already runs on {path}: stop it first, or choose another bot id")]
    AlreadyRunning {
        /// Which bot.
        bot: String,
        /// Where.
        path: String,
    },
    /// The kill switch's state could not be confirmed in time.
    #[error("the kill switch could not be confirmed: {reason}")]
    Unconfirmed {
        /// What went wrong.
        reason: String,
    },
    /// Rows of an outbox could not be carried on.
    #[error("{queue} could not be carried on: {reason}")]
    Relay {
        /// Which queue.
        queue: String,
        /// What went wrong.
        reason: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] infra_state_store::StoreError),
    /// The bus failed.
    #[error(transparent)]
    Bus(#[from] infra_event_bus::BusError),
    /// The audit log failed.
    #[error(transparent)]
    Audit(#[from] infra_audit_log::AuditError),
    /// The risk engine failed.
    #[error(transparent)]
    Risk(#[from] infra_risk_engine::RiskError),
    /// The kill switch failed.
    #[error(transparent)]
    Emergency(#[from] infra_emergency::EmergencyError),
    /// The policy around a store is wrong.
    #[error(transparent)]
    Resilience(#[from] infra_resilience::InvalidConfig),
    /// The order gate failed.
    #[error(transparent)]
    Gate(#[from] crate::gate::GateError),
    /// An open order is at a venue that nobody can reach.
    #[error("order {order} is open at {venue}, and there is no sink for it: bring one along")]
    NoVenue {
        /// Which venue.
        venue: String,
        /// One of the orders there.
        order: String,
    },
    /// The latency monitor failed.
    #[error(transparent)]
    Latency(#[from] infra_latency_monitor::LatencyError),
}

impl FactoryError {
    /// What the caller should do.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Config(_) | Self::NothingShared { .. } | Self::NoVenue { .. } => ErrorKind::Invalid,
            Self::Gate(e) => e.kind(),
            Self::BackendMissing { .. } => ErrorKind::Unsupported,
            Self::DataDir { .. } | Self::NotEntitled { .. } => ErrorKind::Permanent,
            Self::AlreadyRunning { .. } => ErrorKind::Conflict,
            Self::Unconfirmed { .. } | Self::Relay { .. } => ErrorKind::Unavailable,
            Self::Store(e) => e.kind(),
            Self::Bus(e) => e.kind(),
            Self::Audit(e) => e.kind(),
            Self::Risk(e) => e.kind(),
            Self::Emergency(e) => e.kind(),
            Self::Resilience(_) => ErrorKind::Invalid,
            Self::Latency(e) => e.kind(),
        }
    }
}
