//! The suite itself is tested: buses that are wrong in one way each, and the case that must catch them.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use infra_event_bus::{
    Bus, BusError, BusInfo, DeadLetter, DeadLetters, Delivery, EventBus, GroupStatus, HandlerError, MemoryBroker,
    Metrics, Published, Replay, Replayed, SubscribeOptions, Subscription,
    broker::{Append, Appended, Broker, Claim, Claims, GroupSpec, Outcome, Page, Progress, Seq, Settle, Settled},
    conformance::{self, Fixture, config},
    handler_fn,
};
use infra_types::{Envelope, EventId, Health, ManualClock, Timestamp};

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lie {
    Nothing,
    AckBeforeHandling,
    RetryBreaksTheOrder,
    RetriesAtOnce,
    StarStopsAtColon,
    DeadLetterLosesTheError,
    DeadLettersVanish,
    ForgetsIds,
    ForgetsAttempts,
    DropsAreNotCounted,
    CloseDoesNotWait,
    BatchStopsAtTheFirstBadOne,
    NeverExtends,
}

/// A memory broker that lies.
#[derive(Debug)]
struct LyingBroker {
    inner: MemoryBroker,
    lie: Lie,
    published: AtomicU64,
}

#[async_trait]
impl Broker for LyingBroker {
    fn info(&self) -> BusInfo {
        self.inner.info()
    }

    async fn append(&self, events: Vec<Append>) -> Vec<Result<Appended, BusError>> {
        let twist = |append: Append| {
            let mut event = append.envelope.as_ref().clone();
            let n = self.published.fetch_add(1, Ordering::Relaxed);
            match self.lie {
                // A lane for each event is no lane at all; `claim` puts the key back.
                Lie::RetryBreaksTheOrder => event.key = format!("{n}|{}", event.key),
                Lie::ForgetsIds => event.id = EventId::generate(),
                _ => {}
            }
            Append { envelope: Arc::new(event), ..append }
        };
        self.inner.append(events.into_iter().map(twist).collect()).await
    }

    async fn open_group(&self, spec: GroupSpec) -> Result<(), BusError> {
        self.inner.open_group(spec).await
    }

    async fn remove_group(&self, group: &str) -> Result<bool, BusError> {
        self.inner.remove_group(group).await
    }

    async fn take_over(&self, group: &str, consumer: &str, incarnation: &str) -> Result<u64, BusError> {
        self.inner.take_over(group, consumer, incarnation).await
    }

    async fn claim(&self, claim: Claim) -> Result<Claims, BusError> {
        let mut claims = self.inner.claim(claim).await?;
        if self.lie == Lie::RetryBreaksTheOrder {
            for claimed in &mut claims.events {
                let mut event = claimed.envelope.as_ref().clone();
                if let Some((_, key)) = event.key.split_once('|') {
                    event.key = key.to_owned();
                }
                claimed.envelope = Arc::new(event);
            }
        }
        Ok(claims)
    }

    async fn settle(
        &self,
        group: &str,
        incarnation: &str,
        now: Timestamp,
        mut ends: Vec<Settle>,
    ) -> Result<Settled, BusError> {
        for end in &mut ends {
            end.outcome = match (self.lie, end.outcome.clone()) {
                (Lie::RetriesAtOnce, Outcome::Retry { error, steps_aside, .. }) => {
                    Outcome::Retry { at: now, error, steps_aside }
                }
                (Lie::ForgetsAttempts, Outcome::Retry { .. }) => Outcome::Release,
                (Lie::DeadLetterLosesTheError, Outcome::Dead { .. }) => Outcome::Dead { error: String::new() },
                (Lie::DeadLettersVanish, Outcome::Dead { .. }) => Outcome::Ack,
                (_, honest) => honest,
            };
        }
        self.inner.settle(group, incarnation, now, ends).await
    }

    async fn extend(
        &self,
        group: &str,
        incarnation: &str,
        until: Timestamp,
        claims: Vec<(Seq, u32)>,
    ) -> Result<(), BusError> {
        if self.lie == Lie::NeverExtends {
            return Ok(());
        }
        self.inner.extend(group, incarnation, until, claims).await
    }

    async fn progress(&self, group: &str, through: Option<Seq>) -> Result<Progress, BusError> {
        self.inner.progress(group, through).await
    }

    async fn delay(&self, event: Append, until: Timestamp, now: Timestamp) -> Result<Appended, BusError> {
        self.inner.delay(event, until, now).await
    }

    async fn status(&self, group: &str) -> Result<GroupStatus, BusError> {
        self.inner.status(group).await
    }

    async fn dead_letters(&self, group: &str, after: Seq, limit: usize) -> Result<Vec<DeadLetter>, BusError> {
        self.inner.dead_letters(group, after, limit).await
    }

    async fn redrive(&self, group: &str, letters: &[Seq]) -> Result<u64, BusError> {
        self.inner.redrive(group, letters).await
    }

    async fn purge(&self, group: &str, letters: &[Seq]) -> Result<u64, BusError> {
        self.inner.purge(group, letters).await
    }

    async fn history(&self, after: Seq, limit: usize) -> Result<Page, BusError> {
        self.inner.history(after, limit).await
    }

    async fn health(&self) -> Health {
        self.inner.health().await
    }
}

/// A bus over that broker that may lie by itself.
#[derive(Debug)]
struct LyingBus {
    inner: Arc<Bus<LyingBroker>>,
    lie: Lie,
}

#[async_trait]
impl EventBus for LyingBus {
    async fn publish(&self, event: Envelope, delivery: Delivery) -> Result<Published, BusError> {
        self.inner.publish(event, delivery).await
    }

