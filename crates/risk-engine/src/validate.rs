//! Which rules make no sense: alone, and with each other.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use infra_types::{Decimal, Scope};

use crate::{
    config::{LimitValue, RiskLimits},
    ledger,
    limits::PriceRange,
    rulebook::{Kind, Sort},
    rules::{Coverage, Limit, Mode, Rule, ScopeKind},
};

/// The store's windows slide in ten slices of at least a millisecond.
const WINDOW_MIN: Duration = Duration::from_millis(10);
const WINDOW_MAX: Duration = Duration::from_secs(366 * 86_400);

/// Where a kind of limit makes sense.
fn sorts(kind: Kind) -> &'static [Sort] {
    use Sort::{Account, Firm, Group, Instrument, Position, Strategy, Venue};
    match kind {
        Kind::Net | Kind::Leverage | Kind::SelfMatch => &[Firm, Group, Account],
        Kind::Concentration => &[Group, Venue, Strategy, Instrument, Position],
        // Quantities of different instruments are different things.
        Kind::LongQty | Kind::ShortQty | Kind::QtyRate => &[Instrument, Position],
        Kind::OpenPositions => &[Firm, Account],
        Kind::WorkingOrders => &[Firm, Account, Strategy, Position],
        Kind::DailyLoss => &[Account, Strategy],
        Kind::Drawdown => &[Account],
        Kind::Executions => &[Strategy],
        Kind::OrdersPerCause => &[Firm],
        _ => &[Firm, Group, Venue, Account, Strategy, Instrument, Position],
    }
}

fn word(sort: Sort) -> &'static str {
    match sort {
        Sort::Firm => "the firm",
        Sort::Group => "groups",
        Sort::Venue => "venues",
        Sort::Account => "accounts",
        Sort::Strategy => "strategies",
        Sort::Instrument => "instruments",
        Sort::Position => "positions",
    }
}

/// What is wrong with a figure.
fn figure(limit: &Limit) -> Option<String> {
    let above_zero = |figure: Decimal| (figure <= Decimal::ZERO).then(|| "must be above zero".to_owned());
    let counts = |max: u32| (max == 0).then(|| "must be at least 1: what may never be is Restricted".to_owned());
    let part = |part: Decimal, max: Decimal| {
        above_zero(part).or_else(|| (part > max).then(|| format!("is a part: at most {max} (0.05 is 5 %)")))
    };
    let value = |value: LimitValue, max: Decimal| {
        let too_much = value.needs_equity() && value.figure() > max;
        let rule = || format!("is a part of equity: at most {max} (1 is 100 %)");
        above_zero(value.figure()).or_else(|| too_much.then(rule))
    };
    let within = |window: Duration| {
        let fits = (WINDOW_MIN..=WINDOW_MAX).contains(&window);
        (!fits).then(|| "needs a window of 10 ms to 366 days".to_owned())
    };
    match limit {
        Limit::OrderQty(max) | Limit::LongQty(max) | Limit::ShortQty(max) => above_zero(*max),
        // A loss of more than everything is never reached before everything is lost; exposure may be a multiple.
        Limit::OrderNotional(v) | Limit::Gross(v) | Limit::Net(v) => value(*v, Decimal::ONE_THOUSAND),
        Limit::DailyLoss(v) | Limit::Drawdown(v) => value(*v, Decimal::ONE),
        Limit::Leverage(times) => part(*times, Decimal::ONE_THOUSAND)
            .map(|_| "is a multiple of equity: above zero and at most 1000".to_owned()),
        Limit::PriceCollar(p) | Limit::Spread(p) | Limit::Concentration(p) => part(*p, Decimal::ONE),
        Limit::PriceMove { part: p, window } => part(*p, Decimal::TEN).or_else(|| {
            let too_long = *window > Duration::from_secs(86_400) || PriceRange::new(*window).is_err();
            too_long.then(|| "needs a window of up to a day".to_owned())
        }),
        Limit::ReferenceAge(age) => age.is_zero().then(|| "must be above zero".to_owned()),
        Limit::OpenPositions(max) | Limit::WorkingOrders(max) | Limit::Executions(max) => counts(*max),
        Limit::QtyRate { max, window } => above_zero(*max).or_else(|| within(*window)).or_else(|| {
            let rule = || "is more than a window can count (90,071,992 units): limit the value instead".to_owned();
            ledger::qty_there(*max).is_none().then(rule)
        }),
        Limit::NotionalRate { max, window } => above_zero(*max).or_else(|| within(*window)),
        Limit::MessageRate { max, window } | Limit::OrdersPerCause { max, window } => {
            counts(*max).or_else(|| within(*window))
        }
        Limit::Duplicates { window } => within(*window),
        Limit::SelfMatch | Limit::Restricted | Limit::UserRequired => None,
    }
}

