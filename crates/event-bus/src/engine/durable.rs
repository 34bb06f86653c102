//! The task of a durable subscription: claims events, deals them to its lane workers, settles how they ended.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use infra_types::Monotonic;
use tokio::sync::mpsc;

use super::{
    core::Core,
    sub::{Durable, Sub},
    worker::{Ended, Job, Worker},
};
use crate::{
    BusError, SubscribeOptions,
    broker::{Claim, Outcome, Seq, Settle, Shards},
    metrics::Counters,
    options::GroupOptions,
};

/// Events of one claim at most.
const CLAIM_MAX: usize = 64;
/// Claims that end without an answer before an event becomes a dead letter, however few attempts the subscriber grants: a
/// crash takes innocent neighbours with it once.
const CRASHES_MIN: u32 = 3;

struct Shard {
    jobs: mpsc::UnboundedSender<Job>,
    held: usize,
}

struct Held {
    attempt: u32,
    worker: usize,
}

pub(crate) struct Runner {
    core: Arc<Core>,
    sub: Arc<Sub>,
    group: GroupOptions,
    shards: Vec<Shard>,
    ended: mpsc::UnboundedReceiver<Ended>,
    unsettled: Vec<Ended>,
    held: BTreeMap<Seq, Held>,
    batch: u64,
    /// There may be something to claim.
    dirty: bool,
    /// Came alone, and the shard it is in: until it is settled nothing is claimed beside it but what has priority.
    alone: Option<(Seq, usize)>,
    due: Option<Monotonic>,
    /// When to try again what the store refused.
    again: Option<Monotonic>,
    extend_at: Monotonic,
}

impl Runner {
    /// Starts the lane workers and the task that feeds them.
    pub(crate) fn spawn(core: &Arc<Core>, sub: &Arc<Sub>, options: &SubscribeOptions, group: &GroupOptions) {
        let (report, ended) = mpsc::unbounded_channel();
        let mut shards = Vec::new();
        // The last one is for priority topics, and works beside the others.
        for _ in 0..=group.concurrency {
            let (jobs, queue) = mpsc::unbounded_channel();
            let worker = Worker {
                core: core.clone(),
                sub: sub.clone(),
                options: options.clone(),
                max_attempts: group.max_attempts,
                backoff: group.backoff,
                on_retry: group.on_retry,
                ended: report.clone(),
            };
            sub.add_task(tokio::spawn(worker.run(queue)).abort_handle());
            shards.push(Shard { jobs, held: 0 });
        }
        let runner = Self {
            core: core.clone(),
            sub: sub.clone(),
            group: group.clone(),
            shards,
            ended,
            unsettled: Vec::new(),
            held: BTreeMap::new(),
            batch: 0,
            dirty: true,
            alone: None,
            due: None,
            again: None,
            extend_at: core.clock.now() + group.lease / 3,
        };
        sub.add_task(tokio::spawn(runner.run()).abort_handle());
    }

