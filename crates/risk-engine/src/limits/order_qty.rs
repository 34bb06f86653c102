//! The largest quantity of one order (SEC 15c3-5(c)(1)(ii), RTS 6 art. 15(1)(c)).

use infra_types::{Decimal, Order, Scope};

use super::codes;
use crate::{config::RiskLimits, decision::Check};

/// The order's quantity against its instrument's limit, or the common one.
#[must_use]
pub fn order_qty(limits: &RiskLimits, order: &Order) -> Check {
    let scope = Scope::Instrument(order.instrument.clone());
    let limit: Option<Decimal> = limits.order_qty_max_of.get(&order.instrument).copied().or(limits.order_qty_max);
    match limit {
        Some(limit) => Check::at_most(codes::ORDER_QTY, scope, order.qty.get(), limit),
        None => super::unset("order_qty_max", scope),
    }
}

#[cfg(test)]
mod tests {
    use infra_types::Side;

    use super::*;

    #[test]
    fn an_instruments_own_limit_wins_and_none_at_all_refuses() {
        let [o, a, s] = ["o", "a", "s"];
        let order = Order::limit(
            o.parse().unwrap(),
            a.parse().unwrap(),
            s.parse().unwrap(),
            "v/X".parse().unwrap(),
            Side::Buy,
            "5".parse().unwrap(),
            "1".parse().unwrap(),
        );
        let mut limits = RiskLimits::default();
        assert_eq!(order_qty(&limits, &order).code, "limit_unset");
        limits.order_qty_max = Some(Decimal::from(5));
        assert!(order_qty(&limits, &order).passed, "the limit itself passes");
        limits.order_qty_max_of.insert(order.instrument.clone(), Decimal::from(4));
        let check = order_qty(&limits, &order);
        assert_eq!((check.passed, check.headroom), (false, Decimal::NEGATIVE_ONE));
    }
}
