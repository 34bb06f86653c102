//! From rules to the bounds of each scope and the limits of each route, once. Which rule holds where is the shared engine's choice.

use std::{sync::Arc, time::Duration};

use infra_types::{Decimal, Scaled, Scope};

use crate::{
    config::{LimitValue, RiskLimits},
    decision::{Check, code},
    ledger::Place,
    rulebook::{Kind, Named, RuleBook, Sort},
    rules::{Limit, Mode, Rule},
};

use super::{
    LocalError, fixed,
    tally::{Bound, Metric, Most, Name},
};

/// Limits without which nothing is opened: the field that sets them, what it is of, the kind of rule, and the sort that must be
/// covered (none: any). As the shared engine has it.
pub(super) const REQUIRED: [(&str, Sort, Kind, Option<Sort>); 9] = [
    ("order_qty_max", Sort::Instrument, Kind::OrderQty, None),
    ("reference_age_max", Sort::Instrument, Kind::ReferenceAge, None),
    ("daily_loss_max", Sort::Account, Kind::DailyLoss, Some(Sort::Account)),
    ("drawdown_max", Sort::Account, Kind::Drawdown, Some(Sort::Account)),
    ("order_notional_max", Sort::Account, Kind::OrderNotional, None),
    ("exposure_firm_max", Sort::Firm, Kind::Gross, Some(Sort::Firm)),
    ("exposure_account_max", Sort::Account, Kind::Gross, Some(Sort::Account)),
    ("position_notional_max", Sort::Instrument, Kind::Gross, Some(Sort::Position)),
    ("open_positions_max", Sort::Firm, Kind::OpenPositions, Some(Sort::Firm)),
];

/// Every kind that is kept here.
const KINDS: [Kind; 19] = [
    Kind::Restricted,
    Kind::UserRequired,
    Kind::OrderQty,
    Kind::ReferenceAge,
    Kind::Spread,
    Kind::PriceCollar,
    Kind::DailyLoss,
    Kind::Drawdown,
    Kind::OrderNotional,
    Kind::Gross,
    Kind::Net,
    Kind::Leverage,
    Kind::LongQty,
    Kind::ShortQty,
    Kind::OpenPositions,
    Kind::WorkingOrders,
    Kind::Duplicates,
    Kind::QtyRate,
    Kind::NotionalRate,
];

/// Whose rule a check is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) rule: Arc<str>,
    pub(super) warn_at: Option<Decimal>,
}

impl Origin {
    fn of(named: &Named) -> Self {
        Self { rule: named.id.clone(), warn_at: named.rule.warn_at }
    }

    /// The check, as one of this rule.
    pub(super) fn sign(&self, mut check: Check) -> Check {
        check.rule = Some(self.rule.clone());
        check.warn_at = self.warn_at;
        check
    }
}

/// A loss at which an account opens nothing more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Loss {
    pub(super) is_drawdown: bool,
    pub(super) limit: LimitValue,
    pub(super) origin: Origin,
}

/// A window of a scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rate {
    pub(super) metric: RateOf,
    pub(super) max: i64,
    pub(super) length: Duration,
    pub(super) origin: Origin,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum RateOf {
    Qty,
    Notional,
    Messages,
}

/// A part such as 0.05, as an integer and the power of ten that it is divided by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) figure: Decimal,
    pub(super) mantissa: i64,
    pub(super) unit: i64,
}

impl Part {
    fn new(figure: Decimal) -> Option<Self> {
        let figure = figure.normalize();
        let mantissa = i64::try_from(figure.mantissa()).ok().filter(|m| (0..1_000_000_000_000).contains(m))?;
        Some(Self { figure, mantissa, unit: 10_i64.checked_pow(figure.scale()).filter(|_| figure.scale() <= 9)? })
    }

    /// Whether `distance` is at most this part of `of`.
    #[inline]
    pub(super) fn admits(&self, distance: i128, of: i128) -> bool {
        distance * i128::from(self.unit) <= i128::from(self.mantissa) * of
    }
}

/// A limit with the rule that it is of and the scope that it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Of<T> {
    pub(super) limit: T,
    pub(super) scope: Scope,
    pub(super) origin: Origin,
}

