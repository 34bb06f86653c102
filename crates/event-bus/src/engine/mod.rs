//! What is the same on every backend.

mod call;
pub(crate) mod core;
mod durable;
mod live;
mod queue;
pub(crate) mod sub;
mod worker;

use std::sync::{
    Arc,
    atomic::{
        AtomicBool, AtomicU64,
        Ordering::{Relaxed, SeqCst},
    },
};

use async_trait::async_trait;
use infra_types::{Clock, Envelope, EventId, Health, HealthStatus, SystemClock};
use parking_lot::RwLock;

use self::{
    core::Core,
    queue::Queue,
    sub::{Durable, Kind, Sub},
};
use crate::{
    BusConfig, BusError, BusInfo, DeadLetter, Delivery, EventBus, Metrics, Mode, Published, SubscribeOptions,
    Subscription,
    broker::{Appended, Broker, GroupSpec},
    metrics::Counters,
};

/// Events that share one write at most.
const APPEND_MAX: usize = 256;

/// An [`EventBus`] over a [`Broker`]: dispatch, retry, dead letters and metrics, the same on every backend.
///
/// Its subscriptions run as tasks of the tokio runtime that `subscribe` is called on. Dropping it without `close` is what a
/// crash is to the stored events: claims come back when their lease ends or their consumer's name returns.
#[derive(Debug)]
pub struct Bus<B: Broker> {
    core: Arc<Core>,
    broker: Arc<B>,
}

impl<B: Broker> Drop for Bus<B> {
    fn drop(&mut self) {
        self.abandon();
    }
}

impl<B: Broker> Bus<B> {
    /// A bus on a backend of your own. No I/O happens here. The backend enforces `config.limits` if it was built with them.
    #[must_use]
    pub fn with_broker(broker: B, clock: Arc<dyn Clock>, config: BusConfig) -> Self {
        let broker = Arc::new(broker);
        let core = Core {
            broker: broker.clone(),
            clock,
            config,
            counters: Counters::default(),
            subs: RwLock::default(),
            closed: AtomicBool::new(false),
            next_id: AtomicU64::new(1),
        };
        Self { core: Arc::new(core), broker }
    }

    /// The backend.
    #[must_use]
    pub fn broker(&self) -> &B {
        &self.broker
    }

    /// Ends everything at once, as the death of the process would: nothing is given back, running handlers are dropped where
    /// they await. For tests of recovery; a program that ends in order calls `close`.
    pub fn abandon(&self) {
        self.core.closed.store(true, SeqCst);
        let subs = std::mem::take(&mut *self.core.subs.write());
        subs.iter().for_each(|sub| sub.abort());
    }

    /// Counts and distributes what was stored.
    async fn spread(&self, event: &Arc<Envelope>, appended: Appended) -> Published {
        let counters = &self.core.counters;
        counters.evicted.fetch_add(appended.evicted, Relaxed);
        if appended.duplicate {
            counters.duplicates.fetch_add(1, Relaxed);
        } else {
            counters.published.fetch_add(1, Relaxed);
            self.core.wake_for(event);
            // It is stored: a full live subscription is counted as dropped, and is no reason to call the publish failed.
            self.core.broadcast(event).await;
        }
        Published { seq: Some(appended.seq), duplicate: appended.duplicate }
    }

    fn register(&self, sub: Arc<Sub>) -> Result<(), BusError> {
        let mut subs = self.core.subs.write();
        // Under the lock, so that `close` either sees this subscription or this sees `close`.
        self.core.check_open()?;
        if let Some(new) = sub.durable() {
            let twin = |d: &Durable| d.group == new.group && d.consumer == new.consumer;
            if subs.iter().filter(|s| !s.is_done()).any(|s| s.durable().is_some_and(twin)) {
                let (group, consumer) = (new.group.to_string(), new.consumer.to_string());
                return Err(BusError::ConsumerInUse { group, consumer });
            }
        }
        subs.push(sub);
        Ok(())
    }
}

#[async_trait]
impl<B: Broker> EventBus for Bus<B> {
    async fn publish(&self, event: Envelope, delivery: Delivery) -> Result<Published, BusError> {
        self.core.check_open()?;
        self.core.broker.info().limits.check(&event)?;
        let event = Arc::new(event);
        match delivery {
            Delivery::AtMostOnce => {
                self.core.counters.published.fetch_add(1, Relaxed);
                match self.core.broadcast(&event).await {
                    Some(subscription) => Err(BusError::SubscriberFull { subscription }),
                    None => Ok(Published { seq: None, duplicate: false }),
                }
            }
            Delivery::AtLeastOnce => {
                let answer = self.core.broker.append(vec![event.clone()]).await.pop();
                let appended =
                    answer.unwrap_or(Err(BusError::Ambiguous { reason: "the store gave no answer".into() }))?;
                Ok(self.spread(&event, appended).await)
            }
        }
    }

