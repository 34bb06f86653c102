//! The one write: operations with preconditions, all or nothing.

use std::time::Duration;

use bytes::Bytes;
use infra_types::{EventId, Namespace, Timestamp};

use crate::{key::Key, op::Op, store::Value};

/// The state of a record at one write; grows with every write of its namespace and never returns, so that a key that was
/// deleted and created again is a different one (no ABA).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Version(pub u64);

impl From<Version> for String {
    fn from(v: Version) -> Self {
        v.0.to_string()
    }
}

impl TryFrom<String> for Version {
    type Error = std::num::ParseIntError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse().map(Self)
    }
}

/// How long a value stays. Kept to the millisecond; an expired value is absent on every path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ttl {
    /// For ever; a time to live from before is taken off.
    #[default]
    Never,
    /// So long from the write; at least 1 ms.
    After(Duration),
    /// As the key had it; `Never` for a new key.
    Keep,
}

/// What must be true of a key for its batch to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum When {
    /// Anything.
    #[default]
    Always,
    /// The key is absent (or expired).
    Absent,
    /// The key is present.
    Exists,
    /// The record has exactly this version. A missing or expired record is a mismatch, never a create. Record keys only.
    Version(Version),
}

/// A change of a counter and the bounds that its new value must keep, both inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delta {
    /// Added to the counter; a missing counter is zero.
    pub by: i64,
    /// The new value is at least this.
    pub min: i64,
    /// The new value is at most this.
    pub max: i64,
}

impl Delta {
    /// Adds `by`, bounded only by ±(2⁵³−1).
    #[must_use]
    pub fn unbounded(by: i64) -> Self {
        Self { by, min: -Value::COUNTER_MAX, max: Value::COUNTER_MAX }
    }

    /// Adds `by` if the new value is at most `max`.
    #[must_use]
    pub fn at_most(by: i64, max: i64) -> Self {
        Self { max, ..Self::unbounded(by) }
    }

    /// Adds `by` if the new value is at least `min`.
    #[must_use]
    pub fn at_least(by: i64, min: i64) -> Self {
        Self { min, ..Self::unbounded(by) }
    }
}

/// Where a message stands in its outbox. Opaque and ordered; only a store makes sense of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize, serde::Deserialize)]
pub struct OutboxPosition {
    /// The transaction (0 where commits are already in order).
    pub transaction: u64,
    /// The number inside it.
    pub sequence: u64,
}

/// A message that waits to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxRow {
    /// Where it stands.
    pub position: OutboxPosition,
    /// What keeps its order.
    pub order_key: String,
    /// Its id.
    pub id: EventId,
    /// What to publish.
    pub payload: Bytes,
}

/// A lease as it was granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseGrant {
    /// Greater than every fence granted before.
    pub fence: u64,
    /// When it ends by the store's clock.
    pub expires_at: Timestamp,
}

/// What one operation of an applied batch gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Applied {
    /// It is done and has nothing to say.
    Done,
    /// A record was written with this version.
    Version(Version),
    /// The counter's new value.
    Counter(i64),
    /// Whether the deleted key was there.
    Existed(bool),
    /// The lease as granted or prolonged.
    Lease(LeaseGrant),
    /// How many values the list holds now.
    Length(u32),
    /// What the window counts now.
    Used(i64),
}

/// Operations on one namespace that happen all or not at all, in their order: a later operation sees what an earlier one did,
/// and `When` is judged at that point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Which namespace.
    pub namespace: Namespace,
    /// What to do.
    pub ops: Vec<Op>,
}

impl Batch {
    /// An empty batch.
    #[must_use]
    pub fn new(namespace: Namespace) -> Self {
        Self { namespace, ops: Vec::new() }
    }

    /// Adds any operation.
    #[must_use]
    pub fn with(mut self, op: Op) -> Self {
        self.ops.push(op);
        self
    }

    /// Writes a value for ever, whatever was there.
    #[must_use]
    pub fn set(self, key: Key, value: impl Into<Value>) -> Self {
        self.set_when(key, value, Ttl::Never, When::Always)
    }

    /// Writes a value.
    #[must_use]
    pub fn set_when(self, key: Key, value: impl Into<Value>, ttl: Ttl, when: When) -> Self {
        self.with(Op::Set { key, value: value.into(), ttl, when })
    }

    /// Removes a key.
    #[must_use]
    pub fn delete(self, key: Key) -> Self {
        self.with(Op::Delete { key, when: When::Always })
    }

    /// Adds to a counter, keeping its time to live.
    #[must_use]
    pub fn add(self, key: Key, delta: Delta) -> Self {
        self.with(Op::Add { key, delta, ttl: Ttl::Keep })
    }

    /// Appends to a list that keeps its newest `cap` values for ever.
    #[must_use]
    pub fn push(self, list: Key, value: impl Into<Bytes>, cap: u32) -> Self {
        self.with(Op::Push { list, value: value.into(), cap, ttl: Ttl::Never })
    }

    /// Makes the batch depend on a key.
    #[must_use]
    pub fn check(self, key: Key, when: When) -> Self {
        self.with(Op::Check { key, when })
    }
}

impl Extend<Op> for Batch {
    fn extend<I: IntoIterator<Item = Op>>(&mut self, ops: I) {
        self.ops.extend(ops);
    }
}
