//! How a group of batches gets in.
//!
//! The tree is computed here, from the frontier that stands in the head row. As long as nobody else appends, this process knows that
//! frontier already, so a group is one statement that says "if the head still is this one, make it that one"; the server compares
//! under the row's lock. Once somebody else was there in between, a group is a transaction that locks the row, reads it, and writes:
//! slower, but it waits its turn instead of trying again and again.

use std::{collections::HashMap, sync::Arc};

use infra_backends::{PgQuery, Postgres};
use sqlx::{Row, postgres::PgRow};

use super::{damaged, unreadable};
use crate::{
    codec::Prepared,
    error::AuditError,
    log::Receipt,
    tree::{Frontier, Hash32},
};

/// The head, as it is locked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tip {
    pub(super) frontier: Frontier,
    turn: i64,
}

/// What `audit_look` says.
struct Look {
    tip: Tip,
    known: HashMap<String, Receipt>,
}

impl Tip {
    /// Reads `size, turn, frontier, newest`, and refuses rows that visibly do not fit: appending to such a log would bury the trace.
    pub(super) fn read(row: &PgRow) -> Result<Self, AuditError> {
        let size: Option<i64> = row.try_get("size").map_err(unreadable)?;
        let size = size.ok_or_else(|| damaged(None, "its head is missing"))?;
        let newest: Option<i64> = row.try_get("newest").map_err(unreadable)?;
        if newest.map_or(0, |newest| newest.saturating_add(1)) != size {
            return Err(damaged(None, "its rows do not fit its head"));
        }
        let nodes: Vec<u8> = row.try_get("frontier").map_err(unreadable)?;
        let frontier = u64::try_from(size).ok().and_then(|size| Frontier::from_node_bytes(size, &nodes));
        let frontier = frontier.ok_or_else(|| damaged(None, "its head is not of the right shape"))?;
        Ok(Self { frontier, turn: row.try_get("turn").map_err(unreadable)? })
    }

    /// Refuses a head that this process has seen otherwise.
    fn follows(&self, seen: Option<&Self>) -> Result<(), AuditError> {
        let Some(seen) = seen else { return Ok(()) };
        if self.frontier.size() < seen.frontier.size() {
            let lost = "it is shorter than this process has seen it: events that were acknowledged are gone";
            return Err(damaged(Some(self.frontier.size()), lost));
        }
        if self.frontier.size() == seen.frontier.size() && self.frontier != seen.frontier {
            return Err(damaged(None, "its head is not the one that this process has written or read"));
        }
        Ok(())
    }
}

impl Look {
    fn read(row: &PgRow) -> Result<Self, AuditError> {
        let ids: Option<Vec<String>> = row.try_get("known_ids").map_err(unreadable)?;
        let places: Option<Vec<i64>> = row.try_get("known_places").map_err(unreadable)?;
        let leaves: Option<Vec<Vec<u8>>> = row.try_get("known_leaves").map_err(unreadable)?;
        let (ids, places, leaves) = (ids.unwrap_or_default(), places.unwrap_or_default(), leaves.unwrap_or_default());
        let receipt = |((id, place), leaf): ((String, i64), Vec<u8>)| {
            let index = place.cast_unsigned();
            let leaf_hash = Hash32::try_from(leaf.as_slice());
            let leaf_hash = leaf_hash.map_err(|_| damaged(Some(index), "its leaf hash is not one"))?;
            Ok((id, Receipt { index, leaf_hash }))
        };
        let known = ids.into_iter().zip(places).zip(leaves).map(receipt).collect::<Result<_, AuditError>>()?;
        Ok(Self { tip: Tip::read(row)?, known })
    }
}

fn only(rows: &[PgRow]) -> Result<&PgRow, AuditError> {
    rows.first().ok_or_else(|| damaged(None, "the server's answer has no row"))
}

/// What a group comes to, built upon some head.
#[derive(Debug)]
pub(super) struct Plan {
    /// One for each batch, in order.
    answers: Vec<Result<Vec<Receipt>, AuditError>>,
    /// What is to be stored: batch and place in it.
    new: Vec<(usize, usize)>,
    grown: Frontier,
}

impl Plan {
    /// Each batch for itself, all or nothing; one that conflicts leaves the others be.
    fn new(batches: &[Vec<Prepared>], known: &HashMap<String, Receipt>, frontier: &Frontier) -> Self {
        let mut plan = Self { answers: Vec::new(), new: Vec::new(), grown: frontier.clone() };
        let mut taken: HashMap<&str, Receipt> = HashMap::new();
        for (number, batch) in batches.iter().enumerate() {
            let (mut receipts, mut own, mut new) = (Vec::with_capacity(batch.len()), HashMap::new(), Vec::new());
            let mut refusal = None;
            for (place, prepared) in batch.iter().enumerate() {
                let (id, leaf_hash) = (prepared.event.id.as_str(), prepared.leaf);
                let receipt = match known.get(id).or_else(|| taken.get(id)).or_else(|| own.get(id)).copied() {
                    Some(receipt) if receipt.leaf_hash == leaf_hash => receipt,
                    Some(Receipt { index, .. }) => {
                        refusal = Some(AuditError::Conflict { id: prepared.event.id.clone(), index });
                        break;
                    }
                    None => {
                        let receipt = Receipt { index: plan.grown.size() + new.len() as u64, leaf_hash };
                        own.insert(id, receipt);
                        new.push((number, place));
                        receipt
                    }
                };
                receipts.push(receipt);
            }
            if let Some(refusal) = refusal {
                plan.answers.push(Err(refusal));
                continue;
            }
            for (_, place) in &new {
                plan.grown.push(batch[*place].leaf);
            }
            taken.extend(own);
            plan.new.extend(new);
            plan.answers.push(Ok(receipts));
        }
        plan
    }

