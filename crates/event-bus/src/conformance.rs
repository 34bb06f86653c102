//! What every bus must do, as plain async functions. Implement [`Fixture`], call [`crate::event_bus_conformance`], and each
//! case becomes a test. A case that fails panics with what it saw.

mod closing;
mod durable;
mod limits;
mod live;
mod recovery;
mod retry;

use std::{future::Future, sync::Arc, time::Duration};

use async_trait::async_trait;
use infra_types::{Backoff, Envelope, EventId, Timestamp, Topic, backoff::Jitter};
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};

pub use self::{closing::*, durable::*, limits::*, live::*, recovery::*, retry::*};
use crate::{
    BusConfig, Delivered, Delivery, EventBus, Handler, HandlerError, Limits, Pattern, Published, SubscribeOptions,
    Subscription, handler_fn,
};

/// A bus to examine, empty at first. It must be built with [`config`].
#[async_trait]
pub trait Fixture: Send {
    /// The bus.
    fn bus(&self) -> Arc<dyn EventBus>;
    /// Lets the bus die as in a crash, without giving anything back, and opens it again on the same data (on none, if it
    /// declares that it does not survive its process).
    async fn reopen(&mut self);
    /// Moves the bus's clock.
    async fn advance(&self, by: Duration);
}

/// The configuration that the suite reckons with: limits small enough to reach.
#[must_use]
pub fn config() -> BusConfig {
    let limits =
        Limits { backlog_max: 200, history_max: 20, dedup_window: 100, dead_letters_max: 5, ..Limits::default() };
    BusConfig { limits, ..BusConfig::default() }
}

/// Makes one test of each case. `$fixture` is an expression that gives a new [`Fixture`].
#[macro_export]
macro_rules! event_bus_conformance {
    ($fixture:expr) => {
        $crate::event_bus_conformance! { @each $fixture;
            live_events_reach_every_subscription_that_wants_them
            a_star_crosses_colons_and_topics_stay_real
            stored_events_reach_live_subscriptions_and_live_ones_are_not_stored
            drop_oldest_keeps_the_newest_and_counts
            drop_newest_keeps_the_oldest_and_counts
            error_tells_the_publisher_and_serves_the_others
            block_loses_nothing
            a_live_handler_that_fails_is_counted_and_goes_on
            every_group_gets_every_event_once_and_in_order
            consumers_of_one_group_share_its_events
            a_group_collects_while_nobody_consumes
            a_new_group_begins_where_it_says
            an_id_published_twice_is_one_event
            an_id_is_recognised_within_its_window
            equal_payloads_are_not_duplicates
            the_correlation_reaches_the_handler
            an_envelope_arrives_as_it_was_sent
            keys_run_side_by_side_and_each_in_order
            a_group_keeps_its_pattern
            a_removed_group_is_gone
            drained_goes_in_lock_step
            a_batch_answers_for_each_event
            a_payload_over_the_limit_is_refused
            a_full_backlog_refuses_and_keeps_what_it_has
            events_without_a_group_are_bounded_and_counted
            nonsense_is_refused_with_every_mistake
            metrics_tell_what_happened
            a_failed_event_comes_again_after_its_backoff
            the_order_of_a_key_survives_retries
            used_up_attempts_make_a_dead_letter_with_its_error
            poison_is_dead_at_once_and_frees_its_key
            panic_and_timeout_fail_that_delivery_only
            dead_letters_are_bounded_and_counted
            a_hanging_handler_delays_nobody_else
            a_running_handler_keeps_its_lease
            stored_events_survive_a_crash
            attempts_and_errors_survive_a_crash
            claims_of_the_dead_come_back_after_the_lease
            the_same_consumer_name_takes_over_at_once
            an_event_that_kills_its_consumers_dies_alone
            ids_are_recognised_after_a_crash
            two_consumers_may_not_share_a_name
            stop_gives_back_what_was_not_begun
            drained_ends_when_the_subscription_does
            close_lets_running_handlers_end
            close_reports_what_it_gave_up_on
            a_closed_bus_refuses_and_closes_twice
        }
    };
    (@each $fixture:expr; $($case:ident)+) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $case() {
            $crate::conformance::$case($fixture).await;
        })+
    };
}

tokio::task_local! {
    static PATIENCE: Duration;
}

/// Runs a case that waits no longer than `patience` (10 s by default) for what must happen: for buses that are wrong on purpose.
pub async fn with_patience<F: Future>(patience: Duration, case: F) -> F::Output {
    PATIENCE.scope(patience, case).await
}

/// `None` if it did not happen in time; on a bus that is right that time never elapses.
async fn in_time<T>(work: impl Future<Output = T>) -> Option<T> {
    let patience = PATIENCE.try_with(|p| *p).unwrap_or(Duration::from_secs(10));
    tokio::time::timeout(patience, work).await.ok()
}

