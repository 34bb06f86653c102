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

    /// Drops the events if nobody else reads them, so that the room can be used again. Called without the lock.
    pub(super) fn emptied(mut chunk: Arc<Self>) -> Option<Arc<Self>> {
        let own = Arc::get_mut(&mut chunk)?;
        own.events.clear();
        own.gaps.clear();
        Some(chunk)
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
    /// Empty, to be used again.
    spare: Option<Arc<Chunk<T>>>,
    /// The number of the next event.
    tail: u64,
}

impl<T> Log<T> {
    pub(super) fn new(capacity: u64) -> Self {
        let chunk_len_max = capacity.min(CHUNK_LEN_MAX) as usize;
        let open = Chunk::with_capacity(0);
        Self { chunk_len_max, sealed: VecDeque::new(), first: 0, start: 0, open, spare: None, tail: 0 }
    }

    pub(super) fn tail(&self) -> u64 {
        self.tail
    }

    /// Appends an event for that many receivers, right after `dropped` others.
    #[inline]
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
        if let Some(chunk) = self.close_open() {
            self.sealed.push_back(Sealed { chunk, left: receivers });
        }
    }

    /// Closes the open chunk and hands it to the one receiver there is, who has taken all before.
    #[inline]
    pub(super) fn take_open(&mut self) -> Option<Arc<Chunk<T>>> {
        debug_assert!(self.sealed.is_empty(), "it has taken all before");
        let chunk = self.close_open()?;
        self.first += 1;
        self.start = self.tail;
        Some(chunk)
    }

    #[inline]
    fn close_open(&mut self) -> Option<Arc<Chunk<T>>> {
        if self.open.events.is_empty() {
            return None;
        }
        let mut chunk = self.take_spare();
        std::mem::swap(Arc::get_mut(&mut chunk)?, &mut self.open);
        Some(chunk)
    }

    /// An empty chunk to go on with. It is about as long as the one before, or a crowd of short chunks would reserve room for
    /// long ones.
    fn take_spare(&mut self) -> Arc<Chunk<T>> {
        let len = self.open.events.len();
        match self.spare.take_if(|spare| spare.events.capacity() <= 8 * len) {
            Some(spare) => spare,
            None => Arc::new(Chunk::with_capacity(len.next_power_of_two())),
        }
    }

    /// Keeps an empty chunk to be used again. Gives back the one that there was.
    pub(super) fn recycle(&mut self, empty: Arc<Chunk<T>>) -> Option<Arc<Chunk<T>>> {
        self.spare.replace(empty)
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
    #[inline]
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