    fn query(&self, batches: &[Vec<Prepared>], tip: &Tip) -> PgQuery<'static> {
        let new: Vec<&Prepared> = self.new.iter().map(|(batch, place)| &batches[*batch][*place]).collect();
        let texts = |of: fn(&Prepared) -> &str| new.iter().map(|p| of(p)).collect::<Vec<&str>>();
        let symbol = |p: &&Prepared| p.event.symbol.as_ref().map(|symbol| symbol.as_str().to_owned());
        let person = |p: &&Prepared| p.event.context.user.as_ref().map(|user| user.as_str().to_owned());
        sqlx::query("SELECT * FROM audit_append($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)")
            .bind(tip.frontier.size().cast_signed())
            .bind(tip.turn)
            .bind(tip.frontier.node_bytes())
            .bind(self.grown.node_bytes())
            .bind(texts(|p| p.event.id.as_str()))
            .bind(texts(|p| p.event.kind.as_str()))
            .bind(new.iter().map(symbol).collect::<Vec<_>>())
            .bind(new.iter().map(person).collect::<Vec<_>>())
            .bind(new.iter().map(|p| p.event.at.as_nanos()).collect::<Vec<_>>())
            .bind(new.iter().map(|p| p.leaf.as_bytes().as_slice()).collect::<Vec<_>>())
            .bind(new.iter().map(|p| p.data.as_slice()).collect::<Vec<_>>())
    }

    fn has_refusals(&self) -> bool {
        self.answers.iter().any(Result::is_err)
    }
}

/// Appends one group after the other, and remembers the head.
#[derive(Debug, Default)]
pub(super) struct Appender {
    /// The newest head that is known to be stored.
    seen: Option<Tip>,
    /// Whether nobody else appended between the last two groups.
    alone: bool,
}

impl Appender {
    /// Answers every batch, or why the group as a whole failed.
    pub(super) async fn commit(
        &mut self,
        postgres: &Postgres,
        batches: Arc<Vec<Vec<Prepared>>>,
    ) -> Result<Vec<Result<Vec<Receipt>, AuditError>>, AuditError> {
        // Only a success makes it true again: after a failure nobody knows who was there.
        if std::mem::take(&mut self.alone)
            && let Some(answers) = self.in_one_statement(postgres, &batches).await?
        {
            return Ok(answers);
        }
        let seen = self.seen.clone();
        let (found, plan) = postgres
            .transaction(move |tx| {
                Box::pin(async move {
                    let ids: Vec<String> = batches.iter().flatten().map(|p| p.event.id.as_str().to_owned()).collect();
                    let rows = tx.rows(sqlx::query("SELECT * FROM audit_look($1)").bind(ids)).await?;
                    let look = Look::read(only(&rows)?)?;
                    look.tip.follows(seen.as_ref())?;
                    let plan = Plan::new(&batches, &look.known, &look.tip.frontier);
                    if !plan.new.is_empty() {
                        let rows = tx.rows(plan.query(&batches, &look.tip)).await?;
                        if !only(&rows)?.try_get::<bool, _>("stored").map_err(unreadable)? {
                            return Err(damaged(None, "its head changed although it was locked"));
                        }
                    }
                    Ok::<_, AuditError>((look.tip, plan))
                })
            })
            .await?;
        self.alone = self.seen.as_ref().is_none_or(|seen| *seen == found);
        self.seen = Some(Tip { frontier: plan.grown, turn: found.turn });
        Ok(plan.answers)
    }

    /// None if the head must be locked first.
    async fn in_one_statement(
        &mut self,
        postgres: &Postgres,
        batches: &[Vec<Prepared>],
    ) -> Result<Option<Vec<Result<Vec<Receipt>, AuditError>>>, AuditError> {
        let Some(seen) = &self.seen else { return Ok(None) };
        let plan = Plan::new(batches, &HashMap::new(), &seen.frontier);
        // A conflict inside the group: which event stands where depends on what is stored.
        if plan.has_refusals() || plan.new.is_empty() {
            return Ok(None);
        }
        let rows = postgres.write(plan.query(batches, seen)).await?;
        let row = only(&rows)?;
        if row.try_get("stored").map_err(unreadable)? {
            self.seen = Some(Tip { frontier: plan.grown, turn: seen.turn });
            self.alone = true;
            return Ok(Some(plan.answers));
        }
        let look = Look::read(row)?;
        look.tip.follows(Some(seen))?;
        let again = Plan::new(batches, &look.known, &look.tip.frontier);
        if !again.new.is_empty() {
            return Ok(None);
        }
        // All of it was stored before, and the server has just said where.
        self.alone = *seen == look.tip;
        self.seen = Some(look.tip);
        Ok(Some(again.answers))
    }
}

#[cfg(test)]
mod tests;
