//! The largest value of one order (RTS 6 art. 15(1)(b)).

use infra_types::{AccountId, Decimal, Scope};

use super::codes;
use crate::{config::RiskLimits, decision::Check};

/// The order's value in the account's currency against the limit.
#[must_use]
pub fn order_notional(limits: &RiskLimits, account: &AccountId, notional: Decimal) -> Check {
    let scope = Scope::Account(account.clone());
    match limits.order_notional_max {
        Some(limit) => Check::at_most(codes::ORDER_NOTIONAL, scope, notional, limit),
        None => super::unset("order_notional_max", scope),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_itself_passes_and_unset_refuses() {
        let account = "a".parse().unwrap();
        let mut limits = RiskLimits::default();
        assert_eq!(order_notional(&limits, &account, Decimal::ONE).code, "limit_unset");
        limits.order_notional_max = Some(Decimal::TEN);
        assert!(order_notional(&limits, &account, Decimal::TEN).passed);
        assert!(!order_notional(&limits, &account, Decimal::MAX).passed);
    }
}
