//! What every backend refuses before it does anything, so that a batch that fits one fits all.

use std::time::Duration;

use crate::{
    batch::{Batch, Ttl, When},
    error::StoreError,
    key::{Key, KeyKind},
    list::ListRange,
    op::Op,
    store::{Limits, Scan, Value},
    window::WindowLimit,
};

/// Records of a page, messages of a read.
const PAGE_MAX: usize = 1_000;
/// Values of a list.
const LIST_CAP_MAX: u32 = 10_000;
/// Changes that a namespace keeps.
const CHANGES_MAX: u32 = 100_000;
const TTL_MIN: Duration = Duration::from_millis(1);

fn invalid(rule: impl Into<String>) -> StoreError {
    StoreError::Invalid { rule: rule.into() }
}

fn at_most(what: &'static str, found: usize, max: usize) -> Result<(), StoreError> {
    if found > max { Err(StoreError::TooLarge { what, found, max }) } else { Ok(()) }
}

/// A batch: its sizes, and operations that make sense for the kind of their key.
pub(crate) fn batch(batch: &Batch, limits: &Limits) -> Result<(), StoreError> {
    at_most("batch operations", batch.ops.len(), limits.batch_ops_max)?;
    let mut total = 0;
    for op in &batch.ops {
        let bytes = check(op)?;
        at_most("value", bytes, limits.value_bytes_max)?;
        total += bytes;
    }
    at_most("batch bytes", total, limits.batch_bytes_max)
}

/// One operation; answers how many bytes of value it carries.
fn check(op: &Op) -> Result<usize, StoreError> {
    match op {
        Op::Set { key, value, ttl: keep, when: on } => {
            plain(key)?;
            ttl(*keep)?;
            when(key, *on)?;
            Ok(value.as_bytes().map_or(0, bytes::Bytes::len))
        }
        Op::Delete { key, when: on } | Op::Check { key, when: on } => {
            match key.kind() {
                KeyKind::Lease => return Err(invalid("a lease key is written by lease operations only")),
                KeyKind::Cache | KeyKind::Record | KeyKind::List | KeyKind::Window => {}
            }
            when(key, *on).map(|()| 0)
        }
        Op::Push { list, value, cap, ttl: keep } => {
            of_kind(list, KeyKind::List, "a push needs a list key")?;
            if !(1..=LIST_CAP_MAX).contains(cap) {
                return Err(invalid("a list keeps 1 to 10,000 values"));
            }
            ttl(*keep).map(|()| value.len())
        }
        Op::Admit { window, by, limit } => {
            of_kind(window, KeyKind::Window, "a sliding window needs a window key")?;
            admitted(*by, limit).map(|()| 0)
        }
        Op::KeepChanges { max } => {
            if *max > CHANGES_MAX {
                return Err(invalid("a namespace keeps at most 100,000 changes"));
            }
            Ok(0)
        }
        Op::Add { key, delta, ttl: keep } => {
            plain(key)?;
            if delta.min > delta.max {
                return Err(invalid("an addition's min must be at most its max"));
            }
            ttl(*keep).map(|()| 0)
        }
        Op::AcquireLease { key, holder, ttl } | Op::RenewLease { key, holder, ttl, .. } => {
            of_kind(key, KeyKind::Lease, "lease operations need a lease key")?;
            if holder.is_empty() {
                return Err(invalid("a holder must have a name"));
            }
            text("a holder's name", holder)?;
            after(*ttl).map(|()| 0)
        }
        Op::ReleaseLease { key, .. } | Op::CheckFence { key, .. } => {
            of_kind(key, KeyKind::Lease, "lease operations need a lease key").map(|()| 0)
        }
        Op::Enqueue { outbox, order_key, payload, .. } => {
            of_kind(outbox, KeyKind::Record, "an outbox is named by a record key")?;
            text("an order key", order_key).map(|()| payload.len())
        }
        Op::Acknowledge { outbox, .. } => {
            of_kind(outbox, KeyKind::Record, "an outbox is named by a record key").map(|()| 0)
        }
        Op::MarkInbox { consumer, ttl: keep, .. } => {
            of_kind(consumer, KeyKind::Record, "an inbox is named by a record key")?;
            ttl(*keep).map(|()| 0)
        }
    }
}

