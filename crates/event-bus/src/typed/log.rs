//! The log: a window of segments that grows at one end and is given back at the other.

use std::{collections::VecDeque, sync::Arc};

use super::sync::{Mutex, Slot};

/// The most events in one segment: few allocations, and not much that lingers.
const SEGMENT_LEN_MAX: u64 = 64;

/// A piece of the log. Its slots are written once, in order, by whoever holds the topic's lock, and read without one.
#[derive(Debug)]
pub(super) struct Segment<T> {
    slots: Box<[Slot<T>]>,
    /// Which slots come right after dropped events, and after how many.
    gaps: Mutex<Vec<(usize, u64)>>,
}

impl<T> Segment<T> {
    fn new(len: u64) -> Self {
        Self { slots: (0..len).map(|_| Slot::new()).collect(), gaps: Mutex::new(Vec::new()) }
    }

    /// The event in that slot, once it is written.
    pub(super) fn get(&self, index: usize) -> Option<&T> {
        self.slots.get(index)?.get()
    }

    /// How many events were dropped right before that slot.
    pub(super) fn gap_before(&self, index: usize) -> u64 {
        self.gaps.lock().iter().find(|(at, _)| *at == index).map_or(0, |(_, dropped)| *dropped)
    }
}

/// How many events a segment of a topic of `capacity` holds: a power of two, so that a position is taken apart by masks.
pub(super) fn segment_len(capacity: u64) -> u64 {
    capacity.min(SEGMENT_LEN_MAX).next_power_of_two()
}

#[derive(Debug)]
pub(super) struct Log<T> {
    segment_len: u64,
    /// The segments that somebody may still want; the last one takes the next event unless it is full.
    window: VecDeque<Arc<Segment<T>>>,
    /// The number of the first event in `window`.
    start: u64,
    /// The number of the next event.
    tail: u64,
}

impl<T> Log<T> {
    pub(super) fn new(segment_len: u64) -> Self {
        Self { segment_len, window: VecDeque::new(), start: 0, tail: 0 }
    }

    pub(super) fn tail(&self) -> u64 {
        self.tail
    }

    /// Whether the next event begins a segment: the time to [`Log::trim`].
    pub(super) fn turns(&self) -> bool {
        self.tail & (self.segment_len - 1) == 0
    }

    /// Appends an event that comes right after `dropped` others.
    pub(super) fn append(&mut self, event: T, dropped: u64) {
        if self.turns() {
            self.window.push_back(Arc::new(Segment::new(self.segment_len)));
        }
        let segment = self.window.back().expect("the first event of a segment brings it");
        let index = (self.tail & (self.segment_len - 1)) as usize;
        if dropped > 0 {
            segment.gaps.lock().push((index, dropped));
        }
        let written = segment.slots[index].set(event);
        debug_assert!(written.is_ok(), "each number is given once");
        self.tail += 1;
    }

    /// The segment that holds event number `position`, and the number after its last one.
    pub(super) fn segment(&self, position: u64) -> Option<(Arc<Segment<T>>, u64)> {
        let which = position.checked_sub(self.start)? / self.segment_len;
        let segment = self.window.get(usize::try_from(which).ok()?)?;
        Some((segment.clone(), self.start + (which + 1) * self.segment_len))
    }

    /// Gives back the segments that hold nothing from `floor` on. The caller drops them when it has given up the lock.
    pub(super) fn trim(&mut self, floor: u64, freed: &mut Vec<Arc<Segment<T>>>) {
        while self.start + self.segment_len <= floor {
            let Some(segment) = self.window.pop_front() else { return };
            freed.push(segment);
            self.start += self.segment_len;
        }
    }

    /// Gives everything back; the next event begins a segment of its own.
    pub(super) fn clear(&mut self, freed: &mut Vec<Arc<Segment<T>>>) {
        freed.extend(self.window.drain(..));
        self.tail = self.tail.next_multiple_of(self.segment_len);
        self.start = self.tail;
    }
}
