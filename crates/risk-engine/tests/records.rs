//! Decisions, events, history and requests over real stores.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

#[path = "../examples/prove_decisions/world.rs"]
mod world;

use std::{sync::Arc, time::Duration};

use infra_risk_engine::{
    HistoryRange, Outcome, PortfolioHistory, PositionAsk, PositionWorkflow, Quote, RequestFilter, RequestState,
    RiskEngine, RiskError, RiskEvent, RiskEventFilter, RiskEventKind, RiskEvents, RiskLimits, ScopeMetrics, Stance,
    WorkflowConfig, replay,
};
use infra_state_store::{MemoryStateStore, StateStore};
use infra_types::{
    AccountId, Clock, Decimal, EventId, Fill, InstrumentId, InstrumentSpec, ManualClock, Money, Namespace, Order,
    Scope, Side,
};

use self::world::{Counts, World};

/// Five thousand decisions each: together ten thousand.
#[tokio::test]
async fn decisions_come_out_the_same() {
    five_thousand(7).await;
}

#[tokio::test]
async fn decisions_of_another_seed_come_out_the_same() {
    five_thousand(8).await;
}

async fn five_thousand(seed: u64) {
    let mut world = World::new(seed, Vec::new()).await.unwrap();
    world.run(5_000, &mut |_| {}).await.unwrap();
    let counts = world.counts;
    let log = world.recorder.finish().unwrap();
    let report = replay(log.as_slice(), &mut |_| {}).await.unwrap();
    assert_eq!((report.different, report.differences), (0, vec![]));
    let (decisions, approved, settled) = (report.decisions, report.approved, report.settled);
    let again = Counts { decisions, approved, settled, ..counts };
    assert_eq!(again, counts);
    assert!(report.is_whole && report.interrupted == 0);
    // The dice must have made both kinds of decision, or nothing was proven.
    assert!(counts.approved > 1_000 && counts.decisions - counts.approved > 1_000, "{counts:?}");
    assert!(counts.let_through > 10, "{counts:?}");
}

fn dec(text: &str) -> Decimal {
    text.parse().unwrap()
}

fn namespace() -> Namespace {
    Namespace::new("ledger").unwrap()
}

fn limits() -> RiskLimits {
    let amount = |v: &str| Some(infra_risk_engine::LimitValue::Amount(dec(v)));
    RiskLimits {
        firm_currency: Some("USDT".parse().unwrap()),
        reference_age_max: Some(Duration::from_secs(5)),
        order_qty_max: Some(dec("1000")),
        order_notional_max: Some(dec("5000")),
        exposure_account_max: amount("10000"),
        exposure_firm_max: amount("20000"),
        position_notional_max: amount("10000"),
        open_positions_max: Some(50),
        daily_loss_max: amount("5000"),
        drawdown_max: amount("5000"),
        groups: [("a", "g"), ("b", "g")].map(|(a, g)| (a.parse().unwrap(), g.parse().unwrap())).into(),
        ..RiskLimits::default()
    }
}

fn instrument(name: &str) -> InstrumentId {
    format!("v/{name}").parse().unwrap()
}

/// Two accounts of 10,000 in one group, one outside, two instruments at 100.
async fn engine(store: Arc<dyn StateStore>, clock: &ManualClock) -> RiskEngine {
    let engine = RiskEngine::new(store, namespace(), Arc::new(clock.clone()), limits()).unwrap();
    engine.restore().await.unwrap();
    for account in ["a", "b", "c"] {
        engine.open_account(account.parse().unwrap(), "USDT".parse().unwrap(), dec("10000")).await.unwrap();
    }
    for name in ["BTCUSDT", "ETHUSDT"] {
        let spec = InstrumentSpec {
            id: instrument(name),
            base: name[..3].parse().unwrap(),
            quote: "USDT".parse().unwrap(),
            tick_size: dec("0.01"),
            lot_size: dec("0.001"),
            qty_min: "0.001".parse().unwrap(),
            qty_max: "100000".parse().unwrap(),
            notional_min: dec("0.01"),
            maker_fee_rate: dec("0.001"),
            taker_fee_rate: dec("0.001"),
        };
        engine.register_instrument(spec).unwrap();
        quote(&engine, clock, name, "100");
    }
    engine
}

fn quote(engine: &RiskEngine, clock: &ManualClock, name: &str, price: &str) {
    let price = price.parse().unwrap();
    engine.update_market(&instrument(name), Quote { bid: price, ask: price, at: clock.wall() }).unwrap();
}

