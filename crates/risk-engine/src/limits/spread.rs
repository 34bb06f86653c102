//! How far bid and ask may be apart for anything to be opened (FIA 2024: unreasonable market data blocks, R32).

use infra_types::{Decimal, Scope};

use super::codes;
use crate::{decision::Check, market::Quote};

/// `(ask − bid) / middle` against the limit, as parts: 0.01 is 1 %. No quote, or a crossed one: refused.
#[must_use]
pub fn spread(scope: Scope, part: Decimal, quote: Option<&Quote>) -> Check {
    let Some(quote) = quote else {
        return Check::missing(codes::NO_REFERENCE_PRICE, scope, "no quote was taken yet");
    };
    // Both are above zero: neither their difference nor the middle reckoned like this can overflow.
    let wide = quote.ask.get().saturating_sub(quote.bid.get());
    let mid = quote.bid.get().saturating_add(wide / Decimal::TWO);
    match part.checked_mul(mid).zip(wide.checked_div(mid)) {
        Some((allowed, value)) => {
            let passed = wide <= allowed && quote.bid <= quote.ask;
            Check::new(codes::SPREAD, scope, value, part, passed)
        }
        None => Check::missing(codes::OVERFLOW, scope, "the spread is too large to be reckoned with"),
    }
}

#[cfg(test)]
mod tests {
    use infra_types::Timestamp;

    use super::*;

    fn judge(bid: &str, ask: &str) -> Check {
        let quote = Quote { bid: bid.parse().unwrap(), ask: ask.parse().unwrap(), at: Timestamp::EPOCH };
        spread(Scope::Firm, Decimal::new(2, 2), Some(&quote))
    }

    #[test]
    fn the_limit_itself_passes() {
        assert!(judge("99", "101").passed && judge("100", "100").passed);
        let wide = judge("98.99", "101.01");
        assert_eq!((wide.code, wide.passed, wide.value), ("spread", false, Decimal::new(202, 4)));
    }

    #[test]
    fn missing_crossed_and_huge_are_refused() {
        assert_eq!(spread(Scope::Firm, Decimal::ONE, None).code, "no_reference_price");
        assert!(!spread(Scope::Firm, Decimal::ONE, None).passed);
        assert!(!judge("101", "99").passed, "crossed");
        assert!(!judge("0.0000000000000000000000000001", &Decimal::MAX.to_string()).passed);
        let quote = Quote {
            bid: Decimal::MAX.to_string().parse().unwrap(),
            ask: Decimal::MAX.to_string().parse().unwrap(),
            at: Timestamp::EPOCH,
        };
        let check = spread(Scope::Firm, Decimal::TWO, Some(&quote));
        assert_eq!((check.code, check.passed), ("overflow", false));
    }
}
