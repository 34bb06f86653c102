//! How much may be opened over a short period (SEC 15c3-5(c)(1)(ii), R3: a rolling sum, not one order).

use infra_types::{Decimal, Scope};

use super::{Bounded, codes, long_short::bounded_qty};

/// What the window counts and this order adds (both raw, 1e-8 of a base unit), against `max` base units. The bound is the
/// window's.
#[must_use]
pub fn qty_rate(scope: Scope, max: Decimal, used: i64, add: i64) -> Bounded {
    let mut found = bounded_qty(codes::QTY_RATE, scope, max, used, add);
    found.check = found.check.with_note("opened in the window, base units");
    found
}

#[cfg(test)]
mod tests {
    use infra_types::Scaled;

    use super::*;

    #[test]
    fn bounds_the_window() {
        let found = qty_rate(Scope::Firm, Decimal::TWO, 100_000_000, 100_000_000);
        assert_eq!((found.check.code, found.max, found.check.headroom), ("qty_rate", 200_000_000, Decimal::ZERO));
        assert_eq!(qty_rate(Scope::Firm, Decimal::MAX, 0, 0).max, Scaled::MAX);
        assert_eq!(qty_rate(Scope::Firm, Decimal::NEGATIVE_ONE, 0, 1).max, 0);
    }
}
