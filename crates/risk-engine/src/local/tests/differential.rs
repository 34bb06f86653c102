//! The same orders, trades, ends and markets through the shared engine and through the ledger: the same verdicts, codes, holds,
//! counters, positions and accounts.

use std::collections::{BTreeMap, BTreeSet};

use infra_types::{OrderKind, Price, Qty, Scope};
use proptest::prelude::*;

use super::*;
use crate::{
    error::RiskError,
    reservation::{Outcome, Reservation},
};

const WINDOWS: [&str; 4] = [code::QTY_RATE, code::NOTIONAL_RATE, code::MESSAGE_RATE, code::DUPLICATE_ORDER];

/// Every kind of rule that both keep, over every sort of scope.
fn ruled() -> RiskLimits {
    use Coverage::{Each, One};
    let money = |amount: i64| LimitValue::Amount(Decimal::from(amount));
    let part = |percent: i64| LimitValue::OfEquity(Decimal::new(percent, 2));
    let secs = Duration::from_secs;
    let each_kind = [
        (Each(ScopeKind::Instrument), Limit::PriceCollar(dec("0.024"))),
        (One(Scope::Account(account(1))), Limit::PriceCollar(dec("0.012345678"))),
        (Each(ScopeKind::Venue), Limit::Spread(dec("0.00004"))),
        (One(Scope::Instrument(instrument(2))), Limit::ReferenceAge(secs(2))),
        (Each(ScopeKind::Strategy), Limit::OrderNotional(part(15))),
        (One(Scope::Strategy(strategy(1))), Limit::OrderNotional(money(2_400))),
        (Each(ScopeKind::Group), Limit::Gross(money(5_500))),
        (Each(ScopeKind::Venue), Limit::Gross(part(30))),
        (Each(ScopeKind::Strategy), Limit::Gross(money(7_000))),
        (Each(ScopeKind::Instrument), Limit::Gross(money(6_500))),
        (One(Scope::Account(account(1))), Limit::Gross(money(6_000))),
        (One(Scope::Firm), Limit::Net(money(6_000))),
        (Each(ScopeKind::Account), Limit::Net(part(45))),
        (Each(ScopeKind::Account), Limit::Leverage(dec("0.71"))),
        (Each(ScopeKind::Position), Limit::LongQty(dec("40.5"))),
        (Coverage::Position(account(0), instrument(2)), Limit::LongQty(dec("20000"))),
        (Each(ScopeKind::Instrument), Limit::ShortQty(dec("38"))),
        (Each(ScopeKind::Account), Limit::OpenPositions(2)),
        (One(Scope::Firm), Limit::WorkingOrders(6)),
        (Each(ScopeKind::Account), Limit::WorkingOrders(4)),
        (Each(ScopeKind::Strategy), Limit::WorkingOrders(5)),
        (Each(ScopeKind::Position), Limit::WorkingOrders(3)),
        (Each(ScopeKind::Instrument), Limit::QtyRate { max: dec("90000"), window: secs(5) }),
        (Each(ScopeKind::Account), Limit::NotionalRate { max: dec("9000"), window: secs(5) }),
        (One(Scope::Firm), Limit::MessageRate { max: 12, window: secs(2) }),
        (Each(ScopeKind::Account), Limit::Duplicates { window: secs(2) }),
    ];
    let rules = each_kind.into_iter().enumerate().map(|(n, (covers, limit))| rule(&format!("r{n}"), covers, limit));
    RiskLimits { rules: rules.collect(), ..limits() }
}

/// So wide that counts and windows are what refuses.
fn throttled() -> RiskLimits {
    use Coverage::{Each, One};
    let wide = Some(LimitValue::Amount(Decimal::from(1_000_000)));
    let secs = Duration::from_secs;
    let each_kind = [
        (One(Scope::Firm), Limit::WorkingOrders(4)),
        (Each(ScopeKind::Account), Limit::WorkingOrders(3)),
        (Each(ScopeKind::Strategy), Limit::WorkingOrders(3)),
        (Each(ScopeKind::Position), Limit::WorkingOrders(2)),
        (Each(ScopeKind::Account), Limit::OpenPositions(2)),
        (One(Scope::Instrument(instrument(0))), Limit::QtyRate { max: dec("60"), window: secs(5) }),
        (Each(ScopeKind::Account), Limit::NotionalRate { max: dec("14000"), window: secs(5) }),
        (One(Scope::Firm), Limit::MessageRate { max: 9, window: secs(2) }),
        (Each(ScopeKind::Strategy), Limit::MessageRate { max: 11, window: secs(5) }),
        (Each(ScopeKind::Account), Limit::Duplicates { window: secs(2) }),
    ];
    let each_kind = each_kind.into_iter().enumerate();
    let rules = each_kind.map(|(n, (covers, limit))| rule(&format!("r{n}"), covers, limit)).collect();
    RiskLimits {
        rules,
        exposure_account_max: wide,
        exposure_firm_max: wide,
        position_notional_max: wide,
        daily_loss_max: wide,
        drawdown_max: wide,
        open_positions_max: Some(5),
        mark_age_max: Some(secs(9_000_000)),
        reference_age_max: Some(secs(9_000_000)),
        ..limits()
    }
}

