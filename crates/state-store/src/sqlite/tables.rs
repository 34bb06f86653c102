//! The tables, and one namespace's rows inside a write transaction.

use bytes::Bytes;
use infra_backends::{BackendError, Schema};
use infra_types::EventId;
use rusqlite::{Connection, OptionalExtension, Row, ToSql, params};

use crate::{
    error::StoreError,
    key::{Key, KeyKind},
    rules::{Head, LeaseRow, Rows},
    store::Value,
};

/// Expired rows removed by one write at most: a batch never pays for a whole backlog.
const SWEEP_MAX: i64 = 100;

pub(super) static SCHEMA: Schema = Schema {
    component: "state",
    steps: &["
        CREATE TABLE state_namespace (ns TEXT PRIMARY KEY, last_number INTEGER NOT NULL) STRICT, WITHOUT ROWID;
        CREATE TABLE state_entry (
            id INTEGER PRIMARY KEY, ns TEXT NOT NULL, kind INTEGER NOT NULL, name TEXT NOT NULL,
            bytes BLOB, counter INTEGER, version INTEGER NOT NULL, expires_ms INTEGER,
            UNIQUE (ns, kind, name), CHECK ((bytes IS NULL) <> (counter IS NULL))) STRICT;
        CREATE INDEX state_entry_expiry ON state_entry (expires_ms) WHERE expires_ms IS NOT NULL;
        -- A row stays for ever: its fence must never start anew.
        CREATE TABLE state_lease (
            ns TEXT NOT NULL, name TEXT NOT NULL, fence INTEGER NOT NULL, holder TEXT, expires_ms INTEGER NOT NULL,
            PRIMARY KEY (ns, name)) STRICT, WITHOUT ROWID;
        CREATE TABLE state_outbox (
            id INTEGER PRIMARY KEY, ns TEXT NOT NULL, name TEXT NOT NULL, number INTEGER NOT NULL,
            order_key TEXT NOT NULL, event_id TEXT NOT NULL, payload BLOB NOT NULL,
            UNIQUE (ns, name, number)) STRICT;
        CREATE TABLE state_inbox (
            ns TEXT NOT NULL, consumer TEXT NOT NULL, event_id TEXT NOT NULL, expires_ms INTEGER,
            PRIMARY KEY (ns, consumer, event_id)) STRICT, WITHOUT ROWID;
        CREATE INDEX state_inbox_expiry ON state_inbox (expires_ms) WHERE expires_ms IS NOT NULL;
        CREATE TABLE state_probe (id INTEGER PRIMARY KEY CHECK (id = 1), at_ms INTEGER NOT NULL) STRICT;
    "],
};

/// What the database's failure means to a caller of the store.
pub(super) fn failed(e: rusqlite::Error) -> StoreError {
    use rusqlite::Error as E;
    match e {
        E::FromSqlConversionFailure(..)
        | E::IntegralValueOutOfRange(..)
        | E::InvalidColumnType(..)
        | E::Utf8Error(..) => StoreError::Corrupt { reason: e.to_string() },
        other => BackendError::from(other).into(),
    }
}

pub(super) fn execute(conn: &Connection, sql: &str, params: impl rusqlite::Params) -> Result<usize, StoreError> {
    conn.prepare_cached(sql).and_then(|mut statement| statement.execute(params)).map_err(failed)
}

pub(super) fn first<T>(
    conn: &Connection,
    sql: &str,
    params: impl rusqlite::Params,
    read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Option<T>, StoreError> {
    conn.prepare_cached(sql).and_then(|mut statement| statement.query_row(params, read).optional()).map_err(failed)
}

pub(super) fn kind_number(kind: KeyKind) -> i64 {
    match kind {
        KeyKind::Cache => 0,
        KeyKind::Record => 1,
        KeyKind::Lease => 2,
    }
}

/// SQLite's integers are signed; a bound beyond them is the largest one.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A count that was stored as SQLite's signed integer.
pub(super) fn unsigned(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let stored: i64 = row.get(column)?;
    u64::try_from(stored).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, stored))
}

pub(super) fn lease_row(row: &Row<'_>) -> rusqlite::Result<LeaseRow> {
    Ok(LeaseRow { fence: unsigned(row, 0)?, holder: row.get(1)?, expires_ms: row.get(2)? })
}

pub(super) const LEASE: &str = "SELECT fence, holder, expires_ms FROM state_lease WHERE ns = ?1 AND name = ?2";

/// One namespace's rows.
pub(super) struct Tables<'a> {
    conn: &'a Connection,
    ns: &'a str,
    /// The namespace's last number before this batch and now; read when the first one is needed.
    numbers: Option<(u64, u64)>,
}

impl<'a> Tables<'a> {
    pub(super) fn new(conn: &'a Connection, ns: &'a str) -> Self {
        Self { conn, ns, numbers: None }
    }

