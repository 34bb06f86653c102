//! The largest long and the largest short quantity, working orders included (RTS 6 art. 17(4), R26; FIA 2024, R30).

use infra_types::{Decimal, Scaled, Scope, Side};

use super::{Bounded, codes};
use crate::{decision::Check, ledger};

/// What the order's side has used and this order adds (both raw, 1e-8 of a base unit), against `max` base units: position and
/// working buys for a buy, short position and working sells for a sell.
#[must_use]
pub fn long_short(scope: Scope, side: Side, max: Decimal, used: i64, add: i64) -> Bounded {
    let code = if side == Side::Buy { codes::LONG_QTY } else { codes::SHORT_QTY };
    bounded_qty(code, scope, max, used, add)
}

/// A bound on a counter of quantities at 1e-8.
pub(super) fn bounded_qty(code: &'static str, scope: Scope, max: Decimal, used: i64, add: i64) -> Bounded {
    let value = Decimal::new(used, ledger::QTY_PLACES).saturating_add(Decimal::new(add, ledger::QTY_PLACES));
    // A limit beyond what a counter can hold is the counter's own bound.
    let bound = ledger::qty_there(max.max(Decimal::ZERO)).unwrap_or(Scaled::MAX);
    Bounded { check: Check::new(code, scope, value, max, true), max: bound }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_side_has_its_code_and_the_bound_rounds_down() {
        let max = Decimal::new(15_000_000_019, 10);
        let long = long_short(Scope::Firm, Side::Buy, max, 100_000_000, 50_000_000);
        assert_eq!((long.check.code, long.max, long.check.value), ("long_qty", 150_000_000, Decimal::new(15, 1)));
        let short = long_short(Scope::Firm, Side::Sell, max, -100_000_000, 50_000_000);
        assert_eq!((short.check.code, short.check.value), ("short_qty", Decimal::new(-5, 1)));
    }

    #[test]
    fn hostile_figures_bound_and_never_wrap() {
        assert_eq!(long_short(Scope::Firm, Side::Buy, Decimal::MAX, i64::MAX, i64::MAX).max, Scaled::MAX);
        assert_eq!(long_short(Scope::Firm, Side::Buy, Decimal::MIN, 0, 1).max, 0, "below zero allows nothing");
        assert_eq!(long_short(Scope::Firm, Side::Buy, Decimal::ZERO, 0, 0).max, 0);
        let both = long_short(Scope::Firm, Side::Sell, Decimal::ONE, i64::MAX, i64::MAX);
        assert!(both.check.headroom < Decimal::ZERO);
    }
}