#[derive(Debug, Clone)]
enum Action {
    Order {
        account: usize,
        strategy: usize,
        instrument: usize,
        buy: bool,
        lots: u32,
        cents: i64,
        reduce: bool,
        halt: bool,
        market: bool,
    },
    Fill {
        which: usize,
        part: u32,
        cents: i64,
        is_last: bool,
        fee_in: usize,
    },
    End {
        which: usize,
    },
    Late {
        which: usize,
        lots: u32,
    },
    Quote {
        instrument: usize,
        cents: i64,
        wide: i64,
    },
    Wait {
        millis: u64,
    },
    Convert {
        rate: i64,
    },
}

fn action() -> impl Strategy<Value = Action> {
    let orders = (0usize..2, 0usize..2, 0usize..3, any::<bool>(), 0u32..40, -300i64..300, 0u32..4, 0u32..12, 0u32..4);
    prop_oneof![
        10 => orders.prop_map(|(account, strategy, instrument, buy, lots, cents, reduce, halt, market)| Action::Order {
            account, strategy, instrument, buy, lots, cents, reduce: reduce == 0, halt: halt == 0, market: market == 0,
        }),
        6 => (0usize..64, 1u32..130, -400i64..400, any::<bool>(), 0usize..4)
            .prop_map(|(which, part, cents, is_last, fee_in)| Action::Fill { which, part, cents, is_last, fee_in }),
        3 => (0usize..64).prop_map(|which| Action::End { which }),
        1 => (0usize..64, 1u32..9).prop_map(|(which, lots)| Action::Late { which, lots }),
        8 => (0usize..3, -900i64..900, 0i64..50).prop_map(|(instrument, cents, wide)| Action::Quote { instrument, cents, wide }),
        2 => (0u64..3_000).prop_map(|millis| Action::Wait { millis }),
        1 => Just(Action::Wait { millis: 40_000_000 }),
        1 => (9_000i64..12_000).prop_map(|rate| Action::Convert { rate }),
    ]
}

/// Around 100, 100 and 0.1: on the grid of the instrument, and now and then off it.
fn price(number: usize, cents: i64) -> Price {
    let value = match number {
        0 => Decimal::new(10_000 + cents, 2),
        1 => Decimal::new(10_000 + cents - cents % 5 + i64::from(cents == 7), 2),
        _ => Decimal::new(1_000 + cents, 4),
    };
    Price::new(value).unwrap()
}

/// Up to 40 of 100, so that a few orders reach the limits; one in forty is off the grid or nothing.
fn qty(number: usize, lots: u32) -> Qty {
    let lots = i64::from(lots);
    let value = match (number, lots) {
        (0, 13) => Decimal::new(100_005, 4),
        (0, _) => Decimal::new(lots * 1_333, 3),
        (1, 13) => Decimal::new(123_456_789_123, 10),
        (1, _) => Decimal::new(lots * 133_333_337, 8),
        _ => Decimal::from(lots * 1_371),
    };
    Qty::new(value).unwrap()
}

struct Live {
    order: Order,
    reservation: Reservation,
    ticket: Ticket,
    number: usize,
}

struct Run {
    world: World,
    live: Vec<Live>,
    over: Vec<Live>,
    approved: usize,
    refused: BTreeSet<&'static str>,
    next: usize,
}

