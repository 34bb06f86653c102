//! The limits, as plain values.

use std::{collections::BTreeMap, time::Duration};

use infra_types::{AccountId, Currency, Decimal, GroupId, InstrumentId, Scope};
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use crate::{
    rules::{Coverage, Limit, Mode, Rule, ScopeKind},
    validate,
};

/// A limit that is an amount or follows the equity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitValue {
    /// So much, in the currency of what it covers (the account's; for the firm the firm's).
    Amount(Decimal),
    /// This part of equity: 0.8 is 80 %.
    OfEquity(Decimal),
}

impl LimitValue {
    /// The amount at this equity; nothing is allowed on equity below zero.
    #[must_use]
    pub fn at(self, equity: Decimal) -> Decimal {
        match self {
            Self::Amount(amount) => amount,
            Self::OfEquity(part) => part.saturating_mul(equity).max(Decimal::ZERO),
        }
    }

    /// Whether the equity must be known.
    #[must_use]
    pub fn needs_equity(self) -> bool {
        matches!(self, Self::OfEquity(_))
    }

    pub(crate) fn figure(self) -> Decimal {
        match self {
            Self::Amount(figure) | Self::OfEquity(figure) => figure,
        }
    }
}

/// All limits. `Default` sets none of them, and **an order that meets an unset limit is refused**; only `time_zone` (UTC),
/// `clock_skew_max` (1 s) and `mark_age_max` (as `reference_age_max`) have a value of their own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RiskLimits {
    /// What exposure of the whole firm is counted in.
    pub firm_currency: Option<Currency>,
    /// Where midnight is taken from: an IANA name such as `Europe/Zurich`.
    pub time_zone: String,
    /// How old the quote of the order's instrument may be.
    pub reference_age_max: Option<Duration>,
    /// How old the quotes of instruments that the account holds may be when equity is reckoned.
    pub mark_age_max: Option<Duration>,
    /// How far in the future a quote may claim to be.
    pub clock_skew_max: Duration,
    /// Quantity of one opening order, in base units, for instruments without a limit of their own.
    pub order_qty_max: Option<Decimal>,
    /// The same for single instruments.
    pub order_qty_max_of: BTreeMap<InstrumentId, Decimal>,
    /// Value of one opening order, in the account's currency.
    pub order_notional_max: Option<Decimal>,
    /// Gross exposure of each account: working opening orders and positions at cost.
    pub exposure_account_max: Option<LimitValue>,
    /// Gross exposure of all accounts together.
    pub exposure_firm_max: Option<LimitValue>,
    /// Exposure of each account in each instrument.
    pub position_notional_max: Option<LimitValue>,
    /// How many positions the firm may have open or be opening.
    pub open_positions_max: Option<u32>,
    /// At which loss since midnight an account opens nothing more (part of the equity at midnight).
    pub daily_loss_max: Option<LimitValue>,
    /// At which distance from its best an account opens nothing more (part of the best equity).
    pub drawdown_max: Option<LimitValue>,
    /// Which accounts share a group's limits.
    pub groups: BTreeMap<AccountId, GroupId>,
    /// Everything else that is limited.
    pub rules: Vec<Rule>,
}

impl Default for RiskLimits {
    fn default() -> Self {
        Self {
            firm_currency: None,
            time_zone: "UTC".into(),
            reference_age_max: None,
            mark_age_max: None,
            clock_skew_max: Duration::from_secs(1),
            order_qty_max: None,
            order_qty_max_of: BTreeMap::new(),
            order_notional_max: None,
            exposure_account_max: None,
            exposure_firm_max: None,
            position_notional_max: None,
            open_positions_max: None,
            daily_loss_max: None,
            drawdown_max: None,
            groups: BTreeMap::new(),
            rules: Vec::new(),
        }
    }
}

impl RiskLimits {
    /// Finds every mistake. A limit that is not set is no mistake: it refuses orders when they come.
    ///
    /// # Errors
    /// One line for each mistake.
    pub fn validate(&self) -> Result<(), Vec<String>> {
        let mut mistakes = Vec::new();
        if let Err(e) = self.zone() {
            mistakes.push(e);
        }
        if self.mark_age_max.is_some_and(|age| age.is_zero()) {
            mistakes.push("mark_age_max must be above zero".into());
        }
        mistakes.extend(validate::mistakes(self));
        if mistakes.is_empty() { Ok(()) } else { Err(mistakes) }
    }

