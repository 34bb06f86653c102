//! The last quote of each instrument, and how far its price moved, in memory.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use infra_types::{Decimal, InstrumentId, Monotonic, Price, Timestamp};
use serde::{Deserialize, Serialize};

use crate::limits::PriceRange;

/// The best prices of an instrument at one moment, in its quote currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quote {
    /// The best price that somebody pays.
    pub bid: Price,
    /// The best price that somebody asks.
    pub ask: Price,
    /// When the market said so.
    pub at: Timestamp,
}

impl Quote {
    /// The middle between bid and ask.
    #[must_use]
    pub fn mid(&self) -> Decimal {
        // Halving first; of two that are both the largest figure there is, the halves round up.
        (self.bid.get() / Decimal::TWO).saturating_add(self.ask.get() / Decimal::TWO)
    }
}

/// Why a quote was not taken (FIA 2024: unreasonable market data blocks). The last good one stays and grows old.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QuoteError {
    /// Somebody pays more than somebody asks.
    #[error("{instrument}: crossed: bid {bid} is above ask {ask}")]
    Crossed {
        /// Of what.
        instrument: InstrumentId,
        /// The best price that somebody pays.
        bid: Price,
        /// The best price that somebody asks.
        ask: Price,
    },
    /// It claims to be later than now by more than `clock_skew_max`.
    #[error("{instrument}: {} ms in the future, at most {} are tolerated: check the clocks", .ahead.as_millis(), .max.as_millis())]
    FromTheFuture {
        /// Of what.
        instrument: InstrumentId,
        /// How far in the future.
        ahead: Duration,
        /// What is tolerated.
        max: Duration,
    },
    /// A later one was taken before.
    #[error("{instrument}: came {} ms after a later one", .behind.as_millis())]
    OutOfOrder {
        /// Of what.
        instrument: InstrumentId,
        /// How much older than the last one it is.
        behind: Duration,
    },
}

/// How many quotes were refused since the engine was made, by reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct QuotesRefused {
    /// Bid above ask.
    pub crossed: u64,
    /// Later than now.
    pub from_the_future: u64,
    /// Older than the last one.
    pub out_of_order: u64,
}

#[derive(Debug)]
struct Seen {
    quote: Quote,
    /// How old it was when it came.
    age: Duration,
    received: Monotonic,
    /// Lowest and highest price, by the length of the window.
    ranges: BTreeMap<Duration, PriceRange>,
}

/// The quotes that were taken.
#[derive(Debug, Default)]
pub(crate) struct Market {
    quotes: BTreeMap<InstrumentId, Seen>,
    pub(crate) refused: QuotesRefused,
}

impl Market {
    /// Takes a quote; refuses one that makes no sense, that is from the future, or that is older than the one it has. Keeps the
    /// range of prices of `windows`.
    pub(crate) fn update(
        &mut self,
        instrument: &InstrumentId,
        quote: Quote,
        wall: Timestamp,
        now: Monotonic,
        skew_max: Duration,
        windows: &BTreeSet<Duration>,
    ) -> Result<(), QuoteError> {
        if quote.bid > quote.ask {
            self.refused.crossed += 1;
            let (bid, ask) = (quote.bid, quote.ask);
            return Err(QuoteError::Crossed { instrument: instrument.clone(), bid, ask });
        }
        let ahead = quote.at.since(wall);
        if ahead > skew_max {
            self.refused.from_the_future += 1;
            return Err(QuoteError::FromTheFuture { instrument: instrument.clone(), ahead, max: skew_max });
        }
        let last = self.quotes.get(instrument).map(|seen| seen.quote.at);
        if let Some(last) = last.filter(|last| *last > quote.at) {
            self.refused.out_of_order += 1;
            return Err(QuoteError::OutOfOrder { instrument: instrument.clone(), behind: last.since(quote.at) });
        }
        let age = wall.since(quote.at);
        let seen = self.quotes.entry(instrument.clone());
        let seen = seen.or_insert_with(|| Seen { quote, age, received: now, ranges: BTreeMap::new() });
        (seen.quote, seen.age, seen.received) = (quote, age, now);
        seen.ranges.retain(|window, _| windows.contains(window));
        for window in windows {
            if !seen.ranges.contains_key(window)
                && let Ok(range) = PriceRange::new(*window)
            {
                seen.ranges.insert(*window, range);
            }
            if let Some(range) = seen.ranges.get_mut(window) {
                range.take(now, quote.mid());
            }
        }
        Ok(())
    }

