//! Why a log refused, by what the caller should do.

use infra_types::{ErrorKind, EventId};

use crate::verify::Tampering;

/// A refusal. Unless it is `Ambiguous`, nothing was appended.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum AuditError {
    /// A request makes no sense.
    #[error("invalid request: {rule}")]
    Invalid {
        /// The rule, as an instruction.
        rule: String,
    },
    /// Something is larger than the log takes.
    #[error("{what} is too large: {found}, at most {max}; keep the large part elsewhere and record its hash")]
    TooLarge {
        /// What: `event` (bytes) or `batch events`.
        what: &'static str,
        /// Its size.
        found: usize,
        /// The largest size.
        max: usize,
    },
    /// The id was used for another event.
    #[error("event {id} is stored at index {index} with another body: give the new event an id of its own")]
    Conflict {
        /// The id.
        id: EventId,
        /// Where it stands.
        index: u64,
    },
    /// A bounded log has no room and may not forget.
    #[error("the log holds {capacity} events and may hold no more: raise its capacity or use a backend that stores")]
    Full {
        /// How many it may hold.
        capacity: u64,
    },
    /// An earlier append ended without an answer; what is stored has not been looked at since.
    #[error("an earlier append may or may not be stored: ask for the head, then append the same events again")]
    Unsettled,
    /// The reply was lost: the events are all stored or none is. Append the same events again after asking for the head.
    #[error("the append may or may not be stored ({reason}): ask for the head, then append the same events again")]
    Ambiguous {
        /// What was seen.
        reason: String,
    },
    /// Stored bytes are not what a log of this library writes.
    #[error("the stored log is damaged{}: {reason}: stop, keep the file, run verify", at(*index))]
    Corrupt {
        /// Which event, if it is known.
        index: Option<u64>,
        /// What was seen.
        reason: String,
    },
    /// Verification found tampering, so no checkpoint is given.
    #[error("the log was tampered with{}: {kind}: stop, keep the files, call a person", at(*first_bad_index))]
    Tampered {
        /// The first event that is wrong, if it is known.
        first_bad_index: Option<u64>,
        /// What is wrong.
        kind: Tampering,
    },
    /// The last checkpoint is older than the oldest event that a bounded log still has.
    #[error("events before index {first_kept} are forgotten and were never signed: start a new log, sign more often")]
    Evicted {
        /// The oldest event that is left.
        first_kept: u64,
    },
    /// A text is no checkpoint signed by the expected key.
    #[error("no valid checkpoint: {reason}")]
    BadNote {
        /// The rule that it breaks.
        reason: String,
    },
    /// The checkpoint file is gone although its key exists.
    #[error("{path} is gone although its key exists: restore it from a copy; delete the key only for a new log")]
    NoteMissing {
        /// Where it should be.
        path: String,
    },
    /// The key file is gone although the checkpoint exists.
    #[error("{path} is gone although its checkpoint exists: restore it from a copy")]
    KeyMissing {
        /// Where it should be.
        path: String,
    },
    /// The key file is no key, or others may read it.
    #[error("{path} is not usable as the signing key: {reason}")]
    BadKey {
        /// Where it is.
        path: String,
        /// The rule that it breaks.
        reason: String,
    },
    /// A file could not be read or written.
    #[error("cannot {what} {path}: {reason}")]
    File {
        /// `read`, `write`, `lock`, …
        what: &'static str,
        /// Which file.
        path: String,
        /// The system's words.
        reason: String,
    },
    /// The log was closed.
    #[error("the log is closed")]
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

fn at(index: Option<u64>) -> String {
    index.map_or_else(String::new, |index| format!(" at index {index}"))
}

impl AuditError {
    /// What the caller should do.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Invalid { .. } | Self::TooLarge { .. } => ErrorKind::Invalid,
            Self::Conflict { .. } => ErrorKind::Conflict,
            Self::Full { .. } => ErrorKind::LimitExceeded,
            Self::Ambiguous { .. } => ErrorKind::Ambiguous,
            Self::Corrupt { .. } | Self::Tampered { .. } | Self::BadNote { .. } => ErrorKind::Corrupt,
            Self::Evicted { .. } | Self::NoteMissing { .. } | Self::KeyMissing { .. } | Self::BadKey { .. } => {
                ErrorKind::Permanent
            }
            Self::Unsettled | Self::File { .. } | Self::Closed => ErrorKind::Unavailable,
            Self::Backend { kind, .. } => *kind,
        }
    }
}

#[cfg(any(feature = "sqlite", feature = "postgres"))]
impl From<infra_backends::BackendError> for AuditError {
    fn from(e: infra_backends::BackendError) -> Self {
        use infra_backends::BackendError;
        match e {
            BackendError::Ambiguous { reason } => Self::Ambiguous { reason },
            BackendError::Corrupt { reason } => Self::Corrupt { index: None, reason },
            BackendError::Closed => Self::Closed,
            other => Self::Backend { kind: other.kind(), message: other.to_string() },
        }
    }
}
