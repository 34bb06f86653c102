//! Envelopes, times and patterns as arguments and rows.

use infra_backends::PgQuery;
use infra_types::{Envelope, EventId, InvalidValue, Timestamp, Topic};
use sqlx::{Row, postgres::PgRow};
use std::time::Duration;

use crate::{
    BusError, DeadLetter, Limits, Pattern,
    broker::{Append, Appended, Shards},
};

/// Times and spans end here, in the year 2116, so that no sum of them wraps.
const NANOS_MAX: i64 = 1 << 62;

/// A moment as the functions take it. Before 1970 nothing waits.
pub(super) fn nanos(at: Timestamp) -> i64 {
    at.as_nanos().clamp(0, NANOS_MAX)
}

/// A span as the functions take it.
pub(super) fn span(duration: Duration) -> i64 {
    // Twice a lease from now on must not wrap.
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX).min(NANOS_MAX >> 2)
}

/// A place or count as a bigint; one beyond is the largest.
pub(super) fn to_sql(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

pub(super) fn unsigned(row: &PgRow, column: &str) -> Result<u64, BusError> {
    u64::try_from(get::<i64>(row, column)?).map_err(unreadable)
}

/// A reply that our functions do not give. What it answers may have happened.
pub(super) fn unreadable(e: impl std::fmt::Display) -> BusError {
    BusError::Ambiguous { reason: format!("the server's answer does not read as this library's: {e}") }
}

pub(super) fn only(rows: &[PgRow]) -> Result<&PgRow, BusError> {
    rows.first().ok_or_else(|| unreadable("it has no row"))
}

pub(super) fn get<'r, T: sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>>(
    row: &'r PgRow,
    column: &str,
) -> Result<T, BusError> {
    row.try_get(column).map_err(unreadable)
}

/// A pattern as `LIKE` takes it, which is the same grammar in other letters.
pub(super) fn likes(pattern: &Pattern) -> String {
    let mut likes = String::new();
    let mut chars = pattern.as_str().chars();
    while let Some(c) = chars.next() {
        match c {
            '*' => likes.push('%'),
            '?' => likes.push('_'),
            literal => {
                let literal = if literal == '\\' { chars.next().unwrap_or(literal) } else { literal };
                if matches!(literal, '%' | '_' | '\\') {
                    likes.push('\\');
                }
                likes.push(literal);
            }
        }
    }
    likes
}

/// `bus_append` on these events.
pub(super) fn append<'q>(channel: &'q str, limits: &Limits, events: &'q [Append]) -> PgQuery<'q> {
    fn all<'q, T>(events: &'q [Append], read: impl Fn(&'q Envelope) -> T) -> Vec<T> {
        events.iter().map(|event| read(&event.envelope)).collect()
    }
    sqlx::query("SELECT * FROM bus_append($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)")
        .bind(channel)
        .bind(to_sql(limits.backlog_max))
        .bind(to_sql(limits.history_max))
        .bind(to_sql(limits.dedup_window))
        .bind(all(events, |e| e.id.as_str()))
        .bind(all(events, |e| e.topic.as_str()))
        .bind(all(events, |e| e.key.as_bytes()))
        .bind(all(events, |e| e.source.as_bytes()))
        .bind(all(events, |e| e.kind.as_bytes()))
        .bind(all(events, |e| e.time.as_nanos()))
        .bind(all(events, |e| e.content_type.as_bytes()))
        .bind(all(events, |e| e.correlation.to_string()))
        .bind(all(events, |e| e.traceparent.as_ref().map(String::as_bytes)))
        .bind(all(events, |e| e.data.as_ref()))
        .bind(events.iter().map(|event| event.is_priority).collect::<Vec<_>>())
        .bind(all(events, |e| i64::from(Shards::hash(&e.key))))
}

