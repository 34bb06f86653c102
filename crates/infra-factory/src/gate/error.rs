//! Why the gate did not let an order through.

use infra_risk_engine::{Decision, RiskError};
use infra_state_store::StoreError;
use infra_types::{ErrorKind, OrderId};

use super::sink::SinkError;

/// A refusal or a failure. Whatever it is, no order left the gate because of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GateError {
    /// A limit, a missing figure or the kill switch says no; every check is in the decision.
    #[error("order refused: {}", .0.reason())]
    Refused(Box<Decision>),
    /// The kill switch forbids it.
    #[error("order {order} refused: trading is {state}")]
    Halted {
        /// Which order.
        order: OrderId,
        /// What the kill switch says.
        state: String,
    },
    /// An order of this id was approved before: client order ids are unique for ever.
    #[error("order id {order} was used before: choose a new one")]
    DuplicateOrderId {
        /// Which id.
        order: OrderId,
    },
    /// The token's time ran out before it was placed; its reservation was given back.
    #[error("the approval of order {order} expired before it was placed: ask again")]
    ApprovalExpired {
        /// Which order.
        order: OrderId,
    },
    /// A report names an order that this ledger never approved.
    #[error("a report on order {order}, which was never approved here: compare with the venue")]
    UnknownOrder {
        /// Which order.
        order: OrderId,
    },
    /// A report that cannot be counted.
    #[error("the reports on order {order} make no sense any more: compare with the venue")]
    ReportRefused {
        /// Which order.
        order: OrderId,
    },
    /// The caller's own operations refused the batch; nothing happened.
    #[error("the caller's operation {index} refused: {source}")]
    Caller {
        /// Which of the caller's operations.
        index: usize,
        /// Why.
        source: StoreError,
    },
    /// Other processes kept changing the same records.
    #[error("too many processes changed the same records at once: try again")]
    Contended,
    /// The venue did not answer.
    #[error(transparent)]
    Venue(#[from] SinkError),
    /// The ledger failed.
    #[error("the ledger failed: {0}")]
    Store(#[from] StoreError),
    /// The risk engine failed.
    #[error(transparent)]
    Risk(RiskError),
    /// A stored record cannot be read.
    #[error("the record of an order is damaged ({reason}): stop and restore")]
    Corrupt {
        /// What was seen.
        reason: String,
    },
}

impl GateError {
    /// What the caller should do.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Refused(_) | Self::Halted { .. } => ErrorKind::LimitExceeded,
            Self::DuplicateOrderId { .. } | Self::Contended => ErrorKind::Conflict,
            Self::ApprovalExpired { .. } => ErrorKind::Transient,
            Self::UnknownOrder { .. } | Self::ReportRefused { .. } => ErrorKind::Invalid,
            Self::Caller { source, .. } => source.kind(),
            Self::Venue(_) => ErrorKind::Unavailable,
            Self::Store(e) => e.kind(),
            Self::Risk(e) => e.kind(),
            Self::Corrupt { .. } => ErrorKind::Corrupt,
        }
    }

    /// The stable code of the first reason, for statistics.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Refused(decision) => decision.first_code().unwrap_or("refused"),
            Self::Halted { .. } => "halted",
            Self::DuplicateOrderId { .. } => "duplicate_order_id",
            Self::ApprovalExpired { .. } => "approval_expired",
            Self::UnknownOrder { .. } => "unknown_order",
            Self::ReportRefused { .. } => "report_refused",
            Self::Caller { .. } => "caller_refused",
            Self::Contended => "contended",
            Self::Venue(_) => "venue_silent",
            Self::Store(_) => "ledger_failed",
            Self::Risk(_) => "risk_failed",
            Self::Corrupt { .. } => "ledger_corrupt",
        }
    }
}
