//! Storing events and laying them out for the groups; reading them back.

use std::sync::Arc;

use infra_types::{Envelope, EventId, InvalidValue, Timestamp, Topic};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{from_sql, group, to_sql};
use crate::{
    BusError, Limits,
    broker::{Appended, Seq},
};

/// Ids forgotten in one write at most, so that no single publish pays for all.
const FORGET_MAX: i64 = 512;

pub(super) fn append(
    conn: &Connection,
    events: &[Arc<Envelope>],
    limits: &Limits,
) -> Result<Vec<Result<Appended, BusError>>, BusError> {
    let mut groups = group::all(conn)?;
    let mut answers = Vec::with_capacity(events.len());
    let mut newest = 0;
    for event in events {
        let answer = append_one(conn, event, &mut groups, limits)?;
        if let Ok(Appended { seq, duplicate: false, .. }) = answer {
            newest = seq;
        }
        answers.push(answer);
    }
    if newest > limits.dedup_window {
        let sql = "DELETE FROM bus_event WHERE seq IN (SELECT seq FROM bus_event
                   WHERE outstanding = 0 AND kept = 0 AND seq <= ?1 ORDER BY seq LIMIT ?2)";
        conn.prepare_cached(sql)?.execute(params![to_sql(newest - limits.dedup_window), FORGET_MAX])?;
    }
    Ok(answers)
}

/// The outer error fails the whole write, the inner one this event alone.
fn append_one(
    conn: &Connection,
    event: &Envelope,
    groups: &mut [group::Group],
    limits: &Limits,
) -> Result<Result<Appended, BusError>, BusError> {
    let known: Option<i64> = conn
        .prepare_cached("SELECT seq FROM bus_event WHERE id = ?1")?
        .query_row([event.id.as_str()], |r| r.get(0))
        .optional()?;
    if let Some(seq) = known {
        return Ok(Ok(Appended { seq: from_sql(seq), duplicate: true, evicted: 0 }));
    }
    let wants = |g: &group::Group| g.pattern.matches(&event.topic);
    if let Some(full) = groups.iter().find(|g| wants(g) && g.pending >= limits.backlog_max) {
        return Ok(Err(BusError::BacklogFull { group: full.name.clone(), pending: full.pending }));
    }
    let wanted = groups.iter().filter(|g| wants(g)).count();
    conn.prepare_cached(
        "INSERT INTO bus_event (id, topic, key, source, kind, time_ns, content_type, correlation, traceparent, data,
         outstanding, kept) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
    )?
    .execute(params![
        event.id.as_str(),
        event.topic.as_str(),
        event.key,
        event.source,
        event.kind,
        event.time.as_nanos(),
        event.content_type,
        event.correlation.to_string(),
        event.traceparent,
        event.data.as_ref(),
        wanted as i64,
        i64::from(wanted == 0),
    ])?;
    let seq = conn.last_insert_rowid();
    for group in groups.iter_mut().filter(|g| g.pattern.matches(&event.topic)) {
        lay_out(conn, group.id, seq, &event.key)?;
        group.pending += 1;
    }
    let evicted = if wanted == 0 { keep(conn, limits)? } else { 0 };
    Ok(Ok(Appended { seq: from_sql(seq), duplicate: false, evicted }))
}

/// Adds one event to a group's work.
pub(super) fn lay_out(conn: &Connection, group_id: i64, seq: i64, key: &str) -> Result<(), BusError> {
    conn.prepare_cached(
        "INSERT INTO bus_delivery (group_id, seq, key, head, attempts, next_at, locked_until, lease, last_error)
         VALUES (?1, ?2, ?3, NOT EXISTS (SELECT 1 FROM bus_delivery WHERE group_id = ?1 AND key = ?3), 0, 0, 0, 0, '')",
    )?
    .execute(params![group_id, seq, key])?;
    conn.prepare_cached("UPDATE bus_group SET pending = pending + 1 WHERE group_id = ?1")?.execute([group_id])?;
    Ok(())
}

