//! What a guarded call can fail with.

use std::{fmt, sync::Arc, time::Duration};

use infra_types::{ErrorKind, InvalidValue};

use crate::{
    breaker::{Rejected, retry_hint},
    classify::Classify,
    outcome::Outcome,
};

/// A call that did not give a result: the callee's own error, or the layer that ended it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError<E> {
    /// The callee answered with this error.
    #[error(transparent)]
    Inner(E),
    /// One attempt took longer than it may. It had begun: what it did is unknown.
    #[error("no answer within {after:?}; what the call did is unknown, find out before repeating it")]
    Timeout {
        /// The attempt's time limit.
        after: Duration,
    },
    /// The circuit breaker refused; the callee saw nothing.
    #[error("circuit breaker {name:?} refuses calls{}", retry_hint(.retry_after))]
    BreakerOpen {
        /// The breaker's name.
        name: Arc<str>,
        /// How long to wait before it may let a call pass; `None` if an operator forced it open.
        retry_after: Option<Duration>,
    },
    /// The overall deadline passed in the middle of an attempt: what that did is unknown.
    #[error("the overall deadline of {after:?} passed during an attempt; what it did is unknown")]
    DeadlineExceeded {
        /// The overall time limit.
        after: Duration,
    },
}

impl<E> From<Rejected> for CallError<E> {
    fn from(Rejected { name, retry_after }: Rejected) -> Self {
        Self::BreakerOpen { name, retry_after }
    }
}

impl<E: Classify> CallError<E> {
    /// What to do next.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        Classify::kind(self)
    }

    /// What became of the request.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        Classify::outcome(self)
    }

    /// The wait that the callee or the breaker asked for.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        Classify::retry_after(self)
    }
}

impl<E> CallError<E> {
    /// The callee's own error, if it gave one.
    #[must_use]
    pub fn into_inner(self) -> Option<E> {
        match self {
            Self::Inner(error) => Some(error),
            _ => None,
        }
    }
}

impl<E: Classify> Classify for CallError<E> {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Inner(error) => error.kind(),
            Self::Timeout { .. } | Self::DeadlineExceeded { .. } => ErrorKind::Ambiguous,
            Self::BreakerOpen { .. } => ErrorKind::Unavailable,
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Inner(error) => error.retry_after(),
            Self::BreakerOpen { retry_after, .. } => *retry_after,
            Self::Timeout { .. } | Self::DeadlineExceeded { .. } => None,
        }
    }

    fn outcome(&self) -> Outcome {
        match self {
            Self::Inner(error) => error.outcome(),
            Self::Timeout { .. } | Self::DeadlineExceeded { .. } => Outcome::Unknown,
            Self::BreakerOpen { .. } => Outcome::NotSent,
        }
    }

    fn is_local_rejection(&self) -> bool {
        match self {
            Self::Inner(error) => error.is_local_rejection(),
            Self::BreakerOpen { .. } => true,
            Self::Timeout { .. } | Self::DeadlineExceeded { .. } => false,
        }
    }
}

/// A configuration that was refused, with every mistake in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidConfig {
    /// The name that the configuration was for.
    pub name: Arc<str>,
    /// Every mistake; never empty.
    pub problems: Vec<InvalidValue>,
}

impl InvalidConfig {
    /// What to do next: fix the caller.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }
}

impl fmt::Display for InvalidConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "configuration of {:?} refused", self.name)?;
        for (n, problem) in self.problems.iter().enumerate() {
            write!(f, "{} {problem}", if n == 0 { ":" } else { ";" })?;
        }
        Ok(())
    }
}

impl std::error::Error for InvalidConfig {}