fn order(id: &str, account: &str, strategy: &str, name: &str, side: Side, qty: &str) -> Order {
    Order::limit(
        id.parse().unwrap(),
        account.parse().unwrap(),
        strategy.parse().unwrap(),
        instrument(name),
        side,
        qty.parse().unwrap(),
        "100".parse().unwrap(),
    )
}

async fn trade(engine: &RiskEngine, order: Order) {
    let approval = engine.check_and_reserve(order, Stance::Open, &|_| vec![]).await.unwrap();
    let fill = Fill {
        qty: approval.order.qty,
        price: approval.order.kind.price(),
        fee: Money::new(dec("1"), "USDT".parse().unwrap()),
        is_maker: true,
    };
    let outcome = Outcome::Fill { fill: &fill, is_last: true };
    engine.settle(&approval.order, &approval.reservation, outcome, &|_| vec![]).await.unwrap();
}

#[tokio::test]
async fn accounts_groups_strategies_and_the_firm_have_figures() {
    let clock = ManualClock::default();
    let engine = engine(Arc::new(MemoryStateStore::new(Arc::new(clock.clone()))), &clock).await;
    trade(&engine, order("1", "a", "s", "BTCUSDT", Side::Buy, "30")).await;
    trade(&engine, order("2", "b", "s", "ETHUSDT", Side::Sell, "10")).await;
    trade(&engine, order("3", "c", "t", "ETHUSDT", Side::Buy, "5")).await;
    quote(&engine, &clock, "BTCUSDT", "90");
    let figures = |m: &ScopeMetrics| (m.accounts, m.gross, m.net, m.unrealised, m.daily_pnl);
    let a: AccountId = "a".parse().unwrap();
    let of_account = engine.account_metrics(&a).unwrap();
    assert_eq!(figures(&of_account), (1, dec("3000"), dec("3000"), dec("-300"), dec("-301")));
    assert_eq!((of_account.equity, of_account.drawdown), (Some(dec("9699")), Some(dec("301"))));
    let group = engine.group_metrics(&"g".parse().unwrap()).unwrap();
    assert_eq!(figures(&group), (2, dec("4000"), dec("2000"), dec("-300"), dec("-302")));
    assert_eq!((group.largest, group.herfindahl), (Some(instrument("BTCUSDT")), Some(dec("0.625"))));
    let strategy = engine.strategy_metrics(&"s".parse().unwrap()).unwrap();
    assert_eq!((strategy.gross, strategy.net, strategy.daily_pnl), (dec("4000"), dec("2000"), dec("-302")));
    assert_eq!((strategy.equity, strategy.drawdown, strategy.wins), (None, Some(dec("302")), Some(0)));
    trade(&engine, order("4", "b", "s", "ETHUSDT", Side::Buy, "10")).await;
    let strategy = engine.strategy_metrics(&"s".parse().unwrap()).unwrap();
    assert_eq!((strategy.wins, strategy.losses, strategy.win_rate), (Some(0), Some(1), Some(dec("0"))));
    assert_eq!((strategy.gross, strategy.profit_factor), (dec("3000"), Some(dec("0"))));
    trade(&engine, order("5", "b", "s", "ETHUSDT", Side::Sell, "10")).await;
    let firm = engine.firm_metrics().unwrap();
    assert_eq!(figures(&firm), (3, dec("4500"), dec("2500"), dec("-300"), dec("-305")));
    let sums = engine.calculate_portfolio_metrics();
    assert_eq!((sums.exposure, sums.daily_pnl, Some(sums.equity)), (firm.gross, firm.daily_pnl, firm.equity));
    assert!(engine.group_metrics(&"nobody".parse().unwrap()).is_none());
    assert!(engine.account_metrics(&"nobody".parse().unwrap()).is_none());
    assert!(engine.strategy_metrics(&"never".parse().unwrap()).is_none());
}

