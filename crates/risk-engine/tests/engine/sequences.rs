//! Random lives of one position, with halts: an exit never makes a position larger or turns it, and no exit and no cancel is denied.
//! Run by a test, and a million times by the example `prove_reduce_only`.

use std::{sync::Arc, time::Duration};

use infra_risk_engine::{
    Approval, Coverage, Effect, Limit, LimitValue, Message, Mode, Outcome, Quote, RiskEngine, RiskError, RiskLimits,
    Rule, ScopeKind, Stance,
};
use infra_state_store::MemoryStateStore;
use infra_types::{
    AccountId, Clock, Decimal, EventId, Fill, InstrumentId, InstrumentSpec, ManualClock, Money, Namespace, Order, Side,
};

/// What happened in some sequences.
#[derive(Debug, Clone, Copy, Default)]
pub struct Seen {
    /// Orders asked for.
    pub asked: u64,
    /// Exits approved.
    pub exits: u64,
    /// Exits approved in a halt.
    pub exits_in_halt: u64,
    /// Exits that were made smaller.
    pub clipped: u64,
    /// Fills of exits.
    pub exit_fills: u64,
    /// Cancels.
    pub cancels: u64,
    /// Opening orders refused in a halt.
    pub halted: u64,
}

impl Seen {
    /// Adds others.
    pub fn add(&mut self, other: Self) {
        self.asked += other.asked;
        self.exits += other.exits;
        self.exits_in_halt += other.exits_in_halt;
        self.clipped += other.clipped;
        self.exit_fills += other.exit_fills;
        self.cancels += other.cancels;
        self.halted += other.halted;
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): the same seed is the same life.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % sides
    }

    fn qty(&mut self) -> Decimal {
        Decimal::new(i64::try_from(self.roll(300) + 1).unwrap(), 2)
    }
}

/// Limits that are all tight: what opens meets them at once, what exits must not.
fn limits() -> RiskLimits {
    let wide = Some(LimitValue::Amount(Decimal::from(100_000)));
    let minute = Duration::from_secs(60);
    let rule = |id: &str, covers, limit| Rule { id: id.into(), covers, limit, warn_at: None, mode: Mode::Enforce };
    let firm = || Coverage::One(infra_types::Scope::Firm);
    RiskLimits {
        firm_currency: Some("USDT".parse().unwrap()),
        reference_age_max: Some(Duration::from_secs(5)),
        order_qty_max: Some(Decimal::from(1_000)),
        order_notional_max: Some(Decimal::from(100_000)),
        exposure_account_max: wide,
        exposure_firm_max: wide,
        position_notional_max: wide,
        open_positions_max: Some(5),
        daily_loss_max: Some(LimitValue::Amount(Decimal::from(20))),
        drawdown_max: Some(LimitValue::Amount(Decimal::from(20))),
        rules: vec![
            rule("pace", firm(), Limit::MessageRate { max: 4, window: minute }),
            rule("cause", firm(), Limit::OrdersPerCause { max: 3, window: minute }),
            rule("often", Coverage::Each(ScopeKind::Strategy), Limit::Executions(6)),
            rule("twice", firm(), Limit::Duplicates { window: minute }),
            rule("few", Coverage::Each(ScopeKind::Account), Limit::WorkingOrders(3)),
            rule("own", Coverage::Each(ScopeKind::Account), Limit::SelfMatch),
            rule("net", Coverage::Each(ScopeKind::Account), Limit::Net(LimitValue::Amount(Decimal::from(900)))),
        ],
        ..RiskLimits::default()
    }
}

struct Life {
    clock: ManualClock,
    engine: RiskEngine,
    dice: Dice,
    account: AccountId,
    instrument: InstrumentId,
    /// The position by our own books.
    held: Decimal,
    working: Vec<Approval>,
    halted: bool,
    named: u64,
    seen: Seen,
}

impl Life {
    async fn new(seed: u64) -> Self {
        let clock = ManualClock::default();
        let store = Arc::new(MemoryStateStore::new(Arc::new(clock.clone())));
        let namespace = Namespace::new("ledger").unwrap();
        let engine = RiskEngine::new(store, namespace, Arc::new(clock.clone()), limits()).unwrap();
        let (account, instrument): (AccountId, InstrumentId) = ("a".parse().unwrap(), "v/BTCUSDT".parse().unwrap());
        engine.open_account(account.clone(), "USDT".parse().unwrap(), Decimal::from(10_000)).await.unwrap();
        let spec = InstrumentSpec {
            id: instrument.clone(),
            base: "BTC".parse().unwrap(),
            quote: "USDT".parse().unwrap(),
            tick_size: Decimal::new(1, 2),
            lot_size: Decimal::new(1, 2),
            qty_min: "0.01".parse().unwrap(),
            qty_max: "1000".parse().unwrap(),
            notional_min: Decimal::ZERO,
            maker_fee_rate: Decimal::ZERO,
            taker_fee_rate: Decimal::ZERO,
        };
        engine.register_instrument(spec).unwrap();
        let (working, seen) = (Vec::new(), Seen::default());
        let mut life = Self {
            clock,
            engine,
            dice: Dice(seed),
            account,
            instrument,
            held: Decimal::ZERO,
            working,
            halted: false,
            named: 0,
            seen,
        };
        life.quote(Decimal::ONE_HUNDRED);
        life
    }

