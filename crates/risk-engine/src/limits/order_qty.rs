//! The largest quantity of one order (SEC 15c3-5(c)(1)(ii), RTS 6 art. 15(1)(c)).

use infra_types::{Decimal, Qty, Scope};

use super::codes;
use crate::decision::Check;

/// The order's quantity against the limit, in base units.
#[must_use]
pub fn order_qty(scope: Scope, max: Decimal, qty: Qty) -> Check {
    Check::at_most(codes::ORDER_QTY, scope, qty.get(), max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_itself_passes_and_a_unit_more_does_not() {
        let check = |qty: &str| order_qty(Scope::Firm, Decimal::from(5), qty.parse().unwrap());
        assert!(check("5").passed);
        let beyond = check("5.00000001");
        assert_eq!((beyond.passed, beyond.headroom), (false, Decimal::new(-1, 8)));
    }
}
