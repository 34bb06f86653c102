//! A batch as the arguments of its script, and the script's answer as results.

use std::time::Duration;

use infra_types::Timestamp;
use redis::Cmd;

use super::{keys::Space, scripts};
use crate::{
    batch::{Applied, Batch, LeaseGrant, OutboxPosition, Ttl, Version, When},
    error::StoreError,
    key::KeyKind,
    op::Op,
    rules::number_at,
    store::Value,
};

/// More than any number that a namespace gives; as a double it is exact.
const BEYOND: i64 = Value::COUNTER_MAX + 1;

/// The call of the script for a batch.
pub(super) fn call(space: &Space, batch: &Batch) -> Cmd {
    let is_numbered = batch.ops.iter().any(needs_number);
    let common = is_numbered.then(|| space.common()).into_iter().flatten();
    let own = batch.ops.iter().filter_map(|op| key(space, op));
    let count = batch.ops.iter().filter(|op| !matches!(op, Op::KeepChanges { .. })).count();
    let mut cmd = scripts::APPLY.call(count + if is_numbered { 4 } else { 0 });
    for key in common.chain(own) {
        cmd.arg(key);
    }
    if is_numbered {
        cmd.arg(space.name_at());
    } else {
        cmd.arg("");
    }
    let plain: Option<Vec<_>> = batch.ops.iter().map(plain_set).collect();
    match plain {
        Some(sets) => {
            cmd.arg("P");
            for (code, value) in sets {
                cmd.arg(code);
                match value {
                    Value::Bytes(bytes) => cmd.arg(&bytes[..]),
                    Value::Counter(n) => cmd.arg(*n),
                };
            }
        }
        None => {
            cmd.arg("");
            for op in &batch.ops {
                arguments(&mut cmd, op);
            }
        }
    }
    cmd
}

/// A set for ever, whatever was there: its code with the kind of value.
fn plain_set(op: &Op) -> Option<(&'static str, &Value)> {
    let Op::Set { key, value, ttl: Ttl::Never, when: When::Always } = op else { return None };
    let code = match (key.kind() == KeyKind::Record, value) {
        (true, Value::Bytes(_)) => "Rb",
        (false, Value::Bytes(_)) => "Sb",
        (_, Value::Counter(n)) if beyond(*n) => return None,
        (true, Value::Counter(_)) => "Rn",
        (false, Value::Counter(_)) => "Sn",
    };
    Some((code, value))
}

/// Whether an operation gives a number, or touches the index or the changes.
fn needs_number(op: &Op) -> bool {
    match op {
        Op::Set { key, .. } | Op::Delete { key, .. } | Op::Add { key, .. } => key.kind() == KeyKind::Record,
        Op::Enqueue { .. } | Op::KeepChanges { .. } => true,
        _ => false,
    }
}

fn key(space: &Space, op: &Op) -> Option<String> {
    Some(match op {
        Op::Set { key, .. }
        | Op::Delete { key, .. }
        | Op::Check { key, .. }
        | Op::Add { key, .. }
        | Op::AcquireLease { key, .. }
        | Op::RenewLease { key, .. }
        | Op::ReleaseLease { key, .. }
        | Op::CheckFence { key, .. }
        | Op::Push { list: key, .. }
        | Op::Admit { window: key, .. } => space.key(key),
        Op::Enqueue { outbox, .. } | Op::Acknowledge { outbox, .. } => space.outbox(outbox),
        Op::MarkInbox { consumer, id, .. } => space.mark(consumer, id),
        Op::KeepChanges { .. } => return None,
    })
}

fn arguments(cmd: &mut Cmd, op: &Op) {
    match op {
        Op::Set { key, value, ttl, when } => {
            cmd.arg(if key.kind() == KeyKind::Record { "R" } else { "S" });
            match value {
                Value::Bytes(bytes) => cmd.arg("b").arg(&bytes[..]),
                Value::Counter(n) if beyond(*n) => cmd.arg("o").arg(""),
                Value::Counter(n) => cmd.arg("n").arg(*n),
            };
            lifetime(cmd, *ttl);
            condition(cmd, *when);
        }
        Op::Delete { key, when } => {
            cmd.arg(match key.kind() {
                KeyKind::Record => "X",
                KeyKind::List => "Y",
                KeyKind::Cache | KeyKind::Window | KeyKind::Lease => "D",
            });
            condition(cmd, *when);
        }
        Op::Check { key, when } if key.kind() == KeyKind::List => {
            cmd.arg("T");
            condition(cmd, *when);
        }
        Op::Check { key, when } => {
            cmd.arg("C");
            condition(cmd, *when);
            cmd.arg(if key.kind() == KeyKind::Record { "R" } else { "" });
        }
        Op::Add { key, delta, ttl } => {
            cmd.arg(if key.kind() == KeyKind::Record { "A" } else { "a" });
            // Doubles hold no more than BEYOND exactly, and what is beyond that compares as it does.
            let bound = |bound: i64| bound.clamp(-BEYOND, BEYOND);
            if beyond(delta.by) {
                cmd.arg("o")
            } else {
                cmd.arg(delta.by)
            };
            cmd.arg(bound(delta.min)).arg(bound(delta.max));
            lifetime(cmd, *ttl);
        }
        Op::AcquireLease { holder, ttl, .. } => {
            cmd.arg("L").arg(holder).arg(millis(*ttl));
        }
        Op::RenewLease { holder, fence, ttl, .. } => {
            cmd.arg("N").arg(holder).arg(*fence).arg(millis(*ttl));
        }
        Op::ReleaseLease { fence, .. } => {
            cmd.arg("U").arg(*fence);
        }
        Op::CheckFence { fence, .. } => {
            cmd.arg("F").arg(*fence);
        }
        Op::Enqueue { order_key, id, payload, .. } => {
            cmd.arg("E").arg(order_key).arg(id.as_str()).arg(&payload[..]);
        }
        Op::Acknowledge { up_to, .. } => {
            cmd.arg("Q").arg(position(*up_to));
        }
        Op::MarkInbox { ttl, .. } => {
            cmd.arg("M");
            lifetime(cmd, *ttl);
        }
        Op::Push { value, cap, ttl, .. } => {
            cmd.arg("P").arg(&value[..]).arg(*cap);
            lifetime(cmd, *ttl);
        }
        Op::Admit { by, limit, .. } => {
            cmd.arg("W").arg(*by).arg(limit.max).arg(limit.length_ms()).arg(limit.slice_ms());
        }
        Op::KeepChanges { max } => {
            cmd.arg("K").arg(*max);
        }
    }
}

