//! One order past named rules: two people, one use, a short time.

use std::time::Duration;

use crate::support::*;
use infra_risk_engine::{Coverage, Limit, RiskEngine, RiskLimits, ScopeKind, Stance};
use infra_state_store::{Key, Op, Ttl, Value, When};
use infra_types::{Order, OrderKind, Scope, Side, TimeInForce, UserId};

const HOUR: Duration = Duration::from_secs(3_600);

fn person(name: &str) -> UserId {
    name.parse().unwrap()
}

fn strict() -> RiskLimits {
    let rules = vec![
        rule("venue-closed", Coverage::One(Scope::Venue("v".parse().unwrap())), Limit::Restricted),
        rule("few", Coverage::Each(ScopeKind::Strategy), Limit::WorkingOrders(1)),
        rule("once", Coverage::Each(ScopeKind::Strategy), Limit::Executions(1)),
    ];
    RiskLimits { rules, ..limits() }
}

fn buy(id: &str, qty: &str) -> Order {
    order(id, &btc(), Side::Buy, qty, "100")
}

async fn ask(engine: &RiskEngine, order: &Order, rules: &[&str]) {
    let rules = rules.iter().map(|id| (*id).to_owned()).collect();
    engine.request_override(order, rules, person("ann"), "the client asked", HOUR, &|_| vec![]).await.unwrap();
}

async fn grant(engine: &RiskEngine, order: &Order) {
    engine.grant_override(&order.account, &order.id, person("bob"), &|_| vec![]).await.unwrap();
}

#[tokio::test]
async fn two_people_let_one_order_through_once() {
    let world = World::new();
    let (one, two) = (world.engine(strict()).await, world.engine(strict()).await);
    let wish = buy("a", "1");
    assert_eq!(refusal(reserve(&one, wish.clone(), Stance::Open).await).first_code(), Some("restricted"));
    ask(&one, &wish, &["venue-closed"]).await;
    assert!(refusal(reserve(&one, wish.clone(), Stance::Open).await).failed("restricted"), "nobody granted it");
    let alone = one.grant_override(&wish.account, &wish.id, person("ann"), &|_| vec![]).await.unwrap_err();
    assert!(alone.to_string().contains("another person"), "{alone}");
    // Granted at another process.
    grant(&two, &wish).await;
    assert!(two.grant_override(&wish.account, &wish.id, person("eve"), &|_| vec![]).await.is_err(), "once");
    let approval = reserve(&one, wish.clone(), Stance::Open).await.unwrap();
    let check = approval.decision.checks.iter().find(|c| c.rule.as_deref() == Some("venue-closed")).unwrap();
    assert!(check.overridden && !check.passed && approval.decision.approved);
    assert_eq!(one.override_of(&wish.account, &wish.id).await.unwrap(), None, "it is used up");
    assert!(refusal(reserve(&one, wish, Stance::Open).await).failed("restricted"));
}

#[tokio::test]
async fn it_lifts_bounds_of_the_store_and_only_those_that_it_names() {
    let world = World::new();
    let mut limits = strict();
    limits.rules.remove(0);
    let engine = world.engine(limits).await;
    reserve(&engine, buy("first", "1"), Stance::Open).await.unwrap();
    let wish = buy("a", "1");
    ask(&engine, &wish, &["few"]).await;
    grant(&engine, &wish).await;
    let decision = refusal(reserve(&engine, wish.clone(), Stance::Open).await);
    let failed: Vec<_> = decision.failures().filter_map(|c| c.rule.as_deref()).collect();
    assert_eq!(failed, ["once"]);
    assert!(engine.override_of(&wish.account, &wish.id).await.unwrap().is_some(), "a refusal uses nothing up");
    ask(&engine, &wish, &["few", "once"]).await;
    grant(&engine, &wish).await;
    let approval = reserve(&engine, wish, Stance::Open).await.unwrap();
    let figure = |id: &str| {
        let check = approval.decision.checks.iter().find(|c| c.rule.as_deref() == Some(id)).unwrap();
        (check.value, check.limit, check.overridden)
    };
    assert_eq!(figure("few"), (dec("2"), dec("1"), true), "it counts all the same");
    assert_eq!(figure("once"), (dec("2"), dec("1"), true));
}

#[tokio::test]
async fn it_is_for_exactly_that_order_for_that_time_and_no_missing_input() {
    let world = World::new();
    let engine = world.engine(strict()).await;
    let wish = buy("a", "1");
    ask(&engine, &wish, &["venue-closed"]).await;
    grant(&engine, &wish).await;
    for other in [buy("a", "2"), order("a", &btc(), Side::Buy, "1", "101"), buy("b", "1")] {
        assert!(refusal(reserve(&engine, other, Stance::Open).await).failed("restricted"));
    }
    // Placed in another way: at any price, or for another time.
    let market = Order { kind: OrderKind::Market { worst: wish.kind.price() }, ..wish.clone() };
    let at_once = wish.clone().with_time_in_force(TimeInForce::ImmediateOrCancel);
    for other in [market, at_once] {
        assert!(refusal(reserve(&engine, other, Stance::Open).await).failed("restricted"));
    }
    world.clock.advance(HOUR);
    world.quote(&engine, &btc(), "100");
    assert!(refusal(reserve(&engine, wish.clone(), Stance::Open).await).failed("restricted"), "it is over");
    assert!(engine.grant_override(&wish.account, &wish.id, person("bob"), &|_| vec![]).await.is_err());

    ask(&engine, &wish, &["venue-closed", "reference_age_max", "daily_loss_max"]).await;
    grant(&engine, &wish).await;
    world.clock.advance(Duration::from_secs(6));
    let decision = refusal(reserve(&engine, wish, Stance::Open).await);
    assert_eq!(decision.failures().map(|c| c.code).collect::<Vec<_>>(), ["stale_reference_price"]);
}

#[tokio::test]
async fn what_is_asked_must_make_sense_and_is_audited_in_its_batch() {
    let world = World::new();
    let engine = world.engine(strict()).await;
    let wish = buy("a", "1");
    let request = |rules: &[&str], reason: &'static str, life| {
        let rules: std::collections::BTreeSet<String> = rules.iter().map(|id| (*id).to_owned()).collect();
        let (engine, wish) = (&engine, &wish);
        async move { engine.request_override(wish, rules, person("ann"), reason, life, &|_| vec![]).await }
    };
    for (rules, reason, life) in [
        (&[][..], "why", HOUR),
        (&["no-such-rule"][..], "why", HOUR),
        (&["few"][..], " ", HOUR),
        (&["few"][..], "why", Duration::ZERO),
        (&["few"][..], "why", infra_risk_engine::OVERRIDE_LIFE_MAX + Duration::from_secs(1)),
    ] {
        assert!(request(rules, reason, life).await.is_err(), "{rules:?} {reason:?} {life:?}");
    }
    let row = |what: &infra_risk_engine::Override| {
        let value = Value::from(what.reason.clone());
        vec![Op::Set { key: Key::record("audit").unwrap(), value, ttl: Ttl::Never, when: When::Absent }]
    };
    let rules = ["few".to_owned()].into();
    engine.request_override(&wish, rules, person("ann"), "why", HOUR, &row).await.unwrap();
    assert!(engine.grant_override(&wish.account, &wish.id, person("bob"), &row).await.is_err());
    assert_eq!(engine.override_of(&wish.account, &wish.id).await.unwrap().unwrap().granted_by, None);
}
