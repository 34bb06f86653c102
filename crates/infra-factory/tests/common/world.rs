//! A gate with everything around it, on a store that outlives it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use infra_factory::{
    AuditRow,
    emergency::EmergencyController,
    gate::{Approved, GateConfig, GateError, GateParts, OrderGate, Placed, Reported},
    latency_monitor::{LatencyMonitor, MemoryLatencyMonitor},
    risk_engine::{LimitValue, Quote, RiskEngine, RiskLimits},
    state_store::{Key, MemoryStateStore, StateStore},
    types::{
        Clock, Decimal, Execution, InstrumentSpec, ManualClock, Monotonic, Namespace, Order, OrderStatus, Side,
        Timestamp,
    },
};

use super::{Venue, store::FaultyStore};

/// Time moves when it is told to, and whoever sleeps moves it.
#[derive(Debug, Clone)]
struct SleepMoves(ManualClock);

impl Clock for SleepMoves {
    fn now(&self) -> Monotonic {
        self.0.now()
    }

    fn wall(&self) -> Timestamp {
        self.0.wall()
    }

    fn sleep_until(&self, deadline: Monotonic) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> {
        self.0.advance(deadline.since(self.0.now()));
        self.0.sleep_until(deadline)
    }
}

pub(crate) fn dec(text: &str) -> Decimal {
    text.parse().unwrap()
}

pub(crate) fn spec() -> InstrumentSpec {
    InstrumentSpec {
        id: "sim/BTCUSDT".parse().unwrap(),
        base: "BTC".parse().unwrap(),
        quote: "USDT".parse().unwrap(),
        tick_size: dec("0.01"),
        lot_size: dec("0.001"),
        qty_min: "0.001".parse().unwrap(),
        qty_max: "1000".parse().unwrap(),
        notional_min: dec("1"),
        maker_fee_rate: Decimal::ZERO,
        taker_fee_rate: Decimal::ZERO,
    }
}

pub(crate) fn limits() -> RiskLimits {
    let amount = |text| Some(LimitValue::Amount(dec(text)));
    RiskLimits {
        firm_currency: Some("USDT".parse().unwrap()),
        reference_age_max: Some(Duration::from_secs(60)),
        order_qty_max: Some(dec("100")),
        order_notional_max: Some(dec("5000")),
        exposure_account_max: amount("10000"),
        exposure_firm_max: amount("10000"),
        position_notional_max: amount("10000"),
        open_positions_max: Some(10),
        daily_loss_max: amount("500"),
        drawdown_max: amount("5000"),
        ..RiskLimits::default()
    }
}

/// The gate's defaults; a sleeping clock makes its pauses instant.
pub(crate) fn patient_gate() -> GateConfig {
    GateConfig::default()
}

pub(crate) fn order(id: &str, side: Side, qty: &str, price: &str) -> Order {
    let (account, strategy) = ("main".parse().unwrap(), "test".parse().unwrap());
    Order::limit(id.parse().unwrap(), account, strategy, spec().id, side, qty.parse().unwrap(), price.parse().unwrap())
}

