//! How many positions may be open or being opened at once.

use infra_types::Scope;

use super::{Bounded, codes, working_orders::bounded_count};

/// `used` positions and `add` (1 if this order would be the first of its account in its instrument, else 0) against the limit.
#[must_use]
pub fn max_positions(scope: Scope, max: u32, used: i64, add: i64) -> Bounded {
    bounded_count(codes::MAX_POSITIONS, scope, max, used, add)
}

#[cfg(test)]
mod tests {
    use infra_types::Decimal;

    use super::*;

    #[test]
    fn counts_and_bounds() {
        let bound = max_positions(Scope::Firm, 3, 2, 1);
        assert_eq!((bound.max, bound.check.headroom), (3, Decimal::ZERO));
    }
}
