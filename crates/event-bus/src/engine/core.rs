//! What all tasks of a bus share, and the way of an event to its subscriptions.

use std::sync::{
    Arc,
    atomic::{
        AtomicBool, AtomicU64,
        Ordering::{Relaxed, SeqCst},
    },
};

use infra_types::{Clock, Envelope};
use parking_lot::RwLock;

use super::{
    queue::Pushed,
    sub::{Kind, Sub},
};
use crate::{BusConfig, BusError, broker::Broker, metrics::Counters, options::Overflow};

#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) broker: Arc<dyn Broker>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) config: BusConfig,
    pub(crate) counters: Counters,
    pub(crate) subs: RwLock<Vec<Arc<Sub>>>,
    pub(crate) closed: AtomicBool,
    pub(crate) next_id: AtomicU64,
}

impl Core {
    pub(crate) fn check_open(&self) -> Result<(), BusError> {
        if self.closed.load(SeqCst) { Err(BusError::Closed) } else { Ok(()) }
    }

    /// Hands an event to the live subscriptions that want it; answers the label of one that refused by policy `Error`.
    ///
    /// Those that may block come last, so that a slow one keeps the event from nobody.
    pub(crate) async fn broadcast(&self, event: &Arc<Envelope>) -> Option<String> {
        let mut refused = None;
        let mut blocked = Vec::new();
        for sub in self.subs.read().iter().filter(|sub| sub.pattern.matches(&event.topic)) {
            let Kind::Live(queue) = &sub.kind else { continue };
            let tally = sub.tally(self);
            match queue.push(event) {
                Pushed::Queued => {}
                Pushed::Full => {
                    blocked.push(sub.clone());
                    continue;
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
        for sub in blocked {
            let Kind::Live(queue) = &sub.kind else { continue };
            if queue.push_blocking(event).await {
                sub.counters.published.fetch_add(1, Relaxed);
            } else {
                sub.tally(self).add(|c| &c.dropped, 1);
            }
        }
        refused
    }

    /// Tells the durable subscriptions of this process that a stored event has come.
    pub(crate) fn wake_for(&self, event: &Envelope) {
        for sub in self.subs.read().iter().filter(|sub| sub.pattern.matches(&event.topic)) {
            if let Some(durable) = sub.durable() {
                sub.counters.published.fetch_add(1, Relaxed);
                durable.wake.notify_one();
            }
        }
    }

    /// Tells the other consumers of a group in this process that a lane may be free again.
    pub(crate) fn wake_peers(&self, group: &str, of: u64) {
        for sub in self.subs.read().iter().filter(|sub| sub.id != of) {
            if let Some(durable) = sub.durable().filter(|d| d.group.as_ref() == group) {
                sub.progress.notify_waiters();
                durable.wake.notify_one();
            }
        }
    }

    pub(crate) fn forget(&self, id: u64) {
        self.subs.write().retain(|sub| sub.id != id);
    }
}
