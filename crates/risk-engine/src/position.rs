//! What an account holds of one instrument, and what every fill makes of it.

use infra_types::{Decimal, GroupId, Scaled, Side};
use serde::{Deserialize, Serialize};

/// Decimal places that amounts are kept to. Sums of such amounts are exact up to 10¹⁶.
pub(crate) const PLACES: u32 = 12;

/// One account's position in one instrument. All amounts are in the account's currency, converted when each fill came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// How much, in base units: long above zero, short below.
    pub qty: Decimal,
    /// What was paid for what is held now (below zero: received for a short).
    pub cost: Decimal,
    /// Profit and loss of everything that was closed, before fees.
    pub realised: Decimal,
    /// Fees that could be converted.
    pub fees: Decimal,
    /// Profit and loss net of fees since the position was last flat.
    pub trip: Decimal,
    /// What the exposure counters of the account hold for this position.
    pub booked: Scaled,
    /// What the firm's exposure counter holds for it, in the firm's currency.
    pub booked_firm: Scaled,
    /// The last rate from the quote currency to the account's.
    pub rate: Decimal,
    /// The last rate from the account's currency to the firm's.
    pub firm_rate: Decimal,
    /// The account's group when it was last booked: it counts for that group until the next fill.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<GroupId>,
    /// Whether its quantity is counted in whole units (the venue traded no parts when it was last booked), else at 1e-8.
    #[serde(default)]
    pub whole: bool,
}

impl Default for Position {
    /// Flat, nothing ever traded.
    fn default() -> Self {
        Self {
            qty: Decimal::ZERO,
            cost: Decimal::ZERO,
            realised: Decimal::ZERO,
            fees: Decimal::ZERO,
            trip: Decimal::ZERO,
            booked: Scaled::ZERO,
            booked_firm: Scaled::ZERO,
            rate: Decimal::ONE,
            firm_rate: Decimal::ONE,
            group: None,
            whole: false,
        }
    }
}

/// What one fill did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Booked {
    /// Profit or loss that it realised, before fees.
    pub realised: Decimal,
    /// The net result of the round trip that it ended, if it ended one (a flip ends one too; its fee belongs to it).
    pub trip_closed: Option<Decimal>,
}

impl Position {
    /// Whether nothing is held.
    #[must_use]
    pub fn is_flat(&self) -> bool {
        self.qty.is_zero()
    }

    /// What a unit cost on average, in the account's currency; none when flat.
    #[must_use]
    pub fn average_cost(&self) -> Option<Decimal> {
        self.cost.checked_div(self.qty)
    }

    /// Whether a trade of `side` would make the position smaller.
    #[must_use]
    pub fn is_opposed_by(&self, side: Side) -> bool {
        !self.is_flat() && self.qty.is_sign_positive() == (side == Side::Sell)
    }

    /// Profit or loss if all were closed at `price` (account currency per unit); none beyond the largest decimal.
    #[must_use]
    pub fn unrealised(&self, price: Decimal) -> Option<Decimal> {
        self.qty.checked_mul(price)?.round_dp(PLACES).checked_sub(self.cost)
    }

    /// The position after a fill of `qty` units worth `value` with `fee`, both in the account's currency. None beyond the
    /// largest decimal.
    ///
    /// What is closed leaves at average cost, rounded to twelve places; the rest of the cost stays, so that
    /// `realised − cost` is always exactly the cash that went in and out.
    #[must_use]
    pub fn apply_fill(&self, side: Side, qty: Decimal, value: Decimal, fee: Decimal) -> Option<(Self, Booked)> {
        let sign = if side == Side::Buy { Decimal::ONE } else { Decimal::NEGATIVE_ONE };
        let closed = if self.is_opposed_by(side) { qty.min(self.qty.abs()) } else { Decimal::ZERO };
        let (closed_value, closed_cost) = (share(value, closed, qty)?, share(self.cost, closed, self.qty.abs())?);
        // Selling a long brings in `closed_value`, buying a short back costs it.
        let realised = if closed.is_zero() {
            Decimal::ZERO
        } else {
            (-sign).checked_mul(closed_value)?.checked_sub(closed_cost)?
        };
        let opened_cost = sign.checked_mul(value.checked_sub(closed_value)?)?;
        let net = realised.checked_sub(fee)?;
        let trip = self.trip.checked_add(net)?;
        let after_qty = self.qty.checked_add(sign.checked_mul(qty)?)?;
        let ended = !closed.is_zero() && closed == self.qty.abs();
        let position = Self {
            qty: after_qty.normalize(),
            cost: self.cost.checked_sub(closed_cost)?.checked_add(opened_cost)?.normalize(),
            realised: self.realised.checked_add(realised)?.normalize(),
            fees: self.fees.checked_add(fee)?.normalize(),
            trip: if ended { Decimal::ZERO } else { trip.normalize() },
            ..self.clone()
        };
        Some((position, Booked { realised, trip_closed: ended.then_some(trip) }))
    }
}