    /// The limits that have fields of their own, as the rules that they are; each is named as its field.
    #[must_use]
    pub fn flat_rules(&self) -> Vec<Rule> {
        let rule = |id: &str, covers, limit| Rule { id: id.into(), covers, limit, warn_at: None, mode: Mode::Enforce };
        let each = Coverage::Each;
        let firm = || Coverage::One(Scope::Firm);
        let mut rules = Vec::new();
        let mut add = |id: &str, covers: Coverage, limit: Option<Limit>| {
            rules.extend(limit.map(|limit| rule(id, covers, limit)));
        };
        add("reference_age_max", each(ScopeKind::Instrument), self.reference_age_max.map(Limit::ReferenceAge));
        add("order_qty_max", each(ScopeKind::Instrument), self.order_qty_max.map(Limit::OrderQty));
        for (instrument, max) in &self.order_qty_max_of {
            let of = Coverage::One(Scope::Instrument(instrument.clone()));
            add(&format!("order_qty_max_of:{instrument}"), of, Some(Limit::OrderQty(*max)));
        }
        let notional = self.order_notional_max.map(|max| Limit::OrderNotional(LimitValue::Amount(max)));
        add("order_notional_max", each(ScopeKind::Account), notional);
        add("exposure_firm_max", firm(), self.exposure_firm_max.map(Limit::Gross));
        add("exposure_account_max", each(ScopeKind::Account), self.exposure_account_max.map(Limit::Gross));
        add("position_notional_max", each(ScopeKind::Position), self.position_notional_max.map(Limit::Gross));
        add("open_positions_max", firm(), self.open_positions_max.map(Limit::OpenPositions));
        add("daily_loss_max", each(ScopeKind::Account), self.daily_loss_max.map(Limit::DailyLoss));
        add("drawdown_max", each(ScopeKind::Account), self.drawdown_max.map(Limit::Drawdown));
        rules
    }

    pub(crate) fn all_rules(&self) -> Vec<Rule> {
        self.flat_rules().into_iter().chain(self.rules.iter().cloned()).collect()
    }

    pub(crate) fn zone(&self) -> Result<TimeZone, String> {
        TimeZone::get(&self.time_zone).map_err(|e| format!("time_zone {:?} is not an IANA name: {e}", self.time_zone))
    }

    pub(crate) fn mark_age(&self) -> Option<Duration> {
        self.mark_age_max.or(self.reference_age_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mistake_is_named_at_once() {
        let limits = RiskLimits {
            time_zone: "Mars/Olympus".into(),
            reference_age_max: Some(Duration::ZERO),
            order_qty_max: Some(Decimal::ZERO),
            order_qty_max_of: [("v/X".parse().unwrap(), -Decimal::ONE)].into(),
            daily_loss_max: Some(LimitValue::OfEquity(Decimal::from(5))),
            exposure_firm_max: Some(LimitValue::Amount(Decimal::ZERO)),
            ..RiskLimits::default()
        };
        let mistakes = limits.validate().unwrap_err();
        for name in
            ["time_zone", "reference_age_max", "order_qty_max ", "v/X", "exposure_firm_max", "daily_loss_max is a part"]
        {
            assert!(mistakes.iter().any(|m| m.contains(name)), "{name} in {mistakes:?}");
        }
        assert_eq!(mistakes.len(), 6);
        assert_eq!(RiskLimits::default().validate(), Ok(()));
    }

    #[test]
    fn a_part_of_equity_below_zero_allows_nothing() {
        let limit = LimitValue::OfEquity(Decimal::new(8, 1));
        assert_eq!(limit.at(Decimal::from(1_000)), Decimal::from(800));
        assert_eq!(limit.at(Decimal::from(-1_000)), Decimal::ZERO);
    }

    #[test]
    fn goes_through_json() {
        let limits = RiskLimits {
            drawdown_max: Some(LimitValue::OfEquity(Decimal::new(2, 1))),
            order_qty_max_of: [("v/X".parse().unwrap(), Decimal::ONE)].into(),
            ..RiskLimits::default()
        };
        let json = serde_json::to_string(&limits).unwrap();
        assert_eq!(serde_json::from_str::<RiskLimits>(&json).unwrap(), limits);
        assert!(serde_json::from_str::<RiskLimits>("{\"drawdown\": 1}").is_err());
    }
}
