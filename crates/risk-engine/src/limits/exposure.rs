//! Gross exposure: positions at cost and working opening orders, whatever their side (SEC 15c3-5(c)(1)(i), RTS 6 art. 15(4): % of
//! equity; of one instrument RTS 6 art. 17(4), FIA 2024).

use infra_types::{Decimal, Scaled, Scope};

use super::{Bounded, bounded, no_equity};
use crate::{config::LimitValue, decision::Check};

/// The amount of a limit.
pub(super) fn resolve(
    limit: LimitValue,
    code: &'static str,
    scope: &Scope,
    equity: Option<Decimal>,
) -> Result<Decimal, Check> {
    match equity {
        None if limit.needs_equity() => Err(no_equity(code, scope.clone())),
        equity => Ok(limit.at(equity.unwrap_or_default())),
    }
}

/// What the place has used (raw) and this order adds, against its limit; all in the place's currency. `code` names the sort of
/// place.
///
/// # Errors
/// The failed check when the limit needs an equity that is not known.
pub fn exposure(
    code: &'static str,
    scope: Scope,
    limit: LimitValue,
    equity: Option<Decimal>,
    used: i64,
    add: Scaled,
) -> Result<Bounded, Check> {
    let limit = resolve(limit, code, &scope, equity)?;
    Ok(bounded(code, scope, used, add, limit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::code;

    #[test]
    fn a_part_of_equity_becomes_a_bound_and_unknown_equity_refuses() {
        let scope = || Scope::Account("a".parse().unwrap());
        let add = Scaled::used(Decimal::from(50)).unwrap();
        let limit = LimitValue::OfEquity(Decimal::new(8, 1));
        let refused = exposure(code::EXPOSURE_ACCOUNT, scope(), limit, None, 0, add).unwrap_err();
        assert_eq!((refused.code, refused.passed), ("exposure_account", false));
        let equity = Some(Decimal::from(1_000));
        let bound = exposure(code::EXPOSURE_ACCOUNT, scope(), limit, equity, 7_000_000, add).unwrap();
        assert_eq!((bound.max, bound.check.value), (8_000_000, Decimal::from(750)));
        assert_eq!(bound.check.headroom, Decimal::from(50));
    }

    #[test]
    fn an_amount_needs_no_equity_and_a_huge_one_is_capped() {
        let max = |limit| {
            let limit = LimitValue::Amount(limit);
            exposure(code::EXPOSURE_FIRM, Scope::Firm, limit, None, 0, Scaled::ZERO).unwrap().max
        };
        assert_eq!(max(Decimal::MAX), Scaled::MAX);
        assert_eq!(max(Decimal::new(19_999, 5)), 1_999, "allowed is rounded down");
    }
}
