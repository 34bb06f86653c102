//! The last N verdicts, one bit each.

/// A ring: the newest verdict takes the place of the oldest, so the window slides with every call.
#[derive(Debug)]
pub(super) struct CountWindow {
    bits: Box<[u64]>,
    size: u32,
    next: u32,
    filled: u32,
    failures: u32,
}

impl CountWindow {
    pub(super) fn new(size: u32) -> Self {
        Self { bits: vec![0; size.div_ceil(64) as usize].into_boxed_slice(), size, next: 0, filled: 0, failures: 0 }
    }

    pub(super) fn push(&mut self, failed: bool) {
        let word = &mut self.bits[(self.next / 64) as usize];
        let mask = 1u64 << (self.next % 64);
        // A place that was never filled holds zero, so it can be forgotten like any other.
        self.failures = self.failures - u32::from(*word & mask != 0) + u32::from(failed);
        *word = if failed { *word | mask } else { *word & !mask };
        self.next = if self.next + 1 == self.size { 0 } else { self.next + 1 };
        self.filled = (self.filled + 1).min(self.size);
    }

    pub(super) fn clear(&mut self) {
        self.bits.fill(0);
        (self.next, self.filled, self.failures) = (0, 0, 0);
    }

    pub(super) fn calls(&self) -> u32 {
        self.filled
    }

    pub(super) fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn s16_the_count_window_is_a_ring(size in 1u32..200, verdicts in prop::collection::vec(any::<bool>(), 0..600)) {
            let mut window = CountWindow::new(size);
            let mut model = VecDeque::new();
            for failed in verdicts {
                window.push(failed);
                model.push_back(failed);
                if model.len() > size as usize {
                    model.pop_front();
                }
                prop_assert_eq!(window.calls() as usize, model.len());
                prop_assert_eq!(window.failures() as usize, model.iter().filter(|f| **f).count());
            }
            window.clear();
            prop_assert_eq!((window.calls(), window.failures()), (0, 0));
            window.push(false);
            prop_assert_eq!((window.calls(), window.failures()), (1, 0));
        }
    }
}
