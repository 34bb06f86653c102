//! Traders by the dice: quotes, orders, fills and ends in an order that a seed decides.

use std::{
    collections::{BTreeSet, VecDeque},
    io::Write,
    sync::Arc,
    time::Duration,
};

use infra_risk_engine::{
    Approval, Coverage, Decision, DecisionClock, DecisionRecorder, Limit, LimitValue, Message, Mode, Outcome, Quote,
    RiskError, RiskLimits, Rule, ScopeKind, Stance,
};
use infra_state_store::MemoryStateStore;
use infra_types::{
    AccountId, Clock, Decimal, EventId, Fill, InstrumentId, InstrumentSpec, ManualClock, Money, Namespace, Order,
    OrderKind, Price, Qty, Scope, Side, TimeInForce,
};
use rand::{Rng, SeedableRng, rngs::SmallRng};

/// Orders that work at once, at most.
const WORKING_MAX: usize = 40;

const STRATEGIES: [&str; 3] = ["trend", "carry", "grid"];
/// After so many approvals a person looks after a strategy.
const EXECUTIONS_MAX: u32 = 400;

/// What the dice did.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) decisions: u64,
    pub(crate) approved: u64,
    pub(crate) settled: u64,
    /// Refused orders that two people let through.
    pub(crate) let_through: u64,
}

pub(crate) struct World<W> {
    pub(crate) recorder: DecisionRecorder<W>,
    clock: ManualClock,
    dice: SmallRng,
    accounts: Vec<AccountId>,
    instruments: Vec<(InstrumentId, Decimal)>,
    working: VecDeque<Approval>,
    pub(crate) counts: Counts,
    next_id: u64,
}

fn rule(id: &str, covers: Coverage, limit: Limit, mode: Mode) -> Rule {
    Rule { id: id.into(), covers, limit, warn_at: Some(Decimal::new(8, 1)), mode }
}

fn limits(order_notional_max: i64) -> RiskLimits {
    let (each, minute) = (Coverage::Each, Duration::from_secs(60));
    let amount = |v: i64| LimitValue::Amount(Decimal::from(v));
    RiskLimits {
        firm_currency: Some("USD".parse().unwrap()),
        time_zone: "Europe/Zurich".into(),
        reference_age_max: Some(Duration::from_secs(5)),
        mark_age_max: Some(Duration::from_secs(600)),
        order_qty_max: Some(Decimal::from(500)),
        order_notional_max: Some(Decimal::from(order_notional_max)),
        exposure_account_max: Some(LimitValue::OfEquity(Decimal::new(8, 3))),
        exposure_firm_max: Some(amount(250_000)),
        position_notional_max: Some(amount(40_000)),
        open_positions_max: Some(10),
        daily_loss_max: Some(amount(8_000)),
        drawdown_max: Some(LimitValue::OfEquity(Decimal::new(50, 2))),
        groups: [("alpha", "desk"), ("beta", "desk")].map(|(a, g)| (a.parse().unwrap(), g.parse().unwrap())).into(),
        rules: vec![
            rule("collar", each(ScopeKind::Instrument), Limit::PriceCollar(Decimal::new(5, 2)), Mode::Enforce),
            rule("spread", each(ScopeKind::Instrument), Limit::Spread(Decimal::new(2, 2)), Mode::Enforce),
            rule("net", each(ScopeKind::Group), Limit::Net(amount(60_000)), Mode::Enforce),
            rule("leverage", each(ScopeKind::Account), Limit::Leverage(Decimal::new(5, 3)), Mode::Shadow),
            rule("long", each(ScopeKind::Position), Limit::LongQty(Decimal::from(900)), Mode::Enforce),
            rule("short", each(ScopeKind::Position), Limit::ShortQty(Decimal::from(900)), Mode::Enforce),
            rule("working", each(ScopeKind::Strategy), Limit::WorkingOrders(15), Mode::Enforce),
            rule("loss", each(ScopeKind::Strategy), Limit::DailyLoss(amount(30_000)), Mode::Enforce),
            rule(
                "messages",
                Coverage::One(Scope::Firm),
                Limit::MessageRate { max: 250, window: minute },
                Mode::Enforce,
            ),
            rule(
                "value",
                each(ScopeKind::Account),
                Limit::NotionalRate { max: Decimal::from(400_000), window: minute },
                Mode::Enforce,
            ),
            rule("executions", each(ScopeKind::Strategy), Limit::Executions(EXECUTIONS_MAX), Mode::Enforce),
            rule("cause", Coverage::One(Scope::Firm), Limit::OrdersPerCause { max: 3, window: minute }, Mode::Enforce),
            rule("itself", each(ScopeKind::Account), Limit::SelfMatch, Mode::Enforce),
            rule(
                "calm",
                each(ScopeKind::Instrument),
                Limit::PriceMove { part: Decimal::new(6, 2), window: minute },
                Mode::Enforce,
            ),
            rule("nobody", Coverage::One(Scope::Firm), Limit::UserRequired, Mode::Shadow),
            rule(
                "again",
                Coverage::One(Scope::Firm),
                Limit::Duplicates { window: Duration::from_secs(1) },
                Mode::Enforce,
            ),
        ],
        ..RiskLimits::default()
    }
}