fn of_rule(rule: &Rule, limits: &RiskLimits) -> Vec<String> {
    let mut found: Vec<String> = figure(&rule.limit).into_iter().collect();
    let (kind, sort) = (rule.limit.kind(), rule.covers.sort());
    if !sorts(kind).contains(&sort) {
        let good: Vec<_> = sorts(kind).iter().map(|sort| word(*sort)).collect();
        found.push(format!("{kind:?} is no limit for {}: it is for {}", word(sort), good.join(", ")));
    }
    if rule.warn_at.is_some_and(|at| at <= Decimal::ZERO || at >= Decimal::ONE) {
        found.push("warn_at must be between 0 and 1 (0.8 is 80 %)".into());
    }
    if let Coverage::One(Scope::Group(group)) = &rule.covers
        && !limits.groups.values().any(|known| known == group)
    {
        found.push(format!("no account is in group {group}: it would limit nothing"));
    }
    if matches!(rule.covers, Coverage::Each(ScopeKind::Group)) && limits.groups.is_empty() {
        found.push("no account is in any group: it would limit nothing".into());
    }
    if limits.firm_currency.is_none() && needs_firm_currency(kind, sort) {
        found.push("counts in the firm's currency: set firm_currency".into());
    }
    found
}

fn needs_firm_currency(kind: Kind, sort: Sort) -> bool {
    let is_money = matches!(
        kind,
        Kind::OrderNotional
            | Kind::Gross
            | Kind::Net
            | Kind::Leverage
            | Kind::Concentration
            | Kind::DailyLoss
            | Kind::NotionalRate
    );
    is_money && !matches!(sort, Sort::Account | Sort::Position)
}

