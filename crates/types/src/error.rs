//! What an error asks its reader to do.

/// The class of an error: what the caller should do next, whatever went wrong.
///
/// Every crate's error enum answers `kind()` with one of these, so that retry, alerting and the order gate decide by
/// class and never by message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Did not happen and may work later: retry an idempotent operation.
    Transient,
    /// Did not happen and never will: fix the cause.
    Permanent,
    /// A precondition did not hold; nothing changed: read again and decide anew.
    Conflict,
    /// It may or may not have happened: find out before doing anything else; never retry blindly.
    Ambiguous,
    /// The request itself is wrong: fix the caller.
    Invalid,
    /// The other side cannot be reached: wait for it, trade nothing that depends on it.
    Unavailable,
    /// This backend cannot do it, by design: choose another.
    Unsupported,
    /// A newer holder exists; nothing changed: stop acting on the old lease.
    Fenced,
    /// A limit would be passed; nothing changed.
    LimitExceeded,
    /// Stored data is not what was written: stop and call a person.
    Corrupt,
}

impl ErrorKind {
    /// Whether the operation surely had no effect.
    #[must_use]
    pub fn had_no_effect(self) -> bool {
        !matches!(self, Self::Ambiguous | Self::Corrupt)
    }

    /// Whether an *idempotent* operation may be repeated as it is.
    #[must_use]
    pub fn is_retryable(self) -> bool {
        matches!(self, Self::Transient | Self::Unavailable)
    }
}

/// A value that does not fit its type, with the rule it broke.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid {what}: {rule}")]
pub struct InvalidValue {
    /// The type that refused, in words.
    pub what: &'static str,
    /// The rule, as an instruction.
    pub rule: String,
}

impl InvalidValue {
    /// Names the type and the rule that was broken.
    pub fn new(what: &'static str, rule: impl Into<String>) -> Self {
        Self { what, rule: rule.into() }
    }
}
