//! One account or two, three instruments, limits that are all set.

mod differential;
mod rules;
mod steps;

use std::{sync::Arc, time::Duration};

use infra_state_store::MemoryStateStore;
use infra_types::{
    AccountId, Clock, Decimal, Fill, InstrumentId, InstrumentSpec, ManualClock, Money, Namespace, Order, Side,
};

use super::*;
use crate::{
    config::LimitValue,
    engine::RiskEngine,
    rules::{Limit, Mode, Rule, ScopeKind},
};

pub(super) fn dec(text: &str) -> Decimal {
    text.parse().unwrap()
}

pub(super) fn account(number: usize) -> AccountId {
    ["main", "other"][number].parse().unwrap()
}

pub(super) fn strategy(number: usize) -> StrategyId {
    ["trend", "grid"][number].parse().unwrap()
}

/// Quoted in the account's currency, in another, and in whole lots.
pub(super) fn instrument(number: usize) -> InstrumentId {
    ["v/BTCUSD", "v/ETHEUR", "w/DOGUSD"][number].parse().unwrap()
}

pub(super) fn spec(number: usize) -> InstrumentSpec {
    let id = instrument(number);
    InstrumentSpec {
        base: id.symbol.as_str()[..3].parse().unwrap(),
        quote: id.symbol.as_str()[3..].parse().unwrap(),
        id,
        tick_size: [dec("0.01"), dec("0.05"), dec("0.0001")][number],
        lot_size: [dec("0.001"), dec("0.00000001"), dec("1")][number],
        qty_min: ["0.001", "0.00000001", "1"][number].parse().unwrap(),
        qty_max: ["1000", "1000", "1000000000"][number].parse().unwrap(),
        notional_min: dec("1"),
        maker_fee_rate: dec("0.001"),
        taker_fee_rate: dec("0.001"),
    }
}

pub(super) fn limits() -> RiskLimits {
    RiskLimits {
        firm_currency: Some("USD".parse().unwrap()),
        reference_age_max: Some(Duration::from_secs(5)),
        mark_age_max: Some(Duration::from_secs(60)),
        order_qty_max: Some(dec("1000000")),
        order_qty_max_of: [(instrument(0), dec("50"))].into(),
        order_notional_max: Some(dec("5000")),
        exposure_account_max: Some(LimitValue::OfEquity(dec("0.8"))),
        exposure_firm_max: Some(LimitValue::Amount(dec("14000"))),
        position_notional_max: Some(LimitValue::OfEquity(dec("0.5"))),
        open_positions_max: Some(4),
        daily_loss_max: Some(LimitValue::OfEquity(dec("0.05"))),
        drawdown_max: Some(LimitValue::OfEquity(dec("0.1"))),
        groups: [(account(0), "desk".parse().unwrap())].into(),
        ..RiskLimits::default()
    }
}

pub(super) fn rule(id: &str, covers: Coverage, limit: Limit) -> Rule {
    Rule { id: id.into(), covers, limit, warn_at: None, mode: Mode::Enforce }
}

/// A ledger and the shared engine over the same clock; both know the same.
pub(super) struct World {
    pub(super) clock: ManualClock,
    pub(super) local: LocalLedger,
    pub(super) engine: RiskEngine,
}

impl World {
    pub(super) async fn new(limits: RiskLimits) -> Self {
        let clock = ManualClock::default();
        let store = Arc::new(MemoryStateStore::new(Arc::new(clock.clone())));
        let (namespace, shared) = (Namespace::new("ledger").unwrap(), limits.clone());
        let engine = RiskEngine::new(store, namespace, Arc::new(clock.clone()), shared).unwrap();
        engine.restore().await.unwrap();
        let local = LocalLedger::new(limits, LocalSizes::default(), Moment::of(&clock)).unwrap();
        let world = Self { clock, local, engine };
        for number in 0..3 {
            world.engine.register_instrument(spec(number)).unwrap();
            world.local.register_instrument(spec(number)).unwrap();
        }
        world.convert("1.0801");
        for number in 0..2 {
            let currency: Currency = "USD".parse().unwrap();
            world.engine.open_account(account(number), currency, dec("10000")).await.unwrap();
            world.local.open_account(world.engine.account(&account(number)).unwrap()).unwrap();
        }
        world
    }

    pub(super) fn now(&self) -> Moment {
        Moment::of(&self.clock)
    }

    pub(super) fn convert(&self, rate: &str) {
        let [from, to]: [Currency; 2] = ["EUR", "USD"].map(|c| c.parse().unwrap());
        self.engine.set_conversion(from.clone(), to.clone(), dec(rate)).unwrap();
        self.local.set_conversion(from, to, dec(rate)).unwrap();
    }

    pub(super) fn quote(&self, number: usize, bid: Decimal, ask: Decimal) {
        let price = |value: Decimal| infra_types::Price::new(value).unwrap();
        let quote = Quote { bid: price(bid), ask: price(ask), at: self.clock.wall() };
        let by_engine = self.engine.update_market(&instrument(number), quote).is_ok();
        assert_eq!(by_engine, self.local.update_market(&instrument(number), quote, self.now()).is_ok());
    }

    pub(super) fn route(&self, order: &Order) -> Route {
        self.local.route(&order.account, &order.strategy, &order.instrument).unwrap()
    }

    /// The ledger alone.
    pub(super) fn reserve(&self, order: &Order, stance: Stance) -> Result<Reserved, LocalError> {
        self.local.check_and_reserve(self.route(order), order, stance, self.now())
    }
}

/// For the first account and strategy.
pub(super) fn order(number: usize, side: Side, qty: &str, price: &str) -> Order {
    let (qty, price) = (qty.parse().unwrap(), price.parse().unwrap());
    Order::limit("o-1".parse().unwrap(), account(0), strategy(0), instrument(number), side, qty, price)
}

pub(super) fn fill(qty: &str, price: &str) -> Fill {
    let fee = Money::new(dec("0.1"), "USD".parse().unwrap());
    Fill { qty: qty.parse().unwrap(), price: price.parse().unwrap(), fee, is_maker: false }
}

pub(super) fn refusal<T: std::fmt::Debug>(result: Result<T, LocalError>) -> Vec<&'static str> {
    match result {
        Err(LocalError::Refused(decision)) => {
            assert!(!decision.approved, "{decision:?}");
            decision.failures().map(|check| check.code).collect()
        }
        other => panic!("expected a refusal, got {other:?}"),
    }
}
