//! What fills do to position, account and ledger, and what survives.

use std::time::Duration;

use crate::support::*;
use infra_risk_engine::{Outcome, RiskError, RiskLimits, Stance};
use infra_state_store::{Batch, Key, Op, StoreError, Ttl, Value, When};
use infra_types::{ErrorKind, Namespace, Side};

fn intent(name: &str) -> Op {
    Op::Set { key: Key::record(name).unwrap(), value: Value::from("x"), ttl: Ttl::Never, when: When::Absent }
}

#[tokio::test]
async fn the_callers_operations_happen_with_ours_or_not_at_all() {
    let world = World::new();
    let engine = world.engine(limits()).await;
    let buy = |id: &str| order(id, &btc(), Side::Buy, "1", "100");
    let compose = |_: &_| vec![intent("other"), intent("intent")];
    let ns = Namespace::new("ledger").unwrap();
    world.store.apply(Batch::new(ns.clone()).with(intent("intent"))).await.unwrap();
    let error = engine.check_and_reserve(buy("a"), Stance::Open, &compose).await.unwrap_err();
    match &error {
        RiskError::Caller { index: 1, source: StoreError::Mismatch { .. } } => {
            assert_eq!(error.kind(), ErrorKind::Conflict)
        }
        other => panic!("{other:?}"),
    }
    assert_nothing_used(&engine).await;
    assert_eq!(world.store.get(&ns, &Key::record("other").unwrap()).await.unwrap(), None);

    let approval = engine.check_and_reserve(buy("a"), Stance::Open, &|_| vec![intent("other")]).await.unwrap();
    let traded = fill("1", "100", "0", "USDT");
    let outcome = Outcome::Fill { fill: &traded, is_last: true };
    let error = engine.settle(&approval.order, &approval.reservation, outcome, &|_| vec![intent("other")]).await;
    assert!(matches!(error, Err(RiskError::Caller { index: 0, .. })), "{error:?}");
    assert_eq!(engine.position(&account(), &btc()), None, "nothing was booked");
    let error = engine.settle(&buy("b"), &approval.reservation, outcome, &|_| vec![]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "another order's reservation");
    let turned = infra_types::Order { side: Side::Sell, ..approval.order.clone() };
    let error = engine.settle(&turned, &approval.reservation, outcome, &|_| vec![]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "the same order the other way round");
}

#[tokio::test]
async fn fees_come_in_any_currency_and_what_has_no_rate_is_counted() {
    let world = World::new();
    let engine = world.engine(limits()).await;
    let mut approval = reserve(&engine, order("a", &btc(), Side::Buy, "4", "100"), Stance::Open).await.unwrap();
    for (fee, currency, value) in [
        ("0.5", "USDT", Some(dec("0.5"))),
        ("0.001", "BTC", Some(dec("0.09"))),
        ("0.01", "BNB", None),
        ("0", "BNB", Some(dec("0"))),
    ] {
        let traded = fill("1", "90", fee, currency);
        let settled = settle(&engine, &mut approval, Outcome::Fill { fill: &traded, is_last: false }).await;
        assert_eq!(settled.fee, value, "{fee} {currency}");
    }
    assert!(approval.reservation.is_closed());
    let state = engine.account(&account()).unwrap();
    assert_eq!((state.fees, state.fees_unconverted), (dec("0.59"), 1));
    let used = engine.used().await.unwrap();
    assert!(
        used.contains(&("risk/used/exposure/firm".into(), dec("360"))),
        "booked at cost, not at the limit: {used:?}"
    );
}

#[tokio::test]
async fn more_than_was_reserved_is_booked_and_flagged() {
    let world = World::new();
    let engine = world.engine(limits()).await;
    let mut approval = reserve(&engine, order("a", &btc(), Side::Buy, "1", "100"), Stance::Open).await.unwrap();
    let traded = fill("1.5", "100", "0", "USDT");
    let settled = settle(&engine, &mut approval, Outcome::Fill { fill: &traded, is_last: true }).await;
    assert_eq!((settled.overfilled, settled.position_after.unwrap().qty), (dec("0.5"), dec("1.5")));
    let mut exit = reserve(&engine, order("b", &btc(), Side::Sell, "1.5", "100"), Stance::Open).await.unwrap();
    let traded = fill("2", "100", "0", "USDT");
    let settled = settle(&engine, &mut exit, Outcome::Fill { fill: &traded, is_last: true }).await;
    assert!(settled.grew_by_reducing, "an exit that turned the position");
    // A fill after the end is booked all the same.
    let settled = settle(&engine, &mut exit, Outcome::Fill { fill: &traded, is_last: true }).await;
    assert_eq!((settled.overfilled, settled.position_after.unwrap().qty), (dec("2"), dec("-2.5")));
}

