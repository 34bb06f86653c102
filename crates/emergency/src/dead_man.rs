//! Watching bots, and acting once when one falls silent.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use infra_state_store::{Applied, Batch, Key, Op, Scan, StoreError, Version, When};
use infra_types::{BotId, EventId};
use parking_lot::Mutex;
use tokio::task::{JoinHandle, JoinSet};

use crate::{
    controller::EmergencyController,
    error::EmergencyError,
    heartbeat::{BOTS, BotDeath, BotLife, BotRecord, DeathOutcome, keys},
    stop::Stop,
};

/// How a [`DeadMan`] watches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadManConfig {
    /// How often it looks at all bots. Default 1 s. A dead bot is found its time to live plus this after its last beat.
    pub interval: Duration,
    /// How long the claim on a dead bot lasts, prolonged while its callback runs: after a watcher's own death another one takes over
    /// this much later. Default 30 s.
    pub claim: Duration,
    /// How often the callback is begun for one death before it is given up. Default 10.
    pub attempts_max: u32,
}

impl Default for DeadManConfig {
    fn default() -> Self {
        Self { interval: Duration::from_secs(1), claim: Duration::from_secs(30), attempts_max: 10 }
    }
}

/// What to do for a bot that died, after its scopes were halted: cancel its orders, mark its reservations.
///
/// It runs in one watcher at a time, and to its end once: again only if it failed, or if its watcher died before the result was
/// written. So it must be idempotent.
#[async_trait::async_trait]
pub trait OnDeath: Send + Sync {
    /// Does it; answers what was done, in words for the record.
    ///
    /// # Errors
    /// Why not, in words; it is called again.
    ///
    /// # Cancel safety
    /// It is dropped where it awaits if its watcher loses the claim.
    async fn dead(&self, death: &BotDeath) -> Result<String, String>;
}

/// A bot that seems to be dead, or whose death was not dealt with.
struct Suspect {
    record: BotRecord,
    version: Version,
    lease: Key,
    key: Key,
}

/// Watches every bot with a [`Heartbeat`](crate::Heartbeat) in the controller's store. Any number may watch; a compare-and-swap, and the dead bot's own
/// lease, make sure that one acts.
pub struct DeadMan {
    switch: Arc<EmergencyController>,
    on_death: Arc<dyn OnDeath>,
    config: DeadManConfig,
    /// Unique to this watcher.
    run: String,
    /// Bots that this watcher is at.
    busy: Mutex<BTreeSet<BotId>>,
}

impl std::fmt::Debug for DeadMan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeadMan").field("run", &self.run).field("config", &self.config).finish_non_exhaustive()
    }
}

impl DeadMan {
    /// A watcher in the controller's name. It does not watch yet.
    ///
    /// # Errors
    /// `Invalid` if a time or the number of attempts is zero.
    pub fn new(
        switch: Arc<EmergencyController>,
        on_death: Arc<dyn OnDeath>,
        config: DeadManConfig,
    ) -> Result<Self, EmergencyError> {
        if config.interval.is_zero() || config.claim < Duration::from_millis(3) || config.attempts_max == 0 {
            return Err(EmergencyError::invalid("a watcher needs an interval, a claim and attempts above zero"));
        }
        let run = format!("watcher/{}/{}", switch.id(), EventId::generate());
        Ok(Self { switch, on_death, config, run, busy: Mutex::default() })
    }

    /// Looks once, deals with every bot that is dead, and answers those that this watcher dealt with.
    ///
    /// # Errors
    /// `Store` if the bots could not be read.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    ///
    /// # Cancel safety
    /// What was begun goes on with the next watcher once the claim has ended.
    pub async fn check(self: &Arc<Self>) -> Result<Vec<BotDeath>, EmergencyError> {
        let mut at_work = JoinSet::new();
        for suspect in self.suspects().await? {
            let watcher = Arc::clone(self);
            at_work.spawn(async move { watcher.bury(suspect).await });
        }
        let mut deaths = Vec::new();
        while let Some(ended) = at_work.join_next().await {
            deaths.extend(ended.ok().flatten());
        }
        Ok(deaths)
    }

