//! The numbers, as they are counted and as they are told.

use std::{
    collections::BTreeMap,
    fmt,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use infra_types::ErrorKind;

use super::{Call, histogram::Histogram};
use crate::{batch::Batch, op::Op, store::Value};

/// What a store was asked and how it answered.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct StoreStatistics {
    /// `memory`, `sqlite`, …
    pub backend: &'static str,
    /// By method; every method is there.
    pub calls: BTreeMap<&'static str, CallStatistics>,
    /// Operations of all batches by kind (`set`, `add`, `acquire_lease`, …), refused ones as well; kinds that never came are not there.
    pub ops: BTreeMap<&'static str, u64>,
    /// Bytes of values in all batches, refused ones as well; keys not counted.
    pub bytes_written: u64,
    /// Bytes of values that were read; keys not counted.
    pub bytes_read: u64,
}

impl StoreStatistics {
    /// The numbers of one method; zero for a name that is none.
    #[must_use]
    pub fn call(&self, method: &str) -> CallStatistics {
        self.calls.get(method).cloned().unwrap_or_default()
    }

    /// Calls that ended in an error.
    #[must_use]
    pub fn errors(&self) -> u64 {
        self.calls.values().flat_map(|call| call.errors.values()).sum()
    }
}

/// The calls of one method. Times are by the given clock; all zero before the first call.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize)]
pub struct CallStatistics {
    /// How many answered, errors included.
    pub calls: u64,
    /// Of these, errors by [`ErrorKind`] in snake case; kinds that never came are not there.
    pub errors: BTreeMap<&'static str, u64>,
    /// The shortest.
    #[serde(rename = "min_ns", serialize_with = "nanos")]
    pub min: Duration,
    /// The mean.
    #[serde(rename = "mean_ns", serialize_with = "nanos")]
    pub mean: Duration,
    /// Half of them took no longer; at most a quarter too long.
    #[serde(rename = "p50_ns", serialize_with = "nanos")]
    pub p50: Duration,
    /// 99 of 100 took no longer; at most a quarter too long.
    #[serde(rename = "p99_ns", serialize_with = "nanos")]
    pub p99: Duration,
    /// The longest.
    #[serde(rename = "max_ns", serialize_with = "nanos")]
    pub max: Duration,
}

fn nanos<S: serde::Serializer>(time: &Duration, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_u64(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
}

impl fmt::Display for StoreStatistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { backend, bytes_written, bytes_read, .. } = self;
        write!(f, "{backend}: {bytes_written} B written, {bytes_read} B read, {} errors", self.errors())?;
        for (name, call) in self.calls.iter().filter(|(_, call)| call.calls > 0) {
            let CallStatistics { calls, errors, min, mean, p50, p99, max } = call;
            write!(f, "\n  {name}: {calls} calls, min {min:?} mean {mean:?} p50 {p50:?} p99 {p99:?} max {max:?}")?;
            for (kind, count) in errors {
                write!(f, ", {count} {kind}")?;
            }
        }
        for (at, (op, count)) in self.ops.iter().enumerate() {
            write!(f, "{}{count} {op}", if at == 0 { "\n  operations: " } else { ", " })?;
        }
        Ok(())
    }
}

const KINDS: [&str; 11] = [
    "transient",
    "permanent",
    "conflict",
    "ambiguous",
    "invalid",
    "unavailable",
    "unsupported",
    "fenced",
    "limit_exceeded",
    "corrupt",
    "other",
];

fn kind_at(kind: ErrorKind) -> usize {
    match kind {
        ErrorKind::Transient => 0,
        ErrorKind::Permanent => 1,
        ErrorKind::Conflict => 2,
        ErrorKind::Ambiguous => 3,
        ErrorKind::Invalid => 4,
        ErrorKind::Unavailable => 5,
        ErrorKind::Unsupported => 6,
        ErrorKind::Fenced => 7,
        ErrorKind::LimitExceeded => 8,
        ErrorKind::Corrupt => 9,
        _ => 10,
    }
}

const OPS: [&str; 14] = [
    "set",
    "delete",
    "check",
    "add",
    "acquire_lease",
    "renew_lease",
    "release_lease",
    "check_fence",
    "enqueue",
    "acknowledge",
    "mark_inbox",
    "push",
    "admit",
    "keep_changes",
];

/// The place of its kind, and its bytes of value.
fn op_at(op: &Op) -> (usize, usize) {
    match op {
        Op::Set { value: Value::Bytes(bytes), .. } => (0, bytes.len()),
        Op::Set { value: Value::Counter(_), .. } => (0, 0),
        Op::Delete { .. } => (1, 0),
        Op::Check { .. } => (2, 0),
        Op::Add { .. } => (3, 0),
        Op::AcquireLease { .. } => (4, 0),
        Op::RenewLease { .. } => (5, 0),
        Op::ReleaseLease { .. } => (6, 0),
        Op::CheckFence { .. } => (7, 0),
        Op::Enqueue { payload, .. } => (8, payload.len()),
        Op::Acknowledge { .. } => (9, 0),
        Op::MarkInbox { .. } => (10, 0),
        Op::Push { value, .. } => (11, value.len()),
        Op::Admit { .. } => (12, 0),
        Op::KeepChanges { .. } => (13, 0),
    }
}

#[derive(Debug, Default)]
struct Meter {
    took: Histogram,
    errors: [AtomicU64; KINDS.len()],
}

#[derive(Debug, Default)]
pub(super) struct Meters {
    calls: [Meter; Call::ALL.len()],
    ops: [AtomicU64; OPS.len()],
    bytes_written: AtomicU64,
    bytes_read: AtomicU64,
}

impl Meters {
    pub(super) fn note(&self, call: Call, took: Duration, error: Option<ErrorKind>) {
        let meter = &self.calls[call as usize];
        meter.took.note(took);
        if let Some(kind) = error {
            meter.errors[kind_at(kind)].fetch_add(1, Relaxed);
        }
    }

    pub(super) fn note_batch(&self, batch: &Batch) {
        let mut written = 0;
        for op in &batch.ops {
            let (at, bytes) = op_at(op);
            self.ops[at].fetch_add(1, Relaxed);
            written += bytes as u64;
        }
        self.bytes_written.fetch_add(written, Relaxed);
    }

    pub(super) fn note_read(&self, bytes: usize) {
        self.bytes_read.fetch_add(bytes as u64, Relaxed);
    }

    pub(super) fn snapshot(&self, backend: &'static str) -> StoreStatistics {
        let call = |call: Call| {
            let meter = &self.calls[call as usize];
            let mut told = CallStatistics { errors: present(&KINDS, &meter.errors), ..CallStatistics::default() };
            if let Some(took) = meter.took.latencies() {
                told = CallStatistics {
                    calls: took.count,
                    min: took.min,
                    mean: took.mean,
                    p50: took.p50,
                    p99: took.p99,
                    max: took.max,
                    ..told
                };
            }
            (call.name(), told)
        };
        StoreStatistics {
            backend,
            calls: Call::ALL.into_iter().map(call).collect(),
            ops: present(&OPS, &self.ops),
            bytes_written: self.bytes_written.load(Relaxed),
            bytes_read: self.bytes_read.load(Relaxed),
        }
    }
}

fn present(names: &[&'static str], counts: &[AtomicU64]) -> BTreeMap<&'static str, u64> {
    let counts = counts.iter().map(|count| count.load(Relaxed));
    names.iter().copied().zip(counts).filter(|(_, count)| *count > 0).collect()
}
