//! What only the ledger decides, and what the random runs seldom meet.

use super::*;
use infra_types::{OrderKind, Scope};

fn with(rules: Vec<Rule>) -> RiskLimits {
    RiskLimits { rules, exposure_account_max: Some(LimitValue::Amount(dec("100000"))), ..limits() }
}

async fn world(rules: Vec<Rule>) -> World {
    let world = World::new(with(rules)).await;
    for number in 0..3 {
        let price = [dec("100"), dec("100"), dec("0.1")][number];
        world.quote(number, price, price);
    }
    world
}

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn the_same_order_again_is_refused_until_the_window_is_over() {
    let each = Coverage::Each(ScopeKind::Account);
    let world = world(vec![rule("twice", each, Limit::Duplicates { window: SECOND })]).await;
    let same = order(0, Side::Buy, "1.50", "100");
    let first = world.reserve(&same, Stance::Open).unwrap();
    world.local.end(first.ticket()).unwrap();
    let again = order(0, Side::Buy, "1.5", "100.00");
    assert_eq!(refusal(world.reserve(&again, Stance::Open)), [code::DUPLICATE_ORDER], "written otherwise, and over");
    world.reserve(&order(0, Side::Buy, "1.501", "100"), Stance::Open).unwrap();
    world.reserve(&order(0, Side::Sell, "1.5", "100"), Stance::Open).unwrap();
    world.clock.advance(SECOND);
    world.reserve(&again, Stance::Open).unwrap();
}

#[tokio::test]
async fn a_throttle_counts_exits_and_cancels_and_never_holds_them_back() {
    let each = Coverage::Each(ScopeKind::Account);
    let world = world(vec![rule("pace", each, Limit::MessageRate { max: 3, window: SECOND })]).await;
    let open = order(0, Side::Buy, "2", "100");
    let reserved = world.reserve(&open, Stance::Open).unwrap();
    world.local.fill(reserved.ticket(), &fill("2", "100"), true, world.now()).unwrap();
    world.local.count_message(reserved.route(), world.now()).unwrap();
    let exit = order(0, Side::Sell, "0.5", "100");
    for _ in 0..4 {
        world.reserve(&exit, Stance::Open).unwrap();
    }
    assert_eq!(refusal(world.reserve(&open, Stance::Open)), [code::MESSAGE_RATE]);
    world.clock.advance(SECOND + Duration::from_millis(100));
    world.reserve(&open, Stance::Open).unwrap();
}

#[tokio::test]
async fn restricted_and_unattributed_orders_are_refused_and_exits_are_not() {
    let strategy_rule = rule("off", Coverage::One(Scope::Strategy(strategy(1))), Limit::Restricted);
    let user = rule("who", Coverage::One(Scope::Firm), Limit::UserRequired);
    let world = world(vec![strategy_rule, user]).await;
    let anonymous = order(0, Side::Buy, "1", "100");
    assert_eq!(refusal(world.reserve(&anonymous, Stance::Open)), [code::USER_REQUIRED]);
    let named = anonymous.clone().by_user("ann".parse().unwrap());
    let reserved = world.reserve(&named, Stance::Open).unwrap();
    world.local.fill(reserved.ticket(), &fill("1", "100"), false, world.now()).unwrap();
    let off = Order { strategy: strategy(1), ..named };
    assert_eq!(refusal(world.reserve(&off, Stance::Open)), [code::RESTRICTED]);
    let exit = Order { side: Side::Sell, user: None, ..off };
    assert_eq!(world.reserve(&exit, Stance::Open).unwrap().effect(), Effect::Reduce);
}

#[test]
fn rules_that_cannot_be_kept_are_refused_at_once_unless_they_are_only_tried_out() {
    let part = LimitValue::OfEquity(dec("0.5"));
    let cases = [
        (Coverage::One(Scope::Firm), Limit::SelfMatch),
        (Coverage::Each(ScopeKind::Strategy), Limit::Executions(5)),
        (Coverage::One(Scope::Firm), Limit::OrdersPerCause { max: 1, window: SECOND }),
        (Coverage::Each(ScopeKind::Instrument), Limit::PriceMove { part: dec("0.1"), window: SECOND }),
        (Coverage::Each(ScopeKind::Strategy), Limit::DailyLoss(LimitValue::Amount(dec("5")))),
        (Coverage::Each(ScopeKind::Group), Limit::Gross(part)),
        (Coverage::Each(ScopeKind::Instrument), Limit::Spread(dec("0.0123456789"))),
    ];
    let now = Moment::of(&ManualClock::default());
    for (covers, limit) in cases {
        let mut one = rule("odd", covers, limit);
        let made = |rule: &Rule| LocalLedger::new(with(vec![rule.clone()]), LocalSizes::default(), now);
        match made(&one) {
            Err(LocalError::UnsupportedRule { rule, .. }) => assert_eq!(rule, "odd"),
            other => panic!("{limit:?}: {other:?}"),
        }
        one.mode = Mode::Shadow;
        assert!(made(&one).is_ok(), "{limit:?} refuses nothing");
    }
}

