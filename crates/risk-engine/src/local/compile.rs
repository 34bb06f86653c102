//! From rules to the bounds of each scope and the limits of each route, once.

use std::time::Duration;

use infra_types::{Decimal, Scaled};

use crate::{
    config::{LimitValue, RiskLimits},
    decision::code,
    rules::{Coverage, Limit, Mode, Rule, ScopeKind},
};

use super::{
    LocalError, fixed,
    tally::{Bound, Metric, Most, Name, gross_code},
};

/// A loss at which an account opens nothing more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Loss {
    pub(super) is_drawdown: bool,
    pub(super) limit: LimitValue,
}

/// A window of a scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rate {
    pub(super) metric: RateOf,
    pub(super) max: i64,
    pub(super) length: Duration,
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

/// What is checked order by order and counted nowhere.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct OrderLimits {
    pub(super) age_max: Option<Duration>,
    pub(super) collar: Option<Part>,
    pub(super) spread: Option<Part>,
    pub(super) duplicates: Option<Duration>,
    pub(super) restricted: Option<Name>,
    pub(super) user_required: Option<Name>,
}

/// Whether a local ledger can keep the rule.
fn supported(rule: &Rule) -> Result<(), &'static str> {
    let of = |kinds: &[ScopeKind]| {
        let kind = match &rule.covers {
            Coverage::Each(kind) => Some(*kind),
            Coverage::Position(..) => Some(ScopeKind::Position),
            Coverage::One(infra_types::Scope::Firm) => None,
            Coverage::One(infra_types::Scope::Group(_)) => Some(ScopeKind::Group),
            Coverage::One(infra_types::Scope::Venue(_)) => Some(ScopeKind::Venue),
            Coverage::One(infra_types::Scope::Account(_)) => Some(ScopeKind::Account),
            Coverage::One(infra_types::Scope::Strategy(_)) => Some(ScopeKind::Strategy),
            Coverage::One(infra_types::Scope::Instrument(_)) => Some(ScopeKind::Instrument),
        };
        kind.is_none_or(|kind| kinds.contains(&kind))
    };
    match rule.limit {
        Limit::DailyLoss(_) | Limit::Drawdown(_) if !of(&[ScopeKind::Account]) => Err("only accounts have a P&L here"),
        Limit::DailyLoss(_) | Limit::Drawdown(_) if matches!(rule.covers, Coverage::One(infra_types::Scope::Firm)) => {
            Err("only accounts have a P&L here")
        }
        Limit::PriceCollar(part) | Limit::Spread(part) if Part::new(part).is_none() => {
            Err("a part has at most 9 places")
        }
        Limit::PriceMove { .. } => Err("no prices of the past are kept here"),
        Limit::Executions(_) => Err("what only a person resets must outlive the process"),
        Limit::OrdersPerCause { .. } => Err("causes are counted in the store"),
        Limit::SelfMatch => Err("working orders of others are not known here"),
        Limit::LongQty(_) | Limit::ShortQty(_) if !of(&[ScopeKind::Position, ScopeKind::Instrument]) => {
            Err("quantities of different instruments do not add up")
        }
        Limit::LongQty(_) | Limit::ShortQty(_) if matches!(rule.covers, Coverage::One(infra_types::Scope::Firm)) => {
            Err("quantities of different instruments do not add up")
        }
        Limit::OpenPositions(_) if !of(&[ScopeKind::Account]) => Err("positions are counted for the firm and accounts"),
        _ => Ok(()),
    }
}

/// Finds rules that cannot be kept. Rules in shadow mode refuse nothing and are left to the shared engine.
pub(super) fn check(limits: &RiskLimits) -> Result<(), LocalError> {
    limits.validate().map_err(LocalError::InvalidLimits)?;
    for rule in enforced(limits) {
        supported(rule).map_err(|why| LocalError::UnsupportedRule { rule: rule.id.clone(), why })?;
    }
    Ok(())
}

fn enforced(limits: &RiskLimits) -> impl Iterator<Item = &Rule> {
    limits.rules.iter().filter(|rule| rule.mode == Mode::Enforce)
}

fn kind_of(name: &Name) -> Option<ScopeKind> {
    Some(match name {
        Name::Firm | Name::NoGroup => return None,
        Name::Group(_) => ScopeKind::Group,
        Name::Venue(_) => ScopeKind::Venue,
        Name::Strategy(_) => ScopeKind::Strategy,
        Name::Instrument(_) => ScopeKind::Instrument,
        Name::Account(_) => ScopeKind::Account,
        Name::Position(..) => ScopeKind::Position,
    })
}