    async fn publish_batch(&self, events: Vec<Envelope>) -> Vec<Result<Published, BusError>> {
        if let Err(closed) = self.core.check_open() {
            return events.iter().map(|_| Err(closed.clone())).collect();
        }
        let limits = self.core.broker.info().limits;
        let checked: Vec<_> = events.into_iter().map(|e| limits.check(&e).map(|()| Arc::new(e))).collect();
        let mut answers = Vec::with_capacity(checked.len());
        for chunk in checked.chunks(APPEND_MAX) {
            let good: Vec<_> = chunk.iter().filter_map(|e| e.as_ref().ok().cloned()).collect();
            let mut stored = self.core.broker.append(good).await.into_iter();
            for event in chunk {
                answers.push(match event {
                    Err(e) => Err(e.clone()),
                    Ok(event) => match stored.next() {
                        Some(Ok(appended)) => Ok(self.spread(event, appended).await),
                        Some(Err(e)) => Err(e),
                        None => Err(BusError::Ambiguous { reason: "the store gave no answer".into() }),
                    },
                });
            }
        }
        answers
    }

    async fn subscribe(&self, options: SubscribeOptions) -> Result<Subscription, BusError> {
        options.validate()?;
        self.core.check_open()?;
        let core = &self.core;
        let id = core.next_id.fetch_add(1, Relaxed);
        let pattern = options.pattern.clone();
        let sub = match &options.mode {
            Mode::AtMostOnce { overflow, capacity } => {
                let kind = Kind::Live(Queue::new(*capacity, *overflow));
                let sub = Arc::new(Sub::new(id, pattern.to_string(), pattern, kind));
                self.register(sub.clone())?;
                sub.add_task(tokio::spawn(live::run(core.clone(), sub.clone(), options.clone())).abort_handle());
                sub
            }
            Mode::AtLeastOnce(group) => {
                let name: Arc<str> = group.group.as_str().into();
                let run = EventId::generate();
                let consumer = group.consumer.clone().unwrap_or_else(|| format!("run-{run}"));
                let durable = Durable::new(name.clone(), consumer.as_str().into(), run.as_str().into());
                let spec = GroupSpec { name: name.clone(), pattern: pattern.clone(), from: group.from };
                core.broker.open_group(spec).await?;
                let sub = Arc::new(Sub::new(id, group.group.clone(), pattern, Kind::Durable(durable)));
                self.register(sub.clone())?;
                if group.consumer.is_some()
                    && let Err(e) = core.broker.take_over(&name, &consumer, run.as_str()).await
                {
                    core.forget(id);
                    return Err(e);
                }
                durable::Runner::spawn(core, &sub, &options, group);
                sub
            }
        };
        if core.closed.load(SeqCst) {
            // Closed while it began: `close` may have looked before the tasks were there.
            sub.abort();
            return Err(BusError::Closed);
        }
        Ok(Subscription::new(core.clone(), sub))
    }

    async fn backlog(&self, group: &str) -> Result<u64, BusError> {
        self.core.broker.backlog(group).await
    }

    async fn dead_letters(&self, group: &str, limit: usize) -> Result<Vec<DeadLetter>, BusError> {
        self.core.broker.dead_letters(group, limit).await
    }

    async fn remove_group(&self, group: &str) -> Result<bool, BusError> {
        let removed = self.core.broker.remove_group(group).await?;
        self.core.wake_peers(group, 0);
        Ok(removed)
    }

    fn metrics(&self) -> Metrics {
        self.core.counters.read()
    }

    async fn health(&self) -> Health {
        if self.core.closed.load(SeqCst) {
            return Health::down("the bus is closed");
        }
        let began = SystemClock.now();
        let health = self.core.broker.health().await;
        let stopped =
            self.core.subs.read().iter().filter(|sub| sub.is_done()).map(|s| s.label.clone()).collect::<Vec<_>>();
        let health = if health.status == HealthStatus::Up && !stopped.is_empty() {
            Health::degraded(format!("subscriptions ended by themselves: {}", stopped.join(", ")))
        } else {
            health
        };
        health.with_probe(SystemClock.now().since(began))
    }

    fn info(&self) -> BusInfo {
        self.core.broker.info()
    }

    async fn close(&self) -> Result<(), BusError> {
        let subs = {
            let mut subs = self.core.subs.write();
            self.core.closed.store(true, SeqCst);
            std::mem::take(&mut *subs)
        };
        subs.iter().for_each(|sub| sub.begin_stop());
        let deadline = self.core.clock.now() + self.core.config.close_timeout;
        let ends = subs.iter().map(|sub| async { (sub.label.clone(), sub.stop_by(&self.core, deadline).await) });
        let late: Vec<_> = futures::future::join_all(ends).await.into_iter().filter(|(_, n)| *n > 0).collect();
        if late.is_empty() {
            return Ok(());
        }
        let unfinished = late.iter().map(|(_, n)| n).sum();
        let subscriptions = late.into_iter().map(|(label, _)| label).collect::<Vec<_>>().join(", ");
        Err(BusError::Unfinished { unfinished, subscriptions })
    }
}
