//! One account with 10,000, an instrument at 100, and engines that have names.

use std::{sync::Arc, time::Duration};

use infra_risk_engine::{
    Approval, HeldOrder, HolderConfig, LimitValue, Outcome, Quote, RiskEngine, RiskError, RiskLimits, Settled, Stance,
};
use infra_state_store::{MemoryStateStore, StateStore};
use infra_types::{
    AccountId, Clock, Decimal, Fill, InstrumentId, InstrumentSpec, ManualClock, Money, Namespace, Order, OrderId, Side,
};

pub(crate) const TTL: Duration = Duration::from_secs(10);

pub(crate) fn dec(text: &str) -> Decimal {
    text.parse().unwrap()
}

pub(crate) fn account() -> AccountId {
    "main".parse().unwrap()
}

pub(crate) fn btc() -> InstrumentId {
    "v/BTCUSDT".parse().unwrap()
}

pub(crate) fn id(text: &str) -> OrderId {
    text.parse().unwrap()
}

fn spec() -> InstrumentSpec {
    InstrumentSpec {
        id: btc(),
        base: "BTC".parse().unwrap(),
        quote: "USDT".parse().unwrap(),
        tick_size: dec("0.01"),
        lot_size: dec("0.001"),
        qty_min: "0.001".parse().unwrap(),
        qty_max: "100000".parse().unwrap(),
        notional_min: dec("0.01"),
        maker_fee_rate: dec("0.001"),
        taker_fee_rate: dec("0.001"),
    }
}

fn limits() -> RiskLimits {
    RiskLimits {
        firm_currency: Some("USDT".parse().unwrap()),
        reference_age_max: Some(Duration::from_secs(3_600)),
        order_qty_max: Some(dec("1000")),
        order_notional_max: Some(dec("5000")),
        exposure_account_max: Some(LimitValue::Amount(dec("10000"))),
        exposure_firm_max: Some(LimitValue::Amount(dec("10000"))),
        position_notional_max: Some(LimitValue::Amount(dec("10000"))),
        open_positions_max: Some(50),
        daily_loss_max: Some(LimitValue::OfEquity(dec("0.5"))),
        drawdown_max: Some(LimitValue::OfEquity(dec("0.5"))),
        ..RiskLimits::default()
    }
}

pub(crate) struct World {
    pub(crate) clock: ManualClock,
    pub(crate) store: Arc<dyn StateStore>,
}

impl World {
    pub(crate) fn new() -> Self {
        let clock = ManualClock::default();
        let store = Arc::new(MemoryStateStore::new(Arc::new(clock.clone())));
        Self { clock, store }
    }

    /// An engine without a name.
    pub(crate) async fn nameless(&self) -> RiskEngine {
        let clock = Arc::new(self.clock.clone());
        let engine = RiskEngine::new(self.store.clone(), Namespace::new("ledger").unwrap(), clock, limits()).unwrap();
        self.set_up(engine).await
    }

    async fn set_up(&self, engine: RiskEngine) -> RiskEngine {
        engine.restore().await.unwrap();
        engine.open_account(account(), "USDT".parse().unwrap(), dec("10000")).await.unwrap();
        engine.register_instrument(spec()).unwrap();
        let price = "100".parse().unwrap();
        engine.update_market(&btc(), Quote { bid: price, ask: price, at: self.clock.wall() }).unwrap();
        engine
    }

    /// An engine that has not joined yet.
    pub(crate) async fn named(&self, config: HolderConfig) -> RiskEngine {
        self.nameless().await.with_holder(config).unwrap()
    }

    /// An engine that has its name.
    pub(crate) async fn joined(&self, name: &str) -> RiskEngine {
        let engine = self.named(config(name)).await;
        engine.join().await.unwrap();
        engine
    }

    pub(crate) fn pass(&self, time: Duration) {
        self.clock.advance(time);
    }
}

pub(crate) fn config(name: &str) -> HolderConfig {
    HolderConfig::new(name.parse().unwrap()).with_ttl(TTL)
}

pub(crate) fn order(id: &str, side: Side, qty: &str) -> Order {
    let (strategy, price) = ("s".parse().unwrap(), "100".parse().unwrap());
    Order::limit(id.parse().unwrap(), account(), strategy, btc(), side, qty.parse().unwrap(), price)
}

pub(crate) async fn try_buy(engine: &RiskEngine, id: &str, qty: &str) -> Result<Approval, RiskError> {
    engine.check_and_reserve(order(id, Side::Buy, qty), Stance::Open, &|_| vec![]).await
}

pub(crate) async fn buy(engine: &RiskEngine, id: &str, qty: &str) -> Approval {
    try_buy(engine, id, qty).await.unwrap()
}

pub(crate) fn fill(qty: &str, price: &str) -> Fill {
    let fee = Money::new(dec("0.1"), "USDT".parse().unwrap());
    Fill { qty: qty.parse().unwrap(), price: price.parse().unwrap(), fee, is_maker: false }
}

pub(crate) async fn settle(engine: &RiskEngine, of: &mut Approval, outcome: Outcome<'_>) -> Result<Settled, RiskError> {
    let settled = engine.settle(&of.order, &of.reservation, outcome, &|_| vec![]).await?;
    of.reservation = settled.reservation.clone();
    Ok(settled)
}

pub(crate) async fn filled(engine: &RiskEngine, of: &mut Approval, fill: &Fill) -> Settled {
    settle(engine, of, Outcome::Fill { fill, is_last: false }).await.unwrap()
}

pub(crate) async fn held(engine: &RiskEngine, order: &str) -> Option<HeldOrder> {
    engine.held_order(&account(), &id(order)).await.unwrap()
}

/// What counts against the firm's limit.
pub(crate) async fn exposure(engine: &RiskEngine) -> Decimal {
    figure(engine, "risk/used/exposure/firm").await
}

pub(crate) async fn figure(engine: &RiskEngine, name: &str) -> Decimal {
    let used = engine.used().await.unwrap();
    used.into_iter().find(|(key, _)| key == name).map_or(Decimal::ZERO, |(_, figure)| figure)
}

pub(crate) async fn assert_nothing_used(engine: &RiskEngine) {
    let used = engine.used().await.unwrap();
    assert!(used.iter().all(|(_, figure)| figure.is_zero()), "{used:?}");
    assert_eq!(engine.held_orders(None).await.unwrap(), vec![]);
}

pub(crate) fn ids(orders: &[HeldOrder]) -> Vec<String> {
    orders.iter().map(|held| held.order.id.to_string()).collect()
}
