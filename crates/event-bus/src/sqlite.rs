//! Events in one SQLite file, shared by the processes of a host.

mod append;
mod claim;
mod dead;
mod delay;
mod event;
mod group;
mod lane;
mod ledger;
mod settle;
#[cfg(test)]
mod tests;

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use infra_backends::{Schema, Sqlite};
use infra_types::{Clock, EventId, Health, HealthStatus, Timestamp};
use rusqlite::Connection;

use crate::{
    Bus, BusConfig, BusError, BusInfo, DeadLetter, DelayPlace, DelayedEvent, GroupStatus, Limits,
    broker::{Append, Appended, Broker, Claim, Claims, GroupNames, GroupSpec, Page, Progress, Seq, Settle, Settled},
};

static SCHEMA: Schema = Schema {
    component: "bus",
    steps: &[
        include_str!("../migrations/sqlite/0001_bus.sql"),
        include_str!("../migrations/sqlite/0002_history.sql"),
        include_str!("../migrations/sqlite/0003_names.sql"),
    ],
};

/// A bus whose stored events are in a SQLite file. Closing the bus leaves the file's handle open: others may share it.
pub type SqliteEventBus = Bus<SqliteBroker>;

impl SqliteEventBus {
    /// A bus on a file, with the default [`BusConfig`]. No I/O happens here.
    #[must_use]
    pub fn new(sqlite: Sqlite, clock: Arc<dyn Clock>) -> Self {
        Self::with_config(sqlite, clock, BusConfig::default())
    }

    /// A bus on a file. No I/O happens here.
    #[must_use]
    pub fn with_config(sqlite: Sqlite, clock: Arc<dyn Clock>, config: BusConfig) -> Self {
        Self::with_broker(SqliteBroker::new(sqlite, config.limits), clock, config)
    }
}

/// Keeps events in the `bus_` tables of a SQLite file.
///
/// Each method is one transaction. An appended event survives the death of the process, and a power cut if the handle was opened
/// with `Synchronous::Full` (the default).
#[derive(Debug)]
pub struct SqliteBroker {
    sqlite: Sqlite,
    limits: Limits,
    /// Whether commits wait for the disk; the first use of the file tells.
    syncs_fully: OnceLock<bool>,
}

impl SqliteBroker {
    /// A store on a file. No I/O happens here.
    #[must_use]
    pub fn new(sqlite: Sqlite, limits: Limits) -> Self {
        Self { sqlite, limits, syncs_fully: OnceLock::new() }
    }

    async fn ready(&self) -> Result<(), BusError> {
        self.sqlite.ready(&SCHEMA).await?;
        if self.syncs_fully.get().is_none() {
            let pragma = |conn: &Connection| Ok(conn.query_row("PRAGMA synchronous", [], |r| r.get::<_, i64>(0))?);
            let level = self.sqlite.read::<_, BusError, _>(pragma).await?;
            // 2 is FULL, 3 is EXTRA.
            self.syncs_fully.get_or_init(|| level >= 2);
        }
        Ok(())
    }

    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, BusError> + Send + 'static,
    ) -> Result<T, BusError> {
        self.ready().await?;
        self.sqlite.write(work).await
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, BusError> + Send + 'static,
    ) -> Result<T, BusError> {
        self.ready().await?;
        self.sqlite.read(work).await
    }
}

#[async_trait]
impl Broker for SqliteBroker {
    /// `survives_power_cut` is only claimed once the file was used.
    fn info(&self) -> BusInfo {
        BusInfo {
            backend: "sqlite",
            survives_process: true,
            survives_power_cut: self.syncs_fully.get().copied().unwrap_or(false),
            shared_between_processes: true,
            live_between_processes: false,
            limits: self.limits,
        }
    }

    async fn append(&self, events: Vec<Append>) -> Vec<Result<Appended, BusError>> {
        if events.is_empty() {
            return Vec::new();
        }
        let (limits, count) = (self.limits, events.len());
        match self.write(move |conn| append::append(conn, &events, &limits)).await {
            Ok(answers) => answers,
            // The transaction failed as a whole, so each event shares its fate.
            Err(e) => (0..count).map(|_| Err(e.clone())).collect(),
        }
    }

    async fn delay(&self, event: Append, until: Timestamp, _now: Timestamp) -> Result<Appended, BusError> {
        let limits = self.limits;
        self.write(move |conn| delay::delay(conn, &event, until, &limits)).await
    }

    async fn open_group(&self, spec: GroupSpec) -> Result<(), BusError> {
        let limits = self.limits;
        self.write(move |conn| group::open(conn, &spec, &limits)).await
    }

