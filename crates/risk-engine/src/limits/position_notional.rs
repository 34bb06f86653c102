//! How much of one instrument an account may have, working orders included (RTS 6 art. 17(4), FIA 2024).

use infra_types::{Decimal, InstrumentId, Scaled, Scope};

use super::{Bounded, bounded, codes, exposure::resolve};
use crate::{config::RiskLimits, decision::Check};

/// What the account has used in this instrument (raw) and this order adds, against the limit.
///
/// # Errors
/// The failed check when the limit is unset or needs an equity that is not known.
pub fn position_notional(
    limits: &RiskLimits,
    instrument: &InstrumentId,
    equity: Option<Decimal>,
    used: i64,
    add: Scaled,
) -> Result<Bounded, Check> {
    let (code, scope) = (codes::POSITION_NOTIONAL, Scope::Instrument(instrument.clone()));
    let limit = resolve(limits.position_notional_max, "position_notional_max", code, &scope, equity)?;
    Ok(bounded(code, scope, used, add, limit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::LimitValue;

    #[test]
    fn bounds_the_counter() {
        let instrument = "v/X".parse().unwrap();
        let mut limits = RiskLimits::default();
        assert_eq!(position_notional(&limits, &instrument, None, 0, Scaled::ZERO).unwrap_err().code, "limit_unset");
        limits.position_notional_max = Some(LimitValue::Amount(Decimal::TEN));
        let bound = position_notional(&limits, &instrument, None, 30_000, Scaled::ZERO).unwrap();
        assert_eq!((bound.max, bound.check.headroom), (100_000, Decimal::from(7)));
    }
}
