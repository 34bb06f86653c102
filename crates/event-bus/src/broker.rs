//! What a backend must do: keep events, and lend them out in order. Retry, dead-letter rules, dispatch, timeouts and
//! metrics are in [`crate::Bus`] once for all.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use infra_types::{Envelope, Health, Timestamp};

use crate::{BusError, BusInfo, DeadLetter, Pattern, StartFrom};

/// A place in the stored order, from 1. Never given twice.
pub type Seq = u64;

/// What became of one event to append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Its place.
    pub seq: Seq,
    /// Its id was there before; nothing changed.
    pub duplicate: bool,
    /// How many older events without a group were given up for it.
    pub evicted: u64,
}

/// A group to open.
#[derive(Debug, Clone)]
pub struct GroupSpec {
    /// Its name.
    pub name: Arc<str>,
    /// Which topics it wants.
    pub pattern: Pattern,
    /// Where it begins if it is new.
    pub from: StartFrom,
}

/// Lanes by hash of the key, so that a stuck lane does not keep the others from being claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shards {
    /// How many, 1 to 64.
    pub count: u32,
    /// Bit n is set if shard n has room.
    pub open: u64,
}

impl Shards {
    /// The shard of a key (FNV-1a: stable, and the keys are our own).
    #[must_use]
    pub fn of(&self, key: &str) -> usize {
        (Self::hash(key) % self.count.max(1)) as usize
    }

    /// What shards are dealt by: the upper half of the hash.
    pub(crate) fn hash(key: &str) -> u32 {
        let hash = key.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
        (hash >> 32) as u32
    }

    /// Whether the key's shard has room.
    #[must_use]
    pub fn takes(&self, key: &str) -> bool {
        self.open & (1 << self.of(key)) != 0
    }
}

/// A request for work.
#[derive(Debug, Clone)]
pub struct Claim {
    /// For which group.
    pub group: Arc<str>,
    /// The consumer's stable name.
    pub consumer: Arc<str>,
    /// This run of the consumer, unique for ever.
    pub incarnation: Arc<str>,
    /// The bus's wall clock.
    pub now: Timestamp,
    /// How long the claim holds.
    pub lease: Duration,
    /// The longest backoff: a retry further away than this was set before the wall clock stepped back, and is due.
    pub horizon: Duration,
    /// How many at most.
    pub max: usize,
    /// A claim that ended without an answer this many times makes the event a dead letter.
    pub crashes_max: u32,
    /// Which lanes have room.
    pub shards: Shards,
}

impl Claim {
    /// Whether a retry set for `at` may begin.
    #[must_use]
    pub fn is_due(&self, at: Timestamp) -> bool {
        at <= self.now || at.since(self.now) > self.horizon
    }

    /// Whether a claim of `lease` that ends at `until` is over. A claim that would end later than it can was made before the
    /// wall clock stepped back.
    #[must_use]
    pub fn is_over(&self, until: Timestamp, lease: Duration) -> bool {
        until <= self.now || until.since(self.now) > lease.saturating_mul(2)
    }
}

/// An event lent out.
#[derive(Debug, Clone)]
pub struct Claimed {
    /// Its place.
    pub seq: Seq,
    /// The event.
    pub envelope: Arc<Envelope>,
    /// Which attempt this is, from 1; with the incarnation it fences a late answer.
    pub attempt: u32,
}

/// What a claim got.
#[derive(Debug, Clone, Default)]
pub struct Claims {
    /// In stored order; those of one key follow each other without a hole.
    pub events: Vec<Claimed>,
    /// The event's last consumer died with it: it comes alone, and nothing else is claimed until it is settled, so that an event
    /// which kills its process uses up its own attempts and not its neighbours'.
    pub alone: bool,
    /// When the next waiting retry or foreign claim ends, if fewer than `max` were there.
    pub next_due: Option<Timestamp>,
    /// How many became dead letters because their consumers died with them.
    pub dead_lettered: u64,
}

/// The end of one claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Handled: the group is done with it.
    Ack,
    /// Failed: deliver it again from `at` on; later events of its key wait.
    Retry {
        /// From when on.
        at: Timestamp,
        /// What the handler said.
        error: String,
    },
    /// Given up: to the dead letters, in the same step as the acknowledgement.
    Dead {
        /// What the handler said.
        error: String,
    },
    /// Not begun: as if it had not been claimed.
    Release,
}

/// One claim to end.
#[derive(Debug, Clone)]
pub struct Settle {
    /// Which event.
    pub seq: Seq,
    /// Which attempt, as it was claimed.
    pub attempt: u32,
    /// How it ended.
    pub outcome: Outcome,
}

/// What a settlement did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Settled {
    /// Claims that were no longer this consumer's; nothing was changed for them.
    pub lost: u64,
    /// Dead letters given up because there were too many.
    pub evicted: u64,
}

/// How far a group is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Up to where was looked: what was asked for, or the newest event.
    pub through: Seq,
    /// Whether an event up to there still waits or is being handled.
    pub is_pending: bool,
}

/// A store of events. To write a backend, implement this, build [`crate::Bus::with_broker`] on it and run the conformance suite.
///
/// Each method is one atomic step: others see it wholly or not at all. All times are the `now` that is passed in.
#[async_trait]
pub trait Broker: Send + Sync + fmt::Debug + 'static {
    /// What it is.
    fn info(&self) -> BusInfo;

    /// Stores events in order and lays each out for every group that wants it.
    async fn append(&self, events: Vec<Arc<Envelope>>) -> Vec<Result<Appended, BusError>>;

    /// Creates a group, or finds it with the same pattern.
    async fn open_group(&self, spec: GroupSpec) -> Result<(), BusError>;

    /// Forgets a group.
    async fn remove_group(&self, group: &str) -> Result<bool, BusError>;

    /// Ends all claims of `consumer` that were not made by `incarnation`; how many.
    async fn take_over(&self, group: &str, consumer: &str, incarnation: &str) -> Result<u64, BusError>;

    /// Lends out the oldest events that are due. An event is lent only if all earlier ones of its key are lent in this very
    /// claim or settled.
    async fn claim(&self, claim: Claim) -> Result<Claims, BusError>;

    /// Ends claims. Repeating it is harmless.
    async fn settle(
        &self,
        group: &str,
        incarnation: &str,
        now: Timestamp,
        ends: Vec<Settle>,
    ) -> Result<Settled, BusError>;

    /// Prolongs claims (event and attempt) that are still this incarnation's.
    async fn extend(
        &self,
        group: &str,
        incarnation: &str,
        until: Timestamp,
        claims: Vec<(Seq, u32)>,
    ) -> Result<(), BusError>;

    /// Whether a group is done with everything up to `through` (the newest event if none).
    async fn progress(&self, group: &str, through: Option<Seq>) -> Result<Progress, BusError>;

    /// How many events wait in a group or are being handled.
    async fn backlog(&self, group: &str) -> Result<u64, BusError>;

    /// The oldest dead letters.
    async fn dead_letters(&self, group: &str, limit: usize) -> Result<Vec<DeadLetter>, BusError>;

    /// How the store feels.
    async fn health(&self) -> Health;
}
