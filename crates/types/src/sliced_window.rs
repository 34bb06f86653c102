//! A rolling sum over the last `window`, kept in slices.

use std::time::Duration;

use crate::{clock::Monotonic, error::InvalidValue};

/// Sums amounts over a rolling window, in a fixed number of slices: memory is bounded however many amounts come in.
///
/// An amount counts for at least `window` and at most `window` plus one slice, so a sum never understates. Time that goes
/// back counts as no time passed.
#[derive(Debug, Clone)]
pub struct SlicedWindow {
    slice: Duration,
    sums: Box<[u64]>,
    /// Number of the newest slice since the clock's origin.
    newest: u128,
    total: u64,
}

impl SlicedWindow {
    /// A window of `window`, cut into `slices`.
    ///
    /// # Errors
    /// `InvalidValue` if `slices` is zero or a slice would be shorter than a nanosecond.
    pub fn new(window: Duration, slices: u32) -> Result<Self, InvalidValue> {
        let slice = window.checked_div(slices).filter(|s| !s.is_zero());
        let slice = slice.ok_or_else(|| InvalidValue::new("sliced window", "needs a window and at least one slice"))?;
        // One more slice than asked: the oldest one is still partly inside the window.
        let sums = vec![0; slices as usize + 1].into_boxed_slice();
        Ok(Self { slice, sums, newest: 0, total: 0 })
    }

    fn roll(&mut self, now: Monotonic) {
        let current = now.since_origin().as_nanos() / self.slice.as_nanos();
        if current <= self.newest {
            return;
        }
        let len = self.sums.len() as u128;
        for number in (self.newest + 1..=current).rev().take(self.sums.len()) {
            let sum = &mut self.sums[(number % len) as usize];
            self.total -= std::mem::take(sum);
        }
        self.newest = current;
    }

    /// Adds `amount` at `now` and returns the sum with it, saturating.
    pub fn add(&mut self, now: Monotonic, amount: u64) -> u64 {
        self.roll(now);
        let amount = amount.min(u64::MAX - self.total);
        let len = self.sums.len() as u128;
        self.sums[(self.newest % len) as usize] += amount;
        self.total += amount;
        self.total
    }

    /// The sum at `now`.
    pub fn sum(&mut self, now: Monotonic) -> u64 {
        self.roll(now);
        self.total
    }

    /// How long until the oldest amount leaves; zero if there is none.
    pub fn until_next_expiry(&mut self, now: Monotonic) -> Duration {
        self.roll(now);
        let len = self.sums.len() as u128;
        let oldest =
            (0..len).rev().filter_map(|age| self.newest.checked_sub(age)).find(|n| self.sums[(n % len) as usize] > 0);
        oldest.map_or(Duration::ZERO, |number| {
            let out = self.slice.as_nanos() * (number + len);
            let left = out.saturating_sub(now.since_origin().as_nanos());
            Duration::from_nanos(u64::try_from(left).unwrap_or(u64::MAX))
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(ms: u64) -> Monotonic {
        Monotonic::from_origin(Duration::from_millis(ms))
    }

    #[test]
    fn no_burst_at_the_boundary() {
        let mut w = SlicedWindow::new(Duration::from_secs(60), 60).unwrap();
        assert_eq!(w.add(at(59_999), 1_200), 1_200);
        // A counter with a lifetime would have forgotten the first burst here and admitted a second.
        assert_eq!(w.sum(at(60_001)), 1_200);
        assert_eq!(w.sum(at(119_998)), 1_200);
        assert_eq!(w.sum(at(120_000)), 0);
    }

    #[test]
    fn says_when_to_come_back() {
        let mut w = SlicedWindow::new(Duration::from_millis(100), 10).unwrap();
        w.add(at(5), 1);
        let wait = w.until_next_expiry(at(50));
        assert_eq!(w.sum(at(50) + wait), 0);
        assert!(w.until_next_expiry(at(500)).is_zero());
    }

    proptest! {
        #[test]
        fn never_understates_and_forgets_after_a_slice_more(amounts in prop::collection::vec((0u64..500, 1u64..9), 1..60)) {
            let (window, slice) = (100u64, 10u64);
            let mut w = SlicedWindow::new(Duration::from_millis(window), 10).unwrap();
            let (mut now, mut seen) = (0, Vec::new());
            for (step, amount) in amounts {
                now += step;
                seen.push((now, amount));
                let sum = w.add(at(now), amount);
                let exact: u64 = seen.iter().filter(|(t, _)| now - t < window).map(|(_, a)| a).sum();
                let late: u64 = seen.iter().filter(|(t, _)| now - t <= window + slice).map(|(_, a)| a).sum();
                prop_assert!(exact <= sum && sum <= late, "{exact} <= {sum} <= {late}");
            }
        }
    }
}