    async fn run(mut self) {
        let (core, sub) = (self.core.clone(), self.sub.clone());
        let Some(durable) = sub.durable() else { return };
        let mut stop = sub.stop.subscribe();
        let shared = core.broker.info().shared_between_processes;
        loop {
            let stopping = *stop.borrow_and_update();
            if core.clock.now() >= self.extend_at {
                self.extend(durable).await;
            }
            if self.dirty && !stopping && !*sub.paused.borrow() && self.again.is_none() {
                self.claim(durable).await;
            }
            if stopping && self.held.is_empty() {
                break;
            }
            let poll = (shared && self.held.is_empty() && !*sub.paused.borrow())
                .then(|| core.clock.now() + core.config.poll_interval);
            let extend = (!self.held.is_empty()).then_some(self.extend_at);
            let due = self.due.filter(|_| !*sub.paused.borrow());
            let next = [poll, extend, due, self.again].into_iter().flatten().min();
            let sleep = async {
                match next {
                    Some(at) => core.clock.sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                n = self.ended.recv_many(&mut self.unsettled, CLAIM_MAX) => {
                    if n == 0 {
                        break;
                    }
                    if self.again.is_none() {
                        self.settle(durable).await;
                    }
                }
                () = durable.wake.notified() => self.dirty = true,
                _ = stop.changed() => {}
                () = sleep => {
                    self.dirty = true;
                    if self.again.take().is_some() && !self.unsettled.is_empty() {
                        self.settle(durable).await;
                    }
                }
            }
        }
        sub.finish();
    }

    /// Which shard a worker serves.
    fn shard_of(&self, worker: usize) -> usize {
        if worker == self.group.concurrency as usize { Shards::PRIORITY } else { worker }
    }

    /// Those that hold nothing: so at most `CLAIM_MAX` wait behind a slow handler, and later ones are free for other consumers.
    fn open_shards(&self) -> Shards {
        let open = self.shards.iter().enumerate().filter(|(_, s)| s.held == 0).map(|(n, _)| 1 << self.shard_of(n));
        let allowed = match self.alone {
            // A halt does not wait for an event that may be killing its consumers.
            Some((_, shard)) if shard != Shards::PRIORITY => 1 << Shards::PRIORITY,
            Some(_) => 0,
            None => u64::MAX,
        };
        Shards { count: self.group.concurrency, open: open.sum::<u64>() & allowed }
    }

    /// The store failed: look again in a moment.
    fn failed(&mut self) {
        // What becomes due meanwhile is found then.
        self.due = None;
        self.count(|c| &c.store_errors, 1);
        self.again =
            Some(self.core.clock.now() + self.core.config.poll_interval.max(std::time::Duration::from_millis(5)));
    }

    fn count(&self, which: impl Fn(&Counters) -> &std::sync::atomic::AtomicU64, n: u64) {
        self.sub.tally(&self.core).add(which, n);
    }

    async fn claim(&mut self, durable: &Durable) {
        let shards = self.open_shards();
        if shards.open == 0 {
            // Stays dirty: the next settlement makes room. What becomes due before is no reason to wake up.
            self.due = None;
            return;
        }
        let (now, wall) = (self.core.clock.now(), self.core.clock.wall());
        let claim = Claim {
            group: durable.group.clone(),
            consumer: durable.consumer.clone(),
            incarnation: durable.incarnation.clone(),
            now: wall,
            lease: self.group.lease,
            horizon: self.group.backoff.max(),
            max: CLAIM_MAX,
            crashes_max: self.group.max_attempts.max(CRASHES_MIN),
            shards,
        };
        let claims = match self.core.broker.claim(claim).await {
            Ok(claims) => claims,
            Err(BusError::NoGroup { .. }) => {
                // Removed under us: nothing to do until somebody creates it again.
                self.dirty = false;
                self.due = None;
                return;
            }
            Err(e @ BusError::Displaced { .. }) => {
                self.count(|c| &c.displaced, 1);
                self.due = None;
                return self.sub.end_by_itself(e);
            }
            Err(_) => return self.failed(),
        };
        self.dirty = claims.events.len() == CLAIM_MAX;
        if claims.alone {
            self.alone = claims.events.first().map(|e| (e.seq, shards.of(&e.envelope.key, e.is_priority)));
        }
        self.due = claims.next_due.map(|at| now + at.since(wall));
        self.batch += 1;
        self.count(|c| &c.dead_lettered, claims.dead_lettered);
        self.core.counters.evicted.fetch_add(claims.evicted, Relaxed);
        if claims.released > 0 {
            self.core.wake_others(self.sub.id);
        }
        if claims.dead_lettered > 0 {
            self.sub.progress.notify_waiters();
        }
        self.count(|c| &c.redelivered, claims.events.iter().filter(|e| e.attempt > 1).count() as u64);
        let valid_until = now + self.group.lease;
        for claimed in claims.events {
            // The worker of priority topics is the last.
            let worker = shards.of(&claimed.envelope.key, claimed.is_priority).min(self.shards.len() - 1);
            self.held.insert(claimed.seq, Held { attempt: claimed.attempt, worker });
            self.shards[worker].held += 1;
            // A worker only ends with its runner.
            let _ = self.shards[worker].jobs.send(Job { claimed, batch: self.batch, valid_until });
        }
        durable.set_lowest_held(self.held.keys().next().copied());
        durable.held.store(self.held.len(), Relaxed);
    }

    async fn settle(&mut self, durable: &Durable) {
        let ends = self.unsettled.iter().map(|e| Settle { seq: e.seq, attempt: e.attempt, outcome: e.outcome.clone() });
        let wall = self.core.clock.wall();
        let settled = self.core.broker.settle(&durable.group, &durable.incarnation, wall, ends.collect()).await;
        let settled = match settled {
            Ok(settled) => settled,
            // The group is gone, and its events with it.
            Err(BusError::NoGroup { .. }) => crate::broker::Settled::default(),
            // Repeating it is harmless, so it does not matter whether it was stored.
            Err(_) => return self.failed(),
        };
        self.count(|c| &c.leases_lost, settled.lost);
        self.count(|c| &c.evicted, settled.evicted);
        for ended in std::mem::take(&mut self.unsettled) {
            if self.held.get(&ended.seq).is_some_and(|h| h.attempt == ended.attempt)
                && let Some(held) = self.held.remove(&ended.seq)
            {
                self.shards[held.worker].held -= 1;
                self.alone = self.alone.filter(|(seq, _)| *seq != ended.seq);
            }
            if let Some(took) = ended.took {
                self.sub.tally(&self.core).took(took);
            }
            match ended.outcome {
                // Not if it was passed over.
                Outcome::Ack => self.count(|c| &c.processed, u64::from(ended.took.is_some())),
                Outcome::Retry { .. } => self.count(|c| &c.failed, 1),
                Outcome::Dead { .. } => {
                    self.count(|c| &c.failed, 1);
                    self.count(|c| &c.dead_lettered, 1);
                }
                Outcome::Release => {}
            }
        }
        // A settled lane may have a next event.
        self.dirty = true;
        durable.held.store(self.held.len(), Relaxed);
        durable.set_lowest_held(self.held.keys().next().copied());
        self.sub.progress.notify_waiters();
        self.core.wake_peers(&durable.group, self.sub.id);
    }

    async fn extend(&mut self, durable: &Durable) {
        let (now, wall) = (self.core.clock.now(), self.core.clock.wall());
        self.extend_at = now + self.group.lease / 3;
        if self.held.is_empty() {
            return;
        }
        let claims = self.held.iter().map(|(seq, h)| (*seq, h.attempt)).collect();
        let until = wall.saturating_add(self.group.lease);
        match self.core.broker.extend(&durable.group, &durable.incarnation, until, claims).await {
            Ok(()) => {
                durable.set_extended_until(now + self.group.lease);
                self.count(|c| &c.leases_extended, 1);
            }
            Err(_) => self.failed(),
        }
    }
}
