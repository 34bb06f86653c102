//! A fill that nobody approved halts its account: the venue does something else than it was told.

use infra_emergency::{EmergencyController, Stop};
use infra_risk_engine::{RiskEvent, RiskEventKind, Settled};
use infra_types::{Order, Scope, Timestamp};

use super::breach_escalates::stop_or_wider;

/// What is wrong with it, in words.
fn wrong(order: &Order, settled: &Settled) -> Option<String> {
    if settled.overfilled.is_sign_positive() && !settled.overfilled.is_zero() {
        return Some(format!("order {} was filled {} beyond what was approved", order.id, settled.overfilled));
    }
    settled.grew_by_reducing.then(|| format!("order {} was to reduce a position, and made it larger", order.id))
}

/// What is kept of it, in the batch that books it.
pub(crate) fn event(at: Timestamp, order: &Order, settled: &Settled) -> Option<RiskEvent> {
    let note = wrong(order, settled)?;
    let scope = Scope::Account(order.account.clone());
    let event = RiskEvent::new(at, RiskEventKind::UnexpectedFill, scope, "unexpected_fill").about(order);
    Some(event.with_figures(settled.overfilled, infra_types::Decimal::ZERO).with_note(note))
}

/// Halts the account, once the fill is booked. A halt that cannot be written holds in this process all the same.
pub(crate) async fn after(switch: &EmergencyController, order: &Order, settled: &Settled) {
    let Some(reason) = wrong(order, settled) else { return };
    let scope = Scope::Account(order.account.clone());
    if let Err(e) = stop_or_wider(switch, Stop::halt("order-gate", &reason).automatic(), scope).await {
        tracing::error!(error = %e, reason, "the halt could not be written down; it holds in this process");
    }
}
