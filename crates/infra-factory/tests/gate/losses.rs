//! What a loss, and a fill that nobody approved, stop: their own scope, and no other.

use std::time::Duration;

use infra_factory::{
    emergency::{EmergencyState, LimitLevel, OrderScopes, Snapshot},
    gate::{GateConfig, GateError, LossPolicy},
    risk_engine::{
        Coverage, Limit, LimitValue, Mode, RiskEvent, RiskEventFilter, RiskEventKind, RiskEvents, Rule, code,
    },
    types::Scope,
};

use crate::common::{Venue, World, assert_flat, cancelled, dec, fill, limits, patient_gate};

fn account() -> Scope {
    "account:main".parse().unwrap()
}

fn stands(world: &World, scope: &str) -> Snapshot {
    world.emergency.snapshot_of(&scope.parse().unwrap())
}

async fn events(world: &World) -> Vec<RiskEvent> {
    let events = RiskEvents::new(world.store.inner().clone(), world.namespace.clone()).unwrap();
    events.query(&RiskEventFilter::default()).await.unwrap().events
}

#[tokio::test]
async fn a_refusal_by_a_loss_limit_halts_the_account_where_it_is_told_to() {
    for halts in [true, false] {
        let world = World::with(limits(), GateConfig { halt_on_breach: halts, ..patient_gate() }).await;
        world.hold("o-1", "40").await;
        world.quote("87", "88");
        let e = world.buy("o-2", "1").await.unwrap_err();
        assert_eq!(e.code(), code::DAILY_LOSS);
        assert_eq!(world.emergency.state(), EmergencyState::Normal, "the firm goes on");
        let snapshot = stands(&world, "account:main");
        assert_eq!(snapshot.state == EmergencyState::Halt, halts);
        if halts {
            assert!(snapshot.is_durable && snapshot.reason.contains("daily_loss"), "{snapshot:?}");
            let other = "other".parse().unwrap();
            let scopes = OrderScopes { account: Some(&other), ..OrderScopes::default() };
            assert!(world.emergency.can_trade_in(&scopes), "another account goes on");
            assert_eq!(stands(&world.rebuild().await, "account:main").state, EmergencyState::Halt);
        }
        let breaches =
            events(&world).await.into_iter().filter(|e| e.kind == RiskEventKind::Breach && e.scope == account());
        assert!(breaches.count() >= 2, "of the refused order, and of the limit");
        // Out is always possible.
        let closes = world.sell("o-3", "40").await.unwrap();
        world.gate.place(closes, &Venue::default()).await.unwrap();
        world.report(fill("f-3", "o-3", "40", "87")).await;
        assert_flat(&world).await;
    }
}

#[tokio::test]
async fn a_loss_without_an_order_warns_then_halts_and_a_recovery_re_arms_nothing() {
    let world = World::new().await;
    world.hold("o-1", "40").await;
    assert_eq!(world.gate.check_losses().await, []);
    world.quote("89.99", "90.01");
    let near = world.gate.check_losses().await;
    assert_eq!(near.iter().map(|r| r.level).collect::<Vec<_>>(), [LimitLevel::Warned], "400 of 500");
    assert_eq!(stands(&world, "account:main").state, EmergencyState::Normal, "a warning is told only");
    world.gate.check_losses().await;
    let found = events(&world).await;
    assert_eq!(
        found.iter().map(|e| (e.kind, e.value)).collect::<Vec<_>>(),
        [(RiskEventKind::Warning, Some(dec("400")))]
    );

    world.quote("86.99", "87.01");
    let near = world.gate.check_losses().await;
    assert!(near.iter().any(|r| r.level == LimitLevel::Breached), "{near:?}");
    let halted = stands(&world, "account:main");
    assert!(halted.state == EmergencyState::Halt && halted.is_durable, "{halted:?}");
    assert_eq!(world.emergency.state(), EmergencyState::Normal);
    let actions = world.actions().await;
    assert_eq!(actions.iter().filter(|a| *a == "warn").count(), 1, "{actions:?}");
    assert_eq!(actions.iter().filter(|a| *a == "breach").count(), 1, "{actions:?}");
    // It lasts, and is no news; it is over, and nothing is re-armed.
    world.gate.check_losses().await;
    world.quote("99.99", "100.01");
    assert_eq!(world.gate.check_losses().await, []);
    assert_eq!(stands(&world, "account:main").state, EmergencyState::Halt);
    assert_eq!(events(&world).await.len(), 2);
    // Out of the cool-down of the news, what lasts is told again.
    world.quote("86.99", "87.01");
    world.gate.check_losses().await;
    world.clock.advance(Duration::from_secs(61));
    world.emergency.refresh().await.unwrap();
    world.gate.check_losses().await;
    assert_eq!(events(&world).await.len(), 4);
}

