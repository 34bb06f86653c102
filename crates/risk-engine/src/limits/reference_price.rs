//! A fresh price must be known before anything is opened (FIA 2024: unreasonable market data blocks).

use std::time::Duration;

use infra_types::{Decimal, InstrumentId, Scope};

use super::codes;
use crate::{config::RiskLimits, decision::Check, market::Quote};

/// Whether a quote is there and young enough; values in seconds.
#[must_use]
pub fn reference_price(limits: &RiskLimits, instrument: &InstrumentId, quote: Option<(Quote, Duration)>) -> Check {
    let scope = Scope::Instrument(instrument.clone());
    let Some(max) = limits.reference_age_max else {
        return super::unset("reference_age_max", scope);
    };
    match quote {
        None => Check::missing(codes::NO_REFERENCE_PRICE, scope, "no quote was taken yet"),
        Some((_, age)) => {
            let check = Check::at_most(codes::STALE_REFERENCE_PRICE, scope, seconds(age), seconds(max));
            check.with_note("age of the quote, seconds")
        }
    }
}

pub(crate) fn seconds(duration: Duration) -> Decimal {
    // A hundred years of milliseconds fit well; what does not is old all the same.
    Decimal::new(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX), 3)
}

#[cfg(test)]
mod tests {
    use infra_types::Timestamp;

    use super::*;

    #[test]
    fn missing_stale_and_unset_have_codes_of_their_own() {
        let instrument = "v/X".parse().unwrap();
        let quote = Quote { bid: "1".parse().unwrap(), ask: "1".parse().unwrap(), at: Timestamp::EPOCH };
        let mut limits = RiskLimits::default();
        assert_eq!(reference_price(&limits, &instrument, None).code, "limit_unset");
        limits.reference_age_max = Some(Duration::from_secs(2));
        assert_eq!(reference_price(&limits, &instrument, None).code, "no_reference_price");
        let fresh = reference_price(&limits, &instrument, Some((quote, Duration::from_secs(2))));
        assert!(fresh.passed);
        let stale = reference_price(&limits, &instrument, Some((quote, Duration::from_millis(2_001))));
        assert_eq!((stale.code, stale.passed), ("stale_reference_price", false));
        assert_eq!(stale.headroom, Decimal::new(-1, 3));
    }
}
