//! What a batch can do.

use std::time::Duration;

use bytes::Bytes;
use infra_types::EventId;

use crate::{
    batch::{Delta, OutboxPosition, Ttl, When},
    key::Key,
    store::Value,
    window::WindowLimit,
};

/// One operation of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Op {
    /// Writes a value. Cache or record key.
    Set {
        /// Where.
        key: Key,
        /// What.
        value: Value,
        /// For how long.
        ttl: Ttl,
        /// Only if.
        when: When,
    },
    /// Removes a key; its absence is fine unless `when` says otherwise.
    Delete {
        /// Which.
        key: Key,
        /// Only if.
        when: When,
    },
    /// Changes nothing; the batch happens only if this holds.
    Check {
        /// Of which key.
        key: Key,
        /// What must hold.
        when: When,
    },
    /// Adds to a counter. Outside its bounds the batch is refused with the current value. A counter that reaches a
    /// value keeps its TTL as `ttl` says. Cache or record key.
    Add {
        /// Which counter.
        key: Key,
        /// How much, within which bounds.
        delta: Delta,
        /// For how long; `Keep` is what counters usually want.
        ttl: Ttl,
    },
    /// Takes a lease that is free, expired, or already this holder's (then it is prolonged under the same fence). A new
    /// holder gets a greater fence.
    AcquireLease {
        /// The lease's key.
        key: Key,
        /// Who: unique to a process run, not to a bot.
        holder: String,
        /// For how long from now.
        ttl: Duration,
    },
    /// Prolongs a lease that is still this holder's under this fence, expired or not, as long as nobody else took it.
    RenewLease {
        /// The lease's key.
        key: Key,
        /// Who.
        holder: String,
        /// The fence that was granted.
        fence: u64,
        /// For how long from now.
        ttl: Duration,
    },
    /// Gives a lease back; its fence stays counted. Refused as `Fenced` if another holder has it.
    ReleaseLease {
        /// The lease's key.
        key: Key,
        /// The fence that was granted.
        fence: u64,
    },
    /// The batch happens only if `fence` is the newest that this lease ever granted. Expiry alone does not matter:
    /// as long as nobody else took the lease, nobody else acts on it.
    CheckFence {
        /// The lease's key.
        key: Key,
        /// The fence that was granted.
        fence: u64,
    },
    /// Appends a message that a relay will publish: it exists if and only if the rest of the batch does.
    Enqueue {
        /// Name of the queue.
        outbox: Key,
        /// What keeps its order.
        order_key: String,
        /// The published event's id, so that a repeated publish is recognised.
        id: EventId,
        /// What to publish.
        payload: Bytes,
    },
    /// Removes messages that were published, up to and with this position.
    Acknowledge {
        /// Name of the queue.
        outbox: Key,
        /// The last one that was published.
        up_to: OutboxPosition,
    },
    /// Notes that a message's effect is in this batch. If it was noted before, the batch is refused as
    /// `AlreadyProcessed`: the effect is there already.
    MarkInbox {
        /// Whose inbox.
        consumer: Key,
        /// The message's id.
        id: EventId,
        /// How long it is remembered.
        ttl: Ttl,
    },
    /// Appends to a list; beyond `cap` the oldest values fall off. An expired list starts anew. List key.
    Push {
        /// Which list.
        list: Key,
        /// What to append.
        value: Bytes,
        /// How many values stay at most: 1 to 10,000.
        cap: u32,
        /// How long the whole list stays, from this write on.
        ttl: Ttl,
    },
    /// Counts `by` in a window that slides; with more than the limit's `max` in any stretch of its length, the batch is refused as
    /// `WindowFull` and nothing is counted. `by` 0 counts nothing and tells what is used. Window key.
    Admit {
        /// Which window.
        window: Key,
        /// How much: 0 to 2⁵³−1.
        by: i64,
        /// How much is allowed, and in which time.
        limit: WindowLimit,
    },
    /// Lets the namespace keep its newest `max` changes of records from now on, for [`StateStore::changes_read`](crate::StateStore::changes_read)
    /// and [`Watch`](crate::Watch); 0 ends it and forgets them. At most 100,000. Costs a row a write while it is on.
    KeepChanges {
        /// How many changes are kept.
        max: u32,
    },
}

#[cfg(any(feature = "redis", feature = "postgres"))]
impl Op {
    /// The key that it is about, to be named where a server refuses it by its place alone.
    pub(crate) fn key(&self) -> Option<&Key> {
        match self {
            Self::Set { key, .. }
            | Self::Delete { key, .. }
            | Self::Check { key, .. }
            | Self::Add { key, .. }
            | Self::AcquireLease { key, .. }
            | Self::RenewLease { key, .. }
            | Self::ReleaseLease { key, .. }
            | Self::CheckFence { key, .. }
            | Self::Push { list: key, .. }
            | Self::Admit { window: key, .. }
            | Self::Enqueue { outbox: key, .. }
            | Self::Acknowledge { outbox: key, .. }
            | Self::MarkInbox { consumer: key, .. } => Some(key),
            Self::KeepChanges { .. } => None,
        }
    }
}