pub(super) fn beyond(counter: i64) -> bool {
    !(-Value::COUNTER_MAX..=Value::COUNTER_MAX).contains(&counter)
}

/// A position's number, not beyond what is exact.
pub(super) fn position(position: OutboxPosition) -> u64 {
    number(number_at(position))
}

pub(super) fn number(number: u64) -> u64 {
    number.min(BEYOND.unsigned_abs())
}

/// Milliseconds, at most those from 1970 to the end of time: more of them end there too.
pub(super) fn millis(time: Duration) -> u64 {
    let last = Timestamp::from_nanos(i64::MAX).as_millis().unsigned_abs();
    u64::try_from(time.as_millis()).unwrap_or(last).min(last)
}

fn lifetime(cmd: &mut Cmd, ttl: Ttl) {
    match ttl {
        Ttl::Never => cmd.arg("-"),
        Ttl::Keep => cmd.arg("k"),
        Ttl::After(time) => cmd.arg(millis(time)),
    };
}

fn condition(cmd: &mut Cmd, when: When) {
    match when {
        When::Always => cmd.arg("A"),
        When::Absent => cmd.arg("N"),
        When::Exists => cmd.arg("E"),
        When::Version(version) => cmd.arg(version.0),
    };
}

/// Reads the script's answer.
pub(super) fn results(batch: &Batch, answer: &[u8]) -> Result<Vec<Applied>, StoreError> {
    let text = std::str::from_utf8(answer).map_err(|_| misread(answer))?;
    let Some(lines) = text.strip_prefix("ok\n") else {
        return Err(refusal(batch, text).unwrap_or_else(|| misread(answer)));
    };
    let mut lines = lines.split('\n');
    let results = batch.ops.iter().map(|op| lines.next().and_then(|line| applied(op, line)));
    let results = results.collect::<Option<Vec<_>>>().filter(|_| lines.next().is_none());
    results.ok_or_else(|| misread(answer))
}

fn applied(op: &Op, line: &str) -> Option<Applied> {
    Some(match op {
        Op::Set { key, .. } if key.kind() == KeyKind::Record => Applied::Version(Version(line.parse().ok()?)),
        Op::Delete { .. } => Applied::Existed(line == "1"),
        Op::Add { .. } => Applied::Counter(line.parse().ok()?),
        Op::AcquireLease { .. } | Op::RenewLease { .. } => {
            let (fence, expires) = line.split_once(' ')?;
            let expires_at = Timestamp::from_millis(expires.parse().ok()?);
            Applied::Lease(LeaseGrant { fence: fence.parse().ok()?, expires_at })
        }
        Op::Push { .. } => Applied::Length(line.parse().ok()?),
        Op::Admit { .. } => Applied::Used(line.parse().ok()?),
        _ => Applied::Done,
    })
}

/// Why the batch was refused: code, place of the operation, fields.
fn refusal(batch: &Batch, text: &str) -> Option<StoreError> {
    let (code, rest) = text.split_once('\n')?;
    let (place, fields) = rest.split_once('\n').unwrap_or((rest, ""));
    match code {
        "corrupt" => return Some(StoreError::Corrupt { reason: format!("the key {fields}") }),
        "half" => {
            let reason = format!("a batch could only be written in part, which must never happen: {fields}");
            return Some(StoreError::Corrupt { reason });
        }
        _ => {}
    }
    let index: usize = place.parse().ok()?;
    let key = || batch.ops.get(index).and_then(Op::key).cloned();
    Some(match code {
        "mismatch" => StoreError::Mismatch { index, key: key()?, found: fields.parse().ok().map(Version) },
        "type" => StoreError::WrongType { index, key: key()? },
        "overflow" => StoreError::Overflow { index, key: key()?, current: fields.parse().ok()? },
        "bounds" => StoreError::OutOfBounds { index, key: key()?, current: fields.parse().ok()? },
        "fenced" => StoreError::Fenced { index, key: key()?, newest: fields.parse().ok()? },
        "held" => {
            let (expires, holder) = fields.split_once('\n')?;
            let expires_at = Timestamp::from_millis(expires.parse().ok()?);
            StoreError::LeaseHeld { index, key: key()?, holder: holder.to_owned(), expires_at }
        }
        "full" => {
            let (used, wait) = fields.split_once('\n')?;
            let retry_after = wait.parse().ok().map(Duration::from_millis);
            StoreError::WindowFull { index, key: key()?, used: used.parse().ok()?, retry_after }
        }
        "processed" => StoreError::AlreadyProcessed { index },
        _ => return None,
    })
}

/// The answer is no answer of our script: whether it ran is not known.
fn misread(answer: &[u8]) -> StoreError {
    let reason = format!("the server answered {} bytes that this script never gives", answer.len());
    StoreError::Ambiguous { reason }
}
