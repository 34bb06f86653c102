//! How a subscription wants its events.

use std::{fmt, sync::Arc, time::Duration};

use infra_types::{Backoff, Envelope, Timestamp};

use crate::{BusError, Handler, Pattern};

/// What happens when a live subscription's queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overflow {
    /// The publisher waits: nothing is lost, and a slow subscriber slows its publishers down.
    #[default]
    Block,
    /// The oldest waiting event makes room.
    DropOldest,
    /// The new event is dropped.
    DropNewest,
    /// The new event is dropped and the publisher gets `SubscriberFull`.
    Error,
    /// Of each topic and key only the latest event waits, in the place of the one that it follows: a slow subscriber sees the newest prices
    /// instead of all. `capacity` bounds how many different ones wait; beyond, the oldest makes room.
    Conflate,
}

/// What later events of a key do while an earlier one waits for its retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnRetry {
    /// They wait, so that the order of the key holds.
    #[default]
    Block,
    /// They go on; the failed one comes when its time has come.
    Skip,
}

/// Where a **new** group begins; an existing one goes on where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StartFrom {
    /// With what is published after it was created.
    #[default]
    New,
    /// With the oldest event that is still retained.
    Earliest,
}

/// How an at-least-once subscription works through its group's events.
#[derive(Debug, Clone)]
pub struct GroupOptions {
    /// The durable group: each event is handled by one consumer of each group. 1 to 64 printable characters.
    pub group: String,
    /// Where the group begins if it is new.
    pub from: StartFrom,
    /// How long a claim lasts unless it is extended, which happens while handlers run: after a crash this is the wait until
    /// another consumer takes over. At least 10 ms; default 30 s.
    pub lease: Duration,
    /// How often an event is tried before it becomes a dead letter. At least 1; default 5.
    pub max_attempts: u32,
    /// The wait between attempts. Default 100 ms doubling to 10 s with full jitter.
    pub backoff: Backoff,
    /// A stable name: a new process of the same name takes over its predecessor's claims at once. Two that run at the same
    /// time must not share it: the earlier one is displaced, and told ([`Subscription::failure`](crate::Subscription::failure),
    /// [`Handler::ended`], `health`). Without it, claims of the dead wait for their lease.
    pub consumer: Option<String>,
    /// How many keys are handled at the same time: 1 to 63; default 1, which also keeps the order across keys. Priority topics have one place
    /// of their own beside these.
    pub concurrency: u32,
    /// Whether later events of a key wait for the retry of an earlier one; default `Block`.
    pub on_retry: OnRetry,
}

/// Live or durable.
#[derive(Debug, Clone)]
pub enum Mode {
    /// Events that are published in this process while it is subscribed, of either delivery class.
    AtMostOnce {
        /// When the queue is full.
        overflow: Overflow,
        /// Events that may wait; at least 1.
        capacity: usize,
    },
    /// Stored events, until they are acknowledged.
    AtLeastOnce(GroupOptions),
}

/// A subscription to be.
#[derive(Clone)]
pub struct SubscribeOptions {
    /// Which topics.
    pub pattern: Pattern,
    /// Live or durable.
    pub mode: Mode,
    /// How long one handling may take by the bus's clock. Default 30 s.
    pub timeout: Duration,
    /// Events that happened longer ago than this (by `Envelope::time` and the bus's wall clock) when their turn comes are passed over and
    /// counted as `expired`. Default: none are.
    pub max_age: Option<Duration>,
    /// What to do with each event.
    pub handler: Arc<dyn Handler>,
}

impl fmt::Debug for SubscribeOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut s = f.debug_struct("SubscribeOptions");
        s.field("pattern", &self.pattern)
            .field("mode", &self.mode)
            .field("timeout", &self.timeout)
            .field("max_age", &self.max_age)
            .finish_non_exhaustive()
    }
}

impl SubscribeOptions {
    /// A live subscription with a queue of 1,024 that blocks its publishers when full.
    #[must_use]
    pub fn at_most_once(pattern: Pattern, handler: Arc<dyn Handler>) -> Self {
        let mode = Mode::AtMostOnce { overflow: Overflow::Block, capacity: 1_024 };
        Self { pattern, mode, timeout: Duration::from_secs(30), max_age: None, handler }
    }

