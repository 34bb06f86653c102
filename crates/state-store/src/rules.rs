//! What each operation means. The backends that run in this process (memory, SQLite) bring their rows and run this; a backend
//! that runs on a server says the same in its own language and is held to it by the conformance suite.

use std::time::Duration;

use bytes::Bytes;
use infra_types::{EventId, Timestamp};

use crate::{
    batch::{Applied, Delta, LeaseGrant, OutboxPosition, Ttl, Version, When},
    changes::{Change, ChangePosition},
    error::StoreError,
    key::{Key, KeyKind},
    op::Op,
    store::Value,
    window::{Full, Slots, WindowLimit},
};

/// What a stored key is, without its bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Head {
    /// Its number, if it is a counter.
    pub(crate) counter: Option<i64>,
    /// Its version; 0 for cache keys.
    pub(crate) version: u64,
    /// When it expires, in milliseconds of the wall clock.
    pub(crate) expires_ms: Option<i64>,
}

/// A lease's row. It stays for ever, so that its fence never starts anew.
#[derive(Debug, Clone, Default)]
pub(crate) struct LeaseRow {
    /// The newest fence that was granted.
    pub(crate) fence: u64,
    /// Who holds it; none once it was released.
    pub(crate) holder: Option<String>,
    /// Until when, in milliseconds of the wall clock.
    pub(crate) expires_ms: i64,
}

impl LeaseRow {
    pub(crate) fn live_holder(&self, now_ms: i64) -> Option<&str> {
        self.holder.as_deref().filter(|_| now_ms < self.expires_ms)
    }
}

/// The rows of one namespace inside one write transaction. Reads give expired rows too; the rules judge them.
pub(crate) trait Rows {
    fn head(&mut self, key: &Key) -> Result<Option<Head>, StoreError>;
    fn put(&mut self, key: &Key, value: Value, version: u64, expires_ms: Option<i64>) -> Result<(), StoreError>;
    fn remove(&mut self, key: &Key) -> Result<(), StoreError>;
    fn lease(&mut self, key: &Key) -> Result<LeaseRow, StoreError>;
    fn put_lease(&mut self, key: &Key, row: LeaseRow) -> Result<(), StoreError>;
    /// Appends to a list and lets the oldest values beyond `cap` fall off; answers how many are left.
    fn push(&mut self, list: &Key, value: Bytes, cap: u32, expires_ms: Option<i64>) -> Result<u32, StoreError>;
    fn window(&mut self, key: &Key) -> Result<Slots, StoreError>;
    /// Whether the namespace keeps its changes.
    fn keeps_changes(&mut self) -> Result<bool, StoreError>;
    /// Keeps the newest `max` changes from now on; 0 forgets them all.
    fn keep_changes(&mut self, max: u32) -> Result<(), StoreError>;
    /// Notes a change, and forgets the oldest one beyond what is kept.
    fn note(&mut self, change: Change) -> Result<(), StoreError>;
    /// The next number of the namespace: a version or a position, never given twice.
    fn next_number(&mut self) -> Result<u64, StoreError>;
    fn enqueue(&mut self, outbox: &Key, number: u64, order: String, id: EventId, load: Bytes)
    -> Result<(), StoreError>;
    /// Removes the messages up to and with `number`.
    fn acknowledge(&mut self, outbox: &Key, number: u64) -> Result<(), StoreError>;
    /// When the mark expires; the outer none if there is no mark.
    fn mark(&mut self, consumer: &Key, id: &EventId) -> Result<Option<Option<i64>>, StoreError>;
    fn put_mark(&mut self, consumer: &Key, id: EventId, expires_ms: Option<i64>) -> Result<(), StoreError>;
}

/// Expired when `now >= expires_at`.
pub(crate) fn is_live(expires_ms: Option<i64>, now_ms: i64) -> bool {
    expires_ms.is_none_or(|at| now_ms < at)
}

/// The last number of an outbox that lies at or before `position`; both backends here commit in order, so the transaction is 0.
pub(crate) fn number_at(position: OutboxPosition) -> u64 {
    if position.transaction == 0 { position.sequence } else { u64::MAX }
}

fn expiry(now_ms: i64, ttl: Duration) -> i64 {
    // A timestamp ends in 2262; what would live longer than that ends with it.
    let last = Timestamp::from_nanos(i64::MAX).as_millis();
    now_ms.saturating_add(i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX)).min(last)
}

