//! How long to wait before trying again.

use std::time::Duration;

use crate::error::InvalidValue;

/// How the delay is spread, so that a fleet does not come back in step.
///
/// Source of the names: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Jitter {
    /// Exactly the capped delay.
    None,
    /// Evenly between zero and the capped delay.
    #[default]
    Full,
    /// Evenly between half the capped delay and all of it.
    Equal,
}

/// Exponential delays: `initial × factor^(attempt−1)`, **capped first, then jittered inside the cap**, so that no delay
/// is ever above `max` and the spread stays at the cap.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Backoff {
    initial: Duration,
    max: Duration,
    factor: u32,
    jitter: Jitter,
}

impl Default for Backoff {
    /// 100 ms, doubling, to 10 s, full jitter.
    fn default() -> Self {
        Self { initial: Duration::from_millis(100), max: Duration::from_secs(10), factor: 2, jitter: Jitter::Full }
    }
}

impl Backoff {
    /// Delays from `initial` to `max`, growing by `factor`.
    ///
    /// # Errors
    /// `InvalidValue` if `initial` is zero or above `max`, or `factor` is zero.
    pub fn new(initial: Duration, max: Duration, factor: u32, jitter: Jitter) -> Result<Self, InvalidValue> {
        if initial.is_zero() || initial > max {
            return Err(InvalidValue::new("backoff", "the initial delay must be above zero and at most the maximum"));
        }
        if factor == 0 {
            return Err(InvalidValue::new("backoff", "the factor must be at least 1"));
        }
        Ok(Self { initial, max, factor, jitter })
    }

    /// The delay that follows attempt number `attempt` (the first is 1), without jitter. O(1), saturating.
    #[must_use]
    pub fn ceiling(&self, attempt: u32) -> Duration {
        let grown = self.factor.checked_pow(attempt.saturating_sub(1)).and_then(|f| self.initial.checked_mul(f));
        grown.map_or(if self.factor == 1 { self.initial } else { self.max }, |d| d.min(self.max))
    }

    /// The delay that follows attempt number `attempt`, spread by `random` (any 64 uniform bits; the caller owns them).
    #[must_use]
    pub fn delay(&self, attempt: u32, random: u64) -> Duration {
        let ceiling = self.ceiling(attempt);
        // At most (2^64-1)·2^64 before the shift: the product fits u128 for any delay below 2^64 ns (584 years).
        let share = |of: Duration| {
            let nanos = (u64::try_from(of.as_nanos()).unwrap_or(u64::MAX) as u128 * u128::from(random)) >> 64;
            Duration::from_nanos(nanos as u64)
        };
        match self.jitter {
            Jitter::None => ceiling,
            Jitter::Full => share(ceiling),
            Jitter::Equal => ceiling / 2 + share(ceiling / 2),
        }
    }

    /// The largest delay there can be.
    #[must_use]
    pub fn max(&self) -> Duration {
        self.max
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn grows_then_stays_at_the_cap() {
        let b = Backoff::new(Duration::from_millis(100), Duration::from_secs(1), 2, Jitter::None).unwrap();
        let ms: Vec<_> = [1, 2, 3, 4, 5, 6, u32::MAX].iter().map(|n| b.delay(*n, 0).as_millis()).collect();
        assert_eq!(ms, [100, 200, 400, 800, 1000, 1000, 1000]);
    }

    #[test]
    fn a_constant_backoff_stays_constant() {
        let b = Backoff::new(Duration::from_millis(5), Duration::from_secs(1), 1, Jitter::None).unwrap();
        assert_eq!(b.delay(u32::MAX, 7), Duration::from_millis(5));
    }

    #[test]
    fn refuses_what_makes_no_sense() {
        let s = Duration::from_secs;
        assert!(Backoff::new(s(0), s(1), 2, Jitter::None).is_err());
        assert!(Backoff::new(s(2), s(1), 2, Jitter::None).is_err());
        assert!(Backoff::new(s(1), s(1), 0, Jitter::None).is_err());
    }

    proptest! {
        #[test]
        fn never_above_the_cap_and_spread_at_the_cap(attempt in 0u32.., random: u64, initial in 1u64..5_000, more in 0u64..100_000) {
            let max = Duration::from_millis(initial + more);
            for jitter in [Jitter::None, Jitter::Full, Jitter::Equal] {
                let b = Backoff::new(Duration::from_millis(initial), max, 3, jitter).unwrap();
                prop_assert!(b.delay(attempt, random) <= max);
            }
            let full = Backoff::new(max, max, 2, Jitter::Full).unwrap();
            prop_assert!(full.delay(attempt, 0).is_zero());
            prop_assert!(full.delay(attempt, u64::MAX) > max / 2);
        }
    }
}
