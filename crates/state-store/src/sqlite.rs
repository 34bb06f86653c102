//! State in one SQLite file: no server, shared by the processes of a host, survives their death.

mod changes;
mod clear;
mod lists;
mod reads;
mod tables;

use std::{
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use infra_backends::{Sqlite, SqliteConfig, Synchronous};
use infra_types::{Clock, Health, HealthStatus, Namespace};
use rusqlite::Connection;

use self::tables::{SCHEMA, Tables};
use crate::{
    batch::{Applied, Batch, OutboxPosition, OutboxRow},
    changes::{ChangePosition, Changes},
    error::StoreError,
    key::Key,
    list::{ListPage, ListRange},
    rules::{self, number_at},
    store::{Entry, Limits, Page, Scan, StateStore, StoreInfo},
    validate::{self, changes_not_kept},
};

/// A store in a SQLite file. The file is opened by the first use.
pub struct SqliteStateStore {
    sqlite: Sqlite,
    clock: Arc<dyn Clock>,
    limits: Limits,
    /// Whether closing the store closes the file: nobody else has the handle.
    owns_file: bool,
    /// Whether commits wait for the disk; on a shared handle the file's first use tells.
    syncs_fully: OnceLock<bool>,
    was_used: AtomicBool,
    is_closed: AtomicBool,
}

impl SqliteStateStore {
    /// A store on a handle that others may use as well; expiry is judged by `clock.wall()`. Closing the store leaves the handle
    /// open.
    #[must_use]
    pub fn new(sqlite: Sqlite, clock: Arc<dyn Clock>) -> Self {
        Self {
            sqlite,
            clock,
            limits: Limits::default(),
            owns_file: false,
            syncs_fully: OnceLock::new(),
            was_used: AtomicBool::new(false),
            is_closed: AtomicBool::new(false),
        }
    }

    /// A store on a file of its own; closing the store closes the file.
    #[must_use]
    pub fn open(config: SqliteConfig, clock: Arc<dyn Clock>) -> Self {
        let syncs_fully = OnceLock::from(config.synchronous == Synchronous::Full);
        Self { owns_file: true, syncs_fully, ..Self::new(Sqlite::new(config), clock) }
    }

    async fn ready(&self) -> Result<(), StoreError> {
        if self.is_closed.load(Ordering::Acquire) {
            return Err(StoreError::Closed);
        }
        self.was_used.store(true, Ordering::Release);
        self.sqlite.ready(&SCHEMA).await?;
        if self.syncs_fully.get().is_none() {
            let level =
                self.sqlite.read(|conn| tables::first(conn, "PRAGMA synchronous", [], |row| row.get(0))).await?;
            // 2 is FULL, 3 is EXTRA.
            self.syncs_fully.get_or_init(|| level.is_some_and(|level: i64| level >= 2));
        }
        Ok(())
    }

    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection, i64) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.ready().await?;
        // Read when the write lock is held: a batch that waited for it must not act on an old time.
        let clock = self.clock.clone();
        self.sqlite.write(move |conn| work(conn, clock.wall().as_millis())).await
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection, i64) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.ready().await?;
        let clock = self.clock.clone();
        self.sqlite.read(move |conn| work(conn, clock.wall().as_millis())).await
    }

    async fn probe(&self) -> Result<(), StoreError> {
        self.write(|conn, now_ms| {
            let sql = "INSERT INTO state_probe (id, at_ms) VALUES (1, ?1)
                       ON CONFLICT (id) DO UPDATE SET at_ms = excluded.at_ms";
            tables::execute(conn, sql, [now_ms]).map(|_| ())
        })
        .await
    }
}

#[async_trait]
impl StateStore for SqliteStateStore {
    async fn get_many(&self, namespace: &Namespace, keys: &[Key]) -> Result<Vec<Option<Entry>>, StoreError> {
        validate::keys(keys, &self.limits)?;
        let (namespace, keys) = (namespace.clone(), keys.to_vec());
        self.read(move |conn, now_ms| {
            keys.iter().map(|key| reads::entry(conn, namespace.as_str(), key, now_ms)).collect()
        })
        .await
    }

