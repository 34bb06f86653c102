//! How much value may be opened over a short period (SEC 15c3-5(c)(1)(ii), R3).

use infra_types::{Decimal, Scaled, Scope};

use super::{Bounded, bounded, codes};

/// What the window counts (raw, 1e-4) and this order adds, against `max` in the scope's currency. The bound is the window's.
#[must_use]
pub fn notional_rate(scope: Scope, max: Decimal, used: i64, add: Scaled) -> Bounded {
    let mut found = bounded(codes::NOTIONAL_RATE, scope, used, add, max);
    found.check = found.check.with_note("opened in the window");
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_the_window() {
        let add = Scaled::used(Decimal::TEN).unwrap();
        let found = notional_rate(Scope::Firm, Decimal::new(2_000_001, 5), 100_000, add);
        assert_eq!((found.check.code, found.max), ("notional_rate", 200_000));
        assert_eq!(found.check.value, Decimal::from(20));
        assert_eq!(notional_rate(Scope::Firm, Decimal::MAX, i64::MAX, add).max, Scaled::MAX);
        assert_eq!(notional_rate(Scope::Firm, Decimal::NEGATIVE_ONE, 0, add).max, 0);
    }
}
