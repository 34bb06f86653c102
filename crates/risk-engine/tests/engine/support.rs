//! One account, two instruments, limits that are all set.

use std::{sync::Arc, time::Duration};

use infra_risk_engine::{
    Approval, Coverage, Decision, Limit, LimitValue, Mode, Outcome, Quote, RiskEngine, RiskError, RiskLimits, Rule,
    Settled, Stance,
};
use infra_state_store::{MemoryStateStore, StateStore};
use infra_types::{
    AccountId, Clock, Decimal, Fill, InstrumentId, InstrumentSpec, ManualClock, Money, Namespace, Order, Side,
};

pub(crate) fn dec(text: &str) -> Decimal {
    text.parse().unwrap()
}

pub(crate) fn account() -> AccountId {
    "main".parse().unwrap()
}

pub(crate) fn btc() -> InstrumentId {
    "v/BTCUSDT".parse().unwrap()
}

pub(crate) fn eth() -> InstrumentId {
    "v/ETHUSDT".parse().unwrap()
}

pub(crate) fn spec(id: &InstrumentId) -> InstrumentSpec {
    InstrumentSpec {
        id: id.clone(),
        base: id.symbol.as_str()[..3].parse().unwrap(),
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

pub(crate) fn limits() -> RiskLimits {
    RiskLimits {
        firm_currency: Some("USDT".parse().unwrap()),
        reference_age_max: Some(Duration::from_secs(5)),
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

/// An enforced rule without a warning.
pub(crate) fn rule(id: &str, covers: Coverage, limit: Limit) -> Rule {
    Rule { id: id.into(), covers, limit, warn_at: None, mode: Mode::Enforce }
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

    /// An engine that knows nothing but its limits.
    pub(crate) fn bare(&self, limits: RiskLimits) -> RiskEngine {
        let clock = Arc::new(self.clock.clone());
        RiskEngine::new(self.store.clone(), Namespace::new("ledger").unwrap(), clock, limits).unwrap()
    }

    /// An engine with the account (10,000 USDT), both instruments and their quotes at 100.
    pub(crate) async fn engine(&self, limits: RiskLimits) -> RiskEngine {
        let engine = self.bare(limits);
        engine.restore().await.unwrap();
        engine.open_account(account(), "USDT".parse().unwrap(), dec("10000")).await.unwrap();
        for id in [btc(), eth()] {
            engine.register_instrument(spec(&id)).unwrap();
            self.quote(&engine, &id, "100");
        }
        engine
    }

    pub(crate) fn quote(&self, engine: &RiskEngine, id: &InstrumentId, mid: &str) {
        let price = mid.parse().unwrap();
        engine.update_market(id, Quote { bid: price, ask: price, at: self.clock.wall() }).unwrap();
    }
}

pub(crate) fn order(id: &str, instrument: &InstrumentId, side: Side, qty: &str, price: &str) -> Order {
    Order::limit(
        id.parse().unwrap(),
        account(),
        "s".parse().unwrap(),
        instrument.clone(),
        side,
        qty.parse().unwrap(),
        price.parse().unwrap(),
    )
}

pub(crate) async fn reserve(engine: &RiskEngine, order: Order, stance: Stance) -> Result<Approval, RiskError> {
    engine.check_and_reserve(order, stance, &|_| vec![]).await
}

pub(crate) fn refusal(result: Result<Approval, RiskError>) -> Decision {
    match result {
        Err(RiskError::Refused(decision)) => {
            assert!(!decision.approved);
            *decision
        }
        other => panic!("expected a refusal, got {other:?}"),
    }
}

pub(crate) fn fill(qty: &str, price: &str, fee: &str, currency: &str) -> Fill {
    Fill {
        qty: qty.parse().unwrap(),
        price: price.parse().unwrap(),
        fee: Money::new(dec(fee), currency.parse().unwrap()),
        is_maker: false,
    }
}

pub(crate) async fn settle(engine: &RiskEngine, approval: &mut Approval, outcome: Outcome<'_>) -> Settled {
    let settled = engine.settle(&approval.order, &approval.reservation, outcome, &|_| vec![]).await.unwrap();
    approval.reservation = settled.reservation.clone();
    settled
}

/// Reserves and fills all of it without a fee.
pub(crate) async fn trade(engine: &RiskEngine, order: Order) -> Settled {
    let mut approval = reserve(engine, order, Stance::Open).await.unwrap();
    let price = approval.order.kind.price().to_string();
    let fill = fill(&approval.order.qty.to_string(), &price, "0", "USDT");
    settle(engine, &mut approval, Outcome::Fill { fill: &fill, is_last: true }).await
}

pub(crate) async fn assert_nothing_used(engine: &RiskEngine) {
    let used = engine.used().await.unwrap();
    assert!(used.iter().all(|(_, figure)| figure.is_zero()), "{used:?}");
}
