//! Lending events out, and ending the claims.

use std::{fmt::Write, sync::Arc};

use infra_backends::{Access, RedisScript};
use infra_types::Timestamp;
use redis::{Cmd, Value as Reply};

use super::{Store, scripts, waits::Handed, wire};
use crate::{
    BusError,
    broker::{Claim, Claimed, Claims, Outcome, Settle, Settled, Turn, Turned},
};

impl Store {
    pub(super) async fn lend(&self, turn: Turn) -> Result<Turned, BusError> {
        let Turn { ends, claim, waits } = turn;
        self.ready().await?;
        let (may_wait, missed) =
            self.waiters.ask(&claim.group, &claim.incarnation, waits.as_ref().map(|waits| &waits.to));
        if let Some(missed) = missed {
            self.claims.note(&claim.incarnation, missed);
        }
        let patience = waits.filter(|_| may_wait).map_or(0, |waits| micros(waits.patience));
        let asked = self.claims.begin(&claim.incarnation);
        let record = self.records.ended_by(&claim.incarnation, &ends);
        let mut answer = None;
        // It finds nothing lent out but this record, so of claims whose answers were lost nothing is left.
        if ends.is_empty() || record.is_some() {
            let mut call = self.claim_call(&scripts::TURN_FAST, &claim, asked.number, patience);
            match &record {
                Some(record) => call.arg(record.number).arg(record.places.len()).arg(record.low()),
                None => call.arg("").arg(0).arg(0),
            };
            let (word, rest) = match self.script(&scripts::TURN_FAST, &call, Access::Write).await {
                Ok(reply) => wire::answer(reply)?,
                Err(error) => return asked.answered(Err(error)),
            };
            if word != "slow" {
                answer = Some((word, rest));
            }
        }
        let (word, rest) = match answer {
            Some(answer) => asked.answered(Ok(answer))?,
            None => {
                let mut call = self.claim_call(&scripts::CLAIM, &claim, asked.number, patience);
                call.arg(asked.lost.len());
                for number in &asked.lost {
                    call.arg(*number);
                }
                add_ends(&mut call, &ends);
                wire::answer(asked.answered(self.script(&scripts::CLAIM, &call, Access::Write).await)?)?
            }
        };
        if word == "displaced" {
            // Nothing is lent to it any more, but what it has done is done.
            let settled = match ends.as_slice() {
                [] => Settled::default(),
                ends => self.end(&claim.group, &claim.incarnation, claim.now, ends).await?,
            };
            return Ok(Turned { settled, claims: Err(claim.displaced()), is_waiting: false });
        }
        self.expect_ok(&word, &claim.group)?;
        self.read_claims(&claim, rest).await
    }

    fn claim_call(&self, script: &RedisScript, claim: &Claim, number: u64, patience: u64) -> Cmd {
        let mut call = script.call(1);
        let open: Vec<u8> = (0..64).map(|n| if claim.shards.open & (1 << n) == 0 { b'0' } else { b'1' }).collect();
        call.arg(&self.base).arg(&*claim.group).arg(&*claim.consumer).arg(&*claim.incarnation);
        call.arg(wire::floor_us(claim.now)).arg(self.source());
        call.arg(micros(claim.lease)).arg(micros(claim.horizon)).arg(claim.max).arg(claim.crashes_max);
        call.arg(claim.shards.count).arg(open).arg(self.limits.dead_letters_max).arg(claim.now.as_nanos());
        call.arg(self.limits.backlog_max).arg(self.limits.history_max).arg(self.limits.dedup_window).arg(number);
        call.arg(patience).arg(&self.program).arg(u8::from(self.waiters.hears()));
        call
    }

    async fn read_claims(&self, claim: &Claim, mut rest: std::vec::IntoIter<Reply>) -> Result<Turned, BusError> {
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
        let waits = wire::text(rest.next())?.parse().ok();
        let settled = Settled { lost: wire::unsigned(rest.next())?, evicted: wire::unsigned(rest.next())? };
        // Only where nothing else was lent with it.
        let record = wire::text(rest.next())?.parse().unwrap_or(0);
        if !claims.events.is_empty() {
            self.records.note(&claim.incarnation, if unreadable.is_empty() { record } else { 0 }, &claims);
        }
        if let Err(back) = self.waiters.answered(&claim.incarnation, waits) {
            self.give_back(back).await;
        }
        if !unreadable.is_empty() {
            if let Err(error) = self.end(&claim.group, &claim.incarnation, claim.now, &unreadable).await {
                return Ok(Turned { settled, claims: Err(error), is_waiting: false });
            }
            if claims.events.is_empty() {
                // What stood behind the dead is free now: look again at once.
                (claims.alone, claims.next_due) = (false, Some(claim.now));
            }
        }
        Ok(Turned { settled, claims: Ok(claims), is_waiting: waits.is_some() })
    }

    /// What was handed over to a consumer that is gone. If this fails it comes back when its lease ends.
    pub(super) async fn give_back(&self, handed: Handed) {
        let release = |event: &Claimed| Settle { seq: event.seq, attempt: event.attempt, outcome: Outcome::Release };
        let ends: Vec<_> = handed.claims.events.iter().map(release).collect();
        let _ = self.end(&handed.group, &handed.incarnation, Timestamp::EPOCH, &ends).await;
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
        add_ends(&mut call, ends);
        let (word, mut rest) = wire::answer(self.script(&scripts::SETTLE, &call, Access::Write).await?)?;
        self.expect_ok(&word, group)?;
        Ok(Settled { lost: wire::unsigned(rest.next())?, evicted: wire::unsigned(rest.next())? })
    }
}

fn add_ends(call: &mut Cmd, ends: &[Settle]) {
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
