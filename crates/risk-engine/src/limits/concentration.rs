//! How much of everything may stand in one place (one account's instrument, one instrument of the firm, …).

use infra_types::{Decimal, Scaled, Scope};

use super::{Bounded, bounded, codes, no_equity};
use crate::decision::Check;

/// What a place has used (raw) and this order adds, against `part` of the whole: the larger of gross exposure with this order
/// (`gross_used` raw, and the same `add`) and equity. Without equity in it the first position would always be all there is.
/// All in one currency.
///
/// The bound is on the place's counter and is kept by the store; the whole is what was last known of it.
///
/// # Errors
/// The failed check when the equity is not known.
pub fn concentration(
    scope: Scope,
    part: Decimal,
    equity: Option<Decimal>,
    gross_used: i64,
    used: i64,
    add: Scaled,
) -> Result<Bounded, Check> {
    let Some(equity) = equity else {
        return Err(no_equity(codes::CONCENTRATION, scope));
    };
    let gross = Decimal::new(gross_used, Scaled::SCALE).saturating_add(add.to_decimal());
    let whole = gross.max(equity).max(Decimal::ZERO);
    let mut found = bounded(codes::CONCENTRATION, scope, used, add, part.saturating_mul(whole).max(Decimal::ZERO));
    found.check = found.check.with_note("of the larger of gross exposure and equity");
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn money(amount: i64) -> Scaled {
        Scaled::used(Decimal::from(amount)).unwrap()
    }

    #[test]
    fn the_first_position_is_held_against_equity_and_later_ones_against_gross() {
        let quarter = Decimal::new(25, 2);
        let equity = Some(Decimal::from(1_000));
        let first = concentration(Scope::Firm, quarter, equity, 0, 0, money(250)).unwrap();
        assert_eq!((first.check.code, first.check.headroom), ("concentration", Decimal::ZERO));
        let geared = concentration(Scope::Firm, quarter, equity, money(3_000).raw(), 0, money(1_000)).unwrap();
        assert_eq!((geared.max, geared.check.headroom), (money(1_000).raw(), Decimal::ZERO));
    }

    #[test]
    fn unknown_or_lost_equity_allows_nothing_by_itself() {
        let half = Decimal::new(5, 1);
        let unknown = concentration(Scope::Firm, half, None, 0, 0, money(1)).unwrap_err();
        assert_eq!((unknown.code, unknown.passed), ("concentration", false));
        let broke = concentration(Scope::Firm, half, Some(Decimal::from(-10)), 0, 0, money(2)).unwrap();
        assert_eq!((broke.max, broke.check.headroom), (money(1).raw(), Decimal::NEGATIVE_ONE));
        let negative = concentration(Scope::Firm, -half, Some(Decimal::TEN), 0, 0, money(2)).unwrap();
        assert_eq!(negative.max, 0);
        assert_eq!(
            concentration(Scope::Firm, half, Some(Decimal::MAX), i64::MAX, i64::MAX, money(1)).unwrap().max,
            Scaled::MAX
        );
    }
}
