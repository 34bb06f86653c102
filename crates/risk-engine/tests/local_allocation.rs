//! An approval of the ledger in the process allocates nothing, whichever rules are set, and neither does its end.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::{sync::Arc, time::Duration};

use infra_risk_engine::{
    Coverage, Limit, LimitValue, LocalLedger, LocalSizes, Mode, Moment, Quote, RiskEngine, RiskLimits, Rule, ScopeKind,
    Stance,
};
use infra_state_store::MemoryStateStore;
use infra_types::{AccountId, Decimal, InstrumentSpec, ManualClock, Namespace, Order, Side};

fn limits() -> RiskLimits {
    let wide = Some(LimitValue::OfEquity(Decimal::from(10)));
    let rules = [
        (ScopeKind::Instrument, Limit::PriceCollar(Decimal::new(5, 2))),
        (ScopeKind::Account, Limit::Duplicates { window: Duration::from_secs(1) }),
        (ScopeKind::Account, Limit::MessageRate { max: 1_000_000, window: Duration::from_secs(1) }),
        (ScopeKind::Strategy, Limit::WorkingOrders(1_000)),
    ];
    let rule = |(n, (kind, limit)): (usize, (ScopeKind, Limit))| Rule {
        id: format!("r{n}"),
        covers: Coverage::Each(kind),
        limit,
        warn_at: None,
        mode: Mode::Enforce,
    };
    RiskLimits {
        firm_currency: Some("CHF".parse().unwrap()),
        reference_age_max: Some(Duration::from_secs(60)),
        order_qty_max: Some(Decimal::from(100)),
        order_notional_max: Some(Decimal::from(5_000)),
        exposure_account_max: wide,
        exposure_firm_max: wide,
        position_notional_max: wide,
        open_positions_max: Some(50),
        daily_loss_max: Some(LimitValue::OfEquity(Decimal::new(5, 2))),
        drawdown_max: Some(LimitValue::OfEquity(Decimal::new(20, 2))),
        rules: rules.into_iter().enumerate().map(rule).collect(),
        ..RiskLimits::default()
    }
}

fn spec() -> InstrumentSpec {
    InstrumentSpec {
        id: "v/BTCUSD".parse().unwrap(),
        base: "BTC".parse().unwrap(),
        quote: "USD".parse().unwrap(),
        tick_size: Decimal::new(1, 2),
        lot_size: Decimal::new(1, 3),
        qty_min: "0.001".parse().unwrap(),
        qty_max: "1000".parse().unwrap(),
        notional_min: Decimal::ONE,
        maker_fee_rate: Decimal::ZERO,
        taker_fee_rate: Decimal::ZERO,
    }
}

#[tokio::test]
async fn an_approval_and_its_end_allocate_nothing() {
    let clock = ManualClock::default();
    let store = Arc::new(MemoryStateStore::new(Arc::new(clock.clone())));
    let namespace = Namespace::new("ledger").unwrap();
    let engine = RiskEngine::new(store, namespace, Arc::new(clock.clone()), RiskLimits::default()).unwrap();
    let account: AccountId = "main".parse().unwrap();
    engine.open_account(account.clone(), "USD".parse().unwrap(), Decimal::from(10_000)).await.unwrap();

    let now = Moment::of(&clock);
    let ledger = LocalLedger::new(limits(), LocalSizes::default(), now).unwrap();
    ledger.open_account(engine.account(&account).unwrap()).unwrap();
    ledger.register_instrument(spec()).unwrap();
    let price = "100".parse().unwrap();
    ledger.update_market(&spec().id, Quote { bid: price, ask: price, at: now.wall }, now).unwrap();
    let strategy = "s".parse().unwrap();
    let route = ledger.route(&account, &strategy, &spec().id).unwrap();
    // With a rate as well as without: the amounts take another way.
    for rate in [Decimal::ONE, Decimal::new(9_123, 4)] {
        ledger.set_conversion("USD".parse().unwrap(), "CHF".parse().unwrap(), rate).unwrap();
        let orders: Vec<Order> = (101..=300_u32)
            .map(|n| {
                let qty = format!("0.{n:03}").parse().unwrap();
                let price = if rate == Decimal::ONE { "99.5" } else { "100.01" }.parse().unwrap();
                let (id, instrument) = (format!("o-{n}").parse().unwrap(), spec().id);
                Order::limit(id, account.clone(), strategy.clone(), instrument, Side::Buy, qty, price)
            })
            .collect();
        let used = allocation_counter::measure(|| {
            for order in &orders {
                let reserved = ledger.check_and_reserve(route, order, Stance::Open, now);
                let Ok(reserved) = reserved else { panic!("within every limit: {reserved:?}") };
                assert!(ledger.end(reserved.ticket()).is_ok());
            }
        });
        assert_eq!(used.count_total, 0, "{used:?}");
    }
    assert!(ledger.is_idle());
}
