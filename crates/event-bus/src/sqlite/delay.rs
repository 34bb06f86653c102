//! Events that wait for their time.

use infra_types::{Timestamp, Topic};
use rusqlite::{Connection, OptionalExtension, params};

use super::{append, ledger::Ledger};
use crate::{
    BusError, Limits,
    broker::{Append, Appended, Claims, DUE_MAX},
};

pub(super) const DUE: &str =
    "SELECT delay_id, topic, key, priority FROM bus_delayed WHERE until_ns <= ?1 ORDER BY until_ns, delay_id LIMIT ?2";
pub(super) const NEXT_DUE: &str = "SELECT min(until_ns) FROM bus_delayed WHERE until_ns > ?1";

/// A delayed event whose time has come.
#[derive(Debug)]
pub(super) struct Due {
    delay_id: i64,
    /// None if what is stored is no topic: no group wants it.
    topic: Option<Topic>,
    key: String,
    is_priority: bool,
}

pub(super) fn delay(
    conn: &Connection,
    append: &Append,
    until: Timestamp,
    limits: &Limits,
) -> Result<Appended, BusError> {
    let event = append.envelope.as_ref();
    if let Some(seq) = append::known(conn, event.id.as_str())? {
        return Ok(Appended { seq, duplicate: true, evicted: 0 });
    }
    let sql = "UPDATE bus_meta SET value = value + 1 WHERE name = 'delayed' RETURNING value - 1";
    let waiting = super::from_sql(conn.prepare_cached(sql)?.query_row([], |r| r.get(0))?);
    if waiting >= limits.delayed_max {
        // The error takes the count back.
        return Err(BusError::DelayFull { waiting });
    }
    conn.prepare_cached("INSERT INTO bus_id (id, seq, finished) VALUES (?1, NULL, 0)")?.execute([event.id.as_str()])?;
    conn.prepare_cached(
        "INSERT INTO bus_delayed (until_ns, id, topic, key, source, kind, time_ns, content_type, correlation, traceparent,
         priority, data) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
    )?
    .execute(params![
        until.as_nanos(),
        event.id.as_str(),
        event.topic.as_str(),
        event.key,
        event.source,
        event.kind,
        event.time.as_nanos(),
        event.content_type,
        event.correlation.to_string(),
        event.traceparent,
        append.is_priority,
        event.data.as_ref(),
    ])?;
    Ok(Appended { seq: None, duplicate: false, evicted: 0 })
}

/// Those whose time has come, as many as a claim looks at.
pub(super) fn due(conn: &Connection, now: Timestamp) -> Result<Vec<Due>, BusError> {
    let mut select = conn.prepare_cached(DUE)?;
    let rows = select.query_map(params![now.as_nanos(), DUE_MAX as i64], |r| {
        // What is no text cannot be read later either, and becomes a dead letter then.
        let text = |n| r.get::<_, String>(n).unwrap_or_default();
        Ok(Due { delay_id: r.get(0)?, topic: Topic::new(text(1)).ok(), key: text(2), is_priority: r.get(3)? })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// When the next one is due after `now`.
pub(super) fn next_due(conn: &Connection, now: Timestamp) -> Result<Option<Timestamp>, BusError> {
    let next: Option<i64> = conn.prepare_cached(NEXT_DUE)?.query_row([now.as_nanos()], |r| r.get(0))?;
    Ok(next.map(Timestamp::from_nanos))
}

/// Whether the groups have room for one of these.
pub(super) fn has_room(ledger: &Ledger<'_>, due: &[Due]) -> bool {
    due.iter().any(|event| ledger.full(event.topic.as_ref()).is_none())
}

/// Appends those that the groups have room for; when to look again.
pub(super) fn release(
    ledger: &mut Ledger<'_>,
    due: &[Due],
    now: Timestamp,
    claims: &mut Claims,
) -> Result<Option<Timestamp>, BusError> {
    for event in due {
        if ledger.full(event.topic.as_ref()).is_some() {
            continue;
        }
        let wants = |topic: &Topic| ledger.groups.iter().filter(|g| g.pattern.matches(topic)).count();
        let wanted = event.topic.as_ref().map_or(0, wants);
        ledger
            .conn
            .prepare_cached(
                "INSERT INTO bus_event (id, topic, key, source, kind, time_ns, content_type, correlation, traceparent,
                 priority, outstanding, wanted, copy, data)
                 SELECT id, topic, key, source, kind, time_ns, content_type, correlation, traceparent, priority, ?2, ?3, 0,
                 data FROM bus_delayed WHERE delay_id = ?1",
            )?
            .execute(params![event.delay_id, wanted as i64, wanted > 0])?;
        let seq = ledger.conn.last_insert_rowid();
        let id: Option<rusqlite::types::Value> = ledger
            .conn
            .prepare_cached("DELETE FROM bus_delayed WHERE delay_id = ?1 RETURNING id")?
            .query_row([event.delay_id], |r| r.get(0))
            .optional()?;
        ledger.conn.prepare_cached("UPDATE bus_id SET seq = ?2 WHERE id = ?1")?.execute(params![id, seq])?;
        ledger.delayed = ledger.delayed.saturating_sub(1);
        claims.evicted += append::stored(ledger, seq, event.topic.as_ref(), &event.key, event.is_priority)?;
        claims.released += 1;
    }
    if due.len() == DUE_MAX && claims.released > 0 {
        return Ok(Some(now));
    }
    next_due(ledger.conn, now)
}
