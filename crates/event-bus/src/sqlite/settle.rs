//! Ending claims; dead letters.

use infra_types::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

use super::{append, from_sql, group, to_sql};
use crate::{
    BusError, DeadLetter, Limits,
    broker::{Outcome, Settle, Settled},
};

pub(super) fn settle(
    conn: &Connection,
    name: &str,
    incarnation: &str,
    now: Timestamp,
    ends: &[Settle],
    limits: &Limits,
) -> Result<Settled, BusError> {
    let group = group::find(conn, name)?;
    let mut settled = Settled::default();
    for end in ends {
        let seq = to_sql(end.seq);
        let held: bool = conn
            .prepare_cached(
                "SELECT EXISTS (SELECT 1 FROM bus_delivery
                 WHERE group_id = ?1 AND seq = ?2 AND attempts = ?3 AND incarnation = ?4)",
            )?
            .query_row(params![group.id, seq, end.attempt, incarnation], |r| r.get(0))?;
        if !held {
            settled.lost += 1;
            continue;
        }
        match &end.outcome {
            Outcome::Ack => remove(conn, group.id, seq)?,
            Outcome::Dead { error } => settled.evicted += bury(conn, &group, seq, error, now, limits)?,
            Outcome::Retry { at, error } => {
                conn.prepare_cached(
                    "UPDATE bus_delivery SET consumer = NULL, incarnation = NULL, locked_until = 0, next_at = ?3,
                     last_error = ?4 WHERE group_id = ?1 AND seq = ?2",
                )?
                .execute(params![group.id, seq, at.as_nanos(), error])?;
            }
            Outcome::Release => {
                conn.prepare_cached(
                    "UPDATE bus_delivery SET consumer = NULL, incarnation = NULL, locked_until = 0,
                     attempts = attempts - 1 WHERE group_id = ?1 AND seq = ?2",
                )?
                .execute(params![group.id, seq])?;
            }
        }
    }
    Ok(settled)
}

/// Takes an event off a group's work and lets the next of its key step forward.
fn remove(conn: &Connection, group_id: i64, seq: i64) -> Result<(), BusError> {
    let gone: Option<(String, bool)> = conn
        .prepare_cached("DELETE FROM bus_delivery WHERE group_id = ?1 AND seq = ?2 RETURNING key, head")?
        .query_row(params![group_id, seq], |r| Ok((r.get(0)?, r.get(1)?)))
        .optional()?;
    let Some((key, was_head)) = gone else { return Ok(()) };
    if was_head {
        conn.prepare_cached(
            "UPDATE bus_delivery SET head = 1 WHERE group_id = ?1
             AND seq = (SELECT min(seq) FROM bus_delivery WHERE group_id = ?1 AND key = ?2)",
        )?
        .execute(params![group_id, key])?;
    }
    conn.prepare_cached("UPDATE bus_group SET pending = pending - 1 WHERE group_id = ?1")?.execute([group_id])?;
    append::done(conn, seq)
}

/// Moves an event to the dead letters; how many older ones made room.
pub(super) fn bury(
    conn: &Connection,
    group: &group::Group,
    seq: i64,
    error: &str,
    now: Timestamp,
    limits: &Limits,
) -> Result<u64, BusError> {
    conn.prepare_cached(
        "INSERT OR REPLACE INTO bus_dead (group_id, seq, error, attempts, at, id, topic, key, source, kind, time_ns,
         content_type, correlation, traceparent, data)
         SELECT ?1, e.seq, ?3, d.attempts, ?4, e.id, e.topic, e.key, e.source, e.kind, e.time_ns, e.content_type,
         e.correlation, e.traceparent, e.data
         FROM bus_event e JOIN bus_delivery d ON d.group_id = ?1 AND d.seq = e.seq WHERE e.seq = ?2",
    )?
    .execute(params![group.id, seq, error, now.as_nanos()])?;
    remove(conn, group.id, seq)?;
    let count: i64 = conn
        .prepare_cached("SELECT count(*) FROM bus_dead WHERE group_id = ?1")?
        .query_row([group.id], |r| r.get(0))?;
    let excess = count - to_sql(limits.dead_letters_max);
    if excess <= 0 {
        return Ok(0);
    }
    conn.prepare_cached(
        "DELETE FROM bus_dead WHERE group_id = ?1 AND seq IN
         (SELECT seq FROM bus_dead WHERE group_id = ?1 ORDER BY seq LIMIT ?2)",
    )?
    .execute(params![group.id, excess])?;
    Ok(from_sql(excess))
}

pub(super) fn dead_letters(conn: &Connection, name: &str, limit: usize) -> Result<Vec<DeadLetter>, BusError> {
    let group = group::find(conn, name)?;
    let mut select = conn.prepare_cached(
        "SELECT seq, error, attempts, at, id, topic, key, source, kind, time_ns, content_type, correlation, traceparent,
         data FROM bus_dead WHERE group_id = ?1 ORDER BY seq LIMIT ?2",
    )?;
    let rows = select.query_map(params![group.id, to_sql(limit as u64)], |row| {
        Ok(DeadLetter {
            group: name.into(),
            seq: from_sql(row.get(0)?),
            id: row.get(4)?,
            topic: row.get(5)?,
            envelope: append::decode(row, 4)?.ok(),
            error: row.get(1)?,
            attempts: row.get(2)?,
            at: Timestamp::from_nanos(row.get(3)?),
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}