/// Counts one more event without a group; how many of the oldest had to go.
fn keep(conn: &Connection, limits: &Limits) -> Result<u64, BusError> {
    let sql = "UPDATE bus_meta SET value = value + 1 WHERE name = 'kept' RETURNING value";
    let kept: i64 = conn.prepare_cached(sql)?.query_row([], |r| r.get(0))?;
    let excess = kept - to_sql(limits.unrouted_max);
    if excess <= 0 {
        return Ok(0);
    }
    let sql = "UPDATE bus_event SET kept = 0, data = x'' WHERE seq IN
               (SELECT seq FROM bus_event WHERE kept = 1 ORDER BY seq LIMIT ?1)";
    let gone = conn.prepare_cached(sql)?.execute([excess])?;
    conn.prepare_cached("UPDATE bus_meta SET value = value - ?1 WHERE name = 'kept'")?.execute([gone as i64])?;
    Ok(gone as u64)
}

/// An event from its columns (`id, topic, key, source, kind, time_ns, content_type, correlation, traceparent, data`), which begin
/// at `at`. The inner error says that what is stored is no event of ours.
pub(super) fn decode(row: &Row<'_>, at: usize) -> rusqlite::Result<Result<Envelope, InvalidValue>> {
    match decode_columns(row, at) {
        // A column of the wrong type is as unreadable as a bad name.
        Err(e @ (rusqlite::Error::InvalidColumnType(..) | rusqlite::Error::FromSqlConversionFailure(..))) => {
            Ok(Err(InvalidValue::new("event", e.to_string())))
        }
        other => other,
    }
}

fn decode_columns(row: &Row<'_>, at: usize) -> rusqlite::Result<Result<Envelope, InvalidValue>> {
    let text = |n: usize| row.get::<_, String>(at + n);
    let (id, topic, correlation) = (text(0)?, text(1)?, text(7)?);
    let parse = || Ok((EventId::new(id)?, Topic::new(topic)?, correlation.parse()?));
    let (id, topic, correlation) = match parse() {
        Ok(parsed) => parsed,
        Err(e) => return Ok(Err(e)),
    };
    Ok(Ok(Envelope {
        id,
        topic,
        key: text(2)?,
        source: text(3)?,
        kind: text(4)?,
        time: Timestamp::from_nanos(row.get(at + 5)?),
        content_type: text(6)?,
        correlation,
        traceparent: row.get(at + 8)?,
        data: row.get::<_, Vec<u8>>(at + 9)?.into(),
    }))
}

/// Reads a stored event; the inner error says why it cannot be read.
pub(super) fn load(conn: &Connection, seq: i64) -> Result<Result<Envelope, InvalidValue>, BusError> {
    let sql = "SELECT id, topic, key, source, kind, time_ns, content_type, correlation, traceparent, data
               FROM bus_event WHERE seq = ?1";
    let found = conn.prepare_cached(sql)?.query_row([seq], |row| decode(row, 0)).optional()?;
    Ok(found.unwrap_or_else(|| Err(InvalidValue::new("event", "its row is gone"))))
}

/// One group less needs the event; with none left, only its id stays.
pub(super) fn done(conn: &Connection, seq: i64) -> Result<(), BusError> {
    conn.prepare_cached(
        "UPDATE bus_event SET outstanding = outstanding - 1, data = CASE outstanding WHEN 1 THEN x'' ELSE data END
         WHERE seq = ?1",
    )?
    .execute([seq])?;
    Ok(())
}

pub(super) fn newest(conn: &Connection) -> Result<Seq, BusError> {
    let sql = "SELECT seq FROM sqlite_sequence WHERE name = 'bus_event'";
    Ok(conn.prepare_cached(sql)?.query_row([], |r| r.get(0)).optional()?.map_or(0, from_sql))
}
