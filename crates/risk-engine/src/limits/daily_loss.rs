//! What an account or a strategy may lose from midnight on (FIA 2010), realised and unrealised, deposits left out.

use infra_types::{Decimal, Scope};

use super::{below, codes, exposure::resolve, no_equity};
use crate::{config::LimitValue, decision::Check};

/// Today's loss against the limit, both in the scope's currency; a part is of `basis`, the equity at midnight (for a strategy: the
/// firm's equity).
#[must_use]
pub fn daily_loss(scope: Scope, limit: LimitValue, basis: Option<Decimal>, loss: Option<Decimal>) -> Check {
    let limit = match resolve(limit, codes::DAILY_LOSS, &scope, basis) {
        Ok(limit) => limit,
        Err(check) => return check,
    };
    match loss {
        None => no_equity(codes::DAILY_LOSS, scope),
        Some(loss) => below(codes::DAILY_LOSS, scope, loss, limit),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reaching_the_limit_is_enough_and_what_is_unknown_refuses() {
        let part = LimitValue::OfEquity(Decimal::new(5, 2));
        let judge = |basis: Option<i64>, loss: Option<&str>| {
            let loss = loss.map(|loss| loss.parse().unwrap());
            daily_loss(Scope::Firm, part, basis.map(Decimal::from), loss)
        };
        assert!(judge(Some(1_000), Some("49.99")).passed);
        let reached = judge(Some(1_000), Some("50"));
        assert_eq!((reached.passed, reached.value, reached.limit), (false, Decimal::from(50), Decimal::from(50)));
        assert!(!judge(Some(1_000), None).passed && !judge(None, Some("1")).passed);
        assert!(daily_loss(Scope::Firm, LimitValue::Amount(Decimal::TEN), None, Some(Decimal::ONE)).passed);
    }
}