    async fn remove_group(&self, group: &str) -> Result<bool, BusError> {
        let (name, limits) = (group.to_owned(), self.limits);
        self.write(move |conn| group::remove(conn, &name, &limits)).await
    }

    async fn take_over(&self, group: &str, consumer: &str, incarnation: &str) -> Result<u64, BusError> {
        let (name, consumer, incarnation) = (group.to_owned(), consumer.to_owned(), incarnation.to_owned());
        self.write(move |conn| claim::take_over(conn, &name, &consumer, &incarnation)).await
    }

    async fn claim(&self, claim: Claim) -> Result<Claims, BusError> {
        // Most looks find nothing, and a look does not need the write lock.
        let (look, limits) = (claim.clone(), self.limits);
        let (found, next_due) = self.read(move |conn| claim::look(conn, &look)).await?;
        if !found {
            return Ok(Claims { next_due, ..Claims::default() });
        }
        self.write(move |conn| claim::claim(conn, &claim, &limits)).await
    }

    async fn settle(
        &self,
        group: &str,
        incarnation: &str,
        now: Timestamp,
        ends: Vec<Settle>,
    ) -> Result<Settled, BusError> {
        let (name, incarnation, limits) = (group.to_owned(), incarnation.to_owned(), self.limits);
        self.write(move |conn| settle::settle(conn, &name, &incarnation, now, &ends, &limits)).await
    }

    async fn extend(
        &self,
        group: &str,
        incarnation: &str,
        until: Timestamp,
        claims: Vec<(Seq, u32)>,
    ) -> Result<(), BusError> {
        let (name, incarnation) = (group.to_owned(), incarnation.to_owned());
        self.write(move |conn| claim::extend(conn, &name, &incarnation, until, &claims)).await
    }

    async fn progress(&self, group: &str, through: Option<Seq>) -> Result<Progress, BusError> {
        let name = group.to_owned();
        self.read(move |conn| group::progress(conn, &name, through)).await
    }

    async fn status(&self, group: &str) -> Result<GroupStatus, BusError> {
        let name = group.to_owned();
        self.read(move |conn| group::status(conn, &name)).await
    }

    async fn groups(&self, after: &str, limit: usize) -> Result<Vec<GroupNames>, BusError> {
        let after = after.to_owned();
        self.read(move |conn| group::names(conn, &after, limit)).await
    }

    async fn delayed(&self, after: Option<DelayPlace>, limit: usize) -> Result<Vec<DelayedEvent>, BusError> {
        self.read(move |conn| delay::list(conn, after, limit)).await
    }

    async fn cancel_delayed(&self, id: &EventId) -> Result<bool, BusError> {
        let id = id.clone();
        self.write(move |conn| delay::cancel(conn, &id)).await
    }

    async fn dead_letters(&self, group: &str, after: Seq, limit: usize) -> Result<Vec<DeadLetter>, BusError> {
        let name = group.to_owned();
        self.read(move |conn| dead::letters(conn, &name, after, limit)).await
    }

    async fn redrive(&self, group: &str, letters: &[Seq]) -> Result<u64, BusError> {
        let (name, letters, limits) = (group.to_owned(), letters.to_vec(), self.limits);
        self.write(move |conn| dead::redrive(conn, &name, &letters, &limits)).await
    }

    async fn purge(&self, group: &str, letters: &[Seq]) -> Result<u64, BusError> {
        let (name, letters, limits) = (group.to_owned(), letters.to_vec(), self.limits);
        self.write(move |conn| dead::purge(conn, &name, &letters, &limits)).await
    }

    async fn history(&self, after: Seq, limit: usize) -> Result<Page, BusError> {
        self.read(move |conn| event::page(conn, after, limit)).await
    }

    async fn health(&self) -> Health {
        if self.syncs_fully.get().is_none() {
            let detail = "the database file was not used yet".into();
            return Health { status: HealthStatus::NeverConnected, detail, probe: None };
        }
        // Only a write tells a full disk or a lock that is never let go.
        let probe = self.write(|conn| {
            let sql = "UPDATE bus_meta SET value = value + 1 WHERE name = 'probe'";
            Ok(conn.prepare_cached(sql)?.execute([])?)
        });
        match probe.await {
            Ok(_) => Health::up("the database takes writes"),
            Err(e) => Health::down(e.to_string()),
        }
    }
}

impl From<rusqlite::Error> for BusError {
    fn from(e: rusqlite::Error) -> Self {
        infra_backends::BackendError::from(e).into()
    }
}

/// SQLite counts in `i64`; a place beyond that would take 292 years at a billion events a second.
fn to_sql(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn from_sql(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}
