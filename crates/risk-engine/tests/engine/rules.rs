//! Every limit through the engine: what is at the limit passes, a unit more does not, and the refusal says why.

use std::time::Duration;

use crate::support::*;
use infra_risk_engine::{
    Coverage, Decision, Limit, LimitValue, Message, Outcome, Quote, RiskEngine, RiskLimits, Rule, ScopeKind, Stance,
};
use infra_types::{Clock, Decimal, Order, Scope, Side};

const MINUTE: Duration = Duration::from_secs(60);

fn each(kind: ScopeKind) -> Coverage {
    Coverage::Each(kind)
}

fn amount(text: &str) -> LimitValue {
    LimitValue::Amount(dec(text))
}

fn ruled(covers: Coverage, limit: Limit) -> RiskLimits {
    RiskLimits {
        groups: [(account(), "desk".parse().unwrap())].into(),
        rules: vec![rule("the-rule", covers, limit)],
        ..limits()
    }
}

async fn engine(covers: Coverage, limit: Limit) -> (World, RiskEngine) {
    let world = World::new();
    let engine = world.engine(ruled(covers, limit)).await;
    (world, engine)
}

async fn passes(engine: &RiskEngine, order: Order) -> infra_risk_engine::Approval {
    let approval = reserve(engine, order, Stance::Open).await.unwrap();
    assert!(approval.decision.approved);
    approval
}

/// The order is refused by the rule and by nothing else.
async fn refused(engine: &RiskEngine, order: Order, code: &str) -> Decision {
    let decision = refusal(reserve(engine, order, Stance::Open).await);
    let failed: Vec<_> = decision.failures().map(|c| (c.code, c.rule.as_deref())).collect();
    assert_eq!(failed, [(code, Some("the-rule"))], "{decision:?}");
    decision
}

fn buy(id: &str, qty: &str) -> Order {
    order(id, &btc(), Side::Buy, qty, "100")
}

fn sell(id: &str, qty: &str) -> Order {
    order(id, &btc(), Side::Sell, qty, "100")
}

#[tokio::test]
async fn one_order_is_held_against_quantity_and_value() {
    for covers in [ScopeKind::Group, ScopeKind::Venue, ScopeKind::Account, ScopeKind::Strategy, ScopeKind::Position] {
        let (_, engine) = engine(each(covers), Limit::OrderQty(dec("5"))).await;
        refused(&engine, buy("a", "5.001"), "order_qty").await;
        passes(&engine, buy("b", "5")).await;
        let (_, engine) = self::engine(each(ScopeKind::Strategy), Limit::OrderNotional(amount("500"))).await;
        let decision = refused(&engine, buy("a", "5.001"), "order_notional").await;
        let check = decision.failures().next().unwrap();
        assert_eq!((check.value, check.limit, check.headroom), (dec("500.1"), dec("500"), dec("-0.1")));
        passes(&engine, buy("b", "5")).await;
    }
}

#[tokio::test]
async fn a_price_far_from_the_market_is_refused_on_the_side_that_hurts() {
    let (_, engine) = engine(Coverage::One(Scope::Firm), Limit::PriceCollar(dec("0.05"))).await;
    refused(&engine, order("a", &btc(), Side::Buy, "1", "105.01"), "price_collar").await;
    refused(&engine, order("b", &eth(), Side::Sell, "1", "94.99"), "price_collar").await;
    passes(&engine, order("c", &btc(), Side::Buy, "1", "105")).await;
    passes(&engine, order("d", &eth(), Side::Sell, "1", "95")).await;
    passes(&engine, order("e", &btc(), Side::Buy, "1", "1")).await;
}

