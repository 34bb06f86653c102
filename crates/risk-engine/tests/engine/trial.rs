//! Rules that warn, and rules that are only tried out.

use std::time::Duration;

use crate::support::*;
use infra_risk_engine::{Coverage, Level, Limit, LimitValue, Mode, RiskLimits, Rule, ScopeKind, Stance};
use infra_types::{EventId, Scope, Side};

const MINUTE: Duration = Duration::from_secs(60);

fn shadow(id: &str, covers: Coverage, limit: Limit) -> Rule {
    Rule { mode: Mode::Shadow, ..rule(id, covers, limit) }
}

#[tokio::test]
async fn a_rule_warns_before_its_limit_by_what_the_store_says() {
    let world = World::new();
    let gross = rule("soft", Coverage::Each(ScopeKind::Strategy), Limit::Gross(LimitValue::Amount(dec("1000"))));
    let warns = Rule { warn_at: Some(dec("0.8")), ..gross };
    let engine = world.engine(RiskLimits { rules: vec![warns], ..limits() }).await;
    let level = |decision: &infra_risk_engine::Decision| {
        decision.checks.iter().find(|c| c.rule.as_deref() == Some("soft")).unwrap().level
    };
    let buy = |id: &str, qty: &str| reserve(&engine, order(id, &btc(), Side::Buy, qty, "100"), Stance::Open);
    let first = buy("a", "7.999").await.unwrap();
    assert_eq!((level(&first.decision), first.decision.level()), (Level::Ok, Level::Ok));
    let second = buy("b", "0.001").await.unwrap();
    assert_eq!((level(&second.decision), second.decision.level()), (Level::Warn, Level::Warn));
    assert!(second.decision.approved);
    let refused = refusal(buy("c", "2.001").await);
    assert_eq!(level(&refused), Level::Breach);
}

#[tokio::test]
async fn what_is_tried_out_says_so_counts_and_refuses_nothing() {
    let firm = || Coverage::One(Scope::Firm);
    let rules = vec![
        shadow("restricted", firm(), Limit::Restricted),
        shadow("gross", Coverage::Each(ScopeKind::Strategy), Limit::Gross(LimitValue::Amount(dec("150")))),
        shadow("twice", firm(), Limit::Duplicates { window: MINUTE }),
        shadow("pace", firm(), Limit::MessageRate { max: 1, window: MINUTE }),
        shadow("cause", firm(), Limit::OrdersPerCause { max: 1, window: MINUTE }),
        shadow("often", Coverage::Each(ScopeKind::Strategy), Limit::Executions(1)),
        rule("often-enough", Coverage::Each(ScopeKind::Strategy), Limit::Executions(9)),
        shadow("few", firm(), Limit::WorkingOrders(1)),
        shadow("rate", Coverage::Each(ScopeKind::Instrument), Limit::QtyRate { max: dec("1.5"), window: MINUTE }),
    ];
    let world = World::new();
    let engine = world.engine(RiskLimits { rules, ..limits() }).await;
    let wish = |id: &str| order(id, &btc(), Side::Buy, "1", "100").caused_by(EventId::new("signal").unwrap());
    let broken = |approval: &infra_risk_engine::Approval| {
        let mut ids: Vec<_> = approval.decision.shadow_failures().filter_map(|c| c.rule.as_deref()).collect();
        ids.sort_unstable();
        ids.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let first = reserve(&engine, wish("a"), Stance::Open).await.unwrap();
    assert_eq!(broken(&first), ["restricted"]);
    let second = reserve(&engine, wish("b"), Stance::Open).await.unwrap();
    assert_eq!(broken(&second), ["cause", "few", "gross", "often", "pace", "rate", "restricted", "twice"]);
    assert!(second.decision.approved && second.decision.level() < Level::Breach);
    let figure = |id: &str| {
        let check = second.decision.checks.iter().find(|c| c.rule.as_deref() == Some(id)).unwrap();
        (check.value, check.limit, check.level)
    };
    assert_eq!(figure("gross"), (dec("200"), dec("150"), Level::Breach));
    assert_eq!(figure("twice"), (dec("1"), dec("0"), Level::Breach));
    assert_eq!(figure("pace"), (dec("2"), dec("1"), Level::Breach));
    assert_eq!(figure("often"), (dec("2"), dec("1"), Level::Breach));
    assert_eq!(figure("often-enough"), (dec("2"), dec("9"), Level::Ok));
    assert_eq!(figure("rate"), (dec("2"), dec("1.5"), Level::Breach));
}

#[tokio::test]
async fn a_trial_is_no_limit_where_one_is_needed_and_replaces_none() {
    let world = World::new();
    let trial = shadow("trial", Coverage::Each(ScopeKind::Account), Limit::Drawdown(LimitValue::Amount(dec("1"))));
    let only = RiskLimits { drawdown_max: None, rules: vec![trial.clone()], ..limits() };
    let engine = world.engine(only).await;
    let buy = |id: &str, qty: &str| order(id, &btc(), Side::Buy, qty, "100");
    let decision = refusal(reserve(&engine, buy("a", "1"), Stance::Open).await);
    assert_eq!(decision.failures().map(|c| c.code).collect::<Vec<_>>(), ["limit_unset"]);

    let wider = Limit::Gross(LimitValue::Amount(dec("1000000")));
    let rules = vec![shadow("wider", Coverage::One(Scope::Account(account())), wider)];
    let tight = Some(LimitValue::Amount(dec("100")));
    let engine = world.engine(RiskLimits { exposure_account_max: tight, rules, ..limits() }).await;
    let decision = refusal(reserve(&engine, buy("b", "1.001"), Stance::Open).await);
    assert_eq!(decision.first_code(), Some("exposure_account"), "the enforced limit still holds");
}

#[tokio::test]
async fn a_missing_input_that_only_a_trial_needs_refuses_nothing() {
    let world = World::new();
    let move_ = Limit::PriceMove { part: dec("0.1"), window: MINUTE };
    let engine = world.engine(limits()).await;
    let set = RiskLimits { rules: vec![shadow("move", Coverage::One(Scope::Firm), move_)], ..limits() };
    // The range of a window begins when a rule asks for it, and no quote has come since.
    engine.set_limits(0, set, "ann".parse().unwrap(), "try it", &|_| vec![]).await.unwrap();
    let approval = reserve(&engine, order("a", &btc(), Side::Buy, "1", "100"), Stance::Open).await.unwrap();
    let codes: Vec<_> = approval.decision.shadow_failures().map(|c| c.code).collect();
    assert_eq!(codes, ["no_reference_price"]);
}