    /// Looks every interval until the guard is dropped. A slow callback holds up no other bot's.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn spawn(self: &Arc<Self>) -> DeadManGuard {
        let watcher = Arc::clone(self);
        DeadManGuard(tokio::spawn(async move {
            // Dropped with this task, and with it what is under way.
            let mut at_work = JoinSet::new();
            loop {
                // A store that does not answer is asked again; nobody beats then either.
                for suspect in watcher.suspects().await.unwrap_or_default() {
                    let watcher = Arc::clone(&watcher);
                    at_work.spawn(async move { watcher.bury(suspect).await });
                }
                while at_work.try_join_next().is_some() {}
                watcher.switch.clock.sleep(watcher.config.interval).await;
            }
        }))
    }

    async fn suspects(&self) -> Result<Vec<Suspect>, EmergencyError> {
        let mut suspects = Vec::new();
        let mut scan = Scan::new(BOTS);
        loop {
            let page = self.switch.store.scan(&self.switch.namespace, scan.clone()).await?;
            let mut records = Vec::new();
            for (key, entry) in page.entries {
                let Some((record, version)) = BotRecord::read(&entry).zip(entry.version) else { continue };
                let is_pending = record.death.as_ref().is_some_and(|d| d.outcome == DeathOutcome::Pending);
                if record.life == BotLife::Alive || (record.life == BotLife::Dead && is_pending) {
                    let (lease, _) = keys(&record.bot)?;
                    records.push(Suspect { record, version, lease, key });
                }
            }
            // Read after the records: a bot that said goodbye or came back in between has another record by now.
            let leases: Vec<Key> = records.iter().map(|s| s.lease.clone()).collect();
            let held = self.switch.store.get_many(&self.switch.namespace, &leases).await?;
            for (suspect, held) in records.into_iter().zip(held) {
                let holder = held.as_ref().and_then(|entry| entry.value.as_bytes());
                let is_free = holder.is_none();
                // This watcher's own, whose work was cut short or whose claim was answered by nobody.
                let is_ours = holder.is_some_and(|h| h.as_ref() == self.run.as_bytes());
                if (is_free || is_ours) && !self.busy.lock().contains(&suspect.record.bot) {
                    suspects.push(suspect);
                }
            }
            match page.next {
                Some(next) => scan.after = Some(next),
                None => return Ok(suspects),
            }
        }
    }

    /// Deals with one death; none if another one does, or if the bot lives after all.
    async fn bury(&self, suspect: Suspect) -> Option<BotDeath> {
        let bot = suspect.record.bot.clone();
        if !self.busy.lock().insert(bot.clone()) {
            return None;
        }
        let _busy = Busy { of: &self.busy, bot };
        let (fence, mut suspect, mut death) = self.claim(suspect).await.ok()??;
        let mut problems = Vec::new();
        for scope in &death.halts {
            let reason = format!("{} sent no heartbeat for {} ms", death.bot, suspect.record.ttl_ms);
            let stop = Stop::halt("dead-man", &reason).automatic().in_scope(scope.clone());
            if let Err(e) = self.switch.stop(stop).await {
                problems.push(e.to_string());
            }
        }
        let done = self.call(&suspect.lease, fence, &death).await?;
        let detail = done.unwrap_or_else(|problem| {
            problems.push(problem);
            String::new()
        });
        death.outcome = match problems.is_empty() {
            true => DeathOutcome::Done(detail),
            false if death.attempts >= self.config.attempts_max => DeathOutcome::Failed(problems.join("; ")),
            false => DeathOutcome::Pending,
        };
        suspect.record.death = Some(death.clone());
        let batch = Batch::new(self.switch.namespace.clone())
            .with(Op::ReleaseLease { key: suspect.lease, fence })
            .with(suspect.record.set(&suspect.key, When::Version(suspect.version)).ok()?);
        // What is not written is found pending by the next look.
        self.switch.store.apply(batch).await.ok()?;
        Some(death)
    }

    /// Takes the dead bot's lease, which fences the bot if it lives after all, and writes the death down.
    async fn claim(&self, mut suspect: Suspect) -> Result<Option<(u64, Suspect, BotDeath)>, EmergencyError> {
        let record = &mut suspect.record;
        let pending = record.death.take().filter(|d| d.run == record.run && d.outcome == DeathOutcome::Pending);
        let death = BotDeath {
            bot: record.bot.clone(),
            run: record.run.clone(),
            at: pending.as_ref().map_or_else(|| self.switch.clock.wall(), |d| d.at),
            halts: record.halts.clone(),
            watcher: self.switch.id().clone(),
            attempts: pending.map_or(0, |d| d.attempts) + 1,
            outcome: DeathOutcome::Pending,
        };
        record.life = BotLife::Dead;
        record.death = Some(death.clone());
        let (key, holder, ttl) = (suspect.lease.clone(), self.run.clone(), self.config.claim);
        let batch = Batch::new(self.switch.namespace.clone())
            .with(Op::AcquireLease { key, holder, ttl })
            .with(record.set(&suspect.key, When::Version(suspect.version))?);
        match self.switch.store.apply(batch).await {
            Ok(applied) => match applied[..] {
                [Applied::Lease(ref grant), Applied::Version(version)] => {
                    Ok(Some((grant.fence, Suspect { version, ..suspect }, death)))
                }
                _ => Ok(None),
            },
            Err(StoreError::LeaseHeld { .. } | StoreError::Mismatch { .. }) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// Runs the callback while the claim is prolonged; none if the claim was lost.
    async fn call(&self, lease: &Key, fence: u64, death: &BotDeath) -> Option<Result<String, String>> {
        let (on_death, of) = (Arc::clone(&self.on_death), death.clone());
        // A task of its own, so that its panic is its own.
        let mut callback = JoinSet::new();
        callback.spawn(async move { on_death.dead(&of).await });
        let prolong = async {
            loop {
                self.switch.clock.sleep(self.config.claim / 3).await;
                let (key, holder, ttl) = (lease.clone(), self.run.clone(), self.config.claim);
                let batch = Batch::new(self.switch.namespace.clone()).with(Op::RenewLease { key, holder, fence, ttl });
                if let Err(StoreError::Fenced { .. }) = self.switch.store.apply(batch).await {
                    return;
                }
            }
        };
        tokio::select! {
            ended = callback.join_next() => match ended {
                Some(Ok(result)) => Some(result),
                _ => Some(Err("the callback panicked".into())),
            },
            () = prolong => None,
        }
    }
}

struct Busy<'a> {
    of: &'a Mutex<BTreeSet<BotId>>,
    bot: BotId,
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.of.lock().remove(&self.bot);
    }
}

/// Ends the watching when dropped.
#[derive(Debug)]
#[must_use = "dropping it ends the watching"]
pub struct DeadManGuard(JoinHandle<()>);

impl Drop for DeadManGuard {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl EmergencyController {
    /// Every bot that ever had a heartbeat in this store, at most 10,000.
    ///
    /// # Errors
    /// `Store`.
    ///
    /// # Cancel safety
    /// Reads change nothing.
    pub async fn bots(&self) -> Result<Vec<BotRecord>, EmergencyError> {
        let mut bots = Vec::new();
        let mut scan = Scan::new(BOTS);
        loop {
            let page = self.store.scan(&self.namespace, scan.clone()).await?;
            bots.extend(page.entries.iter().filter_map(|(_, entry)| BotRecord::read(entry)));
            match page.next {
                Some(next) if bots.len() < 10_000 => scan.after = Some(next),
                _ => return Ok(bots),
            }
        }
    }
}
