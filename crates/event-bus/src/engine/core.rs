//! What all tasks of a bus share, and the way of an event to its subscriptions.

use std::sync::{
    Arc,
    atomic::{
        AtomicBool, AtomicU64,
        Ordering::{Relaxed, SeqCst},
    },
};

use infra_types::Clock;
use parking_lot::{Mutex, RwLock};
use tokio::task::AbortHandle;

use super::{
    queue::Pushed,
    sub::{Kind, Sub},
};
use crate::{
    BusConfig, BusError, Gap,
    broker::{Append, Broker, Listener, Seq, Signal},
    metrics::Counters,
    options::Overflow,
};

#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) broker: Arc<dyn Broker>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) config: BusConfig,
    pub(crate) counters: Counters,
    pub(crate) subs: RwLock<Vec<Arc<Sub>>>,
    pub(crate) closed: AtomicBool,
    pub(crate) next_id: AtomicU64,
    /// The task that hears other processes.
    pub(crate) listening: Mutex<Option<AbortHandle>>,
}

impl Core {
    pub(crate) fn check_open(&self) -> Result<(), BusError> {
        if self.closed.load(SeqCst) { Err(BusError::Closed) } else { Ok(()) }
    }

    /// Hands an event to the live subscriptions that want it; answers the label of one that refused by policy `Error`.
    ///
    /// Those that may block come last, so that a slow one keeps the event from nobody.
    pub(crate) async fn broadcast(&self, event: &Append) -> Option<String> {
        let mut refused = None;
        let mut blocked = Vec::new();
        let envelope = &event.envelope;
        for sub in self.subs.read().iter().filter(|sub| sub.pattern.matches(&envelope.topic)) {
            let Kind::Live(queues) = &sub.kind else { continue };
            let queue = queues.of(event.is_priority);
            let tally = sub.tally(self);
            match queue.push(envelope) {
                Pushed::Queued => {}
                Pushed::Full => {
                    blocked.push(sub.clone());
                    continue;
                }
                Pushed::Replaced => {
                    tally.add(|c| &c.conflated, 1);
                    sub.progress.notify_waiters();
                }
                Pushed::DroppedOldest => {
                    tally.add(|c| &c.dropped, 1);
                    sub.progress.notify_waiters();
                }
                Pushed::Dropped | Pushed::Closed => {
                    tally.add(|c| &c.dropped, 1);
                    if queue.overflow == Overflow::Error {
                        refused = Some(sub.label.clone());
                    }
                    continue;
                }
            }
            sub.counters.published.fetch_add(1, Relaxed);
        }
        // At the same time, so that one that hangs keeps the event from none of the others either.
        let waits = blocked.into_iter().map(|sub| async move {
            let Kind::Live(queues) = &sub.kind else { return };
            if queues.of(event.is_priority).push_blocking(envelope).await {
                sub.counters.published.fetch_add(1, Relaxed);
            } else {
                sub.tally(self).add(|c| &c.dropped, 1);
            }
        });
        futures::future::join_all(waits).await;
        refused
    }

    /// Hands on what another process said.
    pub(crate) async fn heard(&self, signal: Signal) {
        match signal {
            Signal::Live(envelope) => {
                let is_priority = self.config.is_priority(&envelope.topic);
                self.broadcast(&Append { envelope, is_priority }).await;
            }
            Signal::Stored => self.wake_others(0),
            Signal::Gap { reason } => {
                let gap = Gap { reason };
                let live: Vec<_> = self.subs.read().iter().filter(|sub| sub.durable().is_none()).cloned().collect();
                self.counters.gaps.fetch_add(1, Relaxed);
                for sub in live {
                    sub.counters.gaps.fetch_add(1, Relaxed);
                    // A subscriber that panics is no reason to hear nothing more.
                    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| sub.handler.gap(&gap)));
                }
            }
        }
    }

    /// Begins to hear other processes, once.
    pub(crate) fn listen(self: &Arc<Self>) {
        if !self.broker.info().shared_between_processes {
            return;
        }
        let mut listening = self.listening.lock();
        if listening.is_none() {
            let weak = Arc::downgrade(self);
            let listener: Listener = Arc::new(move |signal| {
                let core = weak.upgrade();
                Box::pin(async move {
                    if let Some(core) = core {
                        core.heard(signal).await;
                    }
                })
            });
            let broker = self.broker.clone();
            *listening = Some(tokio::spawn(async move { broker.listen(listener).await }).abort_handle());
        }
    }

    pub(crate) fn stop_listening(&self) {
        if let Some(task) = self.listening.lock().take() {
            task.abort();
        }
    }

    /// Tells the durable subscriptions of this process that a stored event has come: at this place, if it has one yet.
    pub(crate) fn wake_for(&self, event: &Append, seq: Option<Seq>) {
        for sub in self.subs.read().iter().filter(|sub| sub.pattern.matches(&event.envelope.topic)) {
            if let Some(durable) = sub.durable() {
                sub.counters.published.fetch_add(1, Relaxed);
                // It has the event already, or looks again before it rests.
                if !event.is_priority && seq.is_some_and(|seq| seq <= durable.hand_over.through()) {
                    continue;
                }
                if event.is_priority || seq.is_none() {
                    durable.look();
                } else {
                    durable.wake.notify_one();
                }
            }
        }
    }

    /// Tells the other consumers of a group in this process that a lane may be free again.
    pub(crate) fn wake_peers(&self, group: &str, of: u64) {
        for sub in self.subs.read().iter().filter(|sub| sub.id != of) {
            if let Some(durable) = sub.durable().filter(|d| d.group.as_ref() == group) {
                sub.progress.notify_waiters();
                durable.look();
            }
        }
    }

    /// Tells all durable subscriptions of this process but one that something may have come.
    pub(crate) fn wake_others(&self, than: u64) {
        for sub in self.subs.read().iter().filter(|sub| sub.id != than) {
            if let Some(durable) = sub.durable() {
                durable.look();
            }
        }
    }

    pub(crate) fn forget(&self, id: u64) {
        self.subs.write().retain(|sub| sub.id != id);
    }
}
