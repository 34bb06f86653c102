//! Canceling what works when trading is halted.

mod report;
mod venue;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use infra_state_store::{Batch, Key, Op, Scan, Ttl, When};
use infra_types::{Backoff, Jitter, OrderId, Scope, Timestamp, Venue};
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, Semaphore, watch},
    task::{JoinHandle, JoinSet},
};

pub use self::report::{HaltReport, VenueReport, VenueStatus};
use self::venue::VenueRun;
use crate::{
    controller::EmergencyController,
    error::EmergencyError,
    notify::SubscriptionId,
    state::{EmergencyState, Snapshot},
};

/// Finished reports that the store keeps of one bot.
const REPORTS_MAX: u32 = 200;

/// What one call of [`CancelOrders::cancel_all`] came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CancelProgress {
    /// How many orders this call canceled.
    pub canceled: u64,
    /// Which orders are open still. Empty: the venue is done with.
    pub open: Vec<OrderId>,
}

/// Why a venue did not cancel, in words; it is asked again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CancelFailed(pub String);

/// Cancels working orders; the user's.
#[async_trait::async_trait]
pub trait CancelOrders: Send + Sync + 'static {
    /// The venues where orders may work.
    fn venues(&self) -> Vec<Venue>;

    /// Cancels every order at `venue` that lies in `scope`, and answers what is open afterwards **by the venue's own word**. It is
    /// repeated, so it must be idempotent; it must not be gated or throttled.
    ///
    /// # Errors
    /// Whatever kept it from knowing that nothing is open; it is called again until the venue's deadline.
    ///
    /// # Cancel safety
    /// It is dropped where it awaits at the deadline and when the scope is re-armed.
    async fn cancel_all(&self, venue: &Venue, scope: &Scope) -> Result<CancelProgress, CancelFailed>;
}

/// How a [`HaltProcedure`] waits and gives up.
#[derive(Debug, Clone, PartialEq)]
pub struct ProcedureConfig {
    /// How long one venue may take with all its attempts. Default 30 s.
    pub deadline: Duration,
    /// How long one attempt may take. Default 5 s.
    pub attempt_timeout: Duration,
    /// How long to wait between attempts. Default 50 ms, doubling, to 2 s.
    pub backoff: Backoff,
    /// How many venues are worked at, at the same time, in all procedures of this process. Default 32: with no fewer places than
    /// venues no venue waits for another one.
    pub parallel_max: usize,
}

impl Default for ProcedureConfig {
    fn default() -> Self {
        let ms = Duration::from_millis;
        Self {
            deadline: Duration::from_secs(30),
            attempt_timeout: Duration::from_secs(5),
            backoff: Backoff::new(ms(50), ms(2_000), 2, Jitter::Equal).unwrap_or_default(),
            parallel_max: 32,
        }
    }
}

/// Which stop.
type StopId = (Scope, EmergencyState, String, Timestamp);

fn id_of(stop: &Snapshot) -> StopId {
    (stop.scope.clone(), stop.state, stop.by.clone(), stop.at)
}

/// Cancels this bot's orders whenever a scope is halted or shut down, venue by venue, and writes down what came of it.
///
/// It begins when the stop holds in this process, before the store has it. It frees no reservation: what may still be live still
/// counts. Each bot runs its own, for its own orders.
pub struct HaltProcedure {
    switch: Arc<EmergencyController>,
    orders: Arc<dyn CancelOrders>,
    config: ProcedureConfig,
    places: Arc<Semaphore>,
    /// Stops whose procedure runs.
    running: Mutex<BTreeSet<StopId>>,
    /// Of each scope the stop whose procedure ended last in this process.
    ended: Mutex<BTreeMap<Scope, StopId>>,
    progress: watch::Sender<Option<HaltReport>>,
    /// Makes the jitter differ; nothing depends on its quality.
    dice: AtomicU64,
}

