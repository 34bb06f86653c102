//! One SQLite file in WAL mode: a writer thread that commits waiting batches together, and a reader thread.
//!
//! SQLite calls block, so they run on threads of their own; one hop there and back per batch, whatever its size. A batch
//! runs to its end on that thread even if the caller stops waiting, so a dropped future cannot leave half of it behind.

mod migrate;
mod worker;

use std::{path::PathBuf, sync::Arc, time::Duration};

use infra_types::{Clock, SystemClock};
use rusqlite::{Connection, ErrorCode, OpenFlags};
use tokio::sync::OnceCell;

pub use self::migrate::Schema;
use self::worker::Worker;
use crate::error::BackendError;

/// When an answered write is safe from what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Synchronous {
    /// Survives the death of the process; a power cut may take the last commits.
    Normal,
    /// Survives a power cut as well: each group of commits waits for the disk.
    #[default]
    Full,
}

/// Where the file is and how it is used.
#[derive(Debug, Clone)]
pub struct SqliteConfig {
    /// The database file; its directory must exist.
    pub path: PathBuf,
    /// The durability point of a write. Default `Full`.
    pub synchronous: Synchronous,
    /// How long a write waits for other processes. Default 5 s.
    pub busy_timeout: Duration,
}

impl SqliteConfig {
    /// The defaults for a file.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), synchronous: Synchronous::Full, busy_timeout: Duration::from_secs(5) }
    }

    /// Chooses the durability point.
    #[must_use]
    pub fn with_synchronous(mut self, synchronous: Synchronous) -> Self {
        self.synchronous = synchronous;
        self
    }

    /// Chooses how long a write waits for other processes.
    #[must_use]
    pub fn with_busy_timeout(mut self, busy_timeout: Duration) -> Self {
        self.busy_timeout = busy_timeout;
        self
    }

    /// Opens the file. While several connections bring a new file into WAL mode at once, SQLite answers "busy" without
    /// waiting (waiting could be for ever), so the waiting is done here.
    fn open(&self) -> Result<Connection, BackendError> {
        let clock = SystemClock;
        let deadline = clock.now() + self.busy_timeout;
        loop {
            match self.try_open() {
                Err(BackendError::Busy) if clock.now() < deadline => std::thread::sleep(Duration::from_millis(2)),
                answer => return answer,
            }
        }
    }

    fn try_open(&self) -> Result<Connection, BackendError> {
        let open = || -> rusqlite::Result<(Connection, String)> {
            // Without `SQLITE_OPEN_URI`: a name is a file, and nothing else.
            let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
            let conn = Connection::open_with_flags(&self.path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
            conn.busy_timeout(self.busy_timeout)?;
            let mode = conn.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
            let level = match self.synchronous {
                Synchronous::Normal => "NORMAL",
                Synchronous::Full => "FULL",
            };
            conn.pragma_update(None, "synchronous", level)?;
            conn.set_prepared_statement_cache_capacity(256);
            Ok((conn, mode))
        };
        let failed = |reason| BackendError::Open { target: self.path.display().to_string(), reason };
        let (conn, mode) = open().map_err(|e| match classify(&e) {
            BackendError::Other { reason } | BackendError::Ambiguous { reason } => failed(reason),
            known => known,
        })?;
        if mode != "wal" {
            // `:memory:` and an empty name: each connection would have a database of its own.
            return Err(failed(format!("it is no file that keeps a write-ahead log (its mode is {mode})")));
        }
        Ok(conn)
    }
}

#[derive(Debug)]
struct Inner {
    config: SqliteConfig,
    writer: Worker,
    reader: Worker,
    schemas: [(&'static str, OnceCell<()>); 4],
}

/// A handle on one SQLite file; clones share the connections. The file is opened by the first use.
#[derive(Debug, Clone)]
pub struct Sqlite(Arc<Inner>);

impl Sqlite {
    /// A handle; no I/O happens yet.
    #[must_use]
    pub fn new(config: SqliteConfig) -> Self {
        let schemas = ["state", "bus", "audit", "records"].map(|name| (name, OnceCell::new()));
        Self(Arc::new(Inner {
            config,
            writer: Worker::new("sqlite-write"),
            reader: Worker::new("sqlite-read"),
            schemas,
        }))
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &std::path::Path {
        &self.0.config.path
    }

    /// Makes sure that `schema` is at its newest version; after the first success it costs an atomic load.
    ///
    /// # Errors
    /// `NewerSchema` and `ChangedMigration` leave the file untouched; `Open`, `Busy`, `Full` as the name says.
    ///
    /// # Cancel safety
    /// A migration runs wholly or not at all.
    pub async fn ready(&self, schema: &'static Schema) -> Result<(), BackendError> {
        let cell = self.0.schemas.iter().find(|(name, _)| *name == schema.component).map(|(_, cell)| cell);
        let Some(cell) = cell else {
            return Err(BackendError::Other { reason: format!("no component is called {}", schema.component) });
        };
        cell.get_or_try_init(|| self.write(move |conn| schema.apply(conn))).await.map(|_| ())
    }

    /// Runs `work` in a write transaction and commits it if it answers `Ok`; otherwise nothing is changed. Batches that wait at
    /// the same time share one commit, each in a savepoint of its own.
    ///
    /// # Errors
    /// What `work` answers, or the database's failure.
    ///
    /// # Cancel safety
    /// Dropping the future after its first poll may leave the batch committed, never half.
    pub async fn write<T, E, F>(&self, work: F) -> Result<T, E>
    where
        F: FnOnce(&Connection) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<BackendError> + Send + 'static,
    {
        self.0.writer.run(&self.0.config, true, work).await
    }

    /// Runs `work` on a snapshot of the file.
    ///
    /// # Errors
    /// What `work` answers, or the database's failure.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the answer and nothing else.
    pub async fn read<T, E, F>(&self, work: F) -> Result<T, E>
    where
        F: FnOnce(&Connection) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<BackendError> + Send + 'static,
    {
        self.0.reader.run(&self.0.config, false, work).await
    }

    /// Finishes what waits, then closes the connections; later use answers `Closed`. Idempotent.
    pub async fn close(&self) {
        self.0.writer.close().await;
        self.0.reader.close().await;
    }
}

impl From<rusqlite::Error> for BackendError {
    fn from(e: rusqlite::Error) -> Self {
        classify(&e)
    }
}

fn classify(e: &rusqlite::Error) -> BackendError {
    let reason = e.to_string();
    match e.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => BackendError::Busy,
        Some(ErrorCode::DiskFull) => BackendError::Full,
        Some(ErrorCode::ReadOnly) => BackendError::ReadOnly,
        Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
            BackendError::Open { target: "the database file".into(), reason }
        }
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => BackendError::Corrupt { reason },
        Some(ErrorCode::SystemIoFailure) => BackendError::Ambiguous { reason },
        _ => BackendError::Other { reason },
    }
}