/// What is checked order by order and counted nowhere.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct OrderLimits {
    pub(super) ages: Vec<Of<Duration>>,
    pub(super) collars: Vec<Of<Part>>,
    pub(super) spreads: Vec<Of<Part>>,
    pub(super) duplicates: Vec<Of<Duration>>,
    pub(super) restricted: Vec<Of<()>>,
    pub(super) user_required: Vec<Of<()>>,
    /// What no rule sets.
    pub(super) unset: Vec<(&'static str, Sort)>,
}

/// Whether a local ledger can keep the rule.
fn supported(rule: &Rule) -> Result<(), &'static str> {
    let sort = rule.covers.sort();
    match rule.limit {
        Limit::DailyLoss(_) | Limit::Drawdown(_) if sort != Sort::Account => Err("only accounts have a P&L here"),
        Limit::PriceCollar(part) | Limit::Spread(part) if Part::new(part).is_none() => {
            Err("a part has at most 9 places")
        }
        Limit::PriceMove { .. } => Err("no prices of the past are kept here"),
        Limit::Concentration(_) => Err("figures of two scopes are compared in the store"),
        Limit::Executions(_) => Err("what only a person resets must outlive the process"),
        Limit::OrdersPerCause { .. } => Err("causes are counted in the store"),
        Limit::SelfMatch => Err("working orders of others are not known here"),
        Limit::Leverage(_) if sort == Sort::Group => Err("the equity of a group is not kept here"),
        Limit::OrderNotional(limit) | Limit::Gross(limit) | Limit::Net(limit)
            if sort == Sort::Group && limit.needs_equity() =>
        {
            Err("the equity of a group is not kept here")
        }
        _ => Ok(()),
    }
}

/// Finds rules that cannot be kept. Rules in shadow mode refuse nothing and are left to the shared engine.
pub(super) fn check(limits: &RiskLimits) -> Result<(), LocalError> {
    limits.validate().map_err(LocalError::InvalidLimits)?;
    for rule in limits.rules.iter().filter(|rule| rule.mode == Mode::Enforce) {
        supported(rule).map_err(|why| LocalError::UnsupportedRule { rule: rule.id.clone(), why })?;
    }
    Ok(())
}

/// The sort of a scope and its place; none for what no rule can name.
fn place(name: &Name) -> Option<(Sort, Place)> {
    let sort = match name {
        Name::NoGroup => return None,
        Name::Firm => Sort::Firm,
        Name::Group(_) => Sort::Group,
        Name::Venue(_) => Sort::Venue,
        Name::Account(_) => Sort::Account,
        Name::Strategy(_) => Sort::Strategy,
        Name::Instrument(_) => Sort::Instrument,
        Name::Position(account, id) => return Some((Sort::Position, Place::Position(account.clone(), id.clone()))),
    };
    Some((sort, Place::Scope(name.scope())))
}

/// The enforced rules that cover the scope.
fn covering<'a>(rules: &'a RuleBook, name: &Name) -> impl Iterator<Item = &'a Named> {
    let place = place(name);
    KINDS.into_iter().chain([Kind::MessageRate]).filter_map(move |kind| {
        let (sort, place) = place.as_ref()?;
        rules.at(kind, *sort, place)
    })
}

/// Every bound on the scope's counters.
pub(super) fn bounds(rules: &RuleBook, name: &Name) -> Vec<Bound> {
    let mut bounds = Vec::new();
    for named in covering(rules, name) {
        let mut push = |metric, code, most| bounds.push(Bound { metric, code, most, origin: Origin::of(named) });
        match named.rule.limit {
            Limit::OrderQty(max) => push(Metric::OrderQty, code::ORDER_QTY, Most::Qty(max)),
            Limit::OrderNotional(max) => push(Metric::OrderNotional, code::ORDER_NOTIONAL, Most::Money(max)),
            Limit::Gross(max) => push(Metric::Gross, gross_code(name), Most::Money(max)),
            Limit::Leverage(times) => push(Metric::Gross, code::LEVERAGE, Most::Times(times)),
            Limit::Net(max) => {
                push(Metric::NetLong, code::NET_LONG, Most::Money(max));
                push(Metric::NetShort, code::NET_SHORT, Most::Money(max));
            }
            Limit::LongQty(max) => push(Metric::LongQty, code::LONG_QTY, Most::Qty(max)),
            Limit::ShortQty(max) => push(Metric::ShortQty, code::SHORT_QTY, Most::Qty(max)),
            Limit::OpenPositions(max) => push(Metric::Slots, code::MAX_POSITIONS, Most::Count(max)),
            Limit::WorkingOrders(max) => push(Metric::WorkingOrders, code::WORKING_ORDERS, Most::Count(max)),
            _ => {}
        }
    }
    bounds
}

