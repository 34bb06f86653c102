//! The tables, and one namespace's rows inside a write transaction.

use bytes::Bytes;
use infra_backends::{BackendError, Schema};
use infra_types::EventId;
use rusqlite::{Connection, OptionalExtension, Row, ToSql, params};

use super::{
    changes::{self, Counts},
    lists,
};
use crate::{
    changes::Change,
    error::StoreError,
    key::{Key, KeyKind},
    rules::{Head, LeaseRow, Rows},
    store::Value,
    window::Slots,
};

/// Expired rows removed by one write at most: a batch never pays for a whole backlog.
const SWEEP_MAX: i64 = 100;

pub(super) static SCHEMA: Schema = Schema {
    component: "state",
    steps: &[
        "
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
    ",
        "
        CREATE TABLE state_list (
            id INTEGER PRIMARY KEY, ns TEXT NOT NULL, name TEXT NOT NULL, expires_ms INTEGER, UNIQUE (ns, name)) STRICT;
        CREATE INDEX state_list_expiry ON state_list (expires_ms) WHERE expires_ms IS NOT NULL;
        CREATE TABLE state_list_value (
            list INTEGER NOT NULL REFERENCES state_list (id), place INTEGER NOT NULL, bytes BLOB NOT NULL,
            PRIMARY KEY (list, place)) STRICT, WITHOUT ROWID;
        -- 0 keeps no changes; up to and with the floor they are not known; so many stand after it.
        ALTER TABLE state_namespace ADD COLUMN changes_max INTEGER NOT NULL DEFAULT 0;
        ALTER TABLE state_namespace ADD COLUMN changes_floor INTEGER NOT NULL DEFAULT 0;
        ALTER TABLE state_namespace ADD COLUMN changes_kept INTEGER NOT NULL DEFAULT 0;
        CREATE TABLE state_change (
            ns TEXT NOT NULL, number INTEGER NOT NULL, name TEXT NOT NULL, version INTEGER, expires_ms INTEGER,
            PRIMARY KEY (ns, number)) STRICT, WITHOUT ROWID;
    ",
    ],
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
        KeyKind::List => 3,
        KeyKind::Window => 4,
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
    /// The namespace's last number and its changes, as stored and as of this batch; read when they are first needed.
    counts: Option<(Counts, Counts)>,
}

impl<'a> Tables<'a> {
    pub(super) fn new(conn: &'a Connection, ns: &'a str) -> Self {
        Self { conn, ns, counts: None }
    }

    fn counts(&mut self) -> Result<&mut Counts, StoreError> {
        let counts = match self.counts {
            Some(counts) => counts,
            None => {
                let stored = Counts::read(self.conn, self.ns)?;
                (stored, stored)
            }
        };
        Ok(&mut self.counts.insert(counts).1)
    }

    /// Writes what was held back, then removes some of what has expired.
    pub(super) fn finish(self, now_ms: i64) -> Result<(), StoreError> {
        if let Some((before, now)) = self.counts
            && before != now
        {
            now.store(self.conn, self.ns)?;
        }
        let entries = "DELETE FROM state_entry WHERE id IN (
                           SELECT id FROM state_entry WHERE expires_ms <= ?1 ORDER BY expires_ms LIMIT ?2)";
        execute(self.conn, entries, params![now_ms, SWEEP_MAX])?;
        let marks = "DELETE FROM state_inbox WHERE (ns, consumer, event_id) IN (
                         SELECT ns, consumer, event_id FROM state_inbox WHERE expires_ms <= ?1 ORDER BY expires_ms LIMIT ?2)";
        execute(self.conn, marks, params![now_ms, SWEEP_MAX])?;
        lists::sweep(self.conn, now_ms, SWEEP_MAX)
    }
}

impl Rows for Tables<'_> {
    fn head(&mut self, key: &Key) -> Result<Option<Head>, StoreError> {
        if key.kind() == KeyKind::List {
            return lists::head(self.conn, self.ns, key);
        }
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
        if key.kind() == KeyKind::List {
            return lists::remove(self.conn, self.ns, key);
        }
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
        let counts = self.counts()?;
        counts.last_number += 1;
        Ok(counts.last_number)
    }

    fn push(&mut self, list: &Key, value: Bytes, cap: u32, expires_ms: Option<i64>) -> Result<u32, StoreError> {
        lists::push(self.conn, self.ns, list, &value, cap, expires_ms)
    }

    fn window(&mut self, key: &Key) -> Result<Slots, StoreError> {
        let sql = "SELECT bytes FROM state_entry WHERE ns = ?1 AND kind = ?2 AND name = ?3";
        let found = first(self.conn, sql, params![self.ns, kind_number(key.kind()), key.name()], |row| {
            row.get::<_, Vec<u8>>(0)
        })?;
        found.map_or(Ok(Slots::default()), |bytes| Slots::decode(&bytes))
    }

    fn keeps_changes(&mut self) -> Result<bool, StoreError> {
        Ok(self.counts()?.changes_max > 0)
    }

    fn keep_changes(&mut self, max: u32) -> Result<(), StoreError> {
        let (conn, ns) = (self.conn, self.ns);
        changes::keep(conn, ns, self.counts()?, max)
    }

    fn note(&mut self, change: Change) -> Result<(), StoreError> {
        let (conn, ns) = (self.conn, self.ns);
        changes::note(conn, ns, self.counts()?, &change)
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
