//! How far an order's price may be from the market on the side that hurts (RTS 6 art. 15(1)(a), R15).

use infra_types::{Decimal, OrderKind, Scope, Side};

use super::codes;
use crate::{decision::Check, market::Quote};

/// A buy above `mid × (1 + part)` or a sell below `mid × (1 − part)` is refused. Value and limit are parts of the middle: 0.05 is
/// 5 %; the value is below zero for a price on the far side.
///
/// The far side passes on purpose: a buy far below the market, or a sell far above it, cannot trade at a price worse than the
/// market's, resting bids deep in the book are what grids and market makers live on, and the venue has a band of its own for
/// them. A middle that is wrong is the matter of the limits on age, spread and move.
///
/// A market order has no far side, whatever worst price it names: it trades with the other side of the book. A buy is judged by the
/// ask if that is above the price that it names, a sell by the bid if that is below.
#[must_use]
pub fn price_collar(scope: Scope, part: Decimal, side: Side, kind: &OrderKind, quote: Option<&Quote>) -> Check {
    let Some((quote, mid)) = quote.map(|quote| (quote, quote.mid())).filter(|(_, mid)| *mid > Decimal::ZERO) else {
        return Check::missing(codes::NO_REFERENCE_PRICE, scope, "no price to hold the order's against");
    };
    let price = match (kind, side) {
        (OrderKind::Limit(price), _) => price.get(),
        (OrderKind::Market { worst }, Side::Buy) => worst.get().max(quote.ask.get()),
        (OrderKind::Market { worst }, Side::Sell) => worst.get().min(quote.bid.get()),
    };
    let (upper, lower) = if side == Side::Buy { (price, mid) } else { (mid, price) };
    let figures = upper.checked_sub(lower).zip(part.checked_mul(mid));
    match figures.and_then(|(distance, allowed)| Some((distance.checked_div(mid)?, distance <= allowed))) {
        // Compared before the division: its last digit is rounded.
        Some((value, passed)) => Check::new(codes::PRICE_COLLAR, scope, value, part, passed),
        None => Check::missing(codes::OVERFLOW, scope, "the price is too far away to be reckoned with"),
    }
}

#[cfg(test)]
mod tests {
    use infra_types::{Price, Timestamp};
    use proptest::prelude::*;

    use super::*;

    fn limit(price: &str) -> OrderKind {
        OrderKind::Limit(price.parse().unwrap())
    }

    fn market(worst: &str) -> OrderKind {
        OrderKind::Market { worst: worst.parse().unwrap() }
    }

    fn quote(bid: Decimal, ask: Decimal) -> Quote {
        Quote { bid: Price::new(bid).unwrap(), ask: Price::new(ask).unwrap(), at: Timestamp::EPOCH }
    }

    fn judge_kind(side: Side, kind: OrderKind, bid: i64, ask: i64) -> Check {
        let quote = quote(Decimal::from(bid), Decimal::from(ask));
        price_collar(Scope::Firm, Decimal::new(5, 2), side, &kind, Some(&quote))
    }

    fn judge(side: Side, price: &str) -> Check {
        judge_kind(side, limit(price), 100, 100)
    }

    #[test]
    fn the_collar_itself_passes_and_a_tick_beyond_does_not() {
        for (side, price, passes) in [
            (Side::Buy, "105", true),
            (Side::Buy, "105.00000001", false),
            (Side::Sell, "95", true),
            (Side::Sell, "94.99999999", false),
        ] {
            assert_eq!(judge(side, price).passed, passes, "{side:?} at {price}");
        }
        let check = judge(Side::Buy, "107");
        assert_eq!(
            (check.code, check.value, check.headroom),
            ("price_collar", Decimal::new(7, 2), Decimal::new(-2, 2))
        );
    }

    #[test]
    fn the_far_side_passes_and_reads_below_zero() {
        assert_eq!(judge(Side::Buy, "1").value, Decimal::new(-99, 2));
        assert!(judge(Side::Buy, "1").passed && judge(Side::Sell, "1000000").passed);
    }

    #[test]
    fn a_market_order_is_judged_by_its_worst_price_and_by_the_book_if_that_is_worse() {
        for (side, worst, passes) in
            [(Side::Buy, "105", true), (Side::Buy, "106", false), (Side::Sell, "95", true), (Side::Sell, "94", false)]
        {
            assert_eq!(judge_kind(side, market(worst), 99, 101).passed, passes, "{side:?} at {worst}");
        }
        // Named on the far side, where no market order trades.
        for (side, worst) in [(Side::Buy, "0.01"), (Side::Sell, "1000000")] {
            let check = judge_kind(side, market(worst), 96, 104);
            assert_eq!((check.value, check.passed), (Decimal::new(4, 2), true), "{side:?}");
            let check = judge_kind(side, market(worst), 94, 106);
            assert_eq!((check.value, check.passed), (Decimal::new(6, 2), false), "{side:?}");
            assert!(judge_kind(side, limit(worst), 94, 106).passed, "{side:?}: a limit order rests");
        }
    }

    #[test]
    fn what_cannot_be_reckoned_is_refused() {
        for kind in [limit("1"), market("1")] {
            let check = price_collar(Scope::Firm, Decimal::new(5, 2), Side::Buy, &kind, None);
            assert_eq!((check.code, check.passed), ("no_reference_price", false));
        }
        let largest = OrderKind::Limit(Price::new(Decimal::MAX).unwrap());
        let tiny = quote(Decimal::new(2, 28), Decimal::new(2, 28));
        for side in [Side::Buy, Side::Sell] {
            let check = price_collar(Scope::Firm, Decimal::new(5, 2), side, &largest, Some(&tiny));
            assert_eq!((check.code, check.passed), ("overflow", false), "{side:?}");
        }
        let huge = Decimal::MAX - Decimal::ONE;
        let check = price_collar(Scope::Firm, Decimal::TWO, Side::Buy, &limit("1"), Some(&quote(huge, huge)));
        assert_eq!((check.code, check.passed), ("overflow", false));
    }

    proptest! {
        /// Against whole numbers: 10,000 × distance ≤ part in basis points × middle.
        #[test]
        fn agrees_with_whole_numbers(price in 1i64..1_000_000_000, mid in 1i64..1_000_000_000, bps in 0i64..20_000, buy: bool) {
            let (side, distance) = if buy { (Side::Buy, price - mid) } else { (Side::Sell, mid - price) };
            let kind = OrderKind::Limit(Price::new(Decimal::new(price, 4)).unwrap());
            let quote = quote(Decimal::new(mid, 4), Decimal::new(mid, 4));
            let check = price_collar(Scope::Firm, Decimal::new(bps, 4), side, &kind, Some(&quote));
            prop_assert_eq!(check.passed, i128::from(distance) * 10_000 <= i128::from(bps) * i128::from(mid));
        }
    }
}
