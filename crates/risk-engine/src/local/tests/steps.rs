//! Single steps: bursts, races, what is given back, handles that are not good, and room that runs out.

use super::*;
use infra_types::Scope;

async fn world() -> World {
    let wide = Some(LimitValue::Amount(dec("10000")));
    let limits =
        RiskLimits { exposure_account_max: wide, exposure_firm_max: wide, position_notional_max: wide, ..limits() };
    let world = World::new(limits).await;
    world.quote(0, dec("100"), dec("100"));
    world
}

#[tokio::test]
async fn of_ten_orders_of_4_000_on_10_000_exactly_two_pass() {
    let world = world().await;
    let passed = (0..10).filter(|_| world.reserve(&order(0, Side::Buy, "40", "100"), Stance::Open).is_ok()).count();
    assert_eq!(passed, 2);
}

#[tokio::test]
async fn threads_cannot_pass_a_limit_together_and_all_of_it_comes_back() {
    let world = world().await;
    let order = order(0, Side::Buy, "0.7", "100");
    let route = world.route(&order);
    let now = world.now();
    let admitted: Vec<Ticket> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let reserve = |_| world.local.check_and_reserve(route, &order, Stance::Open, now).ok();
                    (0..100).filter_map(reserve).map(|reserved| reserved.ticket()).collect::<Vec<_>>()
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(admitted.len(), 142, "as many as 10,000 holds of 70");
    assert!(!world.local.is_idle());
    admitted.into_iter().for_each(|ticket| assert!(world.local.end(ticket).unwrap().is_over));
    assert!(world.local.is_idle());
}

#[tokio::test]
async fn what_an_approval_adds_is_what_the_counters_hold() {
    let world = world().await;
    let reserved = world.reserve(&order(0, Side::Sell, "3", "101"), Stance::Open).unwrap();
    let adds = world.local.adds(&reserved);
    assert!(adds.len() >= 20, "{adds:?}");
    for add in &adds {
        assert_eq!(world.local.used(&add.covers, add.metric), add.metric.figure(add.by), "{add:?}");
    }
    let desk = Coverage::One(Scope::Group("desk".parse().unwrap()));
    assert_eq!(world.local.used(&desk, Metric::NetShort), dec("303"));
    assert_eq!((reserved.held(), world.local.used(&desk, Metric::NetLong)), (dec("303"), Decimal::ZERO));
    world.local.fill(reserved.ticket(), &fill("3", "101"), true, world.now()).unwrap();
    let exit = world.reserve(&order(0, Side::Buy, "2", "100"), Stance::ReduceOnly).unwrap();
    let position = Coverage::Position(account(0), instrument(0));
    let held = Add { covers: position.clone(), metric: Metric::Reducing, by: 200_000_000 };
    assert_eq!(world.local.adds(&exit), [held]);
    assert_eq!(world.local.used(&position, Metric::Reducing), dec("2"));
    assert_eq!(world.local.strategy_position(exit.route()).unwrap().qty, dec("-3"));
}

#[tokio::test]
async fn exits_are_clipped_together_to_what_is_there() {
    let world = world().await;
    let reserved = world.reserve(&order(0, Side::Buy, "0.1", "100"), Stance::Open).unwrap();
    world.local.fill(reserved.ticket(), &fill("0.1", "100"), true, world.now()).unwrap();
    let exit = order(0, Side::Sell, "0.5", "100");
    assert_eq!(refusal(world.reserve(&exit, Stance::Open)), [code::WOULD_FLIP]);
    let first = world.reserve(&order(0, Side::Sell, "0.06", "100"), Stance::Open).unwrap();
    let second = world.reserve(&exit.clone().reduce_only(), Stance::ReduceOnly).unwrap();
    assert_eq!((first.qty().get(), second.qty().get()), (dec("0.06"), dec("0.04")));
    assert_eq!(refusal(world.reserve(&exit.reduce_only(), Stance::Open)), [code::NOTHING_TO_REDUCE]);
}

#[tokio::test]
async fn handles_are_good_for_what_they_were_given_for() {
    let world = world().await;
    let mut other = order(0, Side::Buy, "1", "100");
    let route = world.route(&other);
    other.strategy = strategy(1);
    let mistaken = world.local.check_and_reserve(route, &other, Stance::Open, world.now());
    assert!(matches!(mistaken, Err(LocalError::WrongRoute)));
    let first = world.reserve(&order(0, Side::Buy, "1", "100"), Stance::Open).unwrap().ticket();
    world.local.end(first).unwrap();
    let second = world.reserve(&order(0, Side::Buy, "2", "100"), Stance::Open).unwrap().ticket();
    assert_ne!(first, second, "in the same place");
    assert!(matches!(world.local.end(first), Err(LocalError::UnknownTicket)));
    assert_eq!(world.local.working(), 1);
    let id = "v/UNKNOWN".parse().unwrap();
    let unknown = world.local.route(&account(0), &strategy(0), &id);
    assert!(matches!(unknown, Err(LocalError::UnknownInstrument(of)) if of == id));
}

#[tokio::test]
async fn room_that_runs_out_is_said_and_holds_nothing() {
    let clock = ManualClock::default();
    let now = Moment::of(&clock);
    let sizes = LocalSizes { orders_max: 2, routes_max: 1, ..LocalSizes::default() };
    let local = LocalLedger::new(limits(), sizes, now).unwrap();
    let known = world().await.engine.account(&account(0)).unwrap();
    local.open_account(known).unwrap();
    local.register_instrument(spec(0)).unwrap();
    local.register_instrument(spec(2)).unwrap();
    let price = "100".parse().unwrap();
    local.update_market(&instrument(0), Quote { bid: price, ask: price, at: now.wall }, now).unwrap();
    let order = order(0, Side::Buy, "1", "100");
    let route = local.route(&order.account, &order.strategy, &order.instrument).unwrap();
    let reserve = || local.check_and_reserve(route, &order, Stance::Open, now);
    let (first, _) = (reserve().unwrap(), reserve().unwrap());
    let firm = Coverage::One(Scope::Firm);
    let held = local.used(&firm, Metric::Gross);
    assert!(matches!(reserve(), Err(LocalError::Full { max: 2, .. })));
    assert_eq!((local.used(&firm, Metric::Gross), local.used(&firm, Metric::WorkingOrders)), (held, dec("2")));
    local.end(first.ticket()).unwrap();
    reserve().unwrap();
    let more = local.route(&order.account, &order.strategy, &instrument(2));
    assert!(matches!(more, Err(LocalError::Full { .. })));
}

#[tokio::test]
async fn a_position_that_is_taken_over_counts() {
    let world = world().await;
    let reserved = world.reserve(&order(0, Side::Buy, "3", "100"), Stance::Open).unwrap();
    world.local.fill(reserved.ticket(), &fill("3", "100"), true, world.now()).unwrap();
    let position = world.local.position(&account(0), &instrument(0)).unwrap();
    let next = self::world().await;
    next.local.load_position(&account(0), &instrument(0), position.clone()).unwrap();
    for metric in [Metric::Gross, Metric::NetLong, Metric::NetShort, Metric::Slots] {
        let firm = Coverage::One(Scope::Firm);
        assert_eq!(next.local.used(&firm, metric), world.local.used(&firm, metric), "{metric:?}");
    }
    let exit = next.reserve(&order(0, Side::Sell, "3", "100"), Stance::ReduceOnly).unwrap();
    assert_eq!(exit.effect(), Effect::Reduce);
    assert_eq!(next.local.position(&account(0), &instrument(0)), Some(position));
}
