//! How far one receiver has come, and whether a publisher waits for it.

use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};

use super::sync::AtomicU64;

/// Set while a publisher waits for this receiver to go on.
const WANTED: u64 = 1;

/// A position and the bit [`WANTED`], in **one** word: setting the bit and moving on are both read-modify-writes of the same
/// location, so one of the two always sees the other. With a position here and a flag there, each side could read before the
/// other's write arrives, and the publisher would sleep for ever.
///
/// On lines of its own (two, since processors fetch pairs): it is written at every event, and its neighbours would pay.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct Seat(AtomicU64);

impl Seat {
    /// A receiver whose next event is number `position`.
    pub(super) fn new(position: u64) -> Self {
        Self(AtomicU64::new(position << 1))
    }

    /// How many events it has taken; an old answer is a smaller one.
    pub(super) fn position(&self) -> u64 {
        self.0.load(Acquire) >> 1
    }

    /// Goes on by `count`; says whether a publisher waits for that.
    #[must_use]
    pub(super) fn advance(&self, count: u64) -> bool {
        self.0.fetch_add(count << 1, AcqRel) & WANTED != 0
    }

    /// Asks to be told of the next [`Seat::advance`]; gives the position after which that is.
    pub(super) fn ask(&self) -> u64 {
        self.0.fetch_or(WANTED, AcqRel) >> 1
    }

    /// Ends the asking. Called under the topic's lock, as `ask` is.
    pub(super) fn answered(&self) {
        self.0.fetch_and(!WANTED, Relaxed);
    }
}
