//! The bounded queue of one live subscription.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use infra_types::{Envelope, Topic};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::options::Overflow;

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Arc<Envelope>>,
    /// Policy `Conflate`: which waiting event is the latest of its topic and key, counted from the first that was ever popped.
    latest: HashMap<(Topic, String), u64>,
    /// Events ever taken from the front.
    popped: u64,
    closed: bool,
    /// Events ever taken in.
    accepted: u64,
    /// Of those, the ones handled or dropped since.
    finished: u64,
}

impl State {
    fn pop(&mut self, overflow: Overflow) -> Option<Arc<Envelope>> {
        let event = self.waiting.pop_front()?;
        self.popped += 1;
        if overflow == Overflow::Conflate {
            self.latest.remove(&(event.topic.clone(), event.key.clone()));
        }
        Some(event)
    }

    /// Puts the event in the place of the waiting one that it follows, if there is one.
    fn replace(&mut self, event: &Arc<Envelope>) -> bool {
        let key = (event.topic.clone(), event.key.clone());
        let at = self.popped + self.waiting.len() as u64;
        match self.latest.entry(key) {
            std::collections::hash_map::Entry::Occupied(there) => {
                let place = (there.get() - self.popped) as usize;
                self.waiting[place] = event.clone();
                true
            }
            std::collections::hash_map::Entry::Vacant(free) => {
                free.insert(at);
                false
            }
        }
    }
}

/// What became of a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pushed {
    Queued,
    /// Queued; the oldest was dropped.
    DroppedOldest,
    /// It took the place of an older one of its key.
    Replaced,
    Dropped,
    /// Policy `Block`: wait for room, then push again.
    Full,
    Closed,
}

#[derive(Debug)]
pub(crate) struct Queue {
    state: Mutex<State>,
    capacity: usize,
    pub(crate) overflow: Overflow,
    arrived: Notify,
    room: Notify,
}

impl Queue {
    pub(crate) fn new(capacity: usize, overflow: Overflow) -> Self {
        Self { state: Mutex::default(), capacity, overflow, arrived: Notify::new(), room: Notify::new() }
    }

    pub(crate) fn push(&self, event: &Arc<Envelope>) -> Pushed {
        let mut state = self.state.lock();
        if state.closed {
            return Pushed::Closed;
        }
        let mut pushed = Pushed::Queued;
        if state.waiting.len() >= self.capacity || self.overflow == Overflow::Conflate {
            match self.overflow {
                Overflow::Block => return Pushed::Full,
                Overflow::DropNewest | Overflow::Error => return Pushed::Dropped,
                Overflow::DropOldest => {
                    state.pop(self.overflow);
                    state.finished += 1;
                    pushed = Pushed::DroppedOldest;
                }
                Overflow::Conflate => {
                    let is_full = state.waiting.len() >= self.capacity;
                    if state.replace(event) {
                        // Whoever waits for the older one waits for this.
                        return Pushed::Replaced;
                    }
                    if is_full {
                        state.pop(self.overflow);
                        state.finished += 1;
                        pushed = Pushed::DroppedOldest;
                    }
                }
            }
        }
        state.waiting.push_back(event.clone());
        state.accepted += 1;
        drop(state);
        self.arrived.notify_one();
        pushed
    }

    /// Waits for room; whether the event was taken. Cancel-safe: dropping it leaves the event out.
    pub(crate) async fn push_blocking(&self, event: &Arc<Envelope>) -> bool {
        loop {
            let room = self.room.notified();
            match self.push(event) {
                Pushed::Full => room.await,
                Pushed::Closed => return false,
                _ => {
                    // One wake-up may stand for several places: let the next publisher look as well.
                    self.room.notify_one();
                    return true;
                }
            }
        }
    }

    /// Waits until something is there or never will be. One consumer only.
    pub(crate) async fn arrived(&self) {
        loop {
            {
                let state = self.state.lock();
                if !state.waiting.is_empty() || state.closed {
                    return;
                }
            }
            self.arrived.notified().await;
        }
    }

    /// The next event; none once it is closed and empty. One consumer only.
    pub(crate) async fn pop(&self) -> Option<Arc<Envelope>> {
        loop {
            {
                let mut state = self.state.lock();
                if let Some(event) = state.pop(self.overflow) {
                    drop(state);
                    self.room.notify_one();
                    return Some(event);
                }
                if state.closed {
                    return None;
                }
            }
            self.arrived.notified().await;
        }
    }

    /// Marks a popped event as handled.
    pub(crate) fn finish_one(&self) {
        self.state.lock().finished += 1;
    }

    /// (taken in, of those finished).
    pub(crate) fn progress(&self) -> (u64, u64) {
        let state = self.state.lock();
        (state.accepted, state.finished)
    }

    /// How many wait.
    pub(crate) fn waiting(&self) -> usize {
        self.state.lock().waiting.len()
    }

    /// Takes in nothing more; what waits may still be popped.
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.arrived.notify_one();
        // Every blocked publisher must see it: wakes those that wait now, and leaves a permit for one that is about to.
        self.room.notify_waiters();
        self.room.notify_one();
    }

    /// Drops what waits; how many.
    pub(crate) fn discard(&self) -> usize {
        let mut state = self.state.lock();
        state.closed = true;
        let dropped = state.waiting.len();
        state.waiting.clear();
        state.latest.clear();
        state.finished += dropped as u64;
        dropped
    }
}