impl Run {
    async fn order(&mut self, order: Order, number: usize, stance: Stance) {
        let by_engine = self.world.engine.check_and_reserve(order.clone(), stance, &|_| vec![]).await;
        let by_ledger = self.world.reserve(&order, stance);
        match (by_engine, by_ledger) {
            (Ok(approval), Ok(reserved)) => {
                assert_eq!(approval.order.qty, reserved.qty());
                assert_eq!(approval.reservation.effect(), reserved.effect());
                assert_eq!(approval.reservation.held(), reserved.held());
                self.approved += 1;
                let live = Live {
                    order: approval.order,
                    reservation: approval.reservation,
                    ticket: reserved.ticket(),
                    number,
                };
                self.live.push(live);
            }
            (Err(RiskError::Refused(engine)), Err(LocalError::Refused(ledger))) => {
                let codes = |decision: &Decision| -> BTreeSet<(&'static str, Scope)> {
                    decision.failures().map(|check| (check.code, check.scope.clone())).collect()
                };
                // What windows hold only the store knows, and it tells the first that is full; the ledger tells all.
                let (engine_codes, mut ledger_codes) = (codes(&engine), codes(&ledger));
                ledger_codes.retain(|found| !WINDOWS.contains(&found.0) || engine_codes.contains(found));
                let reasons = || format!("engine: {}\nledger: {}", engine.reason(), ledger.reason());
                assert_eq!(engine_codes, ledger_codes, "{}", reasons());
                let rules = |decision: &Decision| -> BTreeSet<Option<String>> {
                    let failed = decision.failures().filter(|check| !WINDOWS.contains(&check.code));
                    failed.map(|check| check.rule.as_ref().map(ToString::to_string)).collect()
                };
                assert_eq!(rules(&engine), rules(&ledger), "{}", reasons());
                self.refused.extend(ledger.failures().map(|check| check.code));
            }
            (engine, ledger) => panic!("{order:?}\nengine: {engine:?}\nledger: {ledger:?}"),
        }
    }

    async fn fill(&mut self, at: usize, fill: &Fill, is_last: bool) {
        let live = &mut self.live[at];
        let outcome = Outcome::Fill { fill, is_last };
        let settled = self.world.engine.settle(&live.order, &live.reservation, outcome, &|_| vec![]).await.unwrap();
        let local = self.world.local.fill(live.ticket, fill, is_last, self.world.now()).unwrap();
        assert_eq!((settled.realised, settled.fee, settled.overfilled), (local.realised, local.fee, local.overfilled));
        assert_eq!(settled.grew_by_reducing, local.grew_by_reducing);
        assert_eq!(
            (settled.reservation.remaining(), settled.reservation.is_closed()),
            (local.remaining, local.is_over)
        );
        live.reservation = settled.reservation;
        if local.is_over {
            let live = self.live.remove(at);
            self.over.push(live);
        }
    }

    async fn end(&mut self, at: usize) {
        let mut live = self.live.remove(at);
        let settled =
            self.world.engine.settle(&live.order, &live.reservation, Outcome::End, &|_| vec![]).await.unwrap();
        live.reservation = settled.reservation;
        assert!(self.world.local.end(live.ticket).unwrap().is_over);
        assert!(matches!(self.world.local.end(live.ticket), Err(LocalError::UnknownTicket)), "a ticket is good once");
        self.over.push(live);
    }

    async fn step(&mut self, action: Action) {
        match action {
            Action::Order { account: a, strategy: s, instrument: i, buy, lots, cents, reduce, halt, market } => {
                self.next += 1;
                let (id, side) =
                    (format!("o-{}", self.next).parse().unwrap(), if buy { Side::Buy } else { Side::Sell });
                let order =
                    Order::limit(id, account(a), strategy(s), instrument(i), side, qty(i, lots), price(i, cents));
                // What a market order names is far from the market on either side in one of three.
                let kind = match cents % 3 {
                    _ if !market => order.kind,
                    0 => OrderKind::Market { worst: price(i, if buy { -900 } else { 900 }) },
                    _ => OrderKind::Market { worst: order.kind.price() },
                };
                let order = Order { kind, ..order };
                let order = if reduce { order.reduce_only() } else { order };
                self.order(order, i, if halt { Stance::ReduceOnly } else { Stance::Open }).await;
            }
            Action::Fill { which, part, cents, is_last, fee_in } if !self.live.is_empty() => {
                let at = which % self.live.len();
                let (number, whole) = (self.live[at].number, self.live[at].order.qty.get());
                // Up to 130 %: venues fill more than was asked, too.
                let part = (whole * Decimal::new(i64::from(part), 2)).round_dp(8).max(dec("0.00000001"));
                // Parts of a whole lot the engine counts in its own way, as a whole one.
                let part = if number == 2 { part.ceil() } else { part };
                let fee = Money::new(dec("0.013"), ["USD", "EUR", "BTC", "XXX"][fee_in].parse().unwrap());
                let fill = Fill { qty: Qty::new(part).unwrap(), price: price(number, cents), fee, is_maker: false };
                self.fill(at, &fill, is_last).await;
            }
            Action::End { which } if !self.live.is_empty() => self.end(which % self.live.len()).await,
            Action::Late { which, lots } if !self.over.is_empty() => {
                let at = which % self.over.len();
                let late = &mut self.over[at];
                let fill = Fill {
                    qty: qty(late.number, lots),
                    price: price(late.number, 0),
                    fee: Money::new(Decimal::ZERO, "USD".parse().unwrap()),
                    is_maker: true,
                };
                let outcome = Outcome::Fill { fill: &fill, is_last: false };
                let (engine, order) = (&self.world.engine, &late.order);
                let settled = engine.settle(order, &late.reservation, outcome, &|_| vec![]).await.unwrap();
                late.reservation = settled.reservation;
                let route = self.world.local.route(&order.account, &order.strategy, &order.instrument).unwrap();
                let local = self.world.local.book(route, order.side, &fill, self.world.now()).unwrap();
                assert_eq!((settled.realised, settled.overfilled), (local.realised, local.overfilled));
            }
            Action::Quote { instrument: i, cents, wide } => {
                let (bid, half) = (price(i, cents).get(), Decimal::new(wide, 4));
                self.world.quote(i, bid, bid + half);
            }
            Action::Wait { millis } => self.world.clock.advance(Duration::from_millis(millis)),
            Action::Convert { rate } => self.world.convert(&Decimal::new(rate, 4).to_string()),
            _ => {}
        }
    }