    /// A durable subscription in `group`, with the defaults that [`GroupOptions`] names.
    #[must_use]
    pub fn at_least_once(pattern: Pattern, group: impl Into<String>, handler: Arc<dyn Handler>) -> Self {
        let mode = Mode::AtLeastOnce(GroupOptions {
            group: group.into(),
            from: StartFrom::New,
            lease: Duration::from_secs(30),
            max_attempts: 5,
            backoff: Backoff::default(),
            consumer: None,
            concurrency: 1,
            on_retry: OnRetry::Block,
        });
        Self { pattern, mode, timeout: Duration::from_secs(30), max_age: None, handler }
    }

    /// Sets queue size and overflow policy; without effect on a durable subscription.
    #[must_use]
    pub fn with_queue(mut self, capacity: usize, overflow: Overflow) -> Self {
        if let Mode::AtMostOnce { overflow: o, capacity: c } = &mut self.mode {
            (*o, *c) = (overflow, capacity);
        }
        self
    }

    /// Sets how long one handling may take.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Passes over events that are older than this when their turn comes.
    #[must_use]
    pub fn with_max_age(mut self, max_age: Duration) -> Self {
        self.max_age = Some(max_age);
        self
    }

    fn group(mut self, set: impl FnOnce(&mut GroupOptions)) -> Self {
        if let Mode::AtLeastOnce(group) = &mut self.mode {
            set(group);
        }
        self
    }

    /// A new group begins with the oldest retained event; without effect on a live subscription.
    #[must_use]
    pub fn from_earliest(self) -> Self {
        self.group(|g| g.from = StartFrom::Earliest)
    }

    /// Sets the lease; without effect on a live subscription.
    #[must_use]
    pub fn with_lease(self, lease: Duration) -> Self {
        self.group(|g| g.lease = lease)
    }

    /// Sets attempts and the wait between them; without effect on a live subscription.
    #[must_use]
    pub fn with_retry(self, max_attempts: u32, backoff: Backoff) -> Self {
        self.group(|g| (g.max_attempts, g.backoff) = (max_attempts, backoff))
    }

    /// Sets the consumer's stable name; without effect on a live subscription.
    #[must_use]
    pub fn with_consumer(self, consumer: impl Into<String>) -> Self {
        self.group(|g| g.consumer = Some(consumer.into()))
    }

    /// Sets how many keys are handled at the same time; without effect on a live subscription.
    #[must_use]
    pub fn with_concurrency(self, concurrency: u32) -> Self {
        self.group(|g| g.concurrency = concurrency)
    }

    /// Sets what later events of a key do while one waits for its retry; without effect on a live subscription.
    #[must_use]
    pub fn on_retry(self, on_retry: OnRetry) -> Self {
        self.group(|g| g.on_retry = on_retry)
    }

    /// Whether an event is older than it may be.
    pub(crate) fn is_expired(&self, event: &Envelope, now: Timestamp) -> bool {
        self.max_age.is_some_and(|max| now.since(event.time) > max)
    }

    pub(crate) fn validate(&self) -> Result<(), BusError> {
        let mut wrong = Vec::new();
        if self.timeout.is_zero() {
            wrong.push("timeout must be above zero".to_owned());
        }
        match &self.mode {
            Mode::AtMostOnce { capacity: 0, .. } => wrong.push("capacity must be at least 1".to_owned()),
            Mode::AtMostOnce { .. } => {}
            Mode::AtLeastOnce(g) => {
                let is_name = |n: &str| (1..=64).contains(&n.len()) && n.bytes().all(|b| b.is_ascii_graphic());
                if !is_name(&g.group) {
                    wrong.push(format!("group {:?} must be 1 to 64 printable characters", g.group));
                }
                if let Some(c) = g.consumer.as_ref().filter(|c| !is_name(c)) {
                    wrong.push(format!("consumer {c:?} must be 1 to 64 printable characters"));
                }
                if g.lease < Duration::from_millis(10) {
                    wrong.push("lease must be at least 10 ms".to_owned());
                }
                if g.max_attempts == 0 {
                    wrong.push("max_attempts must be at least 1".to_owned());
                }
                if !(1..=63).contains(&g.concurrency) {
                    wrong.push("concurrency must be 1 to 63".to_owned());
                }
            }
        }
        if wrong.is_empty() { Ok(()) } else { Err(BusError::Invalid { rule: wrong.join("; ") }) }
    }
}
