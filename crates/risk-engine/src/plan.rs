//! From an order to a decision and the operations that reserve it: pure, from what is in memory.

use infra_state_store::{Delta, Key, Op, StoreError, Ttl, Value, When};
use infra_types::{Decimal, InstrumentSpec, Order, Scaled, Scope, Side};
use serde::Serialize;

use crate::{
    book::{Book, Now, Versioned},
    config::RiskLimits,
    decision::{Check, Decision, code},
    engine::Stance,
    error::RiskError,
    held::HeldOrder,
    ledger::{self, Counter, Metric},
    limits::{self, Bounded},
    moves::{self, Step},
    position::{PLACES, Position},
    reservation::{Approval, Effect, Reservation},
};

/// What an operation of ours is, for when the store answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Role {
    /// A check of a record's version: if it fails, read again.
    Record,
    /// A write of the account's record.
    Account,
    /// A write of the position's record.
    Position,
    /// A write of the strategy's record.
    Strategy,
    /// A write of the strategy's part of the position.
    Part,
    /// The fence under which the order is held.
    Fence(u64),
    /// The record of an order that becomes held.
    HeldNew(Box<HeldOrder>),
    /// The record of a held order that goes on.
    HeldNext(Box<HeldOrder>),
    /// The end of a held order's record.
    HeldEnd(Key),
    /// A counter; out of its bounds means what we knew is old: read again.
    Counter(String),
    /// A counter that a limit bounds; the place of its check.
    Limited(String, usize),
}

/// Operations of ours with their roles, in the order of the batch.
#[derive(Debug, Default)]
pub(crate) struct Ops(pub(crate) Vec<(Op, Role)>);

impl Ops {
    pub(crate) fn check(&mut self, name: &str, when: When) -> Result<(), StoreError> {
        self.0.push((Op::Check { key: ledger::key(name)?, when }, Role::Record));
        Ok(())
    }

    /// Writes a record.
    pub(crate) fn set<T: Serialize>(&mut self, name: &str, value: &T, when: When, role: Role) -> Result<(), RiskError> {
        let value = Value::from(ledger::encode(value, "a record")?);
        self.0.push((Op::Set { key: ledger::key(name)?, value, ttl: Ttl::Never, when }, role));
        Ok(())
    }

    pub(crate) fn add(&mut self, name: String, delta: Delta, check: Option<usize>) -> Result<(), StoreError> {
        let op = Op::Add { key: ledger::key(&name)?, delta, ttl: Ttl::Keep };
        self.0.push((op, check.map_or_else(|| Role::Counter(name.clone()), |at| Role::Limited(name.clone(), at))));
        Ok(())
    }

    /// A free addition, left out if it adds nothing.
    pub(crate) fn move_by(&mut self, name: String, by: i64) -> Result<(), StoreError> {
        if by == 0 { Ok(()) } else { self.add(name, Delta::unbounded(by), None) }
    }
}

pub(crate) fn version_of<T>(known: Option<&Versioned<T>>) -> When {
    known.map_or(When::Absent, |known| When::Version(known.version))
}

#[derive(Debug)]
pub(crate) enum Planned {
    Refused(Decision),
    Go(Box<Approval>, Ops),
}

/// What the order would do, the order that may be sent, and the check that says why not.
fn effect_of(
    order: &Order,
    spec: &InstrumentSpec,
    position: &Position,
    working: Decimal,
    stance: Stance,
) -> Result<(Effect, Order), Check> {
    let scope = || Scope::Instrument(order.instrument.clone());
    if !position.is_opposed_by(order.side) {
        return if order.reduce_only {
            Err(Check::missing(code::NOTHING_TO_REDUCE, scope(), "there is no position on the other side"))
        } else if stance == Stance::ReduceOnly {
            Err(Check::missing(code::NOT_REDUCING_IN_HALT, scope(), "only orders that reduce a position may pass now"))
        } else {
            Ok((Effect::Open, order.clone()))
        };
    }
    let reducible = position.qty.abs().saturating_sub(working).max(Decimal::ZERO);
    if order.qty.get() <= reducible {
        return Ok((Effect::Reduce, order.clone()));
    }
    if !order.reduce_only {
        let check = Check::at_most(code::WOULD_FLIP, scope(), order.qty.get(), reducible);
        return Err(check.with_note("more than the position less working reduces: close it first"));
    }
    let qty = spec.floor_to_lot(reducible);
    if qty.get().is_zero() {
        let check = Check::at_most(code::NOTHING_TO_REDUCE, scope(), order.qty.get(), reducible);
        return Err(check.with_note("working orders reduce all of it already"));
    }
    Ok((Effect::Reduce, Order { qty, ..order.clone() }))
}

