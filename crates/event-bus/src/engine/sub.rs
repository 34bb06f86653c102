//! What the bus, a subscription's tasks and its handle share.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use infra_types::Monotonic;
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, mpsc, watch},
    task::AbortHandle,
};

use super::{core::Core, queue::Queue};
use crate::{
    BusError, Handler, Overflow, Pattern,
    broker::{Claims, HandOver},
    metrics::{Counters, Tally},
};

#[derive(Debug)]
pub(crate) enum Kind {
    Live(Box<Queues>),
    Durable(Durable),
}

/// The queues of a live subscription: one for priority topics, which is worked off beside the other.
#[derive(Debug)]
pub(crate) struct Queues {
    pub(crate) others: Queue,
    pub(crate) priority: Queue,
}

impl Queues {
    pub(crate) fn new(capacity: usize, overflow: Overflow) -> Self {
        Self { others: Queue::new(capacity, overflow), priority: Queue::new(capacity, overflow) }
    }

    pub(crate) fn of(&self, is_priority: bool) -> &Queue {
        if is_priority { &self.priority } else { &self.others }
    }

    pub(crate) fn both(&self) -> [&Queue; 2] {
        [&self.others, &self.priority]
    }
}

#[derive(Debug)]
pub(crate) struct Durable {
    pub(crate) group: Arc<str>,
    pub(crate) consumer: Arc<str>,
    pub(crate) incarnation: Arc<str>,
    /// There may be something to claim.
    pub(crate) wake: Notify,
    /// It may be something with priority.
    pub(crate) is_urgent: AtomicBool,
    /// What the store hands over comes this way.
    pub(crate) hand_over: HandOver,
    /// Claimed and not yet settled.
    pub(crate) held: AtomicUsize,
    /// The first place of those; `u64::MAX` without any.
    lowest_held: AtomicU64,
    /// Until when claims that were extended last hold, in nanoseconds of the bus's monotonic clock.
    extended_until: AtomicU64,
}

impl Durable {
    /// The second is where it takes what is handed over.
    pub(crate) fn new(
        group: Arc<str>,
        consumer: Arc<str>,
        incarnation: Arc<str>,
    ) -> (Self, mpsc::UnboundedReceiver<Claims>) {
        let (hand_over, handed) = HandOver::new();
        let this = Self {
            group,
            consumer,
            incarnation,
            wake: Notify::new(),
            is_urgent: AtomicBool::new(true),
            hand_over,
            held: AtomicUsize::new(0),
            lowest_held: AtomicU64::new(u64::MAX),
            extended_until: AtomicU64::new(0),
        };
        (this, handed)
    }

    /// Something may have come, also with priority.
    pub(crate) fn look(&self) {
        self.is_urgent.store(true, Relaxed);
        self.wake.notify_one();
    }

    pub(crate) fn set_lowest_held(&self, seq: Option<u64>) {
        self.lowest_held.store(seq.unwrap_or(u64::MAX), Relaxed);
    }

    pub(crate) fn extended_until(&self) -> Monotonic {
        Monotonic::from_origin(Duration::from_nanos(self.extended_until.load(Relaxed)))
    }

    pub(crate) fn set_extended_until(&self, until: Monotonic) {
        self.extended_until.store(u64::try_from(until.since_origin().as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }
}

pub(crate) struct Sub {
    pub(crate) id: u64,
    pub(crate) label: String,
    pub(crate) pattern: Pattern,
    pub(crate) kind: Kind,
    pub(crate) counters: Counters,
    pub(crate) handler: Arc<dyn Handler>,
    /// Events that a stop dropped without waiting for their handling.
    pub(crate) given_up: AtomicUsize,
    pub(crate) paused: watch::Sender<bool>,
    pub(crate) stop: watch::Sender<bool>,
    done: watch::Sender<bool>,
    /// Why it ended by itself, if so.
    failure: Mutex<Option<BusError>>,
    /// Something was finished: whoever waits to be drained looks again.
    pub(crate) progress: Notify,
    tasks: Mutex<Vec<AbortHandle>>,
}

impl fmt::Debug for Sub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sub").field("id", &self.id).field("label", &self.label).finish_non_exhaustive()
    }
}

impl Sub {
    pub(crate) fn new(id: u64, label: String, pattern: Pattern, kind: Kind, handler: Arc<dyn Handler>) -> Self {
        Self {
            id,
            label,
            pattern,
            kind,
            counters: Counters::default(),
            handler,
            given_up: AtomicUsize::new(0),
            paused: watch::Sender::new(false),
            stop: watch::Sender::new(false),
            done: watch::Sender::new(false),
            failure: Mutex::default(),
            progress: Notify::new(),
            tasks: Mutex::default(),
        }
    }

    pub(crate) fn tally<'a>(&'a self, core: &'a Core) -> Tally<'a> {
        Tally(&self.counters, &core.counters)
    }

