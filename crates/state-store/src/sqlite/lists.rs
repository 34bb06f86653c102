//! Lists: a row for each, and one for each of its values.

use bytes::Bytes;
use rusqlite::{Connection, params};

use super::tables::{execute, failed, first};
use crate::{
    error::StoreError,
    key::Key,
    list::{ListOrder, ListPage, ListRange},
    rules::{Head, is_live},
};

const FIND: &str = "SELECT id, expires_ms FROM state_list WHERE ns = ?1 AND name = ?2";

fn find(conn: &Connection, ns: &str, list: &Key) -> Result<Option<(i64, Option<i64>)>, StoreError> {
    first(conn, FIND, params![ns, list.name()], |row| Ok((row.get(0)?, row.get(1)?)))
}

pub(super) fn head(conn: &Connection, ns: &str, list: &Key) -> Result<Option<Head>, StoreError> {
    Ok(find(conn, ns, list)?.map(|(_, expires_ms)| Head { counter: None, version: 0, expires_ms }))
}

pub(super) fn remove(conn: &Connection, ns: &str, list: &Key) -> Result<(), StoreError> {
    if let Some((id, _)) = find(conn, ns, list)? {
        execute(conn, "DELETE FROM state_list_value WHERE list = ?1", [id])?;
        execute(conn, "DELETE FROM state_list WHERE id = ?1", [id])?;
    }
    Ok(())
}

pub(super) fn push(
    conn: &Connection,
    ns: &str,
    list: &Key,
    value: &Bytes,
    cap: u32,
    expires_ms: Option<i64>,
) -> Result<u32, StoreError> {
    let upsert = "INSERT INTO state_list (ns, name, expires_ms) VALUES (?1, ?2, ?3)
                  ON CONFLICT (ns, name) DO UPDATE SET expires_ms = excluded.expires_ms";
    execute(conn, upsert, params![ns, list.name(), expires_ms])?;
    let (id, _) = find(conn, ns, list)?.ok_or_else(|| StoreError::Corrupt { reason: "a list has no row".into() })?;
    let (from, to) = ends(conn, id)?;
    let place = to + 1;
    execute(
        conn,
        "INSERT INTO state_list_value (list, place, bytes) VALUES (?1, ?2, ?3)",
        params![id, place, &value[..]],
    )?;
    // Values fall off at the old end only, so the places that are left have no gap.
    let oldest = from.max(place - i64::from(cap) + 1);
    if oldest > from {
        execute(conn, "DELETE FROM state_list_value WHERE list = ?1 AND place < ?2", params![id, oldest])?;
    }
    Ok(u32::try_from(place - oldest + 1).unwrap_or(u32::MAX))
}

/// The places of the oldest and the newest value; `(1, 0)` for an empty list.
fn ends(conn: &Connection, id: i64) -> Result<(i64, i64), StoreError> {
    let sql = "SELECT (SELECT min(place) FROM state_list_value WHERE list = ?1),
                      (SELECT max(place) FROM state_list_value WHERE list = ?1)";
    let ends = first(conn, sql, [id], |row| Ok((row.get::<_, Option<i64>>(0)?, row.get::<_, Option<i64>>(1)?)))?;
    Ok(match ends {
        Some((Some(from), Some(to))) => (from, to),
        _ => (1, 0),
    })
}

pub(super) fn page(
    conn: &Connection,
    ns: &str,
    list: &Key,
    range: ListRange,
    now_ms: i64,
) -> Result<ListPage, StoreError> {
    let Some((id, _)) = find(conn, ns, list)?.filter(|(_, expires_ms)| is_live(*expires_ms, now_ms)) else {
        return Ok(ListPage::default());
    };
    let (from, to) = ends(conn, id)?;
    let length = u32::try_from(to - from + 1).unwrap_or(u32::MAX);
    let (skip, limit) = (i64::from(range.skip), i64::try_from(range.limit).unwrap_or(i64::MAX));
    // Places are dense, so what is skipped is never read.
    let (sql, start) = match range.order {
        ListOrder::NewestFirst => (
            "SELECT bytes FROM state_list_value WHERE list = ?1 AND place <= ?2 ORDER BY place DESC LIMIT ?3",
            to - skip,
        ),
        ListOrder::OldestFirst => {
            ("SELECT bytes FROM state_list_value WHERE list = ?1 AND place >= ?2 ORDER BY place LIMIT ?3", from + skip)
        }
    };
    let mut statement = conn.prepare_cached(sql).map_err(failed)?;
    let rows = statement.query_map(params![id, start, limit], |row| row.get::<_, Vec<u8>>(0)).map_err(failed)?;
    let values = rows.map(|row| row.map(Bytes::from)).collect::<rusqlite::Result<_>>().map_err(failed)?;
    Ok(ListPage { values, length })
}

/// Removes at most `max` values of expired lists, then the lists that are empty by that.
pub(super) fn sweep(conn: &Connection, now_ms: i64, max: i64) -> Result<(), StoreError> {
    let expired = "SELECT id FROM state_list WHERE expires_ms <= ?1 ORDER BY expires_ms LIMIT 1";
    if let Some(id) = first(conn, expired, [now_ms], |row| row.get::<_, i64>(0))? {
        let values = "DELETE FROM state_list_value WHERE list = ?1 AND place IN (
                          SELECT place FROM state_list_value WHERE list = ?1 ORDER BY place LIMIT ?2)";
        execute(conn, values, params![id, max])?;
        let list = "DELETE FROM state_list WHERE id = ?1
                    AND NOT EXISTS (SELECT 1 FROM state_list_value WHERE list = ?1)";
        execute(conn, list, [id])?;
    }
    Ok(())
}
