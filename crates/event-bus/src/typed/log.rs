//! The log: sealed chunks that receivers read without a lock, and the open one that publishers append to.
//!
//! A receiver that has read all it holds seals the open chunk, however short that is. So chunks are short while receivers keep
//! up and long when they do not, an event costs its publisher a push and a receiver a step through a slice, and the lock is
//! taken once for a chunk.

use std::{collections::VecDeque, sync::Arc};

/// The most events in one chunk: few allocations, and not much that lingers with a receiver.
const CHUNK_LEN_MAX: u64 = 64;

/// Some events in a row, which change no more.
#[derive(Debug)]
pub(super) struct Chunk<T> {
    pub(super) events: Vec<T>,
    /// Which of them come right after dropped ones, and after how many.
    gaps: Vec<(usize, u64)>,
}

impl<T> Chunk<T> {
    fn with_capacity(capacity: usize) -> Self {
        Self { events: Vec::with_capacity(capacity), gaps: Vec::new() }
    }

    /// How many events were dropped right before that one.
    pub(super) fn gap_before(&self, index: usize) -> u64 {
        self.gaps.iter().find(|(at, _)| *at == index).map_or(0, |(_, dropped)| *dropped)
    }
}

/// A chunk that somebody has not come to yet.
#[derive(Debug)]
struct Sealed<T> {
    chunk: Arc<Chunk<T>>,
    /// How many receivers have not.
    left: usize,
}

#[derive(Debug)]
pub(super) struct Log<T> {
    chunk_len_max: usize,
    sealed: VecDeque<Sealed<T>>,
    /// Chunks are numbered; this is the first of `sealed`.
    first: u64,
    /// The number of the first event in `sealed`, or in `open` if there is none.
    start: u64,
    open: Chunk<T>,
    /// The number of the next event.
    tail: u64,
}

impl<T> Log<T> {
    pub(super) fn new(capacity: u64) -> Self {
        let chunk_len_max = capacity.min(CHUNK_LEN_MAX) as usize;
        Self { chunk_len_max, sealed: VecDeque::new(), first: 0, start: 0, open: Chunk::with_capacity(0), tail: 0 }
    }

    pub(super) fn tail(&self) -> u64 {
        self.tail
    }

    /// Appends an event for that many receivers, right after `dropped` others.
    pub(super) fn append(&mut self, event: T, dropped: u64, receivers: usize) {
        if self.open.events.len() == self.chunk_len_max {
            self.seal(receivers);
        }
        if dropped > 0 {
            self.open.gaps.push((self.open.events.len(), dropped));
        }
        self.open.events.push(event);
        self.tail += 1;
    }

    /// Closes the open chunk, if it is not empty, for that many receivers.
    pub(super) fn seal(&mut self, receivers: usize) {
        if !self.open.events.is_empty() {
            // As long as this one was: a crowd of short chunks must not reserve room for long ones.
            let next = Chunk::with_capacity(self.open.events.len().next_power_of_two());
            let chunk = Arc::new(std::mem::replace(&mut self.open, next));
            self.sealed.push_back(Sealed { chunk, left: receivers });
        }
    }

    /// The number that the next chunk will have.
    pub(super) fn sealed_until(&self) -> u64 {
        self.first + self.sealed.len() as u64
    }

    /// The number of the oldest event that is kept.
    pub(super) fn start(&self) -> u64 {
        self.start
    }

    /// The number of the oldest chunk.
    pub(super) fn first(&self) -> u64 {
        self.first
    }

    /// Hands a chunk to one more of its receivers. The last one gets it for good.
    pub(super) fn take(&mut self, number: u64) -> Option<Arc<Chunk<T>>> {
        let index = usize::try_from(number.checked_sub(self.first)?).ok()?;
        let sealed = self.sealed.get_mut(index)?;
        sealed.left -= 1;
        // Receivers go in order, so whatever was before it is gone already.
        if sealed.left == 0 && index == 0 { self.pop() } else { Some(sealed.chunk.clone()) }
    }

    fn pop(&mut self) -> Option<Arc<Chunk<T>>> {
        let Sealed { chunk, .. } = self.sealed.pop_front()?;
        self.first += 1;
        self.start += chunk.events.len() as u64;
        Some(chunk)
    }

    /// Gives back the chunks that hold nothing from `floor` on, to be dropped without the lock.
    pub(super) fn trim(&mut self, floor: u64, freed: &mut Vec<Arc<Chunk<T>>>) {
        while self.sealed.front().is_some_and(|s| self.start + s.chunk.events.len() as u64 <= floor) {
            freed.extend(self.pop());
        }
    }

    /// A receiver that would have come to chunk `number` next comes no more.
    pub(super) fn forsake(&mut self, number: u64, receivers_left: usize, freed: &mut Vec<Arc<Chunk<T>>>) {
        let taken = usize::try_from(number.saturating_sub(self.first)).unwrap_or(usize::MAX);
        self.sealed.iter_mut().skip(taken).for_each(|s| s.left -= 1);
        if receivers_left == 0 {
            self.seal(0);
        }
        while self.sealed.front().is_some_and(|s| s.left == 0) {
            freed.extend(self.pop());
        }
    }
}
