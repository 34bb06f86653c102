//! A namespace's numbers, and the changes that it keeps.

use infra_types::Timestamp;
use rusqlite::{Connection, params};

use super::tables::{execute, failed, first, signed, unsigned};
use crate::{
    batch::Version,
    changes::{Change, ChangePosition, Changes},
    error::StoreError,
    key::Key,
};

/// A namespace's row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// The newest version or position that was given.
    pub(super) last_number: u64,
    /// How many changes are kept.
    pub(super) changes_max: u32,
    /// Changes up to and with this number are not known.
    changes_floor: u64,
    /// How many stand after the floor.
    changes_kept: u32,
}

impl Counts {
    pub(super) fn read(conn: &Connection, ns: &str) -> Result<Self, StoreError> {
        let sql = "SELECT last_number, changes_max, changes_floor, changes_kept FROM state_namespace WHERE ns = ?1";
        let found = first(conn, sql, [ns], |row| {
            let (last_number, changes_floor) = (unsigned(row, 0)?, unsigned(row, 2)?);
            Ok(Self { last_number, changes_max: row.get(1)?, changes_floor, changes_kept: row.get(3)? })
        })?;
        Ok(found.unwrap_or_default())
    }

    pub(super) fn store(self, conn: &Connection, ns: &str) -> Result<(), StoreError> {
        let sql = "INSERT INTO state_namespace (ns, last_number, changes_max, changes_floor, changes_kept)
                   VALUES (?1, ?2, ?3, ?4, ?5)
                   ON CONFLICT (ns) DO UPDATE SET last_number = excluded.last_number,
                       changes_max = excluded.changes_max, changes_floor = excluded.changes_floor,
                       changes_kept = excluded.changes_kept";
        let Self { last_number, changes_max, changes_floor, changes_kept } = self;
        execute(conn, sql, params![ns, signed(last_number), changes_max, signed(changes_floor), changes_kept])
            .map(|_| ())
    }
}

pub(super) fn keep(conn: &Connection, ns: &str, counts: &mut Counts, max: u32) -> Result<(), StoreError> {
    if counts.changes_max == 0 {
        counts.changes_floor = counts.last_number;
    }
    counts.changes_max = max;
    trim(conn, ns, counts)
}

pub(super) fn note(conn: &Connection, ns: &str, counts: &mut Counts, change: &Change) -> Result<(), StoreError> {
    let sql = "INSERT INTO state_change (ns, number, name, version, expires_ms) VALUES (?1, ?2, ?3, ?4, ?5)";
    let (version, expires_ms) = (change.version.map(|v| signed(v.0)), change.expires_at.map(Timestamp::as_millis));
    execute(conn, sql, params![ns, signed(change.position.0), change.key.name(), version, expires_ms])?;
    counts.changes_kept += 1;
    trim(conn, ns, counts)
}

/// Forgets the changes beyond the newest that are kept. Looks from the floor on: what is kept may be much.
fn trim(conn: &Connection, ns: &str, counts: &mut Counts) -> Result<(), StoreError> {
    let Some(beyond) = counts.changes_kept.checked_sub(counts.changes_max).filter(|beyond| *beyond > 0) else {
        return Ok(());
    };
    let last = "SELECT number FROM state_change WHERE ns = ?1 AND number > ?2 ORDER BY number LIMIT 1 OFFSET ?3";
    let last = first(conn, last, params![ns, signed(counts.changes_floor), beyond - 1], |row| unsigned(row, 0))?;
    let last = last.ok_or_else(|| StoreError::Corrupt { reason: "fewer changes are kept than were counted".into() })?;
    execute(conn, "DELETE FROM state_change WHERE ns = ?1 AND number <= ?2", params![ns, signed(last)])?;
    counts.changes_floor = last;
    counts.changes_kept = counts.changes_max;
    Ok(())
}

/// Tells whoever follows the changes that some are missing.
pub(super) fn forget(conn: &Connection, ns: &str) -> Result<(), StoreError> {
    let mut counts = Counts::read(conn, ns)?;
    if counts.changes_max == 0 {
        return Ok(());
    }
    counts.last_number += 1;
    counts.changes_floor = counts.last_number;
    counts.changes_kept = 0;
    counts.store(conn, ns)
}

/// None if no changes are kept.
pub(super) fn page(
    conn: &Connection,
    ns: &str,
    after: Option<ChangePosition>,
    limit: usize,
) -> Result<Option<Changes>, StoreError> {
    let counts = Counts::read(conn, ns)?;
    if counts.changes_max == 0 {
        return Ok(None);
    }
    let end = ChangePosition(counts.last_number);
    let Some(after) = after else { return Ok(Some(Changes { changes: Vec::new(), next: end, gap: false })) };
    if after.0 < counts.changes_floor || after > end {
        return Ok(Some(Changes { changes: Vec::new(), next: end, gap: true }));
    }
    let sql = "SELECT number, name, version, expires_ms FROM state_change
               WHERE ns = ?1 AND number > ?2 ORDER BY number LIMIT ?3";
    let mut statement = conn.prepare_cached(sql).map_err(failed)?;
    let rows_max = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut rows = statement.query(params![ns, signed(after.0), rows_max]).map_err(failed)?;
    let mut changes = Vec::new();
    while let Some(row) = rows.next().map_err(failed)? {
        let name: String = row.get(1).map_err(failed)?;
        let version: Option<i64> = row.get(2).map_err(failed)?;
        let expires_ms: Option<i64> = row.get(3).map_err(failed)?;
        changes.push(Change {
            position: ChangePosition(unsigned(row, 0).map_err(failed)?),
            key: Key::record(name).map_err(|e| StoreError::Corrupt { reason: e.to_string() })?,
            version: version.and_then(|v| u64::try_from(v).ok()).map(Version),
            expires_at: expires_ms.map(Timestamp::from_millis),
        });
    }
    let next = changes.last().map_or(after, |change| change.position);
    Ok(Some(Changes { changes, next, gap: false }))
}
