//! Whatever is missing refuses, each with a code of its own.

use std::time::Duration;

use crate::support::*;
use infra_risk_engine::{Coverage, Limit, Quote, QuoteError, RiskError, RiskLimits, Stance};
use infra_types::{Clock, Order, OrderKind, Scope, Side};

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

/// What an order lacks, how to take it away, and the code of the refusal.
type Lack = (&'static str, fn(&mut RiskLimits), fn(Order) -> Order, &'static str);

#[tokio::test]
async fn each_missing_input_has_its_own_code() {
    let same = |_: &mut RiskLimits| {};
    let plain = |order: Order| order;
    let firm = || Coverage::One(Scope::Firm);
    let minute = Duration::from_secs(60);
    let cases: [Lack; 15] = [
        ("account", same, |order| Order { account: "nobody".parse().unwrap(), ..order }, "unknown_account"),
        ("instrument", same, |order| Order { instrument: "v/NONUSDT".parse().unwrap(), ..order }, "unknown_instrument"),
        ("quote", same, |order| Order { instrument: "v/SOLUSDT".parse().unwrap(), ..order }, "no_reference_price"),
        (
            "rate of the quote currency",
            same,
            |order| Order { instrument: "v/SOLEUR".parse().unwrap(), ..order },
            "missing_conversion",
        ),
        ("limit", |l| l.order_qty_max = None, plain, "limit_unset"),
        ("cause", |l| l.rules = vec![], plain, "no_cause"),
        ("user", |l| l.rules = vec![], plain, "user_required"),
        ("quantity", same, |order| Order { qty: infra_types::Qty::ZERO, ..order }, "spec_qty"),
        (
            "figure that can be counted",
            same,
            |order| Order {
                kind: OrderKind::Limit("79228162514264337593543950335".parse().unwrap()),
                qty: "100000".parse().unwrap(),
                ..order
            },
            "overflow",
        ),
        ("position to reduce", same, Order::reduce_only, "nothing_to_reduce"),
        (
            "grid of prices",
            same,
            |order| Order { kind: OrderKind::Limit("100.001".parse().unwrap()), ..order },
            "spec_tick",
        ),
        ("grid of quantities", same, |order| Order { qty: "1.00001".parse().unwrap(), ..order }, "spec_lot"),
        (
            "smallest value",
            same,
            |order| Order { kind: OrderKind::Limit("0.01".parse().unwrap()), qty: "0.001".parse().unwrap(), ..order },
            "spec_notional",
        ),
        ("rate of the account", |l| l.firm_currency = Some("JPY".parse().unwrap()), plain, "missing_conversion"),
        ("currency of the firm", |l| l.firm_currency = None, plain, "limit_unset"),
    ];
    for (what, break_limits, break_order, code) in cases {
        let (world, mut limits) = (World::new(), limits());
        break_limits(&mut limits);
        match what {
            "cause" => limits.rules.push(rule("r", firm(), Limit::OrdersPerCause { max: 5, window: minute })),
            "user" => limits.rules.push(rule("r", firm(), Limit::UserRequired)),
            _ => {}
        }
        let engine = world.engine(limits).await;
        for id in ["v/SOLUSDT", "v/SOLEUR"] {
            let mut spec = spec(&id.parse().unwrap());
            if id.ends_with("EUR") {
                spec.quote = "EUR".parse().unwrap();
                engine
                    .update_market(
                        &spec.id,
                        Quote { bid: "1".parse().unwrap(), ask: "1".parse().unwrap(), at: world.clock.wall() },
                    )
                    .unwrap();
            }
            engine.register_instrument(spec).unwrap();
        }
        let wish = break_order(order("o", &btc(), Side::Buy, "1", "100"));
        let decision = refusal(reserve(&engine, wish, Stance::Open).await);
        assert!(decision.failed(code), "{what}: {decision:?}");
        let others: Vec<_> = decision.failures().map(|c| c.code).filter(|other| *other != code).collect();
        // A price that is no price has no value to be compared either.
        assert!(others.is_empty() || code == "overflow", "{what}: {others:?}");
        assert_nothing_used(&engine).await;
    }
}

#[tokio::test]
async fn what_a_wider_equity_needs_and_lacks_is_named() {
    let world = World::new();
    let part = Some(infra_risk_engine::LimitValue::OfEquity(dec("0.5")));
    let engine = world.engine(RiskLimits { exposure_firm_max: part, ..limits() }).await;
    reserve(&engine, order("a", &btc(), Side::Buy, "1", "100"), Stance::Open).await.unwrap();
    // An account in a currency that nobody can convert: what the firm is worth is not known.
    engine.open_account("yen".parse().unwrap(), "JPY".parse().unwrap(), dec("1")).await.unwrap();
    let decision = refusal(reserve(&engine, order("b", &btc(), Side::Buy, "1", "100"), Stance::Open).await);
    let failed: Vec<_> = decision.failures().map(|c| (c.code, c.scope.to_string())).collect();
    assert_eq!(failed, [("missing_conversion", "account:yen".into()), ("exposure_firm", "firm".into())]);
}

#[tokio::test]
async fn a_quote_that_makes_no_sense_is_refused_by_type_and_counted() {
    let world = World::new();
    let engine = world.engine(limits()).await;
    let quote = |bid: &str, ask: &str, ahead_ms: u64| Quote {
        bid: bid.parse().unwrap(),
        ask: ask.parse().unwrap(),
        at: world.clock.wall().saturating_add(Duration::from_millis(ahead_ms)),
    };
    let refused = |quote| match engine.update_market(&btc(), quote) {
        Err(RiskError::Quote(why)) => why,
        other => panic!("{other:?}"),
    };
    assert!(matches!(refused(quote("101", "100", 0)), QuoteError::Crossed { .. }));
    // A venue whose clock is 1.3 s ahead, where 1 s is tolerated.
    let QuoteError::FromTheFuture { ahead, max, .. } = refused(quote("99", "101", 1_300)) else { panic!() };
    assert_eq!((ahead, max), (Duration::from_millis(1_300), Duration::from_secs(1)));
    engine.update_market(&btc(), quote("99", "101", 900)).unwrap();
    assert!(matches!(refused(quote("99", "101", 899)), QuoteError::OutOfOrder { .. }));
    let counted = engine.quotes_refused();
    assert_eq!((counted.crossed, counted.from_the_future, counted.out_of_order), (1, 1, 1));
    let tolerant = World::new();
    let engine = tolerant.engine(RiskLimits { clock_skew_max: Duration::from_millis(1_300), ..limits() }).await;
    engine.update_market(&btc(), quote("99", "101", 1_300)).unwrap();
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