async fn patiently<T>(what: &str, work: impl Future<Output = T>) -> T {
    match in_time(work).await {
        Some(value) => value,
        None => panic!("waited in vain: {what}"),
    }
}

/// Waits for a condition that nothing announces.
async fn until(what: &str, holds: impl Fn() -> bool) {
    patiently(what, async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

fn pattern(text: &str) -> Pattern {
    Pattern::new(text).expect("the suite's patterns are good")
}

fn event(topic: &str, key: &str, data: impl Into<String>) -> Envelope {
    let topic = Topic::new(topic).expect("the suite's topics are good");
    Envelope::new(topic, "test.v1", Timestamp::from_millis(1), data.into()).with_key(key)
}

fn id(text: &str) -> EventId {
    EventId::new(text).expect("the suite's ids are good")
}

/// Exactly `seconds` before each retry.
fn every(seconds: u64) -> Backoff {
    let wait = Duration::from_secs(seconds);
    Backoff::new(wait, wait, 1, Jitter::None).expect("a constant backoff is good")
}

async fn store(bus: &Arc<dyn EventBus>, event: Envelope) -> Published {
    bus.publish(event, Delivery::AtLeastOnce).await.expect("the event is stored")
}

async fn pending(bus: &Arc<dyn EventBus>, group: &str) -> Option<u64> {
    bus.status(group).await.ok().map(|status| status.pending)
}

async fn start(bus: &Arc<dyn EventBus>, options: SubscribeOptions) -> Subscription {
    bus.subscribe(options).await.expect("the subscription begins")
}

async fn drain(subscription: &Subscription) {
    patiently("drained", subscription.drained()).await.expect("the subscription drains");
}

/// What handlers saw, in order.
#[derive(Default)]
struct Log {
    seen: Mutex<Vec<Delivered>>,
    changed: Notify,
}

impl Log {
    fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Records and succeeds.
    fn handler(self: &Arc<Self>) -> Arc<dyn Handler> {
        self.answering(|_| Ok(()))
    }

    /// Records, then answers what `answer` says.
    fn answering<F>(self: &Arc<Self>, answer: F) -> Arc<dyn Handler>
    where
        F: Fn(&Delivered) -> Result<(), HandlerError> + Send + Sync + 'static,
    {
        let log = self.clone();
        let answer = Arc::new(answer);
        handler_fn(move |event| {
            let (log, answer) = (log.clone(), answer.clone());
            async move {
                log.record(event.clone());
                answer(&event)
            }
        })
    }

    fn record(&self, event: Delivered) {
        self.seen.lock().push(event);
        self.changed.notify_waiters();
    }

    /// Payload and attempt of each, e.g. `a1#1`.
    fn lines(&self) -> Vec<String> {
        let line = |d: &Delivered| format!("{}#{}", String::from_utf8_lossy(&d.envelope.data), d.attempt);
        self.seen.lock().iter().map(line).collect()
    }

    fn len(&self) -> usize {
        self.seen.lock().len()
    }

    /// Waits until `n` were seen.
    async fn wait(&self, n: usize) -> Vec<String> {
        let arrived = async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if self.len() >= n {
                    return;
                }
                changed.await;
            }
        };
        if in_time(arrived).await.is_none() {
            panic!("waited in vain for {n} handlings, saw {:?}", self.lines());
        }
        self.lines()
    }
}

/// Holds handlers up until it is opened.
struct Gate {
    entered: Semaphore,
    open: Semaphore,
}

impl Gate {
    fn new() -> Arc<Self> {
        Arc::new(Self { entered: Semaphore::new(0), open: Semaphore::new(0) })
    }

    /// A handler that records to `log`, waits for the gate if `stops` says so, and succeeds.
    fn handler(
        self: &Arc<Self>,
        log: &Arc<Log>,
        stops: impl Fn(&Delivered) -> bool + Send + Sync + 'static,
    ) -> Arc<dyn Handler> {
        let (gate, log, stops) = (self.clone(), log.clone(), Arc::new(stops));
        handler_fn(move |event| {
            let (gate, log, stops) = (gate.clone(), log.clone(), stops.clone());
            async move {
                log.record(event.clone());
                if stops(&event) {
                    gate.entered.add_permits(1);
                    gate.open.acquire().await.expect("the gate stays").forget();
                }
                Ok(())
            }
        })
    }

    /// Waits until a handler stands before it.
    async fn wait(&self) {
        patiently("a handler at the gate", self.entered.acquire()).await.expect("the gate stays").forget();
    }

    fn open(&self, n: usize) {
        self.open.add_permits(n);
    }
}