#[tokio::test]
async fn a_warning_raises_alert_where_the_policy_says_so() {
    let losses = LossPolicy { alert_on_warning: true, ..LossPolicy::default() };
    let world = World::with(limits(), GateConfig { losses, ..patient_gate() }).await;
    world.hold("o-1", "40").await;
    world.quote("89.99", "90.01");
    world.gate.check_losses().await;
    assert_eq!(stands(&world, "account:main").state, EmergencyState::Alert);
    assert_eq!(world.buy("o-2", "1").await.unwrap_err().code(), code::NOT_REDUCING_IN_HALT);
}

#[tokio::test]
async fn the_loss_of_a_strategy_halts_the_strategy() {
    let mut limits = limits();
    let limit = Limit::DailyLoss(LimitValue::Amount(dec("100")));
    let covers = Coverage::One("strategy:test".parse().unwrap());
    limits.rules.push(Rule { id: "test-loss".into(), covers, limit, warn_at: None, mode: Mode::Enforce });
    let world = World::with(limits, patient_gate()).await;
    world.hold("o-1", "10").await;
    world.quote("89.99", "90.01");
    world.gate.check_losses().await;
    let halted = stands(&world, "strategy:test");
    assert!(halted.state == EmergencyState::Halt && halted.reason.contains("test-loss"), "{halted:?}");
    assert_eq!(stands(&world, "account:main").state, EmergencyState::Normal);
}

#[tokio::test]
async fn what_cannot_be_told_is_told_when_the_ledger_is_back() {
    let world = World::new().await;
    world.hold("o-1", "40").await;
    world.quote("86.99", "87.01");
    world.store.cut(true);
    world.gate.check_losses().await;
    let here = stands(&world, "account:main");
    assert!(here.state == EmergencyState::Halt && !here.is_durable, "it holds in this process: {here:?}");
    world.store.cut(false);
    world.gate.check_losses().await;
    assert!(stands(&world, "account:main").is_durable);
    assert_eq!(events(&world).await.len(), 1);
}

#[tokio::test]
async fn a_fill_beyond_what_was_approved_halts_the_account_by_policy() {
    for halts in [true, false] {
        let world = World::with(limits(), GateConfig { halt_on_unexpected_fill: halts, ..patient_gate() }).await;
        let approved = world.buy("o-1", "2").await.unwrap();
        world.gate.place(approved, &Venue::default()).await.unwrap();
        world.report(fill("f-1", "o-1", "1.5", "100")).await;
        assert_eq!(events(&world).await, []);
        world.report(fill("f-2", "o-1", "1.5", "100")).await;
        assert_eq!(world.position(), dec("3"), "what happened is booked");
        let halted = stands(&world, "account:main");
        assert_eq!(halted.state == EmergencyState::Halt, halts);
        assert_eq!(world.emergency.state(), EmergencyState::Normal);
        let found = events(&world).await;
        assert_eq!(
            found.iter().map(|e| (e.kind, e.value)).collect::<Vec<_>>(),
            [(RiskEventKind::UnexpectedFill, Some(dec("1")))]
        );
        assert!(!halts || halted.reason.contains("o-1"), "{halted:?}");
    }
}

#[tokio::test]
async fn a_fill_that_raced_the_cancel_is_booked_and_halts_nothing() {
    let world = World::with(limits(), patient_gate()).await;
    let approved = world.buy("o-1", "2").await.unwrap();
    world.gate.place(approved, &Venue::default()).await.unwrap();
    world.report(cancelled("o-1")).await;
    world.report(fill("f-1", "o-1", "1.5", "100")).await;
    assert_eq!(world.position(), dec("1.5"));
    assert_eq!(stands(&world, "account:main").state, EmergencyState::Normal);
    assert_eq!(events(&world).await, []);
}

#[tokio::test]
async fn a_fill_that_cannot_be_counted_halts_the_account() {
    let world = World::with(limits(), patient_gate()).await;
    let approved = world.buy("o-1", "2").await.unwrap();
    world.gate.place(approved, &Venue::default()).await.unwrap();
    // Beyond the largest figure that can be kept.
    let huge = fill("f-1", "o-1", "79228162514264337593543950335", "79228162514264337593543950335");
    let e = world.gate.report(huge).await.unwrap_err();
    assert!(matches!(e, GateError::ReportRefused { .. }), "{e}");
    assert_eq!(stands(&world, "account:main").state, EmergencyState::Halt);
}