/// Every mistake in the rules, those that have fields of their own among them.
pub(crate) fn mistakes(limits: &RiskLimits) -> Vec<String> {
    let mut found = Vec::new();
    let mut ids = BTreeSet::new();
    let mut covered: BTreeMap<(Kind, Coverage, bool), String> = BTreeMap::new();
    let flat = limits.flat_rules();
    for (rule, is_flat) in flat.iter().map(|r| (r, true)).chain(limits.rules.iter().map(|r| (r, false))) {
        let id = &rule.id;
        if !is_flat && (id.is_empty() || id.len() > 64 || !id.bytes().all(|b| b.is_ascii_graphic())) {
            found.push(format!("rule id {id:?} must be 1 to 64 bytes of printable ASCII"));
        }
        if !ids.insert(id) {
            found.push(format!("two rules are called {id}"));
        }
        let of = (rule.limit.kind(), rule.covers.clone(), rule.mode == Mode::Shadow);
        if let Some(other) = covered.insert(of, id.clone()) {
            found.push(format!("{id} and {other} limit the same of the same: keep one"));
        }
        // What the firm's currency is needed for is said when an order comes: a flat limit that is unset is no mistake.
        let mistakes = if is_flat { figure(&rule.limit).into_iter().collect() } else { of_rule(rule, limits) };
        found.extend(mistakes.into_iter().map(|mistake| format!("{id} {mistake}")));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(id: &str, covers: Coverage, limit: Limit) -> Rule {
        Rule { id: id.into(), covers, limit, warn_at: None, mode: Mode::Enforce }
    }

    fn with(rules: Vec<Rule>) -> RiskLimits {
        RiskLimits { firm_currency: Some("USD".parse().unwrap()), rules, ..RiskLimits::default() }
    }

    #[test]
    fn conflicts_are_named_with_both_rules() {
        let firm = || Coverage::One(Scope::Firm);
        let gross = || Limit::Gross(LimitValue::Amount(Decimal::TEN));
        let mut limits = with(vec![rule("one", firm(), gross()), rule("two", firm(), gross())]);
        limits.rules.push(Rule { mode: Mode::Shadow, ..rule("trial", firm(), gross()) });
        assert_eq!(mistakes(&limits), ["two and one limit the same of the same: keep one"]);
        limits.rules[1] = rule("one", Coverage::Each(ScopeKind::Venue), gross());
        assert_eq!(mistakes(&limits), ["two rules are called one"]);
        limits.rules.truncate(1);
        limits.exposure_firm_max = Some(LimitValue::Amount(Decimal::TEN));
        assert_eq!(mistakes(&limits), ["one and exposure_firm_max limit the same of the same: keep one"]);
    }

    #[test]
    fn units_that_make_no_sense_are_refused() {
        let firm = || Coverage::One(Scope::Firm);
        let each = Coverage::Each;
        let second = Duration::from_secs(1);
        for (covers, limit, says) in [
            (firm(), Limit::PriceCollar(Decimal::from(5)), "0.05 is 5 %"),
            (firm(), Limit::Leverage(Decimal::ZERO), "multiple of equity"),
            (firm(), Limit::QtyRate { max: Decimal::ONE, window: second }, "QtyRate is no limit for the firm"),
            (each(ScopeKind::Venue), Limit::LongQty(Decimal::ONE), "it is for instruments, positions"),
            (each(ScopeKind::Instrument), Limit::Drawdown(LimitValue::Amount(Decimal::ONE)), "it is for accounts"),
            (firm(), Limit::MessageRate { max: 1, window: Duration::from_millis(9) }, "10 ms to 366 days"),
            (firm(), Limit::OrdersPerCause { max: 0, window: second }, "at least 1"),
            (firm(), Limit::PriceMove { part: Decimal::ONE, window: Duration::MAX }, "up to a day"),
            (each(ScopeKind::Account), Limit::DailyLoss(LimitValue::OfEquity(Decimal::TWO)), "at most 1"),
            (each(ScopeKind::Group), Limit::SelfMatch, "no account is in any group"),
            (Coverage::One(Scope::Group("g".parse().unwrap())), Limit::SelfMatch, "no account is in group g"),
            (firm(), Limit::ReferenceAge(Duration::ZERO), "above zero"),
        ] {
            let found = mistakes(&with(vec![rule("r", covers, limit)]));
            assert!(found.len() == 1 && found[0].starts_with("r ") && found[0].contains(says), "{says}: {found:?}");
        }
        let at = |warn_at| Rule { warn_at: Some(warn_at), ..rule("r", firm(), Limit::OrderQty(Decimal::ONE)) };
        assert_eq!(mistakes(&with(vec![at(Decimal::new(8, 1))])), Vec::<String>::new());
        for bad in [Decimal::ZERO, Decimal::ONE, Decimal::from(80)] {
            assert!(mistakes(&with(vec![at(bad)]))[0].contains("warn_at must be between 0 and 1"));
        }
        let nameless = with(vec![rule("", firm(), Limit::SelfMatch), rule("a b", firm(), Limit::Restricted)]);
        assert_eq!(mistakes(&nameless).len(), 2);
        let money = RiskLimits { firm_currency: None, ..with(vec![rule("r", firm(), Limit::Leverage(Decimal::ONE))]) };
        assert!(mistakes(&money)[0].contains("set firm_currency"));
    }
}
