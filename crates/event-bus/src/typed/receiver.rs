//! The receiving side.

use std::{
    fmt,
    future::poll_fn,
    ops::Deref,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use super::{
    log::Chunk,
    policy::{TryRecvError, WhenFull},
    shared::Shared,
    state::{Place, Turn},
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
    place: Place,
    /// What it reads now.
    chunk: Option<Arc<Chunk<T>>>,
    /// Which event of the chunk is next.
    index: usize,
    /// How many it lost before the ones that it took.
    told: u64,
    turn: u32,
}

impl<T> TypedReceiver<T> {
    pub(super) fn new(shared: &Arc<Shared<T>>) -> Self {
        let place = shared.locked(|state, _| state.subscribe());
        Self { shared: shared.clone(), place, chunk: None, index: 0, told: 0, turn: 0 }
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
        match self.look(None) {
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
            while into.len() - before < max && self.look(None) == Some(true) {
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
            WhenFull::DropNewest => self.shared.locked(|state, _| state.dropped_since(self.place.index)),
            WhenFull::DropOldest => self.told + self.place.lost + self.behind(),
        }
    }

    /// How many events wait for this receiver.
    #[must_use]
    pub fn len(&self) -> usize {
        let waiting = self.shared.tail().0 - self.place.position;
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
        let Some(found) = self.look(Some(cx.waker())) else {
            self.turn = 0;
            return Poll::Pending;
        };
        self.turn += 1;
        Poll::Ready(found)
    }

    /// How many events it lost since it last looked: more than the capacity came, and the policy drops the oldest.
    fn behind(&self) -> u64 {
        if self.shared.when_full != WhenFull::DropOldest {
            return 0;
        }
        (self.shared.tail().0 - self.place.position).saturating_sub(self.shared.capacity)
    }

    /// Whether there is a next event (true), there will be none (false) or there is none yet; then the waker is woken when that
    /// changes.
    #[inline]
    fn look(&mut self, waker: Option<&Waker>) -> Option<bool> {
        loop {
            let behind = self.behind();
            if behind > 0 {
                self.skip(behind);
            }
            if self.index < self.held() {
                return Some(true);
            }
            // A caller that asks again and again must not keep publishers from the lock.
            if waker.is_none() && self.shared.tail() == (self.place.position, true) {
                return None;
            }
            // What it has read is dropped here, not under the lock.
            let empty = self.chunk.take().and_then(Chunk::emptied);
            self.index = 0;
            match self.shared.locked(|state, after| state.turn(&mut self.place, empty, waker, after)) {
                Turn::Chunk(chunk) => self.chunk = Some(chunk),
                Turn::Nothing => return None,
                Turn::Ended => return Some(false),
            }
        }
    }

    /// How many events there are in what it reads now.
    fn held(&self) -> usize {
        self.chunk.as_ref().map_or(0, |chunk| chunk.events.len())
    }

    /// Gives up the oldest `count` events, as far as they are in the chunk that it holds; the topic has given up the others.
    fn skip(&mut self, count: u64) {
        let lost = usize::try_from(count).unwrap_or(usize::MAX).min(self.held() - self.index);
        self.index += lost;
        self.place.position += lost as u64;
        self.place.lost += lost as u64;
        self.shared.locked(|state, _| state.count_lost(lost as u64));
    }

    /// Takes the next event, which is there.
    #[inline]
    fn take(&mut self) -> Received<'_, T> {
        let index = self.index;
        self.index += 1;
        self.place.position += 1;
        if self.shared.when_full != WhenFull::DropOldest && self.place.seat.advance(1) {
            self.shared.locked(|state, after| state.answered(self.place.index, after));
        }
        let chunk = self.chunk.as_ref().expect("`look` has found a chunk");
        let mut missed = std::mem::take(&mut self.place.lost);
        if self.shared.when_full == WhenFull::DropNewest {
            missed = chunk.gap_before(index).saturating_sub(std::mem::take(&mut self.place.not_mine));
        }
        self.told += missed;
        Received { event: &chunk.events[index], missed }
    }
}

impl<T> Drop for TypedReceiver<T> {
    fn drop(&mut self) {
        self.shared.locked(|state, after| state.unsubscribe(self.place.index, self.place.chunk, after));
    }
}

impl<T> fmt::Debug for TypedReceiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TypedReceiver").field("waiting", &self.len()).finish_non_exhaustive()
    }
}
