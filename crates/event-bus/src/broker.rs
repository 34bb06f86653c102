//! What a backend must do: keep events, and lend them out in order. Retry, dead-letter rules, dispatch, timeouts and
//! metrics are in [`crate::Bus`] once for all.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures::future::BoxFuture;
use infra_types::{Envelope, EventId, Health, Timestamp};
use tokio::sync::mpsc;

use crate::{BusError, BusInfo, DeadLetter, DelayPlace, DelayedEvent, GroupStatus, Pattern, StartFrom};

/// A place in the stored order, from 1. Never given twice.
pub type Seq = u64;

/// Events or dead letters in one answer or request at most.
pub const PAGE_MAX: usize = 64;
/// Delayed events that one claim looks at; if more are due, its `next_due` is its `now`.
pub const DUE_MAX: usize = 64;
/// How long delayed events that found a group full wait before they are looked at again, if those behind them have had their turn by then.
pub const REST: Duration = Duration::from_secs(1);
/// Delayed events in one answer at most.
pub const LIST_MAX: usize = 1_000;
/// Names of consumers that are remembered for each group.
pub const NAMES_MAX: usize = 1_000;
/// Events beyond `Limits::history_max` that go with each one that is appended, so that none pays for all.
pub const TRIM_MAX: usize = 2;

/// An event to store.
#[derive(Debug, Clone)]
pub struct Append {
    /// The event.
    pub envelope: Arc<Envelope>,
    /// Whether it goes by the priority lane. It has lanes of its own: an event of the same key without priority is not in its way.
    pub is_priority: bool,
}

/// What became of one event to append or to delay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Its place; none while it is delayed.
    pub seq: Option<Seq>,
    /// Its id was there before; nothing changed.
    pub duplicate: bool,
    /// How many older events that no group had ever wanted were given up for it.
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
    /// How many, 1 to 63.
    pub count: u32,
    /// Bit n is set if shard n has room; bit [`PRIORITY`](Self::PRIORITY) if the one of the priority lane has.
    pub open: u64,
}

impl Shards {
    /// The shard of all events with priority, whatever their key.
    pub const PRIORITY: usize = 63;

    /// The shard of an event (FNV-1a of its key: stable, and the keys are our own).
    #[must_use]
    pub fn of(&self, key: &str, is_priority: bool) -> usize {
        if is_priority { Self::PRIORITY } else { (Self::hash(key) % self.count.max(1)) as usize }
    }

    /// What shards are dealt by: the upper half of the hash.
    pub(crate) fn hash(key: &str) -> u32 {
        let hash = key.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
        (hash >> 32) as u32
    }

    /// Whether the event's shard has room.
    #[must_use]
    pub fn takes(&self, key: &str, is_priority: bool) -> bool {
        self.open & (1 << self.of(key, is_priority)) != 0
    }
}

/// A group as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupNames {
    /// Its name.
    pub name: String,
    /// Its pattern as it is written.
    pub pattern: String,
    /// Whose runs took their names, sorted.
    pub consumers: Vec<String>,
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
    /// What a claim is told whose consumer's name another run has taken.
    #[must_use]
    pub fn displaced(&self) -> BusError {
        BusError::Displaced { group: self.group.as_ref().into(), consumer: self.consumer.as_ref().into() }
    }

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
    /// As it was appended.
    pub is_priority: bool,
}

/// What a claim got.
#[derive(Debug, Clone, Default)]
pub struct Claims {
    /// First those with priority, then the others, each in stored order; those of one key follow each other without a hole.
    pub events: Vec<Claimed>,
    /// The event's last consumer died with it: it comes alone, and nothing else is claimed until it is settled, so that an event
    /// which kills its process uses up its own attempts and not its neighbours'.
    pub alone: bool,
    /// When the next waiting retry, foreign claim or delay ends, if fewer than `max` were there.
    pub next_due: Option<Timestamp>,
    /// How many became dead letters because their consumers died with them.
    pub dead_lettered: u64,
    /// Delayed events whose time had come and that were appended.
    pub released: u64,
    /// How many older events that no group had ever wanted were given up for these.
    pub evicted: u64,
}

