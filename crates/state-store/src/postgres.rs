//! State in one PostgreSQL schema: shared by hosts, as durable as the server is.
//!
//! A batch is one statement, `SELECT * FROM state_apply(…)`, in auto-commit: one round trip, and no transaction that could stay open
//! between two of them. The function is written in PL/pgSQL (`postgres/*.sql`) and says what `rules.rs` says.
//!
//! * **Order.** The first thing a batch does is lock its namespace's row. So batches of one namespace happen one by one; numbers are
//!   given in the order of the commits, so a reader of an outbox or of changes never meets one that comes late before one that it
//!   has read; and no two batches can wait for each other, because each holds one such lock and takes it first. The statements after
//!   the lock see what was committed before, because in `READ COMMITTED` each statement of a volatile function has a snapshot of its
//!   own. Any other isolation is refused.
//! * **Time** is the server's `clock_timestamp()`, taken once a batch when the lock is held; reads take it once, after their snapshot.
//! * **A refusal** is an answer, not an error, so it leaves no line in the server's log. If the batch wrote before it refused, a
//!   savepoint takes that back.
//! * **Durability** is the server's: `synchronous_commit` is left as it is.

mod answer;
mod apply;
mod reads;

use std::{
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use infra_backends::{PgSchema, Postgres, PostgresConfig};
use infra_types::{Clock, Health, HealthStatus, Namespace};
use sqlx::Row;

use crate::{
    batch::{Applied, Batch, OutboxPosition, OutboxRow},
    changes::{ChangePosition, Changes},
    error::StoreError,
    key::Key,
    list::{ListPage, ListRange},
    rules::number_at,
    store::{Entry, Limits, Page, Scan, StateStore, StoreInfo},
    validate,
};

static SCHEMA: PgSchema = PgSchema {
    component: "state",
    steps: &[concat!(
        include_str!("postgres/tables.sql"),
        include_str!("postgres/tools.sql"),
        include_str!("postgres/apply.sql"),
        include_str!("postgres/clear.sql"),
    )],
};

/// Rows of one write of `clear`.
const CHUNK: i64 = 500;

/// A store in a PostgreSQL schema, on any number of hosts. The first use connects and brings the schema to its newest version.
///
/// It promises what [`StateStore`] does. Expiry is judged by the server's clock. An answered write survives a power cut if the server
/// has `fsync` on and the session does not have `synchronous_commit` off; [`info`](StateStore::info) tells. Batches of one namespace
/// happen one by one, each as long as its commit: what is independent and busy belongs in namespaces of its own. Cache keys are not
/// bounded but by their time to live. A namespace that stays locked for longer than the operation timeout refuses with kind
/// `Transient`, and nothing was written.
pub struct PostgresStateStore {
    postgres: Postgres,
    /// Measures the probe; expiry is the server's.
    clock: Arc<dyn Clock>,
    limits: Limits,
    /// Whether closing the store closes the connections: nobody else has the handle.
    owns_handle: bool,
    /// Whether the server waits for its disk before it answers; told by the first use.
    is_durable: OnceLock<bool>,
    was_used: AtomicBool,
    is_closed: AtomicBool,
}

impl PostgresStateStore {
    /// A store on a handle that others may use as well; `clock` measures probes only, expiry is judged by the server's clock.
    /// Closing the store leaves the handle open.
    #[must_use]
    pub fn new(postgres: Postgres, clock: Arc<dyn Clock>) -> Self {
        Self {
            postgres,
            clock,
            limits: Limits::default(),
            owns_handle: false,
            is_durable: OnceLock::new(),
            was_used: AtomicBool::new(false),
            is_closed: AtomicBool::new(false),
        }
    }

    /// A store with connections of its own; closing the store closes them. No I/O happens yet.
    ///
    /// # Errors
    /// `Backend` with kind `Invalid` for a setting that makes no sense.
    pub fn open(config: PostgresConfig, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        Ok(Self { owns_handle: true, ..Self::new(Postgres::new(config)?, clock) })
    }

    async fn ready(&self) -> Result<(), StoreError> {
        if self.is_closed.load(Ordering::Acquire) {
            return Err(StoreError::Closed);
        }
        self.was_used.store(true, Ordering::Release);
        self.postgres.ready(&SCHEMA).await?;
        if self.is_durable.get().is_none() {
            let sql = "SELECT current_setting('fsync') = 'on' AND current_setting('synchronous_commit') <> 'off'";
            let rows = self.postgres.read(|| sqlx::query(sql)).await?;
            let is_durable = answer::only(&rows)?.try_get(0).map_err(answer::damaged)?;
            self.is_durable.get_or_init(|| is_durable);
        }
        Ok(())
    }

    async fn probe(&self) -> Result<(), StoreError> {
        self.ready().await?;
        self.postgres.write(sqlx::query(include_str!("postgres/probe.sql"))).await?;
        Ok(())
    }
}

#[async_trait]
impl StateStore for PostgresStateStore {
    async fn get_many(&self, namespace: &Namespace, keys: &[Key]) -> Result<Vec<Option<Entry>>, StoreError> {
        validate::keys(keys, &self.limits)?;
        self.ready().await?;
        reads::entries(&self.postgres, namespace, keys).await
    }

    async fn apply(&self, batch: Batch) -> Result<Vec<Applied>, StoreError> {
        validate::batch(&batch, &self.limits)?;
        self.ready().await?;
        if batch.ops.is_empty() {
            return Ok(Vec::new());
        }
        if let Some(kind) = apply::sets_of_one_kind(&batch.ops) {
            let rows = self.postgres.write(apply::set_query(&batch, kind)).await?;
            return answer::of_sets(&batch, &rows);
        }
        let rows = self.postgres.write(apply::query(&batch)).await?;
        answer::of_batch(&batch, &rows)
    }

    async fn scan(&self, namespace: &Namespace, scan: Scan) -> Result<Page, StoreError> {
        validate::scan(&scan)?;
        self.ready().await?;
        reads::page(&self.postgres, namespace, &scan).await
    }

    async fn list_range(&self, namespace: &Namespace, list: &Key, range: ListRange) -> Result<ListPage, StoreError> {
        validate::list(list, &range)?;
        self.ready().await?;
        reads::list(&self.postgres, namespace, list, range).await
    }

    async fn changes_read(
        &self,
        namespace: &Namespace,
        after: Option<ChangePosition>,
        limit: usize,
    ) -> Result<Changes, StoreError> {
        validate::page(limit)?;
        self.ready().await?;
        reads::changes(&self.postgres, namespace, after, limit).await
    }

    async fn outbox_read(
        &self,
        namespace: &Namespace,
        outbox: &Key,
        after: Option<OutboxPosition>,
        limit: usize,
    ) -> Result<Vec<OutboxRow>, StoreError> {
        validate::outbox(outbox, limit)?;
        self.ready().await?;
        reads::outbox(&self.postgres, namespace, outbox, after.map_or(0, number_at), limit).await
    }

    async fn clear(&self, namespace: &Namespace) -> Result<u64, StoreError> {
        self.ready().await?;
        let mut removed = 0;
        loop {
            let chunk = sqlx::query("SELECT more, live FROM state_clear($1, $2)").bind(namespace.as_str()).bind(CHUNK);
            let rows = self.postgres.write(chunk).await?;
            let row = answer::only(&rows)?;
            removed += answer::unsigned(row.try_get("live").map_err(answer::damaged)?)?;
            if !row.try_get::<bool, _>("more").map_err(answer::damaged)? {
                return Ok(removed);
            }
        }
    }

    async fn health(&self) -> Health {
        let target = self.postgres.config().target();
        if !self.was_used.load(Ordering::Acquire) && !self.is_closed.load(Ordering::Acquire) {
            let detail = format!("{target} was not used yet");
            return Health { status: HealthStatus::NeverConnected, detail, probe: None };
        }
        let start = self.clock.now();
        match self.probe().await {
            Ok(()) => Health::up(format!("{target} takes writes")).with_probe(self.clock.now().since(start)),
            Err(e) => Health::down(e.to_string()),
        }
    }

    /// `survives_power_cut` is only claimed once the server was asked, which the first use does.
    fn info(&self) -> StoreInfo {
        StoreInfo {
            backend: "postgres",
            survives_process: true,
            survives_power_cut: self.is_durable.get().copied().unwrap_or(false),
            shared_between_processes: true,
            shared_between_hosts: true,
            uses_given_clock: false,
            limits: self.limits,
        }
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.is_closed.store(true, Ordering::Release);
        if self.owns_handle {
            self.postgres.close().await;
        }
        Ok(())
    }
}

impl fmt::Debug for PostgresStateStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let config = self.postgres.config();
        f.debug_struct("PostgresStateStore")
            .field("target", &config.target())
            .field("schema", &config.schema)
            .finish_non_exhaustive()
    }
}
