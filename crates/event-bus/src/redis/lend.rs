//! Lending events out, and ending the claims.

use std::{fmt::Write, sync::Arc};

use infra_backends::Access;
use infra_types::Timestamp;
use redis::Value as Reply;

use super::{RedisBroker, scripts, wire};
use crate::{
    BusError,
    broker::{Claim, Claimed, Claims, Outcome, Settle, Settled},
};

impl RedisBroker {
    pub(super) async fn lend(&self, claim: &Claim) -> Result<Claims, BusError> {
        self.ready().await?;
        let asked = self.claims.begin(&claim.incarnation);
        let mut call = scripts::CLAIM.call(1);
        let open: Vec<u8> = (0..64).map(|n| if claim.shards.open & (1 << n) == 0 { b'0' } else { b'1' }).collect();
        call.arg(&self.base).arg(&*claim.group).arg(&*claim.consumer).arg(&*claim.incarnation);
        call.arg(wire::floor_us(claim.now)).arg(self.source());
        call.arg(micros(claim.lease)).arg(micros(claim.horizon)).arg(claim.max).arg(claim.crashes_max);
        call.arg(claim.shards.count).arg(open).arg(self.limits.dead_letters_max).arg(claim.now.as_nanos());
        call.arg(self.limits.backlog_max).arg(self.limits.history_max).arg(self.limits.dedup_window).arg(asked.number);
        for number in &asked.lost {
            call.arg(*number);
        }
        let reply = asked.answered(self.script(&scripts::CLAIM, &call, Access::Write).await)?;
        let (word, rest) = wire::answer(reply)?;
        if word == "displaced" {
            return Err(claim.displaced());
        }
        self.expect_ok(&word, &claim.group)?;
        self.read_claims(claim, rest).await
    }

    async fn read_claims(&self, claim: &Claim, mut rest: std::vec::IntoIter<Reply>) -> Result<Claims, BusError> {
        let mut claims = Claims::default();
        let mut unreadable = Vec::new();
        let mut stored = Vec::new();
        for event in wire::array(rest.next())? {
            let mut event = wire::array(Some(event))?.into_iter();
            let (seq, attempt) = (wire::unsigned(event.next())?, wire::unsigned(event.next())?);
            stored.push((
                seq,
                u32::try_from(attempt).unwrap_or(u32::MAX),
                wire::Stored::new(event.next(), event.next())?,
            ));
        }
        for entry in wire::array(rest.next())? {
            stored.extend(wire::Stored::entry(entry)?.into_iter().map(|(seq, event)| (seq, 1, event)));
        }
        for (seq, attempt, event) in stored {
            let is_priority = event.is_priority();
            match event.envelope() {
                Ok(envelope) => {
                    claims.events.push(Claimed { seq, envelope: Arc::new(envelope), attempt, is_priority });
                }
                // It would fail in the same way for ever.
                Err(why) => {
                    let error = format!("what is stored cannot be read: {why}");
                    unreadable.push(Settle { seq, attempt, outcome: Outcome::Dead { error } });
                }
            }
        }
        claims.alone = wire::int(rest.next())? == 1;
        claims.dead_lettered = wire::unsigned(rest.next())? + unreadable.len() as u64;
        claims.next_due = wire::text(rest.next())?.parse().ok().map(wire::from_us);
        (claims.released, claims.evicted) = (wire::unsigned(rest.next())?, wire::unsigned(rest.next())?);
        if !unreadable.is_empty() {
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
        let mut call = scripts::SETTLE.call(1);
        call.arg(&self.base).arg(group).arg(incarnation).arg(wire::floor_us(now)).arg(self.source());
        call.arg(self.limits.dead_letters_max).arg(now.as_nanos());
        let (acked, others) = parted(ends);
        call.arg(acked);
        for end in others {
            call.arg(end.seq).arg(end.attempt);
            match &end.outcome {
                Outcome::Ack => call.arg("ack").arg("").arg(""),
                Outcome::Retry { at, error, steps_aside } => {
                    call.arg(if *steps_aside { "aside" } else { "retry" }).arg(wire::ceil_us(*at)).arg(error)
                }
                Outcome::Dead { error } => call.arg("dead").arg("").arg(error),
                Outcome::Release => call.arg("release").arg("").arg(""),
            };
        }
        let (word, mut rest) = wire::answer(self.script(&scripts::SETTLE, &call, Access::Write).await?)?;
        self.expect_ok(&word, group)?;
        Ok(Settled { lost: wire::unsigned(rest.next())?, evicted: wire::unsigned(rest.next())? })
    }
}

/// First attempts that are acknowledged, as `FROM-TO,…` in ascending order, and the others.
fn parted(ends: &[Settle]) -> (String, Vec<&Settle>) {
    let mut seqs: Vec<_> = ends.iter().map(|end| end.seq).collect();
    seqs.sort_unstable();
    if seqs.windows(2).any(|two| two[0] == two[1]) {
        // Which of them counts depends on their order.
        return (String::new(), ends.iter().collect());
    }
    let is_simple = |end: &&Settle| end.attempt == 1 && end.outcome == Outcome::Ack;
    let (simple, others): (Vec<_>, Vec<_>) = ends.iter().partition(is_simple);
    let mut acked: Vec<_> = simple.into_iter().map(|end| end.seq).collect();
    acked.sort_unstable();
    let mut text = String::new();
    for run in acked.chunk_by(|a, b| a + 1 == *b) {
        // Writing to memory does not fail.
        let _ = write!(text, "{}-{},", run[0], run[run.len() - 1]);
    }
    (text, others)
}

fn micros(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX).min(1 << 52)
}