    /// Every counter of one is in the other.
    async fn compare(&self) {
        // The engine takes note of rates and of the day when it next meets the account, the ledger at once.
        self.world.engine.checkpoint().await.unwrap();
        self.world.local.observe(self.world.now());
        let engine: BTreeMap<String, Decimal> = self.world.engine.used().await.unwrap().into_iter().collect();
        let engine: BTreeMap<String, Decimal> = engine.into_iter().filter(|(_, used)| !used.is_zero()).collect();
        assert_eq!(engine, counters(&self.world.local));
        for a in 0..2 {
            assert_eq!(self.world.engine.account(&account(a)), self.world.local.account(&account(a)));
            for i in 0..3 {
                let by_engine = self.world.engine.position(&account(a), &instrument(i));
                assert_eq!(by_engine, self.world.local.position(&account(a), &instrument(i)));
            }
        }
        assert_eq!(self.world.local.working(), self.live.len());
    }
}

/// The ledger's counters under the names that the engine gives them.
fn counters(local: &LocalLedger) -> BTreeMap<String, Decimal> {
    use tally::Name;
    let book = local.book.lock();
    let mut found = BTreeMap::new();
    for cell in &book.cells {
        let (place, kinds): (String, &[Metric]) = match &cell.name {
            Name::NoGroup => continue,
            Name::Firm => (
                "firm".into(),
                &[Metric::Gross, Metric::NetLong, Metric::NetShort, Metric::WorkingOrders, Metric::Slots],
            ),
            Name::Group(id) => (format!("group/{id}"), &[Metric::Gross, Metric::NetLong, Metric::NetShort]),
            Name::Venue(id) => (format!("venue/{id}"), &[Metric::Gross]),
            Name::Strategy(id) => (format!("strategy/{id}"), &[Metric::Gross, Metric::WorkingOrders]),
            Name::Instrument(id) => (format!("instrument/{id}"), &[Metric::Gross, Metric::LongQty, Metric::ShortQty]),
            Name::Account(id) => (
                format!("account/{id}"),
                &[Metric::Gross, Metric::NetLong, Metric::NetShort, Metric::WorkingOrders, Metric::Slots],
            ),
            Name::Position(account, id) => (
                format!("position/{account}/{id}"),
                &[Metric::Gross, Metric::LongQty, Metric::ShortQty, Metric::WorkingOrders],
            ),
        };
        let whole = match &cell.name {
            Name::Instrument(id) | Name::Position(_, id) => *id == instrument(2),
            _ => false,
        };
        for metric in kinds {
            let word = match metric {
                Metric::Gross => "exposure",
                Metric::NetLong => "net_long",
                Metric::NetShort => "net_short",
                Metric::LongQty if whole => "long_whole",
                Metric::LongQty => "long",
                Metric::ShortQty if whole => "short_whole",
                Metric::ShortQty => "short",
                Metric::WorkingOrders => "orders",
                _ => "positions",
            };
            found.insert(format!("risk/used/{word}/{place}"), metric.figure(cell.used.get(*metric)));
        }
    }
    for pair in &book.pairs {
        let (account, id) = (&book.accounts[pair.account].state.id, &book.instruments[pair.instrument].spec.id);
        found.insert(format!("risk/used/reducing/position/{account}/{id}"), Metric::Reducing.figure(pair.reducing));
    }
    found.retain(|_, used| !used.is_zero());
    found
}

