//! PostgreSQL 15 and later: a pool of connections that open by need, migrations, and errors that say what happened.

mod classify;
mod config;
mod connect;
mod ear;
mod listen;
mod migrate;
mod pool;
mod server;
mod url;
mod work;

use std::{
    sync::{Arc, OnceLock, atomic::Ordering::Relaxed},
    time::Duration,
};

use infra_types::{Clock, Health, HealthStatus, SystemClock};
use sqlx::Connection;
use tokio::{
    sync::OnceCell,
    time::{Instant, timeout_at},
};

use self::pool::Pool;
pub use self::{
    config::{PostgresConfig, PostgresTls},
    listen::{PostgresListener, PostgresSignal},
    migrate::PgSchema,
    pool::PostgresStatistics,
    server::PostgresServer,
    work::{PgQuery, PgTransaction, PgWork},
};
use crate::error::BackendError;

/// More components than this library has.
const COMPONENTS_MAX: usize = 16;

#[derive(Debug)]
struct Inner {
    pool: Pool,
    /// Filled from the front; once filled a place never changes, so finding a component is a few atomic loads.
    components: [OnceLock<(&'static str, OnceCell<()>)>; COMPONENTS_MAX],
}

/// A handle on one PostgreSQL database; clones share the connections. The first use connects.
#[derive(Debug, Clone)]
pub struct Postgres {
    inner: Arc<Inner>,
    operation_timeout: Duration,
}

impl Postgres {
    /// A handle; no I/O happens yet.
    ///
    /// # Errors
    /// `InvalidConfig` with the setting and the rule it breaks.
    pub fn new(config: PostgresConfig) -> Result<Self, BackendError> {
        config.validate()?;
        let operation_timeout = config.operation_timeout;
        let inner = Inner { pool: Pool::new(config), components: [const { OnceLock::new() }; COMPONENTS_MAX] };
        Ok(Self { inner: Arc::new(inner), operation_timeout })
    }

    /// The settings.
    #[must_use]
    pub fn config(&self) -> &PostgresConfig {
        &self.inner.pool.config
    }

    /// A handle on the same connections whose operations get `timeout`. The server still ends a statement after nine
    /// tenths of the configured `operation_timeout`, so longer is of use for transactions of several statements only.
    #[must_use]
    pub fn with_operation_timeout(&self, timeout: Duration) -> Self {
        Self { inner: Arc::clone(&self.inner), operation_timeout: timeout }
    }

    /// Makes sure that `schema` is at its newest version; after the first success it costs an atomic load. Processes that
    /// start at once wait for each other; each step is there wholly or not at all.
    ///
    /// # Errors
    /// `NewerSchema` and `ChangedMigration` leave the database untouched; `Migration` if a step fails, which undoes that
    /// step; `Busy` if another process migrates for longer than `migration_timeout`; those of connecting.
    ///
    /// # Cancel safety
    /// The steps that were committed stay, the one under way is undone; call again.
    pub async fn ready(&self, schema: &'static PgSchema) -> Result<(), BackendError> {
        if self.inner.pool.is_closed() {
            return Err(BackendError::Closed);
        }
        let place = self.inner.components.iter().find_map(|place| {
            let (name, cell) = place.get_or_init(|| (schema.component, OnceCell::new()));
            (*name == schema.component).then_some(cell)
        });
        let Some(cell) = place else {
            return Err(BackendError::Other { reason: format!("more than {COMPONENTS_MAX} components on one handle") });
        };
        cell.get_or_try_init(|| self.migrate(schema)).await.map(|_| ())
    }

    async fn migrate(&self, schema: &'static PgSchema) -> Result<(), BackendError> {
        let deadline = Instant::now() + self.config().migration_timeout;
        self.with_own_connection(deadline, async |conn| schema.apply(conn, self.config()).await, true).await
    }

    /// Opens a connection outside the pool for one piece of work and closes it, whatever comes out.
    async fn with_own_connection<T>(
        &self,
        deadline: Instant,
        work: impl AsyncFnOnce(&mut sqlx::PgConnection) -> Result<T, BackendError>,
        must_write: bool,
    ) -> Result<T, BackendError> {
        let pool = &self.inner.pool;
        pool.tried.store(true, Relaxed);
        let (mut conn, server) = pool.dial(deadline).await?;
        // Counts it as closed also if this future is dropped.
        let counted = Counted(pool);
        if must_write {
            server.check()?;
        }
        let answer = match timeout_at(deadline, work(&mut conn)).await {
            Ok(answer) => {
                // Politeness only; the socket closes either way.
                let _ = timeout_at(deadline.min(Instant::now() + Duration::from_millis(200)), conn.close()).await;
                answer
            }
            Err(_) => Err(BackendError::Busy),
        };
        drop(counted);
        answer
    }

    /// Asks the server what it is, also one that may not be written to. Opens a connection of its own.
    ///
    /// # Errors
    /// Those of connecting; `TooOld` and `ReadOnly` are not among them.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection and nothing else.
    pub async fn server(&self) -> Result<PostgresServer, BackendError> {
        if self.inner.pool.is_closed() {
            return Err(BackendError::Closed);
        }
        let deadline = Instant::now() + self.config().connect_timeout;
        let read = async |conn: &mut sqlx::PgConnection| {
            PostgresServer::read(conn).await.map_err(|e| classify::statement(&e, classify::Phase::NoEffect))
        };
        self.with_own_connection(deadline, read, false).await
    }

    /// Asks the server for an answer and measures how long it takes.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    ///
    /// # Cancel safety
    /// As `read`.
    pub async fn probe(&self) -> Result<Duration, BackendError> {
        let started = SystemClock.now();
        self.read(|| sqlx::query("SELECT 1")).await?;
        Ok(SystemClock.now().since(started))
    }

    /// How the database feels: `NeverConnected` before the first use, else the outcome of a [`probe`](Self::probe).
    ///
    /// # Cancel safety
    /// As `probe`.
    pub async fn health(&self) -> Health {
        if !self.inner.pool.tried.load(Relaxed) {
            let detail = format!("{} was not used yet", self.config().target());
            return Health { status: HealthStatus::NeverConnected, detail, probe: None };
        }
        match self.probe().await {
            Ok(took) => Health::up(self.config().target()).with_probe(took),
            Err(e) => Health::down(e.to_string()),
        }
    }

    /// Counts of this handle and its clones.
    #[must_use]
    pub fn statistics(&self) -> PostgresStatistics {
        self.inner.pool.statistics()
    }

    /// Takes no more work, waits up to the operation timeout for what runs, then closes the connections; later use
    /// answers `Closed`. Idempotent.
    pub async fn close(&self) {
        self.inner.pool.close(self.config().operation_timeout).await;
    }

    fn pool(&self) -> &Pool {
        &self.inner.pool
    }

    // Deadlines of I/O are tokio's own time, which its timer compares them with: a moved decision clock must not end a statement.
    fn deadline(&self) -> Instant {
        Instant::now() + self.operation_timeout
    }

    fn too_late(&self) -> String {
        format!("no answer within {:?}", self.operation_timeout)
    }
}

/// A connection outside the pool; dropped when it is closed.
struct Counted<'p>(&'p Pool);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.closed_one();
    }
}