impl<W: Write + Send> World<W> {
    /// Three accounts in two currencies, four instruments.
    pub(crate) async fn new(seed: u64, out: W) -> Result<Self, RiskError> {
        let manual = ManualClock::default();
        let clock = DecisionClock::new(Arc::new(manual.clone()));
        let store = Arc::new(MemoryStateStore::new(Arc::new(clock.clone())));
        let mut recorder = DecisionRecorder::new(store, Namespace::new("ledger")?, clock, limits(20_000), out)?;
        recorder.restore().await?;
        let accounts = [("alpha", "USD"), ("beta", "USD"), ("gamma", "EUR")];
        for (account, currency) in accounts {
            recorder.open_account(account.parse()?, currency.parse()?, Decimal::from(10_000_000)).await?;
        }
        let symbols = [("v/BTC", "USD", 100), ("v/ETH", "USD", 50), ("w/SOL", "EUR", 20), ("w/XRP", "USD", 2)];
        for (id, quote, _) in symbols {
            let id: InstrumentId = id.parse()?;
            let base = id.symbol.as_str().parse()?;
            recorder.register_instrument(InstrumentSpec {
                id,
                base,
                quote: quote.parse()?,
                tick_size: Decimal::new(1, 2),
                lot_size: Decimal::new(1, 2),
                qty_min: "0.01".parse()?,
                qty_max: "100000".parse()?,
                notional_min: Decimal::ONE,
                maker_fee_rate: Decimal::ZERO,
                taker_fee_rate: Decimal::new(1, 3),
            })?;
        }
        Ok(Self {
            recorder,
            clock: manual,
            dice: SmallRng::seed_from_u64(seed),
            accounts: accounts.iter().map(|(id, _)| id.parse()).collect::<Result<_, _>>()?,
            instruments: symbols
                .iter()
                .map(|(id, _, mid)| Ok((id.parse()?, Decimal::from(*mid))))
                .collect::<Result<_, infra_types::InvalidValue>>()?,
            working: VecDeque::new(),
            counts: Counts::default(),
            next_id: 0,
        })
    }

    /// Goes on until so many orders are decided; `progress` is told each 10,000.
    pub(crate) async fn run(&mut self, decisions: u64, progress: &mut dyn FnMut(Counts)) -> Result<(), RiskError> {
        self.rates()?;
        for at in 0..self.instruments.len() {
            self.quote(at);
        }
        while self.counts.decisions < decisions {
            let pause = if self.dice.random_ratio(1, 2_000) { 3_600_000 } else { self.dice.random_range(0..400) };
            self.clock.advance(Duration::from_millis(pause));
            if self.dice.random_ratio(1, 5_000) {
                // An operator sets the wall clock back.
                self.clock.set_wall(self.clock.wall().saturating_sub(Duration::from_millis(300)));
            }
            match self.dice.random_range(0..1_000) {
                0..200 => {
                    let at = self.dice.random_range(0..self.instruments.len());
                    self.quote(at);
                }
                200..650 => {
                    self.order().await?;
                    if self.counts.decisions.is_multiple_of(10_000) {
                        progress(self.counts);
                    }
                }
                650..990 => self.settle().await?,
                990..994 => self.recorder.checkpoint().await?,
                994..996 => self.rates()?,
                996 => self.change_limits().await?,
                _ => self.enable().await?,
            }
        }
        while !self.working.is_empty() {
            self.settle().await?;
        }
        Ok(())
    }

    fn rates(&mut self) -> Result<(), RiskError> {
        let rate = Decimal::new(self.dice.random_range(10_500..11_500), 4);
        self.recorder.set_conversion("EUR".parse()?, "USD".parse()?, rate)?;
        self.recorder.set_conversion("USD".parse()?, "EUR".parse()?, Decimal::new(9, 1))
    }

    /// Some are from the future, old or wide, and are refused or refuse orders.
    fn quote(&mut self, at: usize) {
        let (id, mid) = &mut self.instruments[at];
        let moved = *mid * Decimal::new(self.dice.random_range(9_970..=10_030), 4);
        *mid = moved.clamp(Decimal::new(5, 1), Decimal::from(1_000)).round_dp(2);
        let half = if self.dice.random_ratio(1, 50) { *mid / Decimal::from(20) } else { Decimal::new(1, 2) };
        let (bid, ask) = ((*mid - half).round_dp(2), (*mid + half).round_dp(2));
        let mut when = self.clock.wall();
        if self.dice.random_ratio(1, 100) {
            when = when.saturating_add(Duration::from_secs(3));
        }
        if let (Ok(bid), Ok(ask)) = (Price::new(bid), Price::new(ask)) {
            // A refused quote is written down like any other.
            let _ = self.recorder.update_market(id, Quote { bid, ask, at: when });
        }
    }

