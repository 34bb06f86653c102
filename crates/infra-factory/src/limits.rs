//! From the configuration's plain figures to the risk engine's limits.

use std::time::Duration;

use infra_config::RiskSection;
use infra_risk_engine::{LimitValue, RiskLimits};
use infra_types::Currency;

/// How old a price may be that an order is judged by, where nothing else was said.
const REFERENCE_AGE_MAX: Duration = Duration::from_secs(5);
/// How old the prices may be that held positions are valued by: a quiet market quotes less often.
const MARK_AGE_MAX: Duration = Duration::from_secs(60);

/// The limits of `section`; the whole firm may be exposed as much as one account.
pub(crate) fn from_config(section: &RiskSection, firm_currency: Currency) -> RiskLimits {
    let exposure = LimitValue::OfEquity(section.max_portfolio_exposure_pct);
    RiskLimits {
        firm_currency: Some(firm_currency),
        reference_age_max: Some(REFERENCE_AGE_MAX),
        mark_age_max: Some(MARK_AGE_MAX),
        order_qty_max: Some(section.max_order_qty),
        order_notional_max: Some(section.max_order_notional),
        exposure_account_max: Some(exposure),
        exposure_firm_max: Some(exposure),
        position_notional_max: Some(LimitValue::Amount(section.max_position_notional)),
        open_positions_max: Some(section.max_total_positions.get()),
        daily_loss_max: Some(LimitValue::OfEquity(section.max_daily_loss_pct)),
        drawdown_max: Some(LimitValue::OfEquity(section.max_drawdown_pct)),
        ..RiskLimits::default()
    }
}