    fn quote(&mut self, price: Decimal) {
        let price = price.try_into().unwrap();
        let quote = Quote { bid: price, ask: price, at: self.clock.wall() };
        self.engine.update_market(&self.instrument, quote).unwrap();
    }

    /// What no working order would take from the position yet.
    fn free(&self) -> Decimal {
        let takes = |a: &&Approval| (a.order.side == Side::Sell) == self.held.is_sign_positive();
        let taken: Decimal = self.working.iter().filter(takes).map(|a| a.reservation.remaining()).sum();
        (self.held.abs() - taken).max(Decimal::ZERO)
    }

    async fn order(&mut self) {
        let side = if self.dice.roll(2) == 0 { Side::Buy } else { Side::Sell };
        let (qty, price) = (self.dice.qty(), Decimal::new(9_900 + i64::try_from(self.dice.roll(200)).unwrap(), 2));
        self.named += 1;
        let mut order = Order::limit(
            format!("o-{}", self.named).parse().unwrap(),
            self.account.clone(),
            "s".parse().unwrap(),
            self.instrument.clone(),
            side,
            qty.try_into().unwrap(),
            price.try_into().unwrap(),
        );
        order.reduce_only = self.dice.roll(2) == 0;
        order = order.caused_by(EventId::new(format!("e-{}", self.dice.roll(2))).unwrap());
        let opposes = !self.held.is_zero() && self.held.is_sign_positive() == (side == Side::Sell);
        let free = self.free();
        let must_pass = opposes && (qty <= free || (order.reduce_only && !free.is_zero()));
        let stance = if self.halted { Stance::ReduceOnly } else { Stance::Open };
        self.seen.asked += 1;
        match self.engine.check_and_reserve(order, stance, &|_| vec![]).await {
            Ok(approval) => {
                let is_exit = approval.reservation.effect() == Effect::Reduce;
                assert!(is_exit || !self.halted, "something opens in a halt");
                assert_eq!(is_exit, opposes, "what opposes a position is an exit");
                if is_exit {
                    assert!(approval.order.qty.get() <= free, "more than is free: {} of {free}", approval.order.qty);
                    self.seen.exits += 1;
                    self.seen.exits_in_halt += u64::from(self.halted);
                    self.seen.clipped += u64::from(approval.order.qty.get() < qty);
                }
                self.working.push(approval);
            }
            Err(RiskError::Refused(decision)) => {
                assert!(!must_pass, "an exit of {qty} of {free} free is denied: {}", decision.reason());
                self.seen.halted += u64::from(decision.failed("not_reducing_in_halt"));
            }
            Err(other) => panic!("{other}"),
        }
    }

    async fn fill(&mut self, at: usize) {
        let approval = &self.working[at];
        let qty = approval.reservation.remaining().min(self.dice.qty());
        let price = Decimal::new(9_000 + i64::try_from(self.dice.roll(2_000)).unwrap(), 2);
        let fee = Money::new(Decimal::ZERO, "USDT".parse().unwrap());
        let fill = Fill { qty: qty.try_into().unwrap(), price: price.try_into().unwrap(), fee, is_maker: false };
        let outcome = Outcome::Fill { fill: &fill, is_last: false };
        let settled = self.engine.settle(&approval.order, &approval.reservation, outcome, &|_| vec![]).await.unwrap();
        let after = self.held + approval.order.side.signed(fill.qty);
        assert_eq!(settled.position_after.as_ref().unwrap().qty, after);
        if approval.reservation.effect() == Effect::Reduce {
            assert!(after.abs() < self.held.abs(), "an exit made {} to {after}", self.held);
            assert!(after.is_zero() || after.is_sign_positive() == self.held.is_sign_positive(), "turned");
            assert!(!settled.grew_by_reducing);
            self.seen.exit_fills += 1;
        }
        self.held = after;
        self.working[at].reservation = settled.reservation;
        if self.working[at].reservation.is_closed() {
            self.working.remove(at);
        }
    }

    async fn cancel(&mut self, at: usize) {
        let approval = self.working.remove(at);
        let checks = self.engine.count_message(&approval.order, Message::Cancel).await.unwrap();
        assert!(checks.iter().all(|c| c.passed), "a cancel is held back");
        let ended = self.engine.settle(&approval.order, &approval.reservation, Outcome::End, &|_| vec![]).await;
        assert!(ended.unwrap().reservation.is_closed());
        self.seen.cancels += 1;
    }

    async fn step(&mut self) {
        let at = usize::try_from(self.dice.roll(self.working.len().max(1) as u64)).unwrap();
        match self.dice.roll(12) {
            0..=4 => self.order().await,
            5..=8 if !self.working.is_empty() => self.fill(at).await,
            9 if !self.working.is_empty() => self.cancel(at).await,
            10 => self.halted = !self.halted,
            // Time passes and the price moves, or is lost.
            11 => {
                self.clock.advance(Duration::from_secs(4));
                if self.dice.roll(3) > 0 {
                    let price = Decimal::new(9_000 + i64::try_from(self.dice.roll(2_000)).unwrap(), 2);
                    self.quote(price);
                }
            }
            _ => {}
        }
    }
}

/// Lives through one sequence of up to `steps` steps.
pub async fn live(seed: u64, steps: u32) -> Seen {
    let mut life = Life::new(seed).await;
    for _ in 0..steps {
        life.step().await;
    }
    life.seen
}
