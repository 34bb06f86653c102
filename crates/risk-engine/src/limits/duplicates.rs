//! An order like one that was approved a moment ago (SEC 15c3-5(c)(1)(ii), R4).

use std::{fmt::Write as _, time::Duration};

use infra_types::{Decimal, Order, OrderKind, Scope, Side, TimeInForce};

use super::{codes, seconds};
use crate::decision::Check;

/// What an override is granted for: account, strategy, instrument, side, quantity and price (1.50 is 1.5), and how the order is
/// placed: its kind, its time in force and whether it may only reduce. A market order that names a limit order's price is another
/// order. Exact and at most 420 bytes; ids hold no `/`, so no two different orders have the same.
///
/// The duplicate check holds fewer things together: how an order is placed does not tell duplicates apart.
#[must_use]
pub fn fingerprint(order: &Order) -> String {
    let side = if order.side == Side::Buy { "buy" } else { "sell" };
    let (qty, price) = (order.qty.get().normalize(), order.kind.price().get().normalize());
    let mut text = String::with_capacity(128);
    // Writing to a string cannot fail.
    let _ = write!(text, "{}/{}/{}/{side}/{qty}/{price}", order.account, order.strategy, order.instrument);
    text.push_str(match order.kind {
        OrderKind::Limit(_) => "/limit",
        OrderKind::Market { .. } => "/market",
    });
    text.push_str(match order.time_in_force {
        TimeInForce::GoodTillCancelled => "/gtc",
        TimeInForce::ImmediateOrCancel => "/ioc",
        TimeInForce::FillOrKill => "/fok",
    });
    text.push_str(if order.reduce_only { "/reduce" } else { "/any" });
    text
}

/// How many orders like this one were approved within `window` (not counting itself): none may be.
#[must_use]
pub fn duplicates(scope: Scope, window: Duration, alike: u32) -> Check {
    let check = Check::at_most(codes::DUPLICATE_ORDER, scope, Decimal::from(alike), Decimal::ZERO);
    if check.passed {
        return check;
    }
    check.with_note(format!("the same order was approved within {} s", seconds(window).normalize()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn order(account: &str, strategy: &str, side: Side, qty: &str, price: &str) -> Order {
        Order::limit(
            "o".parse().unwrap(),
            account.parse().unwrap(),
            strategy.parse().unwrap(),
            "v/X".parse().unwrap(),
            side,
            qty.parse().unwrap(),
            price.parse().unwrap(),
        )
    }

    #[test]
    fn only_the_same_order_has_the_same() {
        let one = order("a", "s", Side::Buy, "1.50", "100");
        let again = Order { id: "other".parse().unwrap(), ..order("a", "s", Side::Buy, "1.5", "100.0") };
        assert_eq!(fingerprint(&one), "a/s/v/X/buy/1.5/100/limit/gtc/any");
        assert_eq!(fingerprint(&one), fingerprint(&again));
        for other in [
            order("b", "s", Side::Buy, "1.5", "100"),
            order("a", "t", Side::Buy, "1.5", "100"),
            order("a", "s", Side::Sell, "1.5", "100"),
            order("a", "s", Side::Buy, "1.6", "100"),
            order("a", "s", Side::Buy, "1.5", "101"),
            Order { kind: OrderKind::Market { worst: "100".parse().unwrap() }, ..one.clone() },
            one.clone().with_time_in_force(TimeInForce::ImmediateOrCancel),
            one.clone().with_time_in_force(TimeInForce::FillOrKill),
            one.clone().reduce_only(),
        ] {
            assert_ne!(fingerprint(&one), fingerprint(&other), "{other:?}");
        }
    }

    #[test]
    fn the_longest_fits_into_a_key() {
        let longest = "x".repeat(64);
        let most = Decimal::MAX.to_string();
        let mut order = order(&longest, &longest, Side::Sell, &most, "1");
        order.instrument = format!("{longest}/{longest}").parse().unwrap();
        order.kind = OrderKind::Market { worst: "0.0000000000000000000000000001".parse().unwrap() };
        order.reduce_only = true;
        assert!(fingerprint(&order).len() <= 420);
    }

    #[test]
    fn one_alike_is_too_many() {
        assert!(duplicates(Scope::Firm, Duration::from_secs(1), 0).passed);
        let check = duplicates(Scope::Firm, Duration::from_millis(1_500), 1);
        assert_eq!((check.code, check.passed, check.headroom), ("duplicate_order", false, Decimal::NEGATIVE_ONE));
        assert!(check.note.contains("within 1.5 s"), "{}", check.note);
        assert!(!duplicates(Scope::Firm, Duration::MAX, u32::MAX).passed);
    }

    proptest! {
        #[test]
        fn different_names_never_meet(a in "[!-.0-9:;A-Za-z]{1,8}", s in "[!-.0-9:;A-Za-z]{1,8}", b in "[!-.0-9:;A-Za-z]{1,8}", t in "[!-.0-9:;A-Za-z]{1,8}") {
            prop_assume!([&a, &s, &b, &t].iter().all(|id| !id.contains(['*', '?', '\\', '/'])));
            let (one, two) = (order(&a, &s, Side::Buy, "1", "1"), order(&b, &t, Side::Buy, "1", "1"));
            prop_assert_eq!(fingerprint(&one) == fingerprint(&two), a == b && s == t);
        }
    }
}
