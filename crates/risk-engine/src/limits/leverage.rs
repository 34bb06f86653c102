//! Gross exposure as a multiple of equity (RTS 6 art. 15(4): limits follow capital, R20).

use infra_types::{Decimal, Scaled, Scope};

use super::{Bounded, bounded, codes, no_equity};
use crate::decision::Check;

/// What is used (raw) and this order adds, against `times × equity`. Nothing is allowed on equity below zero.
///
/// # Errors
/// The failed check when the equity is not known.
pub fn leverage(
    scope: Scope,
    times: Decimal,
    equity: Option<Decimal>,
    used: i64,
    add: Scaled,
) -> Result<Bounded, Check> {
    let Some(equity) = equity else {
        return Err(no_equity(codes::LEVERAGE, scope));
    };
    let limit = times.saturating_mul(equity.max(Decimal::ZERO)).max(Decimal::ZERO);
    let mut found = bounded(codes::LEVERAGE, scope, used, add, limit);
    found.check = found.check.with_note("gross exposure against the multiple of equity");
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_equity() {
        let add = Scaled::used(Decimal::from(100)).unwrap();
        let found = leverage(Scope::Firm, Decimal::new(15, 1), Some(Decimal::from(1_000)), 14_000_000, add).unwrap();
        assert_eq!((found.check.code, found.max, found.check.headroom), ("leverage", 15_000_000, Decimal::ZERO));
    }

    #[test]
    fn no_equity_no_leverage() {
        let unknown = leverage(Scope::Firm, Decimal::TWO, None, 0, Scaled::ZERO).unwrap_err();
        assert_eq!((unknown.code, unknown.passed), ("leverage", false));
        for (times, equity) in
            [(Decimal::TWO, Decimal::from(-1)), (Decimal::from(-2), Decimal::ONE), (Decimal::MAX, Decimal::ZERO)]
        {
            assert_eq!(
                leverage(Scope::Firm, times, Some(equity), 0, Scaled::ZERO).unwrap().max,
                0,
                "{times} × {equity}"
            );
        }
        let most = leverage(Scope::Firm, Decimal::MAX, Some(Decimal::MAX), 0, Scaled::ZERO).unwrap();
        assert_eq!(most.max, Scaled::MAX);
    }
}