    pub(crate) fn durable(&self) -> Option<&Durable> {
        match &self.kind {
            Kind::Durable(durable) => Some(durable),
            Kind::Live(_) => None,
        }
    }

    pub(crate) fn add_task(&self, task: AbortHandle) {
        self.tasks.lock().push(task);
    }

    /// Takes in nothing more; the tasks end when what runs has ended.
    pub(crate) fn begin_stop(&self) {
        self.stop.send_replace(true);
        if let Kind::Live(queues) = &self.kind {
            queues.both().iter().for_each(|queue| queue.close());
        }
    }

    /// Stops as if it had been asked to, and says why.
    pub(crate) fn end_by_itself(&self, why: BusError) {
        // A subscriber that panics is no reason not to end.
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.handler.ended(&why)));
        *self.failure.lock() = Some(why);
        self.begin_stop();
        self.progress.notify_waiters();
    }

    pub(crate) fn failure(&self) -> Option<BusError> {
        self.failure.lock().clone()
    }

    pub(crate) fn waiting(&self) -> usize {
        match &self.kind {
            Kind::Live(queues) => queues.both().iter().map(|queue| queue.waiting()).sum(),
            Kind::Durable(durable) => durable.held.load(Relaxed),
        }
    }

    pub(crate) fn set_paused(&self, paused: bool) {
        self.paused.send_replace(paused);
        if let Some(durable) = self.durable() {
            durable.look();
        }
    }

    /// Waits until it is neither paused nor about to end.
    pub(crate) async fn unpaused(&self) {
        let (mut paused, mut stop) = (self.paused.subscribe(), self.stop.subscribe());
        tokio::select! {
            _ = paused.wait_for(|paused| !paused) => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
    }

    /// The tasks have ended.
    pub(crate) fn finish(&self) {
        self.done.send_replace(true);
        self.progress.notify_waiters();
    }

    pub(crate) fn is_done(&self) -> bool {
        *self.done.borrow()
    }

    /// Ends the tasks where they await, without settling anything: what a crash does.
    pub(crate) fn abort(&self) {
        self.stop.send_replace(true);
        self.tasks.lock().drain(..).for_each(|task| task.abort());
        if let Kind::Live(queues) = &self.kind {
            queues.both().iter().for_each(|queue| queue.close());
        }
        self.finish();
    }

    /// Stops within `deadline`; how many events had to be given up on.
    pub(crate) async fn stop_by(&self, core: &Core, deadline: Monotonic) -> usize {
        self.begin_stop();
        let mut done = self.done.subscribe();
        tokio::select! {
            biased;
            _ = done.wait_for(|done| *done) => self.given_up.load(Relaxed),
            () = core.clock.sleep_until(deadline) => {
                let unfinished = match &self.kind {
                    Kind::Live(queues) => queues
                        .both()
                        .iter()
                        .map(|queue| {
                            let dropped = queue.discard();
                            self.tally(core).add(|c| &c.dropped, dropped as u64);
                            let (accepted, finished) = queue.progress();
                            dropped + usize::try_from(accepted - finished).unwrap_or(usize::MAX)
                        })
                        .sum(),
                    Kind::Durable(durable) => durable.held.load(Relaxed),
                };
                self.abort();
                unfinished
            }
        }
    }

    /// See [`crate::Subscription::drained`].
    pub(crate) async fn drained(&self, core: &Core) -> Result<(), BusError> {
        let mut through = None;
        let target = match &self.kind {
            Kind::Live(queues) => queues.both().map(|queue| queue.progress().0),
            Kind::Durable(_) => [0, 0],
        };
        loop {
            let progress = self.progress.notified();
            tokio::pin!(progress);
            // Registered before the look, so that nothing that ends in between is missed.
            progress.as_mut().enable();
            match &self.kind {
                Kind::Live(queues) if (0..2).all(|n| queues.both()[n].progress().1 >= target[n]) => return Ok(()),
                Kind::Live(_) => {}
                // While this process handles something that it waits for, asking the store is pointless for all but the target.
                Kind::Durable(d) if through.is_some_and(|through| d.lowest_held.load(Relaxed) <= through) => {}
                Kind::Durable(d) => {
                    let seen = core.broker.progress(&d.group, through).await?;
                    if !seen.is_pending {
                        return Ok(());
                    }
                    through = Some(seen.through);
                }
            }
            if let Some(why) = self.failure() {
                return Err(why);
            }
            if self.is_done() {
                return Err(BusError::Stopped);
            }
            if core.broker.info().shared_between_processes {
                // Another process may be the one that handles it.
                tokio::select! { () = progress => {}, () = core.clock.sleep(core.config.poll_interval) => {} }
            } else {
                progress.await;
            }
        }
    }
}
