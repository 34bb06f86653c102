//! Whatever is missing refuses, each with a code of its own.

use std::time::Duration;

use crate::support::*;
use infra_risk_engine::{RiskLimits, Stance};
use infra_types::Side;

type Break = fn(&mut RiskLimits);

#[tokio::test]
async fn every_unset_limit_refuses_and_says_which() {
    let cases: [(&str, Break); 10] = [
        ("firm_currency", |l| l.firm_currency = None),
        ("reference_age_max", |l| l.reference_age_max = None),
        ("order_qty_max", |l| l.order_qty_max = None),
        ("order_notional_max", |l| l.order_notional_max = None),
        ("exposure_account_max", |l| l.exposure_account_max = None),
        ("exposure_firm_max", |l| l.exposure_firm_max = None),
        ("position_notional_max", |l| l.position_notional_max = None),
        ("open_positions_max", |l| l.open_positions_max = None),
        ("daily_loss_max", |l| l.daily_loss_max = None),
        ("drawdown_max", |l| l.drawdown_max = None),
    ];
    for (name, unset) in cases {
        let (world, mut limits) = (World::new(), limits());
        unset(&mut limits);
        let engine = world.engine(limits).await;
        let decision = refusal(reserve(&engine, order("o", &btc(), Side::Buy, "1", "100"), Stance::Open).await);
        let check = decision.failures().find(|c| c.code == "limit_unset").unwrap();
        assert!(check.note.contains(name), "{name}: {decision:?}");
        assert_nothing_used(&engine).await;
    }
}

#[tokio::test]
async fn what_the_engine_does_not_know_refuses() {
    let world = World::new();
    let engine = world.bare(limits());
    let buy = || order("o", &btc(), Side::Buy, "1", "100");
    let decision = refusal(reserve(&engine, buy(), Stance::Open).await);
    assert!(decision.failed("unknown_account") && decision.failed("unknown_instrument"));

    engine.open_account(account(), "EUR".parse().unwrap(), dec("10000")).await.unwrap();
    engine.register_instrument(spec(&btc())).unwrap();
    let decision = refusal(reserve(&engine, buy(), Stance::Open).await);
    assert!(decision.failed("no_reference_price") && decision.failed("missing_conversion"), "{decision:?}");
    assert_eq!(decision.failures().filter(|c| c.code == "missing_conversion").count(), 2, "account and firm");

    world.quote(&engine, &btc(), "100");
    engine.set_conversion("USDT".parse().unwrap(), "EUR".parse().unwrap(), dec("0.9")).unwrap();
    engine.set_conversion("EUR".parse().unwrap(), "USDT".parse().unwrap(), dec("1.1")).unwrap();
    let approval = reserve(&engine, buy(), Stance::Open).await.unwrap();
    assert_eq!(approval.reservation.held(), dec("90"));
    let used = engine.used().await.unwrap();
    assert!(used.contains(&("risk/used/exposure/firm".into(), dec("99"))), "{used:?}");

    world.clock.advance(Duration::from_secs(6));
    let decision = refusal(reserve(&engine, order("p", &btc(), Side::Buy, "1", "100"), Stance::Open).await);
    assert_eq!(decision.first_code(), Some("stale_reference_price"));
}

#[tokio::test]
async fn a_held_instrument_without_a_fresh_price_stops_opening_elsewhere() {
    let world = World::new();
    let engine = world.engine(limits()).await;
    trade(&engine, order("a", &btc(), Side::Buy, "1", "100")).await;
    world.clock.advance(Duration::from_secs(6));
    world.quote(&engine, &eth(), "100");
    let decision = refusal(reserve(&engine, order("b", &eth(), Side::Buy, "1", "100"), Stance::Open).await);
    let check = decision.failures().next().unwrap();
    assert_eq!((check.code, check.scope.to_string().as_str()), ("stale_reference_price", "instrument:v/BTCUSDT"));
    assert!(decision.failed("daily_loss") && decision.failed("drawdown"), "equity is not known");
    // The exit needs no price.
    reserve(&engine, order("c", &btc(), Side::Sell, "1", "100"), Stance::Open).await.unwrap();
}

#[tokio::test]
async fn limits_of_one_order_and_the_venues_rules_have_their_codes() {
    let world = World::new();
    let engine = world.engine(limits()).await;
    for (qty, price, code) in [
        ("1001", "1", "order_qty"),
        ("51", "100", "order_notional"),
        ("1", "100.001", "spec_tick"),
        ("1.0001", "100", "spec_lot"),
        ("0", "100", "spec_qty"),
        ("0.001", "0.01", "spec_notional"),
        ("100000", "79228162514264337593543950335", "overflow"),
    ] {
        let decision = refusal(reserve(&engine, order("o", &btc(), Side::Buy, qty, price), Stance::Open).await);
        assert!(decision.failed(code), "{code}: {decision:?}");
    }
    let json =
        serde_json::to_value(refusal(reserve(&engine, order("o", &btc(), Side::Buy, "51", "100"), Stance::Open).await));
    assert_eq!(json.unwrap()["approved"], false);
    assert_nothing_used(&engine).await;
}

#[test]
fn an_engine_with_wrong_limits_is_not_made() {
    let world = World::new();
    let clock = std::sync::Arc::new(world.clock.clone());
    let wrong = RiskLimits { order_qty_max: Some(dec("-1")), time_zone: "Nowhere".into(), ..limits() };
    let error =
        infra_risk_engine::RiskEngine::new(world.store.clone(), "ledger".parse().unwrap(), clock, wrong).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("order_qty_max") && text.contains("Nowhere"), "{text}");
}
