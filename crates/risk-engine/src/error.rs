//! Why the engine refused, by what the caller should do.

use infra_state_store::StoreError;
use infra_types::{AccountId, BotId, Currency, ErrorKind, InvalidValue, OrderId};

use crate::{decision::Decision, market::QuoteError, reservation::Reservation};

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
    /// The engine's name was taken, retired or never taken: orders that it held are orphaned or will be.
    #[error(
        "{holder} is not this engine's name any more (its fence was {fence}): join again, and reconcile what it held"
    )]
    HolderLost {
        /// The name.
        holder: BotId,
        /// The fence that the engine had; 0 if it never joined.
        fence: u64,
    },
    /// An order of this id is approved and not over.
    #[error("order {0} is held already: ids are for ever")]
    AlreadyHeld(OrderId),
    /// The order is not held: it is over, or was never approved by an engine with a holder.
    #[error("order {0} is not held")]
    NotHeld(OrderId),
    /// Somebody looks after the order.
    #[error("order {order} is held by {holder}, who lives: leave it alone")]
    NotOrphaned {
        /// The order.
        order: OrderId,
        /// Who holds it.
        holder: BotId,
    },
    /// Somebody settled the same order in between: the given reservation is old, and nothing was settled.
    #[error("the reservation of order {order} is old: read the held order and settle what is missing")]
    ReservationMoved {
        /// The order.
        order: OrderId,
        /// What it holds now; none if it is over.
        now: Option<Box<Reservation>>,
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
    /// Somebody stored other limits in the meantime: read them and decide anew.
    #[error("version {stored} of the limits is stored, not {base}: read it and decide anew")]
    LimitsChanged {
        /// The version that the change was thought out on.
        base: u64,
        /// The stored one; 0 if none is.
        stored: u64,
    },
    /// A quote makes no sense and was not taken.
    #[error("quote of {0}")]
    Quote(#[from] QuoteError),
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
            Self::LimitsChanged { .. } => ErrorKind::Conflict,
            Self::InvalidLimits(_) | Self::Quote(_) | Self::Invalid(_) | Self::UnknownAccount(_) => ErrorKind::Invalid,
            Self::MissingConversion { .. } => ErrorKind::Unavailable,
            Self::HolderLost { .. } => ErrorKind::Fenced,
            Self::AlreadyHeld(_) | Self::NotOrphaned { .. } | Self::ReservationMoved { .. } => ErrorKind::Conflict,
            Self::NotHeld(_) => ErrorKind::Invalid,
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
