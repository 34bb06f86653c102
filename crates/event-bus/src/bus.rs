//! The promise.

use std::{fmt, time::Duration};

use async_trait::async_trait;
use infra_types::{Envelope, Health, Timestamp};

use crate::{BusError, Metrics, SubscribeOptions, Subscription};

/// How hard the bus tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// To the live subscriptions of this process, now; nothing is stored. For market data.
    AtMostOnce,
    /// Stored before `publish` answers, and kept until every group that wants it has acknowledged it. For signals, orders,
    /// fills, risk events.
    AtLeastOnce,
}

/// What became of a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    /// The event's place in the stored order; none if it was not stored.
    pub seq: Option<u64>,
    /// The id was there before: nothing was stored or delivered again.
    pub duplicate: bool,
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

/// Sizes that every backend enforces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one payload.
    pub data_bytes_max: usize,
    /// Bytes of key, source, kind, content type and traceparent, each.
    pub attribute_bytes_max: usize,
    /// Events that may wait in one group before publishing to it is refused.
    pub backlog_max: u64,
    /// Events kept although no group wants them, so that a new group may begin with `Earliest`; the oldest go first.
    pub unrouted_max: u64,
    /// The id of a finished event is recognised until this many events were stored after it.
    pub dedup_window: u64,
    /// Dead letters kept of one group; the oldest go first.
    pub dead_letters_max: u64,
}

impl Default for Limits {
    /// 1 MiB of data, 512 bytes an attribute, a backlog of 1,000,000, 10,000 unrouted events, 100,000 ids, 10,000 dead letters.
    fn default() -> Self {
        Self {
            data_bytes_max: 1 << 20,
            attribute_bytes_max: 512,
            backlog_max: 1_000_000,
            unrouted_max: 10_000,
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
        match bounds.into_iter().find(|(_, found, max)| found > max) {
            Some((what, found, max)) => Err(BusError::TooLarge { what, found, max }),
            None => Ok(()),
        }
    }
}

/// How a bus behaves as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BusConfig {
    /// The sizes it enforces.
    pub limits: Limits,
    /// How often an idle consumer looks for events of other processes, where there are any.
    pub poll_interval: Duration,
    /// How long `close` and `stop` wait for running handlers, by the bus's clock.
    pub close_timeout: Duration,
}

impl Default for BusConfig {
    /// The default [`Limits`], a poll every 20 ms, 5 s to close.
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            poll_interval: Duration::from_millis(20),
            close_timeout: Duration::from_secs(5),
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
/// Not promised: order between different keys when `concurrency` is above 1; live delivery to other processes.
#[async_trait]
pub trait EventBus: Send + Sync + fmt::Debug {
    /// Publishes one event. Live subscriptions of this process that want it get it in both classes.
    ///
    /// # Errors
    /// `TooLarge`, `BacklogFull`, `Closed`, `Backend`; `SubscriberFull` for at-most-once only, after everybody else got it;
    /// after `Ambiguous` publish again with the same id.
    ///
    /// # Cancel safety
    /// Dropping the future may leave the event published, never half stored.
    async fn publish(&self, event: Envelope, delivery: Delivery) -> Result<Published, BusError>;

    /// Publishes events at least once, in order, with one answer for each: one may be refused while the others are stored.
    ///
    /// # Cancel safety
    /// Dropping the future may leave any number of them stored, in order.
    async fn publish_batch(&self, events: Vec<Envelope>) -> Vec<Result<Published, BusError>>;

    /// Begins to handle events. It runs until it is stopped or the bus is closed; dropping the handle changes nothing.
    ///
    /// # Errors
    /// `Invalid` names every mistake; `GroupDiffers`, `ConsumerInUse`, `Closed`, `Backend`.
    ///
    /// # Cancel safety
    /// Dropping the future may leave the group created, without a consumer.
    async fn subscribe(&self, options: SubscribeOptions) -> Result<Subscription, BusError>;

    /// How many events wait in a group or are being handled.
    ///
    /// # Errors
    /// `NoGroup`, `Closed`, `Backend`.
    async fn backlog(&self, group: &str) -> Result<u64, BusError>;

    /// The oldest dead letters of a group, at most `limit`.
    ///
    /// # Errors
    /// `NoGroup`, `Closed`, `Backend`.
    async fn dead_letters(&self, group: &str, limit: usize) -> Result<Vec<DeadLetter>, BusError>;

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
