//! A clock that stands still while a decision is made.

use std::{fmt, sync::Arc};

use infra_types::{Clock, Monotonic, Timestamp, clock::Sleep};
use parking_lot::Mutex;

/// Another clock, that stands still while an input is at work: engine, store and log see the same moment. Clones share it. Give it
/// to the store as well where the store takes a clock, so that what expires there does so at the same moment again in a replay.
#[derive(Clone)]
pub struct DecisionClock {
    inner: Arc<dyn Clock>,
    still: Arc<Mutex<Option<Still>>>,
}

#[derive(Debug, Clone, Copy)]
struct Still {
    at: (Monotonic, Timestamp),
    /// A replay moves it; nobody lets it go.
    is_held: bool,
}

impl DecisionClock {
    /// A clock that goes as `inner` does between inputs.
    #[must_use]
    pub fn new(inner: Arc<dyn Clock>) -> Self {
        Self { inner, still: Arc::default() }
    }

    /// Stops until the guard is dropped; a clock that a replay holds stays where it is.
    pub(super) fn stop(&self) -> Stopped {
        let mut still = self.still.lock();
        still.get_or_insert_with(|| Still { at: (self.inner.now(), self.inner.wall()), is_held: false });
        Stopped(self.clone())
    }

    /// Stands at a moment until it is moved to another.
    pub(super) fn hold(&self, now: Monotonic, wall: Timestamp) {
        *self.still.lock() = Some(Still { at: (now, wall), is_held: true });
    }
}

/// A clock that stands still. Dropped, also with a future that is dropped half-way, it goes on.
pub(super) struct Stopped(DecisionClock);

impl Drop for Stopped {
    fn drop(&mut self) {
        self.0.still.lock().take_if(|still| !still.is_held);
    }
}

impl fmt::Debug for DecisionClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DecisionClock").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl Clock for DecisionClock {
    fn now(&self) -> Monotonic {
        let still = *self.still.lock();
        still.map_or_else(|| self.inner.now(), |still| still.at.0)
    }

    fn wall(&self) -> Timestamp {
        let still = *self.still.lock();
        still.map_or_else(|| self.inner.wall(), |still| still.at.1)
    }

    fn sleep_until(&self, deadline: Monotonic) -> Sleep {
        self.inner.sleep_until(deadline)
    }
}
