//! Ending claims.

use infra_types::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

use super::{append, dead, ledger::Ledger, to_sql};
use crate::{
    BusError, Limits,
    broker::{Outcome, Settle, Settled},
};

pub(super) const STEP_FORWARD: &str = "UPDATE bus_delivery SET head = 1 WHERE group_id = ?1
     AND seq = (SELECT min(seq) FROM bus_delivery INDEXED BY bus_delivery_lane
                WHERE group_id = ?1 AND priority = ?3 AND key = ?2 AND aside = 0)";

pub(super) fn settle(
    conn: &Connection,
    name: &str,
    incarnation: &str,
    now: Timestamp,
    ends: &[Settle],
    limits: &Limits,
) -> Result<Settled, BusError> {
    let mut ledger = Ledger::of_one(conn, limits, name)?;
    let group = ledger.groups[0].id;
    let mut settled = Settled::default();
    for end in ends {
        let seq = to_sql(end.seq);
        let is_held: bool = conn
            .prepare_cached(
                "SELECT EXISTS (SELECT 1 FROM bus_delivery
                 WHERE group_id = ?1 AND seq = ?2 AND attempts = ?3 AND incarnation = ?4)",
            )?
            .query_row(params![group, seq, end.attempt, incarnation], |r| r.get(0))?;
        if !is_held {
            settled.lost += 1;
            continue;
        }
        match &end.outcome {
            Outcome::Ack => remove(&mut ledger, 0, seq)?,
            Outcome::Dead { error } => settled.evicted += dead::bury(&mut ledger, 0, seq, error, now)?,
            Outcome::Retry { at, error, steps_aside } => {
                conn.prepare_cached(
                    "UPDATE bus_delivery SET consumer = NULL, incarnation = NULL, locked_until = 0, next_at = ?3,
                     last_error = ?4 WHERE group_id = ?1 AND seq = ?2",
                )?
                .execute(params![group, seq, at.as_nanos(), error])?;
                if *steps_aside {
                    step_aside(conn, group, seq)?;
                }
            }
            Outcome::Release => {
                conn.prepare_cached(
                    "UPDATE bus_delivery SET consumer = NULL, incarnation = NULL, locked_until = 0,
                     attempts = attempts - 1 WHERE group_id = ?1 AND seq = ?2",
                )?
                .execute(params![group, seq])?;
            }
        }
    }
    ledger.save()?;
    Ok(settled)
}

/// Takes an event off the work of `ledger.groups[at]` and lets the next of its key step forward.
pub(super) fn remove(ledger: &mut Ledger<'_>, at: usize, seq: i64) -> Result<(), BusError> {
    let group = &mut ledger.groups[at];
    let gone: Option<(String, bool, bool)> = ledger
        .conn
        .prepare_cached(
            "DELETE FROM bus_delivery WHERE group_id = ?1 AND seq = ?2 RETURNING key, priority, head = 1 AND aside = 0",
        )?
        .query_row(params![group.id, seq], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))
        .optional()?;
    let Some((key, is_priority, was_first)) = gone else { return Ok(()) };
    group.pending = group.pending.saturating_sub(1);
    if was_first {
        step_forward(ledger.conn, group.id, &key, is_priority)?;
    }
    append::done(ledger, seq)
}

/// Makes the first of a lane its head.
fn step_forward(conn: &Connection, group: i64, key: &str, is_priority: bool) -> Result<(), BusError> {
    conn.prepare_cached(STEP_FORWARD)?.execute(params![group, key, is_priority])?;
    Ok(())
}

/// From now on its key does not wait for it.
fn step_aside(conn: &Connection, group: i64, seq: i64) -> Result<(), BusError> {
    let left: Option<(String, bool)> = conn
        .prepare_cached(
            "UPDATE bus_delivery SET aside = 1, head = 1 WHERE group_id = ?1 AND seq = ?2 AND aside = 0
             RETURNING key, priority",
        )?
        .query_row(params![group, seq], |r| Ok((r.get(0)?, r.get(1)?)))
        .optional()?;
    match left {
        Some((key, is_priority)) => step_forward(conn, group, &key, is_priority),
        None => Ok(()),
    }
}
