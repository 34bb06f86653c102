//! The limits, one file each. All are plain functions of their arguments: none waits, reads a clock or does I/O.

mod attribution;
mod concentration;
mod daily_loss;
mod drawdown;
mod duplicates;
mod executions;
mod exposure;
mod leverage;
mod long_short;
mod max_positions;
mod message_rate;
mod net;
mod notional_rate;
mod order_notional;
mod order_qty;
mod orders_per_cause;
mod price_collar;
mod price_move;
mod qty_rate;
mod reference_price;
mod restricted;
mod self_match;
mod spec;
mod spread;
mod working_orders;

pub use attribution::attribution;
pub use concentration::concentration;
pub use daily_loss::daily_loss;
pub use drawdown::drawdown;
pub use duplicates::{duplicates, fingerprint};
pub use executions::executions;
pub use exposure::exposure;
pub use leverage::leverage;
pub use long_short::long_short;
pub use max_positions::max_positions;
pub use message_rate::{MessageKind, message_rate};
pub use net::net;
pub use notional_rate::notional_rate;
pub use order_notional::order_notional;
pub use order_qty::order_qty;
pub use orders_per_cause::orders_per_cause;
pub use price_collar::price_collar;
pub use price_move::{PriceRange, price_move};
pub use qty_rate::qty_rate;
pub use reference_price::reference_price;
pub(crate) use reference_price::seconds;
pub use restricted::restricted;
pub use self_match::{WorkingOrder, self_match};
pub use spec::spec;
pub use spread::spread;
pub use working_orders::working_orders;

use infra_types::{Decimal, Scaled, Scope};

use crate::decision::{Check, code as codes};

/// A limit on a shared counter: the check as far as it can be known here, and the bound that the store enforces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bounded {
    /// The check with the last known usage; the store has the last word.
    pub check: Check,
    /// The counter's new value may be this at most, in the counter's units.
    pub max: i64,
}

/// Usage `used` (raw, 1e-4) plus `add` against `limit`.
fn bounded(code: &'static str, scope: Scope, used: i64, add: Scaled, limit: Decimal) -> Bounded {
    let value = Decimal::new(used, Scaled::SCALE).saturating_add(add.to_decimal());
    // A limit beyond what a counter can hold is the counter's own bound.
    let max = Scaled::allowed(limit).map_or(Scaled::MAX, Scaled::raw).max(0);
    // Passed until the store says otherwise: the last known usage may be stale in both directions.
    Bounded { check: Check::new(code, scope, value, limit, true), max }
}

/// The check that stands for equity that a limit needs and nobody can reckon; the reason is a failed check of its own.
fn no_equity(code: &'static str, scope: Scope) -> Check {
    Check::missing(code, scope, "the equity is not known: see the missing price or rate")
}

/// A loss against the loss at which opening ends: reaching it is enough.
fn below(code: &'static str, scope: Scope, loss: Decimal, limit: Decimal) -> Check {
    Check::new(code, scope, loss, limit, loss < limit)
}
