//! Events that wait for their time.

use std::collections::BTreeSet;

use infra_types::{EventId, Timestamp, Topic};
use rusqlite::{Connection, OptionalExtension, params};

use super::{append, group::Group, ledger::Ledger};
use crate::{
    BusError, DelayPlace, DelayedEvent, Limits,
    broker::{Append, Appended, Claims, DUE_MAX, REST},
};

pub(super) const DUE: &str = "SELECT delay_id, until_ns, topic, key, priority FROM bus_delayed
     WHERE until_ns <= ?1 AND (until_ns, delay_id) > (?2, ?3) ORDER BY until_ns, delay_id LIMIT ?4";
pub(super) const NEXT_DUE: &str = "SELECT min(until_ns) FROM bus_delayed WHERE until_ns > ?1";

/// A walk along the due events, a part in each claim, that found some whose groups are full; as in memory. It is in `bus_meta`, with a row for each
/// group that a delayed event waits for.
#[derive(Debug, Clone)]
pub(super) struct Walk {
    began: Timestamp,
    /// The last one that it left: until when it was delayed, and its number.
    at: (i64, i64),
    /// The groups behind whose first event others wait.
    held: BTreeSet<i64>,
}

impl Walk {
    fn stored(conn: &Connection) -> Result<Option<Self>, BusError> {
        let mut walk = Self { began: Timestamp::EPOCH, at: (0, 0), held: BTreeSet::new() };
        let mut select =
            conn.prepare_cached("SELECT name, value FROM bus_meta WHERE name >= 'walk_' AND name < 'walk`'")?;
        let mut rows = select.query([])?;
        let mut is_there = false;
        while let Some(row) = rows.next()? {
            is_there = true;
            let (name, value): (String, i64) = (row.get(0)?, row.get(1)?);
            match name.as_str() {
                "walk_began" => walk.began = Timestamp::from_nanos(value),
                "walk_until" => walk.at.0 = value,
                "walk_number" => walk.at.1 = value,
                _ => _ = walk.held.insert(value),
            }
        }
        Ok(is_there.then_some(walk))
    }

    fn save(&self, conn: &Connection) -> Result<(), BusError> {
        let mut put = conn.prepare_cached("INSERT OR REPLACE INTO bus_meta (name, value) VALUES (?1, ?2)")?;
        put.execute(params!["walk_began", self.began.as_nanos()])?;
        put.execute(params!["walk_until", self.at.0])?;
        put.execute(params!["walk_number", self.at.1])?;
        for group in &self.held {
            put.execute(params![format!("walk_held_{group}"), group])?;
        }
        Ok(())
    }

    fn anew(&self) -> Timestamp {
        self.began.saturating_add(REST)
    }
}

/// The part of the due events that a claim looks at, and the walk that it goes on with.
#[derive(Debug)]
pub(super) struct Part {
    due: Vec<Due>,
    walk: Option<Walk>,
    /// A walk is over, though nothing is due.
    is_over: bool,
}

impl Part {
    /// Whether there is nothing to look at.
    pub(super) fn is_empty(&self) -> bool {
        self.due.is_empty() && !self.is_over
    }

    /// When to look again, if there is nothing to look at now.
    pub(super) fn next(&self, conn: &Connection, now: Timestamp) -> Result<Option<Timestamp>, BusError> {
        let later: Option<i64> = conn.prepare_cached(NEXT_DUE)?.query_row([now.as_nanos()], |r| r.get(0))?;
        let anew = self.walk.as_ref().map(Walk::anew);
        Ok([later.map(Timestamp::from_nanos), anew].into_iter().flatten().min())
    }
}

