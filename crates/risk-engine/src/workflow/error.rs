//! Why a step was refused.

use infra_state_store::StoreError;
use infra_types::{ErrorKind, EventId, InvalidValue, Timestamp, UserId};

use super::RequestState;
use crate::error::RiskError;

/// A refusal. Unless its kind is `Ambiguous` or `Corrupt`, nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkflowError {
    /// An argument makes no sense.
    #[error(transparent)]
    Invalid(#[from] InvalidValue),
    /// There is no open request of this id: it is over, or was never made.
    #[error("request {0} is not open")]
    NotOpen(EventId),
    /// The id stands for another ask.
    #[error("request {0} asks for something else: ids are for ever")]
    AlreadyAsked(EventId),
    /// The step does not lead on from where the request stands.
    #[error("request {id} is {state:?}")]
    WrongState {
        /// Which.
        id: EventId,
        /// Where it stands.
        state: RequestState,
    },
    /// Nobody decides about their own request.
    #[error("{0} asked for it: somebody else must decide")]
    SamePerson(UserId),
    /// Only its author takes a request back, and only approvers decide.
    #[error("{0} may not do that")]
    NotEntitled(UserId),
    /// Its time ran out.
    #[error("request {id} ran out at {at}")]
    Expired {
        /// Which.
        id: EventId,
        /// When.
        at: Timestamp,
    },
    /// The order is not what was approved.
    #[error("the order may not use request {id}: {reason}")]
    DoesNotFit {
        /// Which.
        id: EventId,
        /// Why not.
        reason: &'static str,
    },
    /// Too many are open: decide, withdraw or sweep some.
    #[error("{max} requests are open already")]
    TooMany {
        /// The bound.
        max: u32,
    },
    /// Others kept changing the same request: try again.
    #[error("request {0} kept changing: try again")]
    Contended(EventId),
    /// A stored record or the store.
    #[error(transparent)]
    Ledger(#[from] RiskError),
}

impl From<StoreError> for WorkflowError {
    fn from(source: StoreError) -> Self {
        Self::Ledger(source.into())
    }
}

impl WorkflowError {
    /// What the caller should do.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Invalid(_) | Self::NotOpen(_) | Self::DoesNotFit { .. } => ErrorKind::Invalid,
            Self::AlreadyAsked(_) | Self::WrongState { .. } | Self::Expired { .. } => ErrorKind::Conflict,
            Self::SamePerson(_) | Self::NotEntitled(_) => ErrorKind::Permanent,
            Self::TooMany { .. } => ErrorKind::LimitExceeded,
            Self::Contended(_) => ErrorKind::Transient,
            Self::Ledger(source) => source.kind(),
        }
    }
}
