//! The log in a SQLite file.
//!
//! One row an event, one row for the head. An append reads the head, inserts and writes the head in one `BEGIN IMMEDIATE`
//! transaction, so several processes make one chain; it is acknowledged after the commit, at the durability that the handle was
//! opened with. The stored bytes are what counts: the columns beside them serve searching, and verification compares them.

mod read;

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicU64, Ordering},
};

use async_trait::async_trait;
use infra_backends::{BackendError, Schema, Sqlite};
use infra_types::{Clock, Health};
use rusqlite::{Connection, OptionalExtension, params};
use tokio::sync::RwLock;

use self::read::Page;
use crate::{
    codec::Prepared,
    error::AuditError,
    event::AuditEvent,
    log::{AuditInfo, AuditLog, AuditPage, AuditQuery, Receipt, Statistics},
    note::Checkpoint,
    tree::{Frontier, TreeHead},
    verify::{Tampering, Verdict, Verifier},
};

static SCHEMA: Schema = Schema {
    component: "audit",
    steps: &["
    CREATE TABLE audit_event (
        idx INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, kind TEXT NOT NULL, symbol TEXT, user TEXT, at INTEGER NOT NULL,
        leaf_hash BLOB NOT NULL, data BLOB NOT NULL) STRICT;
    CREATE INDEX audit_event_kind ON audit_event (kind, idx);
    CREATE INDEX audit_event_symbol ON audit_event (symbol, idx) WHERE symbol IS NOT NULL;
    CREATE INDEX audit_event_user ON audit_event (user, idx) WHERE user IS NOT NULL;
    CREATE INDEX audit_event_at ON audit_event (at);
    CREATE TRIGGER audit_event_kept BEFORE UPDATE ON audit_event
        BEGIN SELECT raise(ABORT, 'audit events are never changed'); END;
    CREATE TRIGGER audit_event_stays BEFORE DELETE ON audit_event
        BEGIN SELECT raise(ABORT, 'audit events are never deleted'); END;
    CREATE TABLE audit_head (
        one INTEGER PRIMARY KEY CHECK (one = 1), size INTEGER NOT NULL, frontier BLOB NOT NULL) STRICT;
    INSERT INTO audit_head VALUES (1, 0, x'');
    "],
};

/// Rows of one step of a verification: what it holds in memory, and how long it keeps other readers waiting.
const VERIFY_PAGE: i64 = 512;

/// Turns a driver's error into ours inside a batch.
trait Sql<T> {
    fn sql(self) -> Result<T, AuditError>;
}

impl<T> Sql<T> for rusqlite::Result<T> {
    fn sql(self) -> Result<T, AuditError> {
        self.map_err(|e| BackendError::from(e).into())
    }
}

fn damaged(index: Option<u64>, reason: &str) -> AuditError {
    AuditError::Corrupt { index, reason: reason.into() }
}

/// A log in a SQLite file, which other ports and other processes may share.
#[derive(Debug)]
pub struct SqliteAuditLog {
    db: Sqlite,
    clock: Arc<dyn Clock>,
    /// How many appends ended without an answer, and for how many of them somebody has looked since.
    lost: AtomicU64,
    settled: AtomicU64,
    /// Whether it is closed; appends hold it for reading, so that closing waits for them.
    closed: RwLock<bool>,
    /// Whether commits wait for the disk; the first use tells.
    syncs_fully: OnceLock<bool>,
}

impl SqliteAuditLog {
    /// A log in the file of `db`; no I/O happens yet. `clock` times the health probe.
    #[must_use]
    pub fn new(db: Sqlite, clock: Arc<dyn Clock>) -> Self {
        Self {
            db,
            clock,
            lost: AtomicU64::new(0),
            settled: AtomicU64::new(0),
            closed: RwLock::new(false),
            syncs_fully: OnceLock::new(),
        }
    }

    fn is_unsettled(&self) -> bool {
        self.lost.load(Ordering::Acquire) > self.settled.load(Ordering::Acquire)
    }

    async fn ready(&self) -> Result<tokio::sync::RwLockReadGuard<'_, bool>, AuditError> {
        let closed = self.closed.read().await;
        if *closed {
            return Err(AuditError::Closed);
        }
        self.db.ready(&SCHEMA).await?;
        if self.syncs_fully.get().is_none() {
            let level: Result<i64, AuditError> =
                self.db.read(|conn| conn.query_row("PRAGMA synchronous", [], |row| row.get(0)).sql()).await;
            // 2 is FULL, 3 is EXTRA.
            let syncs_fully = level? >= 2;
            self.syncs_fully.get_or_init(|| syncs_fully);
        }
        Ok(closed)
    }

    /// On the writer's own connection, behind the write lock: what it sees is what the next append builds upon.
    async fn head_as_the_writer(&self) -> Result<TreeHead, AuditError> {
        let _open = self.ready().await?;
        self.db.write(|conn| read_frontier(conn).map(|frontier| frontier.head())).await
    }

    async fn read<T, F>(&self, work: F) -> Result<T, AuditError>
    where
        F: FnOnce(&Connection) -> Result<T, AuditError> + Send + 'static,
        T: Send + 'static,
    {
        let _open = self.ready().await?;
        self.db.read(work).await
    }
}

