//! What can stop a log from being set up. Logging itself never fails.

use std::{io, path::PathBuf};

use infra_types::ErrorKind;

/// What can stop a log from being set up or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The configuration cannot work.
    #[error("configure logging; fix: {}", problems.join("; "))]
    InvalidConfig {
        /// One instruction for each mistake.
        problems: Vec<String>,
    },
    /// The level cannot be read; the one before stays.
    #[error("set the log level: {problem}")]
    InvalidLevel {
        /// What is wrong with it, and what would be right.
        problem: String,
    },
    /// Another process writes to the same files.
    #[error("open the log: {} is held by another process; give each process a prefix or folder of its own", path.display())]
    FileInUse {
        /// The lock file.
        path: PathBuf,
    },
    /// Something else has installed a global subscriber before.
    #[error("install the log: the process has a tracing subscriber already; initialise logging once, first of all")]
    AlreadyInstalled,
    /// The subscriber that this handle belonged to is gone.
    #[error("change the log: its subscriber is gone; keep the guard and the dispatch alive")]
    Gone,
    /// Too short to be told from ordinary text, or too many.
    #[error("register a secret: {problem}")]
    UnfitSecret {
        /// What to do instead; never the secret.
        problem: &'static str,
    },
    /// The operating system gave no thread.
    #[error("start the log's writer thread; free some threads and start again")]
    Thread(#[source] io::Error),
}

impl LogError {
    /// What to do about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::InvalidConfig { .. } | Self::InvalidLevel { .. } | Self::UnfitSecret { .. } => ErrorKind::Invalid,
            Self::FileInUse { .. } | Self::AlreadyInstalled => ErrorKind::Conflict,
            Self::Gone => ErrorKind::Permanent,
            Self::Thread(_) => ErrorKind::Transient,
        }
    }
}
