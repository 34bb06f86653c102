//! Which events may be lent: the heads that are free, each followed by its lane as far as that is free.

use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

use infra_types::Timestamp;
use rusqlite::{CachedStatement, Connection, OptionalExtension, Row, params};

use super::from_sql;
use crate::{
    BusError,
    broker::{Claim, Shards},
};

/// A row of a lane.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Delivery {
    pub(super) seq: i64,
    key: String,
    pub(super) is_priority: bool,
    pub(super) attempts: u32,
    is_aside: bool,
    is_locked: bool,
    is_free: bool,
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

pub(super) const HEADS: &str =
    "SELECT seq, key, attempts, next_at, locked_until, lease, incarnation IS NOT NULL, aside, priority
     FROM bus_delivery INDEXED BY bus_delivery_head
     WHERE group_id = ?1 AND priority = ?2 AND head = 1 ORDER BY seq";
pub(super) const NEXT_OF_LANE: &str =
    "SELECT seq, key, attempts, next_at, locked_until, lease, incarnation IS NOT NULL, aside, priority
     FROM bus_delivery INDEXED BY bus_delivery_lane
     WHERE group_id = ?1 AND priority = ?2 AND key = ?3 AND aside = 0 AND seq > ?4 ORDER BY seq LIMIT 1";
pub(super) const NEXT_DUE: &str = "SELECT min(free_at) FROM bus_delivery INDEXED BY bus_delivery_wait
     WHERE group_id = ?1 AND head = 1 AND free_at > 0 AND free_at > ?2";

fn delivery(row: &Row<'_>, claim: &Claim) -> rusqlite::Result<Delivery> {
    let next_at = Timestamp::from_nanos(row.get(3)?);
    let until = Timestamp::from_nanos(row.get(4)?);
    let lease = Duration::from_nanos(from_sql(row.get(5)?));
    let is_locked: bool = row.get(6)?;
    Ok(Delivery {
        seq: row.get(0)?,
        key: row.get(1)?,
        attempts: row.get(2)?,
        is_aside: row.get(7)?,
        is_priority: row.get(8)?,
        is_locked,
        is_free: claim.is_due(next_at) && (!is_locked || claim.is_over(until, lease)),
    })
}

/// The parts that have a shard with room, in the order in which they are served. What has none is not walked.
fn parts(claim: &Claim) -> impl Iterator<Item = bool> + use<> {
    let priority = 1 << Shards::PRIORITY;
    let open = claim.shards.open;
    [(true, open & priority), (false, open & !priority)].into_iter().filter(|(_, open)| *open != 0).map(|part| part.0)
}

/// Whether there is something to claim.
pub(super) fn has_work(conn: &Connection, group: i64, claim: &Claim) -> Result<bool, BusError> {
    for is_priority in parts(claim) {
        let mut heads = conn.prepare_cached(HEADS)?;
        for head in heads.query_map(params![group, is_priority], |row| delivery(row, claim))? {
            let head = head?;
            if head.is_free && claim.shards.takes(&head.key, is_priority) {
                return Ok(claim.max > 0);
            }
        }
    }
    Ok(false)
}

/// When the next waiting retry or claim ends.
pub(super) fn next_due(conn: &Connection, group: i64, now: Timestamp) -> Result<Option<Timestamp>, BusError> {
    let next: Option<i64> = conn.prepare_cached(NEXT_DUE)?.query_row(params![group, now.as_nanos()], |r| r.get(0))?;
    Ok(next.map(Timestamp::from_nanos))
}

/// The events to lend: those with priority, then the others. The last answer says that the only one comes alone.
pub(super) fn select(conn: &Connection, group: i64, claim: &Claim) -> Result<(Vec<Delivery>, bool), BusError> {
    let mut chosen = Vec::new();
    for is_priority in parts(claim) {
        let mut heads = conn.prepare_cached(HEADS)?;
        if select_of(conn, group, is_priority, claim, &mut heads, &mut chosen)? {
            return Ok((chosen, true));
        }
    }
    Ok((chosen, false))
}

/// In stored order.
fn select_of(
    conn: &Connection,
    group: i64,
    is_priority: bool,
    claim: &Claim,
    heads: &mut CachedStatement<'_>,
    chosen: &mut Vec<Delivery>,
) -> Result<bool, BusError> {
    let mut rows = heads.query(params![group, is_priority])?;
    let mut head = rows.next()?.map(|row| delivery(row, claim)).transpose()?;
    let mut followers: BinaryHeap<Reverse<Delivery>> = BinaryHeap::new();
    while chosen.len() < claim.max {
        let follower_first = match (&head, followers.peek()) {
            (Some(head), Some(Reverse(follower))) => follower.seq < head.seq,
            (None, Some(_)) => true,
            (Some(_), None) => false,
            (None, None) => break,
        };
        let candidate = if follower_first {
            followers.pop().map(|f| f.0)
        } else {
            let next = rows.next()?.map(|row| delivery(row, claim)).transpose()?;
            std::mem::replace(&mut head, next)
        };
        let Some(candidate) = candidate else { continue };
        if !candidate.is_free || !claim.shards.takes(&candidate.key, is_priority) {
            continue;
        }
        if candidate.is_locked {
            // Its consumer died with it: alone, or not in this round.
            let alone = chosen.is_empty();
            if alone {
                chosen.push(candidate);
            }
            return Ok(alone);
        }
        if !candidate.is_aside {
            let next = conn
                .prepare_cached(NEXT_OF_LANE)?
                .query_row(params![group, is_priority, candidate.key, candidate.seq], |row| delivery(row, claim))
                .optional()?;
            followers.extend(next.map(Reverse));
        }
        chosen.push(candidate);
    }
    Ok(false)
}