/// Fails if the rows visibly do not fit the head: appending to such a log would bury the trace.
fn read_frontier(conn: &Connection) -> Result<Frontier, AuditError> {
    let head = "SELECT size, frontier, (SELECT max(idx) FROM audit_event) FROM audit_head WHERE one = 1";
    let row = conn
        .prepare_cached(head)
        .and_then(|mut s| s.query_row([], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?))).optional())
        .sql()?;
    let (size, nodes, newest): (i64, Vec<u8>, Option<i64>) = row.ok_or_else(|| damaged(None, "its head is missing"))?;
    if newest.map_or(0, |newest| newest.saturating_add(1)) != size {
        return Err(damaged(None, "its rows do not fit its head"));
    }
    let frontier = u64::try_from(size).ok().and_then(|size| Frontier::from_node_bytes(size, &nodes));
    frontier.ok_or_else(|| damaged(None, "its head is not of the right shape"))
}

fn append(conn: &Connection, batch: &[Prepared]) -> Result<Vec<Receipt>, AuditError> {
    let mut frontier = read_frontier(conn)?;
    let before = frontier.size();
    let receipts = batch.iter().map(|prepared| append_one(conn, &mut frontier, prepared)).collect::<Result<_, _>>()?;
    if frontier.size() > before {
        let update = "UPDATE audit_head SET size = ?1, frontier = ?2 WHERE one = 1";
        let values = params![frontier.size().cast_signed(), frontier.node_bytes()];
        conn.prepare_cached(update).and_then(|mut s| s.execute(values)).sql()?;
    }
    Ok(receipts)
}

fn append_one(conn: &Connection, frontier: &mut Frontier, prepared: &Prepared) -> Result<Receipt, AuditError> {
    let event = &prepared.event;
    let stored = "SELECT idx, leaf_hash FROM audit_event WHERE id = ?1";
    let stored: Option<(i64, Vec<u8>)> = conn
        .prepare_cached(stored)
        .and_then(|mut s| s.query_row([event.id.as_str()], |r| Ok((r.get(0)?, r.get(1)?))).optional())
        .sql()?;
    if let Some((index, leaf)) = stored {
        let index = index.cast_unsigned();
        return if leaf == prepared.leaf.as_bytes() {
            Ok(Receipt { index, leaf_hash: prepared.leaf })
        } else {
            Err(AuditError::Conflict { id: event.id.clone(), index })
        };
    }
    let receipt = Receipt { index: frontier.size(), leaf_hash: prepared.leaf };
    let insert = "INSERT INTO audit_event (idx, id, kind, symbol, user, at, leaf_hash, data)
                  VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
    let values = params![
        receipt.index.cast_signed(),
        event.id.as_str(),
        event.kind.as_str(),
        event.symbol.as_ref().map(|symbol| symbol.as_str()),
        event.context.user.as_ref().map(|user| user.as_str()),
        event.at.as_nanos(),
        prepared.leaf.as_bytes(),
        prepared.data,
    ];
    conn.prepare_cached(insert).and_then(|mut s| s.execute(values)).sql()?;
    frontier.push(prepared.leaf);
    Ok(receipt)
}

