//! What became of a request, when the answer is missing as well as when it came.

use std::future::Future;

use infra_types::{ErrorKind, OrderId};

use crate::{classify::Classify, error::CallError};

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It surely never reached the callee.
    NotSent,
    /// The callee refused it; nothing changed there.
    Rejected,
    /// It took effect.
    Applied,
    /// It may or may not have taken effect: ask the callee by client order id.
    Unknown,
}

impl Outcome {
    /// Whether something may now be live at the callee. Whoever holds a reservation for it must keep it.
    #[must_use]
    pub fn may_be_live(self) -> bool {
        matches!(self, Self::Applied | Self::Unknown)
    }

    pub(crate) fn of_kind(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::Transient | ErrorKind::Unavailable => Self::NotSent,
            ErrorKind::Permanent
            | ErrorKind::Conflict
            | ErrorKind::Invalid
            | ErrorKind::Unsupported
            | ErrorKind::Fenced
            | ErrorKind::LimitExceeded => Self::Rejected,
            // A kind that this crate does not know yet is no proof of anything.
            _ => Self::Unknown,
        }
    }

    /// What is known after one more attempt that ended in `next`. An unknown attempt stays unknown whatever a later one
    /// says, except that it was applied: a second attempt that is refused proves nothing about the first.
    #[must_use]
    pub fn and_then(self, next: Self) -> Self {
        match (self, next) {
            (_, Self::Applied) | (Self::Applied, _) => Self::Applied,
            (Self::Unknown, _) => Self::Unknown,
            (_, next) => next,
        }
    }
}

/// What became of an order that was sent once ([`Policy::submit`](crate::Policy::submit)).
#[derive(Debug)]
#[must_use = "an unknown order may be live: reconcile it by its id"]
pub enum Submission<T, E> {
    /// The venue took it.
    Applied(T),
    /// It never left; the id may be used again.
    NotSent(CallError<E>),
    /// The venue refused it.
    Rejected(CallError<E>),
    /// It may be live. Ask the venue for this id before anything else, and keep counting it until then.
    Unknown {
        /// The client order id to ask for.
        id: OrderId,
        /// What ended the wait.
        error: CallError<E>,
    },
}

impl<T, E: Classify> Submission<T, E> {
    /// What became of it, as one word.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Applied(_) => Outcome::Applied,
            Self::NotSent(_) => Outcome::NotSent,
            Self::Rejected(_) => Outcome::Rejected,
            Self::Unknown { .. } => Outcome::Unknown,
        }
    }

    /// Asks the venue about an unknown order. `query` gives the order if the venue knows it.
    ///
    /// A venue that does not know it *yet* proves nothing while the request may still be on its way, so `None` and a
    /// failed query both leave it unknown; only the caller knows when the venue can no longer accept the request.
    ///
    /// # Cancel safety
    /// Dropping the future drops the submission with it; the id stays known to whoever chose it.
    pub async fn reconcile<F, Fut, Q>(self, query: F) -> Self
    where
        F: FnOnce(OrderId) -> Fut,
        Fut: Future<Output = Result<Option<T>, Q>>,
    {
        match self {
            Self::Unknown { id, error } => match query(id.clone()).await {
                Ok(Some(found)) => Self::Applied(found),
                Ok(None) | Err(_) => Self::Unknown { id, error },
            },
            known => known,
        }
    }
}
