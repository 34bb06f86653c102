//! What is the same on every backend.

pub(crate) mod call;
pub(crate) mod core;
mod durable;
mod live;
mod parts;
mod queue;
pub(crate) mod sub;
mod worker;

use std::{
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::Duration,
};

use async_trait::async_trait;
use infra_types::{Clock, Envelope, EventId, Health, HealthStatus, SystemClock, Timestamp};
use parking_lot::{Mutex, RwLock};

use self::{
    core::Core,
    parts::Parts,
    sub::{Durable, Kind, Queues, Sub},
};
use crate::{
    BusConfig, BusError, BusInfo, DeadLetter, DeadLetters, DelayPlace, DelayedEvent, Delivery, EventBus, GroupInfo,
    GroupStatus, Metrics, Mode, Published, Replay, Replayed, SubscribeOptions, Subscription,
    broker::{Append, Appended, Broker, GroupNames, GroupSpec, LIST_MAX, PAGE_MAX, Seq},
    metrics::Counters,
};

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
    pub fn with_broker(broker: B, clock: Arc<dyn Clock>, mut config: BusConfig) -> Self {
        let broker = Arc::new(broker);
        // Looking without a pause would leave no time for anything else.
        config.poll_interval = config.poll_interval.max(Duration::from_millis(1));
        let core = Core {
            broker: broker.clone(),
            clock,
            config,
            counters: Counters::default(),
            subs: RwLock::default(),
            closed: AtomicBool::new(false),
            next_id: AtomicU64::new(1),
            listening: Mutex::default(),
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
        self.core.stop_listening();
        let subs = std::mem::take(&mut *self.core.subs.write());
        subs.iter().for_each(|sub| sub.abort());
    }

    /// Counts and distributes what was stored.
    async fn spread(&self, event: &Append, appended: Appended) -> Published {
        let counters = &self.core.counters;
        counters.evicted.fetch_add(appended.evicted, Relaxed);
        if appended.duplicate {
            counters.duplicates.fetch_add(1, Relaxed);
        } else {
            counters.published.fetch_add(1, Relaxed);
            self.core.wake_for(event, appended.seq);
            // It is stored: a full live subscription is counted as dropped, and is no reason to call the publish failed.
            self.core.broadcast(event).await;
            self.send_live(event).await;
        }
        Published { seq: appended.seq, duplicate: appended.duplicate, is_spilled: false }
    }

    /// To other processes, which were promised nothing: what cannot be sent is counted.
    async fn send_live(&self, event: &Append) {
        if self.core.broker.info().live_between_processes && self.broker.send_live(event).await.is_err() {
            self.core.counters.unsent.fetch_add(1, Relaxed);
        }
    }

    fn with_lane(&self, event: Envelope) -> Append {
        Append { is_priority: self.core.config.is_priority(&event.topic), envelope: Arc::new(event) }
    }

    /// The places of the dead letters that are meant, page by page, each handed to `work`; the sum of what it did.
    async fn letters<F>(&self, group: &str, which: DeadLetters, work: impl Fn(Vec<Seq>) -> F) -> Result<u64, BusError>
    where
        F: Future<Output = Result<u64, BusError>>,
    {
        self.core.check_open()?;
        let mut done = 0;
        match which {
            DeadLetters::At(mut seqs) => {
                // Also with none it says whether there is such a group.
                self.core.broker.status(group).await?;
                seqs.sort_unstable();
                seqs.dedup();
                for page in seqs.chunks(PAGE_MAX) {
                    done += work(page.to_vec()).await?;
                }
            }
            DeadLetters::All => {
                // Those that die again meanwhile have later places.
                let (mut after, newest) = (0, self.core.broker.progress(group, None).await?.through);
                while after < newest {
                    let page = self.core.broker.dead_letters(group, after, PAGE_MAX).await?;
                    let seqs: Vec<_> = page.iter().map(|letter| letter.seq).filter(|seq| *seq <= newest).collect();
                    let Some(last) = seqs.last() else { break };
                    after = *last;
                    done += work(seqs).await?;
                }
            }
        }
        self.core.wake_peers(group, 0);
        Ok(done)
    }

    fn register(&self, sub: Arc<Sub>) -> Result<(), BusError> {
        let mut subs = self.core.subs.write();
        // Under the lock, so that `close` either sees this subscription or this sees `close`.
        self.core.check_open()?;
        if let Some(new) = sub.durable() {
            let twin = |d: &Durable| d.group == new.group && d.consumer == new.consumer;
            if subs.iter().filter(|s| !s.is_done() && s.failure().is_none()).any(|s| s.durable().is_some_and(twin)) {
                let (group, consumer) = (new.group.to_string(), new.consumer.to_string());
                return Err(BusError::ConsumerInUse { group, consumer });
            }
        }
        subs.push(sub);
        Ok(())
    }
}