    /// The last quote and its age. The age grows with the monotonic clock: a wall clock that steps back makes no quote
    /// young again.
    pub(crate) fn quote(&self, instrument: &InstrumentId, now: Monotonic) -> Option<(Quote, Duration)> {
        self.quotes.get(instrument).map(|seen| (seen.quote, seen.age.saturating_add(now.since(seen.received))))
    }

    /// Lowest and highest middle of the window that ends now; none before the first quote since somebody asked for this window.
    pub(crate) fn range(
        &self,
        instrument: &InstrumentId,
        window: Duration,
        now: Monotonic,
    ) -> Option<(Decimal, Decimal)> {
        self.quotes.get(instrument)?.ranges.get(&window)?.range(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quote(bid: &str, ask: &str, at_ms: i64) -> Quote {
        Quote { bid: bid.parse().unwrap(), ask: ask.parse().unwrap(), at: Timestamp::from_millis(at_ms) }
    }

    #[test]
    fn refuses_crossed_future_and_older_quotes_and_keeps_the_last_good_one() {
        let (id, now, skew) = ("v/X".parse().unwrap(), Monotonic::default(), Duration::from_secs(1));
        let wall = Timestamp::from_millis(100_000);
        let mut market = Market::default();
        let none = BTreeSet::new();
        let mut take = |quote| market.update(&id, quote, wall, now, skew, &none);
        take(quote("99", "101", 100_000)).unwrap();
        assert!(matches!(take(quote("102", "101", 100_000)), Err(QuoteError::Crossed { .. })));
        let ahead = take(quote("99", "101", 101_300)).unwrap_err();
        assert!(matches!(ahead, QuoteError::FromTheFuture { ahead, .. } if ahead == Duration::from_millis(1_300)));
        assert!(ahead.to_string().contains("1300 ms in the future, at most 1000 are tolerated"), "{ahead}");
        assert!(matches!(take(quote("99", "101", 99_999)), Err(QuoteError::OutOfOrder { .. })));
        take(quote("98", "98", 101_000)).unwrap();
        assert_eq!(market.quote(&id, now).unwrap().0.mid(), Decimal::from(98));
        assert_eq!(market.refused, QuotesRefused { crossed: 1, from_the_future: 1, out_of_order: 1 });
    }

    #[test]
    fn a_clock_that_is_off_is_tolerated_as_far_as_was_said() {
        let (id, now) = ("v/X".parse().unwrap(), Monotonic::default());
        let (wall, ahead) = (Timestamp::from_millis(100_000), quote("99", "101", 101_300));
        let mut market = Market::default();
        market.update(&id, ahead, wall, now, Duration::from_millis(1_300), &BTreeSet::new()).unwrap();
        assert_eq!(market.quote(&id, now).unwrap().1, Duration::ZERO, "no quote is younger than now");
    }

    #[test]
    fn age_is_that_at_arrival_plus_time_since() {
        let (id, now) = ("v/X".parse().unwrap(), Monotonic::default());
        let mut market = Market::default();
        let wall = Timestamp::from_millis(103_000);
        market.update(&id, quote("99", "101", 100_000), wall, now, Duration::ZERO, &BTreeSet::new()).unwrap();
        let (_, age) = market.quote(&id, now + Duration::from_secs(4)).unwrap();
        assert_eq!(age, Duration::from_secs(7));
    }

    #[test]
    fn the_range_of_each_window_is_kept() {
        let (id, mut now) = ("v/X".parse().unwrap(), Monotonic::default());
        let windows: BTreeSet<_> = [Duration::from_secs(1), Duration::from_secs(60)].into();
        let mut market = Market::default();
        for (n, price) in ["100", "90", "95"].into_iter().enumerate() {
            now = now + Duration::from_secs(2);
            let at = i64::try_from(n).unwrap() * 2_000;
            let wall = Timestamp::from_millis(at);
            market.update(&id, quote(price, price, at), wall, now, Duration::ZERO, &windows).unwrap();
        }
        let range = |seconds| market.range(&id, Duration::from_secs(seconds), now);
        assert_eq!(range(60), Some((Decimal::from(90), Decimal::from(100))));
        // The price before the last one held until the last one came.
        assert_eq!(range(1), Some((Decimal::from(90), Decimal::from(95))));
        assert_eq!(range(2), None, "nobody asked for it");
    }
}
