//! Events as rows.

use infra_types::{Envelope, EventId, InvalidValue, Timestamp, Topic};
use rusqlite::{Connection, OptionalExtension, Row, params};
use std::sync::Arc;

use super::{from_sql, to_sql};
use crate::{
    BusError,
    broker::{Page, Record, Seq},
};

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

pub(super) fn newest(conn: &Connection) -> Result<Seq, BusError> {
    let sql = "SELECT seq FROM sqlite_sequence WHERE name = 'bus_event'";
    Ok(conn.prepare_cached(sql)?.query_row([], |r| r.get(0)).optional()?.map_or(0, from_sql))
}

pub(super) const PAGE: &str =
    "SELECT seq, id, topic, key, source, kind, time_ns, content_type, correlation, traceparent, data
     FROM bus_event WHERE seq > ?1 AND copy = 0 ORDER BY seq LIMIT ?2";

pub(super) fn page(conn: &Connection, after: Seq, limit: usize) -> Result<Page, BusError> {
    let mut select = conn.prepare_cached(PAGE)?;
    let rows = select.query_map(params![to_sql(after), to_sql(limit as u64)], |row| {
        Ok(Record { seq: from_sql(row.get(0)?), envelope: decode(row, 1)?.ok().map(Arc::new) })
    })?;
    Ok(Page { records: rows.collect::<rusqlite::Result<_>>()?, newest: newest(conn)? })
}
