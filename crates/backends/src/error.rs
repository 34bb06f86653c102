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
    /// A lock or a connection was not to be had in time, or the server cut the work short. Nothing changed.
    #[error("the database is busy: it had no lock, no connection or no time to spare; nothing was written: try again")]
    Busy,
    /// A batch that shared the commit failed so badly that the database took all of them back. Nothing changed.
    #[error("the database rolled back because of another batch; nothing was written: try again")]
    RolledBack,
    /// No space is left, on the disk or below the server's memory limit. Nothing changed.
    #[error("no space is left on the disk or below the server's memory limit: make room; nothing was written")]
    Full,
    /// The file may only be read, or the server is a replica. Nothing changed.
    #[error("the database is read-only: grant write access to the file and its directory, or connect to the primary")]
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
    /// The write failed in a way that does not tell whether it is stored.
    #[error("the write failed and may or may not be stored ({reason}): read before you go on")]
    Ambiguous {
        /// The driver's words.
        reason: String,
    },
    /// The server cannot be reached, or what answers there is another kind of server. Nothing was sent.
    #[error("cannot connect to {target}: {reason}; nothing was sent")]
    Connect {
        /// Host and port.
        target: String,
        /// What happened and what to look at.
        reason: String,
    },
    /// The server does not accept the user or the password. Nothing was sent.
    #[error("{target} refuses the credentials ({reason}): check user name and password")]
    Auth {
        /// Host and port.
        target: String,
        /// The server's words, without the password.
        reason: String,
    },
    /// The two sides do not agree on TLS. Nothing was sent.
    #[error("no TLS with {target}: {reason}")]
    Tls {
        /// Host and port.
        target: String,
        /// What happened and what to look at.
        reason: String,
    },
    /// The server is older than this library can use. Nothing was sent.
    #[error("the server has version {found}, at least {needed} is needed: upgrade it")]
    TooOld {
        /// The server's version.
        found: String,
        /// The oldest version that will do.
        needed: &'static str,
    },
    /// A URL or setting makes no sense.
    #[error("invalid {what}: {rule}")]
    InvalidConfig {
        /// Which setting.
        what: &'static str,
        /// The rule it broke, as an instruction; never holds a secret.
        rule: String,
    },
    /// The server may delete data when its memory is full. Nothing was sent.
    #[error(
        "the server may evict keys (maxmemory-policy {policy}): set `maxmemory-policy noeviction` there, or allow eviction if all of this data is a cache"
    )]
    Evicts {
        /// Its policy.
        policy: String,
    },
    /// The server keeps writes less safely than was asked for. Nothing was sent.
    #[error(
        "the server is not durable enough (it has {found}, {needed} is required): change its configuration or ask for less"
    )]
    NotDurable {
        /// What it has.
        found: String,
        /// What was asked for.
        needed: String,
    },
    /// The server does not tell what must be known before it is trusted. Nothing was sent.
    #[error(
        "the server does not tell its {what} ({reason}): grant this user the right to read it, or accept unverified servers"
    )]
    Unverified {
        /// What could not be read.
        what: &'static str,
        /// The server's words.
        reason: String,
    },
    /// The user lacks a right. Nothing changed.
    #[error("the server denies it ({reason}): grant the right to this user")]
    Denied {
        /// The server's words.
        reason: String,
    },
    /// It did not happen, or it was only a read; it may work in a moment.
    #[error("no answer from the server for now ({reason}); nothing was changed: try again")]
    Transient {
        /// What happened.
        reason: String,
    },
    /// The server refuses for longer than a moment. Nothing changed.
    #[error("the server is unable to do it ({reason}); nothing was changed: repair the server")]
    Unavailable {
        /// The server's words.
        reason: String,
    },
    /// A function or script of a component says no, in its own words (SQLSTATE or Redis error code `IN0xx`). Nothing changed.
    #[error("refused ({code}): {message}")]
    Refused {
        /// The code, `IN000` to `IN0ZZ`.
        code: String,
        /// `MESSAGE` of the `RAISE`, or what follows the code in a Redis error.
        message: String,
        /// `DETAIL` of the `RAISE`, for the component to parse; empty if there is none, as always with Redis.
        detail: String,
    },
    /// A step of a component's migration fails; that step was undone.
    #[error("{component} migration {version} fails and was undone ({reason}): repair what it names, then start again")]
    Migration {
        /// Whose tables.
        component: &'static str,
        /// Which step.
        version: i64,
        /// The server's words.
        reason: String,
    },
    /// Another server took over, and this handle wants somebody to look first. Nothing was sent.
    #[error(
        "another server took over, or the same after a restart, and may lack answered writes; nothing was sent: compare the data with the truth, then accept the failover"
    )]
    FailedOver,
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
            Self::Busy | Self::RolledBack | Self::Transient { .. } => ErrorKind::Transient,
            Self::Open { .. }
            | Self::Connect { .. }
            | Self::Unavailable { .. }
            | Self::Full
            | Self::FailedOver
            | Self::ReadOnly
            | Self::Closed => ErrorKind::Unavailable,
            Self::InvalidConfig { .. } => ErrorKind::Invalid,
            Self::Refused { .. } => ErrorKind::Conflict,
            Self::Corrupt { .. } => ErrorKind::Corrupt,
            Self::NewerSchema { .. }
            | Self::ChangedMigration { .. }
            | Self::Migration { .. }
            | Self::Auth { .. }
            | Self::Tls { .. }
            | Self::TooOld { .. }
            | Self::Evicts { .. }
            | Self::NotDurable { .. }
            | Self::Unverified { .. }
            | Self::Denied { .. }
            | Self::Other { .. } => ErrorKind::Permanent,
            Self::Ambiguous { .. } => ErrorKind::Ambiguous,
        }
    }
}
