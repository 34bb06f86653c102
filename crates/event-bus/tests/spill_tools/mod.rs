//! A bus that is lost when a test says so.

use std::{collections::HashMap, sync::Arc};

use async_trait::async_trait;
use infra_event_bus::{
    BusConfig, BusError, BusInfo, DeadLetter, DeadLetters, DelayPlace, DelayedEvent, Delivery, EventBus, GroupInfo,
    GroupStatus, MemoryEventBus, Metrics, Published, Replay, Replayed, SubscribeOptions, Subscription,
};
use infra_types::{Envelope, EventId, Health, SystemClock, Timestamp};
use parking_lot::Mutex;

/// A memory bus whose publishes fail as they are told to, and which notes what it stored, in order.
#[derive(Debug)]
pub(crate) struct Flaky {
    inner: MemoryEventBus,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    down: Option<BusError>,
    /// How many calls are done and not answered.
    answers_lost: u32,
    /// Events that are refused so many times more.
    refused: HashMap<String, (BusError, u32)>,
    stored: Vec<(Envelope, Option<Timestamp>)>,
}

impl Flaky {
    pub(crate) fn new(config: BusConfig) -> Arc<Self> {
        let inner = MemoryEventBus::with_config(SystemClock::shared(), config);
        Arc::new(Self { inner, state: Mutex::default() })
    }

    pub(crate) fn down(&self, error: BusError) {
        self.state.lock().down = Some(error);
    }

    pub(crate) fn up(&self) {
        self.state.lock().down = None;
    }

    pub(crate) fn refuse(&self, id: &str, error: BusError, times: u32) {
        self.state.lock().refused.insert(id.into(), (error, times));
    }

    pub(crate) fn lose_answers(&self, count: u32) {
        self.state.lock().answers_lost = count;
    }

    pub(crate) fn order(&self) -> Vec<String> {
        self.state.lock().stored.iter().map(|(event, _)| event.id.to_string()).collect()
    }

    pub(crate) fn due(&self, id: &str) -> Option<Timestamp> {
        self.state.lock().stored.iter().find(|(event, _)| event.id.as_str() == id).expect("it is stored").1
    }

    pub(crate) fn data(&self, id: &str) -> bytes::Bytes {
        let state = self.state.lock();
        state.stored.iter().find(|(event, _)| event.id.as_str() == id).expect("it is stored").0.data.clone()
    }

    /// Why this event is not taken now.
    fn refusal(&self, event: &Envelope) -> Option<BusError> {
        let mut state = self.state.lock();
        if let Some(down) = &state.down {
            return Some(down.clone());
        }
        let (error, times) = state.refused.get_mut(event.id.as_str()).filter(|(_, times)| *times > 0)?;
        *times -= 1;
        Some(error.clone())
    }

    fn note(&self, event: Envelope, due: Option<Timestamp>, answer: &Result<Published, BusError>) {
        if matches!(answer, Ok(Published { duplicate: false, .. })) {
            self.state.lock().stored.push((event, due));
        }
    }

    fn is_answer_lost(&self) -> bool {
        let mut state = self.state.lock();
        let is_lost = state.answers_lost > 0;
        state.answers_lost = state.answers_lost.saturating_sub(1);
        is_lost
    }
}

fn unknown() -> BusError {
    BusError::Ambiguous { reason: "the answer was lost".into() }
}

#[async_trait]
impl EventBus for Flaky {
    async fn publish(&self, event: Envelope, delivery: Delivery) -> Result<Published, BusError> {
        if let Some(e) = self.refusal(&event) {
            return Err(e);
        }
        let answer = self.inner.publish(event.clone(), delivery).await;
        self.note(event, None, &answer);
        if self.is_answer_lost() { Err(unknown()) } else { answer }
    }

    async fn publish_batch(&self, events: Vec<Envelope>) -> Vec<Result<Published, BusError>> {
        let refusals: Vec<_> = events.iter().map(|event| self.refusal(event)).collect();
        let taken = events.iter().zip(&refusals).filter(|(_, r)| r.is_none()).map(|(e, _)| e.clone()).collect();
        let mut stored = self.inner.publish_batch(taken).await.into_iter();
        let is_lost = stored.len() > 0 && self.is_answer_lost();
        let answers = events.into_iter().zip(refusals).map(|(event, refusal)| {
            let answer = refusal.map_or_else(|| stored.next().expect("an answer for each"), Err);
            self.note(event, None, &answer);
            if is_lost { Err(unknown()) } else { answer }
        });
        answers.collect()
    }

    async fn publish_at(&self, event: Envelope, at: Timestamp) -> Result<Published, BusError> {
        if let Some(e) = self.refusal(&event) {
            return Err(e);
        }
        let answer = self.inner.publish_at(event.clone(), at).await;
        self.note(event, Some(at), &answer);
        answer
    }

    async fn subscribe(&self, options: SubscribeOptions) -> Result<Subscription, BusError> {
        self.inner.subscribe(options).await
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

    async fn replay(&self, replay: Replay) -> Result<Replayed, BusError> {
        self.inner.replay(replay).await
    }

    async fn remove_group(&self, group: &str) -> Result<bool, BusError> {
        self.inner.remove_group(group).await
    }

    fn metrics(&self) -> Metrics {
        self.inner.metrics()
    }

    async fn health(&self) -> Health {
        self.inner.health().await
    }

    fn info(&self) -> BusInfo {
        self.inner.info()
    }

    async fn close(&self) -> Result<(), BusError> {
        self.inner.close().await
    }
}
