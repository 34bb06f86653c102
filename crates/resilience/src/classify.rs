//! What an error tells the layers around it.

use std::time::Duration;

use infra_types::ErrorKind;

use crate::outcome::Outcome;

/// What retry, breaker and outcome need to know of an error; the only thing asked of your error type.
pub trait Classify {
    /// The class of the error: what its reader should do next.
    fn kind(&self) -> ErrorKind;

    /// The wait that the callee asked for (`Retry-After`), if it did.
    fn retry_after(&self) -> Option<Duration> {
        None
    }

    /// What became of the request. The default follows from [`kind`](Self::kind): `Transient` and `Unavailable` were not
    /// sent, `Ambiguous` and `Corrupt` are unknown, the rest was rejected. A venue's "duplicate client order id" proves
    /// that an earlier attempt arrived: answer [`Outcome::Applied`] for it.
    fn outcome(&self) -> Outcome {
        Outcome::of_kind(self.kind())
    }

    /// Whether this side refused the call, so that the callee never saw it. Such an error is no evidence about the
    /// callee, and a breaker ignores it.
    fn is_local_rejection(&self) -> bool {
        false
    }
}

impl Classify for ErrorKind {
    fn kind(&self) -> ErrorKind {
        *self
    }
}

impl<E: Classify + ?Sized> Classify for &E {
    fn kind(&self) -> ErrorKind {
        (**self).kind()
    }
    fn retry_after(&self) -> Option<Duration> {
        (**self).retry_after()
    }
    fn outcome(&self) -> Outcome {
        (**self).outcome()
    }
    fn is_local_rejection(&self) -> bool {
        (**self).is_local_rejection()
    }
}
