//! The publishing side.

use std::{
    fmt,
    future::Future,
    num::NonZeroUsize,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use super::{
    policy::{PublishError, TopicMetrics, WhenFull},
    receiver::TypedReceiver,
    shared::Shared,
    state::Offered,
};

/// After so many events without a wait a task lets others run.
pub(super) const TURN: u32 = 512;

/// A topic of this process whose events are Rust values: nothing is serialised, and every receiver reads the same value.
///
/// Clones publish to the same topic. It ends when [`TypedTopic::close`] was called or the last clone was dropped.
pub struct TypedTopic<T> {
    shared: Arc<Shared<T>>,
    turn: AtomicU32,
}

impl<T> TypedTopic<T> {
    /// A topic on which at most `capacity` events wait for each receiver.
    ///
    /// Memory: an event goes when the last receiver has left its chunk, which is a run of at most 64 events (and at most
    /// `capacity`). So a receiver keeps up to that many events alive besides those that wait, until it asks for the next one that
    /// is not among them.
    #[must_use]
    pub fn new(capacity: NonZeroUsize, when_full: WhenFull) -> Self {
        Self { shared: Shared::new(capacity.get() as u64, when_full), turn: AtomicU32::new(0) }
    }

    /// A receiver of everything that is published from now on.
    #[must_use]
    pub fn subscribe(&self) -> TypedReceiver<T> {
        TypedReceiver::new(&self.shared)
    }

    /// Publishes without waiting. `Ok` means that the topic has done with the event what its policy says: it waits for every
    /// receiver, or it was dropped and counted, or there was nobody to get it.
    ///
    /// # Errors
    /// `Full` with the policies `Block` and `Error`, `Closed`. Both give the event back.
    pub fn try_publish(&self, event: T) -> Result<(), PublishError<T>> {
        let mut event = Some(event);
        let offered = self.shared.locked(|state, after| {
            let offered = state.offer(&mut event, None, after);
            if offered == Offered::Full {
                state.count_refused();
            }
            offered
        });
        match (offered, event) {
            (Offered::Full, Some(event)) => Err(PublishError::Full(event)),
            (Offered::Closed, Some(event)) => Err(PublishError::Closed(event)),
            _ => Ok(()),
        }
    }

    /// Publishes; with the policy `Block` it waits until the slowest receiver has room. Publishers that wait are served in the
    /// order in which they came.
    ///
    /// # Errors
    /// `Full` with the policy `Error`, `Closed`. Both give the event back.
    ///
    /// # Cancel safety
    /// Dropped before it is ready, it has published nothing and the event is dropped with it; whoever waits behind it moves up.
    pub fn publish(&self, event: T) -> Publish<'_, T> {
        Publish { topic: self, event: Some(event), ticket: None }
    }

    /// Ends the topic for all: publishers are refused, those that wait too, and receivers end after what was published before.
    /// Closing it again changes nothing.
    pub fn close(&self) {
        self.shared.locked(|state, after| {
            state.closed = true;
            state.end(after);
        });
    }

    /// What was counted.
    #[must_use]
    pub fn metrics(&self) -> TopicMetrics {
        self.shared.locked(|state, _| state.metrics())
    }
}

impl<T> Clone for TypedTopic<T> {
    fn clone(&self) -> Self {
        self.shared.locked(|state, _| state.publishers += 1);
        Self { shared: self.shared.clone(), turn: AtomicU32::new(0) }
    }
}

impl<T> Drop for TypedTopic<T> {
    fn drop(&mut self) {
        self.shared.locked(|state, after| {
            state.publishers -= 1;
            if state.publishers == 0 {
                state.end(after);
            }
        });
    }
}

impl<T> fmt::Debug for TypedTopic<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shared { capacity, when_full, .. } = &*self.shared;
        f.debug_struct("TypedTopic").field("capacity", capacity).field("when_full", when_full).finish_non_exhaustive()
    }
}

/// The future of [`TypedTopic::publish`].
#[must_use = "nothing is published before it is awaited"]
pub struct Publish<'a, T> {
    topic: &'a TypedTopic<T>,
    event: Option<T>,
    /// Its place among those that wait.
    ticket: Option<u64>,
}

// The event is only ever moved.
impl<T> Unpin for Publish<'_, T> {}

impl<T> Future for Publish<'_, T> {
    type Output = Result<(), PublishError<T>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let turn = &this.topic.turn;
        if turn.load(Relaxed) >= TURN {
            turn.store(0, Relaxed);
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let (event, ticket) = (&mut this.event, &mut this.ticket);
        let waits = this.topic.shared.when_full == WhenFull::Block;
        let offered = this.topic.shared.locked(|state, after| {
            let offered = state.offer(event, *ticket, after);
            if offered == Offered::Full && waits {
                *ticket = Some(state.queue(*ticket, cx.waker(), after));
            } else if let Some(ticket) = ticket.take() {
                state.leave(ticket, after);
            }
            if offered == Offered::Full && !waits {
                state.count_refused();
            }
            offered
        });
        if offered == Offered::Full && waits {
            turn.store(0, Relaxed);
            return Poll::Pending;
        }
        turn.store(turn.load(Relaxed) + 1, Relaxed);
        Poll::Ready(match (offered, this.event.take()) {
            (Offered::Full, Some(event)) => Err(PublishError::Full(event)),
            (Offered::Closed, Some(event)) => Err(PublishError::Closed(event)),
            _ => Ok(()),
        })
    }
}

impl<T> Drop for Publish<'_, T> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            self.topic.shared.locked(|state, after| state.leave(ticket, after));
        }
    }
}

impl<T> fmt::Debug for Publish<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publish").field("waits", &self.ticket.is_some()).finish_non_exhaustive()
    }
}
