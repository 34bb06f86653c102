//! From the configuration's plain figures to the risk engine's limits, and which of these and the stored ones are followed.

use std::time::Duration;

use infra_config::{LimitsFrom, RiskSection};
use infra_risk_engine::{LimitValue, RiskEngine, RiskError, RiskLimits};
use infra_types::{Currency, UserId};

use crate::{error::FactoryError, wiring::limit_rows::LimitRows};

/// In whose name a start stores limits.
pub(crate) const AUTHOR: &str = "config";
/// How often a start looks again when other bots store limits at the same time.
const TRIES: u32 = 16;

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

/// Follows the `given` limits or the stored ones, as `from` says; stores the given ones where there are none. Stored limits that cannot be
/// followed are left alone: the engine opens nothing then, and exits go on.
pub(crate) async fn settle_on(
    risk: &RiskEngine,
    from: LimitsFrom,
    given: RiskLimits,
    rows: &LimitRows,
) -> Result<(), FactoryError> {
    let author = UserId::new(AUTHOR).map_err(RiskError::from)?;
    for _ in 0..TRIES {
        match risk.reload_limits().await {
            Ok(_) => {}
            Err(e @ (RiskError::Corrupt { .. } | RiskError::InvalidLimits(_))) => {
                tracing::error!(error = %e, "the stored limits cannot be followed: nothing is opened until others are stored");
                return Ok(());
            }
            Err(e) => return Err(e.into()),
        }
        let known = risk.limits();
        if known.version > 0 && known.limits == given {
            return Ok(());
        }
        if known.version > 0 && from != LimitsFrom::Config {
            let (version, by) = (known.version, &known.author);
            tracing::warn!(version, %by, "the stored limits are followed; the configuration's are others");
            return Ok(());
        }
        let reason = if known.version == 0 { "the first limits, by a start" } else { "the configuration has others" };
        let compose = |set: &infra_risk_engine::LimitSet| rows.limits(set);
        match risk.set_limits(known.version, given.clone(), author.clone(), reason, &compose).await {
            Ok(set) => {
                tracing::info!(version = set.version, "limits stored");
                return Ok(());
            }
            Err(RiskError::LimitsChanged { .. }) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Err(RiskError::Contended { tries: TRIES }.into())
}
