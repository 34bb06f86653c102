//! What accounts and strategies have lost, beside their limits.

use std::collections::{BTreeMap, BTreeSet};

use infra_risk_engine::{
    Coverage, Limit, LimitValue, Mode, RiskEngine, RiskLimits, Rule, ScopeKind, ScopeMetrics, code,
};
use infra_types::{Decimal, Scope};

/// One loss and its limit, in the scope's currency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Figure {
    pub(crate) rule: String,
    pub(crate) code: &'static str,
    pub(crate) scope: Scope,
    pub(crate) value: Decimal,
    pub(crate) limit: Decimal,
    /// From which part of the limit on the rule warns.
    pub(crate) warn_at: Option<Decimal>,
}

/// The enforced rules on losses: of each scope the one that names it, or else the one for all of its sort.
#[derive(Debug, Default)]
struct LossRules {
    one: BTreeMap<(&'static str, Scope), Rule>,
    accounts: BTreeMap<&'static str, Rule>,
    strategies: BTreeMap<&'static str, Rule>,
}

impl LossRules {
    fn of(limits: &RiskLimits) -> Self {
        let mut rules = Self::default();
        for rule in limits.flat_rules().into_iter().chain(limits.rules.iter().cloned()) {
            let code = match rule.limit {
                Limit::DailyLoss(_) => code::DAILY_LOSS,
                Limit::Drawdown(_) => code::DRAWDOWN,
                _ => continue,
            };
            if rule.mode != Mode::Enforce {
                continue;
            }
            match rule.covers.clone() {
                Coverage::One(scope) => drop(rules.one.insert((code, scope), rule)),
                // A field of the limits and a rule of the same kind do not stand beside each other.
                Coverage::Each(ScopeKind::Account) => drop(rules.accounts.insert(code, rule)),
                Coverage::Each(ScopeKind::Strategy) => drop(rules.strategies.insert(code, rule)),
                _ => {}
            }
        }
        rules
    }

    fn at(&self, code: &'static str, scope: &Scope) -> Option<&Rule> {
        let each = match scope {
            Scope::Account(_) => self.accounts.get(code),
            Scope::Strategy(_) => self.strategies.get(code),
            _ => None,
        };
        self.one.get(&(code, scope.clone())).or(each)
    }
}

/// What is lost in these scopes, in those that hold something, and in those that limits name. Of what cannot be priced nothing is said:
/// an order that would open there is refused for want of the figure.
pub(crate) fn figures(risk: &RiskEngine, seen: BTreeSet<Scope>) -> Vec<Figure> {
    let set = risk.limits();
    let rules = LossRules::of(&set.limits);
    let mut scopes = seen;
    scopes.extend(risk.positions().into_iter().map(|(account, ..)| Scope::Account(account)));
    scopes.extend(rules.one.keys().map(|(_, scope)| scope.clone()));
    let mut figures = Vec::new();
    for scope in scopes {
        let metrics = match &scope {
            Scope::Account(account) => risk.account_metrics(account),
            Scope::Strategy(strategy) => risk.strategy_metrics(strategy),
            _ => None,
        };
        let Some(metrics) = metrics.filter(|metrics| metrics.unpriced.is_empty()) else { continue };
        for code in [code::DAILY_LOSS, code::DRAWDOWN] {
            let Some(rule) = rules.at(code, &scope) else { continue };
            if let Some((value, limit)) = judge(risk, &rule.limit, &metrics) {
                let (rule, warn_at, scope) = (rule.id.clone(), rule.warn_at, scope.clone());
                figures.push(Figure { rule, code, scope, value, limit, warn_at });
            }
        }
    }
    figures
}

/// The loss and the amount that it may reach. A strategy owns nothing: parts are of the firm's equity.
fn judge(risk: &RiskEngine, limit: &Limit, metrics: &ScopeMetrics) -> Option<(Decimal, Decimal)> {
    let (limit, value, own_basis) = match limit {
        Limit::DailyLoss(limit) => {
            let start = metrics.equity.map(|equity| equity.saturating_sub(metrics.daily_pnl));
            (limit, (-metrics.daily_pnl).max(Decimal::ZERO), start)
        }
        Limit::Drawdown(limit) => {
            let drawdown = metrics.drawdown?;
            (limit, drawdown, metrics.equity.map(|equity| equity.saturating_add(drawdown)))
        }
        _ => return None,
    };
    let amount = match limit {
        LimitValue::Amount(amount) => *amount,
        part => part.at(match own_basis {
            Some(basis) => basis,
            None => risk.firm_metrics().filter(|firm| firm.unpriced.is_empty())?.equity?,
        }),
    };
    Some((value, amount))
}