async fn run(limits: RiskLimits, actions: Vec<Action>) -> (usize, BTreeSet<&'static str>) {
    let world = World::new(limits).await;
    for i in 0..3 {
        world.quote(i, price(i, 0).get(), price(i, 0).get());
    }
    let mut run = Run { world, live: Vec::new(), over: Vec::new(), approved: 0, refused: BTreeSet::new(), next: 0 };
    for action in actions {
        run.step(action).await;
        run.compare().await;
    }
    while !run.live.is_empty() {
        run.end(0).await;
    }
    run.compare().await;
    (run.approved, run.refused)
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn decides_and_counts_as_the_shared_engine(actions in prop::collection::vec(action(), 1..90)) {
        block_on(run(limits(), actions));
    }

    #[test]
    fn a_firm_limit_that_follows_equity_decides_alike(actions in prop::collection::vec(action(), 1..60)) {
        let part = Some(LimitValue::OfEquity(dec("0.6")));
        block_on(run(RiskLimits { exposure_firm_max: part, ..limits() }, actions));
    }

    #[test]
    fn rules_of_every_kind_decide_alike(actions in prop::collection::vec(action(), 1..90)) {
        block_on(run(ruled(), actions));
    }

    #[test]
    fn counts_and_windows_decide_alike(actions in prop::collection::vec(action(), 1..90)) {
        block_on(run(throttled(), actions));
    }

    #[test]
    fn an_unset_limit_refuses_alike(which in 0usize..11, actions in prop::collection::vec(action(), 1..12)) {
        let mut limits = limits();
        match which {
            0 => limits.firm_currency = None,
            1 => limits.reference_age_max = None,
            2 => (limits.order_qty_max, limits.order_qty_max_of) = (None, Default::default()),
            3 => limits.order_notional_max = None,
            4 => limits.exposure_account_max = None,
            5 => limits.exposure_firm_max = None,
            6 => limits.position_notional_max = None,
            7 => limits.open_positions_max = None,
            8 => limits.daily_loss_max = None,
            9 => limits.drawdown_max = None,
            _ => limits.firm_currency = Some("CHF".parse().unwrap()),
        }
        block_on(run(limits, actions));
    }
}

/// The runs above meet what they are there for: without this they could pass by refusing everything.
#[test]
fn the_runs_reach_the_limits() {
    use proptest::{strategy::ValueTree, test_runner::TestRunner};
    let mut runner = TestRunner::deterministic();
    let (mut approved, mut refused) = (0, BTreeSet::new());
    for turn in 0..36 {
        let actions = prop::collection::vec(action(), 180).new_tree(&mut runner).unwrap().current();
        let (more, codes) = block_on(run([limits, ruled, throttled][turn % 3](), actions));
        approved += more;
        refused.extend(codes);
    }
    assert!(approved > 200, "{approved} approved");
    for code in [
        code::SPEC_LOT,
        code::SPEC_QTY,
        code::SPEC_TICK,
        code::ORDER_NOTIONAL,
        code::EXPOSURE_ACCOUNT,
        code::EXPOSURE_FIRM,
        code::POSITION_NOTIONAL,
        code::MAX_POSITIONS,
        code::DAILY_LOSS,
        code::DRAWDOWN,
        code::STALE_REFERENCE_PRICE,
        code::WOULD_FLIP,
        code::NOTHING_TO_REDUCE,
        code::NOT_REDUCING_IN_HALT,
        code::PRICE_COLLAR,
        code::SPREAD,
        code::EXPOSURE_GROUP,
        code::EXPOSURE_VENUE,
        code::EXPOSURE_STRATEGY,
        code::EXPOSURE_INSTRUMENT,
        code::NET_LONG,
        code::NET_SHORT,
        code::LEVERAGE,
        code::LONG_QTY,
        code::SHORT_QTY,
        code::WORKING_ORDERS,
        code::QTY_RATE,
        code::NOTIONAL_RATE,
        code::MESSAGE_RATE,
    ] {
        assert!(refused.contains(code), "{code} in {refused:?}");
    }
}
