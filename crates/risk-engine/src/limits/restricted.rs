//! Where nothing may be opened (SEC 15c3-5(c)(2)(ii)–(iii), R5).

use infra_types::Scope;

use super::codes;
use crate::decision::Check;

/// The check that refuses: the rule is there, so nothing is opened in its scope.
#[must_use]
pub fn restricted(scope: Scope) -> Check {
    Check::missing(codes::RESTRICTED, scope, "nothing may be opened here")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_whatever_comes() {
        let check = restricted(Scope::Firm);
        assert_eq!((check.code, check.passed), ("restricted", false));
    }
}
