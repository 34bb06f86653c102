//! Windows that slide, in a fixed ring: what is counted leaves with its slice, never early and at most one slice late. The rule is
//! that of the store's windows, by monotonic time.

use std::time::Duration;

/// Of a window; the same number as the store's.
const SLICES: u64 = 10;
/// A slice is at least a millisecond, so that a length that is no multiple has up to twice as many, and one that is being filled.
const RING: usize = 24;

/// How much there was in the last while, and how much there may be.
#[derive(Debug, Clone)]
pub(super) struct Window {
    /// At most.
    pub(super) max: i64,
    length_ms: u64,
    slice_ms: u64,
    /// The newest slice, counted from the clock's origin.
    newest: u64,
    /// The newest slice of which nothing counts any more, plus one.
    oldest: u64,
    total: i64,
    ring: [i64; RING],
}

impl Window {
    pub(super) fn new(max: i64, length: Duration) -> Self {
        let length_ms = u64::try_from(length.as_millis()).unwrap_or(u64::MAX / 4).clamp(1, u64::MAX / 4);
        let slice_ms = (length_ms / SLICES).max(1);
        Self { max, length_ms, slice_ms, newest: 0, oldest: 0, total: 0, ring: [0; RING] }
    }

    #[inline]
    fn at(slice: u64) -> usize {
        // The rest is below RING.
        (slice % RING as u64) as usize
    }

    /// What counts at `now_ns` on the clock that the window has always been asked with. Time that goes back changes nothing.
    #[inline]
    pub(super) fn used(&mut self, now_ns: u64) -> i64 {
        let now_ms = now_ns / 1_000_000;
        let current = now_ms / self.slice_ms;
        if current > self.newest {
            self.newest = current;
        }
        // A slice leaves `length` after its end.
        let live_from = now_ms.saturating_sub(self.length_ms) / self.slice_ms;
        if live_from > self.oldest {
            self.forget(live_from);
        }
        self.total
    }

    fn forget(&mut self, live_from: u64) {
        let first = self.oldest;
        for slice in first..live_from.min(first + RING as u64) {
            self.total -= std::mem::take(&mut self.ring[Self::at(slice)]);
        }
        self.oldest = live_from;
    }

    /// Counts `by` in the slice of the last [`Window::used`].
    #[inline]
    pub(super) fn add(&mut self, by: i64) {
        self.ring[Self::at(self.newest)] += by;
        self.total += by;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// No stretch of the length holds more than is counted, and nothing counts longer than the length and a slice.
        #[test]
        fn never_understates(steps in prop::collection::vec((0u64..40, 1i64..9), 1..200), length in 1u64..137) {
            let mut window = Window::new(i64::MAX, Duration::from_millis(length));
            let slice = (length / 10).max(1);
            let (mut now, mut seen) = (1_000_u64, Vec::new());
            for (step, amount) in steps {
                now += step;
                let used = window.used(now * 1_000_000);
                let exact: i64 = seen.iter().filter(|(t, _)| now - t < length).map(|(_, a)| a).sum();
                let by_slice: i64 = seen.iter().filter(|(t, _)| now < (t / slice + 1) * slice + length).map(|(_, a)| a).sum();
                prop_assert!(exact <= used);
                prop_assert_eq!(used, by_slice, "as the store counts");
                window.add(amount);
                seen.push((now, amount));
            }
        }
    }

    #[test]
    fn a_long_silence_forgets_everything() {
        let mut window = Window::new(10, Duration::from_secs(1));
        window.used(5_000_000_000);
        window.add(7);
        assert_eq!(window.used(5_500_000_000), 7);
        assert_eq!(window.used(4_000_000_000), 7, "time that goes back changes nothing");
        assert_eq!(window.used(500_000_000_000), 0);
    }
}
