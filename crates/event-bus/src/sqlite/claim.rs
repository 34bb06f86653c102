//! Lending events out: the heads that are free, each followed by its lane as far as that is free.

use std::{cmp::Reverse, collections::BinaryHeap, sync::Arc, time::Duration};

use infra_types::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{append, from_sql, group, settle};
use crate::{
    BusError, Limits,
    broker::{Claim, Claimed, Claims, Seq},
    memory::died,
};

/// A row of a lane.
#[derive(Debug, PartialEq, Eq)]
struct Delivery {
    seq: i64,
    key: String,
    attempts: u32,
    is_locked: bool,
    is_free: bool,
    /// When it is free at the latest.
    free_at: Timestamp,
}

impl PartialOrd for Delivery {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Delivery {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.seq.cmp(&other.seq)
    }
}

const HEADS: &str = "SELECT seq, key, attempts, next_at, locked_until, lease, incarnation IS NOT NULL
                     FROM bus_delivery WHERE group_id = ?1 AND head = 1 ORDER BY seq";
const NEXT_OF_LANE: &str = "SELECT seq, key, attempts, next_at, locked_until, lease, incarnation IS NOT NULL
                            FROM bus_delivery WHERE group_id = ?1 AND key = ?2 AND seq > ?3 ORDER BY seq LIMIT 1";

fn delivery(row: &Row<'_>, claim: &Claim) -> rusqlite::Result<Delivery> {
    let next_at = Timestamp::from_nanos(row.get(3)?);
    let until = Timestamp::from_nanos(row.get(4)?);
    let lease = Duration::from_nanos(from_sql(row.get(5)?));
    let is_locked: bool = row.get(6)?;
    Ok(Delivery {
        seq: row.get(0)?,
        key: row.get(1)?,
        attempts: row.get(2)?,
        is_locked,
        is_free: claim.is_due(next_at) && (!is_locked || claim.is_over(until, lease)),
        free_at: if is_locked { next_at.max(until) } else { next_at },
    })
}

/// Whether there is something to claim, and if not, when there will be.
pub(super) fn look(conn: &Connection, claim: &Claim) -> Result<(bool, Option<Timestamp>), BusError> {
    let group = group::find(conn, &claim.group)?;
    let mut heads = conn.prepare_cached(HEADS)?;
    let mut next_due = None;
    for head in heads.query_map([group.id], |row| delivery(row, claim))? {
        let head = head?;
        if head.is_free && claim.shards.takes(&head.key) {
            return Ok((true, None));
        }
        if head.free_at > claim.now {
            next_due = Some(next_due.map_or(head.free_at, |at: Timestamp| at.min(head.free_at)));
        }
    }
    Ok((false, next_due))
}

/// The events to lend in stored order, whether the first is one whose consumer died with it, and the next due time.
fn select(conn: &Connection, group: i64, claim: &Claim) -> Result<(Vec<Delivery>, bool, Option<Timestamp>), BusError> {
    let mut statement = conn.prepare_cached(HEADS)?;
    let mut rows = statement.query([group])?;
    let mut head = rows.next()?.map(|row| delivery(row, claim)).transpose()?;
    let mut followers: BinaryHeap<Reverse<Delivery>> = BinaryHeap::new();
    let mut chosen: Vec<Delivery> = Vec::new();
    let mut next_due: Option<Timestamp> = None;
    while chosen.len() < claim.max {
        let follower_first = match (&head, followers.peek()) {
            (Some(head), Some(Reverse(follower))) => follower.seq < head.seq,
            (None, Some(_)) => true,
            (Some(_), None) => false,
            (None, None) => return Ok((chosen, false, next_due)),
        };
        let candidate = if follower_first {
            followers.pop().map(|f| f.0)
        } else {
            let next = rows.next()?.map(|row| delivery(row, claim)).transpose()?;
            std::mem::replace(&mut head, next)
        };
        let Some(candidate) = candidate else { continue };
        if !candidate.is_free || !claim.shards.takes(&candidate.key) {
            if candidate.free_at > claim.now {
                next_due = Some(next_due.map_or(candidate.free_at, |at| at.min(candidate.free_at)));
            }
            continue;
        }
        if candidate.is_locked {
            // Its consumer died with it: alone, or not in this round.
            let alone = chosen.is_empty();
            if alone {
                chosen.push(candidate);
            }
            return Ok((chosen, alone, None));
        }
        let next = conn
            .prepare_cached(NEXT_OF_LANE)?
            .query_row(params![group, candidate.key, candidate.seq], |row| delivery(row, claim))
            .optional()?;
        followers.extend(next.map(Reverse));
        chosen.push(candidate);
    }
    Ok((chosen, false, None))
}

pub(super) fn claim(conn: &Connection, claim: &Claim, limits: &Limits) -> Result<Claims, BusError> {
    let group = group::find(conn, &claim.group)?;
    let mut claims = Claims::default();
    let mut chosen = loop {
        let (chosen, alone, next_due) = select(conn, group.id, claim)?;
        match chosen.first().filter(|first| alone && first.attempts >= claim.crashes_max) {
            Some(killer) => {
                let sql = "SELECT last_error FROM bus_delivery WHERE group_id = ?1 AND seq = ?2";
                let last: String = conn.prepare_cached(sql)?.query_row(params![group.id, killer.seq], |r| r.get(0))?;
                settle::bury(conn, &group, killer.seq, &died(killer.attempts, &last), claim.now, limits)?;
                claims.dead_lettered += 1;
            }
            None => {
                (claims.alone, claims.next_due) = (alone, next_due);
                break chosen;
            }
        }
    };
    for delivery in chosen.drain(..) {
        let envelope = match append::load(conn, delivery.seq)? {
            Ok(envelope) => envelope,
            Err(why) => {
                // It would fail in the same way for ever.
                let error = format!("what is stored cannot be read: {why}");
                settle::bury(conn, &group, delivery.seq, &error, claim.now, limits)?;
                claims.dead_lettered += 1;
                continue;
            }
        };
        let attempt = delivery.attempts.saturating_add(1);
        conn.prepare_cached(
            "UPDATE bus_delivery SET attempts = ?3, locked_until = ?4, lease = ?5, consumer = ?6, incarnation = ?7
             WHERE group_id = ?1 AND seq = ?2",
        )?
        .execute(params![
            group.id,
            delivery.seq,
            attempt,
            claim.now.saturating_add(claim.lease).as_nanos(),
            i64::try_from(claim.lease.as_nanos()).unwrap_or(i64::MAX),
            claim.consumer.as_ref(),
            claim.incarnation.as_ref(),
        ])?;
        claims.events.push(Claimed { seq: from_sql(delivery.seq), envelope: Arc::new(envelope), attempt });
    }
    if claims.events.is_empty() && claims.dead_lettered > 0 {
        // What stood behind the dead is free now: look again at once.
        claims.next_due = Some(claim.now);
    }
    Ok(claims)
}

pub(super) fn take_over(conn: &Connection, name: &str, consumer: &str, incarnation: &str) -> Result<u64, BusError> {
    let group = group::find(conn, name)?;
    let taken = conn.execute(
        "UPDATE bus_delivery SET locked_until = 0 WHERE group_id = ?1 AND consumer = ?2 AND incarnation <> ?3",
        params![group.id, consumer, incarnation],
    )?;
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
