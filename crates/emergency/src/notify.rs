//! Telling subscribers, in order, outside every lock.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;

use crate::state::Transition;

/// Transitions that wait while an earlier one is being told. Beyond it the oldest goes and is counted.
const WAITING_MAX: usize = 256;

/// Names a subscription, to end it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SubscriptionId(u64);

type Handler = Arc<dyn Fn(&Transition) + Send + Sync>;

#[derive(Default)]
struct Inner {
    handlers: Vec<(SubscriptionId, Handler)>,
    next_id: u64,
    waiting: VecDeque<Transition>,
    is_telling: bool,
}

#[derive(Default)]
pub(crate) struct Notifier {
    inner: Mutex<Inner>,
    dropped: AtomicU64,
    panics: AtomicU64,
}

impl Notifier {
    pub(crate) fn subscribe(&self, handler: Handler) -> SubscriptionId {
        let mut inner = self.inner.lock();
        inner.next_id += 1;
        let id = SubscriptionId(inner.next_id);
        inner.handlers.push((id, handler));
        id
    }

    pub(crate) fn unsubscribe(&self, id: SubscriptionId) -> bool {
        let mut inner = self.inner.lock();
        let before = inner.handlers.len();
        inner.handlers.retain(|(of, _)| *of != id);
        inner.handlers.len() < before
    }

    /// Queues a transition. The caller holds the lock that decided it, so the queue is in the order of the decisions.
    pub(crate) fn queue(&self, transition: Transition) {
        let mut inner = self.inner.lock();
        if inner.waiting.len() == WAITING_MAX {
            inner.waiting.pop_front();
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        inner.waiting.push_back(transition);
    }

    /// Tells what waits, unless somebody is at it: one teller at a time keeps the order, also when a handler causes a transition.
    pub(crate) fn tell(&self) {
        loop {
            let (transition, handlers) = {
                let mut inner = self.inner.lock();
                if inner.is_telling {
                    return;
                }
                let Some(transition) = inner.waiting.pop_front() else { return };
                inner.is_telling = true;
                (transition, inner.handlers.clone())
            };
            for (_, handler) in handlers {
                // A broken subscriber must stop neither the others nor the halt.
                if catch_unwind(AssertUnwindSafe(|| handler(&transition))).is_err() {
                    self.panics.fetch_add(1, Ordering::Relaxed);
                }
            }
            self.inner.lock().is_telling = false;
        }
    }

    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    pub(crate) fn panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }
}