#[tokio::test]
async fn a_fill_that_comes_after_the_cancel_leaves_no_trace_in_the_counters() {
    let world = World::new();
    let engine = world.engine(limits()).await;
    let mut late = reserve(&engine, order("a", &btc(), Side::Buy, "1", "100"), Stance::Open).await.unwrap();
    let mut working = reserve(&engine, order("b", &btc(), Side::Buy, "1", "100"), Stance::Open).await.unwrap();
    settle(&engine, &mut late, Outcome::End).await;
    let traded = fill("1", "100", "0", "USDT");
    settle(&engine, &mut late, Outcome::Fill { fill: &traded, is_last: true }).await;
    settle(&engine, &mut late, Outcome::End).await;
    trade(&engine, order("c", &btc(), Side::Sell, "1", "100")).await;
    let used = engine.used().await.unwrap();
    assert!(used.contains(&("risk/used/positions/firm".into(), dec("1"))), "the second still works: {used:?}");
    settle(&engine, &mut working, Outcome::End).await;
    assert_nothing_used(&engine).await;
}

#[tokio::test]
async fn a_fill_makes_the_high_water_mark_durable() {
    let world = World::new();
    let engine = world.engine(limits()).await;
    trade(&engine, order("a", &btc(), Side::Buy, "10", "100")).await;
    world.quote(&engine, &btc(), "120");
    engine.restore().await.unwrap();
    assert_eq!(engine.account(&account()).unwrap().high_water_mark, dec("200"), "reading again forgets nothing");
    trade(&engine, order("b", &btc(), Side::Sell, "10", "125")).await;
    let new = world.bare(limits());
    new.restore().await.unwrap();
    let state = new.account(&account()).unwrap();
    assert_eq!((state.high_water_mark, state.last_pnl, state.wins), (dec("250"), dec("250"), 1));
}

#[tokio::test]
async fn a_sell_reserves_at_the_bid_that_it_may_fill_at() {
    let world = World::new();
    let engine = world.engine(limits()).await;
    let approval = reserve(&engine, order("a", &btc(), Side::Sell, "1", "50"), Stance::Open).await.unwrap();
    assert_eq!(approval.reservation.held(), dec("100"));
}

#[tokio::test]
async fn a_new_engine_on_the_same_store_is_equal_to_the_old_one() {
    let world = World::new();
    let old = world.engine(limits()).await;
    trade(&old, order("a", &btc(), Side::Buy, "10", "100")).await;
    trade(&old, order("b", &btc(), Side::Sell, "4", "103")).await;
    let mut open = reserve(&old, order("c", &eth(), Side::Buy, "5", "100"), Stance::Open).await.unwrap();
    world.quote(&old, &btc(), "130");
    world.quote(&old, &btc(), "110");
    old.checkpoint().await.unwrap();

    let new = world.bare(limits());
    new.restore().await.unwrap();
    assert_eq!(new.account(&account()), old.account(&account()));
    assert_eq!(new.positions(), old.positions());
    assert_eq!(new.used().await.unwrap(), old.used().await.unwrap());
    let state = new.account(&account()).unwrap();
    assert_eq!(
        (state.high_water_mark, state.max_drawdown),
        (dec("192"), dec("120")),
        "12 realised, 6 at +30, then at +10"
    );

    // The reservation survives with the order it belongs to.
    let json = serde_json::to_string(&open.reservation).unwrap();
    open.reservation = serde_json::from_str(&json).unwrap();
    settle(&new, &mut open, Outcome::End).await;
    for id in [btc(), eth()] {
        new.register_instrument(spec(&id)).unwrap();
        world.quote(&new, &id, "110");
    }
    let wish = || order("d", &eth(), Side::Buy, "1", "110");
    let of = |approval: infra_risk_engine::Approval| approval.decision;
    let by_new = of(reserve(&new, wish(), Stance::Open).await.unwrap());
    world.quote(&old, &eth(), "110");
    let expected = of(reserve(&old, wish(), Stance::Open).await.unwrap());
    let codes = |d: &infra_risk_engine::Decision| d.checks.iter().map(|c| (c.code, c.limit)).collect::<Vec<_>>();
    assert_eq!(codes(&by_new), codes(&expected));
    assert_eq!(new.drawdown(&account()), old.drawdown(&account()));
}

