//! An order without anybody who answers for it (RTS 6 art. 12(3), R11; art. 11). The algorithm and the account every order names.

use infra_types::{Decimal, Scope, UserId};

use super::codes;
use crate::decision::Check;

/// Whether the order names the person that answers for it.
#[must_use]
pub fn attribution(scope: Scope, user: Option<&UserId>) -> Check {
    match user {
        Some(_) => Check::at_most(codes::USER_REQUIRED, scope, Decimal::ZERO, Decimal::ZERO),
        None => Check::missing(codes::USER_REQUIRED, scope, "the order must name the person that answers for it"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn somebody_answers_or_it_is_refused() {
        assert!(attribution(Scope::Firm, Some(&"ada".parse().unwrap())).passed);
        let check = attribution(Scope::Firm, None);
        assert_eq!((check.code, check.passed), ("user_required", false));
    }
}
