//! The promise.

use std::{
    fmt,
    sync::{Arc, LazyLock},
    time::Duration,
};

use async_trait::async_trait;
use infra_types::{Envelope, EventId, Health, Timestamp, Topic, TraceParent};

use crate::{BusError, Metrics, Pattern, Replay, Replayed, SubscribeOptions, Subscription};

/// How hard the bus tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// To the live subscriptions, now; nothing is stored. For market data. To those of other processes as well where
    /// `BusInfo::live_between_processes` says so.
    AtMostOnce,
    /// Stored before `publish` answers, and kept until every group that wants it has acknowledged it. For signals, orders,
    /// fills, risk events.
    AtLeastOnce,
}

/// What became of a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    /// The event's place in the stored order; none if it has none (yet): live, delayed or spilled.
    pub seq: Option<u64>,
    /// The id was there before: nothing was stored or delivered again.
    pub duplicate: bool,
    /// The store cannot be reached: the event is in this process's spill log, and goes to the store as soon as it is back.
    pub is_spilled: bool,
}

/// An event that a group gave up on.
#[derive(Debug, Clone, PartialEq)]
pub struct DeadLetter {
    /// Which group.
    pub group: String,
    /// Its place in the stored order.
    pub seq: u64,
    /// Its id, as stored.
    pub id: String,
    /// Its topic, as stored.
    pub topic: String,
    /// The event; none if what is stored cannot be read.
    pub envelope: Option<Envelope>,
    /// What the last attempt said.
    pub error: String,
    /// How often it was tried.
    pub attempts: u32,
    /// When it was given up, by the bus's clock.
    pub at: Timestamp,
}

/// Which dead letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeadLetters {
    /// All that are there when it begins.
    All,
    /// Those at these places; what is not there is passed over.
    At(Vec<u64>),
}

/// How a group stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GroupStatus {
    /// Its lag: events that wait or are being handled.
    pub pending: u64,
    /// The `time` of the oldest of them. By the wall clock, now less this is how far the group is behind.
    pub oldest: Option<Timestamp>,
    /// Events that it gave up on and that nobody has redriven or purged.
    pub dead_letters: u64,
}

/// A group as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupInfo {
    /// Its name.
    pub name: String,
    /// The topics that it wants, as its pattern is written.
    pub pattern: String,
    /// The stable names under which consumers have worked for it, sorted; at most [`broker::NAMES_MAX`](crate::broker::NAMES_MAX).
    pub consumers: Vec<String>,
    /// How it stands.
    pub status: GroupStatus,
}

/// Where a delayed event stands among the others: by its time, then by the order of the delays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct DelayPlace {
    /// Until when it waits, by the clock that judges delays.
    pub until: Timestamp,
    /// Tells apart those of one time.
    pub number: u64,
}

/// An event that waits for its time, or for room in a group that wants it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DelayedEvent {
    /// Where it stands.
    pub place: DelayPlace,
    /// Its id, as stored.
    pub id: String,
    /// Its topic, as stored.
    pub topic: String,
    /// Its key, as stored.
    pub key: String,
}

impl GroupStatus {
    /// How old the oldest event is that the group has still to do; zero if it is done with everything.
    #[must_use]
    pub fn age(&self, now: Timestamp) -> Duration {
        self.oldest.map_or(Duration::ZERO, |oldest| now.since(oldest))
    }
}

/// Sizes that every backend enforces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one payload.
    pub data_bytes_max: usize,
    /// Bytes of key, source, kind, content type and traceparent, each.
    pub attribute_bytes_max: usize,
    /// Events that may wait in one group before publishing to it is refused.
    pub backlog_max: u64,
    /// Events kept although no group needs them any more, for replay and for new groups that begin with `Earliest`; the oldest go first.
    pub history_max: u64,
    /// Events that may wait for the time they were delayed to.
    pub delayed_max: u64,
    /// The id of a finished event is recognised until this many events were stored after it.
    pub dedup_window: u64,
    /// Dead letters kept of one group; the oldest go first.
    pub dead_letters_max: u64,
}

impl Default for Limits {
    /// 1 MiB of data, 512 bytes an attribute, a backlog of 1,000,000, a history of 10,000, 10,000 delayed events, 100,000 ids, 10,000 dead letters.
    fn default() -> Self {
        Self {
            data_bytes_max: 1 << 20,
            attribute_bytes_max: 512,
            backlog_max: 1_000_000,
            history_max: 10_000,
            delayed_max: 10_000,
            dedup_window: 100_000,
            dead_letters_max: 10_000,
        }
    }
}