#[tokio::test]
async fn a_market_that_moved_too_far_or_is_too_wide_stops_what_opens() {
    let limit = Limit::PriceMove { part: dec("0.05"), window: MINUTE };
    let (world, engine) = engine(each(ScopeKind::Instrument), limit).await;
    world.clock.advance(Duration::from_secs(1));
    world.quote(&engine, &btc(), "105");
    passes(&engine, buy("a", "1")).await;
    world.quote(&engine, &btc(), "105.01");
    refused(&engine, buy("b", "1"), "price_move").await;
    passes(&engine, order("c", &eth(), Side::Buy, "1", "100")).await;
    world.clock.advance(MINUTE + Duration::from_secs(3));
    world.quote(&engine, &btc(), "105.01");
    passes(&engine, buy("d", "1")).await;

    let (world, engine) = self::engine(each(ScopeKind::Venue), Limit::Spread(dec("0.02"))).await;
    let wide = |bid: &str, ask: &str| {
        let quote = Quote { bid: bid.parse().unwrap(), ask: ask.parse().unwrap(), at: world.clock.wall() };
        engine.update_market(&btc(), quote).unwrap();
    };
    wide("99", "101");
    passes(&engine, buy("a", "1")).await;
    wide("98.99", "101");
    refused(&engine, buy("b", "1"), "spread").await;
}

#[tokio::test]
async fn one_instrument_may_have_an_age_of_its_own() {
    let covers = Coverage::One(Scope::Instrument(btc()));
    let (world, engine) = engine(covers, Limit::ReferenceAge(Duration::from_secs(2))).await;
    world.clock.advance(Duration::from_secs(2));
    passes(&engine, buy("a", "1")).await;
    world.clock.advance(Duration::from_millis(1));
    refused(&engine, buy("b", "1"), "stale_reference_price").await;
    passes(&engine, order("c", &eth(), Side::Buy, "1", "100")).await;
}

#[tokio::test]
async fn gross_exposure_of_every_scope_is_bounded() {
    let one = |scope: &str| Coverage::One(scope.parse().unwrap());
    for (covers, code) in [
        (one("group:desk"), "exposure_group"),
        (one("venue:v"), "exposure_venue"),
        (each(ScopeKind::Strategy), "exposure_strategy"),
        (each(ScopeKind::Instrument), "exposure_instrument"),
        (one("account:main"), "exposure_account"),
        (Coverage::Position(account(), btc()), "position_notional"),
    ] {
        let (_, engine) = engine(covers, Limit::Gross(amount("1000"))).await;
        let mut half = passes(&engine, buy("a", "5")).await;
        passes(&engine, buy("b", "5")).await;
        let decision = refused(&engine, buy("c", "0.001"), code).await;
        let check = decision.failures().next().unwrap();
        assert_eq!((check.value, check.headroom), (dec("1000"), dec("0")), "{code}");
        settle(&engine, &mut half, Outcome::End).await;
        passes(&engine, buy("d", "5")).await;
    }
}

#[tokio::test]
async fn limits_with_fields_of_their_own_are_held_to_the_unit() {
    let world = World::new();
    let tight = |limits: RiskLimits| RiskLimits { exposure_firm_max: Some(amount("1000")), ..limits };
    let engine = world.engine(tight(limits())).await;
    let mut all = passes(&engine, buy("a", "10")).await;
    let decision = refusal(reserve(&engine, order("b", &eth(), Side::Buy, "0.001", "100"), Stance::Open).await);
    let failed: Vec<_> = decision.failures().map(|c| (c.code, c.rule.as_deref(), c.value)).collect();
    assert_eq!(failed, [("exposure_firm", Some("exposure_firm_max"), dec("1000"))]);
    settle(&engine, &mut all, Outcome::End).await;
    passes(&engine, order("c", &eth(), Side::Buy, "0.001", "100")).await;

    let world = World::new();
    let engine = world.engine(RiskLimits { daily_loss_max: Some(amount("50")), ..limits() }).await;
    trade(&engine, buy("a", "10")).await;
    world.quote(&engine, &btc(), "95.01");
    passes(&engine, order("b", &eth(), Side::Buy, "1", "100")).await;
    world.quote(&engine, &btc(), "95");
    let decision = refusal(reserve(&engine, order("c", &eth(), Side::Buy, "1", "100"), Stance::Open).await);
    let check = decision.failures().next().unwrap();
    assert_eq!((check.code, check.value, check.limit, check.headroom), ("daily_loss", dec("50"), dec("50"), dec("0")));
}

