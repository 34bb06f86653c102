//! What a snapshot of the file answers.

use bytes::Bytes;
use infra_types::{EventId, Timestamp};
use rusqlite::{Connection, Row, ToSql, params, types::Value as SqlValue};

use super::tables::{LEASE, failed, first, kind_number, lease_row, signed, unsigned};
use crate::{
    batch::{OutboxPosition, OutboxRow, Version},
    error::StoreError,
    key::{Key, KeyKind},
    rules::is_live,
    store::{Entry, Page, Scan, Value},
};

pub(super) fn entry(conn: &Connection, ns: &str, key: &Key, now_ms: i64) -> Result<Option<Entry>, StoreError> {
    if key.kind() == KeyKind::Lease {
        return lease(conn, ns, key, now_ms);
    }
    let sql = "SELECT bytes, counter, version, expires_ms FROM state_entry WHERE ns = ?1 AND kind = ?2 AND name = ?3";
    let found = first(conn, sql, params![ns, kind_number(key.kind()), key.name()], |row| raw_entry(row, 0))?;
    let found = found.filter(|raw| is_live(raw.expires_ms, now_ms));
    found.map(|raw| raw.entry(key.kind())).transpose()
}

fn lease(conn: &Connection, ns: &str, key: &Key, now_ms: i64) -> Result<Option<Entry>, StoreError> {
    let row = first(conn, LEASE, params![ns, key.name()], lease_row)?.unwrap_or_default();
    Ok(row.live_holder(now_ms).map(|holder| Entry {
        value: Value::Bytes(Bytes::copy_from_slice(holder.as_bytes())),
        version: Some(Version(row.fence)),
        expires_at: Some(Timestamp::from_millis(row.expires_ms)),
    }))
}

pub(super) fn page(conn: &Connection, ns: &str, scan: &Scan, now_ms: i64) -> Result<Page, StoreError> {
    // Names compare as bytes (the BINARY collation), so a prefix is a range; LIKE would read `%` and `_` as wildcards.
    let (from, strictly) = match scan.after.as_deref() {
        Some(after) if after >= scan.prefix.as_str() => (after, true),
        _ => (scan.prefix.as_str(), false),
    };
    let sql = if strictly {
        "SELECT name, bytes, counter, version, expires_ms FROM state_entry
         WHERE ns = ?1 AND kind = ?2 AND name > ?3 AND name < ?4 AND (expires_ms IS NULL OR expires_ms > ?5)
         ORDER BY name LIMIT ?6"
    } else {
        "SELECT name, bytes, counter, version, expires_ms FROM state_entry
         WHERE ns = ?1 AND kind = ?2 AND name >= ?3 AND name < ?4 AND (expires_ms IS NULL OR expires_ms > ?5)
         ORDER BY name LIMIT ?6"
    };
    let mut statement = conn.prepare_cached(sql).map_err(failed)?;
    let (kind, end, limit) = (kind_number(KeyKind::Record), prefix_end(&scan.prefix), rows_max(scan.limit + 1));
    let bounds: [&dyn ToSql; 6] = [&ns, &kind, &from, &end, &now_ms, &limit];
    let mut rows = statement.query(bounds).map_err(failed)?;
    let mut page = Page::default();
    while let Some(row) = rows.next().map_err(failed)? {
        if page.entries.len() == scan.limit {
            page.next = page.entries.last().map(|(key, _)| key.name().to_owned());
            break;
        }
        let name: String = row.get(0).map_err(failed)?;
        let key = Key::record(name).map_err(|e| StoreError::Corrupt { reason: e.to_string() })?;
        page.entries.push((key, raw_entry(row, 1).map_err(failed)?.entry(KeyKind::Record)?));
    }
    Ok(page)
}

fn rows_max(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

/// What is greater than every text with this prefix: the prefix with its last character moved on. In SQLite a blob is greater
/// than every text.
fn prefix_end(prefix: &str) -> SqlValue {
    let mut chars: Vec<char> = prefix.chars().collect();
    while let Some(last) = chars.pop() {
        // Steps over the surrogates, which are no characters.
        let next = (u32::from(last) + 1..=u32::from(char::MAX)).find_map(char::from_u32);
        if let Some(next) = next {
            chars.push(next);
            return SqlValue::Text(chars.into_iter().collect());
        }
    }
    SqlValue::Blob(Vec::new())
}

pub(super) fn outbox(
    conn: &Connection,
    ns: &str,
    outbox: &Key,
    after: u64,
    limit: usize,
) -> Result<Vec<OutboxRow>, StoreError> {
    let sql = "SELECT number, order_key, event_id, payload FROM state_outbox
               WHERE ns = ?1 AND name = ?2 AND number > ?3 ORDER BY number LIMIT ?4";
    let mut statement = conn.prepare_cached(sql).map_err(failed)?;
    let mut rows = statement.query(params![ns, outbox.name(), signed(after), rows_max(limit)]).map_err(failed)?;
    let mut messages = Vec::new();
    while let Some(row) = rows.next().map_err(failed)? {
        messages.push(message(row)?);
    }
    Ok(messages)
}

fn message(row: &Row<'_>) -> Result<OutboxRow, StoreError> {
    let sequence = unsigned(row, 0).map_err(failed)?;
    let id: String = row.get(2).map_err(failed)?;
    let payload: Vec<u8> = row.get(3).map_err(failed)?;
    Ok(OutboxRow {
        position: OutboxPosition { transaction: 0, sequence },
        order_key: row.get(1).map_err(failed)?,
        id: EventId::new(id).map_err(|e| StoreError::Corrupt { reason: e.to_string() })?,
        payload: payload.into(),
    })
}

struct RawEntry {
    bytes: Option<Vec<u8>>,
    counter: Option<i64>,
    version: u64,
    expires_ms: Option<i64>,
}

/// Columns `bytes, counter, version, expires_ms` from `at` on.
fn raw_entry(row: &Row<'_>, at: usize) -> rusqlite::Result<RawEntry> {
    Ok(RawEntry {
        bytes: row.get(at)?,
        counter: row.get(at + 1)?,
        version: unsigned(row, at + 2)?,
        expires_ms: row.get(at + 3)?,
    })
}

impl RawEntry {
    fn entry(self, kind: KeyKind) -> Result<Entry, StoreError> {
        let value = match (self.bytes, self.counter) {
            (Some(bytes), None) => Value::Bytes(bytes.into()),
            (None, Some(counter)) => Value::Counter(counter),
            _ => return Err(StoreError::Corrupt { reason: "an entry is neither bytes nor a counter".into() }),
        };
        let version = (kind == KeyKind::Record).then_some(Version(self.version));
        Ok(Entry { value, version, expires_at: self.expires_ms.map(Timestamp::from_millis) })
    }
}