/// Events ride in the engine's batches, a request is used up by an order, samples are kept: the same on every store.
async fn everything_is_kept(store: Arc<dyn StateStore>) {
    let clock = ManualClock::default();
    let engine = engine(store.clone(), &clock).await;
    let events = RiskEvents::new(store.clone(), namespace()).unwrap();
    let workflow = |store: &Arc<dyn StateStore>| {
        let clock = Arc::new(clock.clone());
        PositionWorkflow::new(store.clone(), namespace(), clock, WorkflowConfig::default()).unwrap()
    };
    let (workflow, other) = (workflow(&store), workflow(&store));
    let ask = PositionAsk {
        id: EventId::new("ask").unwrap(),
        account: "a".parse().unwrap(),
        instrument: instrument("BTCUSDT"),
        side: Side::Buy,
        size: "20".parse().unwrap(),
        reason: "a hedge".into(),
        by: "ada".parse().unwrap(),
        expires_at: clock.wall().saturating_add(Duration::from_secs(60)),
    };
    let id = workflow.request(ask, &|_| vec![]).await.unwrap().ask.id;
    other.approve(&id, &"bob".parse().unwrap(), "fine", &|_| vec![]).await.unwrap();

    // An order that a limit refuses uses nothing up.
    let wish = order("1", "a", "s", "BTCUSDT", Side::Buy, "20");
    let grant = workflow.grant(&id, &wish, &|_| vec![]).await.unwrap();
    clock.advance(Duration::from_secs(6));
    let stale = engine.check_and_reserve(wish.clone(), Stance::Open, &|_| grant.ops()).await;
    assert!(matches!(stale, Err(RiskError::Refused(_))), "{stale:?}");
    quote(&engine, &clock, "BTCUSDT", "100");
    engine.check_and_reserve(wish, Stance::Open, &|_| grant.ops()).await.unwrap();

    // Another order with the same grant is refused, and nothing of it is reserved.
    let second = order("2", "a", "s", "BTCUSDT", Side::Buy, "20");
    let twice = engine.check_and_reserve(second, Stance::Open, &|_| grant.ops()).await;
    assert!(matches!(twice, Err(RiskError::Caller { .. })), "{twice:?}");
    let used = engine.used().await.unwrap();
    assert!(used.iter().any(|(_, v)| *v == dec("2000")) && used.iter().all(|(_, v)| *v < dec("4000")), "{used:?}");
    let over =
        other.list(&RequestFilter { states: vec![RequestState::Used], ..RequestFilter::default() }).await.unwrap();
    assert_eq!(over[0].used_by, Some("1".parse().unwrap()));

    // An event in the batch of an approval.
    let third = order("3", "b", "s", "ETHUSDT", Side::Buy, "1");
    quote(&engine, &clock, "ETHUSDT", "100");
    let warning = RiskEvent::new(clock.wall(), RiskEventKind::Warning, Scope::Firm, "near").about(&third);
    let op = events.op(&warning).unwrap();
    engine.check_and_reserve(third, Stance::Open, &|_| vec![op.clone()]).await.unwrap();
    let page = events.query(&RiskEventFilter::default()).await.unwrap();
    let kinds: Vec<_> = page.events.iter().map(|e| e.kind).collect();
    use RiskEventKind::{PositionApproved, PositionRequested, PositionUsed, Warning};
    assert_eq!(kinds, [Warning, PositionUsed, PositionApproved, PositionRequested]);
    assert_eq!(page.events[0], warning);

    let history = PortfolioHistory::new(store, namespace(), Duration::from_secs(60), 100).unwrap();
    for _ in 0..3 {
        let accounts = ["a", "b"].map(|id| engine.account_metrics(&id.parse().unwrap()).unwrap());
        let all: Vec<_> = accounts.into_iter().chain(engine.firm_metrics()).collect();
        assert!(history.record(clock.wall(), &all).await.unwrap());
        assert!(!history.record(clock.wall(), &all).await.unwrap());
        clock.advance(Duration::from_secs(60));
    }
    for scope in [Scope::Firm, Scope::Account("a".parse().unwrap())] {
        let samples = history.read(&scope, &HistoryRange::default()).await.unwrap();
        assert_eq!((samples.len(), &samples[0].metrics.scope), (3, &scope));
    }
}

#[tokio::test]
async fn everything_is_kept_in_memory() {
    everything_is_kept(Arc::new(MemoryStateStore::new(Arc::new(ManualClock::default())))).await;
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn everything_is_kept_in_sqlite() {
    let dir = infra_testkit::TestDir::new();
    let config = infra_backends::SqliteConfig::new(dir.file("ledger.db"));
    let store = infra_state_store::SqliteStateStore::open(config, Arc::new(ManualClock::default()));
    everything_is_kept(Arc::new(store)).await;
}