/// The end of one claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Handled: the group is done with it.
    Ack,
    /// Failed: deliver it again from `at` on; later events of its key wait unless it steps aside.
    Retry {
        /// From when on.
        at: Timestamp,
        /// What the handler said.
        error: String,
        /// It gets a lane of its own, so that later events of its key do not wait for it.
        steps_aside: bool,
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

/// A step of a consumer: ends what it has handled and claims what comes next.
#[derive(Debug)]
pub struct Turn {
    /// Claims to end, all of the group and the incarnation that `claim` names.
    pub ends: Vec<Settle>,
    /// What is asked for, once they have ended.
    pub claim: Claim,
    /// If nothing is there: that what comes may be lent without being asked for again.
    pub waits: Option<Waits>,
}

/// What a [`Turn`] did.
#[derive(Debug)]
pub struct Turned {
    /// Of the claims to end.
    pub settled: Settled,
    /// What was lent. If only this failed, the claims have ended all the same.
    pub claims: Result<Claims, BusError>,
    /// Nothing was there, and what comes may be handed over until the next step of this consumer.
    pub is_waiting: bool,
}

/// A consumer's word that it waits. A store that takes it lends what is appended next to it in the very step that appends, and hands it over: one
/// hand-over at most for each word.
#[derive(Debug, Clone)]
pub struct Waits {
    /// How long the word holds. A quarter of the lease at most.
    pub patience: Duration,
    /// Whom to give it to.
    pub to: HandOver,
}

/// The consumer's end of a hand-over.
#[derive(Debug, Clone)]
pub struct HandOver {
    to: mpsc::UnboundedSender<Claims>,
    through: Arc<AtomicU64>,
}

impl HandOver {
    /// A way to a consumer. It takes as many as were promised: one for each word.
    #[must_use]
    pub fn new() -> (Self, mpsc::UnboundedReceiver<Claims>) {
        let (to, take) = mpsc::unbounded_channel();
        (Self { to, through: Arc::default() }, take)
    }

    /// Hands over what was lent: the oldest events of the group that were not done with, without a hole.
    ///
    /// # Errors
    /// Gives it back if the consumer is gone.
    pub fn give(&self, claims: Claims) -> Result<(), Claims> {
        let last = claims.events.last().map_or(0, |event| event.seq);
        self.to.send(claims).map_err(|back| back.0)?;
        self.reached(last);
        Ok(())
    }

    /// The consumer has what there was up to this place, or will look for the rest as soon as it has room.
    pub(crate) fn reached(&self, place: Seq) {
        self.through.fetch_max(place, Relaxed);
    }

    /// Up to which place nobody needs to tell the consumer that something has come.
    pub(crate) fn through(&self) -> Seq {
        self.through.load(Relaxed)
    }

    /// Whether nobody is there to take anything.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.to.is_closed()
    }
}

/// How far a group is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Up to where was looked: what was asked for, or the newest event.
    pub through: Seq,
    /// Whether an event up to there still waits or is being handled.
    pub is_pending: bool,
}

/// An event that is still kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Its place.
    pub seq: Seq,
    /// The event; none if what is stored cannot be read.
    pub envelope: Option<Arc<Envelope>>,
}

/// A page of the stored order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Page {
    /// The oldest kept events behind the place that was asked for, in order. Fewer than were asked for only at the end.
    pub records: Vec<Record>,
    /// The newest place that was ever given; 0 before the first.
    pub newest: Seq,
}

/// What other processes say.
#[derive(Debug, Clone)]
pub enum Signal {
    /// They published a live event.
    Live(Arc<Envelope>),
    /// They stored something. It may come too often, and it may not come: a consumer looks every `BusConfig::poll_interval` anyway.
    Stored,
    /// What they said for a while cannot be known any more: live events of that time are lost.
    Gap {
        /// Why.
        reason: String,
    },
}

/// Takes what other processes say. It waits while a live subscription with `Overflow::Block` is full, so whoever calls it must bear that
/// what comes next is lost, and say so with a `Gap`.
pub type Listener = Arc<dyn Fn(Signal) -> BoxFuture<'static, ()> + Send + Sync>;