/// The losses at which an account opens nothing more.
pub(super) fn losses(rules: &RuleBook, name: &Name) -> Vec<Loss> {
    let loss = |named: &Named| {
        let (is_drawdown, limit) = match named.rule.limit {
            Limit::DailyLoss(limit) => (false, limit),
            Limit::Drawdown(limit) => (true, limit),
            _ => return None,
        };
        Some(Loss { is_drawdown, limit, origin: Origin::of(named) })
    };
    covering(rules, name).filter_map(loss).collect()
}

/// The windows of a scope.
pub(super) fn rates(rules: &RuleBook, name: &Name) -> Vec<Rate> {
    let rate = |named: &Named| {
        let (metric, max, length) = match named.rule.limit {
            Limit::QtyRate { max, window } => {
                (RateOf::Qty, fixed::down(max).unwrap_or(Scaled::MAX).clamp(0, Scaled::MAX), window)
            }
            Limit::NotionalRate { max, window } => {
                (RateOf::Notional, Scaled::allowed(max).map_or(Scaled::MAX, Scaled::raw).max(0), window)
            }
            Limit::MessageRate { max, window } => (RateOf::Messages, i64::from(max), window),
            _ => return None,
        };
        Some(Rate { metric, max, length, origin: Origin::of(named) })
    };
    covering(rules, name).filter_map(rate).collect()
}

/// What is checked order by order over all scopes of a route.
pub(super) fn order_limits(rules: &RuleBook, names: &[Name]) -> OrderLimits {
    fn of<T>(limit: T, name: &Name, named: &Named) -> Of<T> {
        Of { limit, scope: name.scope(), origin: Origin::of(named) }
    }
    let mut found = OrderLimits::default();
    let mut covered = Vec::new();
    for name in names {
        for named in covering(rules, name) {
            covered.push((named.rule.limit.kind(), named.rule.covers.sort()));
            match named.rule.limit {
                Limit::ReferenceAge(max) => found.ages.push(of(max, name, named)),
                // `check` saw to it that a part can be kept.
                Limit::PriceCollar(part) => found.collars.extend(Part::new(part).map(|part| of(part, name, named))),
                Limit::Spread(part) => found.spreads.extend(Part::new(part).map(|part| of(part, name, named))),
                Limit::Duplicates { window } => found.duplicates.push(of(window, name, named)),
                Limit::Restricted => found.restricted.push(of((), name, named)),
                Limit::UserRequired => found.user_required.push(of((), name, named)),
                _ => {}
            }
        }
    }
    for (name, scope, kind, sort) in REQUIRED {
        if !covered.iter().any(|(k, s)| *k == kind && sort.is_none_or(|sort| sort == *s)) {
            found.unset.push((name, scope));
        }
    }
    found
}

/// The stable code of a limit on gross exposure.
fn gross_code(name: &Name) -> &'static str {
    match name {
        Name::Firm | Name::NoGroup => code::EXPOSURE_FIRM,
        Name::Group(_) => code::EXPOSURE_GROUP,
        Name::Venue(_) => code::EXPOSURE_VENUE,
        Name::Account(_) => code::EXPOSURE_ACCOUNT,
        Name::Strategy(_) => code::EXPOSURE_STRATEGY,
        Name::Instrument(_) => code::EXPOSURE_INSTRUMENT,
        Name::Position(..) => code::POSITION_NOTIONAL,
    }
}
