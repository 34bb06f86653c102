//! What a driver error means for the caller: did it happen, and what now.
//!
//! The question that decides is not *what* failed but *whether the server can have committed*:
//!
//! | when | the server answers `ERROR` | `FATAL`, a dead connection, the deadline |
//! |---|---|---|
//! | before the statement was sent (pool, connect, login) | nothing happened | nothing happened |
//! | in a read, or in a transaction before its `COMMIT` is sent | rolled back | rolled back by the server: `Transient` |
//! | in a single auto-committed write | rolled back | `Ambiguous`, but for the two rows below |
//! | in `COMMIT` | rolled back | `Ambiguous` |
//!
//! | SQLSTATE | in an auto-committed write | why |
//! |---|---|---|
//! | 57P01 from the backend's `ProcessInterrupts` | `RolledBack` | the server looks for this signal only outside the commit, which holds interrupts, and the statement's commit is its last act |
//! | 57P01 from anyone else (a pooler) | `Ambiguous` | a pooler ends its client while the server goes on |
//! | 57P05, 25P03 (idle timeouts) | `RolledBack` | raised only while the server waits for a statement |
//! | 57P02, 57P04, 08xxx, 58xxx, XXxxx as `FATAL` or `PANIC` | `Ambiguous` | the server may have died after its commit record was written |
//! | 40003 | `Ambiguous` | it says so itself: statement completion unknown |
//!
//! | SQLSTATE as `ERROR` | becomes |
//! |---|---|
//! | IN0xx | `Refused`: a component's own function says no |
//! | 40001, 40P01, 40xxx | `RolledBack` |
//! | 55P03, 57014, 53300, 55006 | `Busy` |
//! | 53100 | `Full` |
//! | 25006 | `ReadOnly`; the connection is closed, since the server's role has changed |
//! | 42501, 28xxx | `Denied` |
//! | XX001, XX002 | `Corrupt` |
//! | 53xxx, 58xxx | `Unavailable` |
//! | all else | `Other` with the SQLSTATE in the text |
//!
//! Under synchronous replication a wait for the standby that is cut short by a shutdown is a success that the driver
//! reports as a warning, or a dead connection; it is never an `ERROR`.

use std::io;

use sqlx::postgres::{PgDatabaseError, PgSeverity};

use crate::error::BackendError;

/// What was going on when the error came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nothing can be committed yet: a read, or a transaction before its commit.
    NoEffect,
    /// A single statement that commits itself.
    AutoCommit,
    /// `COMMIT` was sent.
    Commit,
}

/// Whether the connection can answer another statement after this error.
pub(super) fn ends_connection(e: &sqlx::Error) -> bool {
    match e {
        sqlx::Error::Database(d) => d.try_downcast_ref::<PgDatabaseError>().is_none_or(|d| {
            // The last three leave a working connection that is no longer the one we want: another role, stale statements.
            is_fatal(d) || matches!(d.code(), "25006" | "0A000" | "26000")
        }),
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => true,
        _ => false,
    }
}

/// Whether the other end is gone, so that other idle connections are suspect too.
pub(super) fn is_loss(e: &sqlx::Error) -> bool {
    match e {
        sqlx::Error::Database(d) => d.try_downcast_ref::<PgDatabaseError>().is_some_and(is_fatal),
        other => ends_connection(other),
    }
}

fn is_fatal(d: &PgDatabaseError) -> bool {
    matches!(d.severity(), PgSeverity::Fatal | PgSeverity::Panic)
}

/// What an error of a statement means.
pub(super) fn statement(e: &sqlx::Error, phase: Phase) -> BackendError {
    let lost = |reason: String| match phase {
        Phase::NoEffect => BackendError::Transient { reason },
        Phase::AutoCommit | Phase::Commit => BackendError::Ambiguous { reason },
    };
    match e {
        sqlx::Error::Database(d) => match d.try_downcast_ref::<PgDatabaseError>() {
            Some(d) if is_fatal(d) => {
                let never_ran = matches!(d.code(), "57P05" | "25P03")
                    || (d.code() == "57P01" && d.routine() == Some("ProcessInterrupts"));
                if phase == Phase::AutoCommit && never_ran { BackendError::RolledBack } else { lost(words(d)) }
            }
            Some(d) => server_error(d, phase),
            None => lost(d.to_string()),
        },
        sqlx::Error::Io(e) => lost(io_words(e)),
        sqlx::Error::Tls(e) => lost(e.to_string()),
        sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => lost(e.to_string()),
        other => BackendError::Other { reason: other.to_string() },
    }
}

/// The server says `ERROR`: whatever the statement did is undone.
fn server_error(d: &PgDatabaseError, phase: Phase) -> BackendError {
    let reason = words(d);
    match d.code() {
        code if code.starts_with("IN0") => BackendError::Refused {
            code: code.to_owned(),
            message: d.message().to_owned(),
            detail: d.detail().unwrap_or_default().to_owned(),
        },
        "40003" if phase != Phase::NoEffect => BackendError::Ambiguous { reason },
        code if code.starts_with("40") => BackendError::RolledBack,
        "55P03" | "57014" | "53300" | "55006" => BackendError::Busy,
        "53100" => BackendError::Full,
        "25006" => BackendError::ReadOnly,
        "42501" => BackendError::Denied { reason },
        code if code.starts_with("28") => BackendError::Denied { reason },
        "XX001" | "XX002" => BackendError::Corrupt { reason },
        code if code.starts_with("53") || code.starts_with("58") => BackendError::Unavailable { reason },
        _ => BackendError::Other { reason },
    }
}

/// The server's message with its SQLSTATE. Never the detail: it repeats values of rows.
pub(super) fn words(d: &PgDatabaseError) -> String {
    format!("{} (SQLSTATE {})", d.message(), d.code())
}

/// An I/O error in words that do not depend on the system's language.
pub(super) fn io_words(e: &io::Error) -> String {
    match e.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
            format!("the server closed the connection: {e}")
        }
        _ => e.to_string(),
    }
}

impl From<sqlx::Error> for BackendError {
    /// For errors of decoding a row. Of a lost connection it assumes the worst, since it cannot know what was sent.
    fn from(e: sqlx::Error) -> Self {
        statement(&e, Phase::AutoCommit)
    }
}
