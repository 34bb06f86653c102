//! A market order names a worst price, and the market does not know it: what it is reckoned at is where it may fill.

use std::time::Duration;

use crate::support::*;
use infra_risk_engine::{Coverage, Limit, LimitValue, Quote, RiskEngine, RiskLimits, ScopeKind, Stance};
use infra_types::{Clock, Order, OrderKind, Scope, Side};

fn market(id: &str, side: Side, qty: &str, worst: &str) -> Order {
    let order = order(id, &btc(), side, qty, worst);
    Order { kind: OrderKind::Market { worst: order.kind.price() }, ..order }
}

fn quote(world: &World, engine: &RiskEngine, bid: &str, ask: &str) {
    let quote = Quote { bid: bid.parse().unwrap(), ask: ask.parse().unwrap(), at: world.clock.wall() };
    engine.update_market(&btc(), quote).unwrap();
}

#[tokio::test]
async fn a_buy_that_names_next_to_nothing_passes_no_limit_on_money() {
    let amount = |text| LimitValue::Amount(dec(text));
    let minute = Duration::from_secs(60);
    let rules = vec![
        rule("net", Coverage::One(Scope::Firm), Limit::Net(amount("20000"))),
        rule("lever", Coverage::Each(ScopeKind::Account), Limit::Leverage(dec("2"))),
        rule("rate", Coverage::Each(ScopeKind::Account), Limit::NotionalRate { max: dec("20000"), window: minute }),
    ];
    let world = World::new();
    let engine = world.engine(RiskLimits { rules, ..limits() }).await;
    quote(&world, &engine, "59990", "60000");
    // 60 million that call themselves 10.
    let decision = refusal(reserve(&engine, market("a", Side::Buy, "1000", "0.01"), Stance::Open).await);
    for code in [
        "order_notional",
        "exposure_firm",
        "exposure_account",
        "position_notional",
        "net_long",
        "leverage",
        "notional_rate",
    ] {
        assert!(decision.failed(code), "{code}: {decision:?}");
    }
    assert_nothing_used(&engine).await;
}

#[tokio::test]
async fn either_side_holds_what_the_book_says_or_what_it_names_if_that_is_more() {
    let world = World::new();
    let engine = world.engine(limits()).await;
    quote(&world, &engine, "99", "101");
    for (n, (side, worst, held)) in
        [(Side::Buy, "0.01", "202"), (Side::Buy, "103", "206"), (Side::Sell, "0.01", "198"), (Side::Sell, "103", "206")]
            .into_iter()
            .enumerate()
    {
        let approval = reserve(&engine, market(&format!("o-{n}"), side, "2", worst), Stance::Open).await.unwrap();
        assert_eq!(approval.reservation.held(), dec(held), "{side:?} {worst}");
    }
    let limit = reserve(&engine, order("l", &btc(), Side::Buy, "2", "0.01"), Stance::Open).await.unwrap();
    assert_eq!(limit.reservation.held(), dec("0.02"), "a limit buy never fills above its limit");
}

#[tokio::test]
async fn the_collar_is_held_against_the_book() {
    let rules = vec![rule("collar", Coverage::Each(ScopeKind::Instrument), Limit::PriceCollar(dec("0.05")))];
    let world = World::new();
    let engine = world.engine(RiskLimits { rules, ..limits() }).await;
    for (side, worst) in [(Side::Buy, "1"), (Side::Sell, "200")] {
        quote(&world, &engine, "94", "106");
        let decision = refusal(reserve(&engine, market("a", side, "1", worst), Stance::Open).await);
        assert_eq!(decision.first_code(), Some("price_collar"), "{side:?}");
        quote(&world, &engine, "95", "105");
        reserve(&engine, market(&format!("{side:?}"), side, "1", worst), Stance::Open).await.unwrap();
    }
}

#[tokio::test]
async fn without_a_quote_it_is_refused_even_if_no_age_is_set() {
    for (age, code) in [(Some(Duration::from_secs(5)), "no_reference_price"), (None, "limit_unset")] {
        let world = World::new();
        let engine = world.bare(RiskLimits { reference_age_max: age, ..limits() });
        engine.restore().await.unwrap();
        engine.open_account(account(), "USDT".parse().unwrap(), dec("10000")).await.unwrap();
        engine.register_instrument(spec(&btc())).unwrap();
        for side in [Side::Buy, Side::Sell] {
            let decision = refusal(reserve(&engine, market("a", side, "1", "1"), Stance::Open).await);
            assert_eq!(decision.first_code(), Some(code), "{side:?}");
        }
    }
}

#[tokio::test]
async fn the_same_order_as_a_market_order_is_a_duplicate() {
    let window = Duration::from_secs(60);
    let rules = vec![rule("twice", Coverage::Each(ScopeKind::Account), Limit::Duplicates { window })];
    let world = World::new();
    let engine = world.engine(RiskLimits { rules, ..limits() }).await;
    reserve(&engine, order("a", &btc(), Side::Buy, "1", "100"), Stance::Open).await.unwrap();
    let decision = refusal(reserve(&engine, market("b", Side::Buy, "1", "100"), Stance::Open).await);
    assert_eq!(decision.first_code(), Some("duplicate_order"));
}
