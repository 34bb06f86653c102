//! The task of a durable subscription: claims events, deals them to its lane workers, settles how they ended.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use infra_types::{Monotonic, Timestamp};
use tokio::sync::mpsc;

use super::{
    core::Core,
    sub::{Durable, Sub},
    worker::{Ended, Job, Worker},
};
use crate::{
    BusError, SubscribeOptions,
    broker::{Claim, Claims, Outcome, Seq, Settle, Settled, Shards, Turn, Waits},
    metrics::Counters,
    options::GroupOptions,
};

/// Events of one claim at most.
const CLAIM_MAX: usize = 64;
/// Claims that end without an answer before an event becomes a dead letter, however few attempts the subscriber grants: a
/// crash takes innocent neighbours with it once.
const CRASHES_MIN: u32 = 3;
/// How long a consumer's word holds that it waits, unless its lease is short: as long as the dead may be taken for waiting.
const PATIENCE: Duration = Duration::from_millis(500);

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
    /// What the store hands over: once at most for each time that it took the word that this waits.
    handed: mpsc::UnboundedReceiver<Claims>,
    /// When that word was given last, unless what came of it is here.
    waits_since: Option<Monotonic>,
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
    pub(crate) fn spawn(
        core: &Arc<Core>,
        sub: &Arc<Sub>,
        options: &SubscribeOptions,
        group: &GroupOptions,
        handed: mpsc::UnboundedReceiver<Claims>,
    ) {
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
            handed,
            waits_since: None,
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
            if durable.is_urgent.load(Relaxed) {
                self.dirty = true;
            }
            let rests = stopping || *sub.paused.borrow();
            if rests && self.waits_since.take().is_some() {
                // If this fails, what was handed over comes back when its lease ends.
                let _ = core.broker.withdraw(&durable.group, &durable.incarnation).await;
            }
            while let Ok(claims) = self.handed.try_recv() {
                self.take(durable, claims);
            }
            if self.dirty && !rests && self.again.is_none() {
                self.step(durable).await;
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
                        self.step(durable).await;
                    }
                }
                Some(claims) = self.handed.recv() => self.take(durable, claims),
                () = durable.wake.notified() => self.dirty = true,
                _ = stop.changed() => {}
                () = sleep => {
                    self.dirty = true;
                    durable.is_urgent.store(true, Relaxed);
                    if self.again.take().is_some() && !self.unsettled.is_empty() {
                        self.step(durable).await;
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

    /// What ended, as far as it is still held.
    fn freed(&self) -> impl Iterator<Item = (&Ended, &Held)> {
        let ended = self.unsettled.iter();
        ended.filter_map(|e| self.held.get(&e.seq).filter(|h| h.attempt == e.attempt).map(|h| (e, h)))
    }

    /// Those that hold nothing once what ended is settled: so at most `CLAIM_MAX` wait behind a slow handler, and later ones are free for
    /// other consumers.
    fn open_shards(&self) -> Shards {
        let mut held: Vec<_> = self.shards.iter().map(|shard| shard.held).collect();
        let mut alone = self.alone;
        for (ended, of) in self.freed() {
            held[of.worker] -= 1;
            alone = alone.filter(|(seq, _)| *seq != ended.seq);
        }
        let open = held.iter().enumerate().filter(|(_, held)| **held == 0).map(|(n, _)| 1 << self.shard_of(n));
        let allowed = match alone {
            // A halt does not wait for an event that may be killing its consumers.
            Some((_, shard)) if shard != Shards::PRIORITY => 1 << Shards::PRIORITY,
            Some(_) => 0,
            None => u64::MAX,
        };
        Shards { count: self.group.concurrency, open: open.sum::<u64>() & allowed }
    }

    /// The store failed: look again in a moment.
    fn failed(&mut self, durable: &Durable) {
        (self.dirty, self.waits_since) = (true, None);
        durable.is_urgent.store(true, Relaxed);
        // What becomes due meanwhile is found then.
        self.due = None;
        self.count(|c| &c.store_errors, 1);
        self.again = Some(self.core.clock.now() + self.core.config.poll_interval.max(Duration::from_millis(5)));
    }

    fn count(&self, which: impl Fn(&Counters) -> &std::sync::atomic::AtomicU64, n: u64) {
        self.sub.tally(&self.core).add(which, n);
    }

    /// Settles what ended, and claims what there is room for, in one step if both are to be done.
    async fn step(&mut self, durable: &Durable) {
        let rests = *self.sub.stop.borrow() || *self.sub.paused.borrow();
        let shards = self.open_shards();
        // Of the priority lane alone nothing is asked for without a reason.
        let is_urgent = durable.is_urgent.load(Relaxed) || shards.open != 1 << Shards::PRIORITY;
        // A settled lane may have a next event.
        let claims = !rests && shards.open != 0 && is_urgent && (self.dirty || !self.unsettled.is_empty());
        if shards.open == 0 {
            // Stays dirty: the next settlement makes room. What becomes due before is no reason to wake up.
            self.due = None;
        }
        if !claims {
            if self.unsettled.is_empty() {
                // The next settlement looks in any case.
                self.dirty = self.held.is_empty();
                return;
            }
            return self.settle(durable).await;
        }
        if self.waits_since.is_some() {
            // What was handed over comes before what a claim would get.
            self.core.broker.recall(&durable.incarnation);
            if let Ok(claims) = self.handed.try_recv() {
                return self.take(durable, claims);
            }
        }
        durable.is_urgent.store(false, Relaxed);
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
        let holds_nothing = self.freed().count() == self.held.len();
        let patience = PATIENCE.min(self.group.lease / 4);
        let waits = holds_nothing.then(|| Waits { patience, to: durable.hand_over.clone() });
        let turn = Turn { ends: self.ends(), claim, waits };
        self.waits_since = None;
        let turned = match self.core.broker.turn(turn).await {
            Ok(turned) => turned,
            Err(BusError::NoGroup { .. }) => {
                // Removed under us, and its events with it: nothing to do until somebody creates it again.
                if !self.unsettled.is_empty() {
                    self.settled(durable, Settled::default());
                }
                self.dirty = false;
                self.due = None;
                return;
            }
            // Repeating it is harmless, so it does not matter whether it was stored.
            Err(_) => return self.failed(durable),
        };
        if !self.unsettled.is_empty() {
            self.settled(durable, turned.settled);
        }
        self.waits_since = turned.is_waiting.then_some(now);
        match turned.claims {
            Ok(claims) => self.took(durable, claims, shards, (now, wall)),
            Err(BusError::NoGroup { .. }) => {
                self.dirty = false;
                self.due = None;
            }
            Err(e @ BusError::Displaced { .. }) => self.displaced(e),
            Err(_) => self.failed(durable),
        }
    }

    /// Another run has this consumer's name.
    fn displaced(&mut self, why: BusError) {
        self.count(|c| &c.displaced, 1);
        self.due = None;
        self.sub.end_by_itself(why);
    }

    /// What a claim got that was made at a moment: as the clock of the machine and as that of the wall told it.
    fn took(&mut self, durable: &Durable, claims: Claims, shards: Shards, (now, wall): (Monotonic, Timestamp)) {
        self.dirty = claims.events.len() == CLAIM_MAX;
        let last = claims.events.iter().filter(|e| !e.is_priority).map(|e| e.seq).max();
        durable.hand_over.reached(last.unwrap_or(0));
        if claims.alone {
            self.alone = claims.events.first().map(|e| (e.seq, shards.of(&e.envelope.key, e.is_priority)));
        }
        self.due = claims.next_due.map(|at| now + at.since(wall));
        self.count(|c| &c.dead_lettered, claims.dead_lettered);
        self.core.counters.evicted.fetch_add(claims.evicted, Relaxed);
        if claims.released > 0 {
            self.core.wake_others(self.sub.id);
        }
        if claims.dead_lettered > 0 {
            self.sub.progress.notify_waiters();
        }
        self.count(|c| &c.redelivered, claims.events.iter().filter(|e| e.attempt > 1).count() as u64);
        self.deal(durable, claims, shards, now + self.group.lease);
    }

    /// What was handed over. Its lease began after the word was given, or a quarter of it before the word was repeated.
    fn take(&mut self, durable: &Durable, claims: Claims) {
        let since = self.waits_since.take().unwrap_or_else(|| self.core.clock.now());
        let shards = Shards { count: self.group.concurrency, open: u64::MAX };
        self.deal(durable, claims, shards, since + self.group.lease * 3 / 4);
    }

    fn deal(&mut self, durable: &Durable, claims: Claims, shards: Shards, valid_until: Monotonic) {
        self.batch += 1;
        for claimed in claims.events {
            // The worker of priority topics is the last.
            let worker = shards.of(&claimed.envelope.key, claimed.is_priority).min(self.shards.len() - 1);
            self.held.insert(claimed.seq, Held { attempt: claimed.attempt, worker });
            self.shards[worker].held += 1;
            // A worker only ends with its runner.
            let _ = self.shards[worker].jobs.send(Job { claimed, batch: self.batch, valid_until });
        }
        self.show_held(durable);
    }

    fn show_held(&self, durable: &Durable) {
        durable.held.store(self.held.len(), Relaxed);
        durable.set_lowest_held(self.held.keys().next().copied());
    }

    fn ends(&self) -> Vec<Settle> {
        let end = |e: &Ended| Settle { seq: e.seq, attempt: e.attempt, outcome: e.outcome.clone() };
        self.unsettled.iter().map(end).collect()
    }

    async fn settle(&mut self, durable: &Durable) {
        let wall = self.core.clock.wall();
        let settled = self.core.broker.settle(&durable.group, &durable.incarnation, wall, self.ends()).await;
        match settled {
            Ok(settled) => self.settled(durable, settled),
            // The group is gone, and its events with it.
            Err(BusError::NoGroup { .. }) => self.settled(durable, Settled::default()),
            // Repeating it is harmless, so it does not matter whether it was stored.
            Err(_) => self.failed(durable),
        }
        self.dirty = true;
    }

    fn settled(&mut self, durable: &Durable, settled: Settled) {
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
        self.show_held(durable);
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
            Err(_) => self.failed(durable),
        }
    }
}
