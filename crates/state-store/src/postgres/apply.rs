//! A batch as the arguments of `state_apply` and `state_set`.

use std::{collections::HashSet, time::Duration};

use infra_backends::PgQuery;
use infra_types::Timestamp;

use crate::{
    batch::{Batch, Ttl, When},
    key::{Key, KeyKind},
    op::Op,
    store::Value,
};

/// One operation's place in the arrays; what it does not need is none.
#[derive(Debug, Default)]
struct Call<'a> {
    op: i16,
    kind: i16,
    name: &'a str,
    word: Option<&'a str>,
    id: Option<&'a str>,
    load: Option<&'a [u8]>,
    num: Option<i64>,
    min: Option<i64>,
    max: Option<i64>,
    when: Option<i64>,
    ttl: Option<i64>,
}

pub(super) fn kind_number(kind: KeyKind) -> i16 {
    match kind {
        KeyKind::Cache => 0,
        KeyKind::Record => 1,
        KeyKind::Lease => 2,
        KeyKind::List => 3,
        KeyKind::Window => 4,
    }
}

impl<'a> Call<'a> {
    fn on(op: i16, key: &'a Key) -> Self {
        Self { op, kind: kind_number(key.kind()), name: key.name(), ..Self::default() }
    }

    fn of(op: &'a Op) -> Self {
        match op {
            Op::Set { key, value, ttl, when } => Self {
                load: value.as_bytes().map(|bytes| &bytes[..]),
                num: value.as_counter(),
                ttl: lifetime(*ttl),
                when: condition(*when),
                ..Self::on(1, key)
            },
            Op::Delete { key, when } => Self { when: condition(*when), ..Self::on(2, key) },
            Op::Check { key, when } => Self { when: condition(*when), ..Self::on(3, key) },
            Op::Add { key, delta, ttl } => Self {
                num: Some(delta.by),
                min: Some(delta.min),
                max: Some(delta.max),
                ttl: lifetime(*ttl),
                ..Self::on(4, key)
            },
            Op::Push { list, value, cap, ttl } => {
                Self { load: Some(value), num: Some(i64::from(*cap)), ttl: lifetime(*ttl), ..Self::on(5, list) }
            }
            Op::Admit { window, by, limit } => Self {
                num: Some(*by),
                min: Some(i64::from(limit.slices.get())),
                max: Some(limit.max),
                ttl: Some(limit.length_ms()),
                ..Self::on(6, window)
            },
            Op::KeepChanges { max } => Self { op: 7, num: Some(i64::from(*max)), ..Self::default() },
            Op::AcquireLease { key, holder, ttl } => {
                Self { word: Some(holder), ttl: Some(millis(*ttl)), ..Self::on(8, key) }
            }
            Op::RenewLease { key, holder, fence, ttl } => {
                Self { word: Some(holder), num: Some(given(*fence)), ttl: Some(millis(*ttl)), ..Self::on(9, key) }
            }
            Op::ReleaseLease { key, fence } => Self { num: Some(given(*fence)), ..Self::on(10, key) },
            Op::CheckFence { key, fence } => Self { num: Some(given(*fence)), ..Self::on(11, key) },
            Op::Enqueue { outbox, order_key, id, payload } => {
                Self { word: Some(order_key), id: Some(id.as_str()), load: Some(payload), ..Self::on(12, outbox) }
            }
            Op::Acknowledge { outbox, up_to } => {
                Self { num: Some(up_to_number(crate::rules::number_at(*up_to))), ..Self::on(13, outbox) }
            }
            Op::MarkInbox { consumer, id, ttl } => {
                Self { word: Some(id.as_str()), ttl: lifetime(*ttl), ..Self::on(14, consumer) }
            }
        }
    }

    /// Whether it can refuse, now that the batch was validated.
    fn may_refuse(&self) -> bool {
        match self.op {
            1 => self.when.is_some() || self.num.is_some_and(|num| !in_range(num)),
            2 | 3 => self.when.is_some(),
            4 | 6 | 8..=11 | 14 => true,
            _ => false,
        }
    }

    fn may_write(&self) -> bool {
        !matches!(self.op, 3 | 11)
    }
}

fn in_range(counter: i64) -> bool {
    (-Value::COUNTER_MAX..=Value::COUNTER_MAX).contains(&counter)
}

