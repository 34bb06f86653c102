//! How far an account may fall from its best, deposits left out; the mark is durable.

use infra_types::{Decimal, Scope};

use super::{below, codes, no_equity};
use crate::{account::AccountState, config::LimitValue, decision::Check};

/// The distance of `pnl` from the high-water mark against the limit; a part is of the best equity.
#[must_use]
pub fn drawdown(limit: LimitValue, account: &AccountState, pnl: Option<Decimal>) -> Check {
    let scope = Scope::Account(account.id.clone());
    match pnl {
        None => no_equity(codes::DRAWDOWN, scope),
        Some(pnl) => below(codes::DRAWDOWN, scope, account.drawdown(pnl), limit.at(account.peak_equity())),
    }
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;

    #[test]
    fn is_measured_from_the_best_without_deposits() {
        let day = date(2025, 1, 1);
        let mut account = AccountState::new("a".parse().unwrap(), "USD".parse().unwrap(), Decimal::from(800), day);
        account.high_water_mark = Decimal::from(200);
        let limit = LimitValue::OfEquity(Decimal::new(2, 1));
        assert!(drawdown(limit, &account, Some(Decimal::ONE)).passed);
        let reached = drawdown(limit, &account, Some(Decimal::ZERO));
        assert_eq!((reached.passed, reached.value, reached.limit), (false, Decimal::from(200), Decimal::from(200)));
        account.deposits += Decimal::from(1_000);
        assert_eq!(drawdown(limit, &account, Some(Decimal::ZERO)).value, Decimal::from(200), "no deposit heals a loss");
        assert!(!drawdown(limit, &account, None).passed);
    }
}