pub(crate) struct World {
    /// Moves decisions, quotes and the kill switch's lease alike.
    pub(crate) clock: ManualClock,
    pub(crate) store: Arc<FaultyStore>,
    pub(crate) namespace: Namespace,
    pub(crate) risk: Arc<RiskEngine>,
    pub(crate) emergency: Arc<EmergencyController>,
    pub(crate) gate: Arc<OrderGate>,
    limits: RiskLimits,
    config: GateConfig,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(limits(), patient_gate()).await
    }

    pub(crate) async fn with(limits: RiskLimits, config: GateConfig) -> Self {
        let clock = ManualClock::default();
        let store = Arc::new(MemoryStateStore::new(Arc::new(clock.clone())));
        Self::on(store, clock, limits, config).await
    }

    /// As after a crash: nothing is left but the store.
    pub(crate) async fn rebuild(&self) -> Self {
        let store = Arc::clone(self.store.inner());
        Self::on(store, self.clock.clone(), self.limits.clone(), self.config.clone()).await
    }

    async fn on(store: Arc<dyn StateStore>, clock: ManualClock, limits: RiskLimits, config: GateConfig) -> Self {
        let store = FaultyStore::new(store);
        let shared: Arc<dyn Clock> = Arc::new(SleepMoves(clock.clone()));
        let (bot, namespace) = ("bot-1".parse().unwrap(), Namespace::new("ledger").unwrap());
        let ledger: Arc<dyn StateStore> = store.clone();
        let switch =
            EmergencyController::builder(Clone::clone(&bot), ledger.clone(), namespace.clone(), shared.clone()).build();
        let emergency = Arc::new(switch.unwrap());
        emergency.refresh().await.unwrap();
        let risk = RiskEngine::new(ledger.clone(), namespace.clone(), shared.clone(), limits.clone()).unwrap();
        let risk = Arc::new(risk);
        risk.restore().await.unwrap();
        risk.register_instrument(spec()).unwrap();
        risk.open_account("main".parse().unwrap(), "USDT".parse().unwrap(), dec("10000")).await.unwrap();
        let latency = MemoryLatencyMonitor::new(Default::default(), shared.clone()).unwrap();
        let parts = GateParts {
            bot,
            ledger,
            namespace: namespace.clone(),
            risk: risk.clone(),
            emergency: emergency.clone(),
            decision_clock: shared.clone(),
            system_clock: shared,
            approve_latency: latency.register("gate", "approve"),
            place_latency: latency.register("gate", "place"),
            report_latency: latency.register("gate", "report"),
        };
        let gate = Arc::new(OrderGate::new(parts, config.clone()));
        let world = Self { clock, store, namespace, risk, emergency, gate, limits, config };
        world.quote("99.99", "100.01");
        world
    }

    pub(crate) fn quote(&self, bid: &str, ask: &str) {
        let quote = Quote { bid: bid.parse().unwrap(), ask: ask.parse().unwrap(), at: self.clock.wall() };
        self.risk.update_market(&spec().id, quote).unwrap();
    }

    pub(crate) async fn buy(&self, id: &str, qty: &str) -> Result<Approved<Order>, GateError> {
        self.gate.approve(order(id, Side::Buy, qty, "100")).await
    }

    pub(crate) async fn sell(&self, id: &str, qty: &str) -> Result<Approved<Order>, GateError> {
        self.gate.approve(order(id, Side::Sell, qty, "100")).await
    }

    pub(crate) async fn report(&self, execution: Execution) -> Reported {
        self.gate.report(execution).await.unwrap()
    }

    /// Buys and fills, so that there is a position.
    pub(crate) async fn hold(&self, id: &str, qty: &str) {
        let venue = Venue::default();
        let approved = self.buy(id, qty).await.unwrap();
        assert!(matches!(self.gate.place(approved, &venue).await.unwrap(), Placed::AtVenue(_)));
        self.report(super::fill(&format!("{id}-fill"), id, qty, "100")).await;
    }

    pub(crate) async fn status(&self, id: &str) -> Option<OrderStatus> {
        self.gate.order(&id.parse().unwrap()).await.unwrap().map(|record| record.status)
    }

    pub(crate) fn position(&self) -> Decimal {
        let (account, instrument) = ("main".parse().unwrap(), spec().id);
        self.risk.position(&account, &instrument).map_or(Decimal::ZERO, |p| p.qty)
    }

    /// Every counter that is not zero, as the store has it.
    pub(crate) async fn used(&self) -> BTreeMap<String, Decimal> {
        let used = self.risk.used().await.unwrap();
        used.into_iter().filter(|(_, v)| !v.is_zero()).map(|(k, v)| (k, v.normalize())).collect()
    }

    /// The audit rows that wait, oldest first.
    pub(crate) async fn rows(&self) -> Vec<AuditRow> {
        let queue = Key::record("outbox/audit/bot-1").unwrap();
        let rows = self.store.inner().outbox_read(&self.namespace, &queue, None, 1_000).await.unwrap();
        rows.iter().map(|row| serde_json::from_slice(&row.payload).unwrap()).collect()
    }

    /// What was done, in order, as the audit rows say it.
    pub(crate) async fn actions(&self) -> Vec<String> {
        self.rows().await.into_iter().map(|row| row.action).collect()
    }
}

/// Nothing is held and nothing is counted.
pub(crate) async fn assert_flat(world: &World) {
    assert_eq!(world.used().await, BTreeMap::new());
    assert!(world.gate.open_orders().await.unwrap().is_empty());
    assert!(!world.gate.has_open_orders());
}