/// A subscription that does not get to run, also because nobody waits for it any more, is none.
struct Registered<'a> {
    core: &'a Core,
    id: u64,
    runs: bool,
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        if !self.runs {
            self.core.forget(self.id);
        }
    }
}

#[async_trait]
impl<B: Broker> EventBus for Bus<B> {
    async fn publish(&self, event: Envelope, delivery: Delivery) -> Result<Published, BusError> {
        self.core.check_open()?;
        self.core.broker.info().limits.check(&event)?;
        let event = self.with_lane(event);
        match delivery {
            Delivery::AtMostOnce => {
                self.core.counters.published.fetch_add(1, Relaxed);
                let refused = self.core.broadcast(&event).await;
                self.send_live(&event).await;
                match refused {
                    Some(subscription) => Err(BusError::SubscriberFull { subscription }),
                    None => Ok(Published { seq: None, duplicate: false, is_spilled: false }),
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
        let checked: Vec<_> = events.into_iter().map(|e| limits.check(&e).map(|()| self.with_lane(e))).collect();
        let mut parts = Parts::default();
        let mut answers = Vec::with_capacity(checked.len());
        while answers.len() < checked.len() {
            let rest = &checked[answers.len()..];
            let (part, sent) = parts.next(rest);
            let mut stored = match sent.is_empty() {
                true => Vec::new(),
                false => self.core.broker.append(sent).await,
            }
            .into_iter();
            for event in part {
                answers.push(match event {
                    Err(e) => Err(e.clone()),
                    Ok(event) => match parts.held_back(event) {
                        Some(e) => Err(e),
                        None => {
                            let lost = || Err(BusError::Ambiguous { reason: "the store gave no answer".into() });
                            match stored.next().unwrap_or_else(lost) {
                                Ok(appended) => Ok(self.spread(event, appended).await),
                                Err(e) => Err(e),
                            }
                        }
                    },
                });
            }
            parts.end(part, &answers[answers.len() - part.len()..]);
        }
        answers
    }

    async fn publish_at(&self, event: Envelope, at: Timestamp) -> Result<Published, BusError> {
        self.core.check_open()?;
        self.core.broker.info().limits.check(&event)?;
        let event = self.with_lane(event);
        let now = self.core.clock.wall();
        let delayed = self.core.broker.delay(event.clone(), at, now).await?;
        let counters = &self.core.counters;
        counters.evicted.fetch_add(delayed.evicted, Relaxed);
        let which = if delayed.duplicate { &counters.duplicates } else { &counters.published };
        which.fetch_add(1, Relaxed);
        // Its consumers learn when to look for it.
        self.core.wake_for(&event, None);
        Ok(Published { seq: delayed.seq, duplicate: delayed.duplicate, is_spilled: false })
    }

    async fn subscribe(&self, options: SubscribeOptions) -> Result<Subscription, BusError> {
        options.validate()?;
        self.core.check_open()?;
        let core = &self.core;
        let id = core.next_id.fetch_add(1, Relaxed);
        let pattern = options.pattern.clone();
        let sub = match &options.mode {
            Mode::AtMostOnce { overflow, capacity } => {
                let kind = Kind::Live(Box::new(Queues::new(*capacity, *overflow)));
                let sub = Arc::new(Sub::new(id, pattern.to_string(), pattern, kind, options.handler.clone()));
                self.register(sub.clone())?;
                live::spawn(core, &sub, &options);
                sub
            }
            Mode::AtLeastOnce(group) => {
                let name: Arc<str> = group.group.as_str().into();
                let run = EventId::generate();
                let consumer = group.consumer.clone().unwrap_or_else(|| format!("run-{run}"));
                let (durable, handed) = Durable::new(name.clone(), consumer.as_str().into(), run.as_str().into());
                let spec = GroupSpec { name: name.clone(), pattern: pattern.clone(), from: group.from };
                core.broker.open_group(spec).await?;
                let sub = Arc::new(Sub::new(
                    id,
                    group.group.clone(),
                    pattern,
                    Kind::Durable(durable),
                    options.handler.clone(),
                ));
                self.register(sub.clone())?;
                let mut registered = Registered { core, id, runs: false };
                if group.consumer.is_some() {
                    core.broker.take_over(&name, &consumer, run.as_str()).await?;
                }
                durable::Runner::spawn(core, &sub, &options, group, handed);
                registered.runs = true;
                sub
            }
        };
        core.listen();
        if core.closed.load(SeqCst) {
            core.stop_listening();
            // Closed while it began: `close` may have looked before the tasks were there.
            sub.abort();
            return Err(BusError::Closed);
        }
        Ok(Subscription::new(core.clone(), sub))
    }

    async fn status(&self, group: &str) -> Result<GroupStatus, BusError> {
        self.core.check_open()?;
        self.core.broker.status(group).await
    }

    async fn groups(&self, after: &str, limit: usize) -> Result<Vec<GroupInfo>, BusError> {
        self.core.check_open()?;
        let mut groups = Vec::new();
        for GroupNames { name, pattern, consumers } in self.core.broker.groups(after, limit.min(PAGE_MAX)).await? {
            match self.core.broker.status(&name).await {
                Ok(status) => groups.push(GroupInfo { name, pattern, consumers, status }),
                // Removed meanwhile.
                Err(BusError::NoGroup { .. }) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(groups)
    }

    async fn delayed(&self, after: Option<DelayPlace>, limit: usize) -> Result<Vec<DelayedEvent>, BusError> {
        self.core.check_open()?;
        self.core.broker.delayed(after, limit.min(LIST_MAX)).await
    }

    async fn cancel_delayed(&self, id: &EventId) -> Result<bool, BusError> {
        self.core.check_open()?;
        self.core.broker.cancel_delayed(id).await
    }

    async fn dead_letters(&self, group: &str, after: u64, limit: usize) -> Result<Vec<DeadLetter>, BusError> {
        self.core.check_open()?;
        self.core.broker.dead_letters(group, after, limit).await
    }

    async fn redrive(&self, group: &str, which: DeadLetters) -> Result<u64, BusError> {
        self.letters(group, which, |seqs| async move { self.core.broker.redrive(group, &seqs).await }).await
    }

    async fn purge(&self, group: &str, which: DeadLetters) -> Result<u64, BusError> {
        self.letters(group, which, |seqs| async move { self.core.broker.purge(group, &seqs).await }).await
    }

    async fn replay(&self, replay: Replay) -> Result<Replayed, BusError> {
        self.core.check_open()?;
        replay.run(&self.core).await
    }

    async fn remove_group(&self, group: &str) -> Result<bool, BusError> {
        self.core.check_open()?;
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
        let stopped = self
            .core
            .subs
            .read()
            .iter()
            .filter(|sub| sub.failure().is_some() || sub.is_done() && !*sub.stop.borrow())
            .map(|s| s.label.clone())
            .collect::<Vec<_>>();
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
        let flushed = self.core.broker.flush();
        tokio::select! { () = flushed => {}, () = self.core.clock.sleep_until(deadline) => {} }
        self.core.stop_listening();
        if late.is_empty() {
            return Ok(());
        }
        let unfinished = late.iter().map(|(_, n)| n).sum();
        let subscriptions = late.into_iter().map(|(label, _)| label).collect::<Vec<_>>().join(", ");
        Err(BusError::Unfinished { unfinished, subscriptions })
    }
}