fn millis(time: Duration) -> i64 {
    // Longer than any timestamp; the sum with the time of now cannot wrap.
    let longest = Timestamp::from_nanos(i64::MAX).as_millis();
    i64::try_from(time.as_millis()).unwrap_or(longest).min(longest)
}

fn lifetime(ttl: Ttl) -> Option<i64> {
    match ttl {
        Ttl::Never => None,
        Ttl::Keep => Some(-1),
        Ttl::After(time) => Some(millis(time)),
    }
}

fn condition(when: When) -> Option<i64> {
    match when {
        When::Always => None,
        When::Absent => Some(0),
        When::Exists => Some(-1),
        // Versions begin with 1; what no row can have stays something that no row can have.
        When::Version(version) => Some(i64::try_from(version.0).ok().filter(|v| *v > 0).unwrap_or(-2)),
    }
}

/// A fence as a bigint; one beyond was never granted, as 0 was not.
fn given(fence: u64) -> i64 {
    i64::try_from(fence).unwrap_or(0)
}

/// A bound as a bigint; one beyond is the largest.
pub(super) fn up_to_number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A column of the batch; what no operation needs at its end is left out, and read as null.
fn column<'a, T>(calls: &[Call<'a>], read: impl Fn(&Call<'a>) -> Option<T>) -> Vec<Option<T>> {
    let mut values: Vec<Option<T>> = calls.iter().map(read).collect();
    let needed = values.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
    values.truncate(needed);
    values
}

pub(super) fn query(batch: &Batch) -> PgQuery<'_> {
    let calls: Vec<Call<'_>> = batch.ops.iter().map(Call::of).collect();
    let first_write = calls.iter().position(Call::may_write).unwrap_or(calls.len());
    let refuses_late = calls.iter().skip(first_write + 1).any(Call::may_refuse);
    let sql = if refuses_late {
        "SELECT * FROM state_apply_guarded($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)"
    } else {
        "SELECT * FROM state_apply($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)"
    };
    sqlx::query(sql)
        .bind(batch.namespace.as_str())
        .bind(calls.iter().map(|call| call.op).collect::<Vec<_>>())
        .bind(calls.iter().map(|call| call.kind).collect::<Vec<_>>())
        .bind(calls.iter().map(|call| call.name).collect::<Vec<_>>())
        .bind(column(&calls, |call| call.word))
        .bind(column(&calls, |call| call.id))
        .bind(column(&calls, |call| call.load))
        .bind(column(&calls, |call| call.num))
        .bind(column(&calls, |call| call.min))
        .bind(column(&calls, |call| call.max))
        .bind(column(&calls, |call| call.when))
        .bind(column(&calls, |call| call.ttl))
}

/// The kind of the keys, if the batch is nothing but sets that cannot refuse, of different keys of one kind.
pub(super) fn sets_of_one_kind(ops: &[Op]) -> Option<KeyKind> {
    let Some(Op::Set { key: first, .. }) = ops.first() else { return None };
    let kind = first.kind();
    let mut names = HashSet::with_capacity_and_hasher(ops.len(), foldhash::fast::RandomState::default());
    let is_plain = |op: &Op| match op {
        Op::Set { key, value, ttl, when: When::Always } => {
            key.kind() == kind && *ttl != Ttl::Keep && value.as_counter().is_none_or(in_range)
        }
        _ => false,
    };
    let is_new = |op: &'_ Op| matches!(op, Op::Set { key, .. } if names.insert(key.shared_name()));
    (ops.iter().all(is_plain) && ops.iter().all(is_new)).then_some(kind)
}

pub(super) fn set_query(batch: &Batch, kind: KeyKind) -> PgQuery<'_> {
    let calls: Vec<Call<'_>> = batch.ops.iter().map(Call::of).collect();
    sqlx::query("SELECT state_set($1, $2, $3, $4, $5, $6)")
        .bind(batch.namespace.as_str())
        .bind(kind_number(kind))
        .bind(calls.iter().map(|call| call.name).collect::<Vec<_>>())
        .bind(column(&calls, |call| call.load))
        .bind(column(&calls, |call| call.num))
        .bind(column(&calls, |call| call.ttl))
}
