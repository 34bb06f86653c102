//! A refusal by a loss limit halts trading, where the configuration says so.

use infra_emergency::{EmergencyController, Stop};
use infra_risk_engine::{Check, Decision, code};
use infra_types::Decimal;

/// The limits whose breach is no accident of one order.
const HALTING: [&str; 2] = [code::DAILY_LOSS, code::DRAWDOWN];

/// Halts if `decision` failed on a loss limit. A halt that cannot be written holds in this process all the same.
pub(crate) async fn on_refusal(emergency: &EmergencyController, decision: &Decision) {
    // A check without a figure stands for an equity that nobody can reckon: a missing price is a refusal, and no loss.
    let is_loss = |c: &&Check| c.refuses() && HALTING.contains(&c.code) && c.value > Decimal::ZERO;
    let Some(check) = decision.checks.iter().find(is_loss) else { return };
    let reason = format!("{} reached {} of {} in scope {}", check.code, check.value, check.limit, check.scope);
    if let Err(e) = emergency.stop(Stop::halt("risk-engine", &reason).automatic()).await {
        tracing::error!(error = %e, reason, "the halt could not be written down; it holds in this process");
    }
}