#[async_trait]
impl AuditLog for SqliteAuditLog {
    async fn append_batch(&self, events: Vec<AuditEvent>) -> Result<Vec<Receipt>, AuditError> {
        let batch = Prepared::all(events)?;
        let _open = self.ready().await?;
        if self.is_unsettled() {
            return Err(AuditError::Unsettled);
        }
        let answer = self.db.write(move |conn| append(conn, &batch)).await;
        if matches!(answer, Err(AuditError::Ambiguous { .. })) {
            self.lost.fetch_add(1, Ordering::AcqRel);
        }
        answer
    }

    async fn query(&self, query: AuditQuery) -> Result<AuditPage, AuditError> {
        query.validate()?;
        self.read(move |conn| read::query(conn, &query)).await
    }

    async fn statistics(&self) -> Result<Statistics, AuditError> {
        self.read(read::statistics).await
    }

    async fn head(&self) -> Result<TreeHead, AuditError> {
        let lost = self.lost.load(Ordering::Acquire);
        if self.settled.load(Ordering::Acquire) >= lost {
            return self.read(|conn| read_frontier(conn).map(|frontier| frontier.head())).await;
        }
        let head = self.head_as_the_writer().await?;
        self.settled.fetch_max(lost, Ordering::AcqRel);
        Ok(head)
    }

    async fn verify(&self, checkpoint: Option<&Checkpoint>) -> Result<Verdict, AuditError> {
        let bad_head = Verdict::Tampered { first_bad_index: None, kind: Tampering::Head };
        // The head first: what is appended afterwards is left out, so that the log need not stand still.
        let Some((stated, newest)) = self.read(read::stated_head).await? else { return Ok(bad_head) };
        if newest.is_some_and(|newest| newest >= stated.size) {
            return Ok(Verdict::Tampered { first_bad_index: Some(stated.size), kind: Tampering::Surplus });
        }
        let mut verifier = Verifier::new(checkpoint);
        let mut after = i64::MIN;
        loop {
            let Page { rows, last } = self.read(move |conn| read::stored_rows(conn, after, VERIFY_PAGE)).await?;
            for row in rows {
                if verifier.size() == stated.size {
                    return Ok(verifier.finish(stated));
                }
                if let Err(verdict) = row.check(&mut verifier) {
                    return Ok(verdict);
                }
            }
            match last {
                Some(last) => after = last,
                None => return Ok(verifier.finish(stated)),
            }
        }
    }

    async fn health(&self) -> Health {
        let start = self.clock.now();
        if self.is_unsettled() {
            return Health::degraded("an append ended without an answer: ask for the head, then append it again");
        }
        match self.head_as_the_writer().await {
            Ok(head) => Health::up(format!("{} events in {}", head.size, self.db.path().display())),
            Err(e) => Health::down(e.to_string()),
        }
        .with_probe(self.clock.now().since(start))
    }

    fn info(&self) -> AuditInfo {
        AuditInfo {
            backend: "sqlite",
            survives_process: true,
            survives_power_cut: self.syncs_fully.get().copied().unwrap_or(false),
            shared_between_processes: true,
            shared_between_hosts: false,
            capacity: None,
        }
    }

    async fn close(&self) -> Result<(), AuditError> {
        *self.closed.write().await = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
