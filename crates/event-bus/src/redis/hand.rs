//! Handing over what an append lent to somebody who waits.

use std::sync::{Arc, atomic::Ordering::SeqCst};

use infra_backends::{Access, RedisMessage};
use redis::Value as Reply;

use super::{Store, scripts, waits::Handed, wire};
use crate::{
    BusError,
    broker::{Append, Claimed, Claims, Seq},
};

impl Store {
    /// Hands what was lent of the events of an append (the first of them is at `first`) to consumers of this process.
    pub(super) async fn hand_over(&self, first: Seq, events: &[Append], lent: Option<Reply>) -> Result<(), BusError> {
        for one in wire::array(lent)? {
            let mut one = wire::array(Some(one))?.into_iter();
            let (incarnation, number) = (wire::text(one.next())?, wire::text(one.next())?);
            let (number, record) = (number.parse().map_err(|_| wire::unreadable())?, wire::unsigned(one.next())?);
            let Some((group, incarnation)) = self.waiters.expects(&incarnation, number) else { continue };
            let mut claims = Claims::default();
            let mut ranges = wire::array(one.next())?.into_iter();
            while let Some(low) = ranges.next() {
                for seq in wire::unsigned(Some(low))?..=wire::unsigned(ranges.next())? {
                    let nth = usize::try_from(seq.saturating_sub(first)).map_err(|_| wire::unreadable())?;
                    let envelope = events.get(nth).ok_or_else(wire::unreadable)?.envelope.clone();
                    claims.events.push(Claimed { seq, envelope, attempt: 1, is_priority: false });
                }
            }
            self.give(number, record, Handed { group, incarnation, claims }).await;
        }
        Ok(())
    }

    /// Hears what is handed over to this process by others, for as long as it is polled.
    pub(super) async fn hear_handed(&self) {
        let mut ear = self.redis.subscribe(format!("{}to:{}", self.base, self.program).as_bytes());
        let _deaf = Deaf(self);
        loop {
            match ear.next().await {
                RedisMessage::Subscribed => self.waiters.hears.store(true, SeqCst),
                // What nobody can make out comes back at the next look of whoever it was meant for.
                RedisMessage::Message(message) => _ = self.heard(&message).await,
                RedisMessage::Gap { .. } => self.waiters.hears.store(false, SeqCst),
                RedisMessage::Failed(_) => {}
            }
        }
    }

    async fn heard(&self, message: &[u8]) -> Option<()> {
        let mut rest = message;
        let (incarnation, number) = (line(&mut rest)?, line(&mut rest)?.parse().ok()?);
        let record = line(&mut rest)?.parse().ok()?;
        let (group, incarnation) = self.waiters.expects(incarnation, number)?;
        let mut claims = Claims::default();
        while !rest.is_empty() {
            let mut numbers = line(&mut rest)?.split(' ').map(str::parse::<u64>);
            let mut next = || numbers.next()?.ok();
            let (first, more, till, head, body) = (next()?, next()?, next()?, next()?, next()?);
            let (head, behind) = rest.split_at_checked(usize::try_from(head).ok()?)?;
            let (body, behind) = behind.split_at_checked(usize::try_from(body).ok()?)?;
            rest = behind;
            for (seq, stored) in wire::Stored::row((first, more), head, body, (first, till)).ok()? {
                // What cannot be read is left to whoever asks for it: that one hears why, and settles it.
                let envelope = Arc::new(stored.envelope().ok()?);
                claims.events.push(Claimed { seq, envelope, attempt: 1, is_priority: false });
            }
        }
        self.give(number, record, Handed { group, incarnation, claims }).await;
        Some(())
    }

    async fn give(&self, number: u64, record: u64, handed: Handed) {
        // Before the consumer can have handled it. If it does not get it, nothing is asked about the record.
        self.records.note(&handed.incarnation, record, &handed.claims);
        if let Err(back) = self.waiters.take(number, handed) {
            self.give_back(back).await;
        }
    }

    /// Nothing is handed to the consumer any more.
    pub(super) async fn end_wait(&self, group: &str, incarnation: &str) -> Result<(), BusError> {
        let (_, number) = self.waiters.ask(&group.into(), &incarnation.into(), None);
        let Some(number) = number else { return Ok(()) };
        let args = |call: &mut redis::Cmd| _ = call.arg(incarnation).arg(number);
        let (word, _) = self.on_group(&scripts::WITHDRAW, Access::Write, group, args).await?;
        self.expect_ok(&word, group)
    }
}

/// Nobody hears any more once it is dropped.
struct Deaf<'a>(&'a Store);

impl Drop for Deaf<'_> {
    fn drop(&mut self) {
        self.0.waiters.hears.store(false, SeqCst);
    }
}

/// Takes the first line off.
fn line<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    let end = rest.iter().position(|byte| *byte == b'\n')?;
    let line = std::str::from_utf8(&rest[..end]).ok()?;
    *rest = &rest[end + 1..];
    Some(line)
}