    fn wish(&mut self) -> Result<Order, RiskError> {
        let (instrument, mid) = self.instruments[self.dice.random_range(0..self.instruments.len())].clone();
        let account = self.accounts[self.dice.random_range(0..self.accounts.len())].clone();
        let side = if self.dice.random_bool(0.5) { Side::Buy } else { Side::Sell };
        let near = self.dice.random_range(9_900..10_100);
        let far = if self.dice.random_ratio(1, 40) { 11_000 } else { near };
        let price = Price::new((mid * Decimal::new(far, 4)).round_dp(2).max(Decimal::new(1, 2)))?;
        let value = Decimal::from(self.dice.random_range(50..22_000));
        let qty = Qty::new((value / price.get()).round_dp(2))?;
        let id = format!("o-{}", self.next_id).parse()?;
        self.next_id += 1;
        let strategy = STRATEGIES[self.dice.random_range(0..STRATEGIES.len())].parse()?;
        let mut order = Order::limit(id, account, strategy, instrument, side, qty, price);
        if self.dice.random_ratio(1, 6) {
            order.kind = OrderKind::Market { worst: price };
            order = order.with_time_in_force(TimeInForce::ImmediateOrCancel);
        }
        if self.dice.random_ratio(1, 5) {
            order = order.reduce_only();
        }
        if !self.dice.random_ratio(1, 30) {
            order = order.caused_by(EventId::new(format!("signal-{}", self.next_id / 4))?);
        }
        Ok(order)
    }

    async fn order(&mut self) -> Result<(), RiskError> {
        if self.working.len() >= WORKING_MAX {
            self.settle().await?;
        }
        let order = self.wish()?;
        let Some(refused) = self.decide(order.clone()).await? else { return Ok(()) };
        let rules: BTreeSet<String> =
            refused.failures().filter_map(|check| check.rule.as_deref()).map(str::to_owned).collect();
        if rules.is_empty() || !self.dice.random_ratio(1, 20) {
            return Ok(());
        }
        // Two people let this one through, and it comes again.
        let (ada, bob) = ("ada".parse()?, "bob".parse()?);
        let life = Duration::from_secs(30);
        self.recorder.request_override(&order, rules, ada, "a hedge", life, &|_| Vec::new()).await?;
        self.recorder.grant_override(&order.account, &order.id, bob, &|_| Vec::new()).await?;
        self.counts.let_through += u64::from(self.decide(order).await?.is_none());
        Ok(())
    }

    /// Why it is refused; none if it works now.
    async fn decide(&mut self, order: Order) -> Result<Option<Decision>, RiskError> {
        let stance = if self.dice.random_ratio(1, 25) { Stance::ReduceOnly } else { Stance::Open };
        self.counts.decisions += 1;
        match self.recorder.check_and_reserve(order, stance, &|_| Vec::new()).await {
            Ok(approval) => {
                self.counts.approved += 1;
                self.working.push_back(approval);
                Ok(None)
            }
            Err(RiskError::Refused(decision)) => Ok(Some(*decision)),
            Err(other) => Err(other),
        }
    }

    async fn change_limits(&mut self) -> Result<(), RiskError> {
        // One in five was thought out on an old version, and is refused.
        let base = self.recorder.engine().limits().version.saturating_sub(u64::from(self.dice.random_ratio(1, 5)));
        let limits = limits(self.dice.random_range(15_000..21_000));
        match self.recorder.set_limits(base, limits, "ada".parse()?, "a review", &|_| Vec::new()).await {
            Ok(_) | Err(RiskError::LimitsChanged { .. }) => Ok(()),
            Err(other) => Err(other),
        }
    }

    async fn enable(&mut self) -> Result<(), RiskError> {
        let strategy = STRATEGIES[self.dice.random_range(0..STRATEGIES.len())].parse()?;
        self.recorder.enable_strategy(&strategy, "bob".parse()?, "looked at its fills", &|_| Vec::new()).await?;
        Ok(())
    }

    /// Fills a part of an order or all of it, or ends it.
    async fn settle(&mut self) -> Result<(), RiskError> {
        let Some(mut approval) = self.working.pop_front() else { return Ok(()) };
        let remaining = approval.reservation.remaining();
        let price = approval.order.kind.price();
        let fee = Money::new(remaining * price.get() * Decimal::new(1, 5), "USD".parse()?);
        let part = (remaining * Decimal::new(self.dice.random_range(1..10), 1)).round_dp(2);
        let (outcome, is_over) = match self.dice.random_range(0..10) {
            0..3 => (None, true),
            3..8 => (Some(Fill { qty: Qty::new(remaining)?, price, fee, is_maker: true }), true),
            _ if part.is_zero() => (None, true),
            _ => (Some(Fill { qty: Qty::new(part)?, price, fee, is_maker: false }), part >= remaining),
        };
        if outcome.is_none() {
            self.recorder.count_message(&approval.order, Message::Cancel).await?;
        }
        let told = outcome.as_ref().map_or(Outcome::End, |fill| Outcome::Fill { fill, is_last: is_over });
        let settled = self.recorder.settle(&approval.order, &approval.reservation, told, &|_| Vec::new()).await?;
        self.counts.settled += 1;
        if !settled.reservation.is_closed() {
            approval.reservation = settled.reservation;
            self.working.push_back(approval);
        }
        Ok(())
    }
}