    /// Writes what was held back, then removes some of what has expired.
    pub(super) fn finish(self, now_ms: i64) -> Result<(), StoreError> {
        if let Some((before, last)) = self.numbers
            && before != last
        {
            let sql = "INSERT INTO state_namespace (ns, last_number) VALUES (?1, ?2)
                       ON CONFLICT (ns) DO UPDATE SET last_number = excluded.last_number";
            execute(self.conn, sql, params![self.ns, signed(last)])?;
        }
        let entries = "DELETE FROM state_entry WHERE id IN (
                           SELECT id FROM state_entry WHERE expires_ms <= ?1 ORDER BY expires_ms LIMIT ?2)";
        execute(self.conn, entries, params![now_ms, SWEEP_MAX])?;
        let marks = "DELETE FROM state_inbox WHERE (ns, consumer, event_id) IN (
                         SELECT ns, consumer, event_id FROM state_inbox WHERE expires_ms <= ?1 ORDER BY expires_ms LIMIT ?2)";
        execute(self.conn, marks, params![now_ms, SWEEP_MAX])?;
        Ok(())
    }
}

impl Rows for Tables<'_> {
    fn head(&mut self, key: &Key) -> Result<Option<Head>, StoreError> {
        let sql = "SELECT counter, version, expires_ms FROM state_entry WHERE ns = ?1 AND kind = ?2 AND name = ?3";
        first(self.conn, sql, params![self.ns, kind_number(key.kind()), key.name()], |row| {
            Ok(Head { counter: row.get(0)?, version: unsigned(row, 1)?, expires_ms: row.get(2)? })
        })
    }

    fn put(&mut self, key: &Key, value: Value, version: u64, expires_ms: Option<i64>) -> Result<(), StoreError> {
        let sql = "INSERT INTO state_entry (ns, kind, name, bytes, counter, version, expires_ms)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
                   ON CONFLICT (ns, kind, name) DO UPDATE SET bytes = excluded.bytes, counter = excluded.counter,
                       version = excluded.version, expires_ms = excluded.expires_ms";
        let bytes = value.as_bytes().map(|bytes| &bytes[..]);
        let kind = kind_number(key.kind());
        let row: [&dyn ToSql; 7] =
            [&self.ns, &kind, &key.name(), &bytes, &value.as_counter(), &signed(version), &expires_ms];
        execute(self.conn, sql, row).map(|_| ())
    }

    fn remove(&mut self, key: &Key) -> Result<(), StoreError> {
        let sql = "DELETE FROM state_entry WHERE ns = ?1 AND kind = ?2 AND name = ?3";
        execute(self.conn, sql, params![self.ns, kind_number(key.kind()), key.name()]).map(|_| ())
    }

    fn lease(&mut self, key: &Key) -> Result<LeaseRow, StoreError> {
        Ok(first(self.conn, LEASE, params![self.ns, key.name()], lease_row)?.unwrap_or_default())
    }

    fn put_lease(&mut self, key: &Key, row: LeaseRow) -> Result<(), StoreError> {
        let sql = "INSERT INTO state_lease (ns, name, fence, holder, expires_ms) VALUES (?1, ?2, ?3, ?4, ?5)
                   ON CONFLICT (ns, name) DO UPDATE SET fence = excluded.fence, holder = excluded.holder,
                       expires_ms = excluded.expires_ms";
        let fence = signed(row.fence);
        execute(self.conn, sql, params![self.ns, key.name(), fence, row.holder, row.expires_ms]).map(|_| ())
    }

    fn next_number(&mut self) -> Result<u64, StoreError> {
        let (before, last) = match self.numbers {
            Some(numbers) => numbers,
            None => {
                let sql = "SELECT last_number FROM state_namespace WHERE ns = ?1";
                let last = first(self.conn, sql, [self.ns], |row| unsigned(row, 0))?.unwrap_or(0);
                (last, last)
            }
        };
        self.numbers = Some((before, last + 1));
        Ok(last + 1)
    }

    fn enqueue(
        &mut self,
        outbox: &Key,
        number: u64,
        order: String,
        id: EventId,
        load: Bytes,
    ) -> Result<(), StoreError> {
        let sql = "INSERT INTO state_outbox (ns, name, number, order_key, event_id, payload)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        let row = params![self.ns, outbox.name(), signed(number), order, id.as_str(), &load[..]];
        execute(self.conn, sql, row).map(|_| ())
    }

    fn acknowledge(&mut self, outbox: &Key, number: u64) -> Result<(), StoreError> {
        let sql = "DELETE FROM state_outbox WHERE ns = ?1 AND name = ?2 AND number <= ?3";
        execute(self.conn, sql, params![self.ns, outbox.name(), signed(number)]).map(|_| ())
    }

    fn mark(&mut self, consumer: &Key, id: &EventId) -> Result<Option<Option<i64>>, StoreError> {
        let sql = "SELECT expires_ms FROM state_inbox WHERE ns = ?1 AND consumer = ?2 AND event_id = ?3";
        first(self.conn, sql, params![self.ns, consumer.name(), id.as_str()], |row| row.get(0))
    }

    fn put_mark(&mut self, consumer: &Key, id: EventId, expires_ms: Option<i64>) -> Result<(), StoreError> {
        let sql = "INSERT INTO state_inbox (ns, consumer, event_id, expires_ms) VALUES (?1, ?2, ?3, ?4)
                   ON CONFLICT (ns, consumer, event_id) DO UPDATE SET expires_ms = excluded.expires_ms";
        execute(self.conn, sql, params![self.ns, consumer.name(), id.as_str(), expires_ms]).map(|_| ())
    }
}
