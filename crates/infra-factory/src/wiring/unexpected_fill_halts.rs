//! A fill that nobody approved halts its account: the venue does something else than it was told.

use infra_emergency::{EmergencyController, Stop};
use infra_risk_engine::{RiskEvent, RiskEventKind, Settled};
use infra_types::{Decimal, Order, Qty, Scope, Timestamp};

use super::breach_escalates::stop_or_wider;

/// What is wrong with it, in words. A fill that comes after the cancel goes beyond what is still held, and not beyond what was approved.
fn wrong(order: &Order, filled: Qty, settled: &Settled) -> Option<String> {
    if filled > order.qty {
        return Some(format!("order {} was filled {filled} in all, and {} was approved", order.id, order.qty));
    }
    settled.grew_by_reducing.then(|| format!("order {} was to reduce a position, and made it larger", order.id))
}

/// What is kept of it (`filled` in all), in the batch that books it.
pub(crate) fn event(at: Timestamp, order: &Order, filled: Qty, settled: &Settled) -> Option<RiskEvent> {
    let note = wrong(order, filled, settled)?;
    let scope = Scope::Account(order.account.clone());
    let event = RiskEvent::new(at, RiskEventKind::UnexpectedFill, scope, "unexpected_fill").about(order);
    let beyond = (filled.get() - order.qty.get()).max(Decimal::ZERO);
    Some(event.with_figures(beyond, Decimal::ZERO).with_note(note))
}

/// Halts the account, once the fill is booked.
pub(crate) async fn after(switch: &EmergencyController, order: &Order, filled: Qty, settled: &Settled) {
    if let Some(reason) = wrong(order, filled, settled) {
        halt(switch, order, reason).await;
    }
}

/// Halts the account of an order whose fill could not be counted: its position is not what the ledger says.
pub(crate) async fn uncounted(switch: &EmergencyController, order: &Order) {
    halt(switch, order, format!("a fill of order {} cannot be counted: compare with the venue", order.id)).await;
}

/// A halt that cannot be written holds in this process all the same.
async fn halt(switch: &EmergencyController, order: &Order, reason: String) {
    let scope = Scope::Account(order.account.clone());
    if let Err(e) = stop_or_wider(switch, Stop::halt("order-gate", &reason).automatic(), scope).await {
        tracing::error!(error = %e, reason, "the halt could not be written down; it holds in this process");
    }
}