/// What `bus_append` answers.
pub(super) fn appended(row: &PgRow, count: usize) -> Result<Vec<Result<Appended, BusError>>, BusError> {
    let seqs: Vec<Option<i64>> = get(row, "seqs")?;
    let duplicates: Vec<bool> = get(row, "duplicates")?;
    let evicted: Vec<i64> = get(row, "evicted")?;
    let full: Vec<Option<String>> = get(row, "full_groups")?;
    let waiting: Vec<i64> = get(row, "waiting")?;
    if [seqs.len(), duplicates.len(), evicted.len(), full.len(), waiting.len()] != [count; 5] {
        return Err(unreadable("it is not one for each event"));
    }
    let mut answers = Vec::with_capacity(count);
    for ((((seq, duplicate), evicted), full), waiting) in
        seqs.into_iter().zip(duplicates).zip(evicted).zip(full).zip(waiting)
    {
        answers.push(match full {
            Some(group) => Err(BusError::BacklogFull { group, pending: u64::try_from(waiting).map_err(unreadable)? }),
            None => Ok(Appended {
                seq: seq.map(u64::try_from).transpose().map_err(unreadable)?,
                duplicate,
                evicted: u64::try_from(evicted).map_err(unreadable)?,
            }),
        });
    }
    Ok(answers)
}

/// The event in a row with the columns of `bus_envelope`, or why it is none of ours.
pub(super) fn envelope(row: &PgRow) -> Result<Envelope, InvalidValue> {
    fn column<'r, T>(row: &'r PgRow, name: &'static str) -> Result<T, InvalidValue>
    where
        T: sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
    {
        let found: Option<T> = row.try_get(name).map_err(|e| InvalidValue::new("event", e.to_string()))?;
        found.ok_or_else(|| InvalidValue::new("event", format!("its column {name} or its row is gone")))
    }
    let text = |name| {
        let bytes: Vec<u8> = column(row, name)?;
        String::from_utf8(bytes).map_err(|_| InvalidValue::new("event", format!("column {name} is no text")))
    };
    let trace: Option<Vec<u8>> = row.try_get("traceparent").map_err(|e| InvalidValue::new("event", e.to_string()))?;
    let trace = trace.map(String::from_utf8).transpose();
    Ok(Envelope {
        id: EventId::new(column::<String>(row, "id")?)?,
        topic: Topic::new(column::<String>(row, "topic")?)?,
        key: text("key")?,
        source: text("source")?,
        kind: text("kind")?,
        time: Timestamp::from_nanos(column(row, "time_ns")?),
        content_type: text("content_type")?,
        correlation: column::<String>(row, "correlation")?.parse()?,
        traceparent: trace.map_err(|_| InvalidValue::new("event", "column traceparent is no text"))?,
        data: column::<Vec<u8>>(row, "data")?.into(),
    })
}

/// A row of `bus_dead`.
pub(super) fn dead_letter(group: &str, row: &PgRow) -> Result<DeadLetter, BusError> {
    let error: Vec<u8> = get(row, "error")?;
    Ok(DeadLetter {
        group: group.into(),
        seq: unsigned(row, "seq")?,
        id: get(row, "id")?,
        topic: get(row, "topic")?,
        envelope: envelope(row).ok(),
        error: String::from_utf8_lossy(&error).into_owned(),
        attempts: u32::try_from(get::<i32>(row, "attempts")?).map_err(unreadable)?,
        at: Timestamp::from_nanos(get(row, "at_ns")?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::{DUE_MAX, TRIM_MAX};

    #[test]
    fn the_functions_know_the_contract_s_constants() {
        let sql = include_str!("store.sql");
        assert!(sql.contains(&format!("c_trim_max CONSTANT int := {TRIM_MAX};")));
        assert!(sql.contains(&format!("c_due_max CONSTANT int := {DUE_MAX};")));
        assert!(include_str!("claim.sql").contains(&format!("THEN {} ELSE", Shards::PRIORITY)));
    }

    #[test]
    fn a_pattern_is_written_as_like_takes_it() {
        for (pattern, want) in [("a*", "a%"), ("?_%", r"_\_\%"), (r"\*\?\\", r"*?\\"), (r"\a\%", r"a\%")] {
            assert_eq!(likes(&Pattern::new(pattern).unwrap()), want, "{pattern}");
        }
    }

    #[test]
    fn no_sum_of_times_wraps() {
        let latest = nanos(Timestamp::from_nanos(i64::MAX));
        assert_eq!(nanos(Timestamp::from_nanos(i64::MIN)), 0);
        assert!(latest.checked_add(2 * span(Duration::MAX)).is_some());
    }
}