pub(crate) fn plan(
    book: &Book,
    limits: &RiskLimits,
    now: Now,
    order: &Order,
    stance: Stance,
) -> Result<Planned, StoreError> {
    let refused = |checks| Ok(Planned::Refused(Decision::over(order.id.clone(), checks)));
    let (Some(account), Some(spec)) = (book.accounts.get(&order.account), book.specs.get(&order.instrument)) else {
        let mut checks = Vec::new();
        if !book.accounts.contains_key(&order.account) {
            let scope = Scope::Account(order.account.clone());
            checks.push(Check::missing(code::UNKNOWN_ACCOUNT, scope, "open the account first"));
        }
        if !book.specs.contains_key(&order.instrument) {
            let scope = Scope::Instrument(order.instrument.clone());
            checks.push(Check::missing(code::UNKNOWN_INSTRUMENT, scope, "register the instrument first"));
        }
        return refused(checks);
    };
    let known = book.position(&order.account, &order.instrument);
    let flat = Position::default();
    let position = known.map_or(&flat, |p| &p.value);
    let reducing = ledger::reducing(&order.account, &order.instrument);
    let working = ledger::figure(&reducing, book.counter(&reducing));
    let (effect, order) = match effect_of(order, spec, position, working, stance) {
        Ok(found) => found,
        Err(check) => return refused(limits::spec(spec, order).into_iter().chain([check]).collect()),
    };

    let mut checks: Vec<Check> = limits::spec(spec, &order).into_iter().collect();
    let mut ops = Ops::default();
    ops.check(&ledger::account(&order.account), When::Version(account.version))?;
    ops.check(&ledger::position(&order.account, &order.instrument), version_of(known))?;
    let mut reservation = Reservation {
        order: order.id.clone(),
        account: order.account.clone(),
        instrument: order.instrument.clone(),
        strategy: order.strategy.clone(),
        group: limits.groups.get(&order.account).cloned(),
        side: order.side,
        effect,
        remaining: order.qty.get(),
        hold: Scaled::ZERO,
        hold_firm: Scaled::ZERO,
        hold_reducing: 0,
        whole: spec.lot_size.fract().is_zero(),
        base: spec.base.clone(),
        quote: spec.quote.clone(),
        rate: book.rates.get(&spec.quote, &account.value.currency),
        firm_rate: limits.firm_currency.as_ref().and_then(|firm| book.rates.get(&account.value.currency, firm)),
        recorded: false,
    };
    match effect {
        Effect::Reduce => {
            let scope = Scope::Instrument(order.instrument.clone());
            let reducible = position.qty.abs().saturating_sub(working);
            checks.push(Check::at_most(code::WOULD_FLIP, scope, order.qty.get(), reducible));
            // More than a counter can hold leaves in several orders.
            let there = ledger::qty_there(position.qty.abs()).unwrap_or(Scaled::MAX);
            match ledger::qty_held(order.qty.get()) {
                Some(held) => {
                    reservation.hold_reducing = held;
                    ops.add(reducing, Delta::at_most(held, there), None)?;
                }
                None => {
                    let scope = Scope::Instrument(order.instrument.clone());
                    let max = ledger::figure(&reducing, Scaled::MAX);
                    let check = Check::at_most(code::POSITION_QTY, scope, order.qty.get(), max);
                    checks.push(check.with_note("split the order"));
                }
            }
        }
        Effect::Open => open(book, limits, now, &order, spec, position, &mut reservation, &mut checks, &mut ops)?,
    }
    let decision = Decision::over(order.id.clone(), checks);
    if !decision.approved {
        return Ok(Planned::Refused(decision));
    }
    Ok(Planned::Go(Box::new(Approval { order, reservation, decision }), ops))
}

/// What the order may be worth at most: a buy fills at its price or lower, a sell may fill as high as the bid.
fn worst_notional(order: &Order, bid: Option<Decimal>) -> Option<Decimal> {
    let price = order.kind.price().get();
    let price = if order.side == Side::Sell { price.max(bid.unwrap_or(price)) } else { price };
    price.checked_mul(order.qty.get())
}

/// Adds a failed check unless it is there.
fn note_once(checks: &mut Vec<Check>, check: Check) {
    if !checks.iter().any(|c| !c.passed && (c.code, &c.scope) == (check.code, &check.scope)) {
        checks.push(check);
    }
}

