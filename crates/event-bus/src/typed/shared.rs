//! What a topic's publishers and receivers share.

use std::sync::{Arc, atomic::Ordering};

use super::{
    policy::WhenFull,
    state::{After, State},
    sync::{AtomicU64, Mutex},
};

/// In the tail's word: nothing will follow.
const ENDED: u64 = 1;

/// What is written at every event lies apart from what is only read.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct Apart<V>(pub(super) V);

#[derive(Debug)]
pub(super) struct Shared<T> {
    pub(super) capacity: u64,
    pub(super) when_full: WhenFull,
    /// The number of the next event and [`ENDED`], so that a receiver sees what there is without the lock. Written with it.
    tail: Apart<AtomicU64>,
    state: Apart<Mutex<State<T>>>,
}

impl<T> Shared<T> {
    pub(super) fn new(capacity: u64, when_full: WhenFull) -> Arc<Self> {
        Arc::new(Self {
            capacity,
            when_full,
            tail: Apart(AtomicU64::new(0)),
            state: Apart(Mutex::new(State::new(capacity, when_full))),
        })
    }

    /// The number of the next event, and whether there will be one.
    pub(super) fn tail(&self) -> (u64, bool) {
        let word = self.tail.0.load(Ordering::Acquire);
        (word >> 1, word & ENDED == 0)
    }

    /// Does something under the lock, and what follows from it afterwards.
    #[inline]
    pub(super) fn locked<R>(&self, work: impl FnOnce(&mut State<T>, &mut After<T>) -> R) -> R {
        let mut after = After::new();
        let result = {
            let mut state = self.state.0.lock();
            let result = work(&mut state, &mut after);
            // Here and not where it changes, so that no change can forget it. Whoever sees the number sees the event.
            let word = state.tail() << 1 | u64::from(state.has_ended());
            if state.shown != word {
                state.shown = word;
                self.tail.0.store(word, Ordering::Release);
            }
            result
        };
        after.run();
        result
    }
}
