//! Lines on their way to a writer thread: bounded, in order, at the price of a copy under a short lock.

use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// Where a line ends in its batch, and whether it is an ERROR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LineEnd {
    pub(crate) at: usize,
    pub(crate) error: bool,
}

/// Lines that are written together.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) bytes: Vec<u8>,
    pub(crate) ends: Vec<LineEnd>,
}

impl Batch {
    pub(crate) fn push(&mut self, line: &[u8], error: bool) {
        self.bytes.extend_from_slice(line);
        self.ends.push(LineEnd { at: self.bytes.len(), error });
    }

    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }
}

/// What the writer took from the queue.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Taken {
    /// Lines that were dropped since the last time.
    pub(crate) dropped: u64,
    /// Give this back to [`Queue::wrote`].
    pub(crate) up_to: u64,
    /// Nothing will come after this.
    pub(crate) last: bool,
}

#[derive(Debug, Default)]
struct Inner {
    batch: Batch,
    pushed: u64,
    written: u64,
    dropped: u64,
    dropped_total: u64,
    errors_dropped: u64,
    /// The writer sleeps until it is woken.
    asleep: bool,
    /// Somebody wants it written now.
    hurry: bool,
    /// An ERROR waited in vain since the writer last got anything done: further ones do not wait.
    stuck: bool,
    closed: bool,
    finished: bool,
}

/// Lines on their way to one writer thread.
#[derive(Debug)]
pub(crate) struct Queue {
    bytes_max: usize,
    error_wait_max: Duration,
    inner: Mutex<Inner>,
    /// For the writer: something to do.
    work: Condvar,
    /// For callers: the writer took or wrote a batch.
    progress: Condvar,
}

/// How often the writer looks for lines. Waking it for each line would cost the caller more than writing it down.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// After so many looks at an empty queue it sleeps until it is woken.
const LOOKS_MAX: u32 = 100;

impl Queue {
    pub(crate) fn new(bytes_max: usize, error_wait_max: Duration) -> Self {
        Self { bytes_max, error_wait_max, inner: Mutex::default(), work: Condvar::new(), progress: Condvar::new() }
    }

    /// Adds a line. A full queue drops it and counts; an ERROR waits for room first.
    pub(crate) fn push(&self, line: &[u8], error: bool) {
        let mut inner = self.inner.lock();
        let full =
            |inner: &Inner| !inner.batch.bytes.is_empty() && inner.batch.bytes.len() + line.len() > self.bytes_max;
        if full(&inner) && error && !inner.stuck && !inner.closed {
            self.wake(&mut inner);
            let late = self.progress.wait_while_for(&mut inner, |i| full(i) && !i.closed, self.error_wait_max);
            inner.stuck |= late.timed_out() && full(&inner);
        }
        if inner.closed || full(&inner) {
            inner.dropped += 1;
            inner.dropped_total += 1;
            inner.errors_dropped += u64::from(error);
            return;
        }
        inner.batch.push(line, error);
        inner.pushed += 1;
        let filling = inner.batch.bytes.len() > self.bytes_max / 2;
        if error || inner.asleep || (filling && !inner.hurry) {
            self.wake(&mut inner);
        }
    }

    fn wake(&self, inner: &mut Inner) {
        inner.hurry = true;
        inner.asleep = false;
        self.work.notify_one();
    }

    /// Waits for lines and swaps them into `spare`, which must be empty.
    pub(crate) fn take(&self, spare: &mut Batch) -> Taken {
        let mut inner = self.inner.lock();
        let mut looks = 0;
        while inner.batch.ends.is_empty() && inner.dropped == 0 && !inner.hurry && !inner.closed {
            looks += 1;
            if looks > LOOKS_MAX {
                inner.asleep = true;
                self.work.wait_while(&mut inner, |i| i.asleep && !i.closed);
            } else {
                self.work.wait_for(&mut inner, LOOK_EVERY);
            }
        }
        // In a steady flow let lines gather, unless somebody waits for them.
        if looks == 0 && !inner.hurry && !inner.closed {
            self.work.wait_while_for(&mut inner, |i| !i.hurry && !i.closed, LOOK_EVERY);
        }
        inner.hurry = false;
        std::mem::swap(&mut inner.batch, spare);
        let taken = Taken { dropped: std::mem::take(&mut inner.dropped), up_to: inner.pushed, last: inner.closed };
        drop(inner);
        self.progress.notify_all();
        taken
    }

    /// Says that everything up to a [`Taken`] was written or counted as lost.
    pub(crate) fn wrote(&self, taken: Taken) {
        let mut inner = self.inner.lock();
        inner.written = taken.up_to;
        inner.stuck = false;
        inner.finished |= taken.last;
        drop(inner);
        self.progress.notify_all();
    }

    /// Waits until all that was pushed before is written; `false` if that took longer than `patience`.
    pub(crate) fn flush(&self, patience: Duration) -> bool {
        let mut inner = self.inner.lock();
        let target = inner.pushed;
        self.wake(&mut inner);
        !self.progress.wait_while_for(&mut inner, |i| i.written < target && !i.finished, patience).timed_out()
    }

    /// Takes no more lines; waits until the writer is done, `false` if that took longer than `patience`.
    pub(crate) fn close(&self, patience: Duration) -> bool {
        let mut inner = self.inner.lock();
        inner.closed = true;
        self.wake(&mut inner);
        self.progress.notify_all();
        !self.progress.wait_while_for(&mut inner, |i| !i.finished, patience).timed_out()
    }

    /// Lines dropped in all, and how many of them were ERRORs.
    pub(crate) fn dropped(&self) -> (u64, u64) {
        let inner = self.inner.lock();
        (inner.dropped_total, inner.errors_dropped)
    }
}