#[expect(clippy::too_many_arguments, reason = "one step of `plan`, split off for its length")]
fn open(
    book: &Book,
    limits: &RiskLimits,
    now: Now,
    order: &Order,
    spec: &InstrumentSpec,
    position: &Position,
    reservation: &mut Reservation,
    checks: &mut Vec<Check>,
    ops: &mut Ops,
) -> Result<(), StoreError> {
    let Some(account) = book.accounts.get(&order.account).map(|a| &a.value) else { return Ok(()) };
    let of_account = || Scope::Account(order.account.clone());
    checks.push(limits::order_qty(limits, order));
    let quote = book.market.quote(&order.instrument, now.mono);
    checks.push(limits::reference_price(limits, &order.instrument, quote));
    if reservation.rate.is_none() {
        let note = format!("set the rate from {} to {}", spec.quote, account.currency);
        checks.push(Check::missing(code::MISSING_CONVERSION, of_account(), note));
    }
    match (&limits.firm_currency, reservation.firm_rate) {
        (None, _) => checks.push(Check::unset("firm_currency", Scope::Firm)),
        (Some(firm), None) => {
            let note = format!("set the rate from {} to {firm}", account.currency);
            checks.push(Check::missing(code::MISSING_CONVERSION, Scope::Firm, note));
        }
        _ => {}
    }

    // The equity; what it lacks is a check of its own, unless the order's own instrument failed for the same reason.
    let unrealised = book.unrealised(account, None, now, limits.mark_age());
    let pnl = match unrealised {
        Ok(unrealised) => Some(account.pnl(unrealised)),
        Err(check) => {
            note_once(checks, check);
            None
        }
    };
    checks.push(limits::daily_loss(limits, account, pnl));
    checks.push(limits::drawdown(limits, account, pnl));
    let equity = pnl.map(|pnl| account.deposits.saturating_add(pnl));
    let firm_equity = match (&limits.firm_currency, limits.exposure_firm_max) {
        (Some(firm), Some(limit)) if limit.needs_equity() => match book.firm_equity(firm, now, limits.mark_age()) {
            Ok(equity) => Some(equity),
            Err(check) => {
                note_once(checks, check);
                None
            }
        },
        _ => None,
    };

    let to_hold = |value: Option<Decimal>| value.map(|v| v.round_dp(PLACES)).and_then(|v| Scaled::used(v).ok());
    let worst = worst_notional(order, quote.map(|(q, _)| q.bid.get()));
    let mut bounded: Vec<(String, i64, Bounded)> = Vec::new();
    let mut judge = |name: String, by: i64, found: Result<Bounded, Check>, checks: &mut Vec<Check>| match found {
        Ok(found) => bounded.push((name, by, found)),
        Err(check) => checks.push(check),
    };
    if let (Some(rate), Some(firm_rate)) = (reservation.rate, reservation.firm_rate) {
        let notional = worst.and_then(|worst| worst.checked_mul(rate));
        let firm = notional.and_then(|notional| notional.checked_mul(firm_rate));
        if let (Some(notional), Some(hold), Some(hold_firm)) = (notional, to_hold(notional), to_hold(firm)) {
            (reservation.hold, reservation.hold_firm) = (hold, hold_firm);
            checks.push(limits::order_notional(limits, &order.account, notional));
            let name = Counter::of(Metric::Gross, Scope::Firm).name();
            let used = book.counter(&name);
            judge(name, hold_firm.raw(), limits::exposure_firm(limits, firm_equity, used, hold_firm), checks);
            let name = Counter::of(Metric::Gross, of_account()).name();
            let used = book.counter(&name);
            let found = limits::exposure_account(limits, &order.account, equity, used, hold);
            judge(name, hold.raw(), found, checks);
            let name = Counter::of_position(Metric::Gross, &order.account, &order.instrument).name();
            let used = book.counter(&name);
            let found = limits::position_notional(limits, &order.instrument, equity, used, hold);
            judge(name, hold.raw(), found, checks);
        } else {
            checks.push(Check::missing(code::OVERFLOW, of_account(), "the order's value is too large to count"));
        }
    }
    let step = Step { reservation: (None, reservation), position: (position, position), part: (position, position) };
    let Some(moves) = step.moves() else {
        let check = Check::missing(code::POSITION_QTY, Scope::Instrument(order.instrument.clone()), "split the order");
        checks.push(check);
        return Ok(());
    };
    let slot = step.slot(book, &moves);
    let opening = Counter::of_position(Metric::Orders, &order.account, &order.instrument);
    let [slots_firm, slots_account] = moves::slot_counters(reservation).map(|counter| counter.name());
    let found = limits::max_positions(limits, book.counter(&slots_firm), slot.slots);
    judge(slots_firm, slot.slots, found, checks);

    if let Some(delta) = slot.opening {
        ops.add(opening.name(), delta, None)?;
    }
    ops.move_by(slots_account, slot.slots)?;
    let going = checks.iter().all(|c| c.passed);
    let mut rest = moves;
    rest.0.remove(&opening);
    for (name, by, mut found) in bounded {
        // An order that goes asks the store; for one that does not, the last known usage explains.
        found.check.passed = by == 0 || going || found.check.value <= found.check.limit;
        checks.push(found.check);
        rest.0.retain(|counter, _| counter.name() != name);
        if by != 0 {
            ops.add(name, Delta::at_most(by, found.max), Some(checks.len() - 1))?;
        }
    }
    for (counter, by) in &rest.0 {
        ops.add(counter.name(), Delta::unbounded(*by), None)?;
    }
    Ok(())
}
