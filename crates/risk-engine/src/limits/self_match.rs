//! Orders that could trade with each other (FIA 2024: self-match prevention, R37).

use infra_types::{AccountId, Decimal, Order, OrderId, OrderKind, Price, Scope, Side};
use serde::{Deserialize, Serialize};

use super::codes;
use crate::decision::Check;

/// An order that works, as far as another could trade with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkingOrder {
    /// Which.
    pub id: OrderId,
    /// Whose.
    pub account: AccountId,
    /// Which way.
    pub side: Side,
    /// At which price or better; none for a market order, which trades at any.
    pub price: Option<Price>,
}

impl From<&Order> for WorkingOrder {
    fn from(order: &Order) -> Self {
        let price = match order.kind {
            OrderKind::Limit(price) => Some(price),
            OrderKind::Market { .. } => None,
        };
        Self { id: order.id.clone(), account: order.account.clone(), side: order.side, price }
    }
}

impl WorkingOrder {
    /// Whether the two could trade with each other: other sides, and a buy at the sell's price or above. A market order could with
    /// any of the other side, whatever worst price it names: the venue does not know that price.
    #[must_use]
    pub fn could_trade_with(&self, other: &Self) -> bool {
        let (buy, sell) = match (self.side, other.side) {
            (Side::Buy, Side::Sell) => (self.price, other.price),
            (Side::Sell, Side::Buy) => (other.price, self.price),
            _ => return false,
        };
        buy.zip(sell).is_none_or(|(buy, sell)| buy >= sell)
    }
}

/// How many of the `working` orders of this instrument the order could trade with: none may be. The order itself, sent again, is
/// none of them.
#[must_use]
pub fn self_match<'a>(scope: Scope, order: &Order, working: impl IntoIterator<Item = &'a WorkingOrder>) -> Check {
    let coming = WorkingOrder::from(order);
    let mut found = working.into_iter().filter(|w| w.id != coming.id && coming.could_trade_with(w));
    let Some(first) = found.next() else {
        return Check::at_most(codes::SELF_MATCH, scope, Decimal::ZERO, Decimal::ZERO);
    };
    let count = Decimal::from(found.count()).saturating_add(Decimal::ONE);
    let check = Check::at_most(codes::SELF_MATCH, scope, count, Decimal::ZERO);
    check.with_note(format!("could trade with {}: cancel it first", first.id))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn order(id: &str, side: Side, price: Option<&str>) -> Order {
        let mut order = Order::limit(
            id.parse().unwrap(),
            "a".parse().unwrap(),
            "s".parse().unwrap(),
            "v/X".parse().unwrap(),
            side,
            "1".parse().unwrap(),
            price.unwrap_or("1").parse().unwrap(),
        );
        if price.is_none() {
            order.kind = OrderKind::Market { worst: "1".parse().unwrap() };
        }
        order
    }

    fn working(id: &str, side: Side, price: Option<&str>) -> WorkingOrder {
        WorkingOrder::from(&order(id, side, price))
    }

    #[test]
    fn prices_that_touch_could_trade() {
        let book = [working("b1", Side::Buy, Some("99")), working("s1", Side::Sell, Some("101"))];
        let judge = |side, price| self_match(Scope::Firm, &order("o", side, price), &book);
        assert!(judge(Side::Buy, Some("100.99")).passed);
        let touch = judge(Side::Buy, Some("101"));
        assert_eq!((touch.code, touch.passed, touch.value), ("self_match", false, Decimal::ONE));
        assert!(touch.note.contains("s1"), "{}", touch.note);
        assert!(judge(Side::Sell, Some("99.01")).passed && !judge(Side::Sell, Some("99")).passed);
    }

    #[test]
    fn a_market_order_could_trade_with_any_of_the_other_side() {
        let far = working("s1", Side::Sell, Some("1000000"));
        assert!(!self_match(Scope::Firm, &order("o", Side::Buy, None), [&far]).passed, "whatever it names as worst");
        assert!(!self_match(Scope::Firm, &order("o", Side::Buy, Some("1")), [&working("m", Side::Sell, None)]).passed);
        assert!(self_match(Scope::Firm, &order("o", Side::Sell, None), [&far]).passed, "the same side");
    }

    #[test]
    fn the_order_itself_is_none_of_them_and_all_others_are_counted() {
        let mut book: Vec<_> = (0..3).map(|n| working(&format!("s{n}"), Side::Sell, Some("5"))).collect();
        book.push(working("o", Side::Sell, Some("5")));
        assert_eq!(self_match(Scope::Firm, &order("o", Side::Buy, Some("6")), &book).value, Decimal::from(3));
        assert!(self_match(Scope::Firm, &order("o", Side::Buy, Some("6")), &[]).passed);
    }

    proptest! {
        #[test]
        fn is_symmetric_and_never_within_a_side(
            a in prop::option::of(1u32..50), b in prop::option::of(1u32..50), buys in any::<(bool, bool)>(),
        ) {
            let side = |buy| if buy { Side::Buy } else { Side::Sell };
            let text = |price: Option<u32>| price.map(|p| p.to_string());
            let one = working("x", side(buys.0), text(a).as_deref());
            let two = working("y", side(buys.1), text(b).as_deref());
            prop_assert_eq!(one.could_trade_with(&two), two.could_trade_with(&one));
            prop_assert!(buys.0 != buys.1 || !one.could_trade_with(&two));
        }
    }
}