#[tokio::test]
async fn a_decision_names_rules_and_says_how_near_they_are() {
    let mut near = rule("near", Coverage::Each(ScopeKind::Account), Limit::WorkingOrders(4));
    near.warn_at = Some(dec("0.5"));
    let world = world(vec![near]).await;
    let open = order(0, Side::Buy, "1", "100");
    world.reserve(&open, Stance::Open).unwrap();
    let told = world.local.explain(world.route(&open), &open, Stance::Open, world.now()).unwrap();
    assert!(told.approved && told.checks.len() >= 10, "{told:?}");
    let near = told.checks.iter().find(|check| check.rule.as_deref() == Some("near")).unwrap();
    assert_eq!((near.value, near.limit, near.level), (dec("2"), dec("4"), crate::decision::Level::Warn));
    assert!(told.checks.iter().any(|check| check.rule.as_deref() == Some("exposure_account_max")));
    assert_eq!(world.local.working(), 1, "telling reserves nothing");
}

fn market(number: usize, side: Side, qty: &str, worst: &str) -> Order {
    let order = order(number, side, qty, worst);
    Order { kind: OrderKind::Market { worst: order.kind.price() }, ..order }
}

#[tokio::test]
async fn a_market_buy_holds_what_the_ask_says_whatever_it_names() {
    let world = World::new(with(vec![])).await;
    world.quote(0, dec("99"), dec("101"));
    world.quote(1, dec("99"), dec("101"));
    // 5,000 per order: 49 at the ask are 4,949 and 50 are 5,050; of the second, 1.0801 for a euro.
    for (number, fits, held, too_many) in [(0, "49", "4949", "50"), (1, "45", "4909.0545", "46")] {
        let reserved = world.reserve(&market(number, Side::Buy, fits, "0.05"), Stance::Open).unwrap();
        assert_eq!(reserved.held(), dec(held));
        world.local.end(reserved.ticket()).unwrap();
        let refused = refusal(world.reserve(&market(number, Side::Buy, too_many, "0.05"), Stance::Open));
        assert_eq!(refused, [code::ORDER_NOTIONAL, code::POSITION_NOTIONAL]);
    }
    let named = world.reserve(&market(0, Side::Buy, "1", "102"), Stance::Open).unwrap();
    assert_eq!(named.held(), dec("102"), "a worst price above the ask is what is held");
    let resting = world.reserve(&order(0, Side::Buy, "20", "0.05"), Stance::Open).unwrap();
    assert_eq!(resting.held(), dec("1"), "a limit buy never fills above its limit");
}

#[tokio::test]
async fn a_market_order_is_collared_by_the_book_whatever_it_names() {
    let collar = rule("collar", Coverage::Each(ScopeKind::Instrument), Limit::PriceCollar(dec("0.05")));
    let world = World::new(with(vec![collar])).await;
    for (side, worst) in [(Side::Buy, "1"), (Side::Sell, "200")] {
        world.quote(0, dec("94"), dec("106"));
        assert_eq!(refusal(world.reserve(&market(0, side, "1", worst), Stance::Open)), [code::PRICE_COLLAR]);
        world.reserve(&order(0, side, "1", worst), Stance::Open).unwrap();
        world.quote(0, dec("95"), dec("105"));
        world.reserve(&market(0, side, "1", worst), Stance::Open).unwrap();
    }
}

#[tokio::test]
async fn a_market_order_without_a_quote_is_refused_even_if_no_age_is_set() {
    for (age, code) in [(Some(SECOND), code::NO_REFERENCE_PRICE), (None, code::LIMIT_UNSET)] {
        let world = World::new(RiskLimits { reference_age_max: age, ..with(vec![]) }).await;
        for side in [Side::Buy, Side::Sell] {
            assert_eq!(refusal(world.reserve(&market(0, side, "1", "1"), Stance::Open)), [code]);
        }
    }
}

#[tokio::test]
async fn the_same_order_as_a_market_order_is_a_duplicate() {
    let each = Coverage::Each(ScopeKind::Account);
    let world = world(vec![rule("twice", each, Limit::Duplicates { window: SECOND })]).await;
    world.reserve(&order(0, Side::Buy, "1.5", "100"), Stance::Open).unwrap();
    let again = market(0, Side::Buy, "1.5", "100");
    assert_eq!(refusal(world.reserve(&again, Stance::Open)), [code::DUPLICATE_ORDER]);
}
