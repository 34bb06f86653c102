//! A bus over the lying broker that may lie by itself.

use std::sync::Arc;

use async_trait::async_trait;
use infra_event_bus::{
    Bus, BusError, BusInfo, DeadLetter, DeadLetters, DelayPlace, DelayedEvent, Delivered, Delivery, EventBus,
    GroupInfo, GroupStatus, HandlerError, HandlingTimes, Metrics, Mode, Overflow, Published, Replay, ReplayFrom,
    Replayed, SubscribeOptions, Subscription, handler_fn,
};
use infra_types::{Envelope, EventId, Health, Timestamp};

use super::{broker::LyingBroker, lie::Lie};

/// A bus that may lie.
#[derive(Debug)]
pub(crate) struct LyingBus {
    pub(crate) inner: Arc<Bus<LyingBroker>>,
    pub(crate) lie: Lie,
}

#[async_trait]
impl EventBus for LyingBus {
    async fn publish(&self, event: Envelope, delivery: Delivery) -> Result<Published, BusError> {
        self.inner.publish(event, delivery).await
    }

    async fn publish_batch(&self, events: Vec<Envelope>) -> Vec<Result<Published, BusError>> {
        if !matches!(self.lie, Lie::BatchStopsAtTheFirstBadOne | Lie::BatchIsManyPublishes) {
            return self.inner.publish_batch(events).await;
        }
        let mut answers: Vec<Result<Published, BusError>> = Vec::new();
        for event in events {
            let answer = match answers.last() {
                Some(Err(e)) if self.lie == Lie::BatchStopsAtTheFirstBadOne => Err(e.clone()),
                _ => self.inner.publish(event, Delivery::AtLeastOnce).await,
            };
            answers.push(answer);
        }
        answers
    }

    async fn subscribe(&self, mut options: SubscribeOptions) -> Result<Subscription, BusError> {
        let (honest, pattern, lie) = (options.handler.clone(), options.pattern.to_string(), self.lie);
        if matches!(lie, Lie::AckBeforeHandling | Lie::StarStopsAtColon) {
            options.handler = handler_fn(move |event: Delivered| {
                let (honest, pattern) = (honest.clone(), pattern.clone());
                async move {
                    let topic = event.envelope.topic.as_str();
                    if lie == Lie::StarStopsAtColon {
                        let is_beyond = topic.matches(':').count() > pattern.matches(':').count();
                        return if is_beyond { Ok(()) } else { honest.handle(event).await };
                    }
                    // The answer comes too late to count.
                    let _ = honest.handle(event).await;
                    Ok::<(), HandlerError>(())
                }
            });
        }
        if lie == Lie::ExpiredBecomesDead
            && let Some(max_age) = options.max_age.take()
        {
            // It reckons with the year, not with its clock: everything that is not of the last seconds is poison.
            let honest = options.handler.clone();
            options.handler = handler_fn(move |event: Delivered| {
                let honest = honest.clone();
                async move {
                    let is_old = Timestamp::from_millis(1_735_689_600_000).since(event.envelope.time) > max_age;
                    if is_old { Err(HandlerError::Poison("too old".into())) } else { honest.handle(event).await }
                }
            });
        }
        if lie == Lie::IgnoresMaxAge {
            options.max_age = None;
        }
        if let Mode::AtMostOnce { overflow, .. } = &mut options.mode
            && lie == Lie::ConflationIsAQueue
            && *overflow == Overflow::Conflate
        {
            *overflow = Overflow::DropOldest;
        }
        self.inner.subscribe(options).await
    }

    async fn publish_at(&self, event: Envelope, at: Timestamp) -> Result<Published, BusError> {
        self.inner.publish_at(event, at).await
    }

    async fn status(&self, group: &str) -> Result<GroupStatus, BusError> {
        self.inner.status(group).await
    }

    async fn groups(&self, after: &str, limit: usize) -> Result<Vec<GroupInfo>, BusError> {
        self.inner.groups(after, limit).await
    }

    async fn delayed(&self, after: Option<DelayPlace>, limit: usize) -> Result<Vec<DelayedEvent>, BusError> {
        self.inner.delayed(after, limit).await
    }

    async fn cancel_delayed(&self, id: &EventId) -> Result<bool, BusError> {
        self.inner.cancel_delayed(id).await
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

    async fn replay(&self, mut replay: Replay) -> Result<Replayed, BusError> {
        if self.lie == Lie::ReplayIsNotMarked {
            let honest = replay.handler.clone();
            replay.handler = handler_fn(move |event: Delivered| {
                let honest = honest.clone();
                async move { honest.handle(Delivered { is_replay: false, ..event }).await }
            });
        }
        let again = Replay { from: ReplayFrom::Earliest, ..replay.clone() };
        match self.inner.replay(replay).await {
            Err(BusError::Gone { .. }) if self.lie == Lie::GoneIsEarliest => self.inner.replay(again).await,
            Ok(said) if self.lie == Lie::HidesGaps => Ok(Replayed { has_gap: false, ..said }),
            answer => answer,
        }
    }

    async fn remove_group(&self, group: &str) -> Result<bool, BusError> {
        self.inner.remove_group(group).await
    }

    fn metrics(&self) -> Metrics {
        let mut metrics = self.inner.metrics();
        match self.lie {
            Lie::DropsAreNotCounted => metrics.dropped = 0,
            Lie::TimesAreNotTaken => metrics.handling = HandlingTimes::default(),
            _ => {}
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