/// A delayed event whose time has come.
#[derive(Debug)]
pub(super) struct Due {
    delay_id: i64,
    until: i64,
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
pub(super) fn part(conn: &Connection, now: Timestamp) -> Result<Part, BusError> {
    let walk = Walk::stored(conn)?;
    let due = due(conn, now, walk.as_ref())?;
    if due.len() < DUE_MAX && walk.as_ref().is_some_and(|walk| now >= walk.anew()) {
        return Ok(Part { due: self::due(conn, now, None)?, walk: None, is_over: true });
    }
    Ok(Part { due, walk, is_over: false })
}

fn due(conn: &Connection, now: Timestamp, walk: Option<&Walk>) -> Result<Vec<Due>, BusError> {
    let mut select = conn.prepare_cached(DUE)?;
    let (until, number) = walk.map_or((i64::MIN, 0), |walk| walk.at);
    let rows = select.query_map(params![now.as_nanos(), until, number, DUE_MAX as i64], |r| {
        // What is no text cannot be read later either, and becomes a dead letter then.
        let text = |n| r.get::<_, String>(n).unwrap_or_default();
        let (delay_id, until) = (r.get(0)?, r.get(1)?);
        Ok(Due { delay_id, until, topic: Topic::new(text(2)).ok(), key: text(3), is_priority: r.get(4)? })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

pub(super) fn list(conn: &Connection, after: Option<DelayPlace>, limit: usize) -> Result<Vec<DelayedEvent>, BusError> {
    let mut select = conn.prepare_cached(
        "SELECT until_ns, delay_id, id, topic, key FROM bus_delayed WHERE (until_ns, delay_id) > (?1, ?2)
         ORDER BY until_ns, delay_id LIMIT ?3",
    )?;
    let (until, number) = after.map_or((i64::MIN, 0), |at| (at.until.as_nanos(), super::to_sql(at.number)));
    let rows = select.query_map(params![until, number, super::to_sql(limit as u64)], |r| {
        // What is no text cannot be read.
        let text = |n| r.get::<_, String>(n).unwrap_or_default();
        let place = DelayPlace { until: Timestamp::from_nanos(r.get(0)?), number: super::from_sql(r.get(1)?) };
        Ok(DelayedEvent { place, id: text(2), topic: text(3), key: text(4) })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

pub(super) fn cancel(conn: &Connection, id: &EventId) -> Result<bool, BusError> {
    if append::known(conn, id.as_str())? != Some(None) {
        return Ok(false);
    }
    conn.execute("DELETE FROM bus_delayed WHERE id = ?1", [id.as_str()])?;
    conn.execute("DELETE FROM bus_id WHERE id = ?1", [id.as_str()])?;
    conn.execute("UPDATE bus_meta SET value = value - 1 WHERE name = 'delayed'", [])?;
    Ok(true)
}

/// Appends those that the groups have room for; when to look again.
pub(super) fn release(
    ledger: &mut Ledger<'_>,
    mut part: Part,
    now: Timestamp,
    claims: &mut Claims,
) -> Result<Option<Timestamp>, BusError> {
    if part.is_over {
        let sql = "DELETE FROM bus_meta WHERE name >= 'walk_' AND name < 'walk`'";
        ledger.conn.prepare_cached(sql)?.execute([])?;
    }
    for event in &part.due {
        let full = group_of(ledger, event, |group| group.pending >= ledger.limits.backlog_max);
        // Behind one that its group had no room for, also if there is room by now: nothing overtakes on the way to a group.
        let is_held = |id| part.walk.as_ref().is_some_and(|walk| walk.held.contains(&id));
        if full.is_some() || group_of(ledger, event, |group| is_held(group.id)).is_some() {
            let new = || Walk { began: now, at: (0, 0), held: BTreeSet::new() };
            let walk = part.walk.get_or_insert_with(new);
            walk.at = (event.until, event.delay_id);
            walk.held.extend(full);
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
    if let Some(walk) = part.walk.as_ref().filter(|_| !part.due.is_empty()) {
        walk.save(ledger.conn)?;
    }
    if part.due.len() == DUE_MAX {
        return Ok(Some(now));
    }
    part.next(ledger.conn, now)
}

/// The first group that wants the event and of which that is true.
fn group_of(ledger: &Ledger<'_>, event: &Due, holds: impl Fn(&Group) -> bool) -> Option<i64> {
    let topic = event.topic.as_ref()?;
    ledger.groups.iter().find(|group| group.pattern.matches(topic) && holds(group)).map(|group| group.id)
}
