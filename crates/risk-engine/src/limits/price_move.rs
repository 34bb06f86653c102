//! How far the market may have moved in a while for anything to be opened (RTS 6 art. 15(1)(a) over a period, R15; FIA 2010, R36).

use std::{collections::VecDeque, time::Duration};

use infra_types::{Decimal, InvalidValue, Monotonic, Scope};

use super::codes;
use crate::decision::Check;

/// The lowest and the highest middle of the window against the limit: `(high − low) / low`, so that a fall and the same rise
/// weigh alike. None was seen, or nonsense: refused.
///
/// A window that is younger than its length is judged by what it has: blocking for the whole length after each start would tempt
/// people to turn the limit off.
#[must_use]
pub fn price_move(scope: Scope, part: Decimal, range: Option<(Decimal, Decimal)>) -> Check {
    let sound = |(low, high): &(Decimal, Decimal)| *low > Decimal::ZERO && high >= low;
    let Some((low, high)) = range.filter(sound) else {
        return Check::missing(codes::NO_REFERENCE_PRICE, scope, "no price was seen in the window");
    };
    let figures = high.checked_sub(low).zip(part.checked_mul(low));
    match figures.and_then(|(moved, allowed)| Some((moved.checked_div(low)?, moved <= allowed))) {
        Some((value, passed)) => Check::new(codes::PRICE_MOVE, scope, value, part, passed),
        None => Check::missing(codes::OVERFLOW, scope, "the move is too large to be reckoned with"),
    }
}

/// Lowest and highest price of a sliding window, in at most [`PriceRange::SLICES`] + 1 slices: memory is bounded however many quotes
/// come. A price counts for at least the window and at most one slice longer, so that a move is never understated. Time that goes
/// back counts as no time passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PriceRange {
    slice: Duration,
    /// (number of the slice since the clock's origin, lowest, highest), the oldest first.
    slices: VecDeque<(u128, Decimal, Decimal)>,
    /// The last price that was taken: it holds until the next one comes.
    last: Option<Decimal>,
}

impl PriceRange {
    /// In how many slices a window slides.
    pub const SLICES: u32 = 32;

    /// A window of `window`.
    ///
    /// # Errors
    /// `InvalidValue` if a slice would be shorter than a nanosecond.
    pub fn new(window: Duration) -> Result<Self, InvalidValue> {
        let slice = window.checked_div(Self::SLICES).filter(|slice| !slice.is_zero());
        let slice = slice.ok_or_else(|| InvalidValue::new("price window", "is too short to be sliced"))?;
        Ok(Self { slice, slices: VecDeque::with_capacity(Self::SLICES as usize + 2), last: None })
    }

    fn number(&self, now: Monotonic) -> u128 {
        let number = now.since_origin().as_nanos() / self.slice.as_nanos();
        self.slices.back().map_or(number, |(newest, ..)| number.max(*newest))
    }

    /// Takes a price at `now`.
    pub fn take(&mut self, now: Monotonic, price: Decimal) {
        let number = self.number(now);
        // Until now the price before this one held.
        let (low, high) = self.last.map_or((price, price), |last| (last.min(price), last.max(price)));
        match self.slices.back_mut() {
            Some((newest, l, h)) if *newest == number => (*l, *h) = ((*l).min(price), (*h).max(price)),
            _ => self.slices.push_back((number, low, high)),
        }
        self.last = Some(price);
        while self.slices.front().is_some_and(|(oldest, ..)| number - oldest > u128::from(Self::SLICES)) {
            self.slices.pop_front();
        }
    }

    /// Lowest and highest price that counted at any moment of the window that ends at `now`; none before the first.
    #[must_use]
    pub fn range(&self, now: Monotonic) -> Option<(Decimal, Decimal)> {
        let number = self.number(now);
        let last = self.last?;
        let counted = self.slices.iter().filter(|(of, ..)| number - of <= u128::from(Self::SLICES));
        Some(counted.fold((last, last), |(low, high), (_, l, h)| (low.min(*l), high.max(*h))))
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
    fn the_limit_itself_passes_and_a_fall_weighs_like_the_rise() {
        let part = Decimal::new(10, 2);
        let judge =
            |low: i64, high: i64| price_move(Scope::Firm, part, Some((Decimal::from(low), Decimal::from(high))));
        assert!(judge(100, 110).passed && judge(100, 100).passed);
        let check = judge(100, 111);
        assert_eq!((check.code, check.passed, check.value), ("price_move", false, Decimal::new(11, 2)));
    }

    #[test]
    fn what_cannot_be_reckoned_is_refused() {
        let part = Decimal::new(10, 2);
        for range in [None, Some((Decimal::ZERO, Decimal::ONE)), Some((Decimal::TWO, Decimal::ONE))] {
            let check = price_move(Scope::Firm, part, range);
            assert_eq!((check.code, check.passed), ("no_reference_price", false), "{range:?}");
        }
        let check = price_move(Scope::Firm, part, Some((Decimal::new(1, 28), Decimal::MAX)));
        assert_eq!((check.code, check.passed), ("overflow", false));
    }

    #[test]
    fn a_price_leaves_after_the_window_and_the_last_one_stays() {
        assert!(PriceRange::new(Duration::from_nanos(31)).is_err());
        let mut range = PriceRange::new(Duration::from_millis(320)).unwrap();
        assert_eq!(range.range(at(0)), None);
        range.take(at(0), Decimal::from(90));
        range.take(at(5), Decimal::from(100));
        let both = Some((Decimal::from(90), Decimal::from(100)));
        assert_eq!(range.range(at(325)), both, "90 was the price until 5 ms: inside the window until 325");
        assert_eq!(range.range(at(330)), Some((Decimal::from(100), Decimal::from(100))));
        range.take(at(100_000), Decimal::from(80));
        assert_eq!(range.range(at(100_000)), Some((Decimal::from(80), Decimal::from(100))), "100 held until now");
        range.take(at(1), Decimal::from(120));
        assert_eq!(range.range(at(1)), Some((Decimal::from(80), Decimal::from(120))), "a clock that steps back");
    }

    proptest! {
        /// Never understated against every price that held in the window, never older than a slice more, and bounded.
        #[test]
        fn a_move_is_never_understated(steps in prop::collection::vec((0u64..80, 1i64..1_000), 1..200)) {
            let mut range = PriceRange::new(Duration::from_millis(320)).unwrap();
            let (mut now, mut all) = (0u64, Vec::<(u64, i64)>::new());
            for (pause, price) in steps {
                now += pause;
                range.take(at(now), Decimal::from(price));
                all.push((now, price));
                // A price holds from its coming to the next one's.
                let held = |window: u64| {
                    let ends = all.iter().skip(1).map(|(t, _)| *t).chain([u64::MAX / 2]);
                    let inside: Vec<i64> =
                        all.iter().zip(ends).filter(|(_, end)| *end + window >= now).map(|((_, p), _)| *p).collect();
                    (*inside.iter().min().unwrap(), *inside.iter().max().unwrap())
                };
                let (low, high) = range.range(at(now)).unwrap();
                let ((exact_low, exact_high), (wide_low, wide_high)) = (held(319), held(330));
                prop_assert!(low <= Decimal::from(exact_low) && high >= Decimal::from(exact_high));
                prop_assert!(low >= Decimal::from(wide_low) && high <= Decimal::from(wide_high));
                prop_assert!(range.slices.len() <= PriceRange::SLICES as usize + 1);
            }
        }
    }
}