impl Limits {
    pub(crate) fn check(&self, event: &Envelope) -> Result<(), BusError> {
        let bounds = [
            ("data", event.data.len(), self.data_bytes_max),
            ("key", event.key.len(), self.attribute_bytes_max),
            ("source", event.source.len(), self.attribute_bytes_max),
            ("kind", event.kind.len(), self.attribute_bytes_max),
            ("content type", event.content_type.len(), self.attribute_bytes_max),
            ("traceparent", event.traceparent.as_ref().map_or(0, String::len), self.attribute_bytes_max),
        ];
        if let Some((what, found, max)) = bounds.into_iter().find(|(_, found, max)| found > max) {
            return Err(BusError::TooLarge { what, found, max });
        }
        match &event.traceparent {
            Some(text) => Ok(TraceParent::parse(text).map(|_| ())?),
            None => Ok(()),
        }
    }
}

/// How a bus behaves as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BusConfig {
    /// The sizes it enforces.
    pub limits: Limits,
    /// How often an idle consumer looks for events of other processes, where there are any; at least 1 ms.
    pub poll_interval: Duration,
    /// How long `close` and `stop` wait for running handlers, by the bus's clock.
    pub close_timeout: Duration,
    /// Which topics go by the priority lane: each subscription handles them beside all others, so that no amount of market data and no
    /// slow handling of it delays them. Every process that publishes to one store should say the same.
    pub priority: Arc<[Pattern]>,
}

impl BusConfig {
    pub(crate) fn is_priority(&self, topic: &Topic) -> bool {
        self.priority.iter().any(|pattern| pattern.matches(topic))
    }
}

/// Topics of risk events and of the kill switch.
static PRIORITY: LazyLock<Arc<[Pattern]>> = LazyLock::new(|| {
    ["risk:*", "kill:*", "halt:*", "emergency:*"].iter().filter_map(|text| Pattern::new(text).ok()).collect()
});

impl Default for BusConfig {
    /// The default [`Limits`], a poll every 20 ms, 5 s to close, priority for `risk:*`, `kill:*`, `halt:*` and `emergency:*`.
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            poll_interval: Duration::from_millis(20),
            close_timeout: Duration::from_secs(5),
            priority: PRIORITY.clone(),
        }
    }
}

/// What a bus is and may be relied on for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BusInfo {
    /// `memory`, `sqlite`, …
    pub backend: &'static str,
    /// Whether a stored event survives the death of this process.
    pub survives_process: bool,
    /// Whether a stored event survives a power cut.
    pub survives_power_cut: bool,
    /// Whether consumers in other processes get stored events.
    pub shared_between_processes: bool,
    /// Whether live events reach the live subscriptions of other processes.
    pub live_between_processes: bool,
    /// The sizes it enforces.
    pub limits: Limits,
}

/// Events between the parts of a bot, and between bots.
///
/// Promises, on every backend alike:
/// * **Stored means kept.** After `publish(.., AtLeastOnce)` answered, the event stays until every group whose pattern takes it
///   has acknowledged it or made it a dead letter. Acknowledging comes after the handler's success, never before.
/// * **One id is one event**, however often it is published (within `Limits::dedup_window`). Ids recognise publishes, not
///   payloads, and not handlings: a handler may see an event twice, with the same id and a higher attempt.
/// * **The order of a key holds** within a group, also across retries and crashes: while an event waits for its retry, later
///   ones of its key wait too, and other keys go on.
/// * **Handlers are apart.** One that fails, panics or hangs delays its own subscription and no other — except that a live
///   subscription with `Overflow::Block` delays its publishers, which is what it asks for.
/// * **Nothing is dropped silently**: each drop is in [`Metrics`].
///
/// * **Priority topics overtake**: each subscription handles them beside everything else (`BusConfig::priority`).
///
/// Not promised: order between different keys when `concurrency` is above 1, or between priority topics and others; live delivery to
/// other processes where `BusInfo` does not say so.
#[async_trait]
pub trait EventBus: Send + Sync + fmt::Debug {
    /// Publishes one event. Live subscriptions of this process that want it get it in both classes.
    ///
    /// # Errors
    /// `TooLarge`, `Invalid` (a traceparent that is none), `BacklogFull`, `Closed`, `Backend`; `SubscriberFull` for at-most-once only, after everybody else got it;
    /// after `Ambiguous` publish again with the same id.
    ///
    /// # Cancel safety
    /// Dropping the future may leave the event published, never half stored.
    async fn publish(&self, event: Envelope, delivery: Delivery) -> Result<Published, BusError>;

    /// Publishes events at least once, in order, with one answer for each: one may be refused while others are stored. No event overtakes an
    /// earlier one of its key in the batch: after one that is refused as `BacklogFull`, later ones of its key (with priority and without apart)
    /// are refused as `BacklogFull` or `HeldBack`, whatever their topic; after one that may not have reached the store, nothing more is sent
    /// (`Backend`, `Transient`). `Invalid` and `TooLarge` are the event's own and hold up nothing. Events that share a key and not their topic cost
    /// a write each.
    ///
    /// # Cancel safety
    /// Dropping the future may leave any number of them stored, in order.
    async fn publish_batch(&self, events: Vec<Envelope>) -> Vec<Result<Published, BusError>>;

