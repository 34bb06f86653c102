//! The throttle on repeated automated execution: so many approvals, then a named person looks (RTS 6 art. 15(3), R19).

use infra_types::Scope;

use super::{Bounded, codes, working_orders::bounded_count};

/// Orders approved since a person last enabled the strategy and the one that comes, against the limit. Nothing resets the counter
/// but that person: no end of a window, day or process.
#[must_use]
pub fn executions(scope: Scope, max: u32, used: i64, add: i64) -> Bounded {
    let mut found = bounded_count(codes::EXECUTIONS, scope, max, used, add);
    found.check = found.check.with_note("approved since a named person enabled it last");
    found
}

#[cfg(test)]
mod tests {
    use infra_types::Decimal;

    use super::*;

    #[test]
    fn counts_and_bounds() {
        let found = executions(Scope::Strategy("s".parse().unwrap()), 100, 100, 1);
        assert_eq!((found.check.code, found.max, found.check.headroom), ("executions", 100, Decimal::NEGATIVE_ONE));
        assert_eq!(executions(Scope::Firm, 0, 0, 1).max, 0);
    }
}