/// A store of events. To write a backend, implement this, build [`crate::Bus::with_broker`] on it and run the conformance suite.
///
/// Each method is one atomic step: others see it wholly or not at all. All times are the `now` that is passed in.
#[async_trait]
pub trait Broker: Send + Sync + fmt::Debug + 'static {
    /// What it is.
    fn info(&self) -> BusInfo;

    /// Stores events in order and lays each out for every group that wants it.
    async fn append(&self, events: Vec<Append>) -> Vec<Result<Appended, BusError>>;

    /// Keeps an event back: it is appended by the first claim, of whatever group, whose `now` is not before `until`; those that are due
    /// together in the order of `until`, then of their delay. Its id counts as known from now on. While a group that wants it is full, it
    /// stays delayed, later ones of that group stay behind it, and those that no full group wants pass it: claims walk along what is due,
    /// [`DUE_MAX`] at a time, and begin anew after [`REST`]. `DelayFull` beyond `Limits::delayed_max`.
    async fn delay(&self, event: Append, until: Timestamp, now: Timestamp) -> Result<Appended, BusError>;

    /// Creates a group, or finds it with the same pattern.
    async fn open_group(&self, spec: GroupSpec) -> Result<(), BusError>;

    /// Forgets a group.
    async fn remove_group(&self, group: &str) -> Result<bool, BusError>;

    /// Ends all claims of `consumer` that were not made by `incarnation`; how many. From now on the name is that incarnation's: claims of others
    /// are `Displaced`. Of each group [`NAMES_MAX`] names are remembered; with more, any one but this is forgotten, and nobody displaced under it.
    async fn take_over(&self, group: &str, consumer: &str, incarnation: &str) -> Result<u64, BusError>;

    /// Lends out the oldest events that are due. An event is lent only if all earlier ones of its key are lent in this very
    /// claim or settled. `Displaced` if the consumer's name was taken over by another incarnation.
    async fn claim(&self, claim: Claim) -> Result<Claims, BusError>;

    /// Ends claims. Repeating it is harmless.
    async fn settle(
        &self,
        group: &str,
        incarnation: &str,
        now: Timestamp,
        ends: Vec<Settle>,
    ) -> Result<Settled, BusError>;

    /// Ends claims, then claims: as [`settle`](Self::settle) and [`claim`](Self::claim) would, and in one step where the store can. It may take the
    /// consumer's word that it waits.
    async fn turn(&self, turn: Turn) -> Result<Turned, BusError> {
        let Turn { ends, claim, .. } = turn;
        let settled = if ends.is_empty() {
            Settled::default()
        } else {
            self.settle(&claim.group, &claim.incarnation, claim.now, ends).await?
        };
        Ok(Turned { settled, claims: self.claim(claim).await, is_waiting: false })
    }

    /// Nothing is handed over to the consumer from now on, until its next [`turn`](Self::turn), which also gets what was on its way.
    fn recall(&self, _incarnation: &str) {}

    /// Takes a consumer's word back: from now on nothing is handed over to it, and what was on its way is free again.
    async fn withdraw(&self, _group: &str, _incarnation: &str) -> Result<(), BusError> {
        Ok(())
    }

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

    /// How a group stands.
    async fn status(&self, group: &str) -> Result<GroupStatus, BusError>;

    /// The groups whose names come after `after`, by name, at most `limit`: name, pattern, and the names of their consumers, sorted.
    async fn groups(&self, after: &str, limit: usize) -> Result<Vec<GroupNames>, BusError>;

    /// The delayed events behind a place, in order, at most `limit`.
    async fn delayed(&self, after: Option<DelayPlace>, limit: usize) -> Result<Vec<DelayedEvent>, BusError>;

    /// Takes a delayed event back, and forgets its id. Whether it was delayed.
    async fn cancel_delayed(&self, id: &EventId) -> Result<bool, BusError>;

    /// The dead letters behind place `after` (0: all), in the order of their places.
    async fn dead_letters(&self, group: &str, after: Seq, limit: usize) -> Result<Vec<DeadLetter>, BusError>;

    /// Puts dead letters back to work: each becomes a new event of the same id for this group alone, in the order that is given, with a place
    /// behind everything, and without attempts; how many. Those that are not there, or cannot be read, stay as they are.
    /// `BacklogFull` moves none. At most [`PAGE_MAX`] are asked for.
    async fn redrive(&self, group: &str, letters: &[Seq]) -> Result<u64, BusError>;

    /// Removes dead letters; how many. At most [`PAGE_MAX`] are asked for.
    async fn purge(&self, group: &str, letters: &[Seq]) -> Result<u64, BusError>;

    /// The kept events behind place `after`, at most `limit` (up to [`PAGE_MAX`]), whether or not a group still needs them; those that were put
    /// back to work for one group are not among them. Every event with a smaller place than one that is answered is settled: it was
    /// answered before, is not kept, or will never come.
    async fn history(&self, after: Seq, limit: usize) -> Result<Page, BusError>;

    /// Sends an event to the live subscriptions of other processes where `BusInfo::live_between_processes` says that they can be reached. `Ok`
    /// may come before it is on its way.
    async fn send_live(&self, _event: &Append) -> Result<(), BusError> {
        Ok(())
    }

    /// Waits, for `BusConfig::close_timeout` at most, until what was to be sent is on its way.
    async fn flush(&self) {}

    /// Tells what other processes say for as long as it is polled, however often the connection breaks. Returns where nothing can be heard.
    async fn listen(&self, _listener: Listener) {}

    /// How the store feels.
    async fn health(&self) -> Health;
}