/// Runs a batch's operations in their order. After an error the caller rolls the rows back.
pub(crate) fn apply(rows: &mut impl Rows, ops: Vec<Op>, now_ms: i64) -> Result<Vec<Applied>, StoreError> {
    ops.into_iter().enumerate().map(|(index, op)| Step { rows: &mut *rows, index, now_ms }.run(op)).collect()
}

struct Step<'a, R> {
    rows: &'a mut R,
    index: usize,
    now_ms: i64,
}

impl<R: Rows> Step<'_, R> {
    fn run(&mut self, op: Op) -> Result<Applied, StoreError> {
        match op {
            Op::Set { key, value, ttl, when } => self.set(&key, value, ttl, when),
            Op::Delete { key, when } => {
                let existed = self.judge(&key, when)?.is_some();
                self.rows.remove(&key)?;
                if existed && key.kind() == KeyKind::Record && self.rows.keeps_changes()? {
                    let position = ChangePosition(self.rows.next_number()?);
                    self.rows.note(Change { position, key, version: None, expires_at: None })?;
                }
                Ok(Applied::Existed(existed))
            }
            Op::Check { key, when } => self.judge(&key, when).map(|_| Applied::Done),
            Op::Add { key, delta, ttl } => self.add(&key, delta, ttl),
            Op::Push { list, value, cap, ttl } => {
                let found = self.judge(&list, When::Always)?;
                if found.is_none() {
                    self.rows.remove(&list)?;
                }
                let expires_ms = self.expires(ttl, found);
                self.rows.push(&list, value, cap, expires_ms).map(Applied::Length)
            }
            Op::Admit { window, by, limit } => self.admit(window, by, &limit),
            Op::KeepChanges { max } => self.rows.keep_changes(max).map(|()| Applied::Done),
            Op::AcquireLease { key, holder, ttl } => self.acquire(key, holder, ttl),
            Op::RenewLease { key, holder, fence, ttl } => self.renew(key, holder, fence, ttl),
            Op::ReleaseLease { key, fence } => {
                let row = self.fenced(&key, fence)?;
                self.rows.put_lease(&key, LeaseRow { holder: None, ..row })?;
                Ok(Applied::Done)
            }
            Op::CheckFence { key, fence } => self.fenced(&key, fence).map(|_| Applied::Done),
            Op::Enqueue { outbox, order_key, id, payload } => {
                let number = self.rows.next_number()?;
                self.rows.enqueue(&outbox, number, order_key, id, payload)?;
                Ok(Applied::Done)
            }
            Op::Acknowledge { outbox, up_to } => {
                self.rows.acknowledge(&outbox, number_at(up_to))?;
                Ok(Applied::Done)
            }
            Op::MarkInbox { consumer, id, ttl } => {
                if self.rows.mark(&consumer, &id)?.is_some_and(|expires_ms| is_live(expires_ms, self.now_ms)) {
                    return Err(StoreError::AlreadyProcessed { index: self.index });
                }
                let expires_ms = self.expires(ttl, None);
                self.rows.put_mark(&consumer, id, expires_ms)?;
                Ok(Applied::Done)
            }
        }
    }

    /// The live key, if `when` holds.
    fn judge(&mut self, key: &Key, when: When) -> Result<Option<Head>, StoreError> {
        let found = self.rows.head(key)?.filter(|head| is_live(head.expires_ms, self.now_ms));
        let holds = match when {
            When::Always => true,
            When::Absent => found.is_none(),
            When::Exists => found.is_some(),
            When::Version(version) => found.is_some_and(|head| head.version == version.0),
        };
        if holds {
            return Ok(found);
        }
        let found = found.filter(|_| key.kind() == KeyKind::Record).map(|head| Version(head.version));
        Err(StoreError::Mismatch { index: self.index, key: key.clone(), found })
    }

    fn set(&mut self, key: &Key, value: Value, ttl: Ttl, when: When) -> Result<Applied, StoreError> {
        let found = self.judge(key, when)?;
        if value.as_counter().is_some_and(beyond) {
            return Err(self.overflow(key, found));
        }
        let version = self.put(key, value, self.expires(ttl, found))?;
        Ok(version.map_or(Applied::Done, Applied::Version))
    }

    fn add(&mut self, key: &Key, delta: Delta, ttl: Ttl) -> Result<Applied, StoreError> {
        let found = self.judge(key, When::Always)?;
        let current = match found {
            None => 0,
            Some(Head { counter: Some(current), .. }) => current,
            Some(_) => return Err(StoreError::WrongType { index: self.index, key: key.clone() }),
        };
        // An addend beyond the limit is refused by itself: a script that reckons in doubles could not add it exactly.
        if beyond(delta.by) || beyond(current.saturating_add(delta.by)) {
            return Err(self.overflow(key, found));
        }
        let new = current + delta.by;
        if new < delta.min || new > delta.max {
            return Err(StoreError::OutOfBounds { index: self.index, key: key.clone(), current });
        }
        self.put(key, Value::Counter(new), self.expires(ttl, found))?;
        Ok(Applied::Counter(new))
    }

    fn put(&mut self, key: &Key, value: Value, expires_ms: Option<i64>) -> Result<Option<Version>, StoreError> {
        let version = match key.kind() {
            KeyKind::Record => Some(self.rows.next_number()?),
            KeyKind::Cache | KeyKind::Lease | KeyKind::List | KeyKind::Window => None,
        };
        self.rows.put(key, value, version.unwrap_or(0), expires_ms)?;
        if let Some(number) = version
            && self.rows.keeps_changes()?
        {
            let (version, expires_at) = (Some(Version(number)), expires_ms.map(Timestamp::from_millis));
            self.rows.note(Change { position: ChangePosition(number), key: key.clone(), version, expires_at })?;
        }
        Ok(version.map(Version))
    }

    fn admit(&mut self, key: Key, by: i64, limit: &WindowLimit) -> Result<Applied, StoreError> {
        let mut slots = self.rows.window(&key)?;
        let used = slots.admit(by, limit, self.now_ms).map_err(|full| {
            let Full { used, retry_after } = full;
            StoreError::WindowFull { index: self.index, key: key.clone(), used, retry_after }
        })?;
        if by > 0 {
            self.rows.put(&key, Value::from(slots.encode()), 0, slots.ends_ms())?;
        }
        Ok(Applied::Used(used))
    }

    fn expires(&self, ttl: Ttl, found: Option<Head>) -> Option<i64> {
        match ttl {
            Ttl::Never => None,
            Ttl::After(time) => Some(expiry(self.now_ms, time)),
            Ttl::Keep => found.and_then(|head| head.expires_ms),
        }
    }

    fn overflow(&self, key: &Key, found: Option<Head>) -> StoreError {
        let current = found.and_then(|head| head.counter).unwrap_or(0);
        StoreError::Overflow { index: self.index, key: key.clone(), current }
    }

    fn acquire(&mut self, key: Key, holder: String, ttl: Duration) -> Result<Applied, StoreError> {
        let row = self.rows.lease(&key)?;
        let fence = match row.live_holder(self.now_ms) {
            None => row.fence + 1,
            Some(current) if current == holder => row.fence,
            Some(current) => {
                let (holder, expires_at) = (current.to_owned(), Timestamp::from_millis(row.expires_ms));
                return Err(StoreError::LeaseHeld { index: self.index, key, holder, expires_at });
            }
        };
        self.grant(&key, holder, fence, ttl)
    }

    fn renew(&mut self, key: Key, holder: String, fence: u64, ttl: Duration) -> Result<Applied, StoreError> {
        let row = self.fenced(&key, fence)?;
        if row.holder.as_deref() != Some(&holder) {
            return Err(StoreError::Fenced { index: self.index, key, newest: row.fence });
        }
        self.grant(&key, holder, fence, ttl)
    }

    fn grant(&mut self, key: &Key, holder: String, fence: u64, ttl: Duration) -> Result<Applied, StoreError> {
        let expires_ms = expiry(self.now_ms, ttl);
        self.rows.put_lease(key, LeaseRow { fence, holder: Some(holder), expires_ms })?;
        Ok(Applied::Lease(LeaseGrant { fence, expires_at: Timestamp::from_millis(expires_ms) }))
    }

    /// The lease's row if `fence` is the newest that was granted. 0 was never granted.
    fn fenced(&mut self, key: &Key, fence: u64) -> Result<LeaseRow, StoreError> {
        let row = self.rows.lease(key)?;
        if fence == 0 || row.fence != fence {
            return Err(StoreError::Fenced { index: self.index, key: key.clone(), newest: row.fence });
        }
        Ok(row)
    }
}

fn beyond(counter: i64) -> bool {
    !(-Value::COUNTER_MAX..=Value::COUNTER_MAX).contains(&counter)
}
