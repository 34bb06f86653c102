//! A fresh price must be known before anything is opened (FIA 2024: unreasonable market data blocks).

use std::time::Duration;

use infra_types::{Decimal, Scope};

use super::codes;
use crate::{decision::Check, market::Quote};

/// Whether a quote is there and young enough; values in seconds.
#[must_use]
pub fn reference_price(scope: Scope, max: Duration, quote: Option<(Quote, Duration)>) -> Check {
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
    fn missing_and_stale_have_codes_of_their_own() {
        let quote = Quote { bid: "1".parse().unwrap(), ask: "1".parse().unwrap(), at: Timestamp::EPOCH };
        let judge = |age: Option<u64>| {
            let quote = age.map(|age| (quote, Duration::from_millis(age)));
            reference_price(Scope::Firm, Duration::from_secs(2), quote)
        };
        assert_eq!(judge(None).code, "no_reference_price");
        assert!(judge(Some(2_000)).passed);
        let stale = judge(Some(2_001));
        assert_eq!((stale.code, stale.passed), ("stale_reference_price", false));
        assert_eq!(stale.headroom, Decimal::new(-1, 3));
    }
}