#[tokio::test]
async fn net_exposure_counts_all_that_could_fill_on_one_side() {
    for covers in [Coverage::One(Scope::Firm), each(ScopeKind::Group), each(ScopeKind::Account)] {
        let (_, engine) = engine(covers, Limit::Net(amount("1000"))).await;
        let short = |id: &str, qty: &str| order(id, &eth(), Side::Sell, qty, "100");
        passes(&engine, buy("a", "10")).await;
        let mut sale = passes(&engine, short("b", "10")).await;
        refused(&engine, buy("c", "0.001"), "net_long").await;
        refused(&engine, short("d", "0.001"), "net_short").await;
        // A short that is there takes off what is long; one that only works does not.
        let traded = fill("4", "100", "0", "USDT");
        settle(&engine, &mut sale, Outcome::Fill { fill: &traded, is_last: true }).await;
        refused(&engine, buy("e", "4.001"), "net_long").await;
        passes(&engine, buy("f", "4")).await;
    }
}

#[tokio::test]
async fn exposure_is_bounded_by_equity_and_by_its_share_of_everything() {
    // Equity is 10,000.
    let (_, engine) = engine(each(ScopeKind::Account), Limit::Leverage(dec("0.1"))).await;
    refused(&engine, buy("a", "10.001"), "leverage").await;
    passes(&engine, buy("b", "10")).await;
    refused(&engine, buy("c", "0.001"), "leverage").await;
    for covers in [each(ScopeKind::Position), each(ScopeKind::Instrument), each(ScopeKind::Strategy)] {
        let (_, engine) = self::engine(covers, Limit::Concentration(dec("0.1"))).await;
        passes(&engine, buy("a", "10")).await;
        refused(&engine, buy("b", "0.001"), "concentration").await;
    }
}

#[tokio::test]
async fn long_and_short_quantities_include_what_works() {
    for covers in [each(ScopeKind::Position), each(ScopeKind::Instrument)] {
        let (_, engine) = engine(covers.clone(), Limit::LongQty(dec("10"))).await;
        trade(&engine, buy("a", "6")).await;
        passes(&engine, buy("b", "4")).await;
        let check = refused(&engine, buy("c", "0.001"), "long_qty").await.failures().next().unwrap().clone();
        assert_eq!((check.value, check.limit), (dec("10"), dec("10")));
        passes(&engine, sell("d", "6")).await;
        let (_, engine) = self::engine(covers, Limit::ShortQty(dec("10"))).await;
        trade(&engine, sell("a", "6")).await;
        passes(&engine, sell("b", "4")).await;
        refused(&engine, sell("c", "0.001"), "short_qty").await;
    }
}

#[tokio::test]
async fn quantities_of_whole_units_are_counted_far_beyond_those_of_parts() {
    let world = World::new();
    let roomy = RiskLimits {
        order_qty_max: Some(dec("1000000000000")),
        ..ruled(each(ScopeKind::Position), Limit::LongQty(dec("500000000")))
    };
    let engine = world.engine(roomy).await;
    let id = "v/PEPEUSDT".parse().unwrap();
    let mut whole = spec(&id);
    (whole.lot_size, whole.qty_min, whole.qty_max) = (dec("1"), "1".parse().unwrap(), "1000000000000".parse().unwrap());
    (whole.tick_size, whole.notional_min) = (dec("0.000001"), dec("0"));
    engine.register_instrument(whole).unwrap();
    world.quote(&engine, &id, "0.000001");
    let buy = |id_: &str, qty: &str| order(id_, &id, Side::Buy, qty, "0.000001");
    passes(&engine, buy("a", "400000000")).await;
    passes(&engine, buy("b", "100000000")).await;
    let check = refused(&engine, buy("c", "1"), "long_qty").await.failures().next().unwrap().clone();
    assert_eq!(check.value, dec("500000000"));
}