#[tokio::test]
async fn the_day_begins_at_midnight_of_the_zone() {
    let world = World::new();
    // The clock stands at 2025-01-01T00:00Z: 09:00 in Tokyo, whose next midnight is 15 hours away.
    let engine = world.engine(RiskLimits { time_zone: "Asia/Tokyo".into(), ..limits() }).await;
    trade(&engine, order("a", &btc(), Side::Buy, "10", "100")).await;
    world.quote(&engine, &btc(), "95");
    world.clock.advance(Duration::from_secs(15 * 3_600 - 1));
    assert_eq!(engine.daily_loss(&account()), Some(dec("50")));
    world.clock.advance(Duration::from_secs(1));
    assert_eq!(engine.daily_loss(&account()), Some(dec("0")), "a new day");
    world.quote(&engine, &btc(), "93");
    assert_eq!(engine.daily_loss(&account()), Some(dec("20")));
    assert_eq!(engine.drawdown(&account()), Some(dec("70")), "a drawdown knows no midnight");
    assert_eq!(engine.account(&account()).unwrap().day.to_string(), "2025-01-02");
}

#[tokio::test]
async fn an_account_is_opened_once_and_keeps_its_currency() {
    let world = World::new();
    let engine = world.engine(limits()).await;
    engine.open_account(account(), "USDT".parse().unwrap(), dec("77")).await.unwrap();
    assert_eq!(engine.account(&account()).unwrap().deposits, dec("10000"), "the stored one stands");
    assert!(engine.open_account(account(), "EUR".parse().unwrap(), dec("1")).await.is_err());
    assert!(engine.open_account("x".parse().unwrap(), "EUR".parse().unwrap(), dec("-1")).await.is_err());
}

#[tokio::test]
async fn a_portfolio_adds_up_and_names_what_it_cannot_price() {
    let world = World::new();
    let engine = world.engine(limits()).await;
    trade(&engine, order("a", &btc(), Side::Buy, "10", "100")).await;
    trade(&engine, order("b", &btc(), Side::Sell, "5", "110")).await;
    world.quote(&engine, &btc(), "120");
    engine.open_account("eur".parse().unwrap(), "EUR".parse().unwrap(), dec("100")).await.unwrap();
    let elsewhere = infra_risk_engine::AccountMetrics {
        currency: "USDT".parse().unwrap(),
        equity: dec("500"),
        exposure: dec("200"),
        daily_pnl: dec("-3"),
        open_positions: 2,
    };
    engine.update_account_metrics(&"elsewhere".parse().unwrap(), elsewhere);
    let sum = engine.calculate_portfolio_metrics();
    assert_eq!(sum.unpriced, vec!["eur".parse().unwrap()]);
    assert_eq!((sum.accounts, sum.open_positions), (2, 3));
    assert_eq!((sum.realised, sum.unrealised), (dec("50"), dec("100")));
    assert_eq!((sum.equity, sum.exposure, sum.daily_pnl), (dec("10650"), dec("700"), dec("147")));
    assert_eq!((sum.wins, sum.win_rate), (0, None), "the round trip is not over");
    assert_eq!(engine.can_open_position(&account(), dec("100")), (true, String::new()));
    let (allowed, why) = engine.can_open_position(&account(), dec("9900"));
    assert!(!allowed && why.contains("exposure_account"), "{why}");
    let (allowed, why) = engine.can_open_position(&"nobody".parse().unwrap(), dec("1"));
    assert!(!allowed && why.contains("unknown_account"), "{why}");
}
