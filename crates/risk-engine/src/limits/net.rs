//! Net exposure: the shorter side taken off the longer one (SEC 15c3-5(c)(1)(i), FIA 2024).
//!
//! The larger of two sides is no linear figure, so it is kept as two that are: `net_long` (signed cost and working buys) and
//! `net_short` (minus signed cost and working sells). Both stay within the limit exactly if the net does whatever of what works
//! comes to be filled. An order adds to one of them, so one bound is what it needs.

use infra_types::{Decimal, Scaled, Scope, Side};

use super::{Bounded, bounded, codes, exposure::resolve};
use crate::{config::LimitValue, decision::Check};

/// What the order's side has used (raw; below zero where the other side is larger) and this order adds, against the limit.
///
/// # Errors
/// The failed check when the limit needs an equity that is not known.
pub fn net(
    scope: Scope,
    side: Side,
    limit: LimitValue,
    equity: Option<Decimal>,
    used: i64,
    add: Scaled,
) -> Result<Bounded, Check> {
    let code = if side == Side::Buy { codes::NET_LONG } else { codes::NET_SHORT };
    let limit = resolve(limit, code, &scope, equity)?;
    Ok(bounded(code, scope, used, add, limit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_side_has_its_code_and_a_short_makes_room_for_a_long() {
        let limit = LimitValue::Amount(Decimal::from(100));
        let add = Scaled::used(Decimal::from(150)).unwrap();
        let long = net(Scope::Firm, Side::Buy, limit, None, -500_000, add).unwrap();
        assert_eq!((long.check.code, long.max, long.check.value), ("net_long", 1_000_000, Decimal::from(100)));
        let short = net(Scope::Firm, Side::Sell, limit, None, 500_000, add).unwrap();
        assert_eq!((short.check.code, short.check.headroom), ("net_short", Decimal::from(-100)));
    }

    #[test]
    fn equity_that_is_unknown_refuses_and_one_below_zero_allows_nothing_more() {
        let limit = LimitValue::OfEquity(Decimal::ONE);
        let unknown = net(Scope::Firm, Side::Sell, limit, None, 0, Scaled::ZERO).unwrap_err();
        assert_eq!((unknown.code, unknown.passed), ("net_short", false));
        let broke = net(Scope::Firm, Side::Buy, limit, Some(Decimal::from(-5)), 0, Scaled::ZERO).unwrap();
        assert_eq!(broke.max, 0);
        let huge = net(Scope::Firm, Side::Buy, limit, Some(Decimal::MAX), i64::MAX, Scaled::ZERO).unwrap();
        assert_eq!(huge.max, Scaled::MAX, "the counter's own bound");
    }
}