    async fn apply(&self, batch: Batch) -> Result<Vec<Applied>, StoreError> {
        validate::batch(&batch, &self.limits)?;
        self.write(move |conn, now_ms| {
            let mut rows = Tables::new(conn, batch.namespace.as_str());
            let applied = rules::apply(&mut rows, batch.ops, now_ms)?;
            rows.finish(now_ms)?;
            Ok(applied)
        })
        .await
    }

    async fn scan(&self, namespace: &Namespace, scan: Scan) -> Result<Page, StoreError> {
        validate::scan(&scan)?;
        let namespace = namespace.clone();
        self.read(move |conn, now_ms| reads::page(conn, namespace.as_str(), &scan, now_ms)).await
    }

    async fn list_range(&self, namespace: &Namespace, list: &Key, range: ListRange) -> Result<ListPage, StoreError> {
        validate::list(list, &range)?;
        let (namespace, list) = (namespace.clone(), list.clone());
        self.read(move |conn, now_ms| lists::page(conn, namespace.as_str(), &list, range, now_ms)).await
    }

    async fn changes_read(
        &self,
        namespace: &Namespace,
        after: Option<ChangePosition>,
        limit: usize,
    ) -> Result<Changes, StoreError> {
        validate::page(limit)?;
        let namespace = namespace.clone();
        self.read(move |conn, _| changes::page(conn, namespace.as_str(), after, limit)?.ok_or_else(changes_not_kept))
            .await
    }

    async fn outbox_read(
        &self,
        namespace: &Namespace,
        outbox: &Key,
        after: Option<OutboxPosition>,
        limit: usize,
    ) -> Result<Vec<OutboxRow>, StoreError> {
        validate::outbox(outbox, limit)?;
        let (namespace, outbox) = (namespace.clone(), outbox.clone());
        let after = after.map_or(0, number_at);
        self.read(move |conn, _| reads::outbox(conn, namespace.as_str(), &outbox, after, limit)).await
    }

    async fn clear(&self, namespace: &Namespace) -> Result<u64, StoreError> {
        let mut removed = 0;
        // One write a chunk, so that others get their turn in between.
        for part in clear::Part::ALL {
            loop {
                let namespace = namespace.clone();
                let chunk = move |conn: &Connection, now_ms| part.clear_chunk(conn, namespace.as_str(), now_ms);
                let (has_more, live) = self.write(chunk).await?;
                removed += live;
                if !has_more {
                    break;
                }
            }
        }
        Ok(removed)
    }

    async fn health(&self) -> Health {
        if !self.was_used.load(Ordering::Acquire) && !self.is_closed.load(Ordering::Acquire) {
            let detail = format!("{} was not opened yet", self.sqlite.path().display());
            return Health { status: HealthStatus::NeverConnected, detail, probe: None };
        }
        let start = self.clock.now();
        match self.probe().await {
            Ok(()) => Health::up(format!("{} takes writes", self.sqlite.path().display()))
                .with_probe(self.clock.now().since(start)),
            Err(e) => Health::down(e.to_string()),
        }
    }

    /// On a handle that [`new`](Self::new) was given, `survives_power_cut` is only claimed once the file was used.
    fn info(&self) -> StoreInfo {
        StoreInfo {
            backend: "sqlite",
            survives_process: true,
            survives_power_cut: self.syncs_fully.get().copied().unwrap_or(false),
            shared_between_processes: true,
            shared_between_hosts: false,
            uses_given_clock: true,
            limits: self.limits,
        }
    }

    async fn close(&self) -> Result<(), StoreError> {
        let was_closed = self.is_closed.swap(true, Ordering::AcqRel);
        if self.owns_file {
            self.sqlite.close().await;
        } else if !was_closed && self.was_used.load(Ordering::Acquire) {
            // The writer takes batches in their order: when this one is done, so is all that was begun before.
            self.sqlite.write::<_, StoreError, _>(|_| Ok(())).await?;
        }
        Ok(())
    }
}

impl fmt::Debug for SqliteStateStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStateStore").field("path", &self.sqlite.path()).finish_non_exhaustive()
    }
}
