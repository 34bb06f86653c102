//! Why a store refused, by what the caller should do.

use std::time::Duration;

use infra_types::{ErrorKind, Timestamp};

use crate::{batch::Version, key::Key};

/// A refusal. Unless it is `Ambiguous`, nothing was changed. `index` is the operation's place in its batch.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A key breaks the rules.
    #[error("a key {rule}")]
    InvalidKey {
        /// The rule, as an instruction.
        rule: &'static str,
    },
    /// A request makes no sense.
    #[error("invalid request: {rule}")]
    Invalid {
        /// The rule, as an instruction.
        rule: String,
    },
    /// Something is larger than the store takes.
    #[error("{what} is too large: {found}, at most {max}")]
    TooLarge {
        /// What: `value`, `batch operations`, `batch bytes`.
        what: &'static str,
        /// Its size.
        found: usize,
        /// The largest size.
        max: usize,
    },
    /// A precondition does not hold: read again and decide anew.
    #[error("operation {index}: {key:?} is not as expected (its version is {found:?}): read it again")]
    Mismatch {
        /// Which operation.
        index: usize,
        /// Which key.
        key: Key,
        /// The record's version now; none if it is absent (or is a cache key).
        found: Option<Version>,
    },
    /// A counter would leave its bounds.
    #[error("operation {index}: {key:?} is at {current} and may not go beyond its bounds")]
    OutOfBounds {
        /// Which operation.
        index: usize,
        /// Which counter.
        key: Key,
        /// Its value now.
        current: i64,
    },
    /// A counter would go beyond ±(2⁵³−1).
    #[error("operation {index}: {key:?} is at {current} and would pass 2^53-1")]
    Overflow {
        /// Which operation.
        index: usize,
        /// Which counter.
        key: Key,
        /// Its value now.
        current: i64,
    },
    /// A counter operation met bytes, or the other way round.
    #[error("operation {index}: {key:?} holds another type of value")]
    WrongType {
        /// Which operation.
        index: usize,
        /// Which key.
        key: Key,
    },
    /// Somebody else has the lease.
    #[error("operation {index}: lease {key} is held by {holder:?} until {expires_at}")]
    LeaseHeld {
        /// Which operation.
        index: usize,
        /// Which lease.
        key: Key,
        /// Who has it.
        holder: String,
        /// Until when by the store's clock.
        expires_at: Timestamp,
    },
    /// A newer holder exists: stop acting on the old lease.
    #[error("operation {index}: lease {key} has moved on to fence {newest}: stop")]
    Fenced {
        /// Which operation.
        index: usize,
        /// Which lease.
        key: Key,
        /// The newest fence it granted; 0 if it never granted one.
        newest: u64,
    },
    /// The window has no room.
    #[error("operation {index}: window {key} counts {used} and has no room for more{}", wait(*.retry_after))]
    WindowFull {
        /// Which operation.
        index: usize,
        /// Which window.
        key: Key,
        /// What it counts now.
        used: i64,
        /// When there will be room if nobody else takes it; none if it asks for more than the limit.
        retry_after: Option<Duration>,
    },
    /// The message's effect is in the store already.
    #[error("operation {index}: the message was processed before")]
    AlreadyProcessed {
        /// Which operation.
        index: usize,
    },
    /// The value was written in another form than the reader's. Nothing was changed.
    #[error(
        "{key:?} was written as {found}, this reader knows {expected}: use the program that wrote it, or migrate the value"
    )]
    WrongCodec {
        /// Which key.
        key: Key,
        /// Name and schema version that stand in front of the value.
        found: String,
        /// Name and schema versions that the reader knows.
        expected: String,
    },
    /// The reply was lost: the batch is wholly there or wholly absent. Find out before you go on.
    #[error("the reply was lost; the batch may or may not be stored ({reason}): read before you go on")]
    Ambiguous {
        /// What was seen.
        reason: String,
    },
    /// Stored bytes are not what a store of this library writes.
    #[error("stored data is damaged: {reason}: stop and restore")]
    Corrupt {
        /// What was seen.
        reason: String,
    },
    /// This backend cannot do it, by design.
    #[error("{backend} cannot {what}: choose another backend")]
    Unsupported {
        /// Which backend.
        backend: &'static str,
        /// What was asked.
        what: &'static str,
    },
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
    /// The database failed; nothing was changed.
    #[error("{message}")]
    Backend {
        /// What to do, in the backend's words.
        message: String,
        /// Its class.
        kind: ErrorKind,
    },
}

impl StoreError {
    /// The place in its batch of the operation that refused, if one did.
    #[must_use]
    pub fn index(&self) -> Option<usize> {
        match self {
            Self::Mismatch { index, .. }
            | Self::OutOfBounds { index, .. }
            | Self::Overflow { index, .. }
            | Self::WrongType { index, .. }
            | Self::LeaseHeld { index, .. }
            | Self::Fenced { index, .. }
            | Self::WindowFull { index, .. }
            | Self::AlreadyProcessed { index } => Some(*index),
            _ => None,
        }
    }

    /// What the caller should do.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::InvalidKey { .. }
            | Self::Invalid { .. }
            | Self::TooLarge { .. }
            | Self::WrongType { .. }
            | Self::WrongCodec { .. } => ErrorKind::Invalid,
            Self::Mismatch { .. } | Self::LeaseHeld { .. } | Self::AlreadyProcessed { .. } => ErrorKind::Conflict,
            Self::OutOfBounds { .. } | Self::Overflow { .. } | Self::WindowFull { .. } => ErrorKind::LimitExceeded,
            Self::Fenced { .. } => ErrorKind::Fenced,
            Self::Ambiguous { .. } => ErrorKind::Ambiguous,
            Self::Corrupt { .. } => ErrorKind::Corrupt,
            Self::Unsupported { .. } => ErrorKind::Unsupported,
            Self::Closed => ErrorKind::Unavailable,
            Self::Backend { kind, .. } => *kind,
        }
    }
}

#[cfg(any(feature = "sqlite", feature = "redis", feature = "postgres"))]
impl From<infra_backends::BackendError> for StoreError {
    fn from(e: infra_backends::BackendError) -> Self {
        use infra_backends::BackendError;
        match e {
            BackendError::Closed => Self::Closed,
            BackendError::Ambiguous { reason } => Self::Ambiguous { reason },
            BackendError::Corrupt { reason } => Self::Corrupt { reason },
            other => Self::Backend { message: other.to_string(), kind: other.kind() },
        }
    }
}

fn wait(retry_after: Option<Duration>) -> String {
    match retry_after {
        Some(time) => format!(": try again in {} ms", time.as_millis()),
        None => ": ask for less".into(),
    }
}