#[tokio::test]
async fn positions_and_working_orders_are_counted() {
    let (_, engine) = engine(each(ScopeKind::Account), Limit::OpenPositions(1)).await;
    passes(&engine, buy("a", "1")).await;
    refused(&engine, order("b", &eth(), Side::Buy, "1", "100"), "max_positions").await;
    passes(&engine, buy("c", "1")).await;
    for covers in
        [Coverage::One(Scope::Firm), each(ScopeKind::Account), each(ScopeKind::Strategy), each(ScopeKind::Position)]
    {
        let (_, engine) = self::engine(covers, Limit::WorkingOrders(2)).await;
        let mut first = passes(&engine, buy("a", "1")).await;
        passes(&engine, buy("b", "1")).await;
        let check = refused(&engine, buy("c", "1"), "working_orders").await.failures().next().unwrap().clone();
        assert_eq!((check.value, check.limit, check.headroom), (dec("2"), dec("2"), dec("0")));
        settle(&engine, &mut first, Outcome::End).await;
        passes(&engine, buy("d", "1")).await;
    }
}

#[tokio::test]
async fn losses_of_a_strategy_stop_that_strategy() {
    let (world, engine) = engine(each(ScopeKind::Strategy), Limit::DailyLoss(amount("50"))).await;
    trade(&engine, buy("a", "10")).await;
    world.quote(&engine, &btc(), "95.01");
    passes(&engine, order("b", &eth(), Side::Buy, "1", "100")).await;
    world.quote(&engine, &btc(), "95");
    let decision = refused(&engine, order("c", &eth(), Side::Buy, "1", "100"), "daily_loss").await;
    assert_eq!(decision.failures().next().unwrap().scope.to_string(), "strategy:s");
    let other = Order { strategy: "other".parse().unwrap(), ..order("d", &eth(), Side::Buy, "1", "100") };
    passes(&engine, other).await;
    passes(&engine, sell("out", "10")).await;
    world.clock.advance(Duration::from_secs(24 * 3_600));
    for id in [btc(), eth()] {
        world.quote(&engine, &id, "95");
    }
    passes(&engine, order("e", &eth(), Side::Buy, "1", "100")).await;
}

#[tokio::test]
async fn a_strategys_loss_on_another_engine_stops_it_here() {
    let (world, one) = engine(each(ScopeKind::Strategy), Limit::DailyLoss(amount("50"))).await;
    let two = world.engine(ruled(each(ScopeKind::Strategy), Limit::DailyLoss(amount("50")))).await;
    // In another account, so that only the strategy connects them.
    one.open_account("second".parse().unwrap(), "USDT".parse().unwrap(), dec("10000")).await.unwrap();
    let second = |order: Order| Order { account: "second".parse().unwrap(), ..order };
    trade(&one, second(buy("a", "10"))).await;
    trade(&one, second(order("b", &btc(), Side::Sell, "10", "95"))).await;
    // The second has heard of none of it: the strategy's record is a precondition of its batch.
    refused(&two, buy("c", "1"), "daily_loss").await;
}

#[tokio::test]
async fn a_drawdown_of_one_account_may_be_tighter() {
    let covers = Coverage::One(Scope::Account(account()));
    let (world, engine) = engine(covers, Limit::Drawdown(amount("50"))).await;
    trade(&engine, buy("a", "10")).await;
    world.quote(&engine, &btc(), "95.01");
    passes(&engine, order("b", &eth(), Side::Buy, "1", "100")).await;
    world.quote(&engine, &btc(), "95");
    refused(&engine, order("c", &eth(), Side::Buy, "1", "100"), "drawdown").await;
}

#[tokio::test]
async fn quantity_and_value_in_a_window_are_bounded_and_come_back() {
    for (covers, limit, code) in [
        (each(ScopeKind::Instrument), Limit::QtyRate { max: dec("10"), window: MINUTE }, "qty_rate"),
        (each(ScopeKind::Account), Limit::NotionalRate { max: dec("1000"), window: MINUTE }, "notional_rate"),
    ] {
        let (world, engine) = engine(covers, limit).await;
        let mut first = passes(&engine, buy("a", "6")).await;
        passes(&engine, buy("b", "4")).await;
        // What ended was sent all the same.
        settle(&engine, &mut first, Outcome::End).await;
        let decision = refused(&engine, buy("c", "0.001"), code).await;
        let check = decision.failures().next().unwrap();
        assert_eq!((check.value, check.headroom), (check.limit, dec("0")));
        assert!(check.note.contains("room in"), "{}", check.note);
        world.clock.advance(MINUTE + Duration::from_secs(6));
        world.quote(&engine, &btc(), "100");
        passes(&engine, buy("d", "10")).await;
    }
}

