//! The last quote of each instrument, in memory.

use std::{collections::BTreeMap, time::Duration};

use infra_types::{Decimal, InstrumentId, InvalidValue, Monotonic, Price, Timestamp};
use serde::{Deserialize, Serialize};

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
        // Halving first cannot overflow.
        self.bid.get() / Decimal::TWO + self.ask.get() / Decimal::TWO
    }
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    quote: Quote,
    /// How old it was when it came.
    age: Duration,
    received: Monotonic,
}

/// The quotes that were taken.
#[derive(Debug, Default)]
pub(crate) struct Market {
    quotes: BTreeMap<InstrumentId, Seen>,
}

impl Market {
    /// Takes a quote; refuses one that makes no sense, that is from the future, or that is older than the one it has.
    pub(crate) fn update(
        &mut self,
        instrument: &InstrumentId,
        quote: Quote,
        wall: Timestamp,
        now: Monotonic,
        skew_max: Duration,
    ) -> Result<(), InvalidValue> {
        let bad = |rule: String| Err(InvalidValue::new("quote", format!("{instrument}: {rule}")));
        if quote.bid > quote.ask {
            return bad(format!("crossed: bid {} is above ask {}", quote.bid, quote.ask));
        }
        if quote.at.since(wall) > skew_max {
            return bad(format!("{} is in the future, it is {wall}: check the clocks", quote.at));
        }
        match self.quotes.get(instrument) {
            Some(seen) if seen.quote.at > quote.at => bad(format!("{} came after {}", quote.at, seen.quote.at)),
            _ => {
                let seen = Seen { quote, age: wall.since(quote.at), received: now };
                self.quotes.insert(instrument.clone(), seen);
                Ok(())
            }
        }
    }

    /// The last quote and its age. The age grows with the monotonic clock: a wall clock that steps back makes no quote
    /// young again.
    pub(crate) fn quote(&self, instrument: &InstrumentId, now: Monotonic) -> Option<(Quote, Duration)> {
        self.quotes.get(instrument).map(|seen| (seen.quote, seen.age.saturating_add(now.since(seen.received))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quote(bid: &str, ask: &str, at_s: i64) -> Quote {
        Quote { bid: bid.parse().unwrap(), ask: ask.parse().unwrap(), at: Timestamp::from_millis(at_s * 1_000) }
    }

    #[test]
    fn refuses_crossed_future_and_older_quotes_and_keeps_the_last_good_one() {
        let (id, now, skew) = ("v/X".parse().unwrap(), Monotonic::default(), Duration::from_secs(1));
        let wall = Timestamp::from_millis(100_000);
        let mut market = Market::default();
        market.update(&id, quote("99", "101", 100), wall, now, skew).unwrap();
        for bad in [quote("102", "101", 100), quote("99", "101", 102), quote("99", "101", 99)] {
            assert!(market.update(&id, bad, wall, now, skew).is_err(), "{bad:?}");
        }
        let (kept, _) = market.quote(&id, now).unwrap();
        assert_eq!(kept.mid(), Decimal::ONE_HUNDRED);
        market.update(&id, quote("99", "99", 101), wall, now, skew).unwrap();
    }

    #[test]
    fn age_is_that_at_arrival_plus_time_since() {
        let (id, now) = ("v/X".parse().unwrap(), Monotonic::default());
        let mut market = Market::default();
        let wall = Timestamp::from_millis(103_000);
        market.update(&id, quote("99", "101", 100), wall, now, Duration::ZERO).unwrap();
        let (_, age) = market.quote(&id, now + Duration::from_secs(4)).unwrap();
        assert_eq!(age, Duration::from_secs(7));
    }
}