/// The limits of rules that cover the scope: one for itself takes the place of one of the same sort for each of its kind.
fn covering<'a>(limits: &'a RiskLimits, name: &Name) -> Vec<&'a Limit> {
    let (own, kind) = (name.coverage(), kind_of(name));
    let named = |covers: &Coverage| own.as_ref() == Some(covers);
    let each = |covers: &Coverage| matches!((covers, kind), (Coverage::Each(of), Some(kind)) if *of == kind);
    let sort = |limit: &Limit| std::mem::discriminant(limit);
    let own_rules: Vec<&Limit> = enforced(limits).filter(|r| named(&r.covers)).map(|r| &r.limit).collect();
    let others = enforced(limits).filter(|r| each(&r.covers)).map(|r| &r.limit);
    let others: Vec<&Limit> = others.filter(|l| own_rules.iter().all(|o| sort(o) != sort(l))).collect();
    own_rules.into_iter().chain(others).collect()
}

/// Every bound on the scope's counters.
pub(super) fn bounds(limits: &RiskLimits, name: &Name) -> Vec<Bound> {
    let mut bounds = Vec::new();
    let mut push = |metric, code, most| bounds.push(Bound { metric, code, most });
    let flat = match name {
        Name::Firm => limits.exposure_firm_max,
        Name::Account(_) => limits.exposure_account_max,
        Name::Position(..) => limits.position_notional_max,
        _ => None,
    };
    if let Some(value) = flat {
        push(Metric::Gross, gross_code(name), Most::Money(value));
    }
    if let (Name::Firm, Some(max)) = (name, limits.open_positions_max) {
        push(Metric::Slots, code::MAX_POSITIONS, Most::Count(max));
    }
    for limit in covering(limits, name) {
        match *limit {
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

/// The losses at which an account opens nothing more; none while one of the two common limits is unset.
pub(super) fn losses(limits: &RiskLimits, name: &Name) -> Vec<Loss> {
    let daily = limits.daily_loss_max.map(|limit| Loss { is_drawdown: false, limit });
    let drawdown = limits.drawdown_max.map(|limit| Loss { is_drawdown: true, limit });
    let rules = covering(limits, name).into_iter().filter_map(|limit| match *limit {
        Limit::DailyLoss(limit) => Some(Loss { is_drawdown: false, limit }),
        Limit::Drawdown(limit) => Some(Loss { is_drawdown: true, limit }),
        _ => None,
    });
    daily.into_iter().chain(drawdown).chain(rules).collect()
}

/// The windows of a scope.
pub(super) fn rates(limits: &RiskLimits, name: &Name) -> Vec<Rate> {
    let rate = |limit: &Limit| {
        Some(match *limit {
            Limit::QtyRate { max, window } => {
                let max = fixed::down(max).unwrap_or(Scaled::MAX).clamp(0, Scaled::MAX);
                Rate { metric: RateOf::Qty, max, length: window }
            }
            Limit::NotionalRate { max, window } => {
                let max = Scaled::allowed(max).map_or(Scaled::MAX, Scaled::raw).max(0);
                Rate { metric: RateOf::Notional, max, length: window }
            }
            Limit::MessageRate { max, window } => {
                Rate { metric: RateOf::Messages, max: i64::from(max), length: window }
            }
            _ => return None,
        })
    };
    covering(limits, name).into_iter().filter_map(rate).collect()
}

fn tighter<T: Copy>(known: &mut Option<T>, new: T, is_tighter: impl Fn(T, T) -> bool) {
    if known.is_none_or(|known| is_tighter(new, known)) {
        *known = Some(new);
    }
}

/// What is checked order by order over all scopes of a route.
pub(super) fn order_limits(limits: &RiskLimits, names: &[Name]) -> OrderLimits {
    let mut found = OrderLimits { age_max: limits.reference_age_max, ..OrderLimits::default() };
    for name in names {
        for limit in covering(limits, name) {
            match *limit {
                Limit::ReferenceAge(max) => tighter(&mut found.age_max, max, |new, known| new < known),
                // `check` saw to it that a part can be kept.
                Limit::PriceCollar(part) => {
                    if let Some(part) = Part::new(part) {
                        tighter(&mut found.collar, part, |new, known| new.figure < known.figure);
                    }
                }
                Limit::Spread(part) => {
                    if let Some(part) = Part::new(part) {
                        tighter(&mut found.spread, part, |new, known| new.figure < known.figure);
                    }
                }
                // The longer one remembers what the shorter one does.
                Limit::Duplicates { window } => tighter(&mut found.duplicates, window, |new, known| new > known),
                Limit::Restricted => found.restricted = Some(name.clone()),
                Limit::UserRequired => found.user_required = Some(name.clone()),
                _ => {}
            }
        }
    }
    // A rule alone is no common limit: an order that meets an unset one is refused.
    if limits.reference_age_max.is_none() {
        found.age_max = None;
    }
    found
}