#[tokio::test]
async fn messages_are_counted_and_cancels_and_exits_always_pass() {
    let limit = Limit::MessageRate { max: 4, window: MINUTE };
    let (_, engine) = engine(each(ScopeKind::Account), limit).await;
    trade(&engine, buy("a", "1")).await;
    let working = passes(&engine, buy("b", "1")).await;
    let cancel = || engine.count_message(&working.order, Message::Cancel);
    assert_eq!(cancel().await.unwrap()[0].value, dec("3"));
    passes(&engine, buy("c", "1")).await;
    refused(&engine, buy("d", "1"), "message_rate").await;
    for n in 5..9 {
        let checks = cancel().await.unwrap();
        assert_eq!((checks[0].value, checks[0].passed, checks[0].code), (Decimal::from(n), true, "message_rate"));
    }
    engine.count_message(&working.order, Message::Change).await.unwrap();
    passes(&engine, sell("out", "1")).await;
}

#[tokio::test]
async fn the_same_order_again_is_refused_for_a_while() {
    let (world, engine) = engine(Coverage::One(Scope::Firm), Limit::Duplicates { window: MINUTE }).await;
    passes(&engine, buy("a", "1")).await;
    let decision = refused(&engine, order("b", &btc(), Side::Buy, "1.0", "100.00"), "duplicate_order").await;
    assert_eq!(decision.failures().next().unwrap().value, dec("1"));
    for other in
        [buy("c", "1.001"), order("d", &btc(), Side::Buy, "1", "99"), order("e", &eth(), Side::Buy, "1", "100")]
    {
        passes(&engine, other).await;
    }
    world.clock.advance(MINUTE);
    world.quote(&engine, &btc(), "100");
    passes(&engine, buy("f", "1")).await;
}

#[tokio::test]
async fn a_strategy_acts_so_often_until_a_person_enables_it() {
    let (world, engine) = engine(each(ScopeKind::Strategy), Limit::Executions(3)).await;
    for id in ["a", "b", "c"] {
        trade(&engine, buy(id, "1")).await;
    }
    refused(&engine, buy("d", "1"), "executions").await;
    // Neither a day nor a new process resets it.
    world.clock.advance(Duration::from_secs(3 * 24 * 3_600));
    let engine = world.engine(ruled(each(ScopeKind::Strategy), Limit::Executions(3))).await;
    refused(&engine, buy("e", "1"), "executions").await;
    passes(&engine, sell("out", "1")).await;
    let (strategy, person) = ("s".parse().unwrap(), "ann".parse().unwrap());
    assert!(engine.enable_strategy(&strategy, "ann".parse().unwrap(), " ", &|_| vec![]).await.is_err());
    let enabled = engine.enable_strategy(&strategy, person, "looked at it", &|_| vec![]).await.unwrap();
    assert_eq!(enabled.executions, 4, "the exit counted");
    assert_eq!(engine.enabled(&strategy).await.unwrap(), Some(enabled));
    for id in ["f", "g", "h"] {
        passes(&engine, buy(id, "1")).await;
    }
    refused(&engine, buy("i", "1"), "executions").await;
}

#[tokio::test]
async fn executions_are_counted_before_anybody_limits_them() {
    let world = World::new();
    let engine = world.engine(limits()).await;
    passes(&engine, buy("a", "1")).await;
    passes(&engine, buy("b", "1")).await;
    let engine = world.engine(ruled(each(ScopeKind::Strategy), Limit::Executions(2))).await;
    refused(&engine, buy("c", "1"), "executions").await;
}

