//! Our ledger, with twenty limits set.

use std::{sync::Arc, time::Duration};

use infra_benches::{bitcoin, buy, quote, runtime};
use infra_risk_engine::{
    AccountState, Coverage, Limit, LimitValue, LocalLedger, LocalSizes, Mode, Moment, Quote, RiskEngine, RiskLimits,
    Route, Rule, ScopeKind, Stance, Ticket,
};
use infra_state_store::MemoryStateStore;
use infra_types::{Clock, Decimal, Namespace, Order, OrderKind, Price, Qty, Scope, SystemClock};

use super::{BURST, ORDERS, Peer, wish};

/// Nine common limits; the venue's four rules are checked besides.
pub(crate) fn common() -> RiskLimits {
    let part = |percent| Some(LimitValue::OfEquity(Decimal::new(percent, 2)));
    RiskLimits {
        firm_currency: Some("USDT".parse().expect("a currency")),
        // The quote is given once, before the bench.
        reference_age_max: Some(Duration::from_secs(36_000)),
        order_qty_max: Some(Decimal::from(100)),
        order_notional_max: Some(Decimal::from(5_000)),
        exposure_account_max: part(10_000),
        exposure_firm_max: part(10_000),
        position_notional_max: part(10_000),
        open_positions_max: Some(50),
        daily_loss_max: part(5),
        drawdown_max: part(20),
        ..RiskLimits::default()
    }
}

fn rules() -> Vec<Rule> {
    let each = Coverage::Each;
    let limits = [
        (each(ScopeKind::Instrument), Limit::PriceCollar(Decimal::new(5, 2))),
        (each(ScopeKind::Instrument), Limit::Spread(Decimal::new(1, 2))),
        (each(ScopeKind::Account), Limit::WorkingOrders(1_000)),
        (each(ScopeKind::Strategy), Limit::Gross(LimitValue::Amount(Decimal::from(500_000)))),
        (each(ScopeKind::Venue), Limit::Gross(LimitValue::Amount(Decimal::from(500_000)))),
        (each(ScopeKind::Account), Limit::Net(LimitValue::Amount(Decimal::from(500_000)))),
        (each(ScopeKind::Position), Limit::LongQty(Decimal::from(500))),
        (each(ScopeKind::Position), Limit::ShortQty(Decimal::from(500))),
        (each(ScopeKind::Account), Limit::OpenPositions(40)),
        (each(ScopeKind::Account), Limit::MessageRate { max: u32::MAX, window: Duration::from_secs(1) }),
        (
            Coverage::One(Scope::Firm),
            Limit::NotionalRate { max: Decimal::from(900_000_000_000_u64), window: Duration::from_secs(1) },
        ),
    ];
    let rule = |(n, (covers, limit)): (usize, (Coverage, Limit))| Rule {
        id: format!("rule-{n}"),
        covers,
        limit,
        warn_at: None,
        mode: Mode::Enforce,
    };
    limits.into_iter().enumerate().map(rule).collect()
}

pub(crate) struct Local {
    ledger: LocalLedger,
    route: Route,
    orders: Vec<Order>,
    tickets: Vec<Ticket>,
    next: usize,
    /// None: the clock is read in every call, as it is by openpit.
    time: Option<Moment>,
}

impl Local {
    /// With the nine common limits, or with eleven rules more.
    pub(crate) fn new(with_rules: bool, reads_clock: bool) -> Self {
        let now = Moment::of(&SystemClock);
        let limits = RiskLimits { rules: if with_rules { rules() } else { Vec::new() }, ..common() };
        let ledger = LocalLedger::new(limits, LocalSizes::default(), now).expect("valid limits");
        ledger.open_account(account()).expect("opened");
        ledger.register_instrument(bitcoin()).expect("registered");
        let (bid, ask) = quote();
        ledger.update_market(&bitcoin().id, Quote { bid, ask, at: now.wall }, now).expect("a quote");
        let orders: Vec<Order> = (0..ORDERS).map(order).collect();
        let route = ledger.route(&orders[0].account, &orders[0].strategy, &orders[0].instrument).expect("a route");
        let time = (!reads_clock).then_some(now);
        Self { ledger, route, orders, tickets: Vec::with_capacity(BURST), next: 0, time }
    }
}

/// An engine over a store in memory, with the common limits and an account of 10,000.
pub(crate) async fn engine() -> RiskEngine {
    let clock = SystemClock::shared();
    let store = Arc::new(MemoryStateStore::new(clock.clone()));
    let namespace = Namespace::new("ledger").expect("a valid namespace");
    let engine = RiskEngine::new(store, namespace, clock.clone(), common()).expect("valid limits");
    engine.restore().await.expect("restored");
    let (account, currency) = ("main".parse().expect("an account"), "USDT".parse().expect("a currency"));
    engine.open_account(account, currency, Decimal::from(10_000)).await.expect("opened");
    engine.register_instrument(bitcoin()).expect("registered");
    let (bid, ask) = quote();
    engine.update_market(&bitcoin().id, Quote { bid, ask, at: clock.wall() }).expect("a quote");
    engine
}

/// The account as the engine keeps it: what a process takes over with the lease.
fn account() -> AccountState {
    let id = "main".parse().expect("an account");
    runtime().block_on(engine()).account(&id).expect("it is open")
}

/// Order number `n`.
pub(crate) fn order(n: usize) -> Order {
    let (qty, price) = wish(n);
    let mut order = buy(&format!("o-{n}"));
    order.qty = Qty::new(Decimal::new(qty, 5)).expect("a quantity");
    order.kind = OrderKind::Limit(Price::new(Decimal::new(price, 2)).expect("a price"));
    order
}

impl Peer for Local {
    fn prepare(&mut self, _: usize) {}

    #[inline]
    fn reserve(&mut self) -> bool {
        let order = &self.orders[self.next % ORDERS];
        self.next += 1;
        let now = self.time.unwrap_or_else(|| Moment { mono: SystemClock.now(), wall: SystemClock.wall() });
        match self.ledger.check_and_reserve(self.route, order, Stance::Open, now) {
            Ok(reserved) => {
                self.tickets.push(reserved.ticket());
                true
            }
            Err(_) => false,
        }
    }

    fn release(&mut self) {
        for ticket in self.tickets.drain(..) {
            self.ledger.end(ticket).expect("it works");
        }
    }
}
