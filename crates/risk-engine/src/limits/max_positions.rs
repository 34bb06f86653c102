//! How many positions may be open or being opened at once.

use infra_types::{Decimal, Scope};

use super::{Bounded, codes};
use crate::{config::RiskLimits, decision::Check};

/// `used` positions and `add` (1 if this order would be the first of its account in its instrument, else 0) against the limit.
///
/// # Errors
/// The failed check when the limit is unset.
pub fn max_positions(limits: &RiskLimits, used: i64, add: i64) -> Result<Bounded, Check> {
    let Some(max) = limits.open_positions_max else {
        return Err(super::unset("open_positions_max", Scope::Firm));
    };
    let value = Decimal::from(used).saturating_add(Decimal::from(add));
    let check = Check::new(codes::MAX_POSITIONS, Scope::Firm, value, Decimal::from(max), true);
    Ok(Bounded { check, max: i64::from(max) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_bounds() {
        let mut limits = RiskLimits::default();
        assert_eq!(max_positions(&limits, 0, 1).unwrap_err().code, "limit_unset");
        limits.open_positions_max = Some(3);
        let bound = max_positions(&limits, 2, 1).unwrap();
        assert_eq!((bound.max, bound.check.headroom), (3, Decimal::ZERO));
    }
}