impl std::fmt::Debug for HaltProcedure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HaltProcedure")
            .field("bot", self.switch.id())
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl HaltProcedure {
    /// A procedure for the orders of the controller's bot. It runs when told to, or once it is [attached](Self::attach).
    ///
    /// # Errors
    /// `Invalid` if a time or the number of places is zero.
    pub fn new(
        switch: Arc<EmergencyController>,
        orders: Arc<dyn CancelOrders>,
        config: ProcedureConfig,
    ) -> Result<Self, EmergencyError> {
        if config.deadline.is_zero() || config.attempt_timeout.is_zero() || config.parallel_max == 0 {
            return Err(EmergencyError::invalid(
                "a procedure needs a deadline, an attempt's time and places above zero",
            ));
        }
        Ok(Self {
            places: Arc::new(Semaphore::new(config.parallel_max.min(Semaphore::MAX_PERMITS))),
            switch,
            orders,
            config,
            running: Mutex::default(),
            ended: Mutex::default(),
            progress: watch::Sender::new(None),
            dice: AtomicU64::new(0x9e37_79b9_7f4a_7c15),
        })
    }

    /// The newest news of any procedure of this process: each change of each venue.
    #[must_use]
    pub fn progress(&self) -> watch::Receiver<Option<HaltReport>> {
        self.progress.subscribe()
    }

    /// Runs the procedure for one stop now, whatever was done before. Answers the report; whether it could be written is in it.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    ///
    /// # Cancel safety
    /// Dropping the future ends the attempts; [`catch_up`](Self::catch_up) resumes.
    pub async fn run(&self, stop: &Snapshot) -> HaltReport {
        self.resume(stop, None).await
    }

    /// Passes over the venues that `before` calls done.
    async fn resume(&self, stop: &Snapshot, before: Option<HaltReport>) -> HaltReport {
        let touched = self.touched(&stop.scope);
        let mut report = HaltReport::new(self.switch.id().clone(), stop, self.switch.clock.wall(), touched);
        if let Some(before) = before {
            report.began = before.began;
            report.venues.extend(before.venues.into_iter().filter(|(_, v)| v.status == VenueStatus::Canceled));
        }
        let (sender, mut news) = tokio::sync::mpsc::channel(16);
        let mut at_work = JoinSet::new();
        for (venue, was) in report.venues.iter().filter(|(_, v)| !v.is_over()) {
            let run = VenueRun {
                switch: Arc::clone(&self.switch),
                orders: Arc::clone(&self.orders),
                config: self.config.clone(),
                places: Arc::clone(&self.places),
                scope: stop.scope.clone(),
                venue: venue.clone(),
                report: was.clone(),
                news: sender.clone(),
                dice: self.dice.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed),
            };
            at_work.spawn(run.run());
        }
        drop(sender);
        // Not before the canceling began: a store that is slow to answer must not delay it.
        self.write(&mut report).await;
        while let Some((venue, now)) = news.recv().await {
            let is_over = now.is_over();
            report.venues.insert(venue, now);
            self.progress.send_replace(Some(report.clone()));
            if is_over && report.venues.values().any(|v| !v.is_over()) {
                self.write(&mut report).await;
            }
        }
        report.ended = Some(self.switch.clock.wall());
        self.ended.lock().insert(stop.scope.clone(), id_of(stop));
        self.write(&mut report).await;
        self.progress.send_replace(Some(report.clone()));
        self.forget().await;
        report
    }

    /// Runs the procedures of all stops in force that have no finished report, as after a crash. A venue that was given up is not
    /// tried again by this: [`run`](Self::run) does it.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    ///
    /// # Cancel safety
    /// Dropping the future ends the attempts; the next call resumes.
    pub async fn catch_up(self: &Arc<Self>) -> Vec<HaltReport> {
        let mut at_work = JoinSet::new();
        for (stop, running) in self.due() {
            let procedure = Arc::clone(self);
            at_work.spawn(async move {
                let _running = running;
                procedure.finish(&stop).await
            });
        }
        let mut reports = Vec::new();
        while let Some(ended) = at_work.join_next().await {
            reports.extend(ended.ok().flatten());
        }
        reports
    }

    /// Runs whenever a scope reaches HALT or SHUTDOWN in this process, and at once for stops that are in force and not dealt with,
    /// until the guard is dropped.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn attach(self: &Arc<Self>) -> ProcedureGuard {
        let notify = Arc::new(Notify::new());
        let wake = Arc::clone(&notify);
        let subscription = self.switch.subscribe(move |_| wake.notify_one());
        let procedure = Arc::clone(self);
        let task = tokio::spawn(async move {
            // Dropped with this task, and with it what is under way.
            let mut at_work = JoinSet::new();
            let mut is_first = true;
            loop {
                for (stop, running) in procedure.due() {
                    let procedure = Arc::clone(&procedure);
                    at_work.spawn(async move {
                        let _running = running;
                        // Only what was in force before may have been dealt with before, and the store is asked about that.
                        if is_first { procedure.finish(&stop).await } else { Some(procedure.run(&stop).await) }
                    });
                }
                is_first = false;
                while at_work.try_join_next().is_some() {}
                notify.notified().await;
            }
        });
        ProcedureGuard { switch: Arc::clone(&self.switch), subscription, task }
    }

    /// The newest finished reports of this bot, the newest first, at most 200.
    ///
    /// # Errors
    /// `Store`.
    ///
    /// # Cancel safety
    /// Reads change nothing.
    pub async fn reports(&self, limit: usize) -> Result<Vec<HaltReport>, EmergencyError> {
        let limit = limit.clamp(1, REPORTS_MAX as usize);
        let range = infra_state_store::ListRange::newest(limit);
        let page = self.switch.store.list_range(&self.switch.namespace, &self.list()?, range).await?;
        let recorded = |report: HaltReport| HaltReport { is_recorded: true, ..report };
        Ok(page.values.iter().filter_map(|line| serde_json::from_slice(line).ok()).map(recorded).collect())
    }

    /// Runs the procedure for what an earlier process left; none if it left nothing.
    async fn finish(&self, stop: &Snapshot) -> Option<HaltReport> {
        // A store that does not answer must not keep anything from being canceled.
        let before = self.stored(&stop.scope).await.ok().flatten().filter(|report| report.is_of(stop));
        if before.as_ref().is_some_and(|report| report.ended.is_some()) {
            self.ended.lock().insert(stop.scope.clone(), id_of(stop));
            return None;
        }
        Some(self.resume(stop, before).await)
    }

    /// The stops in force that this process has not dealt with; each is marked as running.
    fn due(self: &Arc<Self>) -> Vec<(Snapshot, Running)> {
        let stopped: Vec<Snapshot> =
            self.switch.view.stops().into_iter().filter(|s| s.state >= EmergencyState::Halt).collect();
        self.ended.lock().retain(|scope, _| stopped.iter().any(|s| s.scope == *scope));
        let mut due = Vec::new();
        for stop in stopped {
            let id = id_of(&stop);
            if self.ended.lock().get(&stop.scope) != Some(&id) && self.running.lock().insert(id.clone()) {
                due.push((stop, Running { of: Arc::clone(self), id }));
            }
        }
        due
    }

    /// Takes the finished reports of scopes that are stopped no more out of the way, so that they do not pile up.
    async fn forget(&self) {
        let Ok(prefix) = self.prefix() else { return };
        let stopped: BTreeSet<Scope> = self.switch.snapshots().into_iter().map(|s| s.scope).collect();
        let mut scan = Scan::new(prefix);
        while let Ok(page) = self.switch.store.scan(&self.switch.namespace, scan.clone()).await {
            let mut batch = Batch::new(self.switch.namespace.clone());
            for (key, entry) in &page.entries {
                let report = entry.value.as_bytes().and_then(|b| serde_json::from_slice::<HaltReport>(b).ok());
                let Some((report, version)) = report.zip(entry.version) else { continue };
                if report.ended.is_some() && !stopped.contains(&report.scope) {
                    batch = batch.with(Op::Delete { key: key.clone(), when: When::Version(version) });
                }
            }
            // If not now, then after the next procedure.
            if !batch.ops.is_empty() && self.switch.store.apply(batch).await.is_err() {
                return;
            }
            let Some(next) = page.next else { return };
            scan.after = Some(next);
        }
    }

    /// The venues that a stop of this scope touches.
    fn touched(&self, scope: &Scope) -> Vec<Venue> {
        let only = match scope {
            Scope::Venue(venue) => Some(venue),
            Scope::Instrument(instrument) => Some(&instrument.venue),
            _ => None,
        };
        let mut venues = self.orders.venues();
        venues.retain(|venue| only.is_none_or(|only| venue == only));
        venues
    }

    fn prefix(&self) -> Result<String, EmergencyError> {
        Ok(format!("emergency/procedure/{}/", self.switch.id()))
    }

    fn list(&self) -> Result<Key, EmergencyError> {
        Ok(Key::list(format!("emergency/procedures/{}", self.switch.id()))?)
    }

    async fn stored(&self, scope: &Scope) -> Result<Option<HaltReport>, EmergencyError> {
        let key = Key::record(format!("{}{scope}", self.prefix()?))?;
        let entry = self.switch.store.get(&self.switch.namespace, &key).await?;
        let read = |bytes: &[u8]| serde_json::from_slice::<HaltReport>(bytes).ok();
        Ok(entry.and_then(|e| read(e.value.as_bytes()?)).filter(|report| report.schema == report::SCHEMA))
    }

    async fn write(&self, report: &mut HaltReport) {
        report.is_recorded = self.try_write(report).await.is_ok();
    }

    async fn try_write(&self, report: &HaltReport) -> Result<(), EmergencyError> {
        let json = serde_json::to_vec(report).map_err(|e| EmergencyError::invalid(e.to_string()))?;
        let key = Key::record(format!("{}{}", self.prefix()?, report.scope))?;
        let mut batch = Batch::new(self.switch.namespace.clone()).set(key, json.clone());
        if report.ended.is_some() {
            let (list, value) = (self.list()?, json.into());
            batch = batch.with(Op::Push { list, value, cap: REPORTS_MAX, ttl: Ttl::Never });
        }
        self.switch.store.apply(batch).await?;
        Ok(())
    }
}

/// A stop whose procedure runs.
struct Running {
    of: Arc<HaltProcedure>,
    id: StopId,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.of.running.lock().remove(&self.id);
    }
}

/// Ends the watching, and the attempts that are under way, when dropped.
#[must_use = "dropping it ends the procedure"]
pub struct ProcedureGuard {
    switch: Arc<EmergencyController>,
    subscription: SubscriptionId,
    task: JoinHandle<()>,
}

impl std::fmt::Debug for ProcedureGuard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProcedureGuard").field("bot", self.switch.id()).finish_non_exhaustive()
    }
}

impl Drop for ProcedureGuard {
    fn drop(&mut self) {
        self.switch.unsubscribe(self.subscription);
        self.task.abort();
    }
}
