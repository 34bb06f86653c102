//! What is traded, with the rules of Binance spot (tick, lot and minimum as the exchange publishes them; the fee is its 0.1 %
//! for everybody).

use infra_types::{Decimal, InstrumentSpec, InvalidValue};

/// The three instruments of the shipped data, in the order of its indices.
pub(crate) fn all() -> Result<Vec<InstrumentSpec>, InvalidValue> {
    [("BTC", 2, 5, "9000"), ("ETH", 2, 4, "9000"), ("SOL", 2, 3, "90000")]
        .into_iter()
        .map(|(base, price_places, qty_places, qty_max)| {
            Ok(InstrumentSpec {
                id: format!("binance_spot/{base}USDT").parse()?,
                base: base.parse()?,
                quote: "USDT".parse()?,
                tick_size: Decimal::new(1, price_places),
                lot_size: Decimal::new(1, qty_places),
                qty_min: infra_types::Qty::new(Decimal::new(1, qty_places))?,
                qty_max: qty_max.parse()?,
                notional_min: Decimal::from(5),
                maker_fee_rate: Decimal::new(1, 3),
                taker_fee_rate: Decimal::new(1, 3),
            })
        })
        .collect()
}
