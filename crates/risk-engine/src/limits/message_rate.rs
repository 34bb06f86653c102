//! How many messages may leave in a while (RTS 6 art. 15(1)(d), R17); a throttle never holds a cancel back (FIA 2024, R31).

use infra_types::{Scaled, Scope};

use super::{Bounded, codes, working_orders::bounded_count};

/// What a message does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MessageKind {
    /// It opens, or changes an order: the limit holds it back.
    Throttled,
    /// A cancel, or an order that only reduces: it is counted and always passes.
    Exempt,
}

/// Messages that the window counts and the ones that come, against the limit. What is exempt has the counter's own bound instead,
/// so that it is counted and passes.
#[must_use]
pub fn message_rate(scope: Scope, max: u32, kind: MessageKind, used: i64, add: i64) -> Bounded {
    let mut found = bounded_count(codes::MESSAGE_RATE, scope, max, used, add);
    if kind == MessageKind::Exempt {
        found.max = Scaled::MAX;
        found.check = found.check.with_note("counted, and passes whatever the count");
    }
    found
}

#[cfg(test)]
mod tests {
    use infra_types::Decimal;

    use super::*;

    #[test]
    fn an_exit_is_counted_and_never_bound() {
        let order = message_rate(Scope::Firm, 10, MessageKind::Throttled, 10, 1);
        assert_eq!((order.check.code, order.max, order.check.headroom), ("message_rate", 10, Decimal::NEGATIVE_ONE));
        let cancel = message_rate(Scope::Firm, 10, MessageKind::Exempt, 10, 1);
        assert_eq!((cancel.max, cancel.check.value, cancel.check.passed), (Scaled::MAX, Decimal::from(11), true));
        assert_eq!(message_rate(Scope::Firm, 0, MessageKind::Throttled, 0, 1).max, 0);
    }
}
