//! The venue's own rules: what breaks them would be rejected there.

use infra_types::{Decimal, InstrumentSpec, Order, Scope, SpecViolation};

use super::codes;
use crate::decision::Check;

/// The first rule of the venue that the order breaks; none if it breaks none.
#[must_use]
pub fn spec(spec: &InstrumentSpec, order: &Order) -> Option<Check> {
    let violation = spec.check(order.qty, order.kind.price()).err()?;
    let scope = Scope::Instrument(order.instrument.clone());
    let (code, value, limit) = match &violation {
        SpecViolation::OffTick { price, tick } => (codes::SPEC_TICK, price.get(), *tick),
        SpecViolation::OffLot { qty, lot } => (codes::SPEC_LOT, qty.get(), *lot),
        SpecViolation::QtyOutOfBounds { qty, min, max } => {
            (codes::SPEC_QTY, qty.get(), if qty < min { min.get() } else { max.get() })
        }
        SpecViolation::NotionalTooSmall { notional, min } => (codes::SPEC_NOTIONAL, *notional, *min),
        _ => (codes::SPEC_OTHER, Decimal::ZERO, Decimal::ZERO),
    };
    Some(Check::new(code, scope, value, limit, false).with_note(violation.to_string()))
}

#[cfg(test)]
mod tests {
    use infra_types::Side;

    use super::*;

    #[test]
    fn each_rule_has_its_code() {
        let rules = InstrumentSpec {
            id: "v/X".parse().unwrap(),
            base: "BTC".parse().unwrap(),
            quote: "USD".parse().unwrap(),
            tick_size: Decimal::new(1, 1),
            lot_size: Decimal::new(1, 2),
            qty_min: "0.01".parse().unwrap(),
            qty_max: "10".parse().unwrap(),
            notional_min: Decimal::ONE,
            maker_fee_rate: Decimal::ZERO,
            taker_fee_rate: Decimal::ZERO,
        };
        for (qty, price, code) in [
            ("1", "100.05", Some("spec_tick")),
            ("1.005", "100", Some("spec_lot")),
            ("0", "100", Some("spec_qty")),
            ("11", "100", Some("spec_qty")),
            ("0.01", "1", Some("spec_notional")),
            ("1", "100", None),
        ] {
            let order = Order::limit(
                "o".parse().unwrap(),
                "a".parse().unwrap(),
                "s".parse().unwrap(),
                "v/X".parse().unwrap(),
                Side::Buy,
                qty.parse().unwrap(),
                price.parse().unwrap(),
            );
            assert_eq!(spec(&rules, &order).map(|c| c.code), code, "{qty} at {price}");
        }
    }
}
