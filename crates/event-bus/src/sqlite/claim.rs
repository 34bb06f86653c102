//! Lending events out, and prolonging and ending what is lent.

use std::sync::Arc;

use infra_types::Timestamp;
use rusqlite::{Connection, params};

use super::{dead, delay, event, from_sql, group, lane, ledger::Ledger};
use crate::{
    BusError, Limits,
    broker::{Claim, Claimed, Claims, NAMES_MAX, Seq},
    memory::died,
};

pub(super) const TAKE_OVER: &str = "UPDATE bus_delivery INDEXED BY bus_delivery_lent SET locked_until = 0
     WHERE group_id = ?1 AND consumer = ?2 AND incarnation <> ?3";

/// Whether there is something to claim or to append, and if not, when there will be. It only reads.
pub(super) fn look(conn: &Connection, claim: &Claim) -> Result<(bool, Option<Timestamp>), BusError> {
    let group = group::find(conn, &claim.group)?;
    check_name(conn, group.id, claim)?;
    let part = delay::part(conn, claim.now)?;
    if !part.is_empty() {
        return Ok((true, None));
    }
    if lane::has_work(conn, group.id, claim)? {
        return Ok((true, None));
    }
    Ok((false, next_due(conn, group.id, claim, part.next(conn, claim.now)?)?))
}

/// The earlier of what the group waits for and `delay`, if there was room for more.
fn next_due(
    conn: &Connection,
    group: i64,
    claim: &Claim,
    delay: Option<Timestamp>,
) -> Result<Option<Timestamp>, BusError> {
    if claim.max == 0 {
        return Ok(None);
    }
    Ok([lane::next_due(conn, group, claim.now)?, delay].into_iter().flatten().min())
}

pub(super) fn claim(conn: &Connection, claim: &Claim, limits: &Limits) -> Result<Claims, BusError> {
    let part = delay::part(conn, claim.now)?;
    let mut ledger = match part.is_empty() {
        true => Ledger::of_one(conn, limits, &claim.group)?,
        false => Ledger::of_all(conn, limits)?,
    };
    let at = ledger.place_of(&claim.group)?;
    let group = ledger.groups[at].id;
    check_name(conn, group, claim)?;
    let mut claims = Claims::default();
    let next_delay = delay::release(&mut ledger, part, claim.now, &mut claims)?;
    let mut chosen = loop {
        let (chosen, alone) = lane::select(conn, group, claim)?;
        match chosen.first().filter(|first| alone && first.attempts >= claim.crashes_max) {
            Some(killer) => {
                let sql = "SELECT last_error FROM bus_delivery WHERE group_id = ?1 AND seq = ?2";
                let last: String = conn.prepare_cached(sql)?.query_row(params![group, killer.seq], |r| r.get(0))?;
                dead::bury(&mut ledger, at, killer.seq, &died(killer.attempts, &last), claim.now)?;
                claims.dead_lettered += 1;
            }
            None => {
                claims.alone = alone;
                break chosen;
            }
        }
    };
    let mut has_unreadable = false;
    for delivery in chosen.drain(..) {
        let envelope = match event::load(conn, delivery.seq)? {
            Ok(envelope) => envelope,
            Err(why) => {
                // It would fail in the same way for ever.
                let error = format!("what is stored cannot be read: {why}");
                dead::bury(&mut ledger, at, delivery.seq, &error, claim.now)?;
                claims.dead_lettered += 1;
                has_unreadable = true;
                continue;
            }
        };
        claims.events.push(lend(conn, group, &delivery, envelope, claim)?);
    }
    if claims.events.len() < claim.max {
        claims.next_due = next_due(conn, group, claim, next_delay)?;
    }
    if has_unreadable && claims.events.is_empty() {
        // What stood behind the dead is free now: look again at once.
        claims.next_due = Some(claim.now);
    }
    ledger.save()?;
    Ok(claims)
}

fn lend(
    conn: &Connection,
    group: i64,
    delivery: &lane::Delivery,
    envelope: infra_types::Envelope,
    claim: &Claim,
) -> Result<Claimed, BusError> {
    let attempt = delivery.attempts.saturating_add(1);
    conn.prepare_cached(
        "UPDATE bus_delivery SET attempts = ?3, locked_until = ?4, lease = ?5, consumer = ?6, incarnation = ?7
         WHERE group_id = ?1 AND seq = ?2",
    )?
    .execute(params![
        group,
        delivery.seq,
        attempt,
        claim.now.saturating_add(claim.lease).as_nanos(),
        i64::try_from(claim.lease.as_nanos()).unwrap_or(i64::MAX),
        claim.consumer.as_ref(),
        claim.incarnation.as_ref(),
    ])?;
    let (seq, is_priority) = (from_sql(delivery.seq), delivery.is_priority);
    Ok(Claimed { seq, envelope: Arc::new(envelope), attempt, is_priority })
}

/// Whether another run took the consumer's name.
fn check_name(conn: &Connection, group: i64, claim: &Claim) -> Result<(), BusError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM bus_consumer WHERE group_id = ?1 AND name = ?2 AND incarnation <> ?3)";
    let asked = params![group, claim.consumer.as_ref(), claim.incarnation.as_ref()];
    let is_displaced = conn.prepare_cached(sql)?.query_row(asked, |r| r.get(0))?;
    if is_displaced { Err(claim.displaced()) } else { Ok(()) }
}

pub(super) fn take_over(conn: &Connection, name: &str, consumer: &str, incarnation: &str) -> Result<u64, BusError> {
    let group = group::find(conn, name)?;
    let sql = "INSERT OR REPLACE INTO bus_consumer (group_id, name, incarnation) VALUES (?1, ?2, ?3)";
    conn.prepare_cached(sql)?.execute(params![group.id, consumer, incarnation])?;
    conn.prepare_cached(
        "DELETE FROM bus_consumer WHERE group_id = ?1 AND name IN (SELECT name FROM bus_consumer
         WHERE group_id = ?1 AND name <> ?2 LIMIT max(0, (SELECT count(*) FROM bus_consumer WHERE group_id = ?1) - ?3))",
    )?
    .execute(params![group.id, consumer, NAMES_MAX as i64])?;
    let taken = conn.execute(TAKE_OVER, params![group.id, consumer, incarnation])?;
    Ok(taken as u64)
}

pub(super) fn extend(
    conn: &Connection,
    name: &str,
    incarnation: &str,
    until: Timestamp,
    claims: &[(Seq, u32)],
) -> Result<(), BusError> {
    let group = group::find(conn, name)?;
    let mut update = conn.prepare_cached(
        "UPDATE bus_delivery SET locked_until = ?5
         WHERE group_id = ?1 AND seq = ?2 AND attempts = ?3 AND incarnation = ?4",
    )?;
    for (seq, attempt) in claims {
        update.execute(params![group.id, super::to_sql(*seq), attempt, incarnation, until.as_nanos()])?;
    }
    Ok(())
}