    async fn publish_batch(&self, events: Vec<Envelope>) -> Vec<Result<Published, BusError>> {
        if self.lie != Lie::BatchStopsAtTheFirstBadOne {
            return self.inner.publish_batch(events).await;
        }
        let mut answers: Vec<Result<Published, BusError>> = Vec::new();
        for event in events {
            let answer = match answers.last() {
                Some(Err(e)) => Err(e.clone()),
                _ => self.inner.publish(event, Delivery::AtLeastOnce).await,
            };
            answers.push(answer);
        }
        answers
    }

    async fn subscribe(&self, mut options: SubscribeOptions) -> Result<Subscription, BusError> {
        let (honest, pattern, lie) = (options.handler.clone(), options.pattern.to_string(), self.lie);
        options.handler = handler_fn(move |event| {
            let (honest, pattern) = (honest.clone(), pattern.clone());
            async move {
                let topic = event.envelope.topic.as_str();
                match lie {
                    Lie::AckBeforeHandling => {
                        // The answer comes too late to count.
                        let _ = honest.handle(event).await;
                        Ok::<(), HandlerError>(())
                    }
                    Lie::StarStopsAtColon if topic.matches(':').count() > pattern.matches(':').count() => Ok(()),
                    _ => honest.handle(event).await,
                }
            }
        });
        self.inner.subscribe(options).await
    }

    async fn publish_at(&self, event: Envelope, at: Timestamp) -> Result<Published, BusError> {
        self.inner.publish_at(event, at).await
    }

    async fn status(&self, group: &str) -> Result<GroupStatus, BusError> {
        self.inner.status(group).await
    }

    async fn dead_letters(&self, group: &str, after: u64, limit: usize) -> Result<Vec<DeadLetter>, BusError> {
        self.inner.dead_letters(group, after, limit).await
    }

    async fn redrive(&self, group: &str, which: DeadLetters) -> Result<u64, BusError> {
        self.inner.redrive(group, which).await
    }

    async fn purge(&self, group: &str, which: DeadLetters) -> Result<u64, BusError> {
        self.inner.purge(group, which).await
    }

    async fn replay(&self, replay: Replay) -> Result<Replayed, BusError> {
        self.inner.replay(replay).await
    }

    async fn remove_group(&self, group: &str) -> Result<bool, BusError> {
        self.inner.remove_group(group).await
    }

    fn metrics(&self) -> Metrics {
        let mut metrics = self.inner.metrics();
        if self.lie == Lie::DropsAreNotCounted {
            metrics.dropped = 0;
        }
        metrics
    }

    async fn health(&self) -> Health {
        self.inner.health().await
    }

    fn info(&self) -> BusInfo {
        self.inner.info()
    }

    async fn close(&self) -> Result<(), BusError> {
        if self.lie == Lie::CloseDoesNotWait {
            self.inner.abandon();
            return Ok(());
        }
        self.inner.close().await
    }
}

struct Liar {
    clock: ManualClock,
    lie: Lie,
    bus: Arc<LyingBus>,
}

fn liar(lie: Lie) -> Liar {
    let clock = ManualClock::default();
    let broker = LyingBroker { inner: MemoryBroker::new(config().limits), lie, published: AtomicU64::new(0) };
    let inner = Arc::new(Bus::with_broker(broker, Arc::new(clock.clone()), config()));
    Liar { clock, lie, bus: Arc::new(LyingBus { inner, lie }) }
}

#[async_trait]
impl Fixture for Liar {
    fn bus(&self) -> Arc<dyn EventBus> {
        self.bus.clone()
    }

    async fn reopen(&mut self) {
        self.bus.inner.abandon();
        *self = liar(self.lie);
    }

    fn clock(&self) -> ManualClock {
        self.clock.clone()
    }

    async fn other(&self) -> Option<Arc<dyn EventBus>> {
        None
    }
}

const PATIENCE: Duration = Duration::from_secs(2);

/// The case must fail on the liar, by an assertion of its own.
async fn caught<F>(case: F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let ended = tokio::spawn(conformance::with_patience(PATIENCE, case)).await;
    assert!(ended.is_err_and(|e| e.is_panic()), "the case let the liar pass");
}

macro_rules! liars {
    ($($name:ident: $lie:ident by $case:ident;)+) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            caught(conformance::$case(liar(Lie::$lie))).await;
        })+

        /// Otherwise the cases might fail for a reason of this file's own.
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn who_does_not_lie_passes() {
            $(conformance::$case(liar(Lie::Nothing)).await;)+
        }
    };
}

liars! {
    acknowledging_before_handling: AckBeforeHandling by a_failed_event_comes_again_after_its_backoff;
    retries_that_are_overtaken: RetryBreaksTheOrder by the_order_of_a_key_survives_retries;
    retries_without_a_wait: RetriesAtOnce by a_failed_event_comes_again_after_its_backoff;
    a_star_that_stops_at_a_colon: StarStopsAtColon by a_star_crosses_colons_and_topics_stay_real;
    dead_letters_without_an_error: DeadLetterLosesTheError by used_up_attempts_make_a_dead_letter_with_its_error;
    dead_letters_that_vanish: DeadLettersVanish by poison_is_dead_at_once_and_frees_its_key;
    ids_that_mean_nothing: ForgetsIds by an_id_published_twice_is_one_event;
    attempts_that_are_not_counted: ForgetsAttempts by used_up_attempts_make_a_dead_letter_with_its_error;
    drops_that_are_not_counted: DropsAreNotCounted by drop_oldest_keeps_the_newest_and_counts;
    a_close_that_does_not_wait: CloseDoesNotWait by close_lets_running_handlers_end;
    a_batch_that_stops_at_a_bad_event: BatchStopsAtTheFirstBadOne by a_batch_answers_for_each_event;
    a_lease_that_is_not_extended: NeverExtends by a_running_handler_keeps_its_lease;
}
