//! A refusal by a loss limit halts trading, where the configuration says so.

use infra_emergency::EmergencyController;
use infra_risk_engine::{Decision, code};

/// The limits whose breach is no accident of one order.
const HALTING: [&str; 2] = [code::DAILY_LOSS, code::DRAWDOWN];

/// Halts if `decision` failed on a loss limit. A halt that cannot be written holds in this process all the same.
pub(crate) async fn on_refusal(emergency: &EmergencyController, decision: &Decision) {
    let Some(check) = decision.checks.iter().find(|c| !c.passed && HALTING.contains(&c.code)) else { return };
    let reason = format!("{} reached {} of {} in scope {}", check.code, check.value, check.limit, check.scope);
    if let Err(e) = emergency.halt("risk-engine", &reason).await {
        tracing::error!(error = %e, reason, "the halt could not be written down; it holds in this process");
    }
}
