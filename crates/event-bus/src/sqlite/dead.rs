//! Dead letters: burying, reading, putting back to work, removing.

use infra_types::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

use super::{append, event, from_sql, group, ledger::Ledger, settle, to_sql};
use crate::{BusError, DeadLetter, Limits, broker::Seq};

pub(super) const LETTERS: &str =
    "SELECT seq, error, attempts, at, id, topic, key, source, kind, time_ns, content_type, correlation, traceparent, data
     FROM bus_dead WHERE group_id = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3";
pub(super) const MAKE_ROOM: &str = "DELETE FROM bus_dead WHERE group_id = ?1 AND seq IN
     (SELECT seq FROM bus_dead WHERE group_id = ?1 ORDER BY seq LIMIT ?2)";

/// Moves an event of `ledger.groups[at]` to the dead letters; how many older ones made room.
pub(super) fn bury(ledger: &mut Ledger<'_>, at: usize, seq: i64, error: &str, now: Timestamp) -> Result<u64, BusError> {
    let id = ledger.groups[at].id;
    let buried = ledger
        .conn
        .prepare_cached(
            "INSERT INTO bus_dead (group_id, seq, error, attempts, at, id, topic, key, source, kind, time_ns,
             content_type, correlation, traceparent, priority, data)
             SELECT ?1, e.seq, ?3, d.attempts, ?4, e.id, e.topic, e.key, e.source, e.kind, e.time_ns, e.content_type,
             e.correlation, e.traceparent, d.priority, e.data
             FROM bus_event e JOIN bus_delivery d ON d.group_id = ?1 AND d.seq = e.seq WHERE e.seq = ?2",
        )?
        .execute(params![id, seq, error, now.as_nanos()])?;
    settle::remove(ledger, at, seq)?;
    let group = &mut ledger.groups[at];
    group.dead += buried as u64;
    let excess = group.dead.saturating_sub(ledger.limits.dead_letters_max);
    if excess == 0 {
        return Ok(0);
    }
    let gone = ledger.conn.prepare_cached(MAKE_ROOM)?.execute(params![id, to_sql(excess)])? as u64;
    group.dead -= gone;
    Ok(gone)
}

pub(super) fn letters(conn: &Connection, name: &str, after: Seq, limit: usize) -> Result<Vec<DeadLetter>, BusError> {
    let group = group::find(conn, name)?;
    let mut select = conn.prepare_cached(LETTERS)?;
    let rows = select.query_map(params![group.id, to_sql(after), to_sql(limit as u64)], |row| {
        Ok(DeadLetter {
            group: name.into(),
            seq: from_sql(row.get(0)?),
            id: row.get(4)?,
            topic: row.get(5)?,
            envelope: event::decode(row, 4)?.ok(),
            error: row.get(1)?,
            attempts: row.get(2)?,
            at: Timestamp::from_nanos(row.get(3)?),
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

pub(super) fn redrive(conn: &Connection, name: &str, letters: &[Seq], limits: &Limits) -> Result<u64, BusError> {
    let mut ledger = Ledger::of_one(conn, limits, name)?;
    let (group, pending) = (ledger.groups[0].id, ledger.groups[0].pending);
    let mut select = conn.prepare_cached(
        "SELECT id, topic, key, source, kind, time_ns, content_type, correlation, traceparent, data, priority
         FROM bus_dead WHERE group_id = ?1 AND seq = ?2",
    )?;
    let mut found: Vec<(i64, String, bool)> = Vec::with_capacity(letters.len());
    for seq in letters.iter().map(|seq| to_sql(*seq)) {
        let read = |row: &rusqlite::Row<'_>| Ok((event::decode(row, 0)?, row.get(10)?));
        // What cannot be read would come back at once.
        if let Some((Ok(event), is_priority)) = select.query_row(params![group, seq], read).optional()? {
            found.push((seq, event.key, is_priority));
        }
    }
    if pending.saturating_add(found.len() as u64) > limits.backlog_max {
        return Err(BusError::BacklogFull { group: name.into(), pending });
    }
    let mut moved = 0;
    for (seq, key, is_priority) in found {
        let copied = conn
            .prepare_cached(
                "INSERT INTO bus_event (id, topic, key, source, kind, time_ns, content_type, correlation, traceparent,
                 priority, outstanding, wanted, copy, data)
                 SELECT id, topic, key, source, kind, time_ns, content_type, correlation, traceparent, priority, 1, 1, 1, data
                 FROM bus_dead WHERE group_id = ?1 AND seq = ?2",
            )?
            .execute(params![group, seq])?;
        if copied == 0 {
            // It was asked for twice.
            continue;
        }
        append::lay_out(conn, group, conn.last_insert_rowid(), &key, is_priority)?;
        ledger.groups[0].pending += 1;
        moved += drop_letter(&mut ledger, seq)?;
    }
    ledger.save()?;
    Ok(moved)
}

pub(super) fn purge(conn: &Connection, name: &str, letters: &[Seq], limits: &Limits) -> Result<u64, BusError> {
    let mut ledger = Ledger::of_one(conn, limits, name)?;
    let mut gone = 0;
    for seq in letters {
        gone += drop_letter(&mut ledger, to_sql(*seq))?;
    }
    ledger.save()?;
    Ok(gone)
}

fn drop_letter(ledger: &mut Ledger<'_>, seq: i64) -> Result<u64, BusError> {
    let group = &mut ledger.groups[0];
    let mut delete = ledger.conn.prepare_cached("DELETE FROM bus_dead WHERE group_id = ?1 AND seq = ?2")?;
    let gone = delete.execute(params![group.id, seq])? as u64;
    group.dead = group.dead.saturating_sub(gone);
    Ok(gone)
}
