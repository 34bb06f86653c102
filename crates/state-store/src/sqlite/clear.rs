//! Emptying a namespace, a chunk a write, so that other writers get their turn in between.

use rusqlite::{Connection, params};

use super::{
    changes,
    tables::{execute, failed},
};
use crate::{error::StoreError, rules::is_live};

/// Rows of one write.
const CHUNK: i64 = 500;

/// What `clear` empties, one after the other. Versions and fences go on counting.
#[derive(Debug, Clone, Copy)]
pub(super) enum Part {
    Entries,
    Leases,
    Outboxes,
    Inboxes,
    ListValues,
    Lists,
    Changes,
}

impl Part {
    pub(super) const ALL: [Self; 7] =
        [Self::Entries, Self::Leases, Self::Outboxes, Self::Inboxes, Self::ListValues, Self::Lists, Self::Changes];

    /// Whether there may be more, and how many live keys went.
    pub(super) fn clear_chunk(self, conn: &Connection, ns: &str, now_ms: i64) -> Result<(bool, u64), StoreError> {
        // With each chunk, so that whoever follows the changes is never told of a state that is older than what it missed.
        changes::forget(conn, ns)?;
        let is_full = |rows: usize| i64::try_from(rows).is_ok_and(|rows| rows >= CHUNK);
        let keys = match self {
            Self::Entries => {
                "DELETE FROM state_entry WHERE id IN (SELECT id FROM state_entry WHERE ns = ?1 LIMIT ?2)
                 RETURNING expires_ms"
            }
            Self::Leases => {
                "UPDATE state_lease SET holder = NULL WHERE ns = ?1 AND name IN (
                     SELECT name FROM state_lease WHERE ns = ?1 AND holder IS NOT NULL LIMIT ?2)
                 RETURNING expires_ms"
            }
            Self::ListValues => {
                let sql = "DELETE FROM state_list_value WHERE (list, place) IN (
                               SELECT v.list, v.place FROM state_list l JOIN state_list_value v ON v.list = l.id
                               WHERE l.ns = ?1 ORDER BY l.id, v.place LIMIT ?2)";
                return execute(conn, sql, params![ns, CHUNK]).map(|rows| (is_full(rows), 0));
            }
            // A list that was pushed to meanwhile is as new as any key that was.
            Self::Lists => {
                "DELETE FROM state_list WHERE id IN (
                     SELECT id FROM state_list l WHERE ns = ?1
                     AND NOT EXISTS (SELECT 1 FROM state_list_value v WHERE v.list = l.id) LIMIT ?2)
                 RETURNING expires_ms"
            }
            Self::Changes => {
                let sql = "DELETE FROM state_change WHERE ns = ?1 AND number IN (
                               SELECT number FROM state_change WHERE ns = ?1 LIMIT ?2)";
                return execute(conn, sql, params![ns, CHUNK]).map(|rows| (is_full(rows), 0));
            }
            Self::Outboxes => {
                let sql = "DELETE FROM state_outbox WHERE id IN (SELECT id FROM state_outbox WHERE ns = ?1 LIMIT ?2)";
                return execute(conn, sql, params![ns, CHUNK]).map(|rows| (is_full(rows), 0));
            }
            Self::Inboxes => {
                let sql = "DELETE FROM state_inbox WHERE ns = ?1 AND (consumer, event_id) IN (
                               SELECT consumer, event_id FROM state_inbox WHERE ns = ?1 LIMIT ?2)";
                return execute(conn, sql, params![ns, CHUNK]).map(|rows| (is_full(rows), 0));
            }
        };
        let mut statement = conn.prepare_cached(keys).map_err(failed)?;
        let rows = statement.query_map(params![ns, CHUNK], |row| row.get::<_, Option<i64>>(0)).map_err(failed)?;
        let expiries = rows.collect::<rusqlite::Result<Vec<_>>>().map_err(failed)?;
        let live = expiries.iter().filter(|at| is_live(**at, now_ms)).count();
        Ok((is_full(expiries.len()), live as u64))
    }
}
