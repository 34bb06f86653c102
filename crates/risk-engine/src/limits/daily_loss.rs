//! What an account may lose from midnight on (FIA 2010), realised and unrealised, deposits left out.

use infra_types::{Decimal, Scope};

use super::{below, codes, no_equity, unset};
use crate::{account::AccountState, config::RiskLimits, decision::Check};

/// Today's loss at `pnl` against the limit; a part is of the equity at midnight.
#[must_use]
pub fn daily_loss(limits: &RiskLimits, account: &AccountState, pnl: Option<Decimal>) -> Check {
    let scope = Scope::Account(account.id.clone());
    let Some(limit) = limits.daily_loss_max else {
        return unset("daily_loss_max", scope);
    };
    match pnl {
        None => no_equity(codes::DAILY_LOSS, scope),
        Some(pnl) => below(codes::DAILY_LOSS, scope, account.daily_loss(pnl), limit.at(account.day_start_equity())),
    }
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;
    use crate::config::LimitValue;

    #[test]
    fn reaching_the_limit_is_enough_and_profit_is_no_loss() {
        let day = date(2025, 1, 1);
        let mut account = AccountState::new("a".parse().unwrap(), "USD".parse().unwrap(), Decimal::from(900), day);
        account.day_start_pnl = Decimal::from(100);
        let mut limits = RiskLimits::default();
        assert_eq!(daily_loss(&limits, &account, Some(Decimal::ZERO)).code, "limit_unset");
        limits.daily_loss_max = Some(LimitValue::OfEquity(Decimal::new(5, 2)));
        assert!(daily_loss(&limits, &account, Some(Decimal::from(51))).passed);
        let reached = daily_loss(&limits, &account, Some(Decimal::from(50)));
        assert_eq!((reached.passed, reached.value, reached.limit), (false, Decimal::from(50), Decimal::from(50)));
        assert_eq!(daily_loss(&limits, &account, Some(Decimal::from(500))).value, Decimal::ZERO);
        assert!(!daily_loss(&limits, &account, None).passed);
    }
}
