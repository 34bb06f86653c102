//! Windows that slide: what was counted leaves in slices, so that no stretch of the window's length ever holds more than its limit.

use std::{num::NonZeroU8, time::Duration};

use crate::error::StoreError;

/// How much is allowed in which time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowLimit {
    /// How much at most: 0 to 2⁵³−1.
    pub max: i64,
    /// In any stretch of this length, kept to the millisecond; at least 1 ms a slice, at most 366 days.
    pub length: Duration,
    /// In how many slices it slides: 1 to 60. What is counted leaves at most one slice late, never early.
    pub slices: NonZeroU8,
}

impl WindowLimit {
    /// The most slices.
    pub const SLICES_MAX: u8 = 60;
    /// The longest window.
    pub const LENGTH_MAX: Duration = Duration::from_secs(366 * 86_400);
    /// Ten slices: what is counted leaves at most a tenth of the length late.
    const SLICES: NonZeroU8 = NonZeroU8::MIN.saturating_add(9);

    /// `max` in any stretch of `length`, in ten slices.
    #[must_use]
    pub fn new(max: i64, length: Duration) -> Self {
        Self { max, length, slices: Self::SLICES }
    }

    pub(crate) fn length_ms(&self) -> i64 {
        i64::try_from(self.length.as_millis()).unwrap_or(i64::MAX)
    }

    pub(crate) fn slice_ms(&self) -> i64 {
        (self.length_ms() / i64::from(self.slices.get())).max(1)
    }

    /// When an amount that comes at `now_ms` has left: the end of its slice, and the length.
    fn until(&self, now_ms: i64) -> i64 {
        let slice = self.slice_ms();
        (now_ms.div_euclid(slice) + 1).saturating_mul(slice).saturating_add(self.length_ms())
    }
}

/// What a window counts: amounts by the moment when they have left, the next to leave first. A limit that changes moves nothing
/// that was counted: each amount leaves as its own time said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Slots(Vec<(i64, i64)>);

/// Why an amount does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full {
    pub(crate) used: i64,
    pub(crate) retry_after: Option<Duration>,
}

impl Slots {
    /// More than twice the most slices of one limit; beyond, the two oldest become one that leaves with the later.
    const MAX: usize = 128;

    /// Counts `by` if it fits, and answers what is counted then.
    pub(crate) fn admit(&mut self, by: i64, limit: &WindowLimit, now_ms: i64) -> Result<i64, Full> {
        self.0.retain(|(until, _)| now_ms < *until);
        let used = self.0.iter().map(|(_, amount)| amount).sum::<i64>();
        if by > limit.max.saturating_sub(used) && by > 0 {
            return Err(Full { used, retry_after: self.room_for(by, used, limit.max, now_ms) });
        }
        if by > 0 {
            let until = limit.until(now_ms);
            match self.0.binary_search_by_key(&until, |(until, _)| *until) {
                Ok(at) => self.0[at].1 += by,
                Err(at) => self.0.insert(at, (until, by)),
            }
            if self.0.len() > Self::MAX {
                let (_, amount) = self.0.remove(0);
                self.0[0].1 += amount;
            }
        }
        Ok(used + by)
    }

    fn room_for(&self, by: i64, used: i64, max: i64, now_ms: i64) -> Option<Duration> {
        let mut left = used;
        let at = self.0.iter().find(|(_, amount)| {
            left -= amount;
            by <= max - left
        });
        at.map(|(until, _)| Duration::from_millis(u64::try_from(until - now_ms).unwrap_or(0)))
    }

    /// When the last amount has left.
    pub(crate) fn ends_ms(&self) -> Option<i64> {
        self.0.last().map(|(until, _)| *until)
    }

    /// `until:amount until:amount …`, as it is stored.
    pub(crate) fn encode(&self) -> String {
        self.0.iter().map(|(until, amount)| format!("{until}:{amount}")).collect::<Vec<_>>().join(" ")
    }

    pub(crate) fn decode(text: &[u8]) -> Result<Self, StoreError> {
        let slot = |word: &str| {
            let (until, amount) = word.split_once(':')?;
            Some((until.parse().ok()?, amount.parse().ok()?))
        };
        let slots = std::str::from_utf8(text).ok().and_then(|text| text.split_whitespace().map(slot).collect());
        slots.map(Self).ok_or_else(|| StoreError::Corrupt { reason: "a window does not read as its slices".into() })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn limit(max: i64, ms: u64, slices: u8) -> WindowLimit {
        WindowLimit { max, length: Duration::from_millis(ms), slices: NonZeroU8::new(slices).unwrap() }
    }

    #[test]
    fn room_comes_back_when_enough_has_left() {
        let limit = limit(10, 100, 10);
        let mut slots = Slots::default();
        assert_eq!(slots.admit(6, &limit, 5), Ok(6)); // leaves at 110
        assert_eq!(slots.admit(4, &limit, 50), Ok(10)); // leaves at 160
        let full = |ms| Full { used: 10, retry_after: Some(Duration::from_millis(ms)) };
        assert_eq!(slots.admit(5, &limit, 100), Err(full(10)));
        assert_eq!(slots.admit(7, &limit, 100), Err(full(60)));
        assert_eq!(slots.admit(11, &limit, 100), Err(Full { used: 10, retry_after: None }));
        assert_eq!(slots.admit(0, &limit, 109), Ok(10));
        assert_eq!(slots.admit(5, &limit, 110), Ok(9));
    }

    #[test]
    fn a_full_window_still_tells_what_is_used_after_its_limit_was_lowered() {
        let mut slots = Slots::default();
        assert_eq!(slots.admit(6, &limit(6, 100, 1), 0), Ok(6));
        assert_eq!(slots.admit(0, &limit(2, 100, 1), 0), Ok(6));
    }

    proptest! {
        /// Whatever comes when: no stretch of the window's length ever holds more than its limit.
        #[test]
        fn no_stretch_holds_more_than_the_limit(
            arrivals in prop::collection::vec((0i64..40, 1i64..6), 1..80), slices in 1u8..12, max in 1i64..20,
        ) {
            let limit = limit(max, 100, slices);
            let (mut now, mut slots, mut admitted) = (0, Slots::default(), Vec::new());
            for (pause, by) in arrivals {
                now += pause;
                slots = Slots::decode(slots.encode().as_bytes()).unwrap();
                match slots.admit(by, &limit, now) {
                    Ok(used) => {
                        prop_assert!(used <= max);
                        admitted.push((now, by));
                    }
                    Err(full) => {
                        // What is told about the wait is true if nobody else comes.
                        if let Some(wait) = full.retry_after {
                            let then = now + i64::try_from(wait.as_millis()).unwrap();
                            prop_assert!(slots.clone().admit(by, &limit, then).is_ok());
                            prop_assert!(slots.clone().admit(by, &limit, then - 1).is_err());
                        } else {
                            prop_assert!(by > max);
                        }
                    }
                }
                let stretch: i64 = admitted.iter().filter(|(at, _)| *at > now - 100).map(|(_, by)| by).sum();
                prop_assert!(stretch <= max);
            }
        }

        #[test]
        fn slots_stay_few_whatever_the_limits(arrivals in prop::collection::vec((0i64..50, 1u64..10_000, 1u8..60), 1..400)) {
            let (mut now, mut slots) = (0, Slots::default());
            for (pause, ms, slices) in arrivals {
                now += pause;
                let _ = slots.admit(1, &limit(1_000, ms, slices), now);
                prop_assert!(slots.0.len() <= Slots::MAX);
                prop_assert!(slots.0.is_sorted());
            }
        }
    }
}
