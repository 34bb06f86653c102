//! What can go wrong with a database, by what the reader should do.

use infra_types::ErrorKind;

/// A database's failure. The driver's own error is kept as the source, never as a type.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum BackendError {
    /// The file or server cannot be opened.
    #[error("cannot open {target}: {reason}; check that it exists and that this user may write there")]
    Open {
        /// What was to be opened.
        target: String,
        /// The driver's words.
        reason: String,
    },
    /// Another process held the write lock longer than the busy timeout. Nothing changed.
    #[error("the database is busy: another process held its write lock for too long; try again")]
    Busy,
    /// A batch that shared the commit failed so badly that the database took all of them back. Nothing changed.
    #[error("the database rolled back because of another batch; nothing was written: try again")]
    RolledBack,
    /// No space is left. Nothing changed.
    #[error("the disk is full: free some space; nothing was written")]
    Full,
    /// The file may only be read. Nothing changed.
    #[error("the database is read-only: grant write access to the file and its directory")]
    ReadOnly,
    /// The file is damaged or no database.
    #[error("the database is damaged or not a database ({reason}): stop, keep the file, restore a backup")]
    Corrupt {
        /// The driver's words.
        reason: String,
    },
    /// The data was written by a newer version of this library. Nothing changed.
    #[error("{component} data has schema version {found}, this program knows up to {known}: use the newer program")]
    NewerSchema {
        /// Whose tables.
        component: &'static str,
        /// The stored version.
        found: i64,
        /// The newest known version.
        known: i64,
    },
    /// A migration that was already run differs from the one in this program. Nothing changed.
    #[error("{component} migration {version} differs from the one that wrote this data: use the program that wrote it")]
    ChangedMigration {
        /// Whose tables.
        component: &'static str,
        /// Which step.
        version: i64,
    },
    /// The commit failed in a way that does not tell whether it is stored.
    #[error("the commit failed and may or may not be stored ({reason}): read before you go on")]
    Ambiguous {
        /// The driver's words.
        reason: String,
    },
    /// The handle was closed.
    #[error("the database handle is closed")]
    Closed,
    /// Anything else the driver says; a defect of this library or a broken environment.
    #[error("the database refused: {reason}")]
    Other {
        /// The driver's words.
        reason: String,
    },
}

impl BackendError {
    /// What the caller should do.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Busy | Self::RolledBack => ErrorKind::Transient,
            Self::Open { .. } | Self::Full | Self::ReadOnly | Self::Closed => ErrorKind::Unavailable,
            Self::Corrupt { .. } => ErrorKind::Corrupt,
            Self::NewerSchema { .. } | Self::ChangedMigration { .. } | Self::Other { .. } => ErrorKind::Permanent,
            Self::Ambiguous { .. } => ErrorKind::Ambiguous,
        }
    }
}