    /// Publishes an event at least once, not before `at` by the bus's wall clock: until then nobody sees it, and it is not in the order of its
    /// key. Afterwards it is as if it had been published then. It does not reach live subscriptions.
    ///
    /// # Errors
    /// As `publish` at least once; `DelayFull`.
    ///
    /// # Cancel safety
    /// As `publish`.
    async fn publish_at(&self, event: Envelope, at: Timestamp) -> Result<Published, BusError>;

    /// Begins to handle events. It runs until it is stopped or the bus is closed; dropping the handle changes nothing.
    ///
    /// # Errors
    /// `Invalid` names every mistake; `GroupDiffers`, `ConsumerInUse`, `Closed`, `Backend`. A consumer of the same name in another process is not
    /// refused, since it may be dead and not know it: this one takes the name, and that one is told that it is `Displaced`.
    ///
    /// # Cancel safety
    /// Dropping the future may leave the group created, without a consumer.
    async fn subscribe(&self, options: SubscribeOptions) -> Result<Subscription, BusError>;

    /// How a group stands: its lag, the age of what it has to do, its dead letters.
    ///
    /// # Errors
    /// `NoGroup`, `Closed`, `Backend`.
    async fn status(&self, group: &str) -> Result<GroupStatus, BusError>;

    /// The groups whose names come after `after` (empty: from the first), by name, at most `limit` (up to
    /// [`broker::PAGE_MAX`](crate::broker::PAGE_MAX)). A page is not one moment: each group is asked how it stands for itself.
    ///
    /// # Errors
    /// `Closed`, `Backend`.
    async fn groups(&self, after: &str, limit: usize) -> Result<Vec<GroupInfo>, BusError>;

    /// The delayed events behind a place (none: from the first), in the order in which they will be published, at most `limit` (up to
    /// [`broker::LIST_MAX`](crate::broker::LIST_MAX)).
    ///
    /// # Errors
    /// `Closed`, `Backend`.
    async fn delayed(&self, after: Option<DelayPlace>, limit: usize) -> Result<Vec<DelayedEvent>, BusError>;

    /// Takes a delayed event back: nobody will see it, and its id is unknown again. Whether it was still delayed; one that was published is not
    /// taken back.
    ///
    /// # Errors
    /// `Closed`, `Backend`; after `Ambiguous` ask again.
    ///
    /// # Cancel safety
    /// Dropping the future may leave it taken back.
    async fn cancel_delayed(&self, id: &EventId) -> Result<bool, BusError>;

    /// The dead letters of a group behind place `after` (0: from the first), in stored order, at most `limit`.
    ///
    /// # Errors
    /// `NoGroup`, `Closed`, `Backend`.
    async fn dead_letters(&self, group: &str, after: u64, limit: usize) -> Result<Vec<DeadLetter>, BusError>;

    /// Puts dead letters back to work, in stored order and behind everything that waits: they come to this group again, and to no other, with
    /// the same id and attempts from 1. How many; those that cannot be read stay dead.
    ///
    /// # Errors
    /// `NoGroup`, `BacklogFull`, `Closed`, `Backend`, `Ambiguous`; some may have been put back by then. Asking again is harmless.
    ///
    /// # Cancel safety
    /// Dropping the future may leave some of them put back.
    async fn redrive(&self, group: &str, which: DeadLetters) -> Result<u64, BusError>;

    /// Removes dead letters for good; how many.
    ///
    /// # Errors
    /// As `redrive`.
    ///
    /// # Cancel safety
    /// Dropping the future may leave some of them removed.
    async fn purge(&self, group: &str, which: DeadLetters) -> Result<u64, BusError>;

    /// Handles kept events once more, one after another in stored order, up to the newest at the call, with `is_replay` set. Nothing is
    /// acknowledged by it, and no group notices.
    ///
    /// # Errors
    /// `Gone` if it shall begin with an event that is not kept (any more); `Invalid`, `Closed`, `Backend`.
    ///
    /// # Cancel safety
    /// Dropping the future ends the replay between two events or within a handling.
    async fn replay(&self, replay: Replay) -> Result<Replayed, BusError>;

    /// Forgets a group with its backlog and dead letters, so that events are no longer kept for it. Whether it was there.
    /// Its running subscriptions find nothing more to do.
    ///
    /// # Errors
    /// `Closed`, `Backend`.
    async fn remove_group(&self, group: &str) -> Result<bool, BusError>;

    /// What was counted in this process so far.
    fn metrics(&self) -> Metrics;

    /// How the bus feels, with a probe of its store. Never an error: a store that cannot be reached is `Down`.
    async fn health(&self) -> Health;

    /// What the bus is.
    fn info(&self) -> BusInfo;

    /// Refuses new events and subscriptions, lets running handlers end within `BusConfig::close_timeout`, gives back what was
    /// claimed and not begun. Idempotent.
    ///
    /// # Errors
    /// `Unfinished` says what was given up on.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the bus closed and its handlers ending on their own.
    async fn close(&self) -> Result<(), BusError>;
}
