//! Lending events out, and ending the claims.

use std::sync::Arc;

use infra_types::Timestamp;
use sqlx::postgres::PgRow;

use super::{PostgresBroker, TimeSource, wire};
use crate::{
    BusError,
    broker::{Claim, Claimed, Claims, Outcome, Settle, Settled},
};

impl PostgresBroker {
    pub(super) fn is_server(&self) -> bool {
        self.time == TimeSource::Server
    }

    pub(super) async fn lend(&self, claim: &Claim) -> Result<Claims, BusError> {
        self.ready().await?;
        let asked = self.claims.begin(&claim.incarnation);
        let lost: Vec<i64> = asked.lost.iter().map(|number| wire::to_sql(*number)).collect();
        let query = sqlx::query(
            "SELECT * FROM bus_claim($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19)",
        );
        let query = query
            .bind(&*self.channel)
            .bind(&*claim.group)
            .bind(&*claim.consumer)
            .bind(&*claim.incarnation)
            .bind(wire::nanos(claim.now))
            .bind(self.is_server())
            .bind(claim.now.as_nanos())
            .bind(wire::span(claim.lease))
            .bind(wire::span(claim.horizon))
            .bind(i32::try_from(claim.max).unwrap_or(i32::MAX))
            .bind(i32::try_from(claim.crashes_max).unwrap_or(i32::MAX))
            .bind(i64::from(claim.shards.count.max(1)))
            .bind(claim.shards.open.cast_signed())
            .bind(wire::to_sql(asked.number))
            .bind(&lost)
            .bind(wire::to_sql(self.limits.backlog_max))
            .bind(wire::to_sql(self.limits.history_max))
            .bind(wire::to_sql(self.limits.dedup_window))
            .bind(wire::to_sql(self.limits.dead_letters_max));
        let rows = asked.answered(self.postgres.write(query).await.map_err(BusError::from))?;
        self.read_claims(claim, &rows).await
    }

    async fn read_claims(&self, claim: &Claim, rows: &[PgRow]) -> Result<Claims, BusError> {
        let first = wire::only(rows)?;
        if !wire::get::<bool>(first, "is_there")? {
            if wire::get(first, "alone")? {
                return Err(claim.displaced());
            }
            return Err(BusError::NoGroup { group: claim.group.as_ref().into() });
        }
        let next_due: Option<i64> = wire::get(first, "next_due")?;
        let mut claims = Claims {
            events: Vec::with_capacity(rows.len()),
            alone: wire::get(first, "alone")?,
            next_due: next_due.map(Timestamp::from_nanos),
            dead_lettered: wire::unsigned(first, "dead_lettered")?,
            released: wire::unsigned(first, "released")?,
            evicted: wire::unsigned(first, "evicted")?,
        };
        let mut unreadable = Vec::new();
        for row in rows {
            let Some(seq) = wire::get::<Option<i64>>(row, "seq")? else { continue };
            let seq = u64::try_from(seq).map_err(wire::unreadable)?;
            let attempt = u32::try_from(wire::get::<i32>(row, "attempts")?).map_err(wire::unreadable)?;
            match wire::envelope(row) {
                Ok(envelope) => {
                    let is_priority = wire::get(row, "is_priority")?;
                    claims.events.push(Claimed { seq, envelope: Arc::new(envelope), attempt, is_priority });
                }
                // It would fail in the same way for ever.
                Err(why) => {
                    let error = format!("what is stored cannot be read: {why}");
                    unreadable.push(Settle { seq, attempt, outcome: Outcome::Dead { error } });
                }
            }
        }
        if !unreadable.is_empty() {
            claims.dead_lettered += unreadable.len() as u64;
            self.end(&claim.group, &claim.incarnation, claim.now, &unreadable).await?;
            if claims.events.is_empty() {
                // What stood behind the dead is free now: look again at once.
                (claims.alone, claims.next_due) = (false, Some(claim.now));
            }
        }
        Ok(claims)
    }

    pub(super) async fn end(
        &self,
        group: &str,
        incarnation: &str,
        now: Timestamp,
        ends: &[Settle],
    ) -> Result<Settled, BusError> {
        self.ready().await?;
        let number = |outcome: &Outcome| match outcome {
            Outcome::Ack => 1i16,
            Outcome::Retry { .. } => 2,
            Outcome::Dead { .. } => 3,
            Outcome::Release => 4,
        };
        let at = |outcome: &Outcome| match outcome {
            Outcome::Retry { at, .. } => wire::nanos(*at),
            _ => 0,
        };
        let error = |outcome: &'_ Outcome| match outcome {
            Outcome::Retry { error, .. } | Outcome::Dead { error } => error.clone().into_bytes(),
            _ => Vec::new(),
        };
        let aside = |outcome: &Outcome| matches!(outcome, Outcome::Retry { steps_aside: true, .. });
        let attempts = ends.iter().map(|end| i32::try_from(end.attempt).unwrap_or(i32::MAX));
        let query = sqlx::query("SELECT * FROM bus_settle($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)")
            .bind(group)
            .bind(incarnation)
            .bind(wire::nanos(now))
            .bind(self.is_server())
            .bind(now.as_nanos())
            .bind(wire::to_sql(self.limits.dead_letters_max))
            .bind(ends.iter().map(|end| wire::to_sql(end.seq)).collect::<Vec<_>>())
            .bind(attempts.collect::<Vec<_>>())
            .bind(ends.iter().map(|end| number(&end.outcome)).collect::<Vec<_>>())
            .bind(ends.iter().map(|end| at(&end.outcome)).collect::<Vec<_>>())
            .bind(ends.iter().map(|end| error(&end.outcome)).collect::<Vec<_>>())
            .bind(ends.iter().map(|end| aside(&end.outcome)).collect::<Vec<_>>());
        let rows = self.postgres.write(query).await?;
        let row = wire::only(&rows)?;
        if !wire::get::<bool>(row, "is_there")? {
            return Err(BusError::NoGroup { group: group.into() });
        }
        Ok(Settled { lost: wire::unsigned(row, "lost")?, evicted: wire::unsigned(row, "evicted")? })
    }
}
