//! Why a local ledger did not do what was asked.

use infra_types::{AccountId, ErrorKind, InstrumentId, InvalidValue};

use crate::decision::Decision;

/// A refusal. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LocalError {
    /// The order does not pass; the decision holds every check.
    #[error("the order is refused: {}", .0.reason())]
    Refused(Box<Decision>),
    /// As many as the ledger has room for.
    #[error("no room for more {what} than {max}: build the ledger with more")]
    Full {
        /// Of what.
        what: &'static str,
        /// How many there may be.
        max: usize,
    },
    /// The route is for another account, strategy or instrument than the order, or of another ledger.
    #[error("the route is not the order's: ask for the route of its account, strategy and instrument")]
    WrongRoute,
    /// The reservation is over, or of another ledger.
    #[error("the reservation is over or unknown: a trade that came after its end is booked with `book`")]
    UnknownTicket,
    /// A limit that is kept by the shared engine only.
    #[error("rule {rule} cannot be kept locally: {why}")]
    UnsupportedRule {
        /// The rule's name.
        rule: String,
        /// What is missing.
        why: &'static str,
    },
    /// The limits make no sense.
    #[error("invalid limits: {}", .0.join("; "))]
    InvalidLimits(Vec<String>),
    /// An argument makes no sense.
    #[error(transparent)]
    Invalid(#[from] InvalidValue),
    /// The account was never opened here.
    #[error("account {0} is unknown: open it first")]
    UnknownAccount(AccountId),
    /// The instrument was never registered here.
    #[error("instrument {0} is unknown: register it first")]
    UnknownInstrument(InstrumentId),
    /// There is no rate to the account's currency.
    #[error("no rate for {0}: set the conversion, then settle again")]
    MissingConversion(InstrumentId),
    /// An amount is beyond what can be kept exactly.
    #[error("{0} is beyond what can be kept exactly")]
    Overflow(&'static str),
}

impl LocalError {
    /// What the caller should do.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Refused(_) | Self::Overflow(_) | Self::Full { .. } => ErrorKind::LimitExceeded,
            Self::UnsupportedRule { .. } => ErrorKind::Unsupported,
            Self::MissingConversion(_) => ErrorKind::Unavailable,
            _ => ErrorKind::Invalid,
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
