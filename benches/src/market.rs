//! One instrument and an order in it.

use infra_types::{Decimal, InstrumentSpec, InvalidValue, Order, Price, Side};

const BID: &str = "87232.00";
const ASK: &str = "87232.01";

fn valid<T>(value: Result<T, InvalidValue>) -> T {
    value.expect("a fixed, valid value")
}

/// Bitcoin at a venue of paper.
///
/// # Panics
/// Never: its values are fixed.
#[must_use]
pub fn bitcoin() -> InstrumentSpec {
    InstrumentSpec {
        id: valid("paper/BTCUSDT".parse()),
        base: valid("BTC".parse()),
        quote: valid("USDT".parse()),
        tick_size: Decimal::new(1, 2),
        lot_size: Decimal::new(1, 5),
        qty_min: valid("0.00001".parse()),
        qty_max: valid("9000".parse()),
        notional_min: Decimal::from(5),
        maker_fee_rate: Decimal::new(1, 3),
        taker_fee_rate: Decimal::new(1, 3),
    }
}

/// Best bid and ask.
///
/// # Panics
/// Never: its values are fixed.
#[must_use]
pub fn quote() -> (Price, Price) {
    (valid(BID.parse()), valid(ASK.parse()))
}

/// A limit order that buys a hundredth of [`bitcoin`] for the account `main`.
///
/// # Panics
/// If `id` is no order id.
#[must_use]
pub fn buy(id: &str) -> Order {
    let (account, strategy) = (valid("main".parse()), valid("bench".parse()));
    let (qty, price) = (valid("0.01".parse()), valid(ASK.parse()));
    Order::limit(valid(id.parse()), account, strategy, bitcoin().id, Side::Buy, qty, price)
}
