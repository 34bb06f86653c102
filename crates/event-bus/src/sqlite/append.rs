//! Storing events and laying them out for the groups; letting old ones go.

use infra_types::Topic;
use rusqlite::{Connection, OptionalExtension, params};

use super::{from_sql, ledger::Ledger, to_sql};
use crate::{
    BusError, Limits,
    broker::{Append, Appended, Seq, TRIM_MAX},
};

/// Ids forgotten for one event at most, so that no single publish pays for all.
const FORGET_MAX: i64 = 64;

pub(super) const FORGET: &str = "DELETE FROM bus_id WHERE id IN (SELECT id FROM bus_id INDEXED BY bus_id_finished
     WHERE finished = 1 AND seq <= ?1 ORDER BY seq LIMIT ?2)";
pub(super) const LAY_OUT: &str =
    "INSERT INTO bus_delivery (group_id, seq, key, priority, head, attempts, next_at, locked_until, lease, last_error)
     VALUES (?1, ?2, ?3, ?4, NOT EXISTS (SELECT 1 FROM bus_delivery INDEXED BY bus_delivery_lane
     WHERE group_id = ?1 AND priority = ?4 AND key = ?3 AND aside = 0), 0, 0, 0, 0, '')";
pub(super) const TRIM: &str =
    "DELETE FROM bus_event WHERE seq IN (SELECT seq FROM bus_event INDEXED BY bus_event_history
     WHERE outstanding = 0 ORDER BY seq LIMIT ?1) RETURNING seq, id, wanted";

pub(super) fn append(
    conn: &Connection,
    events: &[Append],
    limits: &Limits,
) -> Result<Vec<Result<Appended, BusError>>, BusError> {
    let mut ledger = Ledger::of_all(conn, limits)?;
    let answers = events.iter().map(|event| append_one(&mut ledger, event)).collect::<Result<_, _>>()?;
    ledger.save()?;
    Ok(answers)
}

/// The outer error fails the whole write, the inner one this event alone.
fn append_one(ledger: &mut Ledger<'_>, append: &Append) -> Result<Result<Appended, BusError>, BusError> {
    let event = append.envelope.as_ref();
    if let Some(seq) = known(ledger.conn, event.id.as_str())? {
        return Ok(Ok(Appended { seq, duplicate: true, evicted: 0 }));
    }
    if let Some(full) = ledger.full(Some(&event.topic)) {
        return Ok(Err(full));
    }
    let mut insert = ledger.conn.prepare_cached(
        "INSERT INTO bus_event (id, topic, key, source, kind, time_ns, content_type, correlation, traceparent, priority,
         outstanding, wanted, copy, data) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, 0, ?13)",
    )?;
    let wanted = ledger.groups.iter().filter(|g| g.pattern.matches(&event.topic)).count();
    insert.execute(params![
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
        wanted as i64,
        wanted > 0,
        event.data.as_ref(),
    ])?;
    let seq = ledger.conn.last_insert_rowid();
    ledger
        .conn
        .prepare_cached("INSERT INTO bus_id (id, seq, finished) VALUES (?1, ?2, 0)")?
        .execute(params![event.id.as_str(), seq])?;
    let evicted = stored(ledger, seq, Some(&event.topic), &event.key, append.is_priority)?;
    Ok(Ok(Appended { seq: Some(from_sql(seq)), duplicate: false, evicted }))
}

/// The place of an event whose id is known; none within if it is delayed.
pub(super) fn known(conn: &Connection, id: &str) -> Result<Option<Option<Seq>>, BusError> {
    let place = |seq: Option<i64>| seq.map(from_sql);
    let mut select = conn.prepare_cached("SELECT seq FROM bus_id WHERE id = ?1")?;
    Ok(select.query_row([id], |r| r.get(0)).optional()?.map(place))
}

/// Lays a new row of `bus_event` out for the groups and makes room; how many events had to go that no group had ever wanted.
pub(super) fn stored(
    ledger: &mut Ledger<'_>,
    seq: i64,
    topic: Option<&Topic>,
    key: &str,
    is_priority: bool,
) -> Result<u64, BusError> {
    let mut is_wanted = false;
    for group in ledger.groups.iter_mut().filter(|g| topic.is_some_and(|topic| g.pattern.matches(topic))) {
        lay_out(ledger.conn, group.id, seq, key, is_priority)?;
        group.pending += 1;
        is_wanted = true;
    }
    ledger.history += u64::from(!is_wanted);
    let evicted = trim(ledger)?;
    if let Some(last) = from_sql(seq).checked_sub(ledger.limits.dedup_window) {
        ledger.conn.prepare_cached(FORGET)?.execute(params![to_sql(last), FORGET_MAX])?;
    }
    Ok(evicted)
}

/// Adds one event to a group's work, which the caller counts.
pub(super) fn lay_out(
    conn: &Connection,
    group_id: i64,
    seq: i64,
    key: &str,
    is_priority: bool,
) -> Result<(), BusError> {
    conn.prepare_cached(LAY_OUT)?.execute(params![group_id, seq, key, is_priority])?;
    Ok(())
}

/// Lets the oldest of the history go; how many of them no group had ever wanted.
fn trim(ledger: &mut Ledger<'_>) -> Result<u64, BusError> {
    let excess = ledger.history.saturating_sub(ledger.limits.history_max).min(TRIM_MAX as u64);
    if excess == 0 {
        return Ok(0);
    }
    let mut evicted = 0;
    let mut oldest = ledger.conn.prepare_cached(TRIM)?;
    let gone = oldest.query_map([to_sql(excess)], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))?;
    let gone: Vec<(i64, rusqlite::types::Value, bool)> = gone.collect::<rusqlite::Result<_>>()?;
    for (seq, id, was_wanted) in gone {
        let sql = "UPDATE bus_id SET finished = 1 WHERE id = ?1 AND seq = ?2";
        ledger.conn.prepare_cached(sql)?.execute(params![id, seq])?;
        ledger.history = ledger.history.saturating_sub(1);
        evicted += u64::from(!was_wanted);
    }
    Ok(evicted)
}

/// One group less needs the event: with none left it is history, or gone if it is a copy.
pub(super) fn done(ledger: &mut Ledger<'_>, seq: i64) -> Result<(), BusError> {
    let left: Option<(i64, bool)> = ledger
        .conn
        .prepare_cached(
            "UPDATE bus_event SET outstanding = outstanding - 1 WHERE seq = ?1 RETURNING outstanding, copy",
        )?
        .query_row([seq], |r| Ok((r.get(0)?, r.get(1)?)))
        .optional()?;
    match left {
        Some((0, true)) => {
            ledger.conn.prepare_cached("DELETE FROM bus_event WHERE seq = ?1")?.execute([seq])?;
        }
        Some((0, false)) => ledger.history += 1,
        _ => {}
    }
    Ok(())
}
