//! What is traded, and the rules its venue sets.

use std::{fmt, str::FromStr};

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::{
    error::InvalidValue,
    ids::{Symbol, Venue},
    money::{Currency, Price, Qty},
};

/// A symbol at a venue; prints as `venue/symbol`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InstrumentId {
    /// Where.
    pub venue: Venue,
    /// What.
    pub symbol: Symbol,
}

impl InstrumentId {
    /// A symbol at a venue.
    #[must_use]
    pub fn new(venue: Venue, symbol: Symbol) -> Self {
        Self { venue, symbol }
    }
}

impl fmt::Display for InstrumentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.venue, self.symbol)
    }
}

impl FromStr for InstrumentId {
    type Err = InvalidValue;
    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let (venue, symbol) = text
            .split_once('/')
            .ok_or_else(|| InvalidValue::new("instrument", format!("must be venue/symbol, is {text:?}")))?;
        Ok(Self::new(venue.parse()?, symbol.parse()?))
    }
}

impl TryFrom<String> for InstrumentId {
    type Error = InvalidValue;
    fn try_from(text: String) -> Result<Self, InvalidValue> {
        text.parse()
    }
}

impl From<InstrumentId> for String {
    fn from(id: InstrumentId) -> Self {
        id.to_string()
    }
}

/// The venue's rules for one instrument. Prices are in `quote` per unit of `base`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstrumentSpec {
    /// Which instrument.
    pub id: InstrumentId,
    /// What a unit is, e.g. BTC.
    pub base: Currency,
    /// What it is priced and paid in, e.g. USDT.
    pub quote: Currency,
    /// A price is a whole multiple of it.
    pub tick_size: Decimal,
    /// A quantity is a whole multiple of it.
    pub lot_size: Decimal,
    /// The smallest quantity of an order.
    pub qty_min: Qty,
    /// The largest quantity of an order.
    pub qty_max: Qty,
    /// The smallest price × quantity of an order, in `quote`.
    pub notional_min: Decimal,
    /// What a maker pays, as a part of the notional (0.001 = 10 bp); negative is a rebate.
    pub maker_fee_rate: Decimal,
    /// What a taker pays, as a part of the notional.
    pub taker_fee_rate: Decimal,
}

/// The rule of the venue that an order breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpecViolation {
    /// The price is not on the grid.
    #[error("price {price} is not a multiple of the tick {tick}")]
    OffTick {
        /// The order's price.
        price: Price,
        /// The grid.
        tick: Decimal,
    },
    /// The quantity is not on the grid.
    #[error("quantity {qty} is not a multiple of the lot {lot}")]
    OffLot {
        /// The order's quantity.
        qty: Qty,
        /// The grid.
        lot: Decimal,
    },
    /// The quantity is out of bounds (zero too).
    #[error("quantity {qty} is outside {min} to {max}")]
    QtyOutOfBounds {
        /// The order's quantity.
        qty: Qty,
        /// The smallest.
        min: Qty,
        /// The largest.
        max: Qty,
    },
    /// The order is too small in value.
    #[error("notional {notional} is below the venue's minimum {min}")]
    NotionalTooSmall {
        /// The order's price × quantity.
        notional: Decimal,
        /// The smallest.
        min: Decimal,
    },
}

impl InstrumentSpec {
    /// Checks that the rules themselves make sense.
    ///
    /// # Errors
    /// `InvalidValue` if tick or lot is not above zero, or the smallest quantity is above the largest.
    pub fn validate(&self) -> Result<(), InvalidValue> {
        let bad = |rule: &str| Err(InvalidValue::new("instrument spec", format!("{}: {rule}", self.id)));
        if self.tick_size <= Decimal::ZERO || self.lot_size <= Decimal::ZERO {
            return bad("tick_size and lot_size must be above zero");
        }
        if self.qty_min > self.qty_max {
            return bad("qty_min must be at most qty_max");
        }
        Ok(())
    }

    /// Checks an order's price and quantity against the venue's rules.
    ///
    /// # Errors
    /// The first `SpecViolation`.
    pub fn check(&self, qty: Qty, price: Price) -> Result<(), SpecViolation> {
        let off_grid = |value: Decimal, step: Decimal| value.checked_rem(step).is_none_or(|rest| !rest.is_zero());
        if off_grid(price.get(), self.tick_size) {
            return Err(SpecViolation::OffTick { price, tick: self.tick_size });
        }
        if qty == Qty::ZERO || qty < self.qty_min || qty > self.qty_max {
            return Err(SpecViolation::QtyOutOfBounds { qty, min: self.qty_min, max: self.qty_max });
        }
        if off_grid(qty.get(), self.lot_size) {
            return Err(SpecViolation::OffLot { qty, lot: self.lot_size });
        }
        match price.get().checked_mul(qty.get()) {
            Some(notional) if notional < self.notional_min => {
                Err(SpecViolation::NotionalTooSmall { notional, min: self.notional_min })
            }
            _ => Ok(()),
        }
    }

    /// The largest quantity on the lot grid that is not above `qty`.
    #[must_use]
    pub fn floor_to_lot(&self, qty: Decimal) -> Qty {
        let rest = qty.checked_rem(self.lot_size).unwrap_or(qty);
        Qty::new((qty - rest).max(Decimal::ZERO).normalize()).unwrap_or(Qty::ZERO)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn btc() -> InstrumentSpec {
        InstrumentSpec {
            id: "binance_spot/BTCUSDT".parse().unwrap(),
            base: "BTC".parse().unwrap(),
            quote: "USDT".parse().unwrap(),
            tick_size: Decimal::new(1, 2),
            lot_size: Decimal::new(1, 5),
            qty_min: "0.00001".parse().unwrap(),
            qty_max: "9000".parse().unwrap(),
            notional_min: Decimal::from(5),
            maker_fee_rate: Decimal::new(1, 3),
            taker_fee_rate: Decimal::new(1, 3),
        }
    }

    #[test]
    fn each_rule_of_the_venue_is_checked() {
        let check = |qty: &str, price: &str| btc().check(qty.parse().unwrap(), price.parse().unwrap());
        assert!(check("0.01", "87232.01").is_ok());
        assert!(matches!(check("0.01", "87232.015"), Err(SpecViolation::OffTick { .. })));
        assert!(matches!(check("0.000015", "87232.01"), Err(SpecViolation::OffLot { .. })));
        assert!(matches!(check("0", "87232.01"), Err(SpecViolation::QtyOutOfBounds { .. })));
        assert!(matches!(check("9000.1", "87232.01"), Err(SpecViolation::QtyOutOfBounds { .. })));
        assert!(matches!(check("0.00001", "87232.01"), Err(SpecViolation::NotionalTooSmall { .. })));
        assert_eq!(btc().floor_to_lot(Decimal::new(123_456_789, 9)).to_string(), "0.12345");
    }
}
