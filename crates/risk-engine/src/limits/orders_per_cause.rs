//! What leaves against what came in: a runaway that sends orders without end for one event (SEC order on Knight 2012, R38).

use infra_types::{EventId, Scope};

use super::{Bounded, codes, working_orders::bounded_count};
use crate::decision::Check;

/// Orders that `cause` made and the one that comes, against the limit.
///
/// # Errors
/// The failed check of an order that names no cause: what nothing asked for is not sent.
pub fn orders_per_cause(
    scope: Scope,
    max: u32,
    cause: Option<&EventId>,
    used: i64,
    add: i64,
) -> Result<Bounded, Check> {
    match cause {
        None => Err(Check::missing(codes::NO_CAUSE, scope, "the order names no event that asked for it")),
        Some(_) => Ok(bounded_count(codes::ORDERS_PER_CAUSE, scope, max, used, add)),
    }
}

#[cfg(test)]
mod tests {
    use infra_types::Decimal;

    use super::*;

    #[test]
    fn counts_by_cause_and_refuses_without_one() {
        let without = orders_per_cause(Scope::Firm, 5, None, 0, 1).unwrap_err();
        assert_eq!((without.code, without.passed), ("no_cause", false));
        let cause: EventId = EventId::generate();
        let found = orders_per_cause(Scope::Firm, 5, Some(&cause), 5, 1).unwrap();
        assert_eq!((found.check.code, found.max, found.check.headroom), ("orders_per_cause", 5, Decimal::NEGATIVE_ONE));
    }
}