#[tokio::test]
async fn one_event_causes_so_many_orders() {
    let limit = Limit::OrdersPerCause { max: 2, window: MINUTE };
    let (_, engine) = engine(Coverage::One(Scope::Firm), limit).await;
    let caused = |id: &str, by: &str| buy(id, "1").caused_by(infra_types::EventId::new(by).unwrap());
    refused(&engine, buy("a", "1"), "no_cause").await;
    passes(&engine, caused("b", "signal-1")).await;
    passes(&engine, caused("c", "signal-1")).await;
    refused(&engine, caused("d", "signal-1"), "orders_per_cause").await;
    passes(&engine, caused("e", "signal-2")).await;
}

#[tokio::test]
async fn orders_that_could_trade_with_each_other_are_refused() {
    for covers in [Coverage::One(Scope::Firm), each(ScopeKind::Group), each(ScopeKind::Account)] {
        let (world, engine) = engine(covers.clone(), Limit::SelfMatch).await;
        let mut bid = passes(&engine, order("a", &btc(), Side::Buy, "1", "99")).await;
        refused(&engine, order("b", &btc(), Side::Sell, "1", "99"), "self_match").await;
        passes(&engine, order("c", &btc(), Side::Sell, "1", "99.01")).await;
        passes(&engine, order("d", &eth(), Side::Sell, "1", "99")).await;
        // Another process sees it too.
        let other = world.engine(ruled(covers, Limit::SelfMatch)).await;
        refused(&other, order("e", &btc(), Side::Sell, "1", "90"), "self_match").await;
        settle(&engine, &mut bid, Outcome::End).await;
        passes(&other, order("f", &btc(), Side::Sell, "1", "90")).await;
    }
}

#[tokio::test]
async fn an_exit_that_could_match_passes_and_is_seen_by_what_opens() {
    let (_, engine) = engine(each(ScopeKind::Account), Limit::SelfMatch).await;
    trade(&engine, buy("in", "2")).await;
    passes(&engine, order("bid", &btc(), Side::Buy, "1", "99")).await;
    let mut exit = passes(&engine, order("out", &btc(), Side::Sell, "1", "99")).await;
    refused(&engine, order("a", &btc(), Side::Buy, "1", "100"), "self_match").await;
    let traded = fill("1", "99", "0", "USDT");
    settle(&engine, &mut exit, Outcome::Fill { fill: &traded, is_last: true }).await;
    passes(&engine, order("b", &btc(), Side::Buy, "1", "100")).await;
}

#[tokio::test]
async fn nothing_opens_where_it_is_restricted_and_nobody_opens_without_a_name() {
    for covers in ["venue:v", "account:main", "strategy:s", "instrument:v/BTCUSDT", "group:desk", "firm"] {
        let (_, engine) = engine(Coverage::One(covers.parse().unwrap()), Limit::Restricted).await;
        refused(&engine, buy("a", "1"), "restricted").await;
    }
    let world = World::new();
    let free = world.engine(limits()).await;
    trade(&free, buy("in", "1")).await;
    let engine = world.engine(ruled(Coverage::One(Scope::Instrument(btc())), Limit::Restricted)).await;
    passes(&engine, sell("out", "1")).await;
    passes(&engine, order("b", &eth(), Side::Buy, "1", "100")).await;

    let (_, engine) = self::engine(Coverage::One(Scope::Firm), Limit::UserRequired).await;
    refused(&engine, buy("a", "1"), "user_required").await;
    passes(&engine, buy("b", "1").by_user("ann".parse().unwrap())).await;
}

#[tokio::test]
async fn two_bounds_on_one_counter_both_hold_and_the_figure_is_without_the_order() {
    let world = World::new();
    let mut limits = ruled(Coverage::One(Scope::Account(account())), Limit::Gross(amount("2000")));
    limits.rules.push(Rule { id: "tight".into(), ..rule("", each(ScopeKind::Account), Limit::Leverage(dec("0.1"))) });
    let engine = world.engine(limits).await;
    passes(&engine, buy("a", "8")).await;
    let decision = refusal(reserve(&engine, buy("b", "3"), Stance::Open).await);
    let check = decision.failures().next().unwrap();
    assert_eq!((check.code, check.rule.as_deref()), ("leverage", Some("tight")));
    assert_eq!((check.value, check.limit, check.headroom), (dec("800"), dec("1000"), dec("200")));
    passes(&engine, buy("c", "2")).await;
}
