//! Why the engine refused, by what the caller should do.

use infra_state_store::StoreError;
use infra_types::{AccountId, Currency, ErrorKind, InvalidValue};

use crate::decision::Decision;

/// A refusal. Unless its kind is `Ambiguous` or `Corrupt`, nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RiskError {
    /// The order does not pass; the decision holds every check.
    #[error("the order is refused: {}", .0.reason())]
    Refused(Box<Decision>),
    /// Others kept changing the same account: try again.
    #[error("account or position kept changing, {tries} attempts: try again")]
    Contended {
        /// How many attempts were made.
        tries: u32,
    },
    /// One of the caller's own operations refused the batch.
    #[error("the caller's operation {index} refused: {source}")]
    Caller {
        /// Its place among the caller's operations.
        index: usize,
        /// What the store said, its index counted over the whole batch.
        source: StoreError,
    },
    /// The store refused or failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The limits make no sense.
    #[error("invalid limits: {}", .0.join("; "))]
    InvalidLimits(Vec<String>),
    /// An argument makes no sense.
    #[error(transparent)]
    Invalid(#[from] InvalidValue),
    /// The account was never opened.
    #[error("account {0} is unknown: open it first")]
    UnknownAccount(AccountId),
    /// There is no rate between two currencies.
    #[error("no rate from {from} to {to}: set the conversion, then settle again")]
    MissingConversion {
        /// From which currency.
        from: Currency,
        /// To which.
        to: Currency,
    },
    /// An amount is beyond what can be kept exactly.
    #[error("{0} is beyond what can be kept exactly")]
    Overflow(&'static str),
    /// A stored record is not what this crate writes.
    #[error("record {key} is damaged: {reason}: stop and restore")]
    Corrupt {
        /// Its key.
        key: String,
        /// What was seen.
        reason: String,
    },
}

impl RiskError {
    /// What the caller should do.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Refused(_) | Self::Overflow(_) => ErrorKind::LimitExceeded,
            Self::Contended { .. } => ErrorKind::Transient,
            Self::Caller { source, .. } => source.kind(),
            Self::Store(source) => source.kind(),
            Self::InvalidLimits(_) | Self::Invalid(_) | Self::UnknownAccount(_) => ErrorKind::Invalid,
            Self::MissingConversion { .. } => ErrorKind::Unavailable,
            Self::Corrupt { .. } => ErrorKind::Corrupt,
        }
    }

    /// The decision, if this is a refused order.
    #[must_use]
    pub fn decision(&self) -> Option<&Decision> {
        match self {
            Self::Refused(decision) => Some(decision),
            _ => None,
        }
    }
}
