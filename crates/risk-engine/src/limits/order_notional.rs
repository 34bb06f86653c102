//! The largest value of one order (RTS 6 art. 15(1)(b)).

use infra_types::{Decimal, Scope};

use super::{codes, exposure::resolve};
use crate::{config::LimitValue, decision::Check};

/// The order's value against the limit, both in the scope's currency.
///
/// # Errors
/// The failed check when the limit needs an equity that is not known.
pub fn order_notional(
    scope: Scope,
    limit: LimitValue,
    equity: Option<Decimal>,
    notional: Decimal,
) -> Result<Check, Check> {
    let limit = resolve(limit, codes::ORDER_NOTIONAL, &scope, equity)?;
    Ok(Check::at_most(codes::ORDER_NOTIONAL, scope, notional, limit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_itself_passes_and_a_part_follows_equity() {
        let amount = LimitValue::Amount(Decimal::TEN);
        assert!(order_notional(Scope::Firm, amount, None, Decimal::TEN).unwrap().passed);
        assert!(!order_notional(Scope::Firm, amount, None, Decimal::MAX).unwrap().passed);
        let part = LimitValue::OfEquity(Decimal::new(1, 1));
        assert!(order_notional(Scope::Firm, part, None, Decimal::ONE).is_err());
        assert!(order_notional(Scope::Firm, part, Some(Decimal::TEN), Decimal::ONE).unwrap().passed);
    }
}