fn of_kind(key: &Key, kind: KeyKind, rule: &str) -> Result<(), StoreError> {
    if key.kind() == kind { Ok(()) } else { Err(invalid(rule)) }
}

fn plain(key: &Key) -> Result<(), StoreError> {
    match key.kind() {
        KeyKind::Cache | KeyKind::Record => Ok(()),
        KeyKind::Lease => Err(invalid("a lease key is written by lease operations only")),
        KeyKind::List => Err(invalid("a list key is written by push")),
        KeyKind::Window => Err(invalid("a window key is written by admit")),
    }
}

fn admitted(by: i64, limit: &WindowLimit) -> Result<(), StoreError> {
    let amount = 0..=Value::COUNTER_MAX;
    if !amount.contains(&by) || !amount.contains(&limit.max) {
        return Err(invalid("a window counts 0 to 2^53-1"));
    }
    if limit.slices.get() > WindowLimit::SLICES_MAX {
        return Err(invalid("a window has 1 to 60 slices"));
    }
    if limit.length < TTL_MIN * u32::from(limit.slices.get()) || limit.length > WindowLimit::LENGTH_MAX {
        return Err(invalid("a window has at least 1 ms a slice and at most 366 days"));
    }
    Ok(())
}

fn when(key: &Key, when: When) -> Result<(), StoreError> {
    match when {
        When::Version(_) => of_kind(key, KeyKind::Record, "only record keys have a version to compare"),
        When::Always | When::Absent | When::Exists => Ok(()),
    }
}

fn ttl(ttl: Ttl) -> Result<(), StoreError> {
    match ttl {
        Ttl::After(time) => after(time),
        Ttl::Never | Ttl::Keep => Ok(()),
    }
}

fn after(ttl: Duration) -> Result<(), StoreError> {
    if ttl < TTL_MIN { Err(invalid("a time to live must be at least 1 ms")) } else { Ok(()) }
}

/// Text that is stored beside a value keeps the rules of a key, so that every backend can hold it.
fn text(what: &str, text: &str) -> Result<(), StoreError> {
    if text.len() > Key::BYTES_MAX || text.chars().any(char::is_control) {
        return Err(invalid(format!("{what} must be at most 512 bytes without control characters")));
    }
    Ok(())
}

/// The keys of one read.
pub(crate) fn keys(keys: &[Key], limits: &Limits) -> Result<(), StoreError> {
    at_most("read keys", keys.len(), limits.get_keys_max)?;
    keys.iter().try_for_each(readable)
}

/// One key that is read as an entry.
pub(crate) fn readable(key: &Key) -> Result<(), StoreError> {
    match key.kind() {
        KeyKind::Cache | KeyKind::Record | KeyKind::Lease => Ok(()),
        KeyKind::List => Err(invalid("a list is read by list_range")),
        KeyKind::Window => Err(invalid("a window is read by admitting 0")),
    }
}

/// A read of a list.
pub(crate) fn list(list: &Key, range: &ListRange) -> Result<(), StoreError> {
    of_kind(list, KeyKind::List, "list_range needs a list key")?;
    page(range.limit)
}

/// A scan.
pub(crate) fn scan(scan: &Scan) -> Result<(), StoreError> {
    if scan.prefix.is_empty() {
        return Err(invalid("a scan needs a prefix; clear() is the way to reach everything"));
    }
    text("a prefix", &scan.prefix)?;
    text("the key to start after", scan.after.as_deref().unwrap_or_default())?;
    page(scan.limit)
}

/// How many rows one answer holds.
pub(crate) fn page(limit: usize) -> Result<(), StoreError> {
    if (1..=PAGE_MAX).contains(&limit) { Ok(()) } else { Err(invalid("a limit must be 1 to 1,000")) }
}

/// A read of an outbox.
pub(crate) fn outbox(outbox: &Key, limit: usize) -> Result<(), StoreError> {
    of_kind(outbox, KeyKind::Record, "an outbox is named by a record key")?;
    page(limit)
}

/// The answer to who reads changes that nobody keeps.
pub(crate) fn changes_not_kept() -> StoreError {
    invalid("this namespace keeps no changes: apply Op::KeepChanges to it first")
}
