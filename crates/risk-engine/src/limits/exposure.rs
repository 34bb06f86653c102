//! Gross exposure per account and for the firm (SEC 15c3-5(c)(1)(i), RTS 6 art. 15(4): % of equity).

use infra_types::{AccountId, Decimal, Scaled, Scope};

use super::{Bounded, bounded, codes, no_equity, unset};
use crate::{
    config::{LimitValue, RiskLimits},
    decision::Check,
};

pub(super) fn resolve(
    limit: Option<LimitValue>,
    name: &'static str,
    code: &'static str,
    scope: &Scope,
    equity: Option<Decimal>,
) -> Result<Decimal, Check> {
    match (limit, equity) {
        (None, _) => Err(unset(name, scope.clone())),
        (Some(limit), None) if limit.needs_equity() => Err(no_equity(code, scope.clone())),
        (Some(limit), equity) => Ok(limit.at(equity.unwrap_or_default())),
    }
}

/// What the account has used (raw) and this order adds, against its limit.
///
/// # Errors
/// The failed check when the limit is unset or needs an equity that is not known.
pub fn exposure_account(
    limits: &RiskLimits,
    account: &AccountId,
    equity: Option<Decimal>,
    used: i64,
    add: Scaled,
) -> Result<Bounded, Check> {
    let (code, scope) = (codes::EXPOSURE_ACCOUNT, Scope::Account(account.clone()));
    let limit = resolve(limits.exposure_account_max, "exposure_account_max", code, &scope, equity)?;
    Ok(bounded(code, scope, used, add, limit))
}

/// What all accounts have used (raw, firm currency) and this order adds, against the firm's limit.
///
/// # Errors
/// As [`exposure_account`].
pub fn exposure_firm(limits: &RiskLimits, equity: Option<Decimal>, used: i64, add: Scaled) -> Result<Bounded, Check> {
    let (code, scope) = (codes::EXPOSURE_FIRM, Scope::Firm);
    let limit = resolve(limits.exposure_firm_max, "exposure_firm_max", code, &scope, equity)?;
    Ok(bounded(code, scope, used, add, limit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_equity_becomes_a_bound_and_unknown_equity_refuses() {
        let account = "a".parse().unwrap();
        let mut limits = RiskLimits::default();
        let add = Scaled::used(Decimal::from(50)).unwrap();
        assert_eq!(exposure_account(&limits, &account, None, 0, add).unwrap_err().code, "limit_unset");
        limits.exposure_account_max = Some(LimitValue::OfEquity(Decimal::new(8, 1)));
        assert_eq!(exposure_account(&limits, &account, None, 0, add).unwrap_err().code, "exposure_account");
        let bound = exposure_account(&limits, &account, Some(Decimal::from(1_000)), 7_000_000, add).unwrap();
        assert_eq!((bound.max, bound.check.value), (8_000_000, Decimal::from(750)));
        assert_eq!(bound.check.headroom, Decimal::from(50));
    }

    #[test]
    fn an_amount_needs_no_equity_and_a_huge_one_is_capped() {
        let mut limits =
            RiskLimits { exposure_firm_max: Some(LimitValue::Amount(Decimal::MAX)), ..RiskLimits::default() };
        assert_eq!(exposure_firm(&limits, None, 0, Scaled::ZERO).unwrap().max, Scaled::MAX);
        limits.exposure_firm_max = Some(LimitValue::Amount(Decimal::new(19_999, 5)));
        assert_eq!(exposure_firm(&limits, None, 0, Scaled::ZERO).unwrap().max, 1_999, "allowed is rounded down");
    }
}
