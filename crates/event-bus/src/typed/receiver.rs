//! The receiving side.

use std::{
    fmt,
    future::poll_fn,
    ops::Deref,
    sync::Arc,
    task::{Context, Poll},
};

use super::{
    log::Segment,
    policy::{TryRecvError, WhenFull},
    seat::Seat,
    shared::Shared,
    topic::TURN,
};

/// An event, read where it lies. `.clone()` on it clones the event.
#[derive(Debug, PartialEq, Eq)]
pub struct Received<'a, T> {
    /// The event.
    pub event: &'a T,
    /// How many events this receiver lost right before it; always 0 with the policies `Block` and `Error`.
    pub missed: u64,
}

impl<T> Deref for Received<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.event
    }
}

/// One of a topic's receivers: each gets every event. Dropping it frees publishers that wait for it.
pub struct TypedReceiver<T> {
    shared: Arc<Shared<T>>,
    seat: Arc<Seat>,
    /// Its number among the topic's readers.
    index: usize,
    /// The number of the next event that it takes.
    next: u64,
    /// Events below this number are there, as far as was known when the topic was last asked.
    seen: u64,
    segment: Option<Arc<Segment<T>>>,
    /// The number after the segment's last event.
    segment_end: u64,
    /// Lost and already told.
    told: u64,
    turn: u32,
}

impl<T> TypedReceiver<T> {
    pub(super) fn new(shared: &Arc<Shared<T>>) -> Self {
        let (index, seat) = shared.locked(|state, _| state.subscribe());
        let next = seat.position();
        let shared = shared.clone();
        Self { shared, seat, index, next, seen: next, segment: None, segment_end: next, told: 0, turn: 0 }
    }

    /// The next event, or none when the topic has ended and everything before was received.
    ///
    /// # Cancel safety
    /// Dropped before it is ready, it has taken nothing.
    pub async fn recv(&mut self) -> Option<Received<'_, T>> {
        if poll_fn(|cx| self.poll_next(cx)).await { Some(self.take()) } else { None }
    }

    /// The next event if there is one.
    ///
    /// # Errors
    /// `Empty`, `Closed`.
    pub fn try_recv(&mut self) -> Result<Received<'_, T>, TryRecvError> {
        match self.look() {
            Some(true) => Ok(self.take()),
            Some(false) => Err(TryRecvError::Closed),
            None => Err(TryRecvError::Empty),
        }
    }

    /// Waits for an event and appends clones of up to `max` that are there to `into`. Gives their number: 0 when the topic has
    /// ended and everything before was received, or if `max` is 0. What was lost before or between them is in
    /// [`TypedReceiver::missed`].
    ///
    /// # Cancel safety
    /// Dropped before it is ready, it has taken nothing.
    pub async fn recv_many(&mut self, into: &mut Vec<T>, max: usize) -> usize
    where
        T: Clone,
    {
        let before = into.len();
        if max > 0 && poll_fn(|cx| self.poll_next(cx)).await {
            while into.len() - before < max && self.look() == Some(true) {
                into.push(self.take().clone());
            }
        }
        into.len() - before
    }

    /// How many events this receiver has lost so far, whether it was told or not.
    #[must_use]
    pub fn missed(&self) -> u64 {
        match self.shared.when_full {
            WhenFull::Block | WhenFull::Error => 0,
            WhenFull::DropNewest => self.shared.locked(|state, _| state.lost(self.index, self.next)),
            WhenFull::DropOldest => self.told + self.shared.locked(|state, _| state.lost(self.index, self.next)),
        }
    }

    /// How many events wait for this receiver.
    #[must_use]
    pub fn len(&self) -> usize {
        let waiting = self.shared.tail().0 - self.next;
        usize::try_from(waiting.min(self.shared.capacity)).unwrap_or(usize::MAX)
    }

    /// Whether no event waits for it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether there is a next event (true) or the topic has ended (false).
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        if self.turn >= TURN {
            self.turn = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let found = self.look().or_else(|| {
            let (shared, index, next) = (&self.shared, self.index, self.next);
            let sleeps = shared.locked(|state, after| state.sleep(index, next, cx.waker(), after));
            if sleeps { None } else { self.look() }
        });
        let Some(found) = found else {
            self.turn = 0;
            return Poll::Pending;
        };
        self.turn += 1;
        Poll::Ready(found)
    }

    /// Whether there is a next event (true), there is none yet or there will be none (false).
    fn look(&mut self) -> Option<bool> {
        if self.next < self.seen {
            return Some(true);
        }
        let (tail, goes_on) = self.shared.tail();
        self.seen = tail;
        if self.next < tail {
            Some(true)
        } else if goes_on {
            None
        } else {
            Some(false)
        }
    }

    /// Takes the next event, which is there.
    fn take(&mut self) -> Received<'_, T> {
        let mut missed = 0;
        let lags = self.shared.when_full == WhenFull::DropOldest && self.shared.tail().0 - self.next > self.shared.capacity;
        if self.next >= self.segment_end || lags {
            missed = self.turn_page();
        }
        let index = (self.next & (self.shared.segment_len - 1)) as usize;
        self.next += 1;
        if self.seat.advance(1 + missed) {
            self.shared.locked(|state, after| state.answered(self.index, after));
        }
        let segment = self.segment.as_ref().expect("the page was turned to the event's segment");
        if self.shared.when_full == WhenFull::DropNewest {
            missed = segment.gap_before(index);
        }
        self.told += missed;
        Received { event: segment.get(index).expect("whoever sees its number sees the event"), missed }
    }

    /// Goes to the segment of the next event that is still there; says how many were lost.
    fn turn_page(&mut self) -> u64 {
        let page = self.shared.locked(|state, _| state.page(self.next));
        self.next += page.lost;
        self.seen = self.seen.max(self.next + 1);
        self.segment = Some(page.segment);
        self.segment_end = page.end;
        page.lost
    }
}

impl<T> Drop for TypedReceiver<T> {
    fn drop(&mut self) {
        self.shared.locked(|state, after| state.unsubscribe(self.index, after));
    }
}

impl<T> fmt::Debug for TypedReceiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TypedReceiver").field("waiting", &self.len()).finish_non_exhaustive()
    }
}
