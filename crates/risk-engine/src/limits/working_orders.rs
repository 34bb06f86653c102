//! How many opening orders may work at once (RTS 6 art. 8: a number of orders, R9).

use infra_types::{Decimal, Scope};

use super::{Bounded, codes};
use crate::decision::Check;

/// Orders that work and the ones that come, against the limit.
#[must_use]
pub fn working_orders(scope: Scope, max: u32, used: i64, add: i64) -> Bounded {
    bounded_count(codes::WORKING_ORDERS, scope, max, used, add)
}

/// A bound on a counter of whole things.
pub(super) fn bounded_count(code: &'static str, scope: Scope, max: u32, used: i64, add: i64) -> Bounded {
    let value = Decimal::from(used).saturating_add(Decimal::from(add));
    Bounded { check: Check::new(code, scope, value, Decimal::from(max), true), max: i64::from(max) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_bounds() {
        let found = working_orders(Scope::Firm, 3, 2, 1);
        assert_eq!((found.check.code, found.max, found.check.headroom), ("working_orders", 3, Decimal::ZERO));
        assert_eq!(working_orders(Scope::Firm, 0, 0, 1).max, 0);
        assert!(working_orders(Scope::Firm, u32::MAX, i64::MAX, i64::MAX).check.headroom < Decimal::ZERO);
    }
}
