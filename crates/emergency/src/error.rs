//! Why the switch refused, by what to do.

use infra_state_store::StoreError;
use infra_types::{ErrorKind, Timestamp};

use crate::state::EmergencyState;

/// A refusal of the switch. None of them ever means "trade".
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EmergencyError {
    /// The request or a setting is wrong.
    #[error("{rule}")]
    Invalid {
        /// The rule, as an instruction.
        rule: String,
    },
    /// Trading is stopped.
    #[error("trading is at {state} since {at} by {by}: {reason}")]
    Stopped {
        /// How far.
        state: EmergencyState,
        /// Who stopped it.
        by: String,
        /// Why.
        reason: String,
        /// When.
        at: Timestamp,
    },
    /// The state was never read, or not within the lease.
    #[error("the emergency state is not confirmed: refresh it and trade nothing until then")]
    Unconfirmed,
    /// The durable record cannot be read. It counts as HALT for everybody.
    #[error("the record emergency/firm is unreadable ({what}) and counts as HALT: inspect it, then re-arm")]
    Damaged {
        /// What was found instead.
        what: String,
    },
    /// The store answers with less than this process has already seen: a restored backup, a lost write, a cleared namespace.
    #[error(
        "the record emergency/firm went back from version {known} to {found} and counts as HALT: find out what the store lost"
    )]
    WentBack {
        /// The newest version this process has seen.
        known: u64,
        /// The version the store answers with; 0 if the record is gone.
        found: u64,
    },
    /// The record moved since the person looked at it.
    #[error(
        "the emergency state is {state} at version {found}, not at version {expected}: look again before you re-arm"
    )]
    Moved {
        /// The version the person named.
        expected: u64,
        /// The version now.
        found: u64,
        /// The state now.
        state: EmergencyState,
    },
    /// Others kept changing the record.
    #[error("the record emergency/firm kept changing: read it and try again")]
    Contended,
    /// The stop holds in this process, but the store did not take it. It is written again with every refresh.
    #[error("this process is at {state}, but it could not be written, other processes may not know: {cause}")]
    NotDurable {
        /// What this process enforces.
        state: EmergencyState,
        /// Why it was not written.
        cause: Box<EmergencyError>,
    },
    /// The store refused or failed.
    #[error("the emergency state could not be read or written: {0}")]
    Store(#[from] StoreError),
}

impl EmergencyError {
    /// What the caller should do.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Invalid { .. } => ErrorKind::Invalid,
            Self::Stopped { .. } | Self::Unconfirmed => ErrorKind::Unavailable,
            Self::Damaged { .. } | Self::WentBack { .. } => ErrorKind::Corrupt,
            Self::Moved { .. } | Self::Contended => ErrorKind::Conflict,
            Self::NotDurable { cause, .. } => cause.kind(),
            Self::Store(e) => e.kind(),
        }
    }

    pub(crate) fn invalid(rule: impl Into<String>) -> Self {
        Self::Invalid { rule: rule.into() }
    }
}