/// `total × part / whole`, all of it when `part` is the whole.
fn share(total: Decimal, part: Decimal, whole: Decimal) -> Option<Decimal> {
    if part.is_zero() {
        Some(Decimal::ZERO)
    } else if part == whole {
        Some(total)
    } else {
        // Dividing first loses at most one unit of the 28th digit and cannot overflow.
        Some(part.checked_div(whole)?.checked_mul(total)?.round_dp(PLACES))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn dec(text: &str) -> Decimal {
        text.parse().unwrap()
    }

    fn fill(p: &Position, side: Side, qty: &str, price: &str, fee: &str) -> (Position, Booked) {
        p.apply_fill(side, dec(qty), dec(qty) * dec(price), dec(fee)).unwrap()
    }

    #[test]
    fn averages_in_and_realises_out() {
        let (p, _) = fill(&Position::default(), Side::Buy, "1", "100", "0.1");
        let (p, _) = fill(&p, Side::Buy, "1", "200", "0.2");
        assert_eq!(p.average_cost(), Some(dec("150")));
        let (p, booked) = fill(&p, Side::Sell, "1", "180", "0.18");
        assert_eq!((booked.realised, booked.trip_closed), (dec("30"), None));
        assert_eq!(p.unrealised(dec("140")), Some(dec("-10")));
        let (p, booked) = fill(&p, Side::Sell, "1", "140", "0.14");
        assert_eq!(booked.trip_closed, Some(dec("30") - dec("10") - dec("0.62")));
        assert!(p.is_flat() && p.cost.is_zero() && p.trip.is_zero());
        assert_eq!(p.average_cost(), None);
    }

    #[test]
    fn a_short_earns_when_the_price_falls() {
        let (p, _) = fill(&Position::default(), Side::Sell, "2", "100", "0");
        assert_eq!((p.qty, p.cost), (dec("-2"), dec("-200")));
        assert_eq!(p.unrealised(dec("90")), Some(dec("20")));
        assert_eq!(fill(&p, Side::Buy, "2", "90", "0").1.realised, dec("20"));
    }

    #[test]
    fn a_flip_closes_everything_and_opens_the_rest() {
        let (p, _) = fill(&Position::default(), Side::Buy, "1", "100", "0");
        let (p, booked) = fill(&p, Side::Sell, "3", "110", "0");
        assert_eq!((p.qty, p.average_cost()), (dec("-2"), Some(dec("110"))));
        assert_eq!((booked.realised, booked.trip_closed), (dec("10"), Some(dec("10"))));
    }

    proptest! {
        #[test]
        fn realised_and_unrealised_are_the_cash_account(
            fills in prop::collection::vec((any::<bool>(), 1i64..10_000_000, 1i64..10_000_000, 0i64..1_000), 1..60),
            mark in 1i64..10_000_000,
        ) {
            let (mut p, mut cash, mut held, mut fees) = (Position::default(), Decimal::ZERO, Decimal::ZERO, Decimal::ZERO);
            for (buy, qty, price, fee) in fills {
                let (side, qty, fee) = (if buy { Side::Buy } else { Side::Sell }, Decimal::new(qty, 5), Decimal::new(fee, 4));
                let value = qty * Decimal::new(price, 2);
                p = p.apply_fill(side, qty, value, fee).unwrap().0;
                let sign = if buy { Decimal::ONE } else { -Decimal::ONE };
                cash -= sign * value;
                held += sign * qty;
                fees += fee;
                prop_assert_eq!(p.qty, held);
                prop_assert!(p.is_flat() == p.cost.is_zero(), "cost {} at quantity {}", p.cost, p.qty);
            }
            let mark = Decimal::new(mark, 2);
            prop_assert_eq!(p.realised + p.unrealised(mark).unwrap(), cash + held * mark);
            prop_assert_eq!(p.fees, fees);
        }
    }
}
